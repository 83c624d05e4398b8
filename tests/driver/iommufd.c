// SPDX-License-Identifier: GPL-2.0-only
/*
 * The device through its device file and iommufd, which QEMU and libvirt use if
 * the kernel has them: opening, DMA, GPU memory in an I/O address space,
 * resets. The model does the DMA, but not to GPU memory: the emulated
 * virtio-iommu announces only mappings of RAM to a device. For GPU memory, the
 * tests read the kernel's IOMMU tracepoints. Needs iommufd.
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
static int first_id;

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

/* DMA by the model, of up to 64 bytes; false if the address is not mapped. */
static bool device_reads(const struct vfio *v, uint64_t iova, void *buf,
			 size_t count)
{
	unsigned char *p = buf;
	char answer[256];
	size_t i;

	if (!host_try(answer, sizeof(answer), "dma_read %s %#llx %zu",
		      v->gpu->name, (unsigned long long)iova, count))
		return false;
	assert_int_equal(strlen(answer), 2 * count);
	for (i = 0; i < count; i++) {
		unsigned int byte;

		if (sscanf(answer + 2 * i, "%2x", &byte) != 1)
			fail_msg("%s is not in hexadecimal", answer);
		p[i] = byte;
	}
	return true;
}

static bool device_writes(const struct vfio *v, uint64_t iova,
			  const void *buf, size_t count)
{
	const unsigned char *p = buf;
	char text[129], answer[256];
	size_t i;

	assert_true(count <= 64);
	for (i = 0; i < count; i++)
		sprintf(text + 2 * i, "%02x", p[i]);
	return host_try(answer, sizeof(answer), "dma_write %s %#llx %s",
			v->gpu->name, (unsigned long long)iova, text);
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

static void start_second(void)
{
	cdev_start(&second, "gh200");
	second.iommu = first.iommu;
	second.ioas = first.ioas;
	assert_true(cdev_bind(&second) > 0);
}

/* The first one is attached to the address space. */
static int setup(void **state)
{
	cdev_start(&first, "second");
	cdev_open_iommu(&first);
	first_id = cdev_bind(&first);
	assert_true(first_id > 0);
	start_second();
	assert_int_equal(cdev_attach(&first), 0);
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

static int clean_up(void **state)
{
	vfio_dma_unmap(&first, UINT64_MAX, 0);
	return 0;
}

static void the_group_is_taken_while_the_device_file_is_bound(void **state)
{
	int fd, group = gpu_group(first.gpu);
	char path[64];

	assert_true(group >= 0);
	snprintf(path, sizeof(path), "/dev/vfio/%d", group);
	fd = open(path, O_RDWR);
	assert_true(fd < 0);
	assert_int_equal(errno, EBUSY);
}

static void the_devices_dma_reaches_ordinary_memory(void **state)
{
	char *memory = mmap(NULL, 4 * page, RW, MAP_SHARED | MAP_ANONYMOUS, -1,
			    0);
	char back[32];

	assert_true(memory != MAP_FAILED);
	strcpy(memory + page, "from the program");
	assert_false(device_reads(&first, IOVA + page, back, 17));
	assert_int_equal(vfio_dma_map(&first, memory, 4 * page, IOVA, true), 0);
	assert_true(device_reads(&first, IOVA + page, back, 17));
	assert_string_equal(back, "from the program");
	assert_true(device_writes(&first, IOVA + 2 * page, "from the device", 16));
	assert_string_equal(memory + 2 * page, "from the device");
	/* The other one isn't attached. */
	assert_false(device_reads(&second, IOVA, back, 16));
	unmap(IOVA, 4 * page);
	assert_false(device_reads(&first, IOVA + page, back, 16));
	munmap(memory, 4 * page);
}

static void detached_it_reaches_nothing(void **state)
{
	char *memory = mmap(NULL, page, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char back[8];

	assert_true(memory != MAP_FAILED);
	strcpy(memory, "again");
	assert_int_equal(vfio_dma_map(&first, memory, page, IOVA, true), 0);
	assert_int_equal(cdev_detach(&first), 0);
	assert_false(device_reads(&first, IOVA, back, 6));
	assert_int_equal(cdev_attach(&first), 0);
	assert_true(device_reads(&first, IOVA, back, 6));
	assert_string_equal(back, "again");
	unmap(IOVA, page);
	munmap(memory, page);
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

static void beyond_the_dma_buf_nothing_is_mapped(void **state)
{
	struct dma_range ranges[] = { { 0, 4 * page }, { 8 * page, page } };
	int fd = vfio_dma_buf(&second, USEMEM, 0, 1, ranges);

	assert_true(fd >= 0);
	assert_true(map_file(IOVA, fd, 0, 5 * page) < 0);
	assert_true(map_file(IOVA, fd, 4 * page, page) < 0);
	close(fd);
	/* iommufd doesn't support several ranges yet. */
	fd = vfio_dma_buf(&second, USEMEM, 0, 2, ranges);
	assert_true(fd >= 0);
	assert_int_equal(map_file(IOVA, fd, 0, 5 * page), -EOPNOTSUPP);
	close(fd);
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

static void closing_the_exporter_ends_the_mapping(void **state)
{
	struct dma_range range = { 0, 4 * page };
	int fd = vfio_dma_buf(&second, RESMEM, 0, 1, &range);

	assert_true(fd >= 0);
	trace_anew();
	assert_int_equal(map_file(IOVA, fd, 0, 4 * page), 0);
	assert_true(mapped_at(IOVA) != 0);
	close(second.device);
	assert_int_equal(mapped_at(IOVA), 0);
	unmap(IOVA, 4 * page);
	assert_true(map_file(IOVA, fd, 0, 4 * page) < 0);
	close(fd);
	start_second();
}

static void two_gpus_share_an_address_space(void **state)
{
	char *memory = mmap(NULL, page, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char back[8];

	assert_true(memory != MAP_FAILED);
	assert_int_equal(vfio_dma_map(&first, memory, page, IOVA, true), 0);
	assert_int_equal(cdev_attach(&second), 0);
	assert_true(device_writes(&first, IOVA, "shared", 7));
	assert_true(device_reads(&second, IOVA, back, 7));
	assert_string_equal(back, "shared");
	assert_int_equal(cdev_detach(&second), 0);
	unmap(IOVA, page);
	munmap(memory, page);
}

/* A bound device file proves ownership, so there is no group to show. */
static int hot_reset(struct vfio *v)
{
	struct vfio_pci_hot_reset reset = { .argsz = sizeof(reset) };

	return ioctl(v->device, VFIO_DEVICE_PCI_HOT_RESET, &reset) ? -errno : 0;
}

static void a_hot_reset_is_a_reset(void **state)
{
	union {
		struct vfio_pci_hot_reset_info info;
		char bytes[256];
	} u = { .info = { .argsz = sizeof(u) } };
	uint64_t bar = 0x4000000000ULL, resets, begin;
	char *map = vfio_map(&first, USEMEM, 0, page, RW, MAP_SHARED, NULL);

	if (ioctl(first.device, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, &u))
		fail_msg("VFIO_DEVICE_GET_PCI_HOT_RESET_INFO: %s",
			 strerror(errno));
	assert_true(u.info.flags & VFIO_PCI_HOT_RESET_FLAG_DEV_ID);
	assert_true(u.info.flags & VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED);
	assert_int_equal(u.info.count, 1);
	assert_int_equal(u.info.devices[0].devid, first_id);

	strcpy(map, "kept");
	assert_int_equal(vfio_write(&first, CONFIG + 0x20, &bar, 8), 8);
	vfio_bar0_write(&first, MODEL_RESET_DELAY, 1000);
	resets = host_counter(first.gpu, "device_reset");
	begin = now_ms();
	assert_int_equal(hot_reset(&first), 0);
	assert_int_equal(host_counter(first.gpu, "device_reset"), resets + 1);
	assert_int_equal(vfio_read(&first, CONFIG + 0x20, &bar, 8), 8);
	assert_int_equal(bar, 0xc);
	assert_string_equal(map, "kept");
	assert_waited(begin, 1000);
	vfio_bar0_write(&first, MODEL_RESET_DELAY, 0);
	munmap(map, page);
}

/* The kernel never resets the bus of devices with a GH200's ids. */
static void a_hot_reset_of_a_gh200_is_refused(void **state)
{
	uint64_t resets = host_counter(second.gpu, "resets");

	assert_true(hot_reset(&second) < 0);
	assert_int_equal(host_counter(second.gpu, "resets"), resets);
	assert_int_equal(read_a_byte(&second), 1);
}

#define TEST(name) cmocka_unit_test_teardown(name, clean_up)

static const struct CMUnitTest tests[] = {
	TEST(the_group_is_taken_while_the_device_file_is_bound),
	TEST(the_devices_dma_reaches_ordinary_memory),
	TEST(detached_it_reaches_nothing),
	TEST(two_gpus_share_an_address_space),
	TEST(a_hot_reset_is_a_reset),
	TEST(a_hot_reset_of_a_gh200_is_refused),
};

/* Where vfio-pci exports dma-bufs. */
static const struct CMUnitTest tests_of_dma_bufs[] = {
	TEST(both_parts_of_another_gpu_are_mapped_by_dma_bufs),
	TEST(beyond_the_dma_buf_nothing_is_mapped),
	TEST(a_reset_of_the_exporter_ends_the_mapping),
	TEST(closing_the_exporter_ends_the_mapping),
};

const struct case_group groups[] = {
	{ "pages lab module:iommufd", CASES(tests), setup, teardown, true },
	{ "pages lab module:iommufd CONFIG_VFIO_PCI_DMABUF",
	  CASES(tests_of_dma_bufs), setup, teardown, true },
	{ }
};
