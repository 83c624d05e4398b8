// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reads and writes whose buffer is a fresh mapping of the same memory,
 * concurrently with a loop of resets. This deadlocks if the driver holds a lock
 * that a reset needs while it accesses user memory.
 *
 * It takes RACE_S seconds. Each thread does at least one round, however late it
 * starts.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/mman.h>

#include "lib.h"

#define SIZE	(4 * MiB)

static uint64_t deadline;

struct worker {
	long (*function)(void *worker);
	unsigned int index;
	bool write;
	struct beside *beside;
	unsigned long rounds;
};

/* The result of each is 0, or what went wrong. */
static long self_io(void *arg)
{
	struct worker *w = arg;

	do {
		uint64_t at = (w->rounds % 64) * 2 * MiB;
		char *map = mmap(NULL, SIZE, RW, MAP_SHARED, v.device,
				 REGION(w->index) + at);
		ssize_t ret;

		if (map == MAP_FAILED)
			return -errno;
		/* Overlapping by half. */
		if (w->write)
			ret = vfio_write(&v, REGION(w->index) + at + SIZE / 2,
					 map, SIZE);
		else
			ret = vfio_read(&v, REGION(w->index) + at + SIZE / 2,
					map, SIZE);
		munmap(map, SIZE);
		if (ret != (ssize_t)SIZE)
			return ret < 0 ? ret : -EIO;
		w->rounds++;
	} while (now_ms() < deadline);
	return 0;
}

static long toucher(void *arg)
{
	struct worker *w = arg;
	char *map = vfio_map(&v, w->index, 0, SIZE, RW, MAP_SHARED, NULL);

	do {
		for (uint64_t at = 0; at < SIZE; at += 64 * KiB)
			map[at]++;
		w->rounds++;
	} while (now_ms() < deadline);
	munmap(map, SIZE);
	return 0;
}

static long resetter(void *arg)
{
	struct worker *w = arg;

	do {
		int ret = vfio_reset(&v);

		/* -EAGAIN: another thread holds the device's lock. */
		if (ret && ret != -EAGAIN)
			return ret;
		w->rounds++;
	} while (now_ms() < deadline);
	return 0;
}

static void io_into_the_own_mapping_beside_resets_ends(void **state)
{
	struct worker w[] = {
		{ .function = resetter },
		{ .function = self_io, .index = USEMEM },
		{ .function = self_io, .index = USEMEM, .write = true },
		{ .function = self_io, .index = RESMEM },
		{ .function = toucher, .index = RESMEM },
	};
	size_t i, n = ARRAY_SIZE(w);
	long bad[ARRAY_SIZE(w)];

	deadline = now_ms() + setting("RACE_S", 10) * 1000;
	for (i = 0; i < n; i++)
		w[i].beside = beside(w[i].function, &w[i]);
	for (i = 0; i < n; i++)
		bad[i] = ended(w[i].beside);
	for (i = 0; i < n; i++) {
		print_message("# worker %zu: %lu rounds\n", i, w[i].rounds);
		assert_int_equal(bad[i], 0);
		assert_true(w[i].rounds > 0);
	}
}

static const struct CMUnitTest tests[] = {
	OPEN("gh200", io_into_the_own_mapping_beside_resets_ends),
};

/* With Linux's own driver, this hangs for ever. */
const struct case_group groups[] = {
	{ "pages this-driver carve-out", CASES(tests) },
	{ }
};
