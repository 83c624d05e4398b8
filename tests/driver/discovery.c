// SPDX-License-Identifier: GPL-2.0-only
/*
 * Which GPUs the driver binds, and what their user then finds for the firmware's
 * table. tests/firmware has the tables that it refuses, and what it logs and
 * claims.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib.h"

#define BARS_64BIT	0x18	/* config offset of BAR2 to BAR5 */
#define BARS_LENGTH	16

static void loading_the_module_binds_nothing(void **state)
{
	glob_t bound;

	assert_int_equal(module_unload(), 0);
	assert_int_equal(access("/sys/bus/pci/drivers/" DRIVER, F_OK), -1);
	assert_int_equal(module_load(), 0);
	assert_int_equal(access("/sys/bus/pci/drivers/" DRIVER, F_OK), 0);
	/* A link for each device. */
	assert_int_equal(glob("/sys/bus/pci/drivers/" DRIVER "/*:*", 0, NULL, &bound),
			 GLOB_NOMATCH);
}

static void without_driver_override_a_gpu_does_not_bind(void **state)
{
	const struct gpu *gpu = gpu_find("gh200");

	assert_int_equal(write_file("/sys/bus/pci/drivers/" DRIVER "/bind",
				    gpu->addr), -ENODEV);
	assert_false(gpu_bound(gpu));
	must_write_file("/sys/bus/pci/drivers_probe", gpu->addr);
	assert_false(gpu_bound(gpu));
}

static void neither_property_binds_a_plain_pci_device(void **state)
{
	uint8_t own[BARS_LENGTH], seen[BARS_LENGTH];
	struct vfio_region r;
	int i, fd;

	for (i = VFIO_PCI_BAR0_REGION_INDEX; i <= VFIO_PCI_BAR5_REGION_INDEX;
	     i++) {
		vfio_region(&v, i, &r);
		assert_int_equal(r.size, gpu_bar(v.gpu, i, NULL));
	}
	vfio_region(&v, USEMEM, &r);
	assert_int_equal(r.size, 0);
	assert_int_equal(r.flags, 0);
	vfio_region(&v, RESMEM, &r);
	assert_true(r.size > 0);
	fd = gpu_config_open(v.gpu, O_RDONLY);
	assert_int_equal(pread(fd, own, sizeof(own), BARS_64BIT), sizeof(own));
	close(fd);
	assert_int_equal(vfio_read(&v, CONFIG + BARS_64BIT, seen, sizeof(seen)),
			 sizeof(seen));
	assert_memory_equal(seen, own, sizeof(own));
}

/* Of which parts the machine has the memory. */
enum backing { UNBACKED, RESMEM_IS_BACKED, BACKED };

/* The carve-out that a GPU's size must give, in bytes. */
struct layout {
	const char *gpu;
	enum backing backing;
	uint64_t usemem;
	uint64_t resmem;
	uint64_t bar4;
	uint64_t bar2;
};

/*
 * The first and the last bytes of a part must be those at this physical
 * address.
 */
static void assert_backed_by(unsigned int index, uint64_t base, uint64_t length)
{
	const uint64_t at[] = { 0, length - 8 };
	uint64_t in, out;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(at); i++) {
		fill(&in, sizeof(in), base + at[i]);
		assert_int_equal(vfio_write(&v, REGION(index) + at[i], &in,
					    sizeof(in)), sizeof(in));
		host_peek(base + at[i], &out, sizeof(out));
		assert_int_equal(out, in);
	}
}

static void assert_layout(const struct layout *l)
{
	assert_region(&v, USEMEM, l->usemem, l->bar4);
	if (l->resmem)
		assert_region(&v, RESMEM, l->resmem, l->bar2);
	if (l->backing == BACKED)
		assert_backed_by(USEMEM, v.gpu->base, l->usemem);
	if (l->resmem && l->backing != UNBACKED)
		assert_backed_by(RESMEM, v.gpu->base + l->usemem, l->resmem);
}

static void it_has_this_layout(void **state)
{
	const struct layout *l = *state;

	vfio_start(&v, l->gpu);
	assert_layout(l);
}

static void without_resmem_bar2_is_the_devices_own(void **state)
{
	const struct layout *l = *state;
	struct vfio_region r;
	char *map;

	vfio_start(&v, l->gpu);
	assert_layout(l);
	vfio_region(&v, RESMEM, &r);
	assert_int_equal(r.size, gpu_bar(v.gpu, 2, NULL));
	assert_int_equal(r.size, 64 * KiB);
	assert_true(r.flags & VFIO_REGION_INFO_FLAG_MMAP);

	/* This BAR2 is the device's own: vfio-pci-core maps it. */
	map = vfio_map(&v, RESMEM, 0, r.size, RW, MAP_SHARED, NULL);
	memcpy(map, "its own", 8);
	assert_string_equal(map, "its own");
}

#define LAYOUT(name, function, ...) \
	VARIANT(name, function, NULL, NULL, &((struct layout){ __VA_ARGS__ }))

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(loading_the_module_binds_nothing),
	cmocka_unit_test(without_driver_override_a_gpu_does_not_bind),
	OPEN("none", neither_property_binds_a_plain_pci_device),
	LAYOUT(size_95_75_gib_gives_94_5_and_1_25, it_has_this_layout,
	       "s95", BACKED, 96768 * MiB, 1280 * MiB, 128 * GiB, 2 * GiB),
	LAYOUT(size_33_25_gib_gives_32_and_1_25, it_has_this_layout,
	       "s33q", BACKED, 32 * GiB, 1280 * MiB, 32 * GiB, 2 * GiB),
	LAYOUT(size_3_gib_gives_2_and_1_which_fill_their_bars, it_has_this_layout,
	       "second", BACKED, 2 * GiB, GiB, 2 * GiB, GiB),
	LAYOUT(size_1_5_gib_gives_half_and_1, it_has_this_layout,
	       "s1h", BACKED, 512 * MiB, GiB, 512 * MiB, GiB),
	LAYOUT(a_part_of_a_page_at_the_end_is_not_mappable, it_has_this_layout,
	       "odd", BACKED, 1536 * MiB, 1280 * MiB + 0x1235, 2 * GiB, 2 * GiB),
	/* A window of the host bridge has the end of its usemem. */
	LAYOUT(memory_that_cannot_be_claimed_can_be_used, it_has_this_layout,
	       "claimbusy", RESMEM_IS_BACKED, 1536 * MiB, 1280 * MiB, 2 * GiB, 2 * GiB),
	LAYOUT(dvsec_bit_set_gives_no_resmem_and_leaves_bar2,
	       without_resmem_bar2_is_the_devices_own,
	       "nodefect", BACKED, 34048 * MiB, 0, 64 * GiB, 0),
	/* The machine doesn't have so much. */
	LAYOUT(a_bar_of_a_tebibyte_binds, it_has_this_layout,
	       "widest", UNBACKED, 1024 * GiB, GiB, 1024 * GiB, GiB),
};

const struct case_group groups[] = {
	{ "lab", CASES(tests) },
	{ }
};
