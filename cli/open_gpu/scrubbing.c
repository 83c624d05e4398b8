// SPDX-License-Identifier: GPL-2.0-only
/*
 * Starts a scrub and reads its state: see scrubbing.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "open_gpu/scrubbing.h"
#include "system/host.h"

static int open_attribute(const char *address, const char *name, int flags)
{
	g_autofree char *path = g_strdup_printf(DEVICES "/%s/nvgrace_gpu/%s", address,
						name);

	return open(path, flags | O_CLOEXEC);
}

int scrub_start(const char *address)
{
	int fd = open_attribute(address, "scrub", O_WRONLY), error = 0;

	if (fd < 0 || write(fd, "1", 1) != 1)
		error = errno;
	if (fd >= 0)
		close(fd);
	return error;
}

int scrub_state_open(const char *address)
{
	return open_attribute(address, "scrub_state", O_RDONLY);
}

char *scrub_state_read(int fd)
{
	char text[64];
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

	if (n < 0)
		return NULL;
	text[n] = 0;
	text[strcspn(text, "\n")] = 0;
	make_printable(text);
	return g_strdup(text);
}
