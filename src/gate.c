// SPDX-License-Identifier: GPL-2.0-only
/*
 * Decides whether the GPU's memory may be accessed now, for faults, reads,
 * writes and exports. No other file does. Owns what the decision depends on:
 * resets, errors on the link, power, decoding, host suspend, and whether the
 * memory was found ready since the last reset.
 *
 * The gate is closed while the GPU or its link is being reset. An access then
 * waits on a queue. Closing the gate removes all mappings, the kernel's too: a
 * CPU may read cacheable memory speculatively, and untrained memory must not be
 * read at all. An open gate does not suffice for an access. check() and
 * try_enter() have the other conditions, in order.
 *
 * device.c, region.c, rw.c, scrub.c, dmabuf.c and sysfs.c call this file, and
 * probe.c starts and stops it. The PCI core calls the error handlers with the
 * device lock held. Locks nest in this order: mmap_lock or the device lock,
 * memory_lock, gate. ready_lock comes before memory_lock. "Both locks" are
 * memory_lock and gate, held for read.
 */
#include <linux/hrtimer.h>
#include <linux/ktime.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/pci.h>
#include <linux/pm_runtime.h>
#include <linux/ratelimit.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/suspend.h>
#include <linux/wait.h>

#include "compat/compat.h"
#include "nvgrace_gpu.h"
#include "trace.h"

/* Reasons why the gate is closed, bits of closed. */
#define CLOSED_RESET	BIT(0)	/* from reset_prepare() to reset_done() */
#define CLOSED_ERROR	BIT(1)	/* until error recovery ends */
#define CLOSED_SUSPEND	BIT(2)	/* from host suspend to resume */
#define CLOSED_CONFIG	BIT(3)	/* while power or decoding is written */

/*
 * Pauses between checks of readiness, doubling from the first to the longest.
 * Most GPUs are ready at the first check, so the first pause is short. The
 * longest one bounds how much later than the GPU a wait ends.
 */
#define POLL_FIRST_US		1000
#define POLL_LONGEST_US		8000

/*
 * Time for error recovery. On some kernels, such as 6.12.107, the AER core
 * reports only success, and a failure shows only by the time that has passed.
 * The PCI core gives a bus 60 s to return from a reset
 * (PCIE_RESET_READY_POLL_MS). The rest is for the other drivers on the bus.
 */
#define RECOVERY_MS		90000

/*
 * State of tasks that wait on the queue. Host suspend may freeze them. "Unsafe"
 * because a copy from user space may have faulted and waits here, and the
 * caller of the copy may hold locks.
 */
#define WAIT_STATE		(TASK_KILLABLE | TASK_FREEZABLE_UNSAFE)

/* ---- mappings ----------------------------------------------------------- */

static void zap_region(struct nvgrace_gpu *gpu, unsigned int index)
{
	/* A fake BAR has 64 bits, so the next index is its high half. */
	if (nvgrace_gpu_region(gpu, index))
		unmap_mapping_range(compat_mapping_space(&gpu->mapping,
							 &gpu->core.vdev),
				    VFIO_PCI_INDEX_TO_OFFSET(index),
				    2ULL << VFIO_PCI_OFFSET_SHIFT, true);
}

/*
 * Removes the mappings of user space. They stay away only if check() already
 * refuses faults. Takes locks of the address space, so it must not run under
 * the gate.
 */
static void zap(struct nvgrace_gpu *gpu)
{
	zap_region(gpu, VFIO_PCI_BAR2_REGION_INDEX);
	zap_region(gpu, VFIO_PCI_BAR4_REGION_INDEX);
}

/* ---- closing and opening ------------------------------------------------ */

/* Whether the memory was found ready in this epoch. */
static bool is_ready(struct nvgrace_gpu *gpu)
{
	/* Pairs with the release in look(). */
	return smp_load_acquire(&gpu->ready_for) == READ_ONCE(gpu->epoch);
}

/*
 * Power or training was lost, or may have been. Begins a new epoch, in which
 * the memory is neither known to be ready nor to have failed, and removes the
 * kernel's own mappings.
 */
static void forget_ready(struct nvgrace_gpu *gpu)
{
	lockdep_assert_held_write(&gpu->gate);
	WRITE_ONCE(gpu->epoch, gpu->epoch + 1);
	nvgrace_gpu_rw_unmap(gpu);
}

