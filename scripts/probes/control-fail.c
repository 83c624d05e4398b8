// SPDX-License-Identifier: GPL-2.0-only
/*
 * Control: must be absent on every kernel. If it is found, the probes don't
 * compile what they claim.
 *
 * absent-if: no member named 'nvgrace_gpu_no_such_member'
 */
#include <linux/vfio_pci_core.h>

static void __maybe_unused probe_control_fail(struct vfio_pci_core_device *core)
{
	core->nvgrace_gpu_no_such_member = NULL;
}
