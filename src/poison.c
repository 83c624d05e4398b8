// SPDX-License-Identifier: GPL-2.0-only
/*
 * The pages that the kernel has reported as bad, so that reads and writes avoid
 * them: a load from such a page in the kernel stops the host, because no copy
 * function of arm64 survives it. Owns a small table for each part.
 *
 * The table lives from probe to release, so a page stays bad when the device is
 * closed and opened again.
 */
#include <linux/bits.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/pci.h>
#include <linux/pfn.h>
#include <linux/spinlock.h>

#include "nvgrace_gpu.h"

static bool has(const struct nvgrace_gpu_poison *poison, unsigned long pfn)
{
	unsigned int i;

	for (i = 0; i < poison->count; i++)
		if (poison->pfn[i] == pfn)
			return true;
	return false;
}

static void report(struct nvgrace_gpu_region *region, unsigned long pfn)
{
	struct nvgrace_gpu_poison *poison = &region->poison;
	bool overflow = false;

	spin_lock(&poison->lock);
	if (poison->count == ARRAY_SIZE(poison->pfn) && !has(poison, pfn)) {
		overflow = !poison->overflow;
		poison->overflow = true;
	} else if (!has(poison, pfn)) {
		poison->pfn[poison->count] = pfn;
		WRITE_ONCE(poison->count, poison->count + 1);
	}
	spin_unlock(&poison->lock);

	if (overflow)
		pci_warn(region->gpu->core.pdev,
			 "%s has memory errors in more than %u pages: reads of it fail until a scrub has overwritten all of it\n",
			 region->uncached ? "resmem" : "usemem",
			 NVGRACE_GPU_POISON_PAGES);
}

void nvgrace_gpu_poison_report(struct nvgrace_gpu *gpu, unsigned long pfn)
{
	struct nvgrace_gpu_region *regions[] = { &gpu->usemem, &gpu->resmem };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(regions); i++)
		if (pfn - PHYS_PFN(regions[i]->base) <
		    PHYS_PFN(nvgrace_gpu_mappable(regions[i])))
			report(regions[i], pfn);
}

u64 nvgrace_gpu_poison_before(struct nvgrace_gpu_region *region, u64 offset,
			      u64 len)
{
	struct nvgrace_gpu_poison *poison = &region->poison;
	u64 start = region->base + offset;
	u64 before = len;
	unsigned int i;

	spin_lock(&poison->lock);
	if (poison->overflow)
		before = 0;
	for (i = 0; i < poison->count && before; i++) {
		u64 bad = PFN_PHYS(poison->pfn[i]);

		if (bad + PAGE_SIZE > start && bad < start + before)
			before = bad > start ? bad - start : 0;
	}
	spin_unlock(&poison->lock);
	return before;
}

void nvgrace_gpu_poison_forget_all(struct nvgrace_gpu_region *region)
{
	struct nvgrace_gpu_poison *poison = &region->poison;

	spin_lock(&poison->lock);
	poison->overflow = false;
	WRITE_ONCE(poison->count, 0);
	spin_unlock(&poison->lock);
}
