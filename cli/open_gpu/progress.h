/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The progress of a long command, a line with the time left on standard error if
 * that is a terminal, and its interruption.
 */
#ifndef NVGRACE_GPU_OPEN_GPU_PROGRESS_H
#define NVGRACE_GPU_OPEN_GPU_PROGRESS_H

#include <glib.h>

#include "system/util.h"

/*
 * Begins to watch for SIGINT, SIGTERM and SIGHUP, unless they are ignored: each
 * ends the process with EXIT_INTERRUPTED after a message with address and text.
 * The kernel closes all files, whatever the threads do. Call it before other
 * threads start. Later calls, after progress_end(), only begin another line.
 */
void progress_begin(const char *address, const char *text);

/* Replaces the text of that message. */
void progress_interrupted(const char *text);

/*
 * Has fn called before the end of the process by a signal, in another thread
 * than the caller's. NULL: no longer.
 */
void progress_undo(void (*fn)(void *data), void *data);

/* Prints a message as complain() does, above the line. */
void progress_say(const char *address, const char *text);

/*
 * Sets the share that is done (0 to 1), the seconds left (negative: not known)
 * and the current step. Cheap enough for thousands of steps.
 */
void progress_step(double done, double left, const char *fmt, ...) G_GNUC_PRINTF(3, 4);

/* Removes the line. Signals still end the process. */
void progress_end(void);

#endif
