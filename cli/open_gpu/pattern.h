/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Patterns over all of a GPU's memory: "nvgrace-gpu test" writes and compares
 * them, and "nvgrace-gpu scrub --verify" compares with zeros.
 */
#ifndef NVGRACE_GPU_OPEN_GPU_PATTERN_H
#define NVGRACE_GPU_OPEN_GPU_PATTERN_H

#include <pthread.h>

#include "open_gpu/open_gpu.h"

/* A word of 8 bytes that isn't what it should be. */
struct difference {
	const struct part *part;
	uint64_t offset;		/* in the part, bytes */
	uint64_t expected, found;
	const struct part *owner;	/* the part whose word it holds; NULL: none */
	uint64_t owner_offset;
};

enum { DIFFERENCES_LISTED = 16 };

struct pattern {
	struct open_gpu *e;
	char *maps[2];			/* of the parts; NULL after pattern_unmap() */
	uint64_t seed;
	bool inverse;
	/*
	 * Expect 0 in all words instead. Nothing is written, and what a scrub
	 * wrote last is read first.
	 */
	bool cleared;
	/*
	 * Not 0: write and compare only 64 bytes, at the beginning and end of
	 * each part and at each multiple of these bytes, in one thread.
	 */
	uint64_t stride;

	/* Results of all comparisons. */
	uint64_t differences;		/* words */
	uint64_t foreign;		/* words that belong to another place */
	struct difference list[DIFFERENCES_LISTED];	/* at the lowest addresses */
	size_t listed;
	uint64_t ones, zeros;		/* bits that were wrongly 1, or 0 */

	/*
	 * The caller's progress: bytes done and in total; bound in seconds, 0:
	 * none.
	 */
	atomic_ullong done;
	uint64_t total;
	double begin, bound;
	const char *doing;

	/* Private to pattern.c. */
	pthread_mutex_t lock;
	uint64_t sampled, changed;
};

/* How a sweep over the memory ended. */
enum sweep { SWEEP_DONE, SWEEP_FAULT, SWEEP_ERROR };

/*
 * pattern_map() maps both parts, read-only if cleared is set; false with errno.
 * Each sweep works on all of both parts that can be mapped, with all threads.
 * After SWEEP_FAULT, *place is where (to be freed); after SWEEP_ERROR, errno is
 * set.
 */
bool pattern_map(struct pattern *p);
void pattern_unmap(struct pattern *p);
enum sweep pattern_write(struct pattern *p, char **place);
enum sweep pattern_compare(struct pattern *p, char **place);

/*
 * Compares one word of every 4 KiB; *sampled: how many, *changed: how many
 * differ.
 */
enum sweep pattern_sample(struct pattern *p, uint64_t *sampled, uint64_t *changed, char **place);

/*
 * Writes and compares what can't be mapped, less than a page at the end of a
 * part, through the device's file. 0 or a negative errno. If cleared is set,
 * pattern_compare() has read that.
 */
int pattern_rest(struct pattern *p);

/* The place of an address in the mapped parts, as text; to be freed. */
char *pattern_place(const struct pattern *p, const void *address);

#endif
