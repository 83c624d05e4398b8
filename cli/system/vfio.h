/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Opens a device as a VMM does: through the device's own file and iommufd if
 * the kernel has them, otherwise through its group and type1.
 *
 * Functions that return an int return 0 or a negative errno. They bind, unbind
 * or change nothing in sysfs. Closing the files undoes everything, as does the
 * end of the process.
 */
#ifndef NVGRACE_GPU_SYSTEM_VFIO_H
#define NVGRACE_GPU_SYSTEM_VFIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "system/host.h"
#include "system/program.h"

struct vfio {
	int iommu_group;	/* -1: none */
	bool cdev;		/* opened by its own file and iommufd, not by group and type1 */
	int device, group;	/* files; -1: none. With cdev, group is -1 */
	int iommu;		/* the container or /dev/iommu */
	uint32_t ioas;		/* iommufd's I/O address space */
	bool can_reset;		/* vfio can reset this device alone */
};

/* Sizes and offsets are in bytes. */
struct vfio_region {
	uint64_t offset;	/* in the device's file */
	uint64_t size;
	uint64_t sparse;	/* mappable from offset 0, by its sparse mmap capability; 0: none */
};

/*
 * Opens a bound device. EXIT_OK, or an exit status and the message *reason, to
 * be freed. vfio resets the device at each open.
 */
enum exit_status vfio_open(struct host *h, struct vfio *v, const char *address, int iommu_group,
			   char **reason);
void vfio_close(struct vfio *v);

/* Reads vfio's information about the region with this index. */
int vfio_region(struct vfio *v, unsigned int index, struct vfio_region *region);

/*
 * The offset of config space in the device's file, and its size; -EIO: it is
 * missing.
 */
int vfio_config(struct vfio *v, uint64_t *offset, uint64_t *size);

/*
 * Map for DMA at an I/O virtual address, and unmap. length: bytes, whole pages.
 */
int vfio_dma_map(struct vfio *v, void *map, uint64_t length, uint64_t iova, bool writable);
int vfio_dma_unmap(struct vfio *v, uint64_t length, uint64_t iova);

/* Resets the device, and does not wait until its memory is ready. */
int vfio_reset(struct vfio *v);

/* pread and pwrite that continue after a short count, until all is done. */
int vfio_read(struct vfio *v, uint64_t at, void *data, size_t length);
int vfio_write(struct vfio *v, uint64_t at, const void *data, size_t length);

#endif
