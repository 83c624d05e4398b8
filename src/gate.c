// SPDX-License-Identifier: GPL-2.0-only
/*
 * Decides whether the GPU's memory may be accessed now, for faults, reads
 * and writes. No other file does. Owns what the decision depends on:
 * resets, a frozen link, power, decoding, host suspend, and whether the memory
 * was found ready since the last reset.
 *
 * The gate is closed while the GPU is being reset. An access then waits on a
 * queue. Closing the gate removes all mappings, the kernel's too: a CPU may
 * read cacheable memory speculatively, and untrained memory must not be read at
 * all. An access needs more than an open gate: try_enter() has the other
 * conditions, in order.
 *
 * Time is divided into epochs. What is known of readiness is true in one epoch
 * only, and each has one clock, which all waits share.
 *
 * Locks nest in this order: mmap_lock or the device lock, memory_lock, gate.
 * "Both locks" are memory_lock and gate, held for read.
 */
#include <linux/freezer.h>
#include <linux/hrtimer.h>
#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/pci.h>
#include <linux/pm_runtime.h>
#include <linux/ratelimit.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/wait.h>

#include "compat/compat.h"
#include "nvgrace_gpu.h"
#include "trace.h"

/* Reasons why the gate is closed, bits of closed. */
#define CLOSED_RESET	BIT(0)	/* during a reset */
#define CLOSED_SUSPEND	BIT(1)	/* while the host sleeps */

/*
 * Microseconds between looks at the readiness registers of a GPU that has been
 * unready for less than the milliseconds beside them; POLL_LATE_US afterwards.
 * Most GPUs are ready at once, so the first pauses are short. One that boots
 * takes seconds. A pause bounds how much later than the GPU a wait ends.
 */
#define POLL_FIRST_US		1000
#define POLL_FIRST_MS		8
#define POLL_EARLY_US		8000
#define POLL_EARLY_MS		2000
#define POLL_LATE_US		50000

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
 * Removes the mappings of user space. They stay away only if try_enter() already
 * refuses faults. Takes locks of the address space, so it must not run under
 * the gate.
 */
static void zap(struct nvgrace_gpu *gpu)
{
	zap_region(gpu, VFIO_PCI_BAR2_REGION_INDEX);
	zap_region(gpu, VFIO_PCI_BAR4_REGION_INDEX);
}

/* ---- closing and opening ------------------------------------------------ */

/*
 * Power or training was lost, or may have been. Begins a new epoch, in which
 * nothing is known of readiness, and removes the kernel's own mappings.
 */
static void forget_ready(struct nvgrace_gpu *gpu)
{
	lockdep_assert_held_write(&gpu->gate);
	WRITE_ONCE(gpu->epoch, gpu->epoch + 1);
	gpu->epoch_start = ktime_get();
	WRITE_ONCE(gpu->ready, false);
	WRITE_ONCE(gpu->late, false);
	atomic64_set(&gpu->unready_since, 0);
	nvgrace_gpu_window_unmap(gpu);
}

/* forget_ready() for a reset, which also clears the fake registers. */
static void count_reset(struct nvgrace_gpu *gpu)
{
	forget_ready(gpu);
	nvgrace_gpu_cfgemu_reset(gpu);
}

static void close_for(struct nvgrace_gpu *gpu, unsigned int reason)
{
	lockdep_assert_held_write(&gpu->gate);
	WRITE_ONCE(gpu->closed, gpu->closed | reason);
	nvgrace_gpu_window_unmap(gpu);
}

static void open_for(struct nvgrace_gpu *gpu, unsigned int reason)
{
	lockdep_assert_held_write(&gpu->gate);
	WRITE_ONCE(gpu->closed, gpu->closed & ~reason);
	if (!gpu->closed)
		wake_up_all(&gpu->opened);
}

/* A frozen link works again if the GPU answers after a reset. */
static void find_gpu(struct nvgrace_gpu *gpu)
{
	lockdep_assert_held_write(&gpu->gate);
	if (gpu->link_frozen && pci_device_is_present(gpu->core.pdev))
		WRITE_ONCE(gpu->link_frozen, false);
}

void nvgrace_gpu_gate_device_opened(struct nvgrace_gpu *gpu)
{
	down_write(&gpu->gate);
	count_reset(gpu);
	find_gpu(gpu);
	up_write(&gpu->gate);
	trace_nvgrace_gpu_reset(gpu->core.pdev, NVGRACE_GPU_RESET_OPEN);
}

