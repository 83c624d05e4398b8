/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * iommufd's ABI, as in linux/vfio.h and linux/iommufd.h, for this program and for
 * the tests. The headers of Linux 6.1, the oldest with which either is built, lack
 * it.
 */
#ifndef NVGRACE_GPU_SYSTEM_IOMMUFD_H
#define NVGRACE_GPU_SYSTEM_IOMMUFD_H

#include <stdint.h>
#include <linux/vfio.h>
#include <sys/ioctl.h>

struct bind_iommufd {
	uint32_t argsz;
	uint32_t flags;
	int32_t iommufd;
	uint32_t out_devid;
};

struct attach_iommufd {
	uint32_t argsz;
	uint32_t flags;
	uint32_t pt_id;
};

struct detach_iommufd {
	uint32_t argsz;
	uint32_t flags;
};

struct ioas_alloc {
	uint32_t size;
	uint32_t flags;
	uint32_t out_ioas_id;
};

struct ioas_map {
	uint32_t size;
	uint32_t flags;
	uint32_t ioas_id;
	uint32_t reserved;
	uint64_t user_va __attribute__((aligned(8)));
	uint64_t length __attribute__((aligned(8)));
	uint64_t iova __attribute__((aligned(8)));
};

struct ioas_unmap {
	uint32_t size;
	uint32_t ioas_id;
	uint64_t iova __attribute__((aligned(8)));
	uint64_t length __attribute__((aligned(8)));
};

/* Flags of struct ioas_map. */
#define IOAS_FIXED_IOVA	1
#define IOAS_WRITEABLE	2
#define IOAS_READABLE	4

#define BIND_IOMMUFD	_IO(VFIO_TYPE, VFIO_BASE + 18)
#define ATTACH_IOMMUFD	_IO(VFIO_TYPE, VFIO_BASE + 19)
#define DETACH_IOMMUFD	_IO(VFIO_TYPE, VFIO_BASE + 20)
#define IOAS_ALLOC	_IO(';', 0x81)
#define IOAS_MAP	_IO(';', 0x85)
#define IOAS_UNMAP	_IO(';', 0x86)

#endif /* NVGRACE_GPU_SYSTEM_IOMMUFD_H */
