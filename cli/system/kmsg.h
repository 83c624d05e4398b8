/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Reads the kernel's log, since boot or from a mark on: only the log has the reason
 * for a refused bind.
 */
#ifndef NVGRACE_GPU_SYSTEM_KMSG_H
#define NVGRACE_GPU_SYSTEM_KMSG_H

/*
 * A descriptor for all messages that the kernel still has, or for those after this
 * call; -1 if the log can't be read. The caller closes it.
 */
int kmsg_open(void);
int kmsg_mark(void);

/*
 * A message. priority: facility * 8 + level, and 0 to 7 are the kernel's own messages.
 * text: printable, without the newline.
 */
struct kmsg {
	int priority;
	const char *text;
};

/*
 * Calls line() with each message of the descriptor since the last call. fd may be -1.
 * Returns 0, EPIPE if the kernel has dropped messages before they were read, or the
 * error with which reading ended.
 */
int kmsg_read(int fd, void (*line)(void *data, const struct kmsg *message), void *data);

#endif
