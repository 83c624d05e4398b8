// SPDX-License-Identifier: GPL-2.0-only
/*
 * Overwrites GPU memory with zeros between users, so that none sees the data of
 * an earlier one. Owns the module parameter, what is known about each GPU's
 * content, and the workers that write the zeros.
 *
 * An attempt is a work item of the GPU. It runs only while the device is not
 * open, and an open waits for it. Workers enter the gate for small steps, so
 * that resets and errors can come in between. Zeros of an epoch that has ended
 * don't count, because a reset may have overtaken them: the attempt begins again
 * in the new epoch.
 *
 * Memory is clean when the GPU was reset first, so that it no longer writes,
 * all memory was overwritten in one epoch, all zeros have left the CPUs' caches,
 * and anything left in the GPU's own cache is backed by zeros.
 */
#include <linux/cpumask.h>
#include <linux/crash_dump.h>
#include <linux/delay.h>
#include <linux/kobject.h>
#include <linux/ktime.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/pm_runtime.h>
#include <linux/ratelimit.h>
#include <linux/sched.h>
#include <linux/time64.h>
#include <linux/timekeeping.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/sysfs.h>
#include <linux/topology.h>
#include <linux/workqueue.h>

#include "arith.h"
#include "compat/compat.h"
#include "nvgrace_gpu.h"
#include "trace.h"

/*
 * Bytes that a worker overwrites in one step. A reset waits for one step, 1 ms
 * at 16 GB/s. Divides the windows of window.c.
 */
#define STEP		SZ_16M

/*
 * Zeros that have left the CPUs' caches are at their home, the GPU. There, the
 * lines written last may be dirty in the GPU's own L2 cache (50 MB on Hopper,
 * more on later GPUs), above the old content. A reset, such as that of the next
 * open, may drop that cache. The CPU can't clean it, but it can fill it with
 * other lines.
 *
 * So a second pass follows when all workers have finished the first one. It
 * overwrites this many bytes of usemem, many times the size of any L2, and all
 * of resmem. Writing them evicts the lines that the first pass left dirty. What
 * the second pass leaves dirty has the zeros of the first pass below it.
 *
 * The bytes are spread evenly over usemem: if one cache serves a half of the
 * addresses, as may be on GPUs of two dies, each gets its share. Resmem takes
 * part because its writes are of another type, for which a cache may reserve
 * room. Lines that both passes have written last, as on a GPU with less memory,
 * are no exception: before or after a line is overwritten again, most of the
 * other bytes are, which evicts it.
 */
#define AGAIN		SZ_2G

/*
 * Bytes at the end of each part that come last, by one worker and after a line
 * in the log. Firmware of some boards guards ranges there, and a scrub may be
 * the first to write them: the console of a host that dies then says where.
 */
#define END		SZ_64M

/*
 * Milliseconds between two looks at the readiness registers before a scrub,
 * which may read ready for a moment after a reset.
 */
#define READY_TWICE_MS	100

/*
 * Unbinding and shutdown wait as long as a scrub gets on. They give up when no
 * step has ended for STALL_MS milliseconds in which the scrub did not have to
 * wait. Each SAY_MS they log how far it is. The kernel's
 * detector of hung tasks complains of a task that sleeps in one piece for 120 s,
 * or ends the host, so one sleep takes SLEEP_MS.
 */
#define STALL_MS	60000
#define SAY_MS		30000
#define SLEEP_MS	5000

/*
 * Milliseconds between two tries to get the device lock, and the number of
 * tries: two minutes. A reset or error recovery holds it for a minute at most.
 */
#define LOCK_MS		10
#define LOCK_TRIES	(2 * 60 * MSEC_PER_SEC / LOCK_MS)

static bool scrub;
module_param(scrub, bool, 0644);
MODULE_PARM_DESC(scrub, "Overwrite GPU memory with zeros after binding and after each use, before the next open; first try it with \"nvgrace-gpu test\" (default: N)");

/* sysfs has the workers' niceness and CPUs. */
static struct workqueue_struct *workers;

struct worker {
	struct work_struct work;
	struct nvgrace_gpu *gpu;
	bool resmem_first;
};