/* forget_ready() for a reset, which also clears the fake registers. */
static void count_reset(struct nvgrace_gpu *gpu)
{
	forget_ready(gpu);
	nvgrace_gpu_config_reset(gpu);
}

static void close_for(struct nvgrace_gpu *gpu, unsigned int reason)
{
	lockdep_assert_held_write(&gpu->gate);
	WRITE_ONCE(gpu->closed, gpu->closed | reason);
	nvgrace_gpu_rw_unmap(gpu);
}

static void open_for(struct nvgrace_gpu *gpu, unsigned int reason)
{
	lockdep_assert_held_write(&gpu->gate);
	WRITE_ONCE(gpu->closed, gpu->closed & ~reason);
	if (!gpu->closed)
		wake_up_all(&gpu->opened);
}

/*
 * Linux never resets the bus of such a GPU (GH200), so error recovery can't
 * reset the link.
 */
static bool link_stays(struct nvgrace_gpu *gpu)
{
	return gpu->core.pdev->dev_flags & PCI_DEV_FLAGS_NO_BUS_RESET;
}

/*
 * Ends a failed recovery if the GPU answers after a reset. A recovery that
 * still runs may yet reset the link, unless the link stays.
 */
static void clear_error(struct nvgrace_gpu *gpu)
{
	lockdep_assert_held_write(&gpu->gate);
	if (gpu->link == NVGRACE_GPU_LINK_OK ||
	    (gpu->link != NVGRACE_GPU_LINK_FAILED && !link_stays(gpu)) ||
	    !pci_device_is_present(gpu->core.pdev))
		return;
	gpu->link = NVGRACE_GPU_LINK_OK;
	open_for(gpu, CLOSED_ERROR);
}

/*
 * Whether a reset that restored nothing has cleared BAR0. Also true if config
 * space can't be read.
 */
static bool has_lost_bars(struct pci_dev *pdev)
{
	u64 bar0 = pci_bus_address(pdev, 0);
	u32 low, high = 0;

	if (!(pci_resource_flags(pdev, 0) & IORESOURCE_MEM))
		return false;
	if (pci_read_config_dword(pdev, PCI_BASE_ADDRESS_0, &low))
		return true;
	/* At a multiple of 4 GiB, only the high half shows it. */
	if (pci_resource_flags(pdev, 0) & IORESOURCE_MEM_64 &&
	    pci_read_config_dword(pdev, PCI_BASE_ADDRESS_1, &high))
		return true;
	return (low & PCI_BASE_ADDRESS_MEM_MASK) != lower_32_bits(bar0) ||
	       high != upper_32_bits(bar0);
}

/* Restores config space as it was at probe, if it could be saved there. */
static void restore_config(struct nvgrace_gpu *gpu)
{
	struct pci_dev *pdev = gpu->core.pdev;

	/* Without a state, newer kernels would restore what they find. */
	if (gpu->saved_state && !pci_load_saved_state(pdev, gpu->saved_state))
		pci_restore_state(pdev);
}

/*
 * Recovery has failed. If the link was or may have been reset, the memory's
 * state is unknown until a reset or an open succeeds. Otherwise the readiness
 * registers are valid.
 */
static void end_in_failure(struct nvgrace_gpu *gpu)
{
	lockdep_assert_held_write(&gpu->gate);
	if (gpu->link == NVGRACE_GPU_LINK_FROZEN ||
	    has_lost_bars(gpu->core.pdev))
		gpu->link = NVGRACE_GPU_LINK_FAILED;
	else if (gpu->link == NVGRACE_GPU_LINK_ERROR)
		gpu->link = NVGRACE_GPU_LINK_OK;
	forget_ready(gpu);
	open_for(gpu, CLOSED_ERROR);
}

void nvgrace_gpu_gate_open(struct nvgrace_gpu *gpu)
{
	down_write(&gpu->gate);
	count_reset(gpu);
	clear_error(gpu);
	up_write(&gpu->gate);
	trace_nvgrace_gpu_reset(gpu->core.pdev, NVGRACE_GPU_RESET_OPEN);
}

void nvgrace_gpu_gate_close(struct nvgrace_gpu *gpu)
{
	/* The reset of vfio-pci-core at close does not call reset_prepare(). */
	down_write(&gpu->gate);
	forget_ready(gpu);
	up_write(&gpu->gate);
}

/* ---- resets ------------------------------------------------------------- */

static struct nvgrace_gpu *pdev_to_gpu(struct pci_dev *pdev)
{
	struct vfio_pci_core_device *core = dev_get_drvdata(&pdev->dev);

