// SPDX-License-Identifier: GPL-2.0-only
/* A small client of vfio: see vfio.h. */
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "system/iommufd.h"
#include "system/vfio.h"

#define DEVICES "/sys/bus/pci/devices"

/* ---- opening ------------------------------------------------------------ */

/* The message and status for a file that can't be opened; takes over path. */
static enum exit_status refused(int error, char *path, char **reason)
{
	enum exit_status status = EXIT_FAILED;

	switch (error) {
	case EBUSY:
		status = EXIT_REFUSED;
		*reason = xasprintf("in use: another process has %s open; end that process", path);
		break;
	case EACCES:
	case EPERM:
		status = EXIT_NOT_ROOT;
		*reason = xasprintf("can't open %s: %s; use sudo, or get access to that file",
				    path, strerror(error));
		break;
	case ENOENT:
	case ENODEV:
	case ENXIO:
		*reason = xasprintf("can't open %s: %s; load the modules vfio and vfio_iommu_type1",
				    path, strerror(error));
		break;
	default:
		*reason = xasprintf("can't open %s: %s", path, strerror(error));
	}
	free(path);
	return status;
}

/* The message and status for a failed step of opening. */
static enum exit_status not_viable(struct vfio *v, const char *step, int error, char **reason)
{
	if (error == EBUSY || error == EPERM) {
		*reason = xasprintf("in use, or a device in its IOMMU group %d is not bound to a vfio "
				    "driver (%s: %s); run \"ls /sys/kernel/iommu_groups/"
				    "%d/devices\"", v->iommu_group, step, strerror(error),
				    v->iommu_group);
		return EXIT_REFUSED;
	}
	*reason = xasprintf("%s failed: %s", step, strerror(error));
	return EXIT_FAILED;
}

/* The path of the device's own file, or NULL. */
static char *cdev_path(struct host *h, const char *address)
{
	char **names = host_list(h, DEVICES "/%s/vfio-dev", address), *path = NULL;
	size_t i;

	for (i = 0; names && names[i] && !path; i++)
		if (!strncmp(names[i], "vfio", 4))
			path = xasprintf("/dev/vfio/devices/%s", names[i]);
	host_free_list(names);
	if (path && access(path, F_OK)) {
		free(path);
		path = NULL;
	}
	return path;
}

/* Takes over path. */
static enum exit_status open_cdev(struct vfio *v, char *path, char **reason)
{
	struct bind_iommufd bind = { .argsz = sizeof(bind) };
	struct attach_iommufd attach = { .argsz = sizeof(attach) };
	struct ioas_alloc alloc = { .size = sizeof(alloc) };

	v->cdev = true;
	v->iommu = open("/dev/iommu", O_RDWR | O_CLOEXEC);
	if (v->iommu < 0) {
		int error = errno;

		free(path);
		return refused(error, xstrdup("/dev/iommu"), reason);
	}
	v->device = open(path, O_RDWR | O_CLOEXEC);
	if (v->device < 0)
		return refused(errno, path, reason);
	free(path);
	bind.iommufd = v->iommu;
	/* EINVAL: another process has bound it. */
	if (ioctl(v->device, BIND_IOMMUFD, &bind))
		return not_viable(v, "VFIO_DEVICE_BIND_IOMMUFD", errno == EINVAL ? EBUSY : errno,
				  reason);
	if (ioctl(v->iommu, IOAS_ALLOC, &alloc)) {
		*reason = xasprintf("IOMMU_IOAS_ALLOC failed: %s", strerror(errno));
		return EXIT_FAILED;
	}
	v->ioas = attach.pt_id = alloc.out_ioas_id;
	if (ioctl(v->device, ATTACH_IOMMUFD, &attach))
		return not_viable(v, "VFIO_DEVICE_ATTACH_IOMMUFD_PT", errno, reason);
	return EXIT_OK;
}

static enum exit_status open_group(struct vfio *v, const char *address, char **reason)
{
	struct vfio_group_status status = { .argsz = sizeof(status) };
	char *path;

	v->cdev = false;
	if (v->iommu_group < 0) {
		*reason = xstrdup("no IOMMU group; check that the host has an IOMMU and that it is on");
		return EXIT_REFUSED;
	}
	path = xasprintf("/dev/vfio/%d", v->iommu_group);
	v->group = open(path, O_RDWR | O_CLOEXEC);
	if (v->group < 0)
		return refused(errno, path, reason);
	free(path);
	v->iommu = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
	if (v->iommu < 0)
		return refused(errno, xstrdup("/dev/vfio/vfio"), reason);
	if (ioctl(v->iommu, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU) <= 0) {
		*reason = xstrdup("vfio has no type1 IOMMU driver; load the module "
				  "vfio_iommu_type1");
		return EXIT_FAILED;
	}
	if (ioctl(v->group, VFIO_GROUP_GET_STATUS, &status) ||
	    !(status.flags & VFIO_GROUP_FLAGS_VIABLE))
		return not_viable(v, "VFIO_GROUP_GET_STATUS", EBUSY, reason);
	if (ioctl(v->group, VFIO_GROUP_SET_CONTAINER, &v->iommu))
		return not_viable(v, "VFIO_GROUP_SET_CONTAINER", errno, reason);
	if (ioctl(v->iommu, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU))
		return not_viable(v, "VFIO_SET_IOMMU", errno, reason);
	v->device = ioctl(v->group, VFIO_GROUP_GET_DEVICE_FD, address);
	if (v->device < 0)
		return not_viable(v, "VFIO_GROUP_GET_DEVICE_FD", errno, reason);
	return EXIT_OK;
}

