// SPDX-License-Identifier: GPL-2.0-only
/*
 * Gives vfio-pci-core the addresses of GPU memory that user space exports as a
 * dma-buf (VFIO_DEVICE_FEATURE_DMA_BUF). vfio-pci-core makes the dma-buf and
 * revokes it at a reset. Does nothing on kernels whose vfio-pci-core exports
 * none.
 */
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
		return compat_core_dmabuf_phys(core, provider, region_index,
					       phys_vec, dma_ranges, nr_ranges);

	/*
	 * The memory is in no BAR of the device. Peers reach it like BAR0,
	 * which is.
	 */
	*provider = compat_p2pdma_provider(core->pdev, 0);
	if (!*provider)
		return -EINVAL;

	return compat_fill_phys_vec(phys_vec, dma_ranges, nr_ranges,
				    region->base, nvgrace_gpu_mappable(region));
}

static const struct compat_pci_ops pci_ops = {
	.get_dmabuf_phys = get_dmabuf_phys,
};

void nvgrace_gpu_dmabuf_init(struct nvgrace_gpu *gpu)
{
	compat_set_pci_ops(&gpu->core, &pci_ops);
}

void nvgrace_gpu_dmabuf_show(struct nvgrace_gpu *gpu, bool show)
{
	static const unsigned int bars[] = { VFIO_PCI_BAR2_REGION_INDEX,
					     VFIO_PCI_BAR4_REGION_INDEX };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(bars); i++)
		if (nvgrace_gpu_region(gpu, bars[i]))
			compat_show_bar(&gpu->core, bars[i], show);
}
