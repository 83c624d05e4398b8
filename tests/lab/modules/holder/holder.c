// SPDX-License-Identifier: GPL-2.0-only
/*
 * A driver for any PCI device, by driver_override. As NVIDIA's does while a GPU is in
 * use, it waits in its remove callback, with the device's lock and deaf to signals,
 * until something is written to the parameter "release".
 */
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/wait.h>

static DECLARE_WAIT_QUEUE_HEAD(queue);
static bool released;

static int let_go(const char *text, const struct kernel_param *param)
{
	released = true;
	wake_up_all(&queue);
	return 0;
}

static const struct kernel_param_ops ops = {
	.set	= let_go,
};

module_param_cb(release, &ops, NULL, 0200);
MODULE_PARM_DESC(release, "any text: the remove callback returns");

static int probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	released = false;
	return 0;
}

static void remove(struct pci_dev *pdev)
{
	/* Idle, so that the kernel doesn't report a hung task. */
	wait_event_idle(queue, released);
}

static struct pci_driver holder = {
	.name	= "holder",
	.probe	= probe,
	.remove	= remove,
};
module_pci_driver(holder);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Waits for its users when it is unbound");
