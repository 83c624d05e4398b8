/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Gives devices to our driver and takes them away, all of them at the same time, and never leaves
 * one half way: what fails or is interrupted is put back. bind.c, which has asked whether it may be
 * done, calls it.
 */
#ifndef NVGRACE_GPU_SWITCH_H
#define NVGRACE_GPU_SWITCH_H

#include <signal.h>

#include "commands.h"

struct text_list {
	char **text;
	size_t count;
};

/* Takes over the text. */
void text_list_add(struct text_list *list, char *text);
void text_list_free(struct text_list *list);

/* A device's change: filled in by the caller, who frees it with job_free(). */
struct job {
	struct host *host;
	char address[ADDRESS_MAX];
	bool bind;	/* else unbind */
	bool probe;	/* unbind: let the kernel look for another driver */

	enum exit_status status;
	const char *result;	/* the schema's "result"; NULL until something ended this job */
	bool changed;		/* the driver or the override is another than before */
	char *message;		/* what happened, or went wrong */
	char *next;		/* the next step, or NULL */
	struct text_list log;	/* what the kernel's log said about it, if it failed */

	/* switch.c's own. */
	int kmsg;	/* open at the place where the log ended before */
	int writer;	/* process that writes for us; 0: none. Guarded by switch.c's lock */
	char *was;	/* driver before, or NULL */
};

/* End a job; takes over message and next. */
void job_end(struct job *job, enum exit_status status, const char *result, char *message,
	     char *next);
void job_free(struct job *job);

/*
 * The signals that interrupt: SIGINT, SIGTERM and SIGHUP, but for those that whoever started us
 * wants ignored. The caller blocks them before it begins what must not be left half way.
 */
void switch_signals(sigset_t *signals);

/*
 * Do all jobs that have no result yet, in parallel. The signals, which must be blocked, end what
 * waits and have it put back. No other thread may run.
 */
void switch_all(struct job *jobs, size_t count);

/*
 * Load the module, unless the driver is there. NULL, or why not: to be freed, as is *next, and the
 * kernel's lines go to log.
 */
char *switch_load_module(struct host *h, char **next, struct text_list *log);

#endif
