// SPDX-License-Identifier: GPL-2.0-only
/*
 * Gives vfio-pci-core the addresses of GPU memory that user space exports as a
 * dma-buf (VFIO_DEVICE_FEATURE_DMA_BUF). vfio-pci-core makes the dma-buf and
 * revokes it at a reset. Kbuild leaves this file out if vfio-pci-core exports
 * none. compat/vfio.h is the contract.
 */
#include <linux/pci-p2pdma.h>
#include <linux/vfio_pci_core.h>

#include "compat/compat.h"
#include "nvgrace_gpu.h"

/*
 * Fills @phys_vec with the physical ranges of region @region_index that
 * @dma_ranges selects. Does not wait until the memory is ready: vfio-pci-core
 * restores an export right after each reset, and a VMM's main thread exports.
 * Called by the feature's ioctl without locks. Returns 0, or -EINVAL or
 * -EOVERFLOW (a range that isn't memory).
 */
static int get_dmabuf_phys(struct vfio_pci_core_device *core,
			   struct p2pdma_provider **provider,
			   unsigned int region_index,
			   struct phys_vec *phys_vec,
			   struct vfio_region_dma_range *dma_ranges,
			   size_t nr_ranges)
{
	struct nvgrace_gpu *gpu = to_nvgrace_gpu(&core->vdev);
	struct nvgrace_gpu_region *region = nvgrace_gpu_region(gpu,
							       region_index);

	if (!region)
		return vfio_pci_core_get_dmabuf_phys(core, provider,
						     region_index, phys_vec,
						     dma_ranges, nr_ranges);

	/*
	 * The memory is in no BAR of the device. Peers reach it like BAR0,
	 * which is.
	 */
	*provider = pcim_p2pdma_provider(core->pdev, 0);
	if (!*provider)
		return -EINVAL;

	return vfio_pci_core_fill_phys_vec(phys_vec, dma_ranges, nr_ranges,
					   region->base,
					   nvgrace_gpu_mappable(region));
}

static const struct vfio_pci_device_ops pci_ops = {
	.get_dmabuf_phys = get_dmabuf_phys,
};

void compat_dmabuf_init(struct vfio_pci_core_device *core)
{
	core->pci_ops = &pci_ops;
}
