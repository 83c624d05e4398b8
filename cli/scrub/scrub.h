/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A run of "nvgrace-gpu scrub": the GPUs, and what is known of each. scrub.c has the
 * command, overwrite.c the driver's scrubs, verify.c reads the memory back, and
 * results.c prints and keeps what came out.
 */
#ifndef NVGRACE_GPU_SCRUB_SCRUB_H
#define NVGRACE_GPU_SCRUB_SCRUB_H

#include <time.h>

#include "facts/gpu.h"
#include "open_gpu/parts.h"
#include "system/outcome.h"

/* Result of reading the memory back. */
struct verified {
	bool tried, done;		/* done: all memory was read */
	uint64_t bytes, differences;	/* differences: words of 8 bytes that are not 0 */
	double seconds;
	time_t time;			/* when that ended */
	struct part part;		/* of the first one */
	uint64_t offset, found;		/* its place there, in bytes, and its value */
};

/* A GPU and its scrub. */
struct target {
	const struct gpu *gpu;
	uint64_t total;		/* bytes to overwrite */
	uint64_t before;	/* scrub_progress before the scrub was started */
	bool joined;		/* a scrub was already running */
	bool moved;		/* scrub_progress has changed: it is this scrub's */
	uint64_t bytes;		/* overwritten so far */
	double begin, seconds;
	int file;		/* scrub_state; -1: not open */
	struct verified verified;

	struct outcome outcome;
	bool failed;		/* the driver reports it: the kernel's log has the reason */
	char *log;		/* the driver's last line about it; NULL: none, or not readable */
};

struct scrub {
	struct host *host;
	bool verify, json;
	struct gpus gpus;
	struct target *targets;
	size_t count;
	int kmsg;
	double begin;
};

/* Ends the target; takes over message and next, which may be NULL. */
void target_end(struct target *t, enum exit_status status, const char *result, char *message,
		char *next);

/* Bytes overwritten since this program started, for the rate. */
uint64_t bytes_seen(const struct target *t);

/* "94.50 GiB in 0.31 s, 327 GB/s"; to be freed. */
char *amount_text(uint64_t bytes, double seconds);

/* Has the driver overwrite all GPUs, and returns when all scrubs have ended. */
void overwrite_all(struct scrub *s);

/* Opens a GPU whose scrub has ended well, and reads its memory. */
void verify(struct host *h, struct target *t);

/* Keeps what was read back, and writes to the system's log. */
void keep_results(struct scrub *s);

/* Prints what became of all GPUs; returns the worst exit status. */
enum exit_status print_results(struct scrub *s);

#endif
