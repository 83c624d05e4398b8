// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reads /dev/kmsg: see kmsg.h. A record is
 * "PRIORITY,SEQUENCE,TIME,FLAGS;MESSAGE\n" and then lines that begin with a
 * space, which are ignored here (Documentation/ABI/testing/dev-kmsg).
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "system/kmsg.h"

int kmsg_mark(void)
{
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);

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

bool kmsg_read(int fd, void (*line)(void *data, int priority, const char *text), void *data)
{
	char record[8192 + 1];	/* no record is longer: the kernel's CONSOLE_EXT_LOG_MAX */
	bool dropped = false;
	char *message;
	ssize_t n;

	while (fd >= 0) {
		n = read(fd, record, sizeof(record) - 1);
		/*
		 * EPIPE: records were overwritten before they were read;
		 * continue.
		 */
		dropped |= n < 0 && errno == EPIPE;
		if (n < 0 && (errno == EPIPE || errno == EINTR))
			continue;
		if (n <= 0)
			break;
		record[n] = 0;
		message = strchr(record, ';');
		if (!message)
			continue;
		message++;
		message[strcspn(message, "\n")] = 0;
		unescape(message);
		line(data, strtol(record, NULL, 10), message);
	}
	return dropped;
}