	return to_nvgrace_gpu(&core->vdev);
}

/*
 * The PCI core calls this pair around every reset but the one of vfio-pci-core
 * at close: at open, by ioctl, FLR in config space, hot reset, sysfs, and
 * before a scrub. vfio-pci-core holds memory_lock for write, except at open.
 * sysfs and scrubs hold only the device lock.
 */
static void reset_prepare(struct pci_dev *pdev)
{
	struct nvgrace_gpu *gpu = pdev_to_gpu(pdev);

	down_write(&gpu->gate);
	close_for(gpu, CLOSED_RESET);
	count_reset(gpu);
	up_write(&gpu->gate);
	zap(gpu);
}

static void reset_done(struct pci_dev *pdev)
{
	struct nvgrace_gpu *gpu = pdev_to_gpu(pdev);

	down_write(&gpu->gate);
	/* Again, because the fake registers may have been written meanwhile. */
	count_reset(gpu);
	/*
	 * The PCI core restores what config space was before the reset. After a
	 * failed recovery the BARs were lost then, and beside a close of the
	 * device it restores nothing.
	 */
	if (has_lost_bars(pdev))
		restore_config(gpu);
	clear_error(gpu);
	open_for(gpu, CLOSED_RESET);
	up_write(&gpu->gate);
	trace_nvgrace_gpu_reset(pdev, NVGRACE_GPU_RESET_DONE);
}

/* ---- errors on the link ------------------------------------------------- */

/*
 * A frozen link will be reset. After any other error, another function on the
 * bus may still demand a reset of both.
 */
static void begin_recovery(struct nvgrace_gpu *gpu, bool frozen)
{
	if (!frozen && link_stays(gpu))
		return;

	down_write(&gpu->gate);
	if (frozen) {
		gpu->link = NVGRACE_GPU_LINK_FROZEN;
		count_reset(gpu);
	} else if (gpu->link == NVGRACE_GPU_LINK_OK) {
		gpu->link = NVGRACE_GPU_LINK_ERROR;
	}
	if (gpu->link != NVGRACE_GPU_LINK_FAILED) {
		WRITE_ONCE(gpu->recovery_end,
			   ktime_add_ms(ktime_get(), RECOVERY_MS));
		close_for(gpu, CLOSED_ERROR);
	}
	up_write(&gpu->gate);
	zap(gpu);
}

/*
 * The AER core resets a frozen link without calling reset_done() and, unlike
 * other resets, restores nothing. Without its BARs, the device can't be checked
 * for readiness or opened again.
 */
static void end_recovery(struct nvgrace_gpu *gpu, bool reset)
{
	struct pci_dev *pdev = gpu->core.pdev;
	bool awake = !pm_runtime_resume_and_get(&pdev->dev);

	/* If the time for recovery had passed, the gate is open again. */
	if (reset) {
		down_write(&gpu->gate);
		close_for(gpu, CLOSED_ERROR);
		up_write(&gpu->gate);
		zap(gpu);
	}

	down_write(&gpu->core.memory_lock);
	if (reset && awake)
		restore_config(gpu);

	down_write(&gpu->gate);
	if (reset)
		count_reset(gpu);
	gpu->link = NVGRACE_GPU_LINK_OK;
	open_for(gpu, CLOSED_ERROR);
	up_write(&gpu->gate);
	up_write(&gpu->core.memory_lock);

	if (awake)
		pm_runtime_put(&pdev->dev);
	if (reset)
		trace_nvgrace_gpu_reset(pdev, NVGRACE_GPU_RESET_ERROR);
}

/* A GPU without memory has nothing to report. */
static void report_failure(struct nvgrace_gpu *gpu, const char *how)
{
	if (gpu->usemem.length)
		dev_err_ratelimited(&gpu->core.pdev->dev,
				    "recovery from a PCIe error %s: GPU memory can't be used; reset the device or open it again\n",
				    how);
}

static void fail_recovery(struct nvgrace_gpu *gpu)
{
	bool failed;

	down_write(&gpu->gate);
	end_in_failure(gpu);
	failed = gpu->link == NVGRACE_GPU_LINK_FAILED;
	up_write(&gpu->gate);
	zap(gpu);
	if (failed)
		report_failure(gpu, "failed");
}

