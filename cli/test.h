/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The parts of "nvgrace-gpu test": test.c is the command, its order and its output,
 * test_checks.c has the checks, and test_pattern.c writes and compares the patterns. "nvgrace-gpu
 * scrub --verify" compares with zeros by the last of these.
 */
#ifndef NVGRACE_GPU_TEST_H
#define NVGRACE_GPU_TEST_H

#include <pthread.h>

#include "exercise.h"

/* ---- patterns (test_pattern.c) ------------------------------------------ */

/* A word of 8 bytes that isn't what it should be. */
struct difference {
	const struct vfio_part *part;
	uint64_t offset;		/* in the part, bytes */
	uint64_t expected, found;
	const struct vfio_part *owner;	/* whose word it holds; NULL: nobody's */
	uint64_t owner_offset;
};

enum { DIFFERENCES_LISTED = 16 };

struct pattern {
	struct exercise *e;
	char *maps[2];			/* of the parts; NULL after pattern_unmap() */
	uint64_t seed;
	bool inverse;
	bool cleared;			/* all words are 0 instead: not to be written */

	/* What all comparisons have found. */
	uint64_t differences;		/* words */
	uint64_t foreign;		/* those of them that hold another place's word */
	struct difference list[DIFFERENCES_LISTED];	/* those with the lowest places */
	size_t listed;
	uint64_t ones, zeros;		/* bits that were 1, or 0, for the other */

	/* The caller's progress: bytes done and to be done in all; seconds that bound it, 0: none. */
	atomic_ullong done;
	uint64_t total;
	double begin, bound;
	const char *doing;

	/* test_pattern.c's own. */
	pthread_mutex_t lock;
	uint64_t sampled, changed;
};

/* How a sweep over the memory ended. */
enum sweep { SWEEP_DONE, SWEEP_FAULT, SWEEP_ERROR };

/*
 * Map both parts whole, for reading alone if cleared is set; false leaves errno. Each sweep works on
 * all of both parts, with all threads. After SWEEP_FAULT, *place says where (to be freed); after
 * SWEEP_ERROR, errno is set.
 */
bool pattern_map(struct pattern *p);
void pattern_unmap(struct pattern *p);
enum sweep pattern_write(struct pattern *p, char **place);
enum sweep pattern_compare(struct pattern *p, char **place);

/* Compares one word of every 4 KiB: how many were looked at, and how many are not the pattern's. */
enum sweep pattern_sample(struct pattern *p, uint64_t *sampled, uint64_t *changed, char **place);

/* Where in the mapped parts an address is, for people; to be freed. */
char *pattern_place(const struct pattern *p, const void *address);

/* ---- checks (test_checks.c) --------------------------------------------- */

enum outcome { PASSED, FAILED, NOTED, SKIPPED };

struct check {
	const char *id;		/* stable, in JSON */
	enum outcome outcome;
	char *text;
};

/* Counts that must not grow. GPU_UNKNOWN: nobody counts. */
struct errors {
	uint64_t fatal, nonfatal, correctable;	/* of PCIe, of this device */
	uint64_t poisoned;			/* bytes that the kernel has given up */
	uint64_t uncorrected, corrected;	/* memory errors that EDAC has counted */
};

struct test {
	struct exercise e;
	struct pattern pattern;
	struct errors before;
	double ready_limit;	/* seconds */
	uint64_t seed;
	uint64_t passes;
	double seconds;
	double bound;		/* --time; 0: one pass */
	bool broken;		/* the memory can't be used any more */
	double ready;		/* seconds after the reset; negative: not known */
	int survived;		/* 1, 0; -1: not known */

	struct check *checks;
	size_t count;
};

/* Each adds its result, or several. What touches memory is skipped once the memory is broken. */
void check_sizes(struct test *t);
void check_bars(struct test *t);
void check_ends(struct test *t);
void check_tail(struct test *t);
void check_file(struct test *t);
void check_pattern(struct test *t);
void check_reset(struct test *t);
void check_link(struct test *t);
void check_errors_after(struct test *t);

/* The counts now. */
void errors_read(const struct test *t, struct errors *errors);

#endif
