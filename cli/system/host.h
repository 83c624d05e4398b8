/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Reads files in /sys, /proc and /etc, through a root prefix, so that a
 * recorded tree can replace a host. Nothing here changes the system.
 *
 * Paths are absolute, as on the host. The functions add the prefix, and no link
 * leads out of it. On failure they return NULL or -1 and set errno: ENOENT or
 * another value for which host_absent() is true if the file is missing, EINVAL
 * if its content has another form, otherwise the system's error. The caller
 * frees what they return.
 */
#ifndef NVGRACE_GPU_SYSTEM_HOST_H
#define NVGRACE_GPU_SYSTEM_HOST_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "system/util.h"

/* A folder for each PCI device. */
#define DEVICES "/sys/bus/pci/devices"

enum host_kind {
	HOST_FILE,	/* data: the content */
	HOST_LINK,	/* data: the target */
	HOST_DIR,	/* data: the names, as host_list() returns them */
	HOST_STAT,	/* data: not NULL if it exists */
};

struct host {
	int dir;	/* descriptor of the tree's root; -1 for the running system */
	bool recorded;	/* a tree: no system calls or programs for answers */
	bool privileged;	/* root reads; for a tree: /answers/euid is 0 or missing */
	uint64_t page_size;	/* 4096, 16384 or 65536; for a tree: /answers/page-size, or 4096 */

	/*
	 * Whether the configuration adds this id of NVIDIA to those of the
	 * driver; NULL: it adds none.
	 */
	bool (*adds_id)(struct host *h, uint16_t device);

	/*
	 * If set, called after each read, even if it failed: then data is NULL,
	 * and error is the later errno. path is without the prefix.
	 */
	void (*seen)(struct host *h, enum host_kind kind, const char *path, const void *data,
		     size_t len, int error);
	void *seen_data;
};

/*
 * root: NULL or "/" for the running system. Ends the program if root is not a
 * directory.
 */
void host_init(struct host *h, const char *root);
void host_exit(struct host *h);

/* Whether errno of the last failure means that the file is missing. */
bool host_absent(void);

/*
 * A whole file of at most 64 MiB, NUL-terminated; its length in *len unless len
 * is NULL.
 */
char *host_read(struct host *h, size_t *len, const char *fmt, ...) G_GNUC_PRINTF(3, 4);

/* Reads the first bytes of a file; returns how many, or -1. */
ssize_t host_head(struct host *h, void *data, size_t len, const char *fmt, ...) G_GNUC_PRINTF(4, 5);

/*
 * The device number of a character device's file; 0: not such a file. Never
 * waits.
 */
dev_t host_rdev(struct host *h, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

/*
 * The first line of a file without surrounding space, unprintable bytes as '?'.
 */
char *host_line(struct host *h, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

/* The same as a number, decimal or hexadecimal with 0x: 0 or -1. */
int host_u64(struct host *h, uint64_t *value, const char *fmt, ...) G_GNUC_PRINTF(3, 4);

/* The value of KEY=value or KEY="value" in os-release(5), "" without one. */
char *host_os_release(struct host *h, const char *key);
int host_int(struct host *h, int *value, const char *fmt, ...) G_GNUC_PRINTF(3, 4);

/* A link's target, or only its last component; unprintable bytes as '?'. */
char *host_link(struct host *h, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
char *host_link_name(struct host *h, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

/*
 * The names in a directory, sorted like versions (2 before 10), then NULL;
 * g_strfreev() frees them.
 */
char **host_list(struct host *h, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

bool host_exists(struct host *h, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

#endif
