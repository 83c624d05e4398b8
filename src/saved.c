// SPDX-License-Identifier: GPL-2.0-only
/*
 * A copy of config space as it was when the GPU was first used, for resets that
 * restore nothing, and for those that begin with BARs that are lost. Without its
 * BARs, a GPU can't be checked for readiness, scrubbed or opened again.
 */
#include <linux/pci.h>
#include <linux/slab.h>

#include "nvgrace_gpu.h"

/* Whether @low and @high, of BAR0, are what the kernel has put there. */
static bool is_bar0(struct pci_dev *pdev, u32 low, u32 high)
{
	u64 bar0 = pci_bus_address(pdev, 0);

	/* At a multiple of 4 GiB, only the high half shows it. */
	return (low & PCI_BASE_ADDRESS_MEM_MASK) == lower_32_bits(bar0) &&
	       (!(pci_resource_flags(pdev, 0) & IORESOURCE_MEM_64) ||
		high == upper_32_bits(bar0));
}

/* The same of the device. False if config space can't be read. */
static bool has_bar0(struct pci_dev *pdev)
{
	u32 low, high;

	return !pci_read_config_dword(pdev, PCI_BASE_ADDRESS_0, &low) &&
	       !pci_read_config_dword(pdev, PCI_BASE_ADDRESS_1, &high) &&
	       is_bar0(pdev, low, high);
}

bool nvgrace_gpu_saved_lost_bars(struct nvgrace_gpu *gpu)
{
	struct pci_dev *pdev = gpu->core.pdev;

	return gpu->bar0_readable ? !has_bar0(pdev) :
				    !pci_device_is_present(pdev);
}

void nvgrace_gpu_saved_restore(struct nvgrace_gpu *gpu)
{
	struct pci_saved_state *state = READ_ONCE(gpu->saved_state);
	struct pci_dev *pdev = gpu->core.pdev;

	/* Without a state, newer kernels would restore what they find. */
	if (state && !pci_load_saved_state(pdev, state))
		pci_restore_state(pdev);
}

void nvgrace_gpu_saved_make(struct nvgrace_gpu *gpu, bool read)
{
	struct pci_dev *pdev = gpu->core.pdev;
	const u32 *copy = pdev->saved_config_space;
	struct pci_saved_state *state;

	if (gpu->saved_state)
		return;
	if (read)
		pci_save_state(pdev);
	/* The copy, not the device, which has had time to change. */
	if (gpu->bar0_readable && !is_bar0(pdev, copy[PCI_BASE_ADDRESS_0 / 4],
					   copy[PCI_BASE_ADDRESS_1 / 4]))
		return;
	state = pci_store_saved_state(pdev);
	/* Pairs with the READ_ONCE() of handlers, which run meanwhile. */
	smp_store_release(&gpu->saved_state, state);
}

void nvgrace_gpu_saved_init(struct nvgrace_gpu *gpu)
{
	/* Virtual functions and Enhanced Allocation have registers of 0. */
	gpu->bar0_readable = pci_resource_flags(gpu->core.pdev, 0) &
			     IORESOURCE_MEM && has_bar0(gpu->core.pdev);
}

void nvgrace_gpu_saved_exit(struct nvgrace_gpu *gpu)
{
	kfree(gpu->saved_state);
	gpu->saved_state = NULL;
}
