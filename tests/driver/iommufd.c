// SPDX-License-Identifier: GPL-2.0-only
/*
 * The device through its device file and iommufd, which QEMU and libvirt use if
 * the kernel has them: opening, DMA, GPU memory in an I/O address space,
 * resets. The model does the DMA, but not to GPU memory: the emulated
 * virtio-iommu announces only mappings of RAM to a device. For GPU memory, the
 * tests read the kernel's IOMMU tracepoints. Needs arm64, and
 * iommufd.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/iommufd.h>

#include "lib.h"

#define RW	(PROT_READ | PROT_WRITE)
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

#define IOAS_MAP_FILE	_IO(IOMMUFD_TYPE, 0x8f)

/* A device without group and container; lib.c uses only its device file. */
struct cdev {
	struct vfio v;
	uint32_t id;
};

static struct cdev first, second;
static int iommu = -1;
static uint32_t ioas;
static size_t page;

static void cdev_open(struct cdev *c, const char *name)
{
	const struct gpu *gpu = gpu_find(name);
	int ret = gpu_bound(gpu) ? 0 : gpu_bind(gpu);

	if (ret)
		fail_msg("binding %s: %s", name, strerror(-ret));
	*c = (struct cdev){ .v = VFIO_CLOSED };
	c->v.gpu = gpu;
	c->v.device = open(vfio_cdev_path(gpu), O_RDWR | O_CLOEXEC);
	if (c->v.device < 0)
		fail_msg("the device file of %s: %s", name, strerror(errno));
}

static int cdev_bind(struct cdev *c)
{
	struct vfio_device_bind_iommufd bind = {
		.argsz = sizeof(bind),
		.iommufd = iommu,
	};

	if (ioctl(c->v.device, VFIO_DEVICE_BIND_IOMMUFD, &bind))
		return -errno;
	c->id = bind.out_devid;
	return 0;
}

static int cdev_attach(struct cdev *c, uint32_t id)
{
	struct vfio_device_attach_iommufd_pt attach = {
		.argsz = sizeof(attach),
		.pt_id = id,
	};

	return ioctl(c->v.device, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach) ?
	       -errno : 0;
}

static int cdev_detach(struct cdev *c)
{
	struct vfio_device_detach_iommufd_pt detach = { .argsz = sizeof(detach) };

	return ioctl(c->v.device, VFIO_DEVICE_DETACH_IOMMUFD_PT, &detach) ?
	       -errno : 0;
}

static int map_memory(uint64_t iova, void *memory, uint64_t length)
{
	struct iommu_ioas_map map = {
		.size = sizeof(map),
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE |
			 IOMMU_IOAS_MAP_WRITEABLE,
		.ioas_id = ioas,
		.user_va = (uintptr_t)memory,
		.length = length,
		.iova = iova,
	};

	return ioctl(iommu, IOMMU_IOAS_MAP, &map) ? -errno : 0;
}

static int map_file(uint64_t iova, int fd, uint64_t start, uint64_t length)
{
	struct map_file map = {
		.size = sizeof(map),
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE |
			 IOMMU_IOAS_MAP_WRITEABLE,
		.ioas_id = ioas,
		.fd = fd,
		.start = start,
		.length = length,
		.iova = iova,
	};

	return ioctl(iommu, IOAS_MAP_FILE, &map) ? -errno : 0;
}

static int unmap(uint64_t iova, uint64_t length)
{
	struct iommu_ioas_unmap unmap = {
		.size = sizeof(unmap),
		.ioas_id = ioas,
		.iova = iova,
		.length = length,
	};

	return ioctl(iommu, IOMMU_IOAS_UNMAP, &unmap) ? -errno : 0;
}