static pci_ers_result_t error_detected(struct pci_dev *pdev,
				       pci_channel_state_t state)
{
	struct nvgrace_gpu *gpu = pdev_to_gpu(pdev);

	if (state == pci_channel_io_perm_failure)
		fail_recovery(gpu);
	else
		begin_recovery(gpu, state == pci_channel_io_frozen);
	return vfio_pci_core_aer_err_detected(pdev, state);
}

static pci_ers_result_t slot_reset(struct pci_dev *pdev)
{
	end_recovery(pdev_to_gpu(pdev), true);
	return PCI_ERS_RESULT_RECOVERED;
}

static void error_resume(struct pci_dev *pdev)
{
	struct nvgrace_gpu *gpu = pdev_to_gpu(pdev);
	enum nvgrace_gpu_link link;

	down_read(&gpu->gate);
	link = gpu->link;
	up_read(&gpu->gate);
	/* Recovery has succeeded, perhaps after its time had passed. */
	if (link == NVGRACE_GPU_LINK_FROZEN || link == NVGRACE_GPU_LINK_FAILED)
		end_recovery(gpu, true);
	else if (link == NVGRACE_GPU_LINK_ERROR)
		end_recovery(gpu, false);
}

const struct pci_error_handlers nvgrace_gpu_error_handlers = {
	.error_detected	= error_detected,
	.slot_reset	= slot_reset,
	.resume		= error_resume,
	.reset_prepare	= reset_prepare,
	.reset_done	= reset_done,
};

/* ---- power and decoding ------------------------------------------------- */

/*
 * Whether the function decodes memory, as user space sees it. vfio-pci-core has
 * the same rule for BARs, except for PCI_UNKNOWN: a device without power
 * management is not in D3. Under memory_lock.
 */
static bool memory_enabled(struct nvgrace_gpu *gpu)
{
	struct pci_dev *pdev = gpu->core.pdev;
	u16 command;

	lockdep_assert_held(&gpu->core.memory_lock);
	if (pdev->current_state == PCI_D3hot ||
	    pdev->current_state == PCI_D3cold)
		return false;
	if (pdev->no_command_memory)
		return true;
	/*
	 * Without a user there is no user's view. Reading the register each
	 * time would take a sixth of the time of a scrub.
	 */
	if (!gpu->core.vconfig)
		return pci_is_enabled(pdev);
	command = le16_to_cpup((__le16 *)(gpu->core.vconfig + PCI_COMMAND));
	return command & PCI_COMMAND_MEMORY;
}

void nvgrace_gpu_asleep(struct nvgrace_gpu *gpu)
{
	down_write(&gpu->gate);
	forget_ready(gpu);
	up_write(&gpu->gate);
	zap(gpu);
}

/* Whether @count bytes at @offset overlap @size bytes at @reg. */
static bool covers(u64 offset, size_t count, unsigned int reg,
		   unsigned int size)
{
	return offset < reg + size && offset + count > reg;
}

static bool covers_power(struct nvgrace_gpu *gpu, u64 offset, size_t count)
{
	u8 pm_cap = gpu->core.pdev->pm_cap;

	return pm_cap && covers(offset, count, pm_cap + PCI_PM_CTRL, 2);
}

/* vfio-pci-core of newer kernels removes the mappings itself. */
static bool covers_decoding(u64 offset, size_t count)
{
	return !COMPAT_CORE_ZAPS && covers(offset, count, PCI_COMMAND, 2);
}

/* Whether a config write may make the memory unreachable. */
static bool takes_turn(struct nvgrace_gpu *gpu, u64 offset, size_t count)
{
	return covers_power(gpu, offset, count) ||
	       covers_decoding(offset, count);
}

/*
 * The gate is closed during such a write, because the state may change at any
 * time in it: vfio-pci-core fetches the bytes register by register, and user
 * space may keep it waiting. The writing task's own accesses fail, or it would
 * wait for itself.
 */
int nvgrace_gpu_config_write_begin(struct nvgrace_gpu *gpu, u64 offset,
				   size_t count)
{
	DEFINE_WAIT(wait);

	if (!takes_turn(gpu, offset, count))
		return 0;

	/* One at a time: the first of two to end would open the gate. */
	while (cmpxchg(&gpu->config_writer, NULL, current)) {
		if (fatal_signal_pending(current))
			return -EINTR;
		prepare_to_wait(&gpu->opened, &wait, WAIT_STATE);
		if (READ_ONCE(gpu->config_writer))
			schedule();
		finish_wait(&gpu->opened, &wait);
	}

	down_write(&gpu->gate);
	close_for(gpu, CLOSED_CONFIG);
	up_write(&gpu->gate);
	zap(gpu);
	return 0;
}