bool nvgrace_gpu_scrub_wanted(void)
{
	/* With one CPU and little memory, the dump of the host comes first. */
	return READ_ONCE(scrub) && !is_kdump_kernel();
}

enum nvgrace_gpu_scrub_state nvgrace_gpu_scrub_state(struct nvgrace_gpu *gpu)
{
	return READ_ONCE(gpu->scrub.state);
}

/* The passes of an attempt. */
enum pass {
	PASS_FIRST,	/* all but the end of each part */
	PASS_END,	/* these ends, by one worker */
	PASS_AGAIN,	/* see AGAIN */
};

/* Steps in @region. */
static u64 all_steps(const struct nvgrace_gpu_region *region)
{
	return DIV_ROUND_UP_ULL(region->length, STEP);
}

/* Those of a pass. */
static u64 count_steps(const struct nvgrace_gpu_region *region, enum pass pass)
{
	u64 all = all_steps(region);
	u64 end = min_t(u64, all, END / STEP);

	if (pass == PASS_FIRST)
		return all - end;
	if (pass == PASS_END)
		return end;
	return region->uncached ? all : min_t(u64, all, AGAIN / STEP);
}

/* Bytes of the second pass. Only the last step of a part is a shorter one. */
static u64 bytes_again(const struct nvgrace_gpu *gpu)
{
	return min(gpu->usemem.length,
		   count_steps(&gpu->usemem, PASS_AGAIN) * STEP) + gpu->resmem.length;
}

u64 nvgrace_gpu_scrub_progress(struct nvgrace_gpu *gpu)
{
	u64 written = atomic64_read(&gpu->scrub.written);
	u64 again = bytes_again(gpu);

	/* As many bytes as the second pass has are not safe before its end. */
	return written > again ? written - again : 0;
}

struct nvgrace_gpu_scrub_record nvgrace_gpu_scrub_last(struct nvgrace_gpu *gpu)
{
	struct nvgrace_gpu_scrub_record last;

	mutex_lock(&gpu->scrub.lock);
	last = gpu->scrub.last;
	mutex_unlock(&gpu->scrub.lock);
	return last;
}

static void set_state(struct nvgrace_gpu *gpu,
		      enum nvgrace_gpu_scrub_state state)
{
	lockdep_assert_held(&gpu->scrub.lock);
	WRITE_ONCE(gpu->scrub.state, state);
	sysfs_notify(&gpu->core.pdev->dev.kobj, "nvgrace_gpu", "scrub_state");
}

/* ---- the workers -------------------------------------------------------- */

/* Overwrites what is left of @region in a pass, with the other workers. */
static void zero_region(struct nvgrace_gpu_region *region, atomic64_t *next)
{
	struct nvgrace_gpu_scrub *s = &region->gpu->scrub;
	u64 count = count_steps(region, s->pass);
	u64 step, offset, len;
	int ret = 0;

	while (!ret && !READ_ONCE(s->error)) {
		step = atomic64_fetch_inc(next);
		if (step >= count)
			break;
		if (s->pass == PASS_END)
			step += count_steps(region, PASS_FIRST);
		else if (s->pass == PASS_AGAIN)
			step = nvgrace_gpu_spread(step, count,
						  all_steps(region));
		offset = step * STEP;
		len = min_t(u64, STEP, region->length - offset);
		ret = READ_ONCE(s->stalled) ? -ETIME :
		      nvgrace_gpu_rw_zero(region, offset, len, s->epoch,
					  s->pass == PASS_AGAIN);
		if (!ret)
			atomic64_add(len, &s->written);
	}
	if (ret)
		cmpxchg(&s->error, 0, ret);
}

static void work(struct nvgrace_gpu *gpu, bool resmem_first)
{
	struct nvgrace_gpu_scrub *s = &gpu->scrub;

	if (resmem_first)
		zero_region(&gpu->resmem, &s->next_resmem);
	zero_region(&gpu->usemem, &s->next_usemem);
	if (!resmem_first)
		zero_region(&gpu->resmem, &s->next_resmem);
}

static void worker(struct work_struct *item)
{
	struct worker *w = container_of(item, struct worker, work);

	work(w->gpu, w->resmem_first);
}

