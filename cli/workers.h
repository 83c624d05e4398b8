/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Threads that work on memory, each pinned to a CPU of the GPU's NUMA node. A memory error, or a
 * GPU that goes away, ends the work with its place instead of the program. Called by
 * bench_measure.c, test.c and test_pattern.c.
 */
#ifndef NVGRACE_GPU_WORKERS_H
#define NVGRACE_GPU_WORKERS_H

#include <stdatomic.h>

#include "host.h"

/* The CPUs to work on: those of a node that this process may use, else all it may use. */
struct cpus {
	int *cpu;
	size_t count;	/* at least 1 */
	int node;	/* -1: no node, or one without a CPU for us */
};

void cpus_find(struct host *h, int node, struct cpus *cpus);
void cpus_free(struct cpus *cpus);

struct work {
	/* index is the thread's number of count; runs with its CPU's caches to itself, mostly. */
	void (*run)(struct work *work, size_t index, size_t count);
	void *data;

	/* Set by workers_run(). */
	atomic_bool stop;	/* one of them has faulted: run() should end soon */
	double seconds;		/* from the first begin to the last end */
	void *fault;		/* the address of the first SIGBUS; NULL: none */
};

/*
 * Runs work->run() on this many threads at the same time, at most cpus->count. 0, or -1 if one of
 * them faulted (work->fault says where) or could not be started (work->fault is NULL, errno).
 */
int workers_run(const struct cpus *cpus, size_t count, struct work *work);

/* Seconds of CLOCK_MONOTONIC. */
double now(void);

#endif
