/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Searches what user space can read for physical addresses of a GPU's memory,
 * in every form in which a kernel prints or copies them.
 */
#ifndef NVGRACE_TEST_SEARCH_H
#define NVGRACE_TEST_SEARCH_H

#include "lib.h"

/* Selects the memory whose addresses the functions below find. */
void search_for(const struct gpu *gpu);

/*
 * Finds an address of that memory in @buf: in hexadecimal, in decimal, as 8
 * bytes in the processor's order, or as a page frame number. Returns it as text
 * in a static buffer; NULL if there is none.
 */
const char *search_in(const void *buf, size_t size);

/*
 * Searches a file, which may be endless. Returns NULL also if it can't be read.
 * *@bytes is the number of bytes read, -1 if it can't be opened or read.
 */
const char *search_file(const char *path, long *bytes);

/*
 * Calls @visit for all regular files below a directory, except those of other
 * processes and of what @leave_out names, a list that ends with NULL. Doesn't
 * follow links.
 */
void search_tree(const char *folder, const char *const *leave_out,
		 void (*visit)(const char *path));

#endif /* NVGRACE_TEST_SEARCH_H */
