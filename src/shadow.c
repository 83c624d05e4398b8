// SPDX-License-Identifier: GPL-2.0-only
/*
 * Lets a reset find the mappings of one GPU on kernels before Linux 6.10, where
 * all vfio devices share one address space. Gives each GPU an address space,
 * and each of its mappings a shadow file in it that holds the device's file.
 * Kbuild leaves this file out if vfio has an inode for each device.
 * compat/mapping.h is the contract.
 *
 * The device's own file can't move to another address space: vfio-pci-core's
 * mappings use it too, and the kernel may be walking it. A list of VMAs does
 * not work either, because removing mappings needs the mmap_lock, and that lock
 * nests the other way round.
 */
#include <linux/anon_inodes.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/module.h>

#include "compat/compat.h"
#include "nvgrace_gpu.h"

/* Only after its last mapping may the device close. */
static int release(struct inode *inode, struct file *shadow)
{
	fput(shadow->private_data);
	return 0;
}

static const struct file_operations shadow_ops = {
	.owner		= THIS_MODULE,
	.release	= release,
};

static const struct file_operations no_ops = {
	.owner		= THIS_MODULE,
};

int compat_mapping_init(struct compat_mapping *mapping)
{
	struct file *file;
	struct inode *inode;

	/* Any anonymous file has the superblock that such inodes belong to. */
	file = anon_inode_getfile("[nvgrace-gpu]", &no_ops, NULL, O_RDWR);
	if (IS_ERR(file))
		return PTR_ERR(file);
	inode = alloc_anon_inode(file_inode(file)->i_sb);
	fput(file);
	if (IS_ERR(inode))
		return PTR_ERR(inode);

	mapping->inode = inode;
	return 0;
}

void compat_mapping_exit(struct compat_mapping *mapping)
{
	iput(mapping->inode);
	mapping->inode = NULL;
}

int compat_mapping_add(struct compat_mapping *mapping,
		       struct vm_area_struct *vma)
{
	struct file *device = vma->vm_file;
	struct file *shadow;

	/*
	 * The name in /proc/PID/maps, the same as for other mappings of the
	 * device.
	 */
	shadow = anon_inode_getfile("[vfio-device]", &shadow_ops, device,
				    device->f_flags & O_ACCMODE);
	if (IS_ERR(shadow))
		return PTR_ERR(shadow);
	get_file(device);
	shadow->f_mapping = mapping->inode->i_mapping;
	vma_set_file(vma, shadow);
	/* The VMA has its own reference now. */
	fput(shadow);
	return 0;
}
