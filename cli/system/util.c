// SPDX-License-Identifier: GPL-2.0-only
/*
 * Text, numbers and time: see util.h.
 */
#include <ctype.h>
#include <glib.h>
#include <string.h>
#include <time.h>

#include "system/util.h"

/* ---- text and numbers --------------------------------------------------- */

void make_printable(char *text)
{
	for (; *text; text++)
		if (*text < ' ' || *text > '~')
			*text = '?';
}

char *replaced(const char *text, const char *words, const char *by)
{
	g_auto(GStrv) parts = g_strsplit(text, words, -1);

	return g_strjoinv(by, parts);
}

bool parse_u64(const char *text, uint64_t *value)
{
	bool hex = g_str_has_prefix(text, "0x") || g_str_has_prefix(text, "0X");

	return g_ascii_string_to_unsigned(hex ? text + 2 : text, hex ? 16 : 10, 0, UINT64_MAX, value,
					  NULL);
}

char **text_lines(const char *text)
{
	char **lines = g_strsplit(text ? text : "", "\n", -1);
	guint count = g_strv_length(lines);

	if (count && !*lines[count - 1])
		g_clear_pointer(&lines[count - 1], g_free);
	return lines;
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
		value = g_strndup(at, end - at);
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

double now(void)
{
	struct timespec ts;

	/* Without the time in which the host is suspended. */
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}
