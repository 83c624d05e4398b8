// SPDX-License-Identifier: GPL-2.0-only
/*
 * What one user leaves in the memory, the next one never sees.  Owns the module
 * parameter, what is known of each GPU's content, and the workers that overwrite
 * it with zeros.
 *
 * An attempt is a work item of the GPU's.  It runs only while nobody has the
 * device open: device.c announces each open and close, and an open waits for the
 * attempt.  Workers go through the gate by small steps, so that resets and errors
 * hold them off.  Stores that a reset may have overtaken count for nothing: the
 * attempt begins anew in the new epoch.
 *
 * The memory is called clean when no reset came in between, all zeros have left
 * the caches, and the GPU itself was reset before, so that it writes no more.
 *
 * probe.c, device.c and sysfs.c call this file.
 */
#include <linux/cpumask.h>
#include <linux/delay.h>
#include <linux/ktime.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/pm_runtime.h>
#include <linux/ratelimit.h>
#include <linux/sched.h>
#include <linux/time64.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/sysfs.h>
#include <linux/topology.h>
#include <linux/workqueue.h>

#include "nvgrace_gpu.h"
#include "trace.h"

/*
 * Bytes that a worker overwrites at a time, in the gate: a reset waits for one
 * such step, which is 1 ms at 16 GB/s.  Divides a window of rw.c's.
 */
#define STEP		SZ_16M

/* How long unbinding and shutdown wait: so many ms, and as many for each GiB. */
#define FINISH_MS	60000
#define FINISH_GIB_MS	1000

/*
 * Pause between two tries to get the device lock, and how many there are: a minute
 * is what a reset or error recovery takes at the most.
 */
#define LOCK_MS		10
#define LOCK_TRIES	(2 * 60 * MSEC_PER_SEC / LOCK_MS)

static bool scrub;
module_param(scrub, bool, 0644);
MODULE_PARM_DESC(scrub, "Overwrite GPU memory with zeros after binding and after each use, before anybody can open the device (default: N)");

/* Niceness and CPUs of the workers are the administrator's, in sysfs. */
static struct workqueue_struct *workers;

struct worker {
	struct work_struct work;
	struct nvgrace_gpu *gpu;
	bool resmem_first;
};

bool nvgrace_gpu_scrub_wanted(void)
{
	return READ_ONCE(scrub);
}

enum nvgrace_gpu_scrub_state nvgrace_gpu_scrub_state(struct nvgrace_gpu *gpu)
{
	return READ_ONCE(gpu->scrub.state);
}

u64 nvgrace_gpu_scrub_progress(struct nvgrace_gpu *gpu)
{
	return atomic64_read(&gpu->scrub.progress);
}

static void set_state(struct nvgrace_gpu *gpu,
		      enum nvgrace_gpu_scrub_state state)
{
	lockdep_assert_held(&gpu->scrub.lock);
	WRITE_ONCE(gpu->scrub.state, state);
	sysfs_notify(&gpu->core.pdev->dev.kobj, "nvgrace_gpu", "scrub_state");
}

/* ---- the workers -------------------------------------------------------- */

