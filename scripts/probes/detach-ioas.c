// SPDX-License-Identifier: GPL-2.0-only
/*
 * The operation detach_ioas.
 * Since Linux 6.6, 9048c7341c4d ("vfio-iommufd: Add detach_ioas support for
 * physical VFIO devices").
 *
 * absent-if: no member named 'detach_ioas'
 * absent-if: 'vfio_iommufd_physical_detach_ioas' undeclared
 * absent-if: undeclared identifier 'vfio_iommufd_physical_detach_ioas'
 */
#include <linux/vfio.h>

static void __maybe_unused probe_detach_ioas(struct vfio_device_ops *ops)
{
	ops->detach_ioas = vfio_iommufd_physical_detach_ioas;
}
