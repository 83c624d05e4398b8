/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The address space of a device's mappings, through which the driver removes
 * them. See compat.h.
 *
 * Since Linux 6.10, vfio gives each device an inode of its own. Before, all
 * devices share one, and src/shadow.c makes an address space for each.
 */
#ifndef NVGRACE_GPU_COMPAT_MAPPING_H
#define NVGRACE_GPU_COMPAT_MAPPING_H

#include <linux/vfio_pci_core.h>

#include <generated/nvgrace_gpu_features.h>

#ifdef HAVE_VFIO_DEVICE_INODE

/* Whether vfio-pci-core itself removes this driver's mappings. */
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
 * init makes the address space, at probe. Returns 0, -ENOMEM or another error
 * of making an inode. exit comes after the device is unregistered, when no
 * mapping is left. After an error of init, or a second time, exit does nothing.
 * Sleep.
 */
int compat_mapping_init(struct compat_mapping *mapping);
void compat_mapping_exit(struct compat_mapping *mapping);

/*
 * Puts @vma into the address space. The last check of the device's mmap, with
 * the mmap_lock held for write; sleeps. Returns 0 or -ENOMEM.
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