/* Overwrites what is left of @region, together with the other workers. */
static void zero_region(struct nvgrace_gpu_region *region, atomic64_t *next)
{
	struct nvgrace_gpu_scrub *s = &region->gpu->scrub;
	u64 offset, len, flush_ns = 0;
	int ret = 0;

	while (!ret && !READ_ONCE(s->error)) {
		offset = atomic64_fetch_add(STEP, next);
		if (offset >= region->length)
			break;
		len = min_t(u64, STEP, region->length - offset);
		ret = nvgrace_gpu_gate_is_late(region->gpu) ? -ETIME :
				   nvgrace_gpu_region_zero(region, offset, len,
							   s->epoch, &flush_ns);
		if (!ret)
			atomic64_add(len, &s->progress);
	}
	atomic64_add(flush_ns, &s->flush_ns);
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

/* One for each CPU of the GPU's node, if there are steps for so many. */
static unsigned int count_workers(struct nvgrace_gpu *gpu)
{
	u64 steps = DIV_ROUND_UP_ULL(gpu->usemem.length + gpu->resmem.length,
				     STEP);
	int node = dev_to_node(&gpu->core.pdev->dev);
	unsigned int cpus = 0;

	if (node != NUMA_NO_NODE)
		cpus = cpumask_weight(cpumask_of_node(node));
	return min_t(u64, cpus ?: num_online_cpus(), steps);
}

/*
 * Overwrites both parts in the present epoch.  0, or what stopped it: -EAGAIN (a
 * reset), -EIO, -ENOMEM or -ETIME.
 */
static int zero_all(struct nvgrace_gpu *gpu, unsigned int count)
{
	int ret, node = dev_to_node(&gpu->core.pdev->dev);
	struct nvgrace_gpu_scrub *s = &gpu->scrub;
	struct worker *others;
	unsigned int i;

	ret = nvgrace_gpu_enter(gpu, true);
	if (ret)
		return ret;
	s->epoch = nvgrace_gpu_epoch(gpu);
	nvgrace_gpu_leave(gpu);

	WRITE_ONCE(s->error, 0);
	atomic64_set(&s->progress, 0);
	atomic64_set(&s->flush_ns, 0);
	atomic64_set(&s->next_usemem, 0);
	atomic64_set(&s->next_resmem, 0);

	/* This task is one of them, and without the others it is just slower. */
	others = kcalloc(count - 1, sizeof(*others), GFP_KERNEL);
	for (i = 0; others && i < count - 1; i++) {
		INIT_WORK(&others[i].work, worker);
		others[i].gpu = gpu;
		others[i].resmem_first = !(i % 2);
		queue_work_node(node, workers, &others[i].work);
	}
	work(gpu, false);
	/*
	 * Orders all that they have done before what follows.  Who has not begun
	 * is not needed any more, and may never begin: an administrator may have
	 * told the queue to run few works at a time.
	 */
	for (i = 0; others && i < count - 1; i++)
		cancel_work_sync(&others[i].work);
	kfree(others);
	/* A reset from here on finds all zeros in memory. */
	return s->error;
}

/* ---- an attempt --------------------------------------------------------- */

/* One line, but not one for each of a client's tries. */
static void report(struct nvgrace_gpu *gpu, const char *what, int ret)
{
	if (__ratelimit(&gpu->scrub.report_limit))
		pci_err(gpu->core.pdev, "GPU memory could not be cleared: %s (error %d); %s\n",
			what, ret, nvgrace_gpu_scrub_wanted() ?
			"the device can't be opened until a scrub succeeds" :
			"its content is unknown");
}

/*
 * Passes over the memory until one is not interrupted by a reset.  0, or an error
 * with its line in the log.
 */
static int scrub_memory(struct nvgrace_gpu *gpu)
{
	struct nvgrace_gpu_scrub *s = &gpu->scrub;
	unsigned int count = count_workers(gpu);
	u64 start;
	int ret;

	do {
		start = ktime_get_ns();
		ret = zero_all(gpu, count);
		trace_nvgrace_gpu_scrub(gpu->core.pdev,
					atomic64_read(&s->progress),
					ktime_get_ns() - start,
					atomic64_read(&s->flush_ns), count,
					ret);
	} while (ret == -EAGAIN && !nvgrace_gpu_gate_is_late(gpu));

	if (ret == -EIO)
		report(gpu, "it is not ready, or not to be reached", ret);
	else if (ret == -ETIME || ret == -EAGAIN)
		report(gpu, "there was no more time", ret);
	else if (ret)
		report(gpu, "it could not be mapped", ret);
	return ret;
}

/*
 * Gets the locks for what can't happen beside somebody else's reset, nor while the
 * host is about to sleep.  0; -ECANCELED: whoever unbinds the device holds them,
 * and waits for this task, or for an open that does; or -EBUSY.
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
 * Makes the GPU ready to be scrubbed, until end_access().  A reset that somebody
 * else has begun before would leave it as it found it, without its registers.
 * With the device lock.  0, or an error with its line in the log.
 */
static int begin_access(struct nvgrace_gpu *gpu)
{
	struct nvgrace_gpu_scrub *s = &gpu->scrub;
	struct pci_dev *pdev = gpu->core.pdev;
	int ret = pm_runtime_resume(&pdev->dev);

	if (ret < 0) {
		report(gpu, "the GPU does not wake up", ret);
		return ret;
	}
	/*
	 * A GPU that nobody uses any more may still write.  And a reset may end
	 * what makes accesses fail.
	 */
	if (s->must_reset || nvgrace_gpu_readiness(gpu) == NVGRACE_GPU_FAILED) {
		ret = pci_reset_function_locked(pdev);
		if (ret) {
			report(gpu, "the GPU can't be reset", ret);
			return ret;
		}
	}
	ret = nvgrace_gpu_registers_begin(gpu);
	if (ret)
		report(gpu, "the GPU can't be asked whether it is ready", ret);
	return ret;
}

static void end_access(struct nvgrace_gpu *gpu)
{
	/* Nobody uses the kernel's mappings now. */
	nvgrace_gpu_gate_close(gpu);
	nvgrace_gpu_registers_end(gpu);
}

/* Errors as above, and -ECANCELED without a line. */
static int attempt(struct nvgrace_gpu *gpu)
{
	int ret;

	if (!gpu->scrub.begun) {
		ret = lock_device(gpu);
		if (ret == -EBUSY)
			report(gpu, "somebody else holds the device's lock", ret);
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

static void conduct(struct work_struct *item)
{
	struct nvgrace_gpu *gpu = container_of(item, struct nvgrace_gpu,
					       scrub.work);
	struct nvgrace_gpu_scrub *s = &gpu->scrub;
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
	/* After a failure, a reset is what may help. */
	s->must_reset = ret;
	if (!ret)
		set_state(gpu, NVGRACE_GPU_SCRUB_CLEAN);
	else if (ret == -ECANCELED)
		set_state(gpu, NVGRACE_GPU_SCRUB_DIRTY);
	else
		set_state(gpu, NVGRACE_GPU_SCRUB_FAILED);
	s->attempts++;
	mutex_unlock(&s->lock);
	wake_up_all(&s->ended);
}

/* With the lock held, no attempt running, and nobody having the device open. */
static void start(struct nvgrace_gpu *gpu)
{
	struct nvgrace_gpu_scrub *s = &gpu->scrub;

	lockdep_assert_held(&s->lock);
	/* conduct() ends this. */
	pm_runtime_get_noresume(&gpu->core.pdev->dev);
	atomic64_set(&s->progress, 0);
	set_state(gpu, NVGRACE_GPU_SCRUB_RUNNING);
	queue_work_node(dev_to_node(&gpu->core.pdev->dev), workers, &s->work);
}

static bool is_running(struct nvgrace_gpu *gpu)
{
	return nvgrace_gpu_scrub_state(gpu) == NVGRACE_GPU_SCRUB_RUNNING;
}

int nvgrace_gpu_scrub_start(struct nvgrace_gpu *gpu)
{
	struct nvgrace_gpu_scrub *s = &gpu->scrub;
	int ret = 0;

	mutex_lock(&s->lock);
	if (s->open || s->stopping)
		ret = -EBUSY;
	else if (!is_running(gpu))
		start(gpu);
	mutex_unlock(&s->lock);
	return ret;
}

/* ---- open and close ----------------------------------------------------- */

int nvgrace_gpu_scrub_begin(struct nvgrace_gpu *gpu)
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
			/* The next open tries again. */
			if (waited)
				break;
			start(gpu);
		}
		attempts = s->attempts;
		mutex_unlock(&s->lock);

		/*
		 * vfio's locks are held, which others want who can be neither
		 * killed nor frozen.  So even the host's suspend ends this, and
		 * afterwards the ioctl begins anew.
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

void nvgrace_gpu_scrub_cancel(struct nvgrace_gpu *gpu)
{
	mutex_lock(&gpu->scrub.lock);
	gpu->scrub.open = false;
	mutex_unlock(&gpu->scrub.lock);
}

void nvgrace_gpu_scrub_used(struct nvgrace_gpu *gpu)
{
	mutex_lock(&gpu->scrub.lock);
	set_state(gpu, NVGRACE_GPU_SCRUB_DIRTY);
	mutex_unlock(&gpu->scrub.lock);
}

void nvgrace_gpu_scrub_closing(struct nvgrace_gpu *gpu)
{
	/* An idle GPU would go to D3hot, to be woken up at once. */
	gpu->scrub.held = nvgrace_gpu_scrub_wanted();
	if (gpu->scrub.held)
		pm_runtime_get_noresume(&gpu->core.pdev->dev);
}

void nvgrace_gpu_scrub_end(struct nvgrace_gpu *gpu)
{
	struct nvgrace_gpu_scrub *s = &gpu->scrub;

	mutex_lock(&s->lock);
	s->open = false;
	/*
	 * vfio-pci-core can't reset it while somebody unbinds the device, and
	 * holds its lock.
	 */
	s->must_reset = gpu->core.needs_reset;
	/* Otherwise nvgrace_gpu_scrub_finish() does it. */
	if (nvgrace_gpu_scrub_wanted() && !s->stopping)
		start(gpu);
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
	/* The host's own driver may have left it at work. */
	s->must_reset = true;
}

void nvgrace_gpu_scrub_binding(struct nvgrace_gpu *gpu)
{
	/*
	 * Not in the background: while the GPU is being reset, some kernels refuse
	 * to attach it to an IOMMU domain.  If it fails, the scrub says so.
	 */
	if (gpu->usemem.length && nvgrace_gpu_scrub_wanted())
		gpu->scrub.must_reset = pci_reset_function_locked(gpu->core.pdev);
}

void nvgrace_gpu_scrub_doubt(struct nvgrace_gpu *gpu)
{
	struct nvgrace_gpu_scrub *s = &gpu->scrub;

	mutex_lock(&s->lock);
	s->doubted = true;
	s->must_reset = true;
	if (s->state == NVGRACE_GPU_SCRUB_CLEAN)
		set_state(gpu, NVGRACE_GPU_SCRUB_UNKNOWN);
	mutex_unlock(&s->lock);
}

void nvgrace_gpu_scrub_bound(struct nvgrace_gpu *gpu)
{
	struct nvgrace_gpu_scrub *s = &gpu->scrub;

	if (!gpu->usemem.length)
		return;
	mutex_lock(&s->lock);
	/* Somebody may have opened it already, and so begun this. */
	if (nvgrace_gpu_scrub_wanted() && !s->open && !s->stopping &&
	    s->state == NVGRACE_GPU_SCRUB_UNKNOWN)
		start(gpu);
	mutex_unlock(&s->lock);
}

void nvgrace_gpu_scrub_stop(struct nvgrace_gpu *gpu)
{
	struct nvgrace_gpu_scrub *s = &gpu->scrub;

	mutex_lock(&s->lock);
	WRITE_ONCE(s->stopping, true);
	mutex_unlock(&s->lock);
	wake_up_all(&s->ended);
}

void nvgrace_gpu_scrub_finish(struct nvgrace_gpu *gpu)
{
	u64 gib = (gpu->usemem.length + gpu->resmem.length) >> 30;
	struct nvgrace_gpu_scrub *s = &gpu->scrub;
	bool ran;

	if (!gpu->usemem.length)
		return;

	mutex_lock(&s->lock);
	ran = is_running(gpu);
	mutex_unlock(&s->lock);
	nvgrace_gpu_gate_finish(gpu, FINISH_MS + gib * FINISH_GIB_MS);
	nvgrace_gpu_scrub_stop(gpu);
	flush_work(&s->work);

	/* From here on, nobody else begins an attempt. */
	if (!nvgrace_gpu_scrub_wanted() || s->open ||
	    s->state == NVGRACE_GPU_SCRUB_CLEAN ||
	    (ran && s->state == NVGRACE_GPU_SCRUB_FAILED))
		return;

	/* Not by this task, which a signal may be about to end. */
	pm_runtime_get_noresume(&gpu->core.pdev->dev);
	if (!begin_access(gpu)) {
		mutex_lock(&s->lock);
		s->begun = true;
		start(gpu);
		mutex_unlock(&s->lock);
		flush_work(&s->work);
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
