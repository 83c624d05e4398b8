/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a long command shows while it works, and how it is interrupted: a bar with the time left on
 * standard error, if that is a terminal. Called by exercise.c, bench.c, test.c and scrub.c.
 */
#ifndef NVGRACE_GPU_PROGRESS_H
#define NVGRACE_GPU_PROGRESS_H

#include "host.h"

/*
 * Begins to watch for SIGINT, SIGTERM and SIGHUP, unless they are ignored: each of them ends the
 * process with EXIT_INTERRUPTED after a message, address and text. The kernel closes what it has
 * open, in whatever state the threads are. Call it before other threads are started. Later calls,
 * after progress_end(), only begin another bar.
 */
void progress_begin(const char *address, const char *text, bool bar);

/* What an interruption is to say from now on. */
void progress_interrupted(const char *text);

/*
 * What is being done, how much of all is done (0 to 1), and the seconds left (negative: not
 * known). Cheap enough for each of thousands of steps.
 */
void progress_step(double done, double left, const char *fmt, ...) host_printf(3, 4);

/* Takes the bar away. Signals still end the process. */
void progress_end(void);

#endif
