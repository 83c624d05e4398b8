// SPDX-License-Identifier: GPL-2.0-only
/*
 * BARs mapped when the device is enabled, and vfio_pci_core_get_iomap(), which
 * returns the mapping of one.
 * Since Linux 7.2, 859dc0f6253b ("vfio/pci: Replace
 * vfio_pci_core_setup_barmap() with vfio_pci_core_get_iomap()").
 *
 * absent-if: 'vfio_pci_core_get_iomap' undeclared
 * absent-if: undeclared identifier 'vfio_pci_core_get_iomap'
 */
#include <linux/vfio_pci_core.h>

struct fns {
	void __iomem *(*get)(struct vfio_pci_core_device *core,
			     unsigned int bar);
};

static void __maybe_unused probe_vfio_pci_core_get_iomap(struct fns *fns)
{
	fns->get = vfio_pci_core_get_iomap;
}
