// SPDX-License-Identifier: GPL-2.0-only
/*
 * A GPU is removed from its slot and found again, as by hot-plug: while it is
 * idle, while it is open, and while it is open in a process that is killed.
 */
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib.h"

/* What takes longer is stuck, not slow. */
#define STUCK_MS	300000

static long remove_gpu(void *gpu)
{
	return gpu_sysfs_write(gpu, "remove", "1");
}

/* Begins to remove it. Returns when the kernel waits for its user. */
static struct beside *begin_removal(const struct gpu *gpu)
{
	struct beside *removal;

	klog_mark();
	removal = beside(remove_gpu, gpu);
	assert_true(klog_wait("blocked until released by user", STUCK_MS));
	return removal;
}

/* Finds it again. It works, with what its last user has left. */
static void assert_found(const struct gpu *gpu, const char *content)
{
	char back[8];

	gpu_rescan(gpu);
	vfio_start(&v, gpu->name);
	assert_int_equal(vfio_read(&v, REGION(USEMEM), back, 7), 7);
	assert_string_equal(back, content);
	vfio_stop(&v);
}

static void an_idle_gpu_is_removed_and_found(void **state)
{
	const struct gpu *gpu = gpu_find("gh200");

	vfio_start(&v, gpu->name);
	assert_int_equal(vfio_write(&v, REGION(USEMEM), "before", 7), 7);
	vfio_close(&v);
	assert_int_equal(gpu_sysfs_write(gpu, "remove", "1"), 0);
	assert_found(gpu, "before");
}

static void a_removal_waits_until_the_gpu_is_closed(void **state)
{
	const struct gpu *gpu = gpu_find("gh200");
	struct beside *removal;
	char *map;

	vfio_start(&v, gpu->name);
	map = vfio_map(&v, USEMEM, 0, MiB, RW, MAP_SHARED, NULL);
	removal = begin_removal(gpu);
	/* Its user goes on meanwhile. */
	strcpy(map, "before");
	munmap(map, MiB);
	vfio_close(&v);
	assert_int_equal(ended(removal), 0);
	assert_found(gpu, "before");
}

static void a_removal_ends_when_the_user_is_killed(void **state)
{
	const struct gpu *gpu = gpu_find("gh200");
	int ready[2];
	struct beside *removal;
	pid_t child;
	char byte;

	assert_int_equal(gpu_bind(gpu), 0);
	assert_int_equal(pipe(ready), 0);
	child = fork();
	assert_true(child >= 0);
	if (!child) {
		struct vfio own;

		vfio_open(&own, gpu);
		strcpy(vfio_map(&own, USEMEM, 0, MiB, RW, MAP_SHARED, NULL), "before");
		if (write(ready[1], "", 1) == 1)
			pause();
		_exit(1);
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	removal = begin_removal(gpu);
	assert_killed(child);
	assert_int_equal(ended(removal), 0);
	assert_found(gpu, "before");
}

/* The removal waits for the scrub, which leaves nothing. */
static void a_removed_gpu_is_scrubbed(void **state)
{
	const struct gpu *gpu = gpu_find("tinymem");
	struct beside *removal;

	scrub_set_parameter(true);
	assert_int_equal(gpu_bind(gpu), 0);
	assert_string_equal(scrub_end(gpu), "clean");
	vfio_open(&v, gpu);
	soil(gpu);
	removal = begin_removal(gpu);
	vfio_close(&v);
	assert_int_equal(ended(removal), 0);
	assert_clean(gpu);
	scrub_set_parameter(false);
	assert_found(gpu, "");
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(an_idle_gpu_is_removed_and_found),
	cmocka_unit_test(a_removal_waits_until_the_gpu_is_closed),
	cmocka_unit_test(a_removal_ends_when_the_user_is_killed),
	cmocka_unit_test(a_removed_gpu_is_scrubbed),
};

const struct case_group groups[] = {
	{ "scrubs lab", CASES(tests) },
	{ }
};
