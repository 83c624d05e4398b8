/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Reads the kernel's log from a mark on: only the log has the reason for a
 * refused bind.
 */
#ifndef NVGRACE_GPU_SYSTEM_KMSG_H
#define NVGRACE_GPU_SYSTEM_KMSG_H

#include <stdbool.h>

/*
 * A descriptor for the messages after this call; -1 if the log can't be read.
 * The caller closes it.
 */
int kmsg_mark(void);

/*
 * Calls line() with each message since the mark, or since the last call. The
 * text is printable and without the newline. priority: facility * 8 + level,
 * and 0 to 7 are the kernel's own messages. fd may be -1. Returns whether the
 * kernel has dropped messages before they were read.
 */
bool kmsg_read(int fd, void (*line)(void *data, int priority, const char *text), void *data);

#endif
