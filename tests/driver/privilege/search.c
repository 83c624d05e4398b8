// SPDX-License-Identifier: GPL-2.0-only
/* See privilege.h. */
#include <ctype.h>
#include <fcntl.h>
#include <fts.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "privilege.h"

/* Bytes to read of a file that may be endless. */
#define MOST	(64 * MiB)

static uint64_t base, size;

void search_for(const struct gpu *gpu)
{
	base = gpu->base;
	size = gpu->size;
}

static bool inside(uint64_t value)
{
	return value - base < size;
}

/*
 * Plain digits may be a time or a count. Only the first and the last byte of a
 * page count as an address there.
 */
static bool at_edge(uint64_t value)
{
	return inside(value) && (value % 4096 == 0 || value % 4096 == 4095);
}

/* Parses up to 16 digits after leading zeros. */
static bool number(const char *digits, size_t count, unsigned int radix,
		   uint64_t *value)
{
	char text[24];

	while (count > 1 && *digits == '0') {
		digits++;
		count--;
	}
	if (!count || count > 16)
		return false;
	memcpy(text, digits, count);
	text[count] = 0;
	*value = strtoull(text, NULL, radix);
	return true;
}

static bool is_address(const char *digits, size_t count, bool prefixed)
{
	bool decimal = !prefixed && strspn(digits, "0123456789") >= count;
	uint64_t value;

	if (!number(digits, count, 16, &value))
		return false;
	if (decimal ? at_edge(value) : inside(value))
		return true;
	/* Without 0x, a page frame number is too small to be distinctive. */
	if (prefixed && value - base / page < size / page)
		return true;
	return decimal && number(digits, count, 10, &value) &&
	       (at_edge(value) || value == base / page);
}

/* Searches a text that ends with a NUL for numbers. */
static const char *in_text(const char *text, size_t length)
{
	static char found[64];
	const char *p = text, *end = text + length;

	while (p < end) {
		bool prefixed = p[0] == '0' && (p[1] == 'x' || p[1] == 'X');
		const char *digits = p + (prefixed ? 2 : 0);
		size_t count = 0;

		if (!isxdigit(*p) || (p > text && isalnum(p[-1]))) {
			p++;
			continue;
		}
		while (isxdigit(digits[count]))
			count++;
		if (count && is_address(digits, count, prefixed)) {
			snprintf(found, sizeof(found), "%.*s",
				 (int)(digits - p + count), p);
			return found;
		}
		p = digits + count;
	}
	return NULL;
}

static const char *in_bytes(const char *buf, size_t length)
{
	static char found[64];
	size_t at;

	/* The alignment of compilers and of device registers. */
	for (at = 0; at + sizeof(uint64_t) <= length; at += 4) {
		uint64_t value;

		memcpy(&value, buf + at, sizeof(value));
		if (inside(value)) {
			snprintf(found, sizeof(found), "%#llx in binary, at %zu",
				 (unsigned long long)value, at);
			return found;
		}
	}
	return NULL;
}

const char *search_in(const void *buf, size_t length)
{
	const char *found;
	char *text;

	/* A buffer with NULs may be binary. */
	found = memchr(buf, 0, length) ? in_bytes(buf, length) : NULL;
	if (found)
		return found;
	text = malloc(length + 1);
	assert_non_null(text);
	memcpy(text, buf, length);
	text[length] = 0;
	found = in_text(text, length);
	free(text);
	return found;
}

const char *search_file(const char *path, long *bytes)
{
	size_t room = 64 * KiB, length = 0;
	const char *found;
	ssize_t got = 0;
	char *buf;
	int fd;

	*bytes = -1;
	/* Doesn't block: a pipe is read as far as it is filled. */
	fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return NULL;
	buf = malloc(room);
	assert_non_null(buf);
	while (length < MOST) {
		if (length == room) {
			room *= 4;
			buf = realloc(buf, room);
			assert_non_null(buf);
		}
		got = read(fd, buf + length, room - length);
		if (got <= 0)
			break;
		length += got;
	}
	close(fd);
	if (length || !got)
		*bytes = length;
	found = search_in(buf, length);
	free(buf);
	return found;
}

void search_tree(const char *folder, const char *const *leave_out,
		 void (*visit)(const char *path))
{
	char *const roots[] = { (char *)folder, NULL };
	FTS *tree = fts_open(roots, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR, NULL);
	bool processes = !strcmp(folder, "/proc");
	const char *const *out;
	FTSENT *entry;

	while (tree && (entry = fts_read(tree))) {
		for (out = leave_out; *out && strcmp(entry->fts_path, *out); out++)
			;
		if (*out || (processes && entry->fts_level == 1 &&
			     isdigit(entry->fts_name[0])))
			fts_set(tree, entry, FTS_SKIP);
		else if (entry->fts_info == FTS_F)
			visit(entry->fts_path);
	}
	if (tree)
		fts_close(tree);
}
