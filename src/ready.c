// SPDX-License-Identifier: GPL-2.0-only
/*
 * Waits until GPU memory may be touched.  Before its training is over, any
 * access to it raises RAS errors on the host.  Called by probe.c.
 *
 * The registers and values are those of the GH200's firmware interface: two
 * 32-bit words of BAR0 that read 0xff once the respective training is done.
 */
#include <linux/hrtimer.h>
#include <linux/io.h>
#include <linux/ktime.h>
#include <linux/minmax.h>
#include <linux/pci.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>

#include "nvgrace_gpu.h"

#define C2C_LINK_STATUS		0x1498
#define HBM_TRAINING_STATUS	0x200bc
#define TRAINED			0xff

#define TIMEOUT_MS		30000

/*
 * The first pauses are short, since a device that was up before the driver is
 * the usual case; the later ones short enough that nobody notices them.
 */
#define POLL_FIRST_US		1000
#define POLL_LONGEST_US		16000

/* Sleeps for @us microseconds or until the task is being killed. */
static void pause_killable(unsigned int us)
{
	ktime_t expires = ns_to_ktime((u64)us * NSEC_PER_USEC);

	set_current_state(TASK_KILLABLE);
	schedule_hrtimeout_range(&expires, us * NSEC_PER_USEC / 8,
				 HRTIMER_MODE_REL);
}

/* Polls the registers behind @bar0.  Returns 0, -ETIME or -EINTR. */
static int poll_trained(struct pci_dev *pdev, void __iomem *bar0)
{
	ktime_t deadline = ktime_add_ms(ktime_get(), TIMEOUT_MS);
	unsigned int us = POLL_FIRST_US;
	u32 c2c, hbm;
	bool late;

	for (;;) {
		/* Asked before the last look, so that a late look counts. */
		late = ktime_after(ktime_get(), deadline);
		c2c = ioread32(bar0 + C2C_LINK_STATUS);
		hbm = ioread32(bar0 + HBM_TRAINING_STATUS);
		if (c2c == TRAINED && hbm == TRAINED)
			return 0;
		if (late) {
			pci_err(pdev, "GPU memory is not ready after %u s: C2C link status %#x, HBM training status %#x, expected %#x; reset the device or power-cycle the host\n",
				TIMEOUT_MS / 1000, c2c, hbm, TRAINED);
			return -ETIME;
		}
		if (fatal_signal_pending(current))
			return -EINTR;
		pause_killable(us);
		us = min(us * 2, (unsigned int)POLL_LONGEST_US);
	}
}

int nvgrace_gpu_wait_ready(struct pci_dev *pdev)
{
	void __iomem *bar0;
	int ret;

	ret = pci_enable_device(pdev);
	if (ret)
		return ret;

	ret = pci_request_selected_regions(pdev, BIT(0), KBUILD_MODNAME);
	if (ret)
		goto disable;

	/* A device whose BAR0 ends before the registers isn't one of ours. */
	if (pci_resource_len(pdev, 0) < HBM_TRAINING_STATUS + sizeof(u32)) {
		pci_err(pdev, "BAR0 has %#llx bytes, too few to hold the readiness registers; no GPU of the supported kind\n",
			(u64)pci_resource_len(pdev, 0));
		ret = -ENODEV;
		goto release;
	}

	bar0 = pci_iomap(pdev, 0, HBM_TRAINING_STATUS + sizeof(u32));
	if (!bar0) {
		ret = -ENOMEM;
		goto release;
	}

	ret = poll_trained(pdev, bar0);

	pci_iounmap(pdev, bar0);
release:
	pci_release_selected_regions(pdev, BIT(0));
disable:
	pci_disable_device(pdev);
	return ret;
}