void nvgrace_gpu_config_write_end(struct nvgrace_gpu *gpu, u64 offset,
				  size_t count)
{
	if (!takes_turn(gpu, offset, count))
		return;

	down_write(&gpu->gate);
	/* Leaving D3hot may be a reset, and nothing reports it. */
	if (covers_power(gpu, offset, count))
		forget_ready(gpu);
	open_for(gpu, CLOSED_CONFIG);
	up_write(&gpu->gate);
	/* Pairs with the cmpxchg() of the next writer. */
	smp_store_release(&gpu->config_writer, NULL);
	wake_up_all(&gpu->opened);
}

int nvgrace_gpu_keep_awake(struct nvgrace_gpu *gpu)
{
	return pm_runtime_resume_and_get(&gpu->core.pdev->dev) ? -EIO : 0;
}

void nvgrace_gpu_let_sleep(struct nvgrace_gpu *gpu)
{
	/*
	 * User space wants low power, so the GPU sleeps again. Without the
	 * lock: a task that changes pm_runtime_engaged now forgets readiness
	 * itself. "!!" because it is a bit-field on some kernels, which
	 * data_race() can't take.
	 */
	if (data_race(!!gpu->core.pm_runtime_engaged))
		nvgrace_gpu_asleep(gpu);
	pm_runtime_put(&gpu->core.pdev->dev);
}

/*
 * Host suspend may cut the power, and no reset is reported. The first call
 * comes before user space is frozen, the last one after it is thawed.
 */
static int host_suspend(struct notifier_block *block, unsigned long event,
			void *data)
{
	struct nvgrace_gpu *gpu = container_of(block, struct nvgrace_gpu,
					       suspend);

	switch (event) {
	case PM_HIBERNATION_PREPARE:
	case PM_RESTORE_PREPARE:
		/* Another kernel may use the GPU until this one is back. */
		nvgrace_gpu_scrub_doubt(gpu);
		fallthrough;
	case PM_SUSPEND_PREPARE:
		down_write(&gpu->gate);
		close_for(gpu, CLOSED_SUSPEND);
		forget_ready(gpu);
		up_write(&gpu->gate);
		zap(gpu);
		break;
	case PM_POST_SUSPEND:
	case PM_POST_HIBERNATION:
	case PM_POST_RESTORE:
		down_write(&gpu->gate);
		open_for(gpu, CLOSED_SUSPEND);
		up_write(&gpu->gate);
		break;
	}
	return NOTIFY_DONE;
}

bool nvgrace_gpu_gate_suspended(struct nvgrace_gpu *gpu)
{
	return READ_ONCE(gpu->closed) & CLOSED_SUSPEND;
}

/* ---- waiting ------------------------------------------------------------ */

bool nvgrace_gpu_gate_is_late(struct nvgrace_gpu *gpu)
{
	return ktime_after(ktime_get(), READ_ONCE(gpu->last_wait));
}

void nvgrace_gpu_gate_finish(struct nvgrace_gpu *gpu, unsigned int ms)
{
	down_write(&gpu->gate);
	WRITE_ONCE(gpu->last_wait, ktime_add_ms(ktime_get(), ms));
	/*
	 * A device that is being unbound or shut down is awake. After
	 * hibernation, nothing else would open the gate.
	 */
	open_for(gpu, CLOSED_SUSPEND);
	up_write(&gpu->gate);
	/* last_wait has changed: waiting tasks compute their timeout again. */
	wake_up_all(&gpu->opened);
}

/*
 * Ends recovery when its time is over. On kernels that report only success,
 * nothing else shows a failure.
 */
static void give_up(struct nvgrace_gpu *gpu)
{
	bool failed = false;

	if (!(READ_ONCE(gpu->closed) & CLOSED_ERROR))
		return;

	down_write(&gpu->gate);
	if (gpu->closed & CLOSED_ERROR &&
	    ktime_compare(ktime_get(), gpu->recovery_end) >= 0) {
		end_in_failure(gpu);
		failed = gpu->link == NVGRACE_GPU_LINK_FAILED;
	}
	up_write(&gpu->gate);
	if (failed)
		report_failure(gpu, "timed out");
}

