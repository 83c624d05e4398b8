// SPDX-License-Identifier: GPL-2.0-only
/*
 * Asks the driver of a mapping for a huge entry of any order. "ADDRESS ORDER" in
 * the parameter "fault" does so in the address space of the task that writes it.
 * The write fails with -EFAULT if there is no such mapping, and with -EXDEV if
 * the answer was not VM_FAULT_FALLBACK.
 */
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/sched.h>

static int fault(const char *text, const struct kernel_param *param)
{
	struct vm_area_struct *vma;
	unsigned long address;
	unsigned int order;
	int ret = -EFAULT;

	if (sscanf(text, "%lx %u", &address, &order) != 2)
		return -EINVAL;
	mmap_read_lock(current->mm);
	vma = find_vma(current->mm, address);
	if (vma && vma->vm_start <= address && vma->vm_ops &&
	    vma->vm_ops->huge_fault) {
		struct vm_fault vmf = {
			.vma = vma,
			.address = address,
			.gfp_mask = GFP_KERNEL,
			.flags = FAULT_FLAG_DEFAULT | FAULT_FLAG_USER,
		};

		ret = vma->vm_ops->huge_fault(&vmf, order) ==
		      VM_FAULT_FALLBACK ? 0 : -EXDEV;
	}
	mmap_read_unlock(current->mm);
	return ret;
}

static const struct kernel_param_ops ops = {
	.set	= fault,
};

module_param_cb(fault, &ops, NULL, 0200);
MODULE_PARM_DESC(fault, "an address in hexadecimal, and an order");

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Asks drivers for huge entries");
