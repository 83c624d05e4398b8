// SPDX-License-Identifier: GPL-2.0-only
/*
 * Output: see output.h.
 */
#include <errno.h>
#include <glib.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "system/output.h"
#include "system/program.h"
#include "system/replace.h"

void complain(const char *address, const char *fmt, ...)
{
	g_autofree char *text = NULL, *line = NULL;
	va_list args;

	va_start(args, fmt);
	text = g_strdup_vprintf(fmt, args);
	va_end(args);
	/* By one write, so that messages of threads and of other processes stay apart. */
	line = g_strdup_printf(PROGRAM ": %s%s%s\n", address ?: "", address ? ": " : "", text);
	fputs(line, stderr);
}

static bool colourful(void)
{
	static int answer = -1;
	const char *no = getenv("NO_COLOR"), *term = getenv("TERM");

	/* no-color.org: set to anything but the empty string. */
	if (answer < 0)
		answer = isatty(STDOUT_FILENO) && !(no && *no) && term && strcmp(term, "dumb");
	return answer;
}

const char *colour(enum colour colour)
{
	static const char *const sequences[] = {
		[COLOUR_NONE] = "\033[0m",     [COLOUR_GOOD] = "\033[32m",
		[COLOUR_WARNING] = "\033[33m", [COLOUR_BAD] = "\033[31m",
		[COLOUR_DIM] = "\033[2m",      [COLOUR_BOLD] = "\033[1m",
	};

	return colourful() ? sequences[colour] : "";
}

int terminal_width(void)
{
	const char *columns = getenv("COLUMNS");
	struct winsize size;
	uint64_t value;

	if (!ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) && size.ws_col)
		value = size.ws_col;
	else if (!columns || !parse_u64(columns, &value))
		value = 80;
	return value < 40 ? 40 : value > 200 ? 200 : value;
}

void print_wrapped(const char *text, int indent, int column)
{
	int width = terminal_width(), at = column;
	bool first = true;
	size_t length;

	for (; *text; text += length + strspn(text + length, " ")) {
		length = strcspn(text, " ");
		if (!first && at + 1 + (int)length > width) {
			putchar('\n');
			at = 0;
			first = true;
		}
		if (at < indent)
			at += printf("%*s", indent - at, "");
		else if (!first)
			at += printf(" ");
		at += printf("%.*s", (int)length, text);
		first = false;
	}
	putchar('\n');
}

void print_for_terminal(const char *text, int indent, int column)
{
	if (isatty(STDOUT_FILENO))
		print_wrapped(text, indent, column);
	else
		puts(text);
}

const char *size_text(uint64_t bytes, char buf[SIZE_MAX_TEXT])
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	uint64_t unit = 1;
	size_t i = 0;

	if (bytes == UINT64_MAX)
		return strcpy(buf, "?");
	while (i < 6 && bytes / unit >= 1024) {
		unit <<= 10;
		i++;
	}
	/* Two digits of the fraction, rounded down. */
	if (bytes % unit)
		snprintf(buf, SIZE_MAX_TEXT, "%llu.%02u %s", (unsigned long long)(bytes / unit),
			 (unsigned int)(bytes / (unit / 1024) % 1024 * 100 / 1024), units[i]);
	else
		snprintf(buf, SIZE_MAX_TEXT, "%llu %s", (unsigned long long)(bytes / unit),
			 units[i]);
	return buf;
}

struct json_object *json_document(const char *command)
{
	struct json_object *document = json_object_new_object();

	json_object_object_add(document, "schema", json_object_new_int(SCHEMA_VERSION));
	json_object_object_add(document, "command", json_object_new_string(command));
	return document;
}

int json_write(FILE *out, struct json_object *document)
{
	fprintf(out, "%s\n",
		json_object_to_json_string_ext(document, JSON_C_TO_STRING_PRETTY |
							 JSON_C_TO_STRING_SPACED |
							 JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(document);
	/* fprintf() may have failed before. */
	return fflush(out) || ferror(out) ? -1 : 0;
}

int json_print(struct json_object *document)
{
	return json_write(stdout, document);
}

int write_whole(const char *file, mode_t mode, void (*print)(FILE *out, void *data), void *data)
{
	g_autofree char *text = NULL;
	struct replacement *r;
	size_t length;
	FILE *out;
	int rc;

	if (!strcmp(file, "-")) {
		print(stdout, data);
		return 0;
	}
	out = open_memstream(&text, &length);
	if (out)
		print(out, data);
	rc = !out || fclose(out) || !(r = replacement_begin(file, mode, text, length)) ||
	     replacement_commit(r) ? -1 : 0;
	if (rc)
		complain(NULL, "--output=%s: %s", file, strerror(errno));
	return rc;
}

struct json_object *json_text(const char *text)
{
	return text ? json_object_new_string(text) : NULL;
}

struct json_object *json_texts(const GPtrArray *texts)
{
	struct json_object *array = json_object_new_array();
	size_t i;

	for (i = 0; texts && i < texts->len; i++)
		json_object_array_add(array, json_text(texts->pdata[i]));
	return array;
}

struct json_object *json_size(uint64_t value)
{
	/*
	 * json-c before 0.14 has no unsigned numbers, and no memory is that
	 * large.
	 */
	return value > INT64_MAX ? NULL : json_object_new_int64(value);
}

struct json_object *json_hex(uint64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "0x%llx", (unsigned long long)value);
	return json_text(text);
}