void nvgrace_gpu_gate_device_closing(struct nvgrace_gpu *gpu)
{
	/* The reset of vfio-pci-core at close does not call reset.c. */
	down_write(&gpu->gate);
	forget_ready(gpu);
	up_write(&gpu->gate);
}

/* ---- resets and errors -------------------------------------------------- */

void nvgrace_gpu_gate_reset_begin(struct nvgrace_gpu *gpu)
{
	down_write(&gpu->gate);
	close_for(gpu, CLOSED_RESET);
	count_reset(gpu);
	up_write(&gpu->gate);
	zap(gpu);
}

void nvgrace_gpu_gate_reset_end(struct nvgrace_gpu *gpu)
{
	down_write(&gpu->gate);
	/* Again, because the fake registers may have been written meanwhile. */
	count_reset(gpu);
	find_gpu(gpu);
	open_for(gpu, CLOSED_RESET);
	up_write(&gpu->gate);
}

void nvgrace_gpu_gate_link_freeze(struct nvgrace_gpu *gpu)
{
	down_write(&gpu->gate);
	WRITE_ONCE(gpu->link_frozen, true);
	forget_ready(gpu);
	up_write(&gpu->gate);
	/* Tasks that wait for something else fail, too. */
	wake_up_all(&gpu->opened);
	zap(gpu);
}

void nvgrace_gpu_gate_link_reset(struct nvgrace_gpu *gpu)
{
	down_write(&gpu->gate);
	count_reset(gpu);
	up_write(&gpu->gate);
	zap(gpu);
}

void nvgrace_gpu_gate_link_works(struct nvgrace_gpu *gpu, bool lost)
{
	down_write(&gpu->gate);
	if (lost)
		forget_ready(gpu);
	WRITE_ONCE(gpu->link_frozen, false);
	up_write(&gpu->gate);
}

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

void nvgrace_gpu_gate_asleep(struct nvgrace_gpu *gpu)
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

bool nvgrace_gpu_gate_config_hides(struct nvgrace_gpu *gpu, u64 offset,
				   size_t count)
{
	u8 pm_cap = gpu->core.pdev->pm_cap;

	if (pm_cap && covers(offset, count, pm_cap + PCI_PM_CTRL, 2))
		return true;
	/* vfio-pci-core of newer kernels removes the mappings itself. */
	return !COMPAT_CORE_ZAPS && covers(offset, count, PCI_COMMAND, 2);
}

void nvgrace_gpu_gate_let_sleep(struct nvgrace_gpu *gpu)
{
	/*
	 * Without the lock: a task that changes pm_runtime_engaged now forgets
	 * readiness itself. "!!" because it is a bit-field on some kernels,
	 * which data_race() can't take.
	 */
	if (data_race(!!gpu->core.pm_runtime_engaged))
		nvgrace_gpu_gate_asleep(gpu);
	pm_runtime_put(&gpu->core.pdev->dev);
}

void nvgrace_gpu_gate_suspend(struct nvgrace_gpu *gpu)
{
	down_write(&gpu->gate);
	if (gpu->leaving) {
		up_write(&gpu->gate);
		return;
	}
	close_for(gpu, CLOSED_SUSPEND);
	/* The host may cut the power, and nothing reports a reset. */
	forget_ready(gpu);
	up_write(&gpu->gate);
	zap(gpu);
}

void nvgrace_gpu_gate_resume(struct nvgrace_gpu *gpu)
{
	down_write(&gpu->gate);
	open_for(gpu, CLOSED_SUSPEND);
	up_write(&gpu->gate);
}

void nvgrace_gpu_gate_leaves(struct nvgrace_gpu *gpu)
{
	down_write(&gpu->gate);
	gpu->leaving = true;
	open_for(gpu, CLOSED_SUSPEND);
	up_write(&gpu->gate);
}

bool nvgrace_gpu_gate_suspended(struct nvgrace_gpu *gpu)
{
	return READ_ONCE(gpu->closed) & CLOSED_SUSPEND;
}

/* ---- entering and leaving ----------------------------------------------- */

/*
 * Takes both locks for read. Under them, no reset begins, the epoch is constant,
 * and a GPU whose user does not want low power stays awake. Returns 0 or -EINTR.
 */
static int lock_both(struct nvgrace_gpu *gpu)
{
	if (down_read_killable(&gpu->core.memory_lock))
		return -EINTR;
	/* Not killable: writers hold it only briefly. */
	down_read(&gpu->gate);
	return 0;
}

