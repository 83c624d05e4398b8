// SPDX-License-Identifier: GPL-2.0-only
/*
 * The operation get_region_info_caps. Without it, VFIO_DEVICE_GET_REGION_INFO
 * arrives as an ioctl.
 * Since Linux 6.19, 775f726a742a ("vfio: Add get_region_info_caps op").
 *
 * absent-if: no member named 'get_region_info_caps'
 * absent-if: 'vfio_pci_ioctl_get_region_info' undeclared
 * absent-if: undeclared identifier 'vfio_pci_ioctl_get_region_info'
 */
#include <linux/vfio_pci_core.h>

static void __maybe_unused probe_get_region_info_caps(struct vfio_device_ops *ops)
{
	ops->get_region_info_caps = vfio_pci_ioctl_get_region_info;
}
