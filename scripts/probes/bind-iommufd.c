// SPDX-License-Identifier: GPL-2.0-only
/*
 * The operations bind_iommufd, unbind_iommufd and attach_ioas.
 * Since Linux 6.2, a4d1f91db502 ("vfio-iommufd: Support iommufd for physical
 * VFIO devices").
 *
 * absent-if: no member named '(bind_iommufd|unbind_iommufd|attach_ioas)'
 * absent-if: vfio_iommufd_physical_(bind|unbind|attach_ioas)' undeclared
 * absent-if: undeclared identifier 'vfio_iommufd_physical_
 */
#include <linux/vfio.h>

static void __maybe_unused probe_bind_iommufd(struct vfio_device_ops *ops)
{
	ops->bind_iommufd = vfio_iommufd_physical_bind;
	ops->unbind_iommufd = vfio_iommufd_physical_unbind;
	ops->attach_ioas = vfio_iommufd_physical_attach_ioas;
}
