/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Threads that access memory, each pinned to a CPU of the GPU's NUMA node. A
 * memory error, or a GPU that disappears, ends the work and reports the place,
 * instead of ending the program.
 */
#ifndef NVGRACE_GPU_OPEN_GPU_WORKERS_H
#define NVGRACE_GPU_OPEN_GPU_WORKERS_H

#include <stdatomic.h>

#include "system/host.h"

/*
 * The CPUs to use: those of the node that this process may use, or else all
 * that it may use.
 */
struct cpus {
	int *cpu;
	size_t count;	/* at least 1 */
	int node;	/* -1: none, or this process may use none of its CPUs */
};

void cpus_find(struct host *h, int node, struct cpus *cpus);
void cpus_free(struct cpus *cpus);

struct work {
	/* index: the thread's number, from 0 to count - 1. */
	void (*run)(struct work *work, size_t index, size_t count);
	void *data;

	/* Set by workers_run(). */
	atomic_bool stop;	/* a thread has faulted: run() should end soon */
	double seconds;		/* from the first start to the last end */
	void *fault;		/* the address of the first SIGBUS; NULL: none */
};

/*
 * Runs work->run() in count threads, at most cpus->count, at the same time. 0,
 * or -1 if a thread faulted (work->fault: where) or could not be started
 * (work->fault is NULL, errno is set).
 */
int workers_run(const struct cpus *cpus, size_t count, struct work *work);

#endif
