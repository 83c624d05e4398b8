// SPDX-License-Identifier: GPL-2.0-only
/*
 * The operations pasid_attach_ioas and pasid_detach_ioas.
 * Since Linux 6.15, 290641346d0d ("vfio-iommufd: Support pasid [at|de]tach for
 * physical VFIO devices").
 *
 * absent-if: no member named 'pasid_(at|de)tach_ioas'
 * absent-if: 'vfio_iommufd_physical_pasid_(at|de)tach_ioas' undeclared
 * absent-if: undeclared identifier 'vfio_iommufd_physical_pasid_
 */
#include <linux/vfio.h>

static void __maybe_unused probe_pasid_attach_ioas(struct vfio_device_ops *ops)
{
	ops->pasid_attach_ioas = vfio_iommufd_physical_pasid_attach_ioas;
	ops->pasid_detach_ioas = vfio_iommufd_physical_pasid_detach_ioas;
}