/* Releases them. */
void nvgrace_gpu_gate_leave(struct nvgrace_gpu *gpu)
{
	up_read(&gpu->gate);
	up_read(&gpu->core.memory_lock);
}

/*
 * Reads the readiness registers and records what they say. In low power, success
 * holds only while the caller keeps the GPU awake, and is not recorded. The
 * first look of an epoch that finds the GPU unready starts the epoch's clock.
 * Returns 0, -EAGAIN (not ready yet), -ETIME (nor in time) or -ENODEV (gone).
 * The last two have one line in the log each epoch; limited, because a client
 * can begin epochs. Under both locks.
 */
static int look(struct nvgrace_gpu *gpu)
{
	struct nvgrace_gpu_training training = { };
	/* Before the registers, which may take long: what follows counts. */
	s64 now = ktime_get(), since;
	int ret = nvgrace_gpu_ready_look(gpu, &training);

	trace_nvgrace_gpu_ready(gpu->core.pdev, training.c2c, training.hbm,
				training.range, ret, gpu->epoch_start);
	if (!ret) {
		if (!gpu->core.pm_runtime_engaged)
			WRITE_ONCE(gpu->ready, true);
		return 0;
	}

	since = atomic64_cmpxchg(&gpu->unready_since, 0, ktime_get()) ?: now;
	if (ret == -EAGAIN && ktime_ms_delta(now, since) <= training.limit_ms)
		return -EAGAIN;
	if (ret == -EAGAIN)
		ret = -ETIME;
	if (!xchg(&gpu->late, true) && __ratelimit(&gpu->report_limit))
		nvgrace_gpu_ready_report(gpu, &training,
					 ktime_ms_delta(now, since), ret);
	return ret;
}

/*
 * Takes both locks if the memory may be accessed and is ready. @awake: the
 * caller keeps the GPU awake; without that, it may sleep if user space wants low
 * power. Otherwise holds no lock on return, and returns -EAGAIN (a wait or a
 * reference may help), -EIO (no wait would), -EINTR, or as look() does.
 */
