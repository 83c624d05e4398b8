// SPDX-License-Identifier: GPL-2.0-only
/*
 * Clears BAR0 when a function level reset begins, as hardware does. QEMU keeps it.
 * The kernel restores it a tenth of a second later.
 */
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/ptrace.h>

static int forget(struct kprobe *probe, struct pt_regs *regs)
{
	struct pci_dev *pdev =
		(struct pci_dev *)regs_get_kernel_argument(regs, 0);

	pci_write_config_dword(pdev, PCI_BASE_ADDRESS_0, 0);
	pci_write_config_dword(pdev, PCI_BASE_ADDRESS_1, 0);
	return 0;
}

static struct kprobe probe = {
	.symbol_name	= "pcie_flr",
	.pre_handler	= forget,
};

static int __init load(void)
{
	return register_kprobe(&probe);
}
module_init(load);

static void __exit unload(void)
{
	unregister_kprobe(&probe);
}
module_exit(unload);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Resets clear BAR0");
