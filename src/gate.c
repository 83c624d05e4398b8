// SPDX-License-Identifier: GPL-2.0-only
/*
 * Decides whether the GPU's memory may be accessed now, for faults, reads,
 * writes and exports. No other file does. Owns what the decision depends on:
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
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/pci.h>
#include <linux/pm_runtime.h>
#include <linux/ratelimit.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
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

/*
 * State of tasks that wait, except in a bind, which holds a lock that
 * suspending needs. Host suspend may freeze them. "Unsafe" because a copy from
 * user space may have faulted and waits here, and the caller of the copy may
 * hold locks.
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

void nvgrace_gpu_gate_link_works(struct nvgrace_gpu *gpu)
{
	down_write(&gpu->gate);
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
int nvgrace_gpu_gate_config_begin(struct nvgrace_gpu *gpu, u64 offset,
				  size_t count)
{
	if (!takes_turn(gpu, offset, count))
		return 0;

	/* One at a time: the first of two to end would open the gate. */
	if (wait_event_state(gpu->opened,
			     !cmpxchg(&gpu->config_writer, NULL, current),
			     SLEEP_STATE))
		return -EINTR;

	down_write(&gpu->gate);
	close_for(gpu, CLOSED_CONFIG);
	up_write(&gpu->gate);
	zap(gpu);
	return 0;
}

void nvgrace_gpu_gate_config_end(struct nvgrace_gpu *gpu, u64 offset,
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

int nvgrace_gpu_gate_keep_awake(struct nvgrace_gpu *gpu)
{
	return pm_runtime_resume_and_get(&gpu->core.pdev->dev) ? -EIO : 0;
}

void nvgrace_gpu_gate_let_sleep(struct nvgrace_gpu *gpu)
{
	/*
	 * User space wants low power, so the GPU sleeps again. Without the
	 * lock: a task that changes pm_runtime_engaged now forgets readiness
	 * itself. "!!" because it is a bit-field on some kernels, which
	 * data_race() can't take.
	 */
	if (data_race(!!gpu->core.pm_runtime_engaged))
		nvgrace_gpu_gate_asleep(gpu);
	pm_runtime_put(&gpu->core.pdev->dev);
}

void nvgrace_gpu_gate_suspend(struct nvgrace_gpu *gpu)
{
	down_write(&gpu->gate);
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
	/* If it was removed while the host slept, nothing else would. */
	open_for(gpu, CLOSED_SUSPEND);
	up_write(&gpu->gate);
}

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

/* Sleeps for @us microseconds, or until the task is being killed. */
static void pause_killable(unsigned int us, unsigned int state)
{
	ktime_t expires = ns_to_ktime((u64)us * NSEC_PER_USEC);

	set_current_state(state);
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
	/* First, so that nothing waits for what may never come. */
	if (gpu->link_frozen)
		return -EIO;
	if (gpu->core.pm_runtime_engaged && !awake)
		return -EBUSY;
	if (gpu->closed)
		return READ_ONCE(gpu->config_writer) == current ? -EIO : -EAGAIN;
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
	unsigned int us = POLL_FIRST_US;
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
			unlock_both(gpu);
			return ret;
		}
		ret = look(gpu, &training);
		/* After look(), which may have extended the deadline. */
		if (ret == -EAGAIN && (kind == POLL_ONCE ||
				       nvgrace_gpu_ready_late(&training, when)))
			ret = -ETIME;
		if (kind != POLL_ONCE && (ret == -ETIME || ret == -ENODEV))
			WRITE_ONCE(gpu->failed_for, epoch);
		unlock_both(gpu);

		if (ret != -EAGAIN)
			break;
		if (fatal_signal_pending(current))
			return -EINTR;
		pause_killable(us, kind == POLL_AT_BIND ? TASK_KILLABLE :
							SLEEP_STATE);
		us = min(us * 2, (unsigned int)POLL_LONGEST_US);
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
		else if (kind == POLL_IN_USE &&
			 READ_ONCE(gpu->failed_for) == epoch)
			ret = poll_ready(gpu, POLL_ONCE, epoch);
		else
			ret = poll_ready(gpu, kind, epoch);
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
	int ret;

	nvgrace_gpu_ready_find(gpu);
	ret = nvgrace_gpu_ready_begin(gpu);
	if (ret)
		return ret;
	ret = wait_ready(gpu, POLL_AT_BIND);
	trace_nvgrace_gpu_wait(gpu->core.pdev, NVGRACE_GPU_TRACE_BIND, ret,
			       start);
	nvgrace_gpu_ready_end(gpu);
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
		if (ret && (ret != -EAGAIN || has_failed(gpu)))
			ret = -EIO;
	}
	if (ret)
		unlock_both(gpu);
	return ret;
}

int nvgrace_gpu_gate_enter_fault(struct nvgrace_gpu *gpu)
{
	int ret = try_enter(gpu, false);

	/* A fault can't keep the GPU awake. */
	return ret == -EBUSY ? -EIO : ret;
}

int nvgrace_gpu_gate_enter(struct nvgrace_gpu *gpu, bool awake)
{
	int ret;

	do {
		ret = try_enter(gpu, awake);
		if (ret != -EAGAIN)
			return ret;
		ret = nvgrace_gpu_gate_wait(gpu);
	} while (!ret);
	return ret;
}

void nvgrace_gpu_gate_leave(struct nvgrace_gpu *gpu)
{
	unlock_both(gpu);
}

bool nvgrace_gpu_gate_wanted(struct nvgrace_gpu *gpu)
{
	return rwsem_is_contended(&gpu->core.memory_lock) ||
	       rwsem_is_contended(&gpu->gate);
}

unsigned int nvgrace_gpu_gate_epoch(struct nvgrace_gpu *gpu)
{
	lockdep_assert_held(&gpu->gate);
	return gpu->epoch;
}

int nvgrace_gpu_gate_wait_export(struct nvgrace_gpu *gpu)
{
	bool enabled;
	int ret;

	ret = nvgrace_gpu_gate_keep_awake(gpu);
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
	ret = nvgrace_gpu_gate_enter(gpu, true);
	if (!ret)
		nvgrace_gpu_gate_leave(gpu);
out:
	nvgrace_gpu_gate_let_sleep(gpu);
	return ret;
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
	gpu->last_wait = KTIME_MAX;
	/* Three lines in 5 minutes: user space can make waits fail again. */
	ratelimit_state_init(&gpu->report_limit, 300 * HZ, 3);
	/* No wait has ended in this epoch, with or without success. */
	gpu->failed_for = gpu->epoch - 1;
	gpu->ready_for = gpu->epoch - 1;
}
