/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A small client of vfio, which opens a device as a VMM does: by the device's own
 * file and iommufd, or by its group and type1. This program uses it, and so do the
 * programs that test the driver. It needs nothing but the C library.
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
#include <sys/types.h>

struct gpu;

struct vfio {
	const struct gpu *gpu;	/* for the caller, who may know more of the device */
	int device, group;	/* files; -1: none */
	int iommu;		/* the container or /dev/iommu; -1: none */
	bool cdev;		/* opened by its own file and iommufd */
	uint32_t ioas;		/* iommufd's I/O address space */
	bool can_reset;		/* vfio can reset this device alone */
	char failed[64];	/* opening: the file or the request that failed */
};

/* Nothing is open. */
#define VFIO_CLOSED	((struct vfio){ .device = -1, .group = -1, .iommu = -1 })

/* Sizes and offsets are in bytes. */
struct vfio_region {
	uint64_t offset;	/* in the device's file */
	uint64_t size;
	uint32_t flags;		/* VFIO_REGION_INFO_FLAG_* */
	uint32_t areas;		/* of the sparse mmap capability; 0: none */
	uint16_t version;	/* of that capability */
	uint64_t area_offset;	/* the first area */
	uint64_t area_size;
};

/*
 * Both open a bound device; vfio resets it. If they fail, v->failed names what did,
 * and all is closed again. vfio_open_cdev() does so by the device's own file, and
 * gives it an I/O address space; -EBUSY: it is in use. vfio_open_group() does so by
 * the file of its IOMMU group; -EBUSY: a device of the group has no vfio driver;
 * -EPROTONOSUPPORT: vfio has no type1.
 */
int vfio_open_cdev(struct vfio *v, const char *path);
int vfio_open_group(struct vfio *v, int group, const char *address);
void vfio_close(struct vfio *v);

/* Reads vfio's information about the region with this index. */
int vfio_get_region(struct vfio *v, unsigned int index, struct vfio_region *region);

/*
 * Map for DMA at an I/O virtual address, and unmap, which returns how many bytes it
 * unmapped. length: bytes, whole pages.
 */
int vfio_dma_map(struct vfio *v, void *map, uint64_t length, uint64_t iova, bool writable);
int64_t vfio_dma_unmap(struct vfio *v, uint64_t length, uint64_t iova);

/* Resets the device, and does not wait until its memory is ready. */
int vfio_reset(struct vfio *v);

/* pread and pwrite: bytes, or a negative errno. */
ssize_t vfio_read(struct vfio *v, uint64_t at, void *data, size_t length);
ssize_t vfio_write(struct vfio *v, uint64_t at, const void *data, size_t length);

/* The same, which continue after a short count until all is done. */
int vfio_read_all(struct vfio *v, uint64_t at, void *data, size_t length);
int vfio_write_all(struct vfio *v, uint64_t at, const void *data, size_t length);

#endif
