/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Looks for physical addresses of a GPU's memory in what user space can read,
 * in every form in which a kernel prints or copies them.
 */
#ifndef NVGRACE_TEST_SEARCH_H
#define NVGRACE_TEST_SEARCH_H

#include "lib.h"

/* The memory that is looked for from now on. */
void search_for(const struct gpu *gpu);

/*
 * What in @buf is an address of this memory: hexadecimal, decimal, or 8 bytes as
 * the processor stores them, or the number of a page of it.  As text in a static
 * buffer; NULL if nothing is.
 */
const char *search_in(const void *buf, size_t size);

/*
 * The same for a file, which may have no end; NULL also if it can't be read.
 * *@bytes is what it had, -1 if it can't be opened or read.
 */
const char *search_file(const char *path, long *bytes);

/*
 * Calls @visit for all regular files below a folder, those of other processes and
 * what @leave_out names, which ends with NULL, excepted.  Links aren't followed.
 */
void search_tree(const char *folder, const char *const *leave_out,
		 void (*visit)(const char *path));

#endif /* NVGRACE_TEST_SEARCH_H */
