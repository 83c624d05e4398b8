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
 * all. An access needs more than an open gate: check() and try_enter() have the
 * other conditions, in order.
 *
 * Locks nest in this order: mmap_lock or the device lock, memory_lock, gate.
 * "Both locks" are memory_lock and gate, held for read.
 */
#include <linux/hrtimer.h>
#include <linux/ktime.h>
#include <linux/list.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/pci.h>
#include <linux/pm_runtime.h>
#include <linux/ratelimit.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/wait.h>

#include "compat/compat.h"
#include "nvgrace_gpu.h"
#include "trace.h"

/* Reasons why the gate is closed, bits of closed. */
#define CLOSED_RESET	BIT(0)	/* during a reset */
#define CLOSED_SUSPEND	BIT(1)	/* while the host sleeps */
#define CLOSED_CONFIG	BIT(2)	/* while power or decoding is written */

/*
 * Pauses between checks of readiness, doubling from the first to the longest.
 * Most GPUs are ready at the first check, so the first pause is short. The
 * longest one bounds how much later than the GPU a wait ends.
 */
#define POLL_FIRST_US		1000
#define POLL_LONGEST_US		8000

/* After this many milliseconds, a GPU boots, and POLL_LATE_US is the longest. */
#define POLL_EARLY_MS		2000
#define POLL_LATE_US		50000

/* Microseconds between the two looks at the registers before a scrub. */
#define READY_TWICE_US		100000

/*
 * State of tasks that wait for the gate. Host suspend may freeze them. "Unsafe"
 * because a copy from user space may have faulted and waits here, and the caller
 * of the copy may hold locks.
 */
#define SLEEP_STATE		(TASK_KILLABLE | TASK_FREEZABLE_UNSAFE)

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
	gpu->epoch_start = ktime_get();
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

/* The tasks that are writing power or decoding, of any GPU. */
static LIST_HEAD(config_writers);
static DEFINE_SPINLOCK(config_writers_lock);	/* protects config_writers */

/* Whether this task is one of them. */
static bool is_config_writer(void)
{
	struct nvgrace_gpu_config_write *w;
	bool found = false;

	spin_lock(&config_writers_lock);
	list_for_each_entry(w, &config_writers, entry)
		found |= w->task == current;
	spin_unlock(&config_writers_lock);
	return found;
}

/*
 * The gate is closed during a write that may make the memory unreachable,
 * because the state may change at any time in it: vfio-pci-core fetches the
 * bytes register by register, and user space may keep it waiting. Checking after
 * the write would not do: before Linux 6.10, vfio-pci-core leaves this driver's
 * mappings where they are, so they must go before and stay away. Two such
 * tasks, whose bytes are in the memory of each other's GPU, would wait for each
 * other, so the accesses of a task that writes fail.
 */
void nvgrace_gpu_gate_config_begin(struct nvgrace_gpu *gpu,
				   struct nvgrace_gpu_config_write *w,
				   u64 offset, size_t count)
{
	w->power = covers_power(gpu, offset, count);
	w->closes = w->power || covers_decoding(offset, count);
	if (!w->closes)
		return;

	w->task = current;
	spin_lock(&config_writers_lock);
	list_add(&w->entry, &config_writers);
	spin_unlock(&config_writers_lock);

	down_write(&gpu->gate);
	gpu->config_writes++;
	close_for(gpu, CLOSED_CONFIG);
	up_write(&gpu->gate);
	zap(gpu);
}

void nvgrace_gpu_gate_config_end(struct nvgrace_gpu *gpu,
				 struct nvgrace_gpu_config_write *w)
{
	if (!w->closes)
		return;

	down_write(&gpu->gate);
	/* Leaving D3hot may be a reset, and nothing reports it. */
	if (w->power)
		forget_ready(gpu);
	if (!--gpu->config_writes)
		open_for(gpu, CLOSED_CONFIG);
	up_write(&gpu->gate);

	spin_lock(&config_writers_lock);
	list_del(&w->entry);
	spin_unlock(&config_writers_lock);
}

int nvgrace_gpu_gate_keep_awake(struct nvgrace_gpu *gpu)
{
	struct device *dev = &gpu->core.pdev->dev;
	bool engaged;

	/*
	 * From here on it does not fall asleep. Unless user space wants low
	 * power, it is awake, and pm_runtime_resume() would cost as much as a
	 * small access. "!!" because it is a bit-field on some kernels, which
	 * data_race() can't take.
	 */
	pm_runtime_get_noresume(dev);
	/* Before what is read without the lock: see below. */
	smp_mb__after_atomic();
	/* Whoever wants low power now finds the reference. */
	engaged = data_race(!!gpu->core.pm_runtime_engaged);
	if (!engaged || pm_runtime_resume(dev) >= 0)
		return 0;
	pm_runtime_put_noidle(dev);
	return -EIO;
}

