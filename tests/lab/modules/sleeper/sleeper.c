// SPDX-License-Identifier: GPL-2.0-only
/*
 * Calls a driver's functions for the host's sleep, as the kernel would, but for
 * one PCI device and with user space running: a sleep of the whole machine
 * would cut the test's connection to the host. The address of a device, written
 * to the parameter "prepare", "freeze" or "complete", calls that.
 */
#include <linux/module.h>
#include <linux/pci.h>

static int call(const char *text, const struct kernel_param *param)
{
	const char *what = param->name;
	unsigned int domain, bus, slot, function;
	const struct dev_pm_ops *pm = NULL;
	struct pci_dev *pdev;
	int ret = -ENODEV;

	if (sscanf(text, "%x:%x:%x.%u", &domain, &bus, &slot, &function) != 4)
		return -EINVAL;
	pdev = pci_get_domain_bus_and_slot(domain, bus,
					   PCI_DEVFN(slot, function));
	if (!pdev)
		return -ENODEV;

	device_lock(&pdev->dev);
	if (pdev->dev.driver)
		pm = pdev->dev.driver->pm;
	if (pm && pm->complete && !strcmp(what, "complete")) {
		pm->complete(&pdev->dev);
		ret = 0;
	} else if (pm && pm->prepare && !strcmp(what, "prepare")) {
		ret = pm->prepare(&pdev->dev);
	} else if (pm && pm->freeze && !strcmp(what, "freeze")) {
		ret = pm->freeze(&pdev->dev);
	}
	device_unlock(&pdev->dev);
	pci_dev_put(pdev);
	return ret;
}

static const struct kernel_param_ops call_ops = {
	.set	= call,
};

module_param_cb(prepare, &call_ops, NULL, 0200);
MODULE_PARM_DESC(prepare, "address of a device that is about to sleep");
module_param_cb(freeze, &call_ops, NULL, 0200);
MODULE_PARM_DESC(freeze, "address of a device for hibernation");
module_param_cb(complete, &call_ops, NULL, 0200);
MODULE_PARM_DESC(complete, "address of a device that is awake again");

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Calls a driver's operations for the host's sleep");
