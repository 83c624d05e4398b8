/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The parts of a GPU's memory, which the driver shows as BAR4 and BAR2 of a
 * device opened by vfio.h.
 */
#ifndef NVGRACE_GPU_OPEN_GPU_PARTS_H
#define NVGRACE_GPU_OPEN_GPU_PARTS_H

#include "facts/gpu.h"
#include "system/vfio.h"

/* Sizes are in bytes. */
struct part {
	const char *name;	/* "usemem", "resmem" */
	uint64_t offset;	/* of the region in the device's file */
	uint64_t bar_size;
	uint64_t mappable;	/* from the region's begin; whole pages */
	uint64_t size;		/* of the memory, if the driver reports it; otherwise like mappable */
	uint64_t base;		/* physical; GPU_UNKNOWN unless the driver reports it */
};

struct parts {
	struct part part[2];
	size_t count;
};

/*
 * Finds the parts of the memory. A BAR is a part if it has a sparse mmap
 * capability from offset 0, which the device's own BARs lack. 0 or a negative
 * errno; without parts, count is 0.
 */
int parts_find(struct host *h, struct vfio *v, const struct gpu *gpu, struct parts *parts);

/*
 * Maps the first bytes of a part, shared, without first touch. Physical and virtual
 * address are equal modulo 1 GiB if the base is known, so that the kernel can use
 * its largest pages, plus shift bytes (whole pages). NULL with errno; part_unmap()
 * unmaps it.
 */
void *part_map(struct vfio *v, const struct part *part, uint64_t length, bool writable,
	       uint64_t shift);
void part_unmap(void *map, uint64_t length);

#endif
