// SPDX-License-Identifier: GPL-2.0-only
/*
 * Concurrent faults for a huge entry and for pages at the same place. A process
 * gets both if it disables huge pages between faults of two threads. The
 * kernel's log must stay clean, and both threads must see the memory.
 *
 * Where no mapping of pfns has huge entries, 100 ROUNDS are enough.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "lib.h"

/* A huge entry with any page size; each round uses a range inside. */
#define HUGE	(512 * MiB)

static unsigned int rounds;
static char *place;		/* aligned like the memory */
static char *map;

/*
 * Number of the round that has begun, and of the one that is over. The threads
 * poll: waking up takes longer than the race.
 */
static atomic_uint begun, over;

/*
 * Both fault handlers wait for a lock that a write to the command register
 * holds, and so continue at the same time.
 */
static long hold_up(void *arg)
{
	uint16_t command;

	if (vfio_read(&v, CONFIG + 4, &command, 2) != 2)
		return -EIO;
	while (still_wanted())
		vfio_write(&v, CONFIG + 4, &command, 2);
	return 0;
}

static long reset_now(void *arg)
{
	return vfio_reset(&v);
}

static void map_anew(unsigned int index)
{
	map = mmap(place, HUGE, RW, MAP_SHARED | MAP_FIXED, v.device,
		   REGION(index));
	assert_ptr_equal(map, place);
}

/*
 * Address of the page in round @i: below the entry of the huge access, or below
 * another that the same fault may fill, near or far, so that the fault gets
 * there sooner or later.
 */
static unsigned long page_at(unsigned int i)
{
	unsigned long entry = (1 + i / 8 % 32) * (HUGE / (i & 4 ? 256 : 16));

	return (i & 2 ? entry % HUGE : 0) + 128;
}

/* Accesses with huge pages enabled, as they are when the round begins. */
static long touch_huge(void *arg)
{
	unsigned int i;

	for (i = 0; i < rounds; i++) {
		while (begun == i)
			sched_yield();
		((volatile char *)map)[64 + i % 2] = i;
		over = i + 1;
	}
	return 0;
}

static struct beside *begin_rounds(void)
{
	begun = 0;
	over = 0;
	return beside(touch_huge, NULL);
}

static void one_race(unsigned int index, bool held_up)
{
	struct beside *holder = held_up ? beside(hold_up, NULL) : NULL;
	struct beside *toucher = begin_rounds();
	unsigned int i, wrong = 0;

	for (i = 0; i < rounds; i++) {
		map_anew(index);
		prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
		begun = i + 1;
		/* The other thread's fault begins now or a moment later ... */
		for (volatile unsigned int spin = 0; spin < i % 64 * 16; )
			spin = spin + 1;
		/* ... and this thread's is for pages. */
		prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
		((volatile char *)map)[page_at(i)] = i;
		while (over == i)
			sched_yield();
		wrong += map[64 + i % 2] != (char)i || map[page_at(i)] != (char)i;
	}
	ended(toucher);
	if (held_up)
		assert_int_equal(ended(holder), 0);
	prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
	assert_int_equal(wrong, 0);
}

static void huge_entries_and_pages_side_by_side(void **state)
{
	unsigned int index = *(unsigned int *)*state, all = rounds;

	rounds = all / 2;
	one_race(index, false);
	one_race(index, true);
	rounds = all;
}

/* Both faults wait for one reset, and either may continue first. */
static void huge_entries_and_pages_after_one_reset(void **state)
{
	struct beside *toucher, *resetter;
	unsigned int all = rounds, i;
	long ret;

	rounds = all / 20;
	toucher = begin_rounds();
	for (i = 0; i < rounds; i++) {
		map_anew(i % 2 ? USEMEM : RESMEM);
		prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
		resetter = beside(reset_now, NULL);
		usleep(20000);
		begun = i + 1;
		usleep(20000);
		prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
		((volatile char *)map)[page_at(i)] = i;
		while (over == i)
			sched_yield();
		ret = ended(resetter);
		assert_true(!ret || ret == -EAGAIN);
		assert_int_equal(map[64 + i % 2], (char)i);
		assert_int_equal(map[page_at(i)], (char)i);
	}
	ended(toucher);
	prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
	rounds = all;
}

static int setup(void **state)
{
	char *space;

	rounds = setting("ROUNDS", machine_has("CONFIG_ARCH_SUPPORTS_PMD_PFNMAP") ? 300 : 100);
	vfio_start(&v, "gh200");
	space = mmap(NULL, 2 * HUGE, PROT_NONE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_true(space != MAP_FAILED);
	place = (char *)(((uintptr_t)space + HUGE - 1) & ~(HUGE - 1));
	return 0;
}

static const struct CMUnitTest tests[] = {
	VARIANT(huge_entries_and_pages_of_usemem_side_by_side,
		huge_entries_and_pages_side_by_side, NULL, NULL, &(unsigned int){ USEMEM }),
	VARIANT(huge_entries_and_pages_of_resmem_side_by_side,
		huge_entries_and_pages_side_by_side, NULL, NULL, &(unsigned int){ RESMEM }),
	cmocka_unit_test(huge_entries_and_pages_after_one_reset),
};

/* With Linux's own driver, some of these faults end with VM_FAULT_OOM. */
const struct case_group groups[] = {
	{ "pages this-driver carve-out ?CONFIG_ARCH_SUPPORTS_PMD_PFNMAP",
	  CASES(tests), setup, .shared = true },
	{ }
};
