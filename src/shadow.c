// SPDX-License-Identifier: GPL-2.0-only
/*
 * Lets a reset find the mappings of a GPU on kernels before Linux 6.10, where
 * all vfio devices share one address space: each GPU gets one here, and each of
 * its mappings a file of its own that belongs to it, in the shadow of the
 * device's file.  Kbuild leaves this file out where vfio has an inode for each
 * device.  region.c calls it by mmap, and probe.c makes and frees the address
 * space; see compat/mapping.h.
 *
 * The device's own file can't be moved to another address space: vfio shares it
 * with mappings of vfio-pci-core, and the kernel may be walking it.  A list of
 * VMAs won't do either, because zapping needs the mmap_lock, which nests the
 * other way round.
 */
#include <linux/anon_inodes.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/module.h>

#include "compat/compat.h"
#include "nvgrace_gpu.h"

/* The shadow goes with its last mapping; only then may the device close. */
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

	/* Any anonymous file tells which superblock such inodes are of. */
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

	/* The name is what /proc/PID/maps shows, as for other mappings. */
	shadow = anon_inode_getfile("[vfio-device]", &shadow_ops, device,
				    device->f_flags & O_ACCMODE);
	if (IS_ERR(shadow))
		return PTR_ERR(shadow);
	get_file(device);
	shadow->f_mapping = mapping->inode->i_mapping;
	vma_set_file(vma, shadow);
	/* The VMA has a reference of its own now. */
	fput(shadow);
	return 0;
}
