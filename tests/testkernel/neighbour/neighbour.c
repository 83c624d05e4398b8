// SPDX-License-Identifier: GPL-2.0-only
/*
 * A driver for the function beside a GPU (QEMU's pci-testdev), which has a vote
 * when the AER core recovers their link. It requests a reset, and delays the
 * recovery as long as its parameter "hold" is 1. For tests/vm/guest/aer.c only.
 */
#include <linux/delay.h>
#include <linux/module.h>
#include <linux/pci.h>

static bool hold;
module_param(hold, bool, 0600);
MODULE_PARM_DESC(hold, "recovery waits until this is 0");

static bool asked;
module_param(asked, bool, 0400);
MODULE_PARM_DESC(asked, "the AER core has asked for a vote");

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
	return 0;
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
	.err_handler		= &handlers,
	/* The GPU is in the same group, and must remain usable by vfio. */
	.driver_managed_dma	= true,
};
module_pci_driver(neighbour_driver);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Votes for a reset in error recovery");
