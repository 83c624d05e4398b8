// SPDX-License-Identifier: GPL-2.0-only
/*
 * A vfio device's own inode, whose address space has all the device's mappings.
 * Since Linux 6.10, b7c5e64fecfa ("vfio: Create vfio_fs_type with inode per
 * device").
 *
 * absent-if: no member named 'inode'
 */
#include <linux/fs.h>
#include <linux/vfio.h>

static struct address_space __maybe_unused *
probe_vfio_device_inode(struct vfio_device *core_vdev)
{
	return core_vdev->inode->i_mapping;
}