/* One for each CPU of the GPU's NUMA node, but at most one for each step. */
static unsigned int count_workers(struct nvgrace_gpu *gpu)
{
	u64 steps = all_steps(&gpu->usemem) + all_steps(&gpu->resmem);
	int node = dev_to_node(&gpu->core.pdev->dev);
	unsigned int cpus = 0;

	if (node != NUMA_NO_NODE)
		cpus = cpumask_weight(cpumask_of_node(node));
	return min_t(u64, cpus ?: num_online_cpus(), steps);
}

/*
 * One pass over both parts. Returns 0 or the first error of a worker. All have
 * ended on return, with their zeros out of the CPUs' caches.
 */
static int run_pass(struct nvgrace_gpu *gpu, unsigned int count, enum pass pass)
{
	int node = dev_to_node(&gpu->core.pdev->dev);
	struct nvgrace_gpu_scrub *s = &gpu->scrub;
	struct worker *others;
	unsigned int i;

	s->pass = pass;
	atomic64_set(&s->next_usemem, 0);
	atomic64_set(&s->next_resmem, 0);

	/*
	 * This task is one of @count. Without memory for the others it works
	 * alone.
	 */
	others = kcalloc(count - 1, sizeof(*others), GFP_KERNEL);
	for (i = 0; others && i < count - 1; i++) {
		INIT_WORK(&others[i].work, worker);
		others[i].gpu = gpu;
		others[i].resmem_first = !(i % 2);
		queue_work_node(node, workers, &others[i].work);
	}
	work(gpu, false);
	/*
	 * Orders the others' work before what follows. One that has not begun
	 * is not needed and may never begin, because the administrator may have
	 * limited the queue's active works.
	 */
	for (i = 0; others && i < count - 1; i++)
		cancel_work_sync(&others[i].work);
	kfree(others);
	return s->error;
}

/* Whether the GPU is still ready, in the attempt's epoch: 0, -EAGAIN or -EIO. */
static int look_again(struct nvgrace_gpu *gpu)
{
	int ret = nvgrace_gpu_gate_enter_again(gpu, gpu->scrub.epoch);

	if (!ret)
		nvgrace_gpu_gate_leave(gpu);
	return ret;
}

/*
 * Overwrites both parts in the current epoch, with the GPU kept awake. Returns
 * 0, -EAGAIN (a reset, or the GPU is no longer ready), -EIO, -ENOMEM or -ETIME.
 */
static int zero_all(struct nvgrace_gpu *gpu, unsigned int count)
{
	struct nvgrace_gpu_scrub *s = &gpu->scrub;
	bool awake = true;
	int ret;

	WRITE_ONCE(s->error, 0);
	atomic64_set(&s->written, 0);

	ret = nvgrace_gpu_gate_enter(gpu, &awake);
	if (ret)
		return ret;
	s->epoch = nvgrace_gpu_gate_epoch(gpu);
	nvgrace_gpu_gate_leave(gpu);
	msleep(READY_TWICE_MS);
	ret = look_again(gpu);
	if (ret)
		return ret;

	ret = run_pass(gpu, count, PASS_FIRST);
	if (ret)
		return ret;
	if (__ratelimit(&s->clear_limit))
		pci_info(gpu->core.pdev,
			 "overwriting the last %u MiB of usemem and resmem with zeros\n",
			 END / SZ_1M);
	ret = run_pass(gpu, 1, PASS_END);
	if (!ret)
		ret = run_pass(gpu, count, PASS_AGAIN);
	/* An error that nothing has reported yet may have taken the GPU away. */
	if (!ret)
		ret = look_again(gpu);
	if (ret)
		return ret;
	/*
	 * A reset from here on finds all zeros in memory. Pages that were bad
	 * are good, because all lines are new. None was reported meanwhile:
	 * the kernel does so only while the device is open.
	 */
	nvgrace_gpu_poison_forget_all(&gpu->usemem);
	nvgrace_gpu_poison_forget_all(&gpu->resmem);
	return 0;
}

/* ---- an attempt --------------------------------------------------------- */

