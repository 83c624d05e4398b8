/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A client without root that owns a GPU's files, as a VMM in a container or one
 * that libvirt has started.
 */
#ifndef NVGRACE_TEST_CLIENT_H
#define NVGRACE_TEST_CLIENT_H

#include "lib.h"

/* Nobody else has this id, as user or as group. */
#define CLIENT_ID	54321

/*
 * Makes the client the owner of a bound GPU's group, and of its own file and
 * /dev/iommu where the kernel has them, as udev would.
 */
void client_owns(const struct gpu *gpu);

/* The GPU's own file: whether the kernel has one; its path is then in @path. */
bool client_cdev(const struct gpu *gpu, char *path, size_t size);

/* Root's last act: no id, group or capability of root's, and no way back. */
void client_drop_root(void);

/*
 * Runs @fn in a child that has dropped root and has no file open but standard
 * input and output.  Fails the test with what the child has said by
 * client_says(), or if it has not come to its end.  The second returns what it
 * said, for tests of such functions.
 */
void as_client(void (*fn)(void));
const char *client_answer(void (*fn)(void));

/* Notes what is wrong, for the above; may be called many times. */
void client_says(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Notes a condition that doesn't hold, and goes on. */
#define client_expects(condition)					\
	do {								\
		if (!(condition))					\
			client_says("line %d: not %s (errno %d)",	\
				    __LINE__, #condition, errno);	\
	} while (0)

#endif /* NVGRACE_TEST_CLIENT_H */