enum exit_status vfio_open(struct host *h, struct vfio *v, const char *address, int iommu_group,
			   char **reason)
{
	struct vfio_device_info info = { .argsz = sizeof(info) };
	char *path = cdev_path(h, address);
	enum exit_status status;

	v->iommu_group = iommu_group;
	v->device = v->group = v->iommu = -1;
	*reason = NULL;
	/* A user may have access only to the group. */
	if (path && (!access("/dev/iommu", R_OK | W_OK) || v->iommu_group < 0) &&
	    !access(path, R_OK | W_OK)) {
		status = open_cdev(v, path, reason);
	} else {
		free(path);
		status = open_group(v, address, reason);
	}
	if (!status && ioctl(v->device, VFIO_DEVICE_GET_INFO, &info)) {
		*reason = xasprintf("VFIO_DEVICE_GET_INFO failed: %s", strerror(errno));
		status = EXIT_FAILED;
	}
	v->can_reset = !status && (info.flags & VFIO_DEVICE_FLAGS_RESET);
	if (status)
		vfio_close(v);
	return status;
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

/* To be freed; NULL leaves errno. */
static struct vfio_region_info *region_info(struct vfio *v, unsigned int index)
{
	size_t size = sizeof(struct vfio_region_info);
	struct vfio_region_info *info = xcalloc(1, size);

	for (;;) {
		info->argsz = size;
		info->index = index;
		if (ioctl(v->device, VFIO_DEVICE_GET_REGION_INFO, info)) {
			free(info);
			return NULL;
		}
		if (info->argsz <= size)
			return info;
		/* argsz is the size with the capabilities. */
		size = info->argsz;
		info = xrealloc(info, size);
		memset(info, 0, size);
	}
}

/*
 * Bytes from offset 0 that the sparse mmap capability lets map; 0 without one.
 */
static uint64_t sparse_size(const struct vfio_region_info *info)
{
	const struct vfio_region_info_cap_sparse_mmap *sparse;
	const char *bytes = (const char *)info;
	uint32_t at = info->flags & VFIO_REGION_INFO_FLAG_CAPS ? info->cap_offset : 0;

	while (at && at + sizeof(struct vfio_info_cap_header) <= info->argsz) {
		sparse = (const void *)(bytes + at);
		if (sparse->header.id == VFIO_REGION_INFO_CAP_SPARSE_MMAP)
			return at + sizeof(*sparse) + sizeof(sparse->areas[0]) <= info->argsz &&
			       sparse->nr_areas && !sparse->areas[0].offset ?
			       sparse->areas[0].size : 0;
		at = sparse->header.next;
	}
	return 0;
}

int vfio_region(struct vfio *v, unsigned int index, struct vfio_region *region)
{
	struct vfio_region_info *info = region_info(v, index);

	*region = (struct vfio_region){ };
	if (!info)
		return -errno;
	region->offset = info->offset;
	region->size = info->size;
	if (info->flags & VFIO_REGION_INFO_FLAG_MMAP)
		region->sparse = sparse_size(info);
	free(info);
	return 0;
}

int vfio_config(struct vfio *v, uint64_t *offset, uint64_t *size)
{
	struct vfio_region region;

	if (vfio_region(v, VFIO_PCI_CONFIG_REGION_INDEX, &region) || !region.size)
		return -EIO;
	*offset = region.offset;
	*size = region.size;
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

int vfio_dma_unmap(struct vfio *v, uint64_t length, uint64_t iova)
{
	struct ioas_unmap ioas = {
		.size = sizeof(ioas), .ioas_id = v->ioas, .iova = iova, .length = length,
	};
	struct vfio_iommu_type1_dma_unmap type1 = {
		.argsz = sizeof(type1), .iova = iova, .size = length,
	};

	if (v->cdev)
		return ioctl(v->iommu, IOAS_UNMAP, &ioas) ? -errno : 0;
	return ioctl(v->iommu, VFIO_IOMMU_UNMAP_DMA, &type1) ? -errno : 0;
}

int vfio_reset(struct vfio *v)
{
	return ioctl(v->device, VFIO_DEVICE_RESET) ? -errno : 0;
}

int vfio_read(struct vfio *v, uint64_t at, void *data, size_t length)
{
	size_t done = 0;
	ssize_t n;

	while (done < length) {
		n = pread(v->device, (char *)data + done, length - done, at + done);
		if (n <= 0)
			return n ? -errno : -EIO;
		done += n;
	}
	return 0;
}

int vfio_write(struct vfio *v, uint64_t at, const void *data, size_t length)
{
	size_t done = 0;
	ssize_t n;

	while (done < length) {
		n = pwrite(v->device, (const char *)data + done, length - done, at + done);
		if (n <= 0)
			return n ? -errno : -EIO;
		done += n;
	}
	return 0;
}
