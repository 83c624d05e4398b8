// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reads /dev/kmsg: see kmsg.h. A record is
 * "PRIORITY,SEQUENCE,TIME,FLAGS;MESSAGE\n" and then lines that begin with a
 * space, which are ignored here (Documentation/ABI/testing/dev-kmsg).
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "system/kmsg.h"

int kmsg_open(void)
{
	return open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
}

int kmsg_mark(void)
{
	int fd = kmsg_open();

	if (fd >= 0)
		lseek(fd, 0, SEEK_END);
	return fd;
}

/* The kernel writes bytes that aren't printable as \xHH. */
static void unescape(char *text)
{
	char *to = text;

	while (*text) {
		if (text[0] == '\\' && text[1] == 'x' && isxdigit((unsigned char)text[2]) &&
		    isxdigit((unsigned char)text[3])) {
			char hex[3] = { text[2], text[3] };
			int byte = strtol(hex, NULL, 16);

			*to++ = isprint(byte) ? byte : '?';
			text += 4;
		} else {
			*to++ = isprint((unsigned char)*text) ? *text : '?';
			text++;
		}
	}
	*to = 0;
}

int kmsg_read(int fd, void (*line)(void *data, const struct kmsg *message), void *data)
{
	char record[8192 + 1];	/* no record is longer: the kernel's CONSOLE_EXT_LOG_MAX */
	struct kmsg message;
	int dropped = 0;
	char *text;
	ssize_t n;

	while (fd >= 0) {
		n = read(fd, record, sizeof(record) - 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EPIPE) {
			dropped = EPIPE;
			continue;
		}
		if (n < 0 && errno != EAGAIN)
			return errno;
		if (n <= 0)
			break;
		record[n] = 0;
		text = strchr(record, ';');
		if (!text || sscanf(record, "%d,", &message.priority) != 1)
			continue;
		message.text = ++text;
		text[strcspn(text, "\n")] = 0;
		unescape(text);
		line(data, &message);
	}
	return dropped;
}
