/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How the driver finds what user space has mapped, so that it can take it away:
 * the address space of the device's mappings.  See compat.h.
 *
 * Since Linux 6.10 vfio gives each device an inode of its own.  Before, all
 * devices share one, and src/shadow.c makes an address space for each.
 */
#ifndef NVGRACE_GPU_COMPAT_MAPPING_H
#define NVGRACE_GPU_COMPAT_MAPPING_H

#include <linux/vfio_pci_core.h>

#include <generated/nvgrace_gpu_features.h>

#ifdef HAVE_VFIO_DEVICE_INODE

/* Whether vfio-pci-core itself removes the mappings of this driver. */
#define COMPAT_CORE_ZAPS	true

struct compat_mapping {
};

static inline int compat_mapping_init(struct compat_mapping *mapping)
{
	return 0;
}

static inline void compat_mapping_exit(struct compat_mapping *mapping)
{
}

static inline int compat_mapping_add(struct compat_mapping *mapping,
				     struct vm_area_struct *vma)
{
	return 0;
}

static inline struct address_space *
compat_mapping_space(struct compat_mapping *mapping,
		     struct vfio_device *core_vdev)
{
	return core_vdev->inode->i_mapping;
}

#else /* !HAVE_VFIO_DEVICE_INODE */

#define COMPAT_CORE_ZAPS	false

struct compat_mapping {
	struct inode *inode;
};

/*
 * Makes the address space, at probe.  Returns 0, -ENOMEM or another error of
 * making an inode.  Exit after an error, or a second time, does nothing.  Call
 * exit when the device is unregistered, so that no mapping is left.
 */
int compat_mapping_init(struct compat_mapping *mapping);
void compat_mapping_exit(struct compat_mapping *mapping);

/*
 * Lets @vma be found.  Called by mmap of the device as its last check, with the
 * mmap_lock held for write.  Returns 0 or -ENOMEM.
 */
int compat_mapping_add(struct compat_mapping *mapping,
		       struct vm_area_struct *vma);

static inline struct address_space *
compat_mapping_space(struct compat_mapping *mapping,
		     struct vfio_device *core_vdev)
{
	return mapping->inode->i_mapping;
}

#endif /* HAVE_VFIO_DEVICE_INODE */

#endif /* NVGRACE_GPU_COMPAT_MAPPING_H */
