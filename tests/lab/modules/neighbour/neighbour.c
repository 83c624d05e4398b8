// SPDX-License-Identifier: GPL-2.0-only
/*
 * A driver for the function beside a GPU (QEMU's pci-testdev), which takes part
 * when the AER core recovers their link. It requests a reset, and delays the
 * recovery as long as its parameter "hold" is 1. It holds the GPU's device lock
 * as long as its parameter "lock" is 1. With "numb", the GPU does not wake up.
 * For tests/driver/aer.c only.
 */
#include <linux/delay.h>
#include <linux/kstrtox.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/workqueue.h>

static bool hold;
module_param(hold, bool, 0600);
MODULE_PARM_DESC(hold, "recovery waits until this is 0");

static bool asked;
module_param(asked, bool, 0400);
MODULE_PARM_DESC(asked, "the AER core has asked for a vote");

static bool lock;
static bool locked;
module_param(locked, bool, 0400);
MODULE_PARM_DESC(locked, "the GPU's device lock is held");

static struct pci_dev *beside;

/* A task of its own, because the same task must release the lock. */
static void hold_lock(struct work_struct *work)
{
	struct pci_dev *gpu = pci_get_slot(beside->bus,
					   PCI_DEVFN(PCI_SLOT(beside->devfn), 0));

	if (!gpu)
		return;
	pci_dev_lock(gpu);
	WRITE_ONCE(locked, true);
	while (READ_ONCE(lock))
		msleep(20);
	WRITE_ONCE(locked, false);
	pci_dev_unlock(gpu);
	pci_dev_put(gpu);
}

static DECLARE_WORK(holder, hold_lock);

static int set_lock(const char *text, const struct kernel_param *param)
{
	int ret = param_set_bool(text, param);

	if (!ret && lock && beside)
		queue_work(system_long_wq, &holder);
	return ret;
}

static const struct kernel_param_ops lock_ops = {
	.set	= set_lock,
	.get	= param_get_bool,
};
module_param_cb(lock, &lock_ops, &lock, 0600);
MODULE_PARM_DESC(lock, "hold the GPU's device lock while this is 1");

/* As after a failed suspend or resume of the GPU. */
static int set_numb(const char *text, const struct kernel_param *param)
{
	struct pci_dev *gpu;
	bool on;

	if (kstrtobool(text, &on) || !beside)
		return -EINVAL;
	gpu = pci_get_slot(beside->bus, PCI_DEVFN(PCI_SLOT(beside->devfn), 0));
	if (!gpu)
		return -ENODEV;
	spin_lock_irq(&gpu->dev.power.lock);
	gpu->dev.power.runtime_error = on ? -EIO : 0;
	spin_unlock_irq(&gpu->dev.power.lock);
	pci_dev_put(gpu);
	return 0;
}

static const struct kernel_param_ops numb_ops = {
	.set	= set_numb,
};
module_param_cb(numb, &numb_ops, NULL, 0200);
MODULE_PARM_DESC(numb, "runtime power management of the GPU has failed");

static pci_ers_result_t error_detected(struct pci_dev *pdev,
				       pci_channel_state_t state)
{
	WRITE_ONCE(asked, true);
	while (READ_ONCE(hold))
		msleep(20);
	return PCI_ERS_RESULT_NEED_RESET;
}

static pci_ers_result_t slot_reset(struct pci_dev *pdev)
{
	return PCI_ERS_RESULT_RECOVERED;
}

static int probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	beside = pdev;
	return 0;
}

static void remove(struct pci_dev *pdev)
{
	lock = false;
	cancel_work_sync(&holder);
	beside = NULL;
}

static const struct pci_error_handlers handlers = {
	.error_detected	= error_detected,
	.slot_reset	= slot_reset,
};

static const struct pci_device_id ids[] = {
	{ PCI_DEVICE(PCI_VENDOR_ID_REDHAT, 0x0005) },
	{ }
};
MODULE_DEVICE_TABLE(pci, ids);

static struct pci_driver neighbour_driver = {
	.name			= "neighbour",
	.id_table		= ids,
	.probe			= probe,
	.remove			= remove,
	.err_handler		= &handlers,
	/* The GPU is in the same group, and must remain usable by vfio. */
	.driver_managed_dma	= true,
};
module_pci_driver(neighbour_driver);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Votes for a reset in error recovery");
