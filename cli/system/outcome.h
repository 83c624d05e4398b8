/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How a command ended for one GPU: its exit status, and what it prints. bind,
 * unbind and scrub have one for each GPU.
 */
#ifndef NVGRACE_GPU_SYSTEM_OUTCOME_H
#define NVGRACE_GPU_SYSTEM_OUTCOME_H

#include "system/program.h"

/* The caller sets it to zeros. */
struct outcome {
	enum exit_status status;
	const char *result;	/* the schema's "result"; NULL until the end */
	char *message;		/* what was done, or failed */
	char *next;		/* the remedy, or NULL */
};

/* Replaces the outcome; takes over message and next. */
void outcome_set(struct outcome *o, enum exit_status status, const char *result, char *message,
		 char *next);
void outcome_free(struct outcome *o);

/* Prints it on standard output if the status is EXIT_OK, else complains. */
void outcome_print(const struct outcome *o, const char *address);

#endif
