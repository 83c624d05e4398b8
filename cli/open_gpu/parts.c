// SPDX-License-Identifier: GPL-2.0-only
/*
 * The parts of a GPU's memory: see parts.h.
 */
#include <errno.h>
#include <linux/vfio.h>
#include <sys/mman.h>

#include "open_gpu/parts.h"

int parts_find(struct host *h, struct vfio *v, const struct gpu *gpu, struct parts *parts)
{
	static const struct {
		const char *name;
		unsigned int bar;
	} bars[] = { { "usemem", VFIO_PCI_BAR4_REGION_INDEX },
		     { "resmem", VFIO_PCI_BAR2_REGION_INDEX } };
	struct vfio_region region;
	struct part *part;
	uint64_t size;
	size_t i;
	int error;

	parts->count = 0;
	for (i = 0; i < 2; i++) {
		error = vfio_get_region(v, bars[i].bar, &region);
		if (error)
			return error;
		size = region.area_size / h->page_size * h->page_size;
		if (!(region.flags & VFIO_REGION_INFO_FLAG_MMAP) || !region.areas ||
		    region.area_offset || !size || size > region.size)
			continue;
		part = &parts->part[parts->count++];
		*part = (struct part){
			.name = bars[i].name, .offset = region.offset,
			.bar_size = region.size, .mappable = size, .size = size,
			.base = i ? gpu->resmem_base : gpu->usemem_base,
		};
		size = i ? gpu->resmem_size : gpu->usemem_size;
		/* Less than a page can be read and written, but not mapped. */
		if (size != GPU_UNKNOWN && size > part->mappable && size <= part->bar_size)
			part->size = size;
	}
	return 0;
}

#define ALIGNMENT ((uint64_t)1 << 30)

void *part_map(struct vfio *v, const struct part *part, uint64_t length, bool writable,
	       uint64_t shift)
{
	uint64_t wanted, physical = (part->base == GPU_UNKNOWN ? 0 : part->base) + shift;
	char *reserved, *at, *map;

	reserved = mmap(NULL, length + ALIGNMENT, PROT_NONE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (reserved == MAP_FAILED)
		return NULL;
	wanted = (physical - (uintptr_t)reserved) % ALIGNMENT;
	at = reserved + wanted;
	map = mmap(at, length, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED | MAP_FIXED,
		   v->device, part->offset);
	if (map == MAP_FAILED) {
		int error = errno;

		munmap(reserved, length + ALIGNMENT);
		errno = error;
		return NULL;
	}
	if (wanted)
		munmap(reserved, wanted);
	munmap(at + length, ALIGNMENT - wanted);
	return map;
}

void part_unmap(void *map, uint64_t length)
{
	if (map)
		munmap(map, length);
}
