// SPDX-License-Identifier: GPL-2.0-only
/* A small client of vfio: see vfio.h. */
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "system/iommufd.h"
#include "system/vfio.h"

/* ---- opening ------------------------------------------------------------ */

/* The step of this name has this result. */
static int step(struct vfio *v, const char *name, int result)
{
	int error = result < 0 ? -errno : 0;

	if (error)
		snprintf(v->failed, sizeof(v->failed), "%s", name);
	return error;
}

static int open_file(struct vfio *v, int *file, const char *path)
{
	*file = open(path, O_RDWR | O_CLOEXEC);
	return step(v, path, *file);
}

static int open_cdev(struct vfio *v, const char *path)
{
	struct bind_iommufd bind = { .argsz = sizeof(bind) };
	struct attach_iommufd attach = { .argsz = sizeof(attach) };
	struct ioas_alloc alloc = { .size = sizeof(alloc) };
	int error;

	error = open_file(v, &v->iommu, "/dev/iommu");
	if (!error)
		error = open_file(v, &v->device, path);
	if (error)
		return error;
	bind.iommufd = v->iommu;
	error = step(v, "VFIO_DEVICE_BIND_IOMMUFD", ioctl(v->device, BIND_IOMMUFD, &bind));
	/* Another process has bound it. */
	if (error == -EINVAL)
		error = -EBUSY;
	if (!error)
		error = step(v, "IOMMU_IOAS_ALLOC", ioctl(v->iommu, IOAS_ALLOC, &alloc));
	if (error)
		return error;
	v->ioas = attach.pt_id = alloc.out_ioas_id;
	return step(v, "VFIO_DEVICE_ATTACH_IOMMUFD_PT",
		    ioctl(v->device, ATTACH_IOMMUFD, &attach));
}

static int open_group(struct vfio *v, int group, const char *address)
{
	struct vfio_group_status status = { .argsz = sizeof(status) };
	char path[32];
	int error;

	snprintf(path, sizeof(path), "/dev/vfio/%d", group);
	error = open_file(v, &v->group, path);
	if (!error)
		error = open_file(v, &v->iommu, "/dev/vfio/vfio");
	if (error)
		return error;
	if (ioctl(v->iommu, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU) <= 0) {
		errno = EPROTONOSUPPORT;
		return step(v, "VFIO_CHECK_EXTENSION", -1);
	}
	if (ioctl(v->group, VFIO_GROUP_GET_STATUS, &status) ||
	    !(status.flags & VFIO_GROUP_FLAGS_VIABLE)) {
		errno = EBUSY;
		return step(v, "VFIO_GROUP_GET_STATUS", -1);
	}
	error = step(v, "VFIO_GROUP_SET_CONTAINER",
		     ioctl(v->group, VFIO_GROUP_SET_CONTAINER, &v->iommu));
	if (!error)
		error = step(v, "VFIO_SET_IOMMU",
			     ioctl(v->iommu, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU));
	if (error)
		return error;
	v->device = ioctl(v->group, VFIO_GROUP_GET_DEVICE_FD, address);
	return step(v, "VFIO_GROUP_GET_DEVICE_FD", v->device);
}

/* The end of opening, with the error of its steps. */
static int opened(struct vfio *v, int error)
{
	struct vfio_device_info info = { .argsz = sizeof(info) };

	if (!error)
		error = step(v, "VFIO_DEVICE_GET_INFO",
			     ioctl(v->device, VFIO_DEVICE_GET_INFO, &info));
	v->can_reset = !error && (info.flags & VFIO_DEVICE_FLAGS_RESET);
	if (error)
		vfio_close(v);
	return error;
}

int vfio_open_cdev(struct vfio *v, const char *path)
{
	*v = VFIO_CLOSED;
	v->cdev = true;
	return opened(v, open_cdev(v, path));
}

int vfio_open_group(struct vfio *v, int group, const char *address)
{
	*v = VFIO_CLOSED;
	return opened(v, open_group(v, group, address));
}

void vfio_close(struct vfio *v)
{
	/* In the reverse order of opening. */
	if (v->device >= 0)
		close(v->device);
	if (v->group >= 0)
		close(v->group);
	if (v->iommu >= 0)
		close(v->iommu);
	v->device = v->group = v->iommu = -1;
}

/* ---- regions ------------------------------------------------------------ */