static int try_enter(struct nvgrace_gpu *gpu, bool awake)
{
	int ret = lock_both(gpu);

	if (ret)
		return ret;
	/* First, so that nothing waits for what may never come. */
	if (gpu->link_frozen)
		ret = -EIO;
	else if (gpu->closed || (gpu->core.pm_runtime_engaged && !awake))
		ret = -EAGAIN;
	else if (!memory_enabled(gpu))
		ret = -EIO;
	else if (!READ_ONCE(gpu->ready) || gpu->core.pm_runtime_engaged)
		ret = look(gpu);
	if (ret)
		nvgrace_gpu_gate_leave(gpu);
	return ret;
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
 * Sleeps until the gate is open, or for a while if it is. Returns 0 or -EINTR.
 * Called without locks of this driver.
 */
static int wait_a_while(struct nvgrace_gpu *gpu)
{
	s64 since = atomic64_read(&gpu->unready_since);
	s64 ms = since ? ktime_ms_delta(ktime_get(), since) : 0;

	/* A pause could miss the time between two resets. */
	if (READ_ONCE(gpu->closed))
		return wait_event_killable(gpu->opened,
					   !READ_ONCE(gpu->closed) ||
					   READ_ONCE(gpu->link_frozen)) ?
			       -EINTR : 0;
	pause_killable(ms < POLL_FIRST_MS ? POLL_FIRST_US :
		       ms < POLL_EARLY_MS ? POLL_EARLY_US : POLL_LATE_US);
	return fatal_signal_pending(current) ? -EINTR : 0;
}

int nvgrace_gpu_gate_wait(struct nvgrace_gpu *gpu)
{
	u64 start = nvgrace_gpu_trace_start(wait);
	int ret = wait_a_while(gpu);

	trace_nvgrace_gpu_wait(gpu->core.pdev, NVGRACE_GPU_TRACE_USE, ret,
			       start);
	return ret;
}

/*
 * Calls try_enter(), and returns its result, until that is not -EAGAIN. Inline,
 * because a call more is felt in an access of 8 bytes.
 */
static __always_inline int enter(struct nvgrace_gpu *gpu, bool *awake,
				 unsigned int when)
{
	struct device *dev = &gpu->core.pdev->dev;
	bool waits = when == NVGRACE_GPU_TRACE_BIND;
	u64 start = nvgrace_gpu_trace_start(wait);
	int ret;

	for (;;) {
		/* Only then; a reference costs as much as a small access. */
		if (!*awake && data_race(!!gpu->core.pm_runtime_engaged)) {
			if (pm_runtime_resume_and_get(dev) < 0)
				return -EIO;
			*awake = true;
		}
		ret = try_enter(gpu, *awake);
		if (ret != -EAGAIN)
			break;
		waits = true;
		ret = wait_a_while(gpu);
		/*
		 * An access begins again when the host is awake; not a bind. Only
		 * the freezer's signal restarts it, which comes after the rest.
		 */
		if (!ret && when != NVGRACE_GPU_TRACE_BIND &&
		    freezing(current) && signal_pending(current))
			ret = -ERESTARTNOINTR;
		if (ret)
			break;
	}
	if (waits)
		trace_nvgrace_gpu_wait(gpu->core.pdev, when, ret, start);
	return ret;
}

int nvgrace_gpu_gate_enter(struct nvgrace_gpu *gpu, bool *awake)
{
	int ret = enter(gpu, awake, NVGRACE_GPU_TRACE_USE);

	return ret == -ETIME || ret == -ENODEV ? -EIO : ret;
}

int nvgrace_gpu_gate_enter_fault(struct nvgrace_gpu *gpu)
{
	int ret;

	/* Not by the locks: a reset may hold one for long. */
	if (READ_ONCE(gpu->link_frozen))
		return -EIO;
	if (READ_ONCE(gpu->closed))
		return -EAGAIN;
	ret = try_enter(gpu, false);
	/* A fault can't keep the GPU awake. */
	if (ret == -EAGAIN && data_race(!!gpu->core.pm_runtime_engaged))
		ret = -EIO;
	return ret;
}

/*
 * A GPU's registers may read ready for some milliseconds after a reset. Before a
 * scrub, which writes every byte, they are read again, and after it.
 */
int nvgrace_gpu_gate_enter_again(struct nvgrace_gpu *gpu, unsigned int epoch)
{
	bool awake = true;
	int ret = nvgrace_gpu_gate_enter(gpu, &awake);

	if (ret)
		return ret;
	if (gpu->epoch == epoch && !look(gpu))
		return 0;
	nvgrace_gpu_gate_leave(gpu);

	/*
	 * No longer, or not yet: whoever comes next looks, too. The kernel's own
	 * mappings go meanwhile, because a CPU may read what is mapped.
	 */
	down_write(&gpu->gate);
	nvgrace_gpu_window_unmap(gpu);
	WRITE_ONCE(gpu->ready, false);
	up_write(&gpu->gate);
	return -EAGAIN;
}

int nvgrace_gpu_gate_wait_probe(struct nvgrace_gpu *gpu)
{
	bool awake = true;
	int ret = enter(gpu, &awake, NVGRACE_GPU_TRACE_BIND);

	if (!ret)
		nvgrace_gpu_gate_leave(gpu);
	return ret;
}

bool nvgrace_gpu_gate_wanted(struct nvgrace_gpu *gpu)
{
	return rwsem_is_contended(&gpu->core.memory_lock) ||
	       rwsem_is_contended(&gpu->gate);
}

bool nvgrace_gpu_gate_trains(struct nvgrace_gpu *gpu)
{
	return atomic64_read(&gpu->unready_since) && !READ_ONCE(gpu->ready) &&
	       !READ_ONCE(gpu->late);
}

unsigned int nvgrace_gpu_gate_epoch(struct nvgrace_gpu *gpu)
{
	lockdep_assert_held(&gpu->gate);
	return gpu->epoch;
}

enum nvgrace_gpu_readiness nvgrace_gpu_gate_readiness(struct nvgrace_gpu *gpu)
{
	if (READ_ONCE(gpu->link_frozen))
		return NVGRACE_GPU_FAILED;
	if (READ_ONCE(gpu->ready))
		return NVGRACE_GPU_READY;
	return READ_ONCE(gpu->late) ? NVGRACE_GPU_FAILED : NVGRACE_GPU_UNKNOWN;
}

/* ---- from probe to remove ----------------------------------------------- */

void nvgrace_gpu_gate_init(struct nvgrace_gpu *gpu)
{
	init_rwsem(&gpu->gate);
	init_waitqueue_head(&gpu->opened);
	/* Three lines in 5 minutes: user space can make waits fail again. */
	ratelimit_state_init(&gpu->report_limit, 300 * HZ, 3);
	gpu->epoch_start = ktime_get();
}
