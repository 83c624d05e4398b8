/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Accesses of other threads to memory that isn't ready. Such an access waits,
 * and fails after 30 s. A machine may be stopped for that long between two
 * lines of a test, which then starts again:
 *
 *	do {
 *		waits_begin();
 *		... reset, access = beside(...) ...
 *		assert_waits(access);
 *		... make the memory ready ...
 *		again = waits_again();
 *		... results count unless again ...
 *	} while (again);
 */
#ifndef NVGRACE_TEST_WAITS_H
#define NVGRACE_TEST_WAITS_H

#include <errno.h>
#include <unistd.h>

#include "lib.h"

#define WAIT_MS		30000

static uint64_t waits_end = UINT64_MAX;

/* From now on, waits may begin, and none did before. */
static inline void waits_begin(void)
{
	waits_end = now_ms() + WAIT_MS;
}

/* Whether waits may have failed already. */
static inline bool waits_are_over(void)
{
	return now_ms() >= waits_end;
}

/*
 * Call this once the memory is ready. Returns whether the test must begin anew:
 * it came too late for some wait.
 */
static inline bool waits_again(void)
{
	static unsigned int repeated;

	if (!waits_are_over())
		return false;
	print_message("# the waits were over before the memory was ready\n");
	/* It is the driver that takes so long each time. */
	assert_true(++repeated < 5);
	return true;
}

/*
 * The state of a thread or process as in /proc: 'D' if it waits in the kernel,
 * 'Z' if it has ended.
 */
static inline char state_of(pid_t tid)
{
	char path[64], state;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", tid);
	f = fopen(path, "r");
	if (!f)
		return 'Z';
	if (fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
		state = 'Z';
	fclose(f);
	return state;
}

/* Sleeps until a thread or process waits in the kernel, or has ended. */
static inline void until_it_waits(pid_t tid)
{
	unsigned int seen = 0;
	char state;

	/* Three times: once may be a lock that is free a moment later. */
	do {
		usleep(2000);
		state = state_of(tid);
		seen += state == 'D';
	} while (seen < 3 && state != 'Z');
}

/* Fails the test unless this waits in the kernel, or once it may have failed. */
static inline void assert_waits(struct beside *b)
{
	until_it_waits(b->tid);
	assert_true(!b->over || waits_are_over());
}

/* An access to GPU memory by another thread: how, where, and eight bytes. */
struct access {
	struct vfio *dev;
	enum { LOAD, STORE, READ, WRITE } how;
	char *page;		/* to load from or store to */
	uint64_t at;		/* offset in the device's file, to read or write */
	uint64_t word;
	struct beside *beside;
};

static inline void load_or_store(void *arg)
{
	struct access *a = arg;

	if (a->how == LOAD)
		a->word = *(volatile uint64_t *)a->page;
	else
		*(volatile uint64_t *)a->page = a->word;
}

/* For beside(). Returns 8 or a negative errno. */
static inline long access_memory(void *arg)
{
	struct access *a = arg;

	if (a->how == READ)
		return vfio_read(a->dev, a->at, &a->word, 8);
	if (a->how == WRITE)
		return vfio_write(a->dev, a->at, &a->word, 8);
	return raises_sigbus(load_or_store, a) ? -EFAULT : 8;
}

/* The memory isn't ready, so all of them must wait. */
static inline void assert_all_wait(struct access *a, size_t count)
{
	size_t i;

	for (i = 0; i < count; i++)
		assert_waits(a[i].beside);
	for (i = 0; i < count; i++)
		assert_true(!a[i].beside->over || waits_are_over());
}

/*
 * The memory is ready, so all of them must succeed. Returns false if the test
 * must begin anew.
 */
static inline bool all_succeed(struct access *a, size_t count)
{
	bool again = waits_again();
	size_t i;

	for (i = 0; i < count; i++)
		if (ended(a[i].beside) != 8 && !again)
			fail_msg("access %zu has failed", i);
	return !again;
}

#endif /* NVGRACE_TEST_WAITS_H */