/* DMA by the model, of up to 64 bytes; false if the address is not mapped. */
static bool device_reads(const struct cdev *c, uint64_t iova, void *buf,
			 size_t count)
{
	unsigned char *p = buf;
	char answer[256];
	size_t i;

	if (!host_try(answer, sizeof(answer), "dma_read %s %#llx %zu",
		      c->v.gpu->name, (unsigned long long)iova, count))
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

static bool device_writes(const struct cdev *c, uint64_t iova,
			  const void *buf, size_t count)
{
	const unsigned char *p = buf;
	char text[129], answer[256];
	size_t i;

	assert_true(count <= 64);
	for (i = 0; i < count; i++)
		sprintf(text + 2 * i, "%02x", p[i]);
	return host_try(answer, sizeof(answer), "dma_write %s %#llx %s",
			c->v.gpu->name, (unsigned long long)iova, text);
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

/*
 * Two GPUs with device files and one I/O address space, to which the first is
 * attached.
 */
static int setup(void **state)
{
	struct iommu_ioas_alloc alloc = { .size = sizeof(alloc) };

	page = sysconf(_SC_PAGESIZE);
	iommu = open("/dev/iommu", O_RDWR | O_CLOEXEC);
	if (iommu < 0)
		fail_msg("/dev/iommu: %s", strerror(errno));
	assert_int_equal(ioctl(iommu, IOMMU_IOAS_ALLOC, &alloc), 0);
	ioas = alloc.out_ioas_id;
	cdev_open(&first, "second");
	cdev_open(&second, "gh200");
	assert_int_equal(cdev_bind(&first), 0);
	assert_int_equal(cdev_bind(&second), 0);
	assert_int_equal(cdev_attach(&first, ioas), 0);
	must_write_file(TRACING "events/iommu/map/enable", "1");
	must_write_file(TRACING "events/iommu/unmap/enable", "1");
	return 0;
}

static int teardown(void **state)
{
	close(first.v.device);
	close(second.v.device);
	close(iommu);
	gpu_unbind_all();
	must_write_file(TRACING "events/iommu/map/enable", "0");
	must_write_file(TRACING "events/iommu/unmap/enable", "0");
	return 0;
}

static int clean_up(void **state)
{
	unmap(0, UINT64_MAX);
	return 0;
}

static void the_group_is_taken_while_the_device_file_is_bound(void **state)
{
	int fd, group = gpu_group(first.v.gpu);
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
	assert_int_equal(map_memory(IOVA, memory, 4 * page), 0);
	assert_true(device_reads(&first, IOVA + page, back, 17));
	assert_string_equal(back, "from the program");
	assert_true(device_writes(&first, IOVA + 2 * page, "from the device", 16));
	assert_string_equal(memory + 2 * page, "from the device");
	/* The other one isn't attached. */
	assert_false(device_reads(&second, IOVA, back, 16));
	assert_int_equal(unmap(IOVA, 4 * page), 0);
	assert_false(device_reads(&first, IOVA + page, back, 16));
	munmap(memory, 4 * page);
}

static void detached_it_reaches_nothing(void **state)
{
	char *memory = mmap(NULL, page, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char back[8];

	assert_true(memory != MAP_FAILED);
	strcpy(memory, "again");
	assert_int_equal(map_memory(IOVA, memory, page), 0);
	assert_int_equal(cdev_detach(&first), 0);
	assert_false(device_reads(&first, IOVA, back, 6));
	assert_int_equal(cdev_attach(&first, ioas), 0);
	assert_true(device_reads(&first, IOVA, back, 6));
	assert_string_equal(back, "again");
	assert_int_equal(unmap(IOVA, page), 0);
	munmap(memory, page);
}

static void both_parts_of_another_gpu_are_mapped_by_dma_bufs(void **state)
{
	static const unsigned int indexes[] = { USEMEM, RESMEM };
	struct dma_range range = { 8 * page, 16 * page };
	const struct gpu *gpu = second.v.gpu;
	size_t i;
	int fd;

	for (i = 0; i < 2; i++) {
		uint64_t phys = gpu->base + 8 * page +
				(i ? gpu->size - 1280 * MiB : 0);

		fd = vfio_dma_buf(&second.v, indexes[i], 0, 1, &range);
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
		assert_int_equal(unmap(IOVA, 16 * page), 0);
		assert_int_equal(unmap(IOVA + GiB, page), 0);
		assert_int_equal(mapped_at(IOVA), 0);
	}
}

static void beyond_the_dma_buf_nothing_is_mapped(void **state)
{
	struct dma_range ranges[] = { { 0, 4 * page }, { 8 * page, page } };
	int fd = vfio_dma_buf(&second.v, USEMEM, 0, 1, ranges);

	assert_true(fd >= 0);
	assert_true(map_file(IOVA, fd, 0, 5 * page) < 0);
	assert_true(map_file(IOVA, fd, 4 * page, page) < 0);
	close(fd);
	/* iommufd doesn't support several ranges yet. */
	fd = vfio_dma_buf(&second.v, USEMEM, 0, 2, ranges);
	assert_true(fd >= 0);
	assert_int_equal(map_file(IOVA, fd, 0, 5 * page), -EOPNOTSUPP);
	close(fd);
}

static void a_reset_of_the_exporter_ends_the_mapping(void **state)
{
	struct dma_range range = { 0, 4 * page };
	int fd, i;

	for (i = 0; i < 2; i++) {
		fd = vfio_dma_buf(&second.v, USEMEM, 0, 1, &range);
		assert_true(fd >= 0);
		trace_anew();
		assert_int_equal(map_file(IOVA, fd, 0, 4 * page), 0);
		assert_int_equal(mapped_at(IOVA), second.v.gpu->base);
		assert_int_equal(vfio_reset(&second.v), 0);
		assert_int_equal(mapped_at(IOVA), 0);
		/* The mapping does not come back by itself. */
		assert_int_equal(unmap(IOVA, 4 * page), 0);
		assert_int_equal(map_file(IOVA, fd, 0, 4 * page), 0);
		assert_int_equal(mapped_at(IOVA), second.v.gpu->base);
		assert_int_equal(unmap(IOVA, 4 * page), 0);
		close(fd);
	}
}

static void closing_the_exporter_ends_the_mapping(void **state)
{
	struct dma_range range = { 0, 4 * page };
	int fd = vfio_dma_buf(&second.v, RESMEM, 0, 1, &range);

	assert_true(fd >= 0);
	trace_anew();
	assert_int_equal(map_file(IOVA, fd, 0, 4 * page), 0);
	assert_true(mapped_at(IOVA) != 0);
	close(second.v.device);
	assert_int_equal(mapped_at(IOVA), 0);
	assert_int_equal(unmap(IOVA, 4 * page), 0);
	assert_true(map_file(IOVA, fd, 0, 4 * page) < 0);
	close(fd);
	cdev_open(&second, "gh200");
	assert_int_equal(cdev_bind(&second), 0);
}

static void two_gpus_share_an_address_space(void **state)
{
	char *memory = mmap(NULL, page, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char back[8];

	assert_true(memory != MAP_FAILED);
	assert_int_equal(map_memory(IOVA, memory, page), 0);
	assert_int_equal(cdev_attach(&second, ioas), 0);
	assert_true(device_writes(&first, IOVA, "shared", 7));
	assert_true(device_reads(&second, IOVA, back, 7));
	assert_string_equal(back, "shared");
	assert_int_equal(cdev_detach(&second), 0);
	assert_int_equal(unmap(IOVA, page), 0);
	munmap(memory, page);
}

/* A bound device file proves ownership, so there is no group to show. */
static int hot_reset(struct cdev *c)
{
	struct vfio_pci_hot_reset reset = { .argsz = sizeof(reset) };

	return ioctl(c->v.device, VFIO_DEVICE_PCI_HOT_RESET, &reset) ? -errno : 0;
}

static void a_hot_reset_is_a_reset(void **state)
{
	union {
		struct vfio_pci_hot_reset_info info;
		char bytes[256];
	} u = { .info = { .argsz = sizeof(u) } };
	uint64_t bar = 0x4000000000ULL, resets, begin;
	char *map = vfio_map(&first.v, USEMEM, 0, page, RW, MAP_SHARED, NULL);

	if (ioctl(first.v.device, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, &u))
		fail_msg("VFIO_DEVICE_GET_PCI_HOT_RESET_INFO: %s",
			 strerror(errno));
	assert_true(u.info.flags & VFIO_PCI_HOT_RESET_FLAG_DEV_ID);
	assert_true(u.info.flags & VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED);
	assert_int_equal(u.info.count, 1);
	assert_int_equal(u.info.devices[0].devid, first.id);

	strcpy(map, "kept");
	assert_int_equal(vfio_write(&first.v, CONFIG + 0x20, &bar, 8), 8);
	vfio_bar0_write(&first.v, MODEL_RESET_DELAY, 1000);
	resets = host_counter(first.v.gpu, "device_reset");
	begin = now_ms();
	assert_int_equal(hot_reset(&first), 0);
	assert_int_equal(host_counter(first.v.gpu, "device_reset"), resets + 1);
	assert_int_equal(vfio_read(&first.v, CONFIG + 0x20, &bar, 8), 8);
	assert_int_equal(bar, 0xc);
	assert_string_equal(map, "kept");
	assert_waited(begin, 1000);
	vfio_bar0_write(&first.v, MODEL_RESET_DELAY, 0);
	munmap(map, page);
}

/* The kernel never resets the bus of devices with a GH200's ids. */
static void a_hot_reset_of_a_gh200_is_refused(void **state)
{
	uint64_t resets = host_counter(second.v.gpu, "resets");
	char byte;

	assert_true(hot_reset(&second) < 0);
	assert_int_equal(host_counter(second.v.gpu, "resets"), resets);
	assert_int_equal(vfio_read(&second.v, REGION(USEMEM), &byte, 1), 1);
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
	{ "lab CONFIG_ARM64 module:iommufd", CASES(tests), setup, teardown },
	{ "lab CONFIG_ARM64 module:iommufd CONFIG_VFIO_PCI_DMABUF",
	  CASES(tests_of_dma_bufs), setup, teardown },
	{ }
};
