/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The kernel's log from a mark on: the reason of a refused bind is there and nowhere else. switch.c
 * and scrub.c call it.
 */
#ifndef NVGRACE_GPU_KMSG_H
#define NVGRACE_GPU_KMSG_H

#include <stdbool.h>

/*
 * A descriptor of which only what is logged from now on can be read; -1 where the log can't be
 * read.
 */
int kmsg_mark(void);

/*
 * Calls line() with each message since the mark, or since the last call; the text is printable and
 * without its end of line.
 */
void kmsg_read(int fd, void (*line)(void *data, const char *text), void *data);

#endif