/* Logs a failure; limited, because a client can try again and again. */
static void report(struct nvgrace_gpu *gpu, const char *what, int ret)
{
	const char *then = "its content is unknown";

	if (READ_ONCE(gpu->scrub.stopping))
		then = "the GPU is released with its content";
	else if (nvgrace_gpu_scrub_wanted())
		then = "the device can't be opened until a scrub succeeds";
	if (__ratelimit(&gpu->scrub.report_limit))
		pci_err(gpu->core.pdev, "GPU memory could not be cleared: %s (error %d); %s\n",
			what, ret, then);
}

/*
 * Overwrites the memory until no reset has interrupted. Returns 0, or an error
 * with one line in the log.
 */
static int scrub_memory(struct nvgrace_gpu *gpu)
{
	struct nvgrace_gpu_scrub *s = &gpu->scrub;
	unsigned int count = count_workers(gpu);
	int ret;

	do {
		ret = zero_all(gpu, count);
	} while (ret == -EAGAIN && !READ_ONCE(s->stalled));

	if (ret == -EIO)
		report(gpu, "it is not ready or can't be reached", ret);
	else if (ret == -ETIME || ret == -EAGAIN)
		report(gpu, "no progress for 60 s at unbinding or shutdown", ret);
	else if (ret)
		report(gpu, "it can't be mapped", ret);
	return ret;
}

/*
 * Takes the device lock, which excludes resets by others, when the host is not
 * about to suspend. Never waits for the lock: an unbinding task may hold it and
 * wait for this one, or for an open that does. Returns 0, -ECANCELED (the
 * device is being unbound) or -EBUSY (too many tries).
 */
static int lock_device(struct nvgrace_gpu *gpu)
{
	struct pci_dev *pdev = gpu->core.pdev;
	unsigned int tries = 0;

	for (;;) {
		if (pci_dev_trylock(pdev)) {
			if (!nvgrace_gpu_gate_suspended(gpu))
				return 0;
			pci_dev_unlock(pdev);
			tries = 0;
		}
		if (READ_ONCE(gpu->scrub.stopping))
			return -ECANCELED;
		if (++tries == LOCK_TRIES)
			return -EBUSY;
		msleep(LOCK_MS);
	}
}

/*
 * Makes the memory accessible for an attempt; end_access() ends that. Under the
 * locks of pci_dev_lock(), because a reset that another task has begun would
 * restore a config space in which the device is disabled. Returns 0, or an
 * error with one line in the log.
 */
static int begin_access(struct nvgrace_gpu *gpu)
{
	struct nvgrace_gpu_scrub *s = &gpu->scrub;
	struct pci_dev *pdev = gpu->core.pdev;
	int ret = pm_runtime_resume(&pdev->dev);

	if (ret < 0) {
		/* LCOV_EXCL_START: the port above it would have to fail. */
		report(gpu, "the GPU does not wake up", ret);
		return ret;
		/* LCOV_EXCL_STOP */
	}
	nvgrace_gpu_saved_make(gpu, true);
	/*
	 * A GPU without a user may still write. A reset may also end what makes
	 * accesses fail.
	 */
	if (s->must_reset ||
	    nvgrace_gpu_gate_readiness(gpu) == NVGRACE_GPU_FAILED) {
		ret = pci_reset_function_locked(pdev);
		if (ret) {
			report(gpu, "the GPU can't be reset", ret);
			return ret;
		}
	}
	ret = pci_enable_device(pdev);
	if (ret)
		report(gpu, "the GPU can't be enabled", ret);
	return ret;
}

/*
 * Also under these locks, because disabling the device changes bits of the word
 * that says whether a reset keeps user space from config space. Whoever holds
 * the device lock too long, or unbinds, doesn't keep the scrub from ending.
 */
static void end_access(struct nvgrace_gpu *gpu)
{
	bool locked;

	/* The kernel's mappings have no user now. */
	nvgrace_gpu_gate_device_closing(gpu);
	locked = !lock_device(gpu);
	pci_disable_device(gpu->core.pdev);
	if (locked)
		pci_dev_unlock(gpu->core.pdev);
}

/*
 * Returns as begin_access() and scrub_memory() do, or -ECANCELED without a
 * line: an unbind has come first, and will scrub.
 */
