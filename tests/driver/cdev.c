// SPDX-License-Identifier: GPL-2.0-only
/*
 * One GPU by its device file and iommufd, as QEMU uses it if the kernel has no
 * type1. iommufd.c has what needs several GPUs, or DMA by the model.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib.h"
#include "system/iommufd.h"

#define RW	(PROT_READ | PROT_WRITE)
#define IOVA	0x100000000ULL

static struct vfio v;
static uint64_t length;

static int bind_file(void)
{
	struct bind_iommufd bind = { .argsz = sizeof(bind), .iommufd = v.iommu };

	return ioctl(v.device, BIND_IOMMUFD, &bind) ? -errno : 0;
}

static int attach(void)
{
	struct attach_iommufd attach = { .argsz = sizeof(attach), .pt_id = v.ioas };

	return ioctl(v.device, ATTACH_IOMMUFD, &attach) ? -errno : 0;
}

static int detach(void)
{
	struct detach_iommufd detach = { .argsz = sizeof(detach) };

	return ioctl(v.device, DETACH_IOMMUFD, &detach) ? -errno : 0;
}

static int map_memory(void *memory)
{
	return vfio_dma_map(&v, memory, length, IOVA, true);
}

/* Opens the file and an I/O address space, and binds neither to the other. */
static int setup(void **state)
{
	struct ioas_alloc alloc = { .size = sizeof(alloc) };
	const struct gpu *gpu = gpu_find("gh200");

	length = 16 * sysconf(_SC_PAGESIZE);
	if (!gpu_bound(gpu))
		assert_int_equal(gpu_bind(gpu), 0);
	v = VFIO_CLOSED;
	v.gpu = gpu;
	v.cdev = true;
	v.iommu = open("/dev/iommu", O_RDWR | O_CLOEXEC);
	assert_return_code(v.iommu, errno);
	v.device = open(vfio_cdev_path(gpu), O_RDWR | O_CLOEXEC);
	assert_return_code(v.device, errno);
	assert_int_equal(ioctl(v.iommu, IOAS_ALLOC, &alloc), 0);
	v.ioas = alloc.out_ioas_id;
	return 0;
}

static int teardown(void **state)
{
	vfio_close(&v);
	gpu_unbind_all();
	return 0;
}

static void before_it_is_bound_it_gives_nothing(void **state)
{
	char byte;
	int err;

	assert_true(vfio_read(&v, REGION(USEMEM), &byte, 1) < 0);
	assert_true(vfio_write(&v, REGION(USEMEM), &byte, 1) < 0);
	vfio_map(&v, USEMEM, 0, length, RW, MAP_SHARED, &err);
	assert_true(err < 0);
	assert_true(vfio_reset(&v) < 0);
	assert_int_equal(bind_file(), 0);
	assert_int_equal(vfio_read(&v, REGION(USEMEM), &byte, 1), 1);
	/* The second bind fails. */
	assert_int_equal(bind_file(), -EINVAL);
}

static void both_parts_are_as_through_the_group(void **state)
{
	static const unsigned int indexes[] = { USEMEM, RESMEM };
	struct vfio_region r;
	char back[16];
	char *map;
	int k;

	assert_int_equal(bind_file(), 0);
	for (k = 0; k < 2; k++) {
		vfio_region(&v, indexes[k], &r);
		assert_region(&v, indexes[k], vfio_length(&v, indexes[k]), r.size);
		map = vfio_map(&v, indexes[k], 0, length, RW, MAP_SHARED, NULL);
		strcpy(map, "by its own file");
		assert_int_equal(vfio_read(&v, REGION(indexes[k]), back, 16), 16);
		assert_string_equal(back, "by its own file");
		assert_int_equal(vfio_reset(&v), 0);
		assert_string_equal(map, "by its own file");
		munmap(map, length);
	}
}

static void ordinary_memory_is_mapped_and_unmapped(void **state)
{
	void *memory = mmap(NULL, length, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_true(memory != MAP_FAILED);
	assert_int_equal(bind_file(), 0);
	assert_int_equal(attach(), 0);
	assert_int_equal(map_memory(memory), 0);
	assert_int_equal(vfio_reset(&v), 0);
	assert_int_equal(vfio_dma_unmap(&v, length, IOVA), length);
	assert_int_equal(detach(), 0);
	munmap(memory, length);
}

/* iommufd pins pages, and GPU memory has none. */
static void gpu_memory_is_refused(void **state)
{
	char *map;

	assert_int_equal(bind_file(), 0);
	assert_int_equal(attach(), 0);
	map = vfio_map(&v, USEMEM, 0, length, RW, MAP_SHARED, NULL);
	touch_write(map);
	assert_int_equal(map_memory(map), -EFAULT);
	assert_int_equal(detach(), 0);
	munmap(map, length);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static const struct CMUnitTest tests[] = {
	TEST(before_it_is_bound_it_gives_nothing),
	TEST(both_parts_are_as_through_the_group),
	TEST(ordinary_memory_is_mapped_and_unmapped),
	TEST(gpu_memory_is_refused),
};

const struct case_group groups[] = {
	{ "module:iommufd CONFIG_VFIO_DEVICE_CDEV carve-out", CASES(tests) },
	{ }
};
