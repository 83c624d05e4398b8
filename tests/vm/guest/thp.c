// SPDX-License-Identifier: GPL-2.0-only
/*
 * Faults for a huge entry and for pages at the same place at the same time: a
 * process can have both by switching huge pages off between two of its
 * threads' faults.  The kernel's log must stay clean, and both threads must see
 * the memory.  Takes the rounds to run, 1,000 without an argument.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "lib.h"

#define RW	(PROT_READ | PROT_WRITE)
/* One huge entry with any page size, and a part of the memory for each round. */
#define HUGE	(512 * MiB)

static struct vfio v;
static unsigned int rounds = 1000;
static char *place;		/* where mappings go: aligned like the memory */
static char *map;
static pthread_barrier_t barrier;
static volatile bool stop;

/*
 * Both fault handlers wait for a lock that a write to the command register
 * takes, and so come out of it side by side.
 */
static void *hold_up(void *arg)
{
	uint16_t command;

	if (vfio_read(&v, CONFIG + 4, &command, 2) != 2)
		return NULL;
	while (!stop)
		vfio_write(&v, CONFIG + 4, &command, 2);
	return NULL;
}

static void *reset_now(void *arg)
{
	int *ret = arg;

	*ret = vfio_reset(&v);
	return NULL;
}

static void map_anew(unsigned int index)
{
	map = mmap(place, HUGE, RW, MAP_SHARED | MAP_FIXED, v.device,
		   REGION(index));
	assert_ptr_equal(map, place);
}

/* The pages of round @i: one below the entry of the huge touch, or many others. */
static unsigned int pages_of(unsigned int i)
{
	return i & 2 ? 32 : 1;
}

/* Where the @k-th of them is. Below another entry each, as far as there are so many. */
static unsigned long page_at(unsigned int i, unsigned int k)
{
	return (i & 2 ? HUGE / 2 + k * (HUGE / 64) : 0) + 128;
}

/* Touches with huge pages as they are when the round begins: switched on. */
static void *touch_huge(void *arg)
{
	unsigned int i;

	for (i = 0; i < rounds; i++) {
		pthread_barrier_wait(&barrier);
		((volatile char *)map)[64 + i % 2] = i;
		pthread_barrier_wait(&barrier);
	}
	return NULL;
}

static void one_race(unsigned int index)
{
	pthread_t toucher, holder;
	unsigned int i, k, wrong = 0;

	stop = false;
	assert_int_equal(pthread_barrier_init(&barrier, NULL, 2), 0);
	assert_int_equal(pthread_create(&holder, NULL, hold_up, NULL), 0);
	assert_int_equal(pthread_create(&toucher, NULL, touch_huge, NULL), 0);
	for (i = 0; i < rounds; i++) {
		map_anew(index);
		prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
		pthread_barrier_wait(&barrier);
		/* The other thread's fault begins; now or a moment later ... */
		for (volatile unsigned int spin = 0; spin < i % 64 * 16; )
			spin = spin + 1;
		/* ... pages for this one. */
		prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
		for (k = 0; k < pages_of(i); k++)
			((volatile char *)map)[page_at(i, k)] = i;
		pthread_barrier_wait(&barrier);
		wrong += map[64 + i % 2] != (char)i;
		for (k = 0; k < pages_of(i); k++)
			wrong += map[page_at(i, k)] != (char)i;
	}
	stop = true;
	pthread_join(toucher, NULL);
	pthread_join(holder, NULL);
	prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
	assert_int_equal(wrong, 0);
}

static void huge_entries_and_pages_of_usemem_side_by_side(void **state)
{
	one_race(USEMEM);
}

static void huge_entries_and_pages_of_resmem_side_by_side(void **state)
{
	one_race(RESMEM);
}

/* Where both wait for one reset, the first to go on is either. */
static void huge_entries_and_pages_after_one_reset(void **state)
{
	pthread_t toucher, resetter;
	unsigned int all = rounds, i;
	int ret;

	rounds = all / 20;
	assert_int_equal(pthread_barrier_init(&barrier, NULL, 2), 0);
	assert_int_equal(pthread_create(&toucher, NULL, touch_huge, NULL), 0);
	for (i = 0; i < rounds; i++) {
		map_anew(i % 2 ? USEMEM : RESMEM);
		prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
		assert_int_equal(pthread_create(&resetter, NULL, reset_now, &ret), 0);
		usleep(20000);
		pthread_barrier_wait(&barrier);
		usleep(20000);
		prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
		((volatile char *)map)[page_at(i, 0)] = i;
		pthread_barrier_wait(&barrier);
		pthread_join(resetter, NULL);
		assert_true(!ret || ret == -EAGAIN);
		assert_int_equal(map[64 + i % 2], (char)i);
		assert_int_equal(map[page_at(i, 0)], (char)i);
	}
	pthread_join(toucher, NULL);
	prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
	rounds = all;
}

static int setup(void **state)
{
	char *space;

	vfio_start(&v, "second");
	space = mmap(NULL, 2 * HUGE, PROT_NONE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_true(space != MAP_FAILED);
	place = (char *)(((uintptr_t)space + HUGE - 1) & ~(HUGE - 1));
	return 0;
}

static int teardown(void **state)
{
	munmap(place, HUGE);
	vfio_stop(&v);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(huge_entries_and_pages_of_usemem_side_by_side),
		cmocka_unit_test(huge_entries_and_pages_of_resmem_side_by_side),
		cmocka_unit_test(huge_entries_and_pages_after_one_reset),
	};

	/* Whoever faults for ever is killed, and reported. */
	alarm(900);
	if (argc > 1)
		rounds = atoi(argv[1]);
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("thp", tests, setup, teardown);
}
