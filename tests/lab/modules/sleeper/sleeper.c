// SPDX-License-Identifier: GPL-2.0-only
/*
 * Calls the driver's power operations for the host's sleep, as the kernel does,
 * but with user space running: a sleep of the whole machine would cut the test's
 * connection to the host. The parameter "step" takes the name of the operation.
 */
#include <linux/device.h>
#include <linux/module.h>
#include <linux/platform_device.h>
#include <linux/pm.h>

static int call(struct device *dev, const char *step)
{
	const struct dev_pm_ops *ops = dev->driver->pm;

	if (sysfs_streq(step, "prepare"))
		return ops->prepare(dev);
	if (sysfs_streq(step, "freeze"))
		return ops->freeze(dev);
	if (!sysfs_streq(step, "complete"))
		return -EINVAL;
	ops->complete(dev);
	return 0;
}

static int take(const char *step, const struct kernel_param *param)
{
	struct device *dev = bus_find_device_by_name(&platform_bus_type, NULL,
						     "nvgrace_gpu_vfio_pci");
	int ret;

	if (!dev)
		return -ENODEV;
	device_lock(dev);
	ret = call(dev, step);
	device_unlock(dev);
	put_device(dev);
	return ret;
}

static const struct kernel_param_ops step_ops = {
	.set	= take,
};

module_param_cb(step, &step_ops, NULL, 0200);
MODULE_PARM_DESC(step, "prepare, freeze or complete");

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Calls the driver's power operations");