static int attempt(struct nvgrace_gpu *gpu)
{
	int ret;

	if (!gpu->scrub.begun) {
		/*
		 * Before the lock, as the kernel's own resets do: a runtime
		 * suspend or resume changes bits of the word that says whether
		 * config space is locked, and the suspend of the last use may
		 * still run. If it fails, begin_access() reports it.
		 */
		pm_runtime_resume(&gpu->core.pdev->dev);
		ret = lock_device(gpu);
		/* Without the parameter, the unbind has no scrub of its own. */
		if (ret == -ECANCELED && !nvgrace_gpu_scrub_wanted())
			ret = -ENODEV;
		if (ret == -EBUSY)
			report(gpu, "another task holds the device lock", ret);
		else if (ret == -ENODEV)
			report(gpu, "the device is being unbound", ret);
		if (ret)
			return ret;
		ret = begin_access(gpu);
		pci_dev_unlock(gpu->core.pdev);
		if (ret)
			return ret;
	}
	ret = scrub_memory(gpu);
	end_access(gpu);
	return ret;
}

/* For an administrator's records; report() has logged a failure. */
static void announce(struct nvgrace_gpu *gpu,
		     const struct nvgrace_gpu_scrub_record *last)
{
	char result[32], number[48], size[48], time[48], ms[48];
	char *event[6] = { result, number, size, time, ms };

	snprintf(result, sizeof(result), "NVGRACE_GPU_SCRUB=%s",
		 last->clean ? "clean" : "failed");
	snprintf(number, sizeof(number), "NVGRACE_GPU_SCRUB_COUNT=%llu",
		 last->count);
	snprintf(size, sizeof(size), "NVGRACE_GPU_SCRUB_BYTES=%llu",
		 last->bytes);
	snprintf(time, sizeof(time), "NVGRACE_GPU_SCRUB_TIME=%lld", last->time);
	snprintf(ms, sizeof(ms), "NVGRACE_GPU_SCRUB_MS=%llu", last->ms);
	/* Without memory or listeners there is no event; the record remains. */
	kobject_uevent_env(&gpu->core.pdev->dev.kobj, KOBJ_CHANGE, event);
}

/*
 * Ends a scrub with @ret, 0 or an error, also one that could not begin. It began
 * at @start. Leaves state and record, and then the event and the line, unless it
 * was -ECANCELED. Releases the lock, because whoever gets the event may look.
 */
static void end_scrub(struct nvgrace_gpu *gpu, int ret, ktime_t start)
{
	struct nvgrace_gpu_scrub *s = &gpu->scrub;
	struct nvgrace_gpu_scrub_record last = {
		.count = s->last.count + 1,
		.clean = !ret,
		.time = ktime_get_real_seconds(),
		.ms = ktime_ms_delta(ktime_get(), start),
		.bytes = nvgrace_gpu_scrub_progress(gpu),
	};

	lockdep_assert_held(&s->lock);
	/* After a failure, a reset may help. */
	s->must_reset = ret;
	if (ret != -ECANCELED)
		s->last = last;
	if (!ret)
		set_state(gpu, NVGRACE_GPU_SCRUB_CLEAN);
	else if (ret == -ECANCELED)
		set_state(gpu, NVGRACE_GPU_SCRUB_DIRTY);
	else
		set_state(gpu, NVGRACE_GPU_SCRUB_FAILED);
	s->attempts++;
	mutex_unlock(&s->lock);
	wake_up_all(&s->ended);
	if (ret != -ECANCELED)
		announce(gpu, &last);
}

static void conduct(struct work_struct *item)
{
	struct nvgrace_gpu *gpu = container_of(item, struct nvgrace_gpu,
					       scrub.work);
	struct nvgrace_gpu_scrub *s = &gpu->scrub;
	ktime_t start = ktime_get();
	int ret;

	mutex_lock(&s->lock);
	do {
		s->doubted = false;
		mutex_unlock(&s->lock);
		ret = attempt(gpu);
		mutex_lock(&s->lock);
		s->begun = false;
	} while (!ret && s->doubted);

	pm_runtime_put(&gpu->core.pdev->dev);
	end_scrub(gpu, ret, start);
}

/*
 * Begins an attempt. Under the lock, while none runs and the device is not
 * open.
 */
