// SPDX-License-Identifier: GPL-2.0-only
/*
 * Handles what the PCI core reports about the function: resets, and errors on
 * its link. It calls these handlers with the device lock held. For a GPU without
 * memory, they do what vfio-pci-core's do. Owns a copy of config space, and
 * restores it where the PCI core does not; gate.c decides what a report means for
 * the memory.
 */
#include <linux/pci.h>
#include <linux/pm_runtime.h>
#include <linux/slab.h>

#include "compat/compat.h"
#include "nvgrace_gpu.h"
#include "trace.h"

/* ---- config space ------------------------------------------------------- */

/* Whether BAR0 in config space is what the kernel has put there. */
static bool has_bar0(struct pci_dev *pdev)
{
	u64 bar0 = pci_bus_address(pdev, 0);
	u32 low, high = 0;

	if (!(pci_resource_flags(pdev, 0) & IORESOURCE_MEM))
		return true;
	if (pci_read_config_dword(pdev, PCI_BASE_ADDRESS_0, &low))
		return false;
	/* At a multiple of 4 GiB, only the high half shows it. */
	if (pci_resource_flags(pdev, 0) & IORESOURCE_MEM_64 &&
	    pci_read_config_dword(pdev, PCI_BASE_ADDRESS_1, &high))
		return false;
	return (low & PCI_BASE_ADDRESS_MEM_MASK) == lower_32_bits(bar0) &&
	       high == upper_32_bits(bar0);
}

/*
 * Whether a reset that restored nothing has cleared the BARs. Also true if
 * config space can't be read.
 */
static bool has_lost_bars(struct nvgrace_gpu *gpu)
{
	struct pci_dev *pdev = gpu->core.pdev;

	return gpu->bar0_readable ? !has_bar0(pdev) :
				    !pci_device_is_present(pdev);
}

/* Restores config space as it was when it was saved, if that was possible. */
static void restore_config(struct nvgrace_gpu *gpu)
{
	struct pci_saved_state *state = READ_ONCE(gpu->saved_state);
	struct pci_dev *pdev = gpu->core.pdev;

	/* Without a state, newer kernels would restore what they find. */
	if (state && !pci_load_saved_state(pdev, state))
		pci_restore_state(pdev);
}

/* ---- resets ------------------------------------------------------------- */

/*
 * The PCI core calls this pair around every reset but the one of vfio-pci-core
 * at close: at open, by ioctl, FLR in config space, hot reset, sysfs, and
 * before a scrub. vfio-pci-core holds memory_lock for write, except at open.
 * sysfs and scrubs hold only the device lock.
 */
static void reset_prepare(struct pci_dev *pdev)
{
	struct nvgrace_gpu *gpu = dev_to_nvgrace_gpu(&pdev->dev);

	if (gpu->usemem.length)
		nvgrace_gpu_gate_reset_begin(gpu);
}

static void reset_done(struct pci_dev *pdev)
{
	struct nvgrace_gpu *gpu = dev_to_nvgrace_gpu(&pdev->dev);

	if (!gpu->usemem.length)
		return;
	/*
	 * The PCI core restores what config space was before the reset. After a
	 * failed recovery the BARs were lost then, and beside a close of the
	 * device it restores nothing.
	 */
	if (has_lost_bars(gpu))
		restore_config(gpu);
	nvgrace_gpu_gate_reset_end(gpu);
	trace_nvgrace_gpu_reset(pdev, NVGRACE_GPU_RESET_DONE);
}

/* ---- errors on the link ------------------------------------------------- */

/*
 * An error that does not freeze the link changes nothing, even if recovery from
 * it fails, unless a link reset was part of that. After a recovery that failed,
 * the link works if the GPU answers and has its BARs; its memory may have to be
 * trained again.
 */