int vfio_get_region(struct vfio *v, unsigned int index, struct vfio_region *region)
{
	union {
		struct vfio_region_info info;
		char bytes[4096];
	} u = { .info = { .argsz = sizeof(u), .index = index } };
	const struct vfio_region_info_cap_sparse_mmap *sparse;
	uint32_t at;

	*region = (struct vfio_region){ };
	if (ioctl(v->device, VFIO_DEVICE_GET_REGION_INFO, &u.info))
		return -errno;
	region->offset = u.info.offset;
	region->size = u.info.size;
	region->flags = u.info.flags;
	/* argsz is the size with the capabilities. */
	if (u.info.argsz > sizeof(u))
		return -E2BIG;
	at = u.info.flags & VFIO_REGION_INFO_FLAG_CAPS ? u.info.cap_offset : 0;
	for (; at && at + sizeof(sparse->header) <= u.info.argsz; at = sparse->header.next) {
		sparse = (const void *)(u.bytes + at);
		if (sparse->header.id != VFIO_REGION_INFO_CAP_SPARSE_MMAP)
			continue;
		if (at + sizeof(*sparse) + sizeof(sparse->areas[0]) <= u.info.argsz) {
			region->version = sparse->header.version;
			region->areas = sparse->nr_areas;
			region->area_offset = sparse->areas[0].offset;
			region->area_size = sparse->areas[0].size;
		}
		break;
	}
	return 0;
}

/* ---- DMA, reset, read and write ----------------------------------------- */

int vfio_dma_map(struct vfio *v, void *map, uint64_t length, uint64_t iova, bool writable)
{
	struct ioas_map ioas = {
		.size = sizeof(ioas),
		.flags = IOAS_FIXED_IOVA | IOAS_READABLE | (writable ? IOAS_WRITEABLE : 0),
		.ioas_id = v->ioas,
		.user_va = (uintptr_t)map,
		.length = length,
		.iova = iova,
	};
	struct vfio_iommu_type1_dma_map type1 = {
		.argsz = sizeof(type1),
		.flags = VFIO_DMA_MAP_FLAG_READ | (writable ? VFIO_DMA_MAP_FLAG_WRITE : 0),
		.vaddr = (uintptr_t)map,
		.size = length,
		.iova = iova,
	};

	if (v->cdev)
		return ioctl(v->iommu, IOAS_MAP, &ioas) ? -errno : 0;
	return ioctl(v->iommu, VFIO_IOMMU_MAP_DMA, &type1) ? -errno : 0;
}

int64_t vfio_dma_unmap(struct vfio *v, uint64_t length, uint64_t iova)
{
	struct ioas_unmap ioas = {
		.size = sizeof(ioas), .ioas_id = v->ioas, .iova = iova, .length = length,
	};
	struct vfio_iommu_type1_dma_unmap type1 = {
		.argsz = sizeof(type1), .iova = iova, .size = length,
	};

	if (v->cdev)
		return ioctl(v->iommu, IOAS_UNMAP, &ioas) ? -errno : (int64_t)ioas.length;
	return ioctl(v->iommu, VFIO_IOMMU_UNMAP_DMA, &type1) ? -errno : (int64_t)type1.size;
}

int vfio_reset(struct vfio *v)
{
	return ioctl(v->device, VFIO_DEVICE_RESET) ? -errno : 0;
}

ssize_t vfio_read(struct vfio *v, uint64_t at, void *data, size_t length)
{
	ssize_t n = pread(v->device, data, length, at);

	return n < 0 ? -errno : n;
}

ssize_t vfio_write(struct vfio *v, uint64_t at, const void *data, size_t length)
{
	ssize_t n = pwrite(v->device, data, length, at);

	return n < 0 ? -errno : n;
}

int vfio_read_all(struct vfio *v, uint64_t at, void *data, size_t length)
{
	size_t done = 0;
	ssize_t n;

	while (done < length) {
		n = vfio_read(v, at + done, (char *)data + done, length - done);
		if (n <= 0)
			return n ? n : -EIO;
		done += n;
	}
	return 0;
}

int vfio_write_all(struct vfio *v, uint64_t at, const void *data, size_t length)
{
	size_t done = 0;
	ssize_t n;

	while (done < length) {
		n = vfio_write(v, at + done, (const char *)data + done, length - done);
		if (n <= 0)
			return n ? n : -EIO;
		done += n;
	}
	return 0;
}
