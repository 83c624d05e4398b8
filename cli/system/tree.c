// SPDX-License-Identifier: GPL-2.0-only
/* See tree.h. */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <limits.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "system/tree.h"

/*
 * Like openat2(2) with RESOLVE_IN_ROOT, for kernels and sandboxes without it.
 */
static int open_by_hand(const char *root, const char *path, int flags)
{
	g_autofree char *rest = g_strdup(path), *done = g_strdup(""), *last = NULL;
	char *at, *next, target[PATH_MAX];
	unsigned int links = 0;

	for (at = rest; *at; at = next) {
		g_autofree char *here = NULL, *full = NULL;
		size_t length = strcspn(at, "/");
		ssize_t n = -1;

		next = at + length + strspn(at + length, "/");
		if (!length || (length == 1 && *at == '.'))
			continue;
		if (length == 2 && !strncmp(at, "..", 2)) {
			char *slash = strrchr(done, '/');

			/* At the root it stays there. */
			if (slash)
				*slash = 0;
			continue;
		}
		here = g_strdup_printf("%s/%.*s", done, (int)length, at);
		full = g_strconcat(root, here, NULL);
		if (*next || !(flags & O_NOFOLLOW))
			n = readlink(full, target, sizeof(target) - 1);
		else
			errno = EINVAL;
		if (n < 0 && errno != EINVAL)
			return -1;
		if (n < 0) {
			g_free(done);
			done = g_steal_pointer(&here);
			continue;
		}
		if (++links > 40) {
			errno = ELOOP;
			return -1;
		}
		target[n] = 0;
		if (*target == '/')
			*done = 0;
		next = g_strconcat(target, "/", next, NULL);
		g_free(rest);
		rest = next;
	}
	last = g_strconcat(root, done, NULL);
	return open(last, flags | (*done ? O_NOFOLLOW : 0));
}

int tree_open(const char *root, int dir, const char *path, int flags)
{
	struct open_how how = { .flags = flags, .resolve = RESOLVE_IN_ROOT };
	int fd, tries = 16;

	/* EAGAIN: something was renamed meanwhile. */
	do {
		fd = syscall(SYS_openat2, dir, path, &how, sizeof(how));
	} while (fd < 0 && errno == EAGAIN && --tries);
	/* Sandboxes answer system calls that they don't know with EPERM. */
	if (fd < 0 && (errno == ENOSYS || errno == EPERM))
		fd = open_by_hand(root, path, flags);
	return fd;
}