/* Jiffies until recovery_end or last_wait, whichever is earlier. */
static long time_to_give_up(struct nvgrace_gpu *gpu)
{
	ktime_t until = READ_ONCE(gpu->last_wait);
	s64 ms;

	/* All other reasons end by themselves. */
	if (READ_ONCE(gpu->closed) & CLOSED_ERROR)
		until = min(until, READ_ONCE(gpu->recovery_end));
	if (until == KTIME_MAX)
		return MAX_SCHEDULE_TIMEOUT;
	ms = ktime_ms_delta(until, ktime_get());
	return msecs_to_jiffies(clamp_t(s64, ms, 0, INT_MAX)) + 1;
}

/*
 * Sleeps until the gate is open. Returns 0, -EINTR (the task is being killed),
 * or -EIO (the GPU is being unbound and the time to wait is over). Called
 * without locks of this driver.
 */
static int wait_until_open(struct nvgrace_gpu *gpu)
{
	DEFINE_WAIT(wait);

	while (READ_ONCE(gpu->closed)) {
		if (fatal_signal_pending(current))
			return -EINTR;
		if (nvgrace_gpu_gate_is_late(gpu))
			return -EIO;
		prepare_to_wait(&gpu->opened, &wait, WAIT_STATE);
		if (READ_ONCE(gpu->closed))
			schedule_timeout(time_to_give_up(gpu));
		finish_wait(&gpu->opened, &wait);
		give_up(gpu);
	}
	return 0;
}

/* Sleeps for @us microseconds, or until the task is being killed. */
static void pause_killable(unsigned int us)
{
	ktime_t expires = ns_to_ktime((u64)us * NSEC_PER_USEC);

	set_current_state(TASK_KILLABLE);
	schedule_hrtimeout_range(&expires, us * NSEC_PER_USEC / 8,
				 HRTIMER_MODE_REL);
}

/*
 * Takes both locks for read. Under them, no reset begins and the epoch is
 * constant. Returns 0 or -EINTR.
 */
static int lock_both(struct nvgrace_gpu *gpu)
{
	if (down_read_killable(&gpu->core.memory_lock))
		return -EINTR;
	/* Not killable: writers hold it only briefly. */
	down_read(&gpu->gate);
	return 0;
}

static void unlock_both(struct nvgrace_gpu *gpu)
{
	up_read(&gpu->gate);
	up_read(&gpu->core.memory_lock);
}

/*
 * Whether the memory may be accessed, readiness aside. @awake: the caller keeps
 * the GPU awake. Returns 0, -EBUSY (it may sleep), -EAGAIN (wait until the gate
 * is open) or -EIO. Under both locks.
 */
static int check(struct nvgrace_gpu *gpu, bool awake)
{
	lockdep_assert_held(&gpu->gate);
	if (gpu->core.pm_runtime_engaged && !awake)
		return -EBUSY;
	if (gpu->closed)
		return READ_ONCE(gpu->config_writer) == current ||
		       nvgrace_gpu_gate_is_late(gpu) ? -EIO : -EAGAIN;
	if (gpu->link == NVGRACE_GPU_LINK_FAILED || !memory_enabled(gpu))
		return -EIO;
	return 0;
}

/*
 * Reads the readiness registers, after check(), and records success. In low
 * power the result holds only while the caller keeps the GPU awake, and is not
 * recorded. Returns 0, -EAGAIN (not ready) or -ENODEV (gone). Under both locks.
 */
static int look(struct nvgrace_gpu *gpu, struct nvgrace_gpu_training *training)
{
	int ret = nvgrace_gpu_training_look(gpu, training);

	if (!ret && !gpu->core.pm_runtime_engaged)
		/* Pairs with is_ready(). */
		smp_store_release(&gpu->ready_for, gpu->epoch);
	return ret;
}

enum wait_kind {
	WAIT_PROBE,	/* log every failure */
	WAIT_USE,	/* log few: user space can repeat it */
	WAIT_ONCE,	/* poll once: a wait has failed in this epoch */
};

/*
 * Polls until the memory is ready or the deadline has passed; WAIT_ONCE polls
 * once. Returns 0, -EAGAIN (the gate was closed or @epoch has ended, so begin
 * anew), -EIO, -EINTR, -ETIME or -ENODEV. Under ready_lock, with the GPU awake.
 */
