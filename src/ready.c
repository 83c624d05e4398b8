// SPDX-License-Identifier: GPL-2.0-only
/*
 * Waits until GPU memory may be touched: at probe, and after each reset before
 * the first fault, read or write.  Before its training is over, any access to
 * it raises RAS errors on the host.  Called by probe.c, region.c and rw.c.
 *
 * Legacy parts have two 32-bit words in BAR0 that read 0xff once the C2C link
 * and the memory are trained; newer ones tell by their CXL Device DVSEC (CXL
 * 3.0, 8.1.3.8), and their BAR0 is left alone.
 *
 * All sleeps are killable.  At probe that reaches whoever binds only where the
 * PCI core probes in that task; for a device with a NUMA node it uses a worker
 * of its own, and the wait goes on to its end, 30 s at the most.
 */
#include <linux/bitfield.h>
#include <linux/hrtimer.h>
#include <linux/io.h>
#include <linux/ktime.h>
#include <linux/minmax.h>
#include <linux/pci.h>
#include <linux/pm_runtime.h>
#include <linux/ratelimit.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>

#include "nvgrace_gpu.h"
#include "trace.h"

#define C2C_LINK_STATUS		0x1498
#define HBM_TRAINING_STATUS	0x200bc
#define REGISTERS_END		(HBM_TRAINING_STATUS + sizeof(u32))
#define TRAINED			0xff
#define TRAINING_MS		30000

#define CXL_VENDOR_ID		0x1e98
#define CXL_DEVICE_DVSEC	0
#define CXL_RANGE1_SIZE_LOW	0x1c
#define CXL_MEMORY_INFO_VALID	BIT(0)
#define CXL_MEMORY_ACTIVE	BIT(1)
#define CXL_ACTIVE_TIMEOUT	GENMASK(15, 13)
#define CXL_VALID_MS		1000
/* Encoded: 1 s, 4 s, 16 s, 64 s, 256 s; larger codes are reserved. */
#define CXL_TIMEOUT_CODE_MAX	4U

/*
 * The first pauses are short, since a device that is ready already is the usual
 * case; the later ones short enough that nobody notices them.
 */
#define POLL_FIRST_US		1000
#define POLL_LONGEST_US		8000

/* What the last look has seen, for the log, and until when to look again. */
struct status {
	ktime_t start;
	ktime_t deadline;
	bool valid;		/* CXL: Memory_Info_Valid was seen */
	u32 c2c;
	u32 hbm;
	u32 range;
};

static void start_clock(struct nvgrace_gpu *gpu, struct status *st)
{
	unsigned int ms = gpu->cxl_dvsec ? CXL_VALID_MS : TRAINING_MS;

	*st = (struct status){ .start = ktime_get() };
	st->deadline = ktime_add_ms(st->start, ms);
}

/* 0: ready; -EAGAIN: not yet; -ENODEV: gone. */
static int look_cxl(struct nvgrace_gpu *gpu, struct status *st)
{
	unsigned int code;

	if (pci_read_config_dword(gpu->core.pdev,
				  gpu->cxl_dvsec + CXL_RANGE1_SIZE_LOW,
				  &st->range) || st->range == U32_MAX)
		return -ENODEV;

	/* From here on the device's own timeout counts, which is valid now. */
	if (!st->valid && st->range & CXL_MEMORY_INFO_VALID) {
		st->valid = true;
		code = FIELD_GET(CXL_ACTIVE_TIMEOUT, st->range);
		code = min(code, CXL_TIMEOUT_CODE_MAX);
		st->deadline = ktime_add_ms(ktime_get(), 1000U << (2 * code));
	}
	return st->valid && st->range & CXL_MEMORY_ACTIVE ? 0 : -EAGAIN;
}

/*
 * 0: ready; -EAGAIN: not yet; -EIO: the registers can't be read now; -ENODEV:
 * gone.
 */
static int look_legacy(struct nvgrace_gpu *gpu, struct status *st)
{
	struct pci_dev *pdev = gpu->core.pdev;
	u16 command;

	/* Not "at least D3hot": PCI_UNKNOWN, of a device without PM, is above. */
	if (pdev->current_state == PCI_D3hot ||
	    pdev->current_state == PCI_D3cold ||
	    pci_read_config_word(pdev, PCI_COMMAND, &command) ||
	    !(command & PCI_COMMAND_MEMORY))
		return -EIO;

	st->c2c = ioread32(gpu->bar0 + C2C_LINK_STATUS);
	st->hbm = ioread32(gpu->bar0 + HBM_TRAINING_STATUS);
	if (st->c2c == U32_MAX && st->hbm == U32_MAX &&
	    !pci_device_is_present(pdev))
		return -ENODEV;
	return st->c2c == TRAINED && st->hbm == TRAINED ? 0 : -EAGAIN;
}

