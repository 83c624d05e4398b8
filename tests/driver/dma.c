// SPDX-License-Identifier: GPL-2.0-only
/*
 * GPU memory for the GPU's DMA through a type1 container, as a VMM maps it for its
 * guest.
 */
#include <sys/mman.h>

#include "lib.h"

#define IOVA	0x100000000ULL

/* VFIO_IOMMU_MAP_DMA has the driver's fault handler bring in the pages. */
static void gpu_memory_is_mapped_and_unmapped(void **state)
{
	static const unsigned int indexes[] = { USEMEM, RESMEM };
	uint64_t length = 16 * page;
	char *map;
	int k;

	for (k = 0; k < 2; k++) {
		map = vfio_map(&v, indexes[k], 0, length, RW, MAP_SHARED, NULL);
		assert_int_equal(vfio_dma_map(&v, map, length, IOVA, true), 0);
		assert_int_equal(vfio_dma_unmap(&v, length, IOVA), length);
		munmap(map, length);
	}
}

static const struct CMUnitTest tests[] = {
	OPEN("gh200", gpu_memory_is_mapped_and_unmapped),
};

const struct case_group groups[] = {
	{ "pages type1 carve-out", CASES(tests) },
	{ }
};