static int wait_trained(struct nvgrace_gpu *gpu, enum wait_kind kind,
			unsigned int epoch)
{
	struct nvgrace_gpu_training training;
	unsigned int us = POLL_FIRST_US;
	ktime_t when;
	int ret;

	nvgrace_gpu_training_start(gpu, &training);
	for (;;) {
		/* Before look(), so that a look after the deadline counts. */
		when = ktime_get();
		if (lock_both(gpu))
			return -EINTR;
		ret = gpu->epoch == epoch ? check(gpu, true) : -EAGAIN;
		if (ret) {
			unlock_both(gpu);
			return ret;
		}
		ret = look(gpu, &training);
		/* After look(), which may have extended the deadline. */
		if (ret == -EAGAIN && (kind == WAIT_ONCE ||
				       nvgrace_gpu_training_late(&training, when)))
			ret = -ETIME;
		if (kind != WAIT_ONCE && (ret == -ETIME || ret == -ENODEV))
			WRITE_ONCE(gpu->failed_for, epoch);
		unlock_both(gpu);

		if (ret != -EAGAIN)
			break;
		if (fatal_signal_pending(current))
			return -EINTR;
		pause_killable(us);
		us = min(us * 2, (unsigned int)POLL_LONGEST_US);
	}
	if (ret && (kind == WAIT_PROBE ||
		    (kind == WAIT_USE && __ratelimit(&gpu->report_limit))))
		nvgrace_gpu_training_report(gpu, &training, ret);
	return ret;
}

/* Whether a wait failed in this epoch; later accesses then check only once. */
static bool has_failed(struct nvgrace_gpu *gpu)
{
	return READ_ONCE(gpu->failed_for) == READ_ONCE(gpu->epoch);
}

/*
 * Waits until the memory is ready. Returns 0, -EINTR, -EIO (not decoding),
 * -ETIME or -ENODEV. The caller keeps the GPU awake and holds no locks.
 */
static int wait_ready(struct nvgrace_gpu *gpu, enum wait_kind kind)
{
	unsigned int epoch;
	int ret;

	do {
		ret = wait_until_open(gpu);
		if (ret)
			return ret;
		if (mutex_lock_killable(&gpu->ready_lock))
			return -EINTR;
		/* The decision is valid in this epoch only. */
		epoch = READ_ONCE(gpu->epoch);
		if (is_ready(gpu))
			ret = 0;
		else if (kind == WAIT_USE && READ_ONCE(gpu->failed_for) == epoch)
			ret = wait_trained(gpu, WAIT_ONCE, epoch);
		else
			ret = wait_trained(gpu, kind, epoch);
		mutex_unlock(&gpu->ready_lock);
	} while (ret == -EAGAIN);
	return ret;
}

int nvgrace_gpu_wait(struct nvgrace_gpu *gpu)
{
	u64 start = nvgrace_gpu_trace_start(wait);
	int ret;

	if (READ_ONCE(gpu->closed)) {
		/*
		 * Return at once: the GPU may be ready, and the next reset
		 * near.
		 */
		ret = wait_until_open(gpu);
		goto out;
	}

	/* The registers of a sleeping GPU can't be read. */
	ret = nvgrace_gpu_keep_awake(gpu);
	if (!ret) {
		ret = wait_ready(gpu, WAIT_USE);
		pm_runtime_put(&gpu->core.pdev->dev);
	} else {
		/* A fault that is retried must not wait for this again. */
		WRITE_ONCE(gpu->failed_for, READ_ONCE(gpu->epoch));
	}
out:
	if (ret && ret != -EINTR)
		ret = -EIO;
	trace_nvgrace_gpu_wait(gpu->core.pdev, NVGRACE_GPU_WAIT_USE, ret,
			       start);
	return ret;
}

int nvgrace_gpu_wait_probe(struct nvgrace_gpu *gpu)
{
	u64 start = nvgrace_gpu_trace_start(wait);
	int ret;

	nvgrace_gpu_registers_find(gpu);
	ret = nvgrace_gpu_registers_begin(gpu);
	if (ret)
		return ret;
	ret = wait_ready(gpu, WAIT_PROBE);
	trace_nvgrace_gpu_wait(gpu->core.pdev, NVGRACE_GPU_WAIT_BIND, ret,
			       start);
	nvgrace_gpu_registers_end(gpu);
	return ret;
}

/* ---- entering and leaving ----------------------------------------------- */

/*
 * Takes both locks if the memory may be accessed and is ready. Reads the
 * registers at most once. Otherwise holds none on return and returns as check()
 * does, or -EAGAIN (not ready: wait), -EIO (not ready and a wait has failed, or
 * gone) or -EINTR.
 */
