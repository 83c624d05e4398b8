// SPDX-License-Identifier: GPL-2.0-only
/*
 * The results of "nvgrace-gpu test", and its log file: see test.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "system/output.h"
#include "system/replace.h"
#include "test/test.h"

/* ---- the log ------------------------------------------------------------ */

int log_write(const struct test *t, const char *text)
{
	g_autoptr(GDateTime) date = g_date_time_new_now_utc();
	g_autofree char *when = g_date_time_format(date, "%Y-%m-%d %H:%M:%S UTC");
	g_autofree char *line = g_strdup_printf("%s %s: %s\n", when, t->e.gpu.address, text);

	if (write_all(t->log, line, strlen(line)))
		return errno;
	/* Pipes and terminals have no disk. */
	return fsync(t->log) && errno != EINVAL && errno != EROFS && errno != ENOTSUP ? errno : 0;
}

void log_line(struct test *t, const char *text)
{
	int error = t->log < 0 ? 0 : log_write(t, text);

	if (!error)
		return;
	/* Nothing may be done that the log does not say first. */
	close(t->log);
	t->log = -1;
	result(t, "log", FAILED, "can't write to the log file %s: %s", t->log_file, strerror(error));
}

enum exit_status log_open(struct test *t, const char *file)
{
	/*
	 * Who may write to /var/log must not lead root elsewhere by a link.
	 * Nobody waits for the other end of a pipe.
	 */
	int flags = O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK |
		    (file ? 0 : O_NOFOLLOW), error;

	t->log_file = file ?: LOG_FILE;
	t->log = open(t->log_file, flags, 0640);
	if (t->log >= 0) {
		fcntl(t->log, F_SETFL, O_APPEND);
		return EXIT_OK;
	}
	error = errno;
	complain(t->e.gpu.address, "can't open the log file %s: %s; name another one with --log",
		 t->log_file, strerror(error));
	return error == EACCES || error == EPERM ? EXIT_NOT_ROOT : EXIT_FAILED;
}

/* ---- results ------------------------------------------------------------ */

void remove_addresses(char *text)
{
	static const char digits[] = "0123456789abcdefABCDEF";
	char *at = text;
	size_t length;
	bool marked;

	while (*at) {
		marked = !strncmp(at, "0x", 2);
		at += marked ? 2 : 0;
		length = strspn(at, digits);
		if (length >= (marked ? 5 : 16)) {
			memset(at, '.', 3);
			memmove(at + 3, at + length, strlen(at + length) + 1);
			length = 3;
		}
		at += length ?: !marked;
	}
}

static const char *const outcomes[] = {
	[PASSED] = "passed", [FAILED] = "failed", [NOTED] = "noted", [SKIPPED] = "skipped",
};

/* Where the text of a result begins. */
enum { INDENT = 11 };

static void show(const char *id, enum outcome_of_check outcome, char *const *lines)
{
	static const enum colour colours[] = {
		[PASSED] = COLOUR_GOOD, [FAILED] = COLOUR_BAD, [NOTED] = COLOUR_NONE,
		[SKIPPED] = COLOUR_DIM,
	};

	const char *text = *lines ?: "";
	g_autofree char *first = g_strdup_printf("%s%s%s", id, *text ? ": " : "", text);

	printf("  %s%-7s%s  ", colour(colours[outcome]), outcomes[outcome], colour(COLOUR_NONE));
	print_wrapped(first, INDENT, INDENT);
	for (; *lines && lines[1]; lines++)
		if (*lines[1])
			print_wrapped(lines[1], INDENT, 0);
	fflush(stdout);
}

void result(struct test *t, const char *id, enum outcome_of_check outcome, const char *fmt, ...)
{
	g_autofree char *text = NULL, *line = NULL;
	g_auto(GStrv) lines = NULL;
	struct json_object *object;
	va_list args;
	size_t i;

	va_start(args, fmt);
	text = g_strdup_vprintf(fmt, args);
	va_end(args);
	lines = g_strsplit(text, "\n", 0);
	t->failed |= outcome == FAILED;
	if (t->checks) {
		object = json_object_new_object();
		json_object_object_add(object, "step", json_text(t->step));
		json_object_object_add(object, "id", json_text(id));
		json_object_object_add(object, "outcome", json_text(outcomes[outcome]));
		json_object_object_add(object, "text", json_text(text));
		json_object_array_add(t->checks, object);
	} else {
		show(id, outcome, lines);
	}
	line = g_strdup_printf("%s: %s", id, outcomes[outcome]);
	log_line(t, line);
	for (i = 0; lines[i]; i++)
		if (*lines[i])
			log_line(t, lines[i]);
}
