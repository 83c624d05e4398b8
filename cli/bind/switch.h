/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Binds and unbinds GPUs, all at the same time. If a change fails or is
 * interrupted, the GPU gets its former driver and override back. bind.c calls
 * it, after all checks that may refuse.
 */
#ifndef NVGRACE_GPU_BIND_SWITCH_H
#define NVGRACE_GPU_BIND_SWITCH_H

#include <glib.h>
#include <pthread.h>
#include <stdbool.h>

#include "facts/gpu.h"
#include "system/outcome.h"

/* One GPU's change. The caller sets the first members, and calls job_free(). */
struct job {
	struct host *host;
	char address[ADDRESS_MAX];
	bool bind;	/* else unbind */
	bool probe;	/* unbind: let the kernel look for another driver */
	/*
	 * bind: udev's event. The override comes first, and stays if there is no module
	 * yet, so that no other driver gets the GPU; and udev ends what lasts too long.
	 */
	bool at_boot;
	const struct gpu *gpu;	/* as it was before */

	struct outcome outcome;
	bool changed;		/* the driver or the override has changed */
	GPtrArray *log;		/* the kernel's log about it, if it failed */

	/* Private to switch.c. */
	int kmsg;	/* kmsg_mark() before the change */
	int writer;	/* pid of the child that writes; 0: none. writers_lock protects it */
	char *was;	/* the former driver, or NULL */
	pthread_t thread;	/* that does the steps, if it runs */
	bool runs;
};

/* Sets the job's outcome; takes over message and next. */
void job_end(struct job *job, enum exit_status status, const char *result, char *message,
	     char *next);
void job_free(struct job *job);

/*
 * Runs all jobs that have no result yet, in parallel. The caller has blocked
 * the interrupting signals; one of them ends what waits, and the GPUs are
 * restored. A write that not even SIGKILL ends, because a driver waits for its
 * users, is left behind: the outcome says so. No other thread may run.
 */
void switch_all(struct job *jobs, size_t count);

#endif