/*
 * A look is short, and done under memory_lock, which keeps resets from it.  What
 * it finds holds until the reset after the @resets that were before.  In low
 * power it holds for the caller alone, who keeps the device awake.
 */
static int look(struct nvgrace_gpu *gpu, struct status *st,
		unsigned int resets)
{
	int ret;

	lockdep_assert_held(&gpu->core.memory_lock);
	/* No register tells anything before an error has been recovered from. */
	if (gpu->link_state == NVGRACE_GPU_LINK_LOST)
		return -ENODEV;
	if (gpu->link_state == NVGRACE_GPU_LINK_RESET)
		return -EAGAIN;
	ret = gpu->cxl_dvsec ? look_cxl(gpu, st) : look_legacy(gpu, st);
	if (!ret && !gpu->core.pm_runtime_engaged)
		/* Pairs with nvgrace_gpu_is_ready(). */
		smp_store_release(&gpu->ready_for, resets);
	return ret;
}

void nvgrace_gpu_forget_ready(struct nvgrace_gpu *gpu)
{
	/* Not a reset: what is in the fake registers stays. */
	WRITE_ONCE(gpu->ready_for, READ_ONCE(gpu->resets) - 1);
}

/* One line for whoever wonders. */
static void report(struct nvgrace_gpu *gpu, const struct status *st, int err)
{
	struct pci_dev *pdev = gpu->core.pdev;
	s64 ms = ktime_ms_delta(ktime_get(), st->start);

	if (err == -ENODEV)
		pci_err(pdev, "GPU memory can't be waited for: the device reads as all ones; is it gone?\n");
	else if (gpu->cxl_dvsec)
		pci_err(pdev, "GPU memory is not ready after %lld ms: CXL Range 1 Size Low %#x, without %s; reset the device or power-cycle the host\n",
			ms, st->range,
			st->valid ? "Memory_Active" : "Memory_Info_Valid");
	else
		pci_err(pdev, "GPU memory is not ready after %lld ms: C2C link status %#x, HBM training status %#x, expected %#x; reset the device or power-cycle the host\n",
			ms, st->c2c, st->hbm, TRAINED);
}

/* Sleeps for @us microseconds or until the task is being killed. */
static void pause_killable(unsigned int us)
{
	ktime_t expires = ns_to_ktime((u64)us * NSEC_PER_USEC);

	set_current_state(TASK_KILLABLE);
	schedule_hrtimeout_range(&expires, us * NSEC_PER_USEC / 8,
				 HRTIMER_MODE_REL);
}

enum wait_kind {
	WAIT_PROBE,	/* every failure is worth its line in the log */
	WAIT_OPEN,	/* a guest can bring failures about over and over */
	WAIT_FAILED,	/* somebody else has waited in vain: look just once */
};

/*
 * Looks until the memory is ready or a deadline has passed.  A reset on the
 * way starts everything anew.  Under ready_lock.
 */
static int wait(struct nvgrace_gpu *gpu, enum wait_kind kind)
{
	static DEFINE_RATELIMIT_STATE(limit, DEFAULT_RATELIMIT_INTERVAL,
				      DEFAULT_RATELIMIT_BURST);
	unsigned int us = POLL_FIRST_US;
	unsigned int resets = READ_ONCE(gpu->resets);
	struct status st;
	bool late;
	int ret;

	start_clock(gpu, &st);
	for (;;) {
		/* Asked before the look, so that a late look counts. */
		late = kind == WAIT_FAILED ||
		       ktime_after(ktime_get(), st.deadline);
		if (down_read_killable(&gpu->core.memory_lock))
			return -EINTR;
		ret = look(gpu, &st, resets);
		up_read(&gpu->core.memory_lock);

		if (resets != READ_ONCE(gpu->resets)) {
			resets = READ_ONCE(gpu->resets);
			us = POLL_FIRST_US;
			start_clock(gpu, &st);
			ret = -EAGAIN;
			late = false;
		}
		if (!ret)
			return 0;
		if (ret == -EAGAIN && late)
			ret = -ETIME;
		if (ret != -EAGAIN) {
			if (kind != WAIT_FAILED &&
			    (ret == -ETIME || ret == -ENODEV)) {
				if (kind == WAIT_PROBE || __ratelimit(&limit))
					report(gpu, &st, ret);
				WRITE_ONCE(gpu->failed_for, resets);
			}
			return ret;
		}
		if (fatal_signal_pending(current))
			return -EINTR;
		pause_killable(us);
		us = min(us * 2, (unsigned int)POLL_LONGEST_US);
	}
}

