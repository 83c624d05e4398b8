// SPDX-License-Identifier: GPL-2.0-only
/*
 * vfio_pci_device_ops and its get_dmabuf_phys, with which a variant driver
 * gives the addresses of memory that is exported as a dma-buf.
 * Since Linux 6.19, 5d74781ebc86 ("vfio/pci: Add dma-buf export support for
 * MMIO regions").
 *
 * absent-if: no member named 'pci_ops'
 * absent-if: invalid use of undefined type 'const struct vfio_pci_device_ops'
 * absent-if: incomplete definition of type 'const struct vfio_pci_device_ops'
 */
#include <linux/vfio_pci_core.h>

struct p2pdma_provider;
struct phys_vec;
struct vfio_region_dma_range;

static void __maybe_unused
probe_get_dmabuf_phys(struct vfio_pci_core_device *core,
		      struct p2pdma_provider **provider, struct phys_vec *vec,
		      struct vfio_region_dma_range *ranges)
{
	const struct vfio_pci_device_ops *ops = core->pci_ops;

	ops->get_dmabuf_phys(core, provider, 0, vec, ranges, 1);
}
