// SPDX-License-Identifier: GPL-2.0-only
/*
 * A small client of vfio: see vfio.h.
 *
 * The structures of iommufd are spelled out here: the headers of the oldest systems that this
 * program is built on (Linux 6.1's) don't have them, and they are ABI.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vfio.h"

#define DEVICES "/sys/bus/pci/devices"

/* ---- iommufd's ABI ------------------------------------------------------ */

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

enum { IOAS_FIXED_IOVA = 1, IOAS_WRITEABLE = 2, IOAS_READABLE = 4 };

#define BIND_IOMMUFD _IO(VFIO_TYPE, VFIO_BASE + 18)
#define ATTACH_IOMMUFD _IO(VFIO_TYPE, VFIO_BASE + 19)
#define IOAS_ALLOC _IO(';', 0x81)
#define IOAS_MAP _IO(';', 0x85)
#define IOAS_UNMAP _IO(';', 0x86)

/* ---- opening ------------------------------------------------------------ */

/* What a file that can't be opened means; takes over path. */
static enum exit_status refused(int error, char *path, char **reason)
{
	enum exit_status status = EXIT_FAILED;

	switch (error) {
	case EBUSY:
		status = EXIT_REFUSED;
		*reason = xasprintf("in use: %s is open elsewhere; shut down what has it", path);
		break;
	case EACCES:
	case EPERM:
		status = EXIT_NOT_ROOT;
		*reason = xasprintf("can't open %s: %s; run it by sudo, or get access to that file",
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

/* Whether a group's or a device's being claimed by others was the error. */
static enum exit_status not_viable(struct vfio *v, const char *step, int error, char **reason)
{
	if (error == EBUSY || error == EPERM) {
		*reason = xasprintf("in use, or another device of its IOMMU group %d has a driver "
				    "other than vfio's (%s: %s); see \"ls /sys/kernel/iommu_groups/"
				    "%d/devices\"", v->gpu->iommu_group, step, strerror(error),
				    v->gpu->iommu_group);
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
	/* EINVAL: in this way a device is opened but once. */
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

static enum exit_status open_group(struct vfio *v, char **reason)
{
	struct vfio_group_status status = { .argsz = sizeof(status) };
	char *path;

	v->cdev = false;
	if (v->gpu->iommu_group < 0) {
		*reason = xstrdup("it has no IOMMU group: this host has no IOMMU, or it is off");
		return EXIT_REFUSED;
	}
	path = xasprintf("/dev/vfio/%d", v->gpu->iommu_group);
	v->group = open(path, O_RDWR | O_CLOEXEC);
	if (v->group < 0)
		return refused(errno, path, reason);
	free(path);
	v->iommu = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
	if (v->iommu < 0)
		return refused(errno, xstrdup("/dev/vfio/vfio"), reason);
	if (ioctl(v->iommu, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU) <= 0) {
		*reason = xstrdup("the kernel has no type1 IOMMU driver for vfio; load the module "
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
	v->device = ioctl(v->group, VFIO_GROUP_GET_DEVICE_FD, v->gpu->address);
	if (v->device < 0)
		return not_viable(v, "VFIO_GROUP_GET_DEVICE_FD", errno, reason);
	return EXIT_OK;
}

enum exit_status vfio_open(struct host *h, struct vfio *v, char **reason)
{
	struct vfio_device_info info = { .argsz = sizeof(info) };
	char *path = cdev_path(h, v->gpu->address);
	enum exit_status status;

	v->device = v->group = v->iommu = -1;
	*reason = NULL;
	/* A user may have been given the group alone. */
	if (path && (!access("/dev/iommu", R_OK | W_OK) || v->gpu->iommu_group < 0) &&
	    !access(path, R_OK | W_OK)) {
		status = open_cdev(v, path, reason);
	} else {
		free(path);
		status = open_group(v, reason);
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
	/* The order in which it was opened, turned around. */
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
		/* It says how much it needs for the capabilities. */
		size = info->argsz;
		info = xrealloc(info, size);
		memset(info, 0, size);
	}
}

/* Bytes from offset 0 on that the sparse mmap capability allows to map; 0 without one. */
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

int vfio_find_parts(struct host *h, struct vfio *v)
{
	static const struct {
		const char *name;
		unsigned int bar;
	} bars[] = { { "usemem", VFIO_PCI_BAR4_REGION_INDEX },
		     { "resmem", VFIO_PCI_BAR2_REGION_INDEX } };
	struct vfio_region_info *info;
	struct vfio_part *part;
	uint64_t size;
	size_t i;

	v->count = 0;
	for (i = 0; i < 2; i++) {
		info = region_info(v, bars[i].bar);
		if (!info)
			return -errno;
		size = sparse_size(info) / h->page_size * h->page_size;
		if (size && info->flags & VFIO_REGION_INFO_FLAG_MMAP && size <= info->size) {
			part = &v->parts[v->count++];
			*part = (struct vfio_part){
				.name = bars[i].name, .bar = bars[i].bar, .offset = info->offset,
				.bar_size = info->size, .mappable = size, .size = size,
				.base = i ? v->gpu->resmem_base : v->gpu->usemem_base,
			};
			size = i ? v->gpu->resmem_size : v->gpu->usemem_size;
			part->told = size != GPU_UNKNOWN;
			/* What isn't a whole page can be read and written, but not mapped. */
			if (part->told && size > part->mappable && size <= part->bar_size)
				part->size = size;
		}
		free(info);
	}
	return 0;
}

const struct vfio_part *vfio_part(const struct vfio *v, const char *name)
{
	size_t i;

	for (i = 0; i < v->count; i++)
		if (!strcmp(v->parts[i].name, name))
			return &v->parts[i];
	return NULL;
}

int vfio_config(struct vfio *v, uint64_t *offset, uint64_t *size)
{
	struct vfio_region_info *info = region_info(v, VFIO_PCI_CONFIG_REGION_INDEX);

	if (!info || !info->size) {
		free(info);
		return -EIO;
	}
	*offset = info->offset;
	*size = info->size;
	free(info);
	return 0;
}

/* ---- memory ------------------------------------------------------------- */

#define ALIGNMENT ((uint64_t)1 << 30)

void *vfio_map(struct vfio *v, const struct vfio_part *part, uint64_t offset, uint64_t length,
	       bool writable, uint64_t shift)
{
	uint64_t wanted, physical = (part->base == GPU_UNKNOWN ? 0 : part->base) + offset + shift;
	char *reserved, *at, *map;

	reserved = mmap(NULL, length + ALIGNMENT, PROT_NONE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (reserved == MAP_FAILED)
		return NULL;
	wanted = (physical - (uintptr_t)reserved) % ALIGNMENT;
	at = reserved + wanted;
	map = mmap(at, length, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED | MAP_FIXED,
		   v->device, part->offset + offset);
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

void vfio_unmap(void *map, uint64_t length)
{
	if (map)
		munmap(map, length);
}

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
