/* SPDX-License-Identifier: GPL-2.0-only */
/* Shared by the files of the program "privilege". */
#ifndef NVGRACE_TEST_PRIVILEGE_H
#define NVGRACE_TEST_PRIVILEGE_H

#include "lib.h"

/* ---- client.c: an unprivileged owner of a GPU's files, as a VMM is ------- */

/* Makes the client the owner of a bound GPU's group, as udev would. */
void client_owns(const struct gpu *gpu);

/*
 * Runs @fn in a child without root's privileges and with no files but standard
 * input and output. as_client() fails the test with what the child reported by
 * client_says(), or if the child did not finish. client_answer() returns the
 * report instead.
 */
void as_client(void (*fn)(void));
const char *client_answer(void (*fn)(void));

/* Reports an error, for the above; may be called many times. */
void client_says(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Reports a condition that doesn't hold, and continues. */
#define client_expects(condition)					\
	do {								\
		if (!(condition))					\
			client_says("line %d: not %s (errno %d)",	\
				    __LINE__, #condition, errno);	\
	} while (0)

/*
 * ---- search.c: physical addresses of a GPU's memory, in every form in which a
 * kernel prints or copies them ----
 */

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

#endif /* NVGRACE_TEST_PRIVILEGE_H */
