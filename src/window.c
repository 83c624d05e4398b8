// SPDX-License-Identifier: GPL-2.0-only
/*
 * The kernel's own mappings of GPU memory. They exist only while the gate
 * allows it: gate.c removes them when the memory may lose its training.
 */
#include <linux/io.h>
#include <linux/math64.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "compat/compat.h"
#include "nvgrace_gpu.h"

/*
 * Memory is mapped in windows of this many bytes, each on first use. One entry
 * of the page tables maps at most as much (a PUD entry, with 4K pages). Larger
 * windows would not make accesses cheaper, and smaller ones make a 4-byte read
 * of 480 GB cheap.
 */
#define WINDOW	(COMPAT_MAPPINGS_TAKE_MEMORY ? SZ_64M : SZ_1G)

int nvgrace_gpu_window_init(struct device *dev,
			    struct nvgrace_gpu_region *region)
{
	region->window = devm_kcalloc(dev,
				      DIV_ROUND_UP_ULL(region->length, WINDOW),
				      sizeof(*region->window), GFP_KERNEL);
	return region->window ? 0 : -ENOMEM;
}

u64 nvgrace_gpu_window_left(u64 offset)
{
	return WINDOW - offset % WINDOW;
}

/* Returns whether there was a mapping. */
static bool unmap_region(struct nvgrace_gpu_region *region)
{
	u64 i, windows = DIV_ROUND_UP_ULL(region->length, WINDOW);
	bool unmapped = false;

	for (i = 0; i < windows; i++) {
		if (!region->window[i])
			continue;
		if (region->uncached)
			iounmap((void __force __iomem *)region->window[i]);
		else
			memunmap(region->window[i]);
		region->window[i] = NULL;
		unmapped = true;
	}
	return unmapped;
}

void nvgrace_gpu_window_unmap(struct nvgrace_gpu *gpu)
{
	bool usemem = unmap_region(&gpu->usemem);
	bool resmem = unmap_region(&gpu->resmem);

	/* The kernel keeps TLB entries of what is unmapped until it needs to. */
	if (usemem || resmem)
		vm_unmap_aliases();
}

static void *map_window(struct nvgrace_gpu_region *region, u64 start)
{
	u64 len = min_t(u64, WINDOW, region->length - start);

	/*
	 * Normal-NC is memory, except that it is not cached: loads and stores
	 * of any size and alignment work. So drop the __iomem and use memcpy(),
	 * which is faster than the MMIO copies with their 8 bytes at a time.
	 */
	if (region->uncached)
		return (void __force *)ioremap_wc(region->base + start, len);
	return memremap(region->base + start, len, MEMREMAP_WB);
}

void *nvgrace_gpu_window_addr(struct nvgrace_gpu_region *region, u64 offset)
{
	void **window = &region->window[offset / WINDOW];
	/* Pairs with the release below. */
	void *map = smp_load_acquire(window);

	if (!map) {
		if (mutex_lock_killable(&region->gpu->window_lock))
			return ERR_PTR(-EINTR);
		map = *window;
		if (!map) {
			map = map_window(region, round_down(offset, WINDOW));
			/* Pairs with the acquire above. */
			smp_store_release(window, map);
		}
		mutex_unlock(&region->gpu->window_lock);
	}

	return map ? map + offset % WINDOW : ERR_PTR(-ENOMEM);
}
