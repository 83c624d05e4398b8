// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory, text, numbers and time: see util.h.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "system/program.h"
#include "system/util.h"

/* ---- memory ------------------------------------------------------------- */

static _Noreturn void out_of_memory(void)
{
	fputs(PROGRAM ": out of memory\n", stderr);
	exit(EXIT_FAILED);
}

void *xcalloc(size_t n, size_t size)
{
	void *p = calloc(n ? n : 1, size ? size : 1);

	if (!p)
		out_of_memory();
	return p;
}

void *xrealloc(void *p, size_t size)
{
	void *larger = realloc(p, size ? size : 1);

	if (!larger)
		out_of_memory();
	return larger;
}

char *xstrdup(const char *s)
{
	char *copy = strdup(s);

	if (!copy)
		out_of_memory();
	return copy;
}

char *xvasprintf(const char *fmt, va_list args)
{
	char *text;

	if (vasprintf(&text, fmt, args) < 0)
		out_of_memory();
	return text;
}

char *xasprintf(const char *fmt, ...)
{
	va_list args;
	char *text;

	va_start(args, fmt);
	text = xvasprintf(fmt, args);
	va_end(args);
	return text;
}

/* ---- text and numbers --------------------------------------------------- */

void make_printable(char *text)
{
	for (; *text; text++)
		if (*text < ' ' || *text > '~')
			*text = '?';
}

char *replaced(const char *text, const char *words, const char *by)
{
	char *done = xstrdup(""), *longer;
	const char *at;

	for (; (at = strstr(text, words)); text = at + strlen(words)) {
		longer = xasprintf("%s%.*s%s", done, (int)(at - text), text, by);
		free(done);
		done = longer;
	}
	longer = xasprintf("%s%s", done, text);
	free(done);
	return longer;
}

bool parse_u64(const char *text, uint64_t *value)
{
	bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
	char *end;

	/* strtoull() accepts spaces and signs. */
	if (!isxdigit((unsigned char)text[hex ? 2 : 0]))
		return false;
	errno = 0;
	*value = strtoull(text, &end, hex ? 16 : 10);
	return !errno && !*end;
}

char *next_line(const char **text)
{
	const char *start = *text, *end;

	if (!start || !*start)
		return NULL;
	end = strchrnul(start, '\n');
	*text = *end ? end + 1 : end;
	return xasprintf("%.*s", (int)(end - start), start);
}

char *field_value(const char *text, const char *name)
{
	size_t length = strlen(name);
	const char *at, *end;
	char *value;

	for (at = text; at; at = strchr(at, '\n')) {
		at += *at == '\n';
		if (strncmp(at, name, length) || at[length] != ':')
			continue;
		at += length + 1;
		at += strspn(at, " \t");
		end = at + strcspn(at, "\n");
		while (end > at && isspace((unsigned char)end[-1]))
			end--;
		value = xasprintf("%.*s", (int)(end - at), at);
		make_printable(value);
		return value;
	}
	return NULL;
}

bool has_word(const char *list, const char *word)
{
	size_t len = strlen(word), n;

	while (list && *list) {
		list += strspn(list, " \n");
		n = strcspn(list, " \n");
		if (n == len && !strncmp(list, word, len))
			return true;
		list += n;
	}
	return false;
}

/* ---- time --------------------------------------------------------------- */

long long now_ms(void)
{
	struct timespec ts;

	/* Without the time in which the host is suspended. */
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}
