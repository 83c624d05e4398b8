/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The checks of "nvgrace-gpu test"; test.c calls them and prints the results.
 */
#ifndef NVGRACE_GPU_TEST_CHECKS_H
#define NVGRACE_GPU_TEST_CHECKS_H

#include "exercise/pattern.h"

enum outcome { PASSED, FAILED, NOTED, SKIPPED };

struct check {
	const char *id;		/* stable, in JSON */
	enum outcome outcome;
	char *text;
};

/* Counts that must not grow. GPU_UNKNOWN: not counted. */
struct errors {
	uint64_t fatal, nonfatal, correctable;	/* PCIe errors of this device */
	uint64_t poisoned;			/* bytes that the kernel has taken out of use */
	uint64_t uncorrected, corrected;	/* memory errors, counted by EDAC */
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
	bool broken;		/* the memory is unusable */
	double ready;		/* seconds after the reset; negative: not known */
	int survived;		/* 1, 0; -1: not known */

	struct check *checks;
	size_t count;
};

/*
 * Each adds at least one result. Once the memory is broken, checks that access
 * it are skipped.
 */
void check_sizes(struct test *t);
void check_bars(struct test *t);
void check_ends(struct test *t);
void check_tail(struct test *t);
void check_file(struct test *t);
void check_pattern(struct test *t);
void check_reset(struct test *t);
void check_link(struct test *t);
void check_errors_after(struct test *t);

/* Reads the current counts. */
void errors_read(const struct test *t, struct errors *errors);

#endif
