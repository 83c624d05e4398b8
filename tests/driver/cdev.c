// SPDX-License-Identifier: GPL-2.0-only
/*
 * One GPU by its device file and iommufd, as QEMU uses it if the kernel has no
 * type1. iommufd.c has its memory in an address space of another GPU.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib.h"

static uint64_t length;

/* Opens the file and an I/O address space, and binds neither to the other. */
static int setup(void **state)
{
	length = 16 * page;
	cdev_start(&v, "gh200");
	cdev_open_iommu(&v);
	return 0;
}

static void before_it_is_bound_it_gives_nothing(void **state)
{
	char byte;
	int err;

	assert_true(read_a_byte(&v) < 0);
	assert_true(vfio_write(&v, REGION(USEMEM), &byte, 1) < 0);
	vfio_map(&v, USEMEM, 0, length, RW, MAP_SHARED, &err);
	assert_true(err < 0);
	assert_true(vfio_reset(&v) < 0);
	assert_true(cdev_bind(&v) > 0);
	assert_int_equal(read_a_byte(&v), 1);
	/* The second bind fails. */
	assert_int_equal(cdev_bind(&v), -EINVAL);
}

static void both_parts_are_as_through_the_group(void **state)
{
	static const unsigned int indexes[] = { USEMEM, RESMEM };
	struct vfio_region r;
	char back[16];
	char *map;
	int k;

	assert_true(cdev_bind(&v) > 0);
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

#define TEST(name) cmocka_unit_test_setup(name, setup)

static const struct CMUnitTest tests[] = {
	TEST(before_it_is_bound_it_gives_nothing),
	TEST(both_parts_are_as_through_the_group),
};

const struct case_group groups[] = {
	{ "pages module:iommufd CONFIG_VFIO_DEVICE_CDEV carve-out", CASES(tests) },
	{ }
};
