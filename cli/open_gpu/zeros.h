/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Reads all of a GPU's memory and finds what is not 0: for "scrub --verify".
 */
#ifndef NVGRACE_GPU_OPEN_GPU_ZEROS_H
#define NVGRACE_GPU_OPEN_GPU_ZEROS_H

#include <pthread.h>

#include "open_gpu/open_gpu.h"
#include "open_gpu/workers.h"

/* A word of 8 bytes that isn't 0. */
struct difference {
	const struct part *part;
	uint64_t offset;		/* in the part, bytes */
	uint64_t found;
};

struct zeros {
	struct open_gpu *e;
	atomic_ullong differences;	/* words */
	struct difference first;	/* at the lowest address; part is NULL: none */

	atomic_ullong done;		/* bytes */
	uint64_t total;
	double begin;

	/* Private to zeros.c. */
	pthread_mutex_t lock;
	char *maps[2];			/* of the parts */
};

/* How reading ended. */
enum sweep { SWEEP_DONE, SWEEP_FAULT, SWEEP_ERROR };

/*
 * Reads both parts with all threads; what a scrub wrote last comes first. After
 * SWEEP_FAULT, *place is where (to be freed); after SWEEP_ERROR, errno is set.
 */
enum sweep zeros_read(struct zeros *z, char **place);

#endif
