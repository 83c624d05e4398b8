/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A GPU opened through vfio as a virtual machine's monitor does: by the device's own file and
 * iommufd where the kernel has them, else by its group and type1. exercise.c opens it for bench,
 * test and scrub, bench_measure.c, test.c and test_pattern.c use it.
 *
 * Functions that return an int return 0 or a negative errno, unless it says otherwise. Nothing is
 * bound, unbound or changed in sysfs: closing the files undoes all of it, and so does the end of
 * the process, however it ends.
 */
#ifndef NVGRACE_GPU_VFIO_H
#define NVGRACE_GPU_VFIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "commands.h"

/* A part of the GPU's memory: what the driver shows as BAR4 or BAR2. Sizes are in bytes. */
struct vfio_part {
	const char *name;	/* "usemem", "resmem" */
	unsigned int bar;
	uint64_t offset;	/* of the region in the device's file */
	uint64_t bar_size;
	uint64_t mappable;	/* from the region's begin; whole pages */
	uint64_t size;		/* of the memory, where the driver says; else as mappable */
	uint64_t base;		/* physical; GPU_UNKNOWN unless the driver says */
	bool told;		/* the driver said the size */
};

struct vfio {
	const struct gpu *gpu;
	bool cdev;		/* by its own file and iommufd, else by group and type1 */
	int device, group;	/* files; -1: none. With cdev there is no group */
	int iommu;		/* the container or /dev/iommu */
	uint32_t ioas;		/* iommufd's I/O address space */
	bool can_reset;		/* vfio says that the device can be reset alone */
	struct vfio_part parts[2];
	size_t count;
};

/*
 * Open a bound GPU. EXIT_OK, or an exit status and why not: *reason, to be freed. v->gpu is set by
 * the caller, who keeps it. vfio resets the GPU at each opening. The parts are filled in only by
 * vfio_find_parts().
 */
enum exit_status vfio_open(struct host *h, struct vfio *v, char **reason);
void vfio_close(struct vfio *v);

/*
 * Find the parts of the memory. A BAR is a part if vfio gives it a sparse mmap capability from
 * offset 0 on: the device's own BARs have none. 0, or a negative errno; without any, count is 0.
 */
int vfio_find_parts(struct host *h, struct vfio *v);

/* A part by its name; NULL if there is none. */
const struct vfio_part *vfio_part(const struct vfio *v, const char *name);

/* Where config space is in the device's file, and how long it is; -EIO if it isn't there. */
int vfio_config(struct vfio *v, uint64_t *offset, uint64_t *size);

/*
 * Map [offset, offset + length) of a part, shared. Physical and virtual address are equal modulo
 * 1 GiB, or as much as the part's base allows, so that the kernel can use its largest pages; plus
 * shift bytes (whole pages). Nothing is touched. NULL leaves errno. vfio_unmap() undoes it.
 */
void *vfio_map(struct vfio *v, const struct vfio_part *part, uint64_t offset, uint64_t length,
	       bool writable, uint64_t shift);
void vfio_unmap(void *map, uint64_t length);

/* Map for DMA at an I/O virtual address, and undo that. length is in whole pages. */
int vfio_dma_map(struct vfio *v, void *map, uint64_t length, uint64_t iova, bool writable);
int vfio_dma_unmap(struct vfio *v, uint64_t length, uint64_t iova);

/* Reset the device; does not wait for the memory to be ready. */
int vfio_reset(struct vfio *v);

/* pread and pwrite that go on after a short count: 0 if all was done, or a negative errno. */
int vfio_read(struct vfio *v, uint64_t at, void *data, size_t length);
int vfio_write(struct vfio *v, uint64_t at, const void *data, size_t length);

#endif
