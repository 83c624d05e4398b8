// SPDX-License-Identifier: GPL-2.0-only
/*
 * An unprivileged client that owns a GPU's files: what it learns, and what it
 * can do. It must learn no physical address of the GPU's memory, get no
 * executable mapping, and reach nothing but its GPU. To show that the search
 * works, it is repeated where root has put an address. The tests run with group
 * and container, and again with the device file and iommufd if the kernel has
 * them.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "privilege.h"

const struct gpu *gpu;
const struct gpu *other;
bool by_cdev;
char device_folder[256];

const struct part parts[2] = {
	{ USEMEM, 2 * GiB },
	{ RESMEM, 1 * GiB },
};

static char cdev[64];

void device_path(char *path, size_t length, const char *file)
{
	snprintf(path, length, "%s/nvgrace_gpu/%s", device_folder, file);
}

bool client_open(struct vfio *v)
{
	int error = by_cdev ? vfio_open_cdev(v, cdev) : vfio_try_open(v, gpu);

	if (error)
		client_says("can't open its GPU: %s", strerror(-error));
	return !error;
}

char *map_part(struct vfio *v, const struct part *part, uint64_t length)
{
	return mmap(NULL, length, RW, MAP_SHARED, v->device,
		    REGION(part->index));
}

void use(struct vfio *v)
{
	uint64_t word = 0x1122334455667788, seen;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(parts); i++) {
		uint64_t at = REGION(parts[i].index) + 8 * i;
		volatile uint64_t *map = (void *)map_part(v, &parts[i], 2 * MiB);

		client_expects(map != MAP_FAILED);
		if (map == MAP_FAILED)
			continue;
		client_expects(vfio_write(v, at, &word, 8) == 8);
		client_expects(map[i] == word);
		map[i] = ~word;
		client_expects(vfio_read(v, at, &seen, 8) == 8);
		client_expects(seen == ~word);
		client_expects(!vfio_reset(v));
		client_expects(map[i] == ~word);
		munmap((void *)map, 2 * MiB);
	}
}

static void open_and_use(void)
{
	struct vfio v;

	if (client_open(&v))
		use(&v);
}

static void the_owner_of_the_files_can_use_the_gpu(void **state)
{
	as_client(open_and_use);
}

static char dmesg_restrict[8];

static int setup(void **state)
{
	gpu = gpu_find("second");
	other = gpu_find("s1h");
	search_for(gpu);
	assert_int_equal(gpu_bind(gpu), 0);
	client_owns(gpu);
	assert_non_null(realpath(gpu_file(gpu, ""), device_folder));
	if (by_cdev && !client_cdev(gpu, cdev, sizeof(cdev)))
		fail_msg("the GPU has no file of its own");
	return 0;
}

static int teardown(void **state)
{
	must_write_file(DMESG_RESTRICT, dmesg_restrict);
	return 0;
}

#define TEST(name)	cmocka_unit_test_setup_teardown(name, setup, teardown)

static const struct CMUnitTest slow_tests[] = {
	TEST(no_file_has_an_address),
};

static const struct CMUnitTest tests[] = {
	TEST(the_owner_of_the_files_can_use_the_gpu),
	TEST(a_search_knows_an_address_in_every_form),
	TEST(an_address_in_a_file_is_found),
	TEST(the_log_of_a_good_gpu_has_no_address),
	TEST(a_warning_with_an_address_is_for_readers_of_the_log),
	TEST(traces_are_for_root),
	TEST(no_answer_has_an_address),
	TEST(nothing_can_be_executed),
	TEST(other_gpus_are_refused),
};

/*
 * The same with the device file and iommufd, whose mappings belong to another
 * file.
 */
#define AGAIN(test) VARIANT(test##_by_cdev, test, setup, teardown, NULL)

static const struct CMUnitTest cdev_tests[] = {
	AGAIN(the_owner_of_the_files_can_use_the_gpu),
	AGAIN(no_file_has_an_address),
	AGAIN(the_log_of_a_good_gpu_has_no_address),
	AGAIN(no_answer_has_an_address),
	AGAIN(nothing_can_be_executed),
	AGAIN(other_gpus_are_refused),
};

static int read_restriction(void **state)
{
	int fd = open(DMESG_RESTRICT, O_RDONLY);

	assert_true(read(fd, dmesg_restrict, sizeof(dmesg_restrict) - 1) > 0);
	close(fd);
	by_cdev = false;
	return 0;
}

static int use_cdev(void **state)
{
	read_restriction(state);
	by_cdev = true;
	return 0;
}

const struct case_group groups[] = {
	{ "lab", CASES(tests), read_restriction },
	{ "lab slow", CASES(slow_tests), read_restriction },
	{ "lab module:iommufd slow", CASES(cdev_tests), use_cdev },
	{ }
};