static int try_enter(struct nvgrace_gpu *gpu, bool awake)
{
	struct nvgrace_gpu_training training;
	int ret = lock_both(gpu);

	if (ret)
		return ret;
	ret = check(gpu, awake);
	if (!ret && (gpu->core.pm_runtime_engaged || !is_ready(gpu))) {
		nvgrace_gpu_training_start(gpu, &training);
		ret = look(gpu, &training);
		if (ret && (ret != -EAGAIN || has_failed(gpu)))
			ret = -EIO;
	}
	if (ret)
		unlock_both(gpu);
	return ret;
}

int nvgrace_gpu_enter_fault(struct nvgrace_gpu *gpu)
{
	int ret = try_enter(gpu, false);

	/* A fault can't keep the GPU awake. */
	return ret == -EBUSY ? -EIO : ret;
}

int nvgrace_gpu_enter(struct nvgrace_gpu *gpu, bool awake)
{
	int ret;

	do {
		ret = try_enter(gpu, awake);
		if (ret != -EAGAIN)
			return ret;
		ret = nvgrace_gpu_wait(gpu);
	} while (!ret);
	return ret;
}

void nvgrace_gpu_leave(struct nvgrace_gpu *gpu)
{
	unlock_both(gpu);
}

bool nvgrace_gpu_gate_wanted(struct nvgrace_gpu *gpu)
{
	return rwsem_is_contended(&gpu->core.memory_lock) ||
	       rwsem_is_contended(&gpu->gate);
}

unsigned int nvgrace_gpu_epoch(struct nvgrace_gpu *gpu)
{
	lockdep_assert_held(&gpu->gate);
	return gpu->epoch;
}

int nvgrace_gpu_wait_export(struct nvgrace_gpu *gpu)
{
	bool enabled;
	int ret;

	ret = nvgrace_gpu_keep_awake(gpu);
	if (ret)
		return ret;
	if (down_read_killable(&gpu->core.memory_lock)) {
		ret = -EINTR;
		goto out;
	}
	enabled = memory_enabled(gpu);
	up_read(&gpu->core.memory_lock);
	/* vfio-pci-core exports such memory, revoked, for later. */
	if (!enabled)
		goto out;
	ret = nvgrace_gpu_enter(gpu, true);
	if (!ret)
		nvgrace_gpu_leave(gpu);
out:
	nvgrace_gpu_let_sleep(gpu);
	return ret;
}

enum nvgrace_gpu_readiness nvgrace_gpu_readiness(struct nvgrace_gpu *gpu)
{
	if (READ_ONCE(gpu->link) == NVGRACE_GPU_LINK_FAILED)
		return NVGRACE_GPU_FAILED;
	if (is_ready(gpu))
		return NVGRACE_GPU_READY;
	return has_failed(gpu) ? NVGRACE_GPU_FAILED : NVGRACE_GPU_UNKNOWN;
}

/* ---- from probe to remove ----------------------------------------------- */

void nvgrace_gpu_gate_init(struct nvgrace_gpu *gpu)
{
	init_rwsem(&gpu->gate);
	init_waitqueue_head(&gpu->opened);
	gpu->last_wait = KTIME_MAX;
	mutex_init(&gpu->ready_lock);
	/* Three lines in 5 minutes: user space can make waits fail again. */
	ratelimit_state_init(&gpu->report_limit, 300 * HZ, 3);
	/* No wait has ended in this epoch, with or without success. */
	gpu->failed_for = gpu->epoch - 1;
	gpu->ready_for = gpu->epoch - 1;
}

int nvgrace_gpu_gate_start(struct nvgrace_gpu *gpu)
{
	struct pci_dev *pdev = gpu->core.pdev;
	int ret;

	gpu->suspend.notifier_call = host_suspend;
	ret = register_pm_notifier(&gpu->suspend);
	if (ret)
		return ret;

	/*
	 * The GPU is awake, with its BARs. If this fails, restore_config() does
	 * nothing.
	 */
	pci_save_state(pdev);
	gpu->saved_state = pci_store_saved_state(pdev);
	return 0;
}

void nvgrace_gpu_gate_stop(struct nvgrace_gpu *gpu)
{
	unregister_pm_notifier(&gpu->suspend);
	kfree(gpu->saved_state);
	gpu->saved_state = NULL;
}
