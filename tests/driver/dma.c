// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory for the GPU's DMA through a type1 container: ordinary memory, and GPU
 * memory, as a VMM maps both for its guest.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib.h"

#define IOVA	0x100000000ULL
#define PAGES	16

static uint64_t length;

static int map_memory(void *memory)
{
	return vfio_dma_map(&v, memory, length, IOVA, true);
}

/* Returns the bytes that were mapped, or a negative errno. */
static int64_t unmap(void)
{
	return vfio_dma_unmap(&v, length, IOVA);
}

static int setup(void **state)
{
	length = PAGES * page;
	vfio_start(&v, "gh200");
	return 0;
}

static void check_mapping(void *memory)
{
	assert_int_equal(map_memory(memory), 0);
	assert_int_equal(map_memory(memory), -EEXIST);
	assert_int_equal(unmap(), length);
	assert_int_equal(unmap(), 0);
}

static void ordinary_memory_is_mapped_and_unmapped(void **state)
{
	void *memory = mmap(NULL, length, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_true(memory != MAP_FAILED);
	check_mapping(memory);
	munmap(memory, length);
}

/* VFIO_IOMMU_MAP_DMA has the driver's fault handler bring in the pages. */
static void gpu_memory_is_mapped_and_unmapped(void **state)
{
	static const unsigned int indexes[] = { USEMEM, RESMEM };
	char *map;
	int k;

	for (k = 0; k < 2; k++) {
		map = vfio_map(&v, indexes[k], 0, length, RW, MAP_SHARED, NULL);
		check_mapping(map);
		munmap(map, length);
	}
}

static void a_reset_leaves_ordinary_memory_mapped(void **state)
{
	char *memory = mmap(NULL, length, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_true(memory != MAP_FAILED);
	strcpy(memory, "kept");
	assert_int_equal(map_memory(memory), 0);
	assert_int_equal(vfio_reset(&v), 0);
	assert_string_equal(memory, "kept");
	assert_int_equal(unmap(), length);
	munmap(memory, length);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(ordinary_memory_is_mapped_and_unmapped),
	cmocka_unit_test(gpu_memory_is_mapped_and_unmapped),
	cmocka_unit_test(a_reset_leaves_ordinary_memory_mapped),
};

const struct case_group groups[] = {
	{ "pages type1 carve-out", CASES(tests), setup, .shared = true },
	{ }
};
