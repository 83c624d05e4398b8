/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * An unprivileged client that owns a GPU's files, like a VMM in a container or
 * one that libvirt has started.
 */
#ifndef NVGRACE_TEST_CLIENT_H
#define NVGRACE_TEST_CLIENT_H

#include "lib.h"

/* No other user or group has this id. */
#define CLIENT_ID	54321

/*
 * Makes the client the owner of a bound GPU's group and, if the kernel has
 * them, of its device file and /dev/iommu, as udev would.
 */
void client_owns(const struct gpu *gpu);

/* Returns whether the GPU has a device file, and its path in @path. */
bool client_cdev(const struct gpu *gpu, char *path, size_t size);

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

#endif /* NVGRACE_TEST_CLIENT_H */