static void queue_attempt(struct nvgrace_gpu *gpu)
{
	struct nvgrace_gpu_scrub *s = &gpu->scrub;

	lockdep_assert_held(&s->lock);
	/* conduct() drops the reference. */
	pm_runtime_get_noresume(&gpu->core.pdev->dev);
	atomic64_set(&s->written, 0);
	WRITE_ONCE(s->stalled, false);
	set_state(gpu, NVGRACE_GPU_SCRUB_RUNNING);
	queue_work_node(dev_to_node(&gpu->core.pdev->dev), workers, &s->work);
}

static bool is_running(struct nvgrace_gpu *gpu)
{
	return nvgrace_gpu_scrub_state(gpu) == NVGRACE_GPU_SCRUB_RUNNING;
}

int nvgrace_gpu_scrub_on_demand(struct nvgrace_gpu *gpu)
{
	struct nvgrace_gpu_scrub *s = &gpu->scrub;
	int ret = 0;

	mutex_lock(&s->lock);
	if (s->open || s->stopping || is_kdump_kernel())
		ret = -EBUSY;
	else if (!is_running(gpu))
		queue_attempt(gpu);
	mutex_unlock(&s->lock);
	return ret;
}

void nvgrace_gpu_scrub_ahead(struct nvgrace_gpu *gpu)
{
	/* Once: it is called for each other GPU, and one that fails, fails. */
	if (!nvgrace_gpu_scrub_wanted() || gpu->scrub.ahead ||
	    nvgrace_gpu_scrub_state(gpu) == NVGRACE_GPU_SCRUB_CLEAN)
		return;
	gpu->scrub.ahead = !nvgrace_gpu_scrub_on_demand(gpu);
}

/* ---- open and close ----------------------------------------------------- */

int nvgrace_gpu_scrub_before_open(struct nvgrace_gpu *gpu)
{
	struct nvgrace_gpu_scrub *s = &gpu->scrub;
	unsigned int attempts;
	bool waited = false;
	int ret;

	for (;;) {
		if (mutex_lock_killable(&s->lock))
			return -EINTR;
		if (s->stopping) {
			ret = -ENODEV;
			break;
		}
		if (!is_running(gpu)) {
			ret = 0;
			if (!nvgrace_gpu_scrub_wanted() ||
			    s->state == NVGRACE_GPU_SCRUB_CLEAN) {
				s->open = true;
				break;
			}
			ret = -EIO;
			/*
			 * The next open tries again. But if the memory was
			 * clean, and has been doubted since, this one does.
			 */
			if (waited && s->state == NVGRACE_GPU_SCRUB_FAILED)
				break;
			queue_attempt(gpu);
		}
		attempts = s->attempts;
		mutex_unlock(&s->lock);

		/*
		 * vfio's locks are held, for which tasks wait that can be
		 * neither killed nor frozen. So even host suspend ends this
		 * wait, and the ioctl is restarted afterwards.
		 */
		if (wait_event_interruptible(s->ended,
					     READ_ONCE(s->attempts) != attempts ||
					     READ_ONCE(s->stopping)))
			return -ERESTARTNOINTR;
		waited = true;
	}
	mutex_unlock(&s->lock);
	return ret;
}

void nvgrace_gpu_scrub_open_failed(struct nvgrace_gpu *gpu)
{
	mutex_lock(&gpu->scrub.lock);
	gpu->scrub.open = false;
	mutex_unlock(&gpu->scrub.lock);
}

int nvgrace_gpu_scrub_opened(struct nvgrace_gpu *gpu)
{
	struct nvgrace_gpu_scrub *s = &gpu->scrub;
	int ret = 0;

	mutex_lock(&s->lock);
	/* An error of the link, of which the kernel has told since before_open. */
	if (nvgrace_gpu_scrub_wanted() && s->state != NVGRACE_GPU_SCRUB_CLEAN)
		ret = -EAGAIN;
	else
		set_state(gpu, NVGRACE_GPU_SCRUB_DIRTY);
	mutex_unlock(&s->lock);
	return ret;
}

