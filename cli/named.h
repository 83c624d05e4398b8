/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The GPUs that a command line names: "ADDRESS...|--all". For commands that take several.
 */
#ifndef NVGRACE_GPU_NAMED_H
#define NVGRACE_GPU_NAMED_H

#include "commands.h"

/* All zeros before the command line is read. */
struct named {
	bool all;
	char **typed;	/* the command line's own */
	size_t count;
};

/*
 * What a command's parser calls for each key, its own 'a' (--all), the arguments and the end: one of
 * the two must have been given, else the program ends with a usage error. ARGP_ERR_UNKNOWN for any
 * other key.
 */
error_t named_parse(struct named *named, int key, struct argp_state *state);

/*
 * The GPUs of a host, each once, into found, which has room for all of them; *count says how many.
 * With --all those for which belongs() says so. EXIT_OK, or the largest status of what can't be
 * resolved, after a complaint; then *count is 0, since the others may not be what was meant either.
 */
enum exit_status named_find(const struct named *named, struct host *h, const struct gpus *gpus,
			    bool (*belongs)(const struct gpu *gpu, const void *data),
			    const void *data, const struct gpu **found, size_t *count);

#endif
