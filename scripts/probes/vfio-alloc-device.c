// SPDX-License-Identifier: GPL-2.0-only
/*
 * vfio_alloc_device(), and with it vfio-pci-core as this driver uses it.
 * Since Linux 6.1, cb9ff3f3b84c ("vfio: Add helpers for unifying vfio_device
 * life cycle"). Without it, the kernel can't be supported.
 *
 * absent-if: (implicit declaration of|undeclared) function 'vfio_alloc_device'
 * absent-if: 'probe_device' undeclared|undeclared identifier 'probe_device'
 * absent-if: expected expression|'core' undeclared|undeclared identifier 'core'
 */
#include <linux/vfio_pci_core.h>

struct probe_device {
	struct vfio_pci_core_device core;
};

static void __maybe_unused
probe_vfio_alloc_device(struct probe_device **device, struct device *dev,
			const struct vfio_device_ops *ops)
{
	*device = vfio_alloc_device(probe_device, core.vdev, dev, ops);
}
