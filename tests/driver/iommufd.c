// SPDX-License-Identifier: GPL-2.0-only
/*
 * GPU memory in an I/O address space of iommufd, by dma-bufs, as QEMU maps it for a
 * guest's other devices. The emulated virtio-iommu announces only mappings of RAM to a
 * device, so the tests read the kernel's IOMMU tracepoints. Needs iommufd.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib.h"
#include "system/iommufd.h"

#define IOVA	0x100000000ULL

/* Newer than the headers here: maps the memory of a memfd or a dma-buf. */
struct map_file {
	uint32_t size;
	uint32_t flags;
	uint32_t ioas_id;
	int32_t fd;
	uint64_t start;
	uint64_t length;
	uint64_t iova;
};

#define IOAS_MAP_FILE	_IO(';', 0x8f)

/* They share /dev/iommu and its I/O address space. */
static struct vfio first, second;

static int map_file(uint64_t iova, int fd, uint64_t start, uint64_t length)
{
	struct map_file map = {
		.size = sizeof(map),
		.flags = IOAS_FIXED_IOVA | IOAS_READABLE | IOAS_WRITEABLE,
		.ioas_id = first.ioas,
		.fd = fd,
		.start = start,
		.length = length,
		.iova = iova,
	};

	return ioctl(first.iommu, IOAS_MAP_FILE, &map) ? -errno : 0;
}

static void unmap(uint64_t iova, uint64_t length)
{
	assert_int_equal(vfio_dma_unmap(&first, length, iova), length);
}

#define TRACING	"/sys/kernel/tracing/"

/* Clears the trace. */
static void trace_anew(void)
{
	must_write_file(TRACING "trace", "\n");
}

/*
 * Returns the physical address that the kernel last mapped at @iova since
 * trace_anew(), or 0 if it unmapped it last, or did neither.
 */
static uint64_t mapped_at(uint64_t iova)
{
	unsigned long long start, end, phys, found = 0;
	FILE *f = fopen(TRACING "trace", "r");
	char line[512], *at;

	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		at = strstr(line, "map: IOMMU: iova=");
		if (!at || sscanf(at, "map: IOMMU: iova=%llx - %llx paddr=%llx",
				  &start, &end, &phys) < 2 ||
		    iova < start || iova >= end)
			continue;
		found = strstr(line, " unmap: ") ? 0 : phys + iova - start;
	}
	fclose(f);
	return found;
}

/* The first one is attached to the address space. */
static int setup(void **state)
{
	cdev_start(&first, "second");
	cdev_open_iommu(&first);
	assert_true(cdev_bind(&first) > 0);
	assert_int_equal(cdev_attach(&first), 0);
	cdev_start(&second, "gh200");
	second.iommu = first.iommu;
	second.ioas = first.ioas;
	assert_true(cdev_bind(&second) > 0);
	must_write_file(TRACING "events/iommu/map/enable", "1");
	must_write_file(TRACING "events/iommu/unmap/enable", "1");
	return 0;
}

static int teardown(void **state)
{
	must_write_file(TRACING "events/iommu/map/enable", "0");
	must_write_file(TRACING "events/iommu/unmap/enable", "0");
	return 0;
}

static void both_parts_of_another_gpu_are_mapped_by_dma_bufs(void **state)
{
	static const unsigned int indexes[] = { USEMEM, RESMEM };
	struct dma_range range = { 8 * page, 16 * page };
	const struct gpu *gpu = second.gpu;
	size_t i;
	int fd;

	for (i = 0; i < 2; i++) {
		uint64_t phys = gpu->base + 8 * page +
				(i ? gpu->size - 1280 * MiB : 0);

		fd = vfio_dma_buf(&second, indexes[i], 0, 1, &range);
		if (fd < 0)
			fail_msg("exporting: %s", strerror(-fd));
		/* All of it, and a part. */
		trace_anew();
		assert_int_equal(map_file(IOVA, fd, 0, 16 * page), 0);
		assert_int_equal(map_file(IOVA + GiB, fd, 2 * page, page), 0);
		close(fd);
		assert_int_equal(mapped_at(IOVA), phys);
		assert_int_equal(mapped_at(IOVA + 16 * page - 1),
				 phys + 16 * page - 1);
		assert_int_equal(mapped_at(IOVA + 16 * page), 0);
		assert_int_equal(mapped_at(IOVA + GiB), phys + 2 * page);
		assert_int_equal(mapped_at(IOVA + GiB + page), 0);
		unmap(IOVA, 16 * page);
		unmap(IOVA + GiB, page);
		assert_int_equal(mapped_at(IOVA), 0);
	}
}

static void a_reset_of_the_exporter_ends_the_mapping(void **state)
{
	struct dma_range range = { 0, 4 * page };
	int fd, i;

	for (i = 0; i < 2; i++) {
		fd = vfio_dma_buf(&second, USEMEM, 0, 1, &range);
		assert_true(fd >= 0);
		trace_anew();
		assert_int_equal(map_file(IOVA, fd, 0, 4 * page), 0);
		assert_int_equal(mapped_at(IOVA), second.gpu->base);
		assert_int_equal(vfio_reset(&second), 0);
		assert_int_equal(mapped_at(IOVA), 0);
		/* The mapping does not come back by itself. */
		unmap(IOVA, 4 * page);
		assert_int_equal(map_file(IOVA, fd, 0, 4 * page), 0);
		assert_int_equal(mapped_at(IOVA), second.gpu->base);
		unmap(IOVA, 4 * page);
		close(fd);
	}
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(both_parts_of_another_gpu_are_mapped_by_dma_bufs),
	cmocka_unit_test(a_reset_of_the_exporter_ends_the_mapping),
};

const struct case_group groups[] = {
	{ "pages lab module:iommufd CONFIG_VFIO_PCI_DMABUF", CASES(tests), setup, teardown, true },
	{ }
};