int nvgrace_gpu_look_ready(struct nvgrace_gpu *gpu)
{
	unsigned int resets = READ_ONCE(gpu->resets);
	struct status st;
	int ret;

	start_clock(gpu, &st);
	ret = look(gpu, &st, resets);
	if (ret && (ret != -EAGAIN || nvgrace_gpu_has_failed(gpu)))
		ret = -EIO;
	return ret;
}

int nvgrace_gpu_wait_ready(struct nvgrace_gpu *gpu)
{
	struct device *dev = &gpu->core.pdev->dev;
	u64 start = nvgrace_gpu_trace_start(wait);
	int ret = 0;

	if (nvgrace_gpu_is_ready(gpu))
		return 0;

	if (mutex_lock_killable(&gpu->ready_lock)) {
		ret = -EINTR;
		goto out;
	}
	if (!nvgrace_gpu_is_ready(gpu)) {
		/* A suspended device can't be asked, and must not fall asleep. */
		ret = pm_runtime_resume_and_get(dev);
		if (!ret) {
			/* Who comes after a failure doesn't wait as long again. */
			ret = wait(gpu, nvgrace_gpu_has_failed(gpu) ?
						WAIT_FAILED : WAIT_OPEN);
			pm_runtime_put(dev);
		}
	}
	mutex_unlock(&gpu->ready_lock);
	if (ret && ret != -EINTR)
		ret = -EIO;
out:
	trace_nvgrace_gpu_wait(gpu->core.pdev, NVGRACE_GPU_WAIT_USE, ret,
			       start);
	return ret;
}

/* A device whose BAR0 ends before the registers isn't one of ours. */
static int map_bar0(struct nvgrace_gpu *gpu)
{
	struct pci_dev *pdev = gpu->core.pdev;

	if (gpu->cxl_dvsec)
		return 0;
	if (pci_resource_len(pdev, 0) < REGISTERS_END) {
		pci_err(pdev, "BAR0 has %#llx bytes, too few to hold the readiness registers; no GPU of the supported kind\n",
			(u64)pci_resource_len(pdev, 0));
		return -ENODEV;
	}
	gpu->bar0 = pci_iomap(pdev, 0, REGISTERS_END);
	return gpu->bar0 ? 0 : -ENOMEM;
}

static void unmap_bar0(struct nvgrace_gpu *gpu)
{
	if (gpu->bar0)
		pci_iounmap(gpu->core.pdev, gpu->bar0);
	gpu->bar0 = NULL;
}

int nvgrace_gpu_ready_probe(struct nvgrace_gpu *gpu)
{
	struct pci_dev *pdev = gpu->core.pdev;
	u64 start = nvgrace_gpu_trace_start(wait);
	int ret;

	gpu->cxl_dvsec = pci_find_dvsec_capability(pdev, CXL_VENDOR_ID,
						   CXL_DEVICE_DVSEC);
	ret = pci_enable_device(pdev);
	if (ret)
		return ret;

	ret = pci_request_selected_regions(pdev, BIT(0), KBUILD_MODNAME);
	if (ret)
		goto disable;

	ret = map_bar0(gpu);
	if (ret)
		goto release;

	mutex_lock(&gpu->ready_lock);
	ret = wait(gpu, WAIT_PROBE);
	mutex_unlock(&gpu->ready_lock);
	trace_nvgrace_gpu_wait(pdev, NVGRACE_GPU_WAIT_BIND, ret, start);

	unmap_bar0(gpu);
release:
	pci_release_selected_regions(pdev, BIT(0));
disable:
	pci_disable_device(pdev);
	return ret;
}

int nvgrace_gpu_ready_open(struct nvgrace_gpu *gpu)
{
	return map_bar0(gpu);
}

void nvgrace_gpu_ready_close(struct nvgrace_gpu *gpu)
{
	unmap_bar0(gpu);
}