void nvgrace_gpu_scrub_before_close(struct nvgrace_gpu *gpu)
{
	/* An idle GPU would go to D3hot, and the scrub would wake it again. */
	gpu->scrub.held = nvgrace_gpu_scrub_wanted();
	if (gpu->scrub.held)
		pm_runtime_get_noresume(&gpu->core.pdev->dev);
}

void nvgrace_gpu_scrub_closed(struct nvgrace_gpu *gpu)
{
	struct nvgrace_gpu_scrub *s = &gpu->scrub;

	mutex_lock(&s->lock);
	s->open = false;
	/* vfio-pci-core can't reset while an unbind holds the device lock. */
	s->must_reset = gpu->core.needs_reset;
	/* If it is stopping, nvgrace_gpu_scrub_removing() does this. */
	if (nvgrace_gpu_scrub_wanted() && !s->stopping)
		queue_attempt(gpu);
	mutex_unlock(&s->lock);
	if (s->held)
		pm_runtime_put(&gpu->core.pdev->dev);
}

/* ---- from probe to remove ----------------------------------------------- */

void nvgrace_gpu_scrub_init(struct nvgrace_gpu *gpu)
{
	struct nvgrace_gpu_scrub *s = &gpu->scrub;

	mutex_init(&s->lock);
	init_waitqueue_head(&s->ended);
	INIT_WORK(&s->work, conduct);
	ratelimit_state_init(&s->report_limit, 300 * HZ, 10);
	/*
	 * More than there are changes of tenants, so that each has its lines.
	 * What is left out is no warning.
	 */
	ratelimit_state_init(&s->clear_limit, 300 * HZ, 200);
	ratelimit_set_flags(&s->clear_limit, RATELIMIT_MSG_ON_RELEASE);
	/* The host's driver may have left the GPU at work. */
	s->must_reset = true;
}

/*
 * Reset the GPU in probe, for which the device lock is held. It may be held by
 * another task: the PCI core can run probe in a work item, near the device's
 * node, and wait for it. The reset asserts that its own task has the lock.
 */
static int reset_in_probe(struct pci_dev *pdev)
{
	bool borrowed = compat_borrow(&pdev->dev.mutex);
	int ret;

	/* Like the kernel's own resets, which also keep user space out. */
	pci_cfg_access_lock(pdev);
	ret = pci_reset_function_locked(pdev);
	pci_cfg_access_unlock(pdev);

	if (borrowed)
		compat_give_back(&pdev->dev.mutex);
	return ret;
}

void nvgrace_gpu_scrub_doubt(struct nvgrace_gpu *gpu)
{
	struct nvgrace_gpu_scrub *s = &gpu->scrub;

	mutex_lock(&s->lock);
	/*
	 * The unbinding task has the device lock, without which neither errors
	 * are handled nor devices put to sleep: its scrub is the last.
	 */
	s->doubted = !s->stopping;
	s->must_reset = true;
	if (s->state == NVGRACE_GPU_SCRUB_CLEAN)
		set_state(gpu, NVGRACE_GPU_SCRUB_UNKNOWN);
	mutex_unlock(&s->lock);
}

void nvgrace_gpu_scrub_registered(struct nvgrace_gpu *gpu)
{
	struct nvgrace_gpu_scrub *s = &gpu->scrub;
	struct pci_dev *pdev = gpu->core.pdev;
	bool begins;
	int ret;

	if (!gpu->usemem.length)
		return;
	mutex_lock(&s->lock);
	/* An open may already have begun the scrub. */
	begins = nvgrace_gpu_scrub_wanted() && !s->open && !s->stopping &&
		 s->state == NVGRACE_GPU_SCRUB_UNKNOWN;
	/* From here on, opens wait. */
	if (begins)
		set_state(gpu, NVGRACE_GPU_SCRUB_RUNNING);
	mutex_unlock(&s->lock);
	if (!begins)
		return;

	/*
	 * Reset here, not in the background: during a reset, some kernels
	 * refuse to attach the GPU to an IOMMU domain, and who has bound it may
	 * do that next. Not before it is registered, because what is refused
	 * must not have lost anything. If it fails, the scrub reports it.
	 */
	ret = pm_runtime_resume_and_get(&pdev->dev);
	if (!ret) {
		ret = reset_in_probe(pdev);
		pm_runtime_put(&pdev->dev);
	}
	mutex_lock(&s->lock);
	s->must_reset = ret;
	queue_attempt(gpu);
	mutex_unlock(&s->lock);
}

