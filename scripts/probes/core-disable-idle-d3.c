// SPDX-License-Identifier: GPL-2.0-only
/*
 * Whether a GPU that is not open stays in D0, as a member of vfio-pci-core's
 * device. Without it, it is a variable of vfio-pci-core that only vfio-pci sets,
 * and the driver holds a reference of runtime power management.
 * Since Linux 7.2, 4575e9aac533 ("vfio/pci: Latch disable_idle_d3 per device"), and
 * in stable releases of older kernels.
 *
 * absent-if: no member named 'disable_idle_d3'
 */
#include <linux/vfio_pci_core.h>

static void __maybe_unused
probe_core_disable_idle_d3(struct vfio_pci_core_device *core)
{
	core->disable_idle_d3 = true;
}
