// SPDX-License-Identifier: GPL-2.0-only
/*
 * Handles what the PCI core reports about the function: resets, and errors on
 * its link. It calls these handlers with the device lock held. For a GPU without
 * memory, they do what vfio-pci-core's do, except that its resets wait for an
 * open, too. gate.c decides what a report means for the memory, and saved.c has
 * the config space to restore where the PCI core restores none.
 */
#include <linux/pci.h>
#include <linux/pm_runtime.h>

#include "compat/compat.h"
#include "nvgrace_gpu.h"
#include "trace.h"

/* ---- resets ------------------------------------------------------------- */

void nvgrace_gpu_reset_open_begins(struct nvgrace_gpu *gpu)
{
	WRITE_ONCE(gpu->opening, current);
}

void nvgrace_gpu_reset_open_ends(struct nvgrace_gpu *gpu)
{
	/* Pairs with the acquire in may_reset(). */
	smp_store_release(&gpu->opening, NULL);
	/*
	 * Unlike wake_up_var(), it takes the queue's lock to look for waiters, and
	 * so can't look before the store is visible.
	 */
	wake_up_all(&gpu->opened);
}

/* Whether no other task opens the device. */
static bool may_reset(struct nvgrace_gpu *gpu)
{
	/* Pairs with the release at the open's end. */
	struct task_struct *task = smp_load_acquire(&gpu->opening);

	return !task || task == current;
}

/*
 * The PCI core calls this pair around the resets at open, by ioctl, FLR in
 * config space, hot reset, sysfs, and before a scrub; but not around the one of
 * vfio-pci-core at close, nor that of an error. vfio-pci-core holds memory_lock
 * for write, except at open. sysfs and scrubs hold only the device lock.
 *
 * An open reads config space after its own reset, for which vfio-pci-core only
 * tries to take the device lock. So a reset of another task that begins
 * meanwhile waits here, and the open fails with -EAGAIN if it has begun before.
 */
static void reset_prepare(struct pci_dev *pdev)
{
	struct nvgrace_gpu *gpu = dev_to_nvgrace_gpu(&pdev->dev);

	wait_event(gpu->opened, may_reset(gpu));
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
	if (nvgrace_gpu_saved_lost_bars(gpu))
		nvgrace_gpu_saved_restore(gpu);
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

	/* DPC tells of an error after it has reset the bus. */
	if (state == pci_channel_io_frozen)
		nvgrace_gpu_scrub_doubt(gpu);
	if (state == pci_channel_io_frozen ||
	    (state == pci_channel_io_perm_failure &&
	     nvgrace_gpu_saved_lost_bars(gpu)))
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

	nvgrace_gpu_scrub_doubt(gpu);
	awake = !pm_runtime_resume_and_get(&pdev->dev);
	down_write(&gpu->core.memory_lock);
	nvgrace_gpu_gate_link_reset(gpu);
	if (awake)
		nvgrace_gpu_saved_restore(gpu);
	lost = nvgrace_gpu_saved_lost_bars(gpu);
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
	if (!nvgrace_gpu_saved_lost_bars(gpu))
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
