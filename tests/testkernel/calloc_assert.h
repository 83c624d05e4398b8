/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The vfio tests of Linux 7.2.12 call this function without defining it.
 * tests/testkernel/build includes this header for such kernels.
 */
#include <stdio.h>
#include <stdlib.h>

static inline void *calloc_assert(size_t count, size_t size)
{
	void *room = calloc(count, size);

	if (!room) {
		perror("calloc");
		exit(1);
	}
	return room;
}
