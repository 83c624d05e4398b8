// SPDX-License-Identifier: GPL-2.0-only
/*
 * Control: must be found on every kernel. If it is absent, the compiler is
 * broken or headers are missing, and the other probes say nothing about the
 * kernel.
 */
#include <linux/module.h>
#include <linux/vfio_pci_core.h>

static int __maybe_unused probe_control_pass(struct vfio_pci_core_device *core)
{
	return core->pdev ? 0 : vfio_pci_core_enable(core);
}
