// SPDX-License-Identifier: GPL-2.0-only
/* VFIO_DEVICE_GET_REGION_INFO: what it reports about the fake BARs. */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "lib.h"

/* What holds for any size of memory. */
static void check_part(unsigned int index)
{
	uint64_t length = vfio_length(&v, index), bar = page;

	assert_true(length > 0);
	while (bar < length)
		bar *= 2;
	assert_region(&v, index, length, bar);
}

static void a_bar_is_the_power_of_two_that_has_room_for_the_memory(void **state)
{
	struct vfio_region r;

	check_part(USEMEM);
	/* Without a carve-out, BAR2 is the device's own. */
	vfio_region(&v, RESMEM, &r);
	if (r.areas) {
		check_part(RESMEM);
		assert_int_equal(vfio_length(&v, USEMEM) % (512 * MiB), 0);
		assert_true(vfio_length(&v, RESMEM) >= GiB);
	}
}

static void other_regions_are_those_of_the_device(void **state)
{
	static const unsigned int none[] = {
		VFIO_PCI_BAR1_REGION_INDEX, VFIO_PCI_BAR3_REGION_INDEX,
		VFIO_PCI_BAR5_REGION_INDEX
	};
	struct vfio_region r;
	size_t i;

	vfio_region(&v, VFIO_PCI_BAR0_REGION_INDEX, &r);
	assert_true(r.size >= 4096 && !(r.size & (r.size - 1)));
	assert_int_equal(r.offset, 0);
	for (i = 0; i < ARRAY_SIZE(none); i++) {
		vfio_region(&v, none[i], &r);
		assert_int_equal(r.size, 0);
	}
	vfio_region(&v, VFIO_PCI_CONFIG_REGION_INDEX, &r);
	assert_int_equal(r.size, 4096);
}

/* A caller may first query how much room it needs. */
static void a_short_buffer_is_told_its_size(void **state)
{
	struct {
		struct vfio_region_info info;
		unsigned char rest[256];
	} u;
	struct vfio_region r;
	size_t need;

	memset(&u, 0xa5, sizeof(u));
	u.info.argsz = sizeof(u.info);
	u.info.flags = 0;
	u.info.index = USEMEM;
	u.info.cap_offset = 0;
	assert_int_equal(ioctl(v.device, VFIO_DEVICE_GET_REGION_INFO, &u), 0);
	need = u.info.argsz;
	assert_true(need > sizeof(u.info) && need <= sizeof(u));
	assert_int_equal(u.info.flags, FAKE_BAR_FLAGS);
	assert_int_equal(u.info.cap_offset, 0);
	vfio_region(&v, USEMEM, &r);
	assert_int_equal(u.info.size, r.size);
	assert_int_equal(u.rest[0], 0xa5);

	/* One byte too few. */
	u.info.argsz = need - 1;
	assert_int_equal(ioctl(v.device, VFIO_DEVICE_GET_REGION_INFO, &u), 0);
	assert_int_equal(u.info.argsz, need);
	assert_int_equal(u.info.cap_offset, 0);
	assert_int_equal(u.rest[0], 0xa5);

	/* Exactly enough: nothing after that is written. */
	u.info.argsz = need;
	assert_int_equal(ioctl(v.device, VFIO_DEVICE_GET_REGION_INFO, &u), 0);
	assert_int_equal(u.info.argsz, need);
	assert_int_equal(u.info.cap_offset, sizeof(u.info));
	assert_int_not_equal(u.rest[0], 0xa5);
	assert_int_equal(u.rest[need - sizeof(u.info)], 0xa5);
}

static void a_struct_that_is_too_short_is_EINVAL(void **state)
{
	struct vfio_region_info info = { .index = USEMEM };
	uint32_t argsz;

	/* All of the struct is required. */
	for (argsz = 0; argsz < sizeof(info); argsz++) {
		info.argsz = argsz;
		assert_int_equal(ioctl(v.device, VFIO_DEVICE_GET_REGION_INFO,
				       &info), -1);
		assert_int_equal(errno, EINVAL);
	}
}

static void an_unreadable_struct_is_EFAULT(void **state)
{
	char *hole = page_before_hole() + page;
	struct vfio_region_info *info;

	info = (void *)(hole - 8);
	assert_int_equal(ioctl(v.device, VFIO_DEVICE_GET_REGION_INFO, info), -1);
	assert_int_equal(errno, EFAULT);

	/* The struct is accessible, the room for the capability is not. */
	info = (void *)(hole - sizeof(*info));
	info->argsz = 256;
	info->index = USEMEM;
	assert_int_equal(ioctl(v.device, VFIO_DEVICE_GET_REGION_INFO, info), -1);
	assert_int_equal(errno, EFAULT);
}

static void an_index_that_does_not_exist_is_EINVAL(void **state)
{
	struct vfio_region_info info = { .argsz = sizeof(info), .index = 1000 };

	assert_int_equal(ioctl(v.device, VFIO_DEVICE_GET_REGION_INFO, &info), -1);
	assert_int_equal(errno, EINVAL);
}

/* Of every region that the device states, also of one that is new. */
static void no_region_is_read_beyond_its_end(void **state)
{
	struct vfio_device_info info = { .argsz = sizeof(info) };
	unsigned int index, back, i;
	unsigned char bytes[256];
	struct vfio_region r;
	ssize_t ret;

	assert_int_equal(ioctl(v.device, VFIO_DEVICE_GET_INFO, &info), 0);
	for (index = 0; index < info.num_regions; index++) {
		if (vfio_get_region(&v, index, &r))
			continue;
		if (r.size && !(r.flags & VFIO_REGION_INFO_FLAG_READ))
			fail_msg("region %u has a size, and its flags are %#x", index, r.flags);
		for (back = 0; back <= 64 && back <= r.size; back++) {
			memset(bytes, 0xa5, sizeof(bytes));
			ret = vfio_read(&v, r.offset + r.size - back, bytes, sizeof(bytes));
			if (ret > (ssize_t)back)
				fail_msg("region %u has returned %zd bytes, %u before its end",
					 index, ret, back);
			for (i = back; i < sizeof(bytes); i++)
				if (bytes[i] != 0xa5)
					fail_msg("region %u was read beyond its end", index);
		}
	}
}

static const struct CMUnitTest tests[] = {
	OPEN("gh200", a_bar_is_the_power_of_two_that_has_room_for_the_memory),
	OPEN("gh200", other_regions_are_those_of_the_device),
	OPEN("gh200", a_short_buffer_is_told_its_size),
	OPEN("gh200", a_struct_that_is_too_short_is_EINVAL),
	OPEN("gh200", an_unreadable_struct_is_EFAULT),
	OPEN("gh200", an_index_that_does_not_exist_is_EINVAL),
};

/* Nobody knows which registers of a real GPU may be read. */
static const struct CMUnitTest lab_tests[] = {
	OPEN("gh200", no_region_is_read_beyond_its_end),
	VARIANT(no_region_of_a_plain_device_is_read_beyond_its_end,
		no_region_is_read_beyond_its_end, open_gpu, NULL, "none"),
};

const struct case_group groups[] = {
	{ "pages", CASES(tests) },
	{ "lab", CASES(lab_tests) },
	{ }
};