void nvgrace_gpu_scrub_requested(struct nvgrace_gpu *gpu)
{
	struct nvgrace_gpu_scrub *s = &gpu->scrub;

	mutex_lock(&s->lock);
	WRITE_ONCE(s->stopping, true);
	mutex_unlock(&s->lock);
	wake_up_all(&s->ended);
}

/*
 * Whether the attempt waits for something that has a limit of its own: its turn
 * in the queue, or a GPU that is not ready yet, for which some have minutes.
 */
static bool has_to_wait(struct nvgrace_gpu *gpu)
{
	return work_busy(&gpu->scrub.work) & WORK_BUSY_PENDING ||
	       nvgrace_gpu_gate_trains(gpu);
}

/*
 * Waits for the end of an attempt, as long as it gets on, and logs now and then
 * how far it is.
 */
static void wait_for_attempt(struct nvgrace_gpu *gpu)
{
	struct nvgrace_gpu_scrub *s = &gpu->scrub;
	s64 written = 0, before = 0;
	unsigned int ms = 0, still = 0;

	while (!wait_event_timeout(s->ended, !is_running(gpu),
				   msecs_to_jiffies(SLEEP_MS))) {
		ms += SLEEP_MS;
		written = atomic64_read(&s->written);
		/* A wait is not counted, but only a step begins the count anew. */
		if (written != before)
			still = 0;
		else if (!has_to_wait(gpu))
			still += SLEEP_MS;
		before = written;
		if (still >= STALL_MS)
			WRITE_ONCE(s->stalled, true);
		if (ms == SLEEP_MS || !(ms % SAY_MS))
			pci_info(gpu->core.pdev,
				 "unbinding or shutdown waits for a scrub: %llu of %llu bytes are overwritten with zeros\n",
				 nvgrace_gpu_scrub_progress(gpu),
				 gpu->usemem.length + gpu->resmem.length);
	}
	/* What is left of the work does not wait. */
	flush_work(&s->work);
}

void nvgrace_gpu_scrub_removing(struct nvgrace_gpu *gpu)
{
	struct nvgrace_gpu_scrub *s = &gpu->scrub;
	ktime_t start;
	bool ran;
	int ret;

	if (!gpu->usemem.length)
		return;

	mutex_lock(&s->lock);
	ran = is_running(gpu);
	mutex_unlock(&s->lock);
	nvgrace_gpu_gate_leaves(gpu);
	nvgrace_gpu_scrub_requested(gpu);
	wait_for_attempt(gpu);

	/* From here on, no other task begins an attempt. */
	if (!nvgrace_gpu_scrub_wanted() ||
	    s->state == NVGRACE_GPU_SCRUB_CLEAN ||
	    ((ran || s->ahead) && s->state == NVGRACE_GPU_SCRUB_FAILED))
		return;

	start = ktime_get();
	atomic64_set(&s->written, 0);
	/* In a worker, because a signal may end this task's waits. */
	pm_runtime_get_noresume(&gpu->core.pdev->dev);
	if (s->open) {
		ret = -EBUSY;
		report(gpu, "the device is open", ret);
	} else {
		/* As pci_dev_trylock() does in an attempt. */
		pci_cfg_access_lock(gpu->core.pdev);
		ret = begin_access(gpu);
		pci_cfg_access_unlock(gpu->core.pdev);
	}
	mutex_lock(&s->lock);
	if (ret) {
		end_scrub(gpu, ret, start);
	} else {
		s->begun = true;
		queue_attempt(gpu);
		mutex_unlock(&s->lock);
		wait_for_attempt(gpu);
	}
	pm_runtime_put(&gpu->core.pdev->dev);
}

int nvgrace_gpu_scrub_load(void)
{
	workers = alloc_workqueue("nvgrace_gpu_scrub", WQ_UNBOUND | WQ_SYSFS,
				  WQ_UNBOUND_MAX_ACTIVE);
	return workers ? 0 : -ENOMEM;
}

void nvgrace_gpu_scrub_unload(void)
{
	destroy_workqueue(workers);
}