void nvgrace_gpu_gate_let_sleep(struct nvgrace_gpu *gpu)
{
	/*
	 * User space wants low power, so the GPU sleeps again. Without the
	 * lock: a task that changes pm_runtime_engaged now forgets readiness
	 * itself.
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

/* ---- waiting ------------------------------------------------------------ */

/*
 * Sleeps until the gate is open. Returns 0, -EINTR (the task is being killed),
 * or -EIO (the link has frozen). Called without locks of this driver.
 */
static int wait_until_open(struct nvgrace_gpu *gpu)
{
	if (wait_event_state(gpu->opened, !READ_ONCE(gpu->closed) ||
			     READ_ONCE(gpu->link_frozen), SLEEP_STATE))
		return -EINTR;
	return READ_ONCE(gpu->link_frozen) ? -EIO : 0;
}

/*
 * Sleeps for @us microseconds, or until the task is being killed. Not to be
 * frozen: a bind holds a lock that suspending needs. Others find the gate closed
 * before tasks freeze, and freeze there.
 */
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

/* Releases them. */
void nvgrace_gpu_gate_leave(struct nvgrace_gpu *gpu)
{
	up_read(&gpu->gate);
	up_read(&gpu->core.memory_lock);
}

/*
 * Whether the memory may be accessed, readiness aside. @awake: the caller keeps
 * the GPU awake; without that, it may sleep if user space wants low power.
 * Returns 0, -EAGAIN (wait until the gate is open) or -EIO. Under both locks.
 */
static int check(struct nvgrace_gpu *gpu, bool awake)
{
	lockdep_assert_held(&gpu->gate);
	/* First, so that nothing waits for what may never come. */
	if (gpu->link_frozen || (gpu->core.pm_runtime_engaged && !awake))
		return -EIO;
	if (gpu->closed)
		return is_config_writer() ? -EIO : -EAGAIN;
	return memory_enabled(gpu) ? 0 : -EIO;
}

/*
 * Reads the readiness registers, after check(), and records success. In low
 * power the result holds only while the caller keeps the GPU awake, and is not
 * recorded. Returns 0, -EAGAIN (not ready) or -ENODEV (gone). Under both locks.
 */
static int look(struct nvgrace_gpu *gpu, struct nvgrace_gpu_training *training)
{
	int ret = nvgrace_gpu_ready_look(gpu, training);

	trace_nvgrace_gpu_ready(gpu->core.pdev, training->c2c, training->hbm,
				training->range, ret, gpu->epoch_start);
	if (!ret && !gpu->core.pm_runtime_engaged)
		/* Pairs with is_ready(). */
		smp_store_release(&gpu->ready_for, gpu->epoch);
	return ret;
}

enum poll_kind {
	POLL_AT_BIND,	/* log every failure */
	POLL_IN_USE,	/* log few: user space can repeat it */
	POLL_ONCE,	/* poll once: a wait has failed in this epoch */
};

/*
 * Polls until the memory is ready or the deadline has passed; POLL_ONCE polls
 * once. Returns 0, -EAGAIN (the gate was closed or @epoch has ended, so begin
 * anew), -EIO, -EINTR, -ETIME or -ENODEV. One task at a time, with the GPU
 * awake.
 */
static int poll_ready(struct nvgrace_gpu *gpu, enum poll_kind kind,
		      unsigned int epoch)
{
	struct nvgrace_gpu_training training;
	unsigned int us = POLL_FIRST_US, longest;
	ktime_t when;
	int ret;

	nvgrace_gpu_ready_start(gpu, &training);
	for (;;) {
		/* Before look(), so that a look after the deadline counts. */
		when = ktime_get();
		if (lock_both(gpu))
			return -EINTR;
		ret = gpu->epoch == epoch ? check(gpu, true) : -EAGAIN;
		if (ret) {
			nvgrace_gpu_gate_leave(gpu);
			return ret;
		}
		ret = look(gpu, &training);
		/* After look(), which may have extended the deadline. */
		if (ret == -EAGAIN && (kind == POLL_ONCE ||
				       ktime_after(when, training.deadline)))
			ret = -ETIME;
		if (kind != POLL_ONCE && (ret == -ETIME || ret == -ENODEV))
			WRITE_ONCE(gpu->failed_for, epoch);
		nvgrace_gpu_gate_leave(gpu);

		if (ret != -EAGAIN)
			break;
		if (fatal_signal_pending(current))
			return -EINTR;
		pause_killable(us);
		longest = ktime_ms_delta(when, training.start) < POLL_EARLY_MS ?
			  POLL_LONGEST_US : POLL_LATE_US;
		us = min(us * 2, longest);
	}
	if (ret && (kind == POLL_AT_BIND ||
		    (kind == POLL_IN_USE && __ratelimit(&gpu->report_limit))))
		nvgrace_gpu_ready_report(gpu, &training, ret);
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
static int wait_ready(struct nvgrace_gpu *gpu, enum poll_kind kind)
{
	unsigned int epoch;
	int ret;

	do {
		ret = wait_until_open(gpu);
		if (ret)
			return ret;
		/* No mutex: tasks that wait for one can't be frozen. */
		if (wait_event_state(gpu->opened,
				     !cmpxchg(&gpu->poller, NULL, current),
				     SLEEP_STATE))
			return -EINTR;
		/* The decision is valid in this epoch only. */
		epoch = READ_ONCE(gpu->epoch);
		if (is_ready(gpu))
			ret = 0;
		else
			ret = poll_ready(gpu, kind == POLL_IN_USE && has_failed(gpu) ?
					 POLL_ONCE : kind, epoch);
		/* Pairs with the cmpxchg() of the next one. */
		smp_store_release(&gpu->poller, NULL);
		wake_up_all(&gpu->opened);
	} while (ret == -EAGAIN);
	return ret;
}

int nvgrace_gpu_gate_wait(struct nvgrace_gpu *gpu)
{
	u64 start = nvgrace_gpu_trace_start(wait);
	int ret;

	if (READ_ONCE(gpu->closed) || READ_ONCE(gpu->link_frozen)) {
		/*
		 * Return at once: the GPU may be ready, and the next reset
		 * near.
		 */
		ret = wait_until_open(gpu);
		goto out;
	}

	/* The registers of a sleeping GPU can't be read. */
	ret = nvgrace_gpu_gate_keep_awake(gpu);
	if (!ret) {
		ret = wait_ready(gpu, POLL_IN_USE);
		pm_runtime_put(&gpu->core.pdev->dev);
	} else {
		/* A fault that is retried must not wait for this again. */
		WRITE_ONCE(gpu->failed_for, READ_ONCE(gpu->epoch));
	}
out:
	if (ret && ret != -EINTR)
		ret = -EIO;
	trace_nvgrace_gpu_wait(gpu->core.pdev, NVGRACE_GPU_TRACE_USE, ret,
			       start);
	return ret;
}

int nvgrace_gpu_gate_wait_probe(struct nvgrace_gpu *gpu)
{
	u64 start = nvgrace_gpu_trace_start(wait);
	int ret = wait_ready(gpu, POLL_AT_BIND);

	trace_nvgrace_gpu_wait(gpu->core.pdev, NVGRACE_GPU_TRACE_BIND, ret,
			       start);
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
		nvgrace_gpu_ready_start(gpu, &training);
		ret = look(gpu, &training);
		/* It reads as all ones, and no wait would end better. */
		if (ret == -ENODEV)
			WRITE_ONCE(gpu->failed_for, gpu->epoch);
		if (ret && has_failed(gpu))
			ret = -EIO;
	}
	if (ret)
		nvgrace_gpu_gate_leave(gpu);
	return ret;
}

int nvgrace_gpu_gate_enter_fault(struct nvgrace_gpu *gpu)
{
	/* A fault can't keep the GPU awake. */
	return try_enter(gpu, false);
}

int nvgrace_gpu_gate_enter(struct nvgrace_gpu *gpu)
{
	int ret;

	do {
		ret = try_enter(gpu, true);
		if (ret != -EAGAIN)
			return ret;
		ret = nvgrace_gpu_gate_wait(gpu);
	} while (!ret);
	return ret;
}

/*
 * A GPU's registers may read ready for some milliseconds after a reset. Before
 * a scrub, which writes every byte, they are read again.
 */
int nvgrace_gpu_gate_enter_sure(struct nvgrace_gpu *gpu)
{
	struct nvgrace_gpu_training training;
	unsigned int epoch;
	int ret;

	ret = nvgrace_gpu_gate_enter(gpu);
	if (ret)
		return ret;
	epoch = gpu->epoch;
	nvgrace_gpu_gate_leave(gpu);

	pause_killable(READY_TWICE_US);

	ret = nvgrace_gpu_gate_enter(gpu);
	if (ret)
		return ret;
	nvgrace_gpu_ready_start(gpu, &training);
	if (gpu->epoch != epoch) {
		ret = -EAGAIN;
	} else if (look(gpu, &training)) {
		/* No longer, or not yet: whoever comes next waits for it. */
		WRITE_ONCE(gpu->ready_for, epoch - 1);
		ret = -EAGAIN;
	}
	if (ret)
		nvgrace_gpu_gate_leave(gpu);
	return ret;
}

bool nvgrace_gpu_gate_wanted(struct nvgrace_gpu *gpu)
{
	return rwsem_is_contended(&gpu->core.memory_lock) ||
	       rwsem_is_contended(&gpu->gate);
}

bool nvgrace_gpu_gate_polls(struct nvgrace_gpu *gpu)
{
	return READ_ONCE(gpu->poller);
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
	if (is_ready(gpu))
		return NVGRACE_GPU_READY;
	return has_failed(gpu) ? NVGRACE_GPU_FAILED : NVGRACE_GPU_UNKNOWN;
}

/* ---- from probe to remove ----------------------------------------------- */

void nvgrace_gpu_gate_init(struct nvgrace_gpu *gpu)
{
	init_rwsem(&gpu->gate);
	init_waitqueue_head(&gpu->opened);
	/* Three lines in 5 minutes: user space can make waits fail again. */
	ratelimit_state_init(&gpu->report_limit, 300 * HZ, 3);
	/* No wait has ended in this epoch, with or without success. */
	gpu->failed_for = gpu->epoch - 1;
	gpu->ready_for = gpu->epoch - 1;
	gpu->epoch_start = ktime_get();
}
