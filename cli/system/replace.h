/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Writes a file as a whole: a reader sees its old content or the new one, and
 * a failure leaves the old one. All files that this program replaces are
 * written here.
 *
 * Only a regular file, or none, is replaced. A symbolic link is followed. A
 * device, a FIFO, or standard output by one of its names is opened and written.
 */
#ifndef NVGRACE_GPU_SYSTEM_REPLACE_H
#define NVGRACE_GPU_SYSTEM_REPLACE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

/* Whether it is the file that standard output is, such as /dev/stdout. */
bool is_stdout(const struct stat *st);

/* Writes all of the text: 0, or -1 with errno. */
int write_all(int fd, const char *text, size_t length);

struct replacement {
	char *file;		/* what the caller named */
	char *target;		/* the file to replace, after all links; NULL: written in place */
	char *temporary;	/* the new file, in the target's directory; NULL: written in place */
	char *text;		/* what to write in place */
	size_t length;
};

/*
 * Writes the text to a new file of that mode, or keeps it if the file must be
 * written in place. NULL sets errno. Then call replacement_commit(), which
 * returns 0, or -1 with errno, or replacement_abandon(). Both free the
 * replacement.
 */
struct replacement *replacement_begin(const char *file, mode_t mode, const char *text, size_t length);
int replacement_commit(struct replacement *r);
void replacement_abandon(struct replacement *r);

#endif
