/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Threads that access memory. A memory error, or a GPU that disappears, ends the
 * work and reports the place, instead of ending the program.
 */
#ifndef NVGRACE_GPU_OPEN_GPU_WORKERS_H
#define NVGRACE_GPU_OPEN_GPU_WORKERS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

struct work {
	/* index: the thread's number, from 0 to count - 1. */
	void (*run)(struct work *work, size_t index, size_t count);
	void *data;
	size_t count;		/* of threads; 0: one for each CPU that this process may use */

	/* Set by workers_run(). */
	atomic_bool stop;	/* a thread has faulted: run() should end soon */
	void *fault;		/* the address of a SIGBUS; NULL: none */
};

/*
 * Runs work->run() in all threads. 0, or -1 if one faulted or could not be started
 * (work->fault is NULL, errno is set).
 */
int workers_run(struct work *work);

#endif