static pci_ers_result_t error_detected(struct pci_dev *pdev,
				       pci_channel_state_t state)
{
	struct nvgrace_gpu *gpu = dev_to_nvgrace_gpu(&pdev->dev);
	pci_ers_result_t ret;

	if (!gpu->usemem.length)
		return vfio_pci_core_aer_err_detected(pdev, state);

	if (state == pci_channel_io_frozen ||
	    (state == pci_channel_io_perm_failure && has_lost_bars(gpu)))
		nvgrace_gpu_gate_link_freeze(gpu);
	else if (state == pci_channel_io_perm_failure &&
		 READ_ONCE(gpu->link_frozen))
		nvgrace_gpu_gate_link_works(gpu, true);
	if (state == pci_channel_io_perm_failure &&
	    READ_ONCE(gpu->link_frozen))
		dev_err_ratelimited(&pdev->dev,
				    "recovery from a PCIe error failed: GPU memory can't be used; reset the device or open it again\n");
	ret = vfio_pci_core_aer_err_detected(pdev, state);
	/* The link will be reset; demand the call of slot_reset() after that. */
	return state == pci_channel_io_frozen ? PCI_ERS_RESULT_NEED_RESET : ret;
}

/*
 * The link was reset. The AER core does not call reset_done() then and, unlike
 * other resets, restores nothing. Without its BARs, the device can't be checked
 * for readiness or opened again.
 */
static pci_ers_result_t slot_reset(struct pci_dev *pdev)
{
	struct nvgrace_gpu *gpu = dev_to_nvgrace_gpu(&pdev->dev);
	bool lost, awake;

	if (!gpu->usemem.length)
		return PCI_ERS_RESULT_NONE;

	awake = !pm_runtime_resume_and_get(&pdev->dev);
	down_write(&gpu->core.memory_lock);
	nvgrace_gpu_gate_link_reset(gpu);
	if (awake)
		restore_config(gpu);
	lost = has_lost_bars(gpu);
	up_write(&gpu->core.memory_lock);

	if (awake)
		pm_runtime_put(&pdev->dev);
	trace_nvgrace_gpu_reset(pdev, NVGRACE_GPU_RESET_ERROR);
	return lost ? PCI_ERS_RESULT_DISCONNECT : PCI_ERS_RESULT_RECOVERED;
}

/* Recovery has succeeded for all devices on the bus. */
static void error_resume(struct pci_dev *pdev)
{
	struct nvgrace_gpu *gpu = dev_to_nvgrace_gpu(&pdev->dev);
	bool awake;

	if (!gpu->usemem.length || !READ_ONCE(gpu->link_frozen))
		return;
	/* An earlier error may have cost it its BARs, which this one didn't. */
	awake = !pm_runtime_resume_and_get(&pdev->dev);
	if (!has_lost_bars(gpu))
		nvgrace_gpu_gate_link_works(gpu, false);
	if (awake)
		pm_runtime_put(&pdev->dev);
}

const struct pci_error_handlers nvgrace_gpu_reset_handlers = {
	.error_detected	= error_detected,
	.slot_reset	= slot_reset,
	.resume		= error_resume,
	.reset_prepare	= reset_prepare,
	.reset_done	= reset_done,
};

/* ---- from probe to remove ----------------------------------------------- */

void nvgrace_gpu_reset_start(struct nvgrace_gpu *gpu)
{
	/* Virtual functions and Enhanced Allocation have registers of 0. */
	gpu->bar0_readable = has_bar0(gpu->core.pdev);
	/*
	 * Not for a GPU that goes to sleep until it is opened: waking up, the
	 * kernel restores what it has saved itself. Most binds would take twice
	 * as long.
	 */
	if (gpu->usemem.length &&
	    (gpu->kept_awake || nvgrace_gpu_scrub_wanted()))
		nvgrace_gpu_reset_save(gpu, true);
}

void nvgrace_gpu_reset_save(struct nvgrace_gpu *gpu, bool read)
{
	struct pci_dev *pdev = gpu->core.pdev;
	struct pci_saved_state *state;

	if (gpu->saved_state || has_lost_bars(gpu))
		return;
	if (read)
		pci_save_state(pdev);
	state = pci_store_saved_state(pdev);
	/* Pairs with the READ_ONCE() of handlers, which run meanwhile. */
	smp_store_release(&gpu->saved_state, state);
}

void nvgrace_gpu_reset_stop(struct nvgrace_gpu *gpu)
{
	kfree(gpu->saved_state);
	gpu->saved_state = NULL;
}
