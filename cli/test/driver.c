// SPDX-License-Identifier: GPL-2.0-only
/*
 * The last step of "nvgrace-gpu test --full": the programs that test the driver,
 * which the package nvgrace-gpu-tests has. See test.h.
 *
 * Their folder has a file "order", with the name of a program on each line.
 * "PROGRAM --list" prints a line for each case: a file, the name, and what the case
 * needs, with tabs between them. "PROGRAM CASE ADDRESS" runs one. The exit status
 * says whether it failed, and the output, which is TAP, whether it was skipped.
 */
#include <errno.h>
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "open_gpu/progress.h"
#include "system/output.h"
#include "system/spawn.h"
#include "test/test.h"

/*
 * A case that takes longer hangs. Of its output, the log has LINES_MAX lines, and
 * the result TEXT_MAX bytes.
 */
enum { LIST_MS = 60000, CASE_MS = 1800000, LINES_MAX = 200, TEXT_MAX = 600 };

/* Lines of TAP that say no more than the result. */
#define VERDICT "^(TAP version \\d+|1\\.\\.\\d+|(# )?(not )?ok (\\d+ )?(- \\S+)?( ?# SKIP.*)?)$"

/* Adds a program's cases, from what it lists, but those that the project's lab runs. */
static void add_cases(GStrvBuilder *all, const char *program, const char *list)
{
	g_auto(GStrv) lines = g_strsplit(list, "\n", 0);
	size_t i;

	for (i = 0; lines[i]; i++) {
		g_auto(GStrv) fields = g_strsplit(lines[i], "\t", 3);
		g_autofree char *name = NULL;

		if (g_strv_length(fields) < 3 || strstr(fields[2], "lab"))
			continue;
		name = g_strdup_printf("%s::%s", program, fields[1]);
		g_strv_builder_add(all, name);
	}
}

char **driver_cases(struct host *h, const char *folder)
{
	g_autoptr(GStrvBuilder) all = g_strv_builder_new();
	g_autofree char *order = host_read(h, NULL, "%s/order", folder);
	g_auto(GStrv) programs = NULL;
	size_t i;

	if (!order) {
		complain(NULL, "can't read %s/order: %s; install the package nvgrace-gpu-tests, or name "
			 "the folder of its programs with --full", folder, strerror(errno));
		return NULL;
	}
	programs = g_strsplit_set(order, " \n", 0);
	for (i = 0; programs[i]; i++) {
		g_autofree char *path = g_build_filename(folder, programs[i], NULL), *list = NULL;
		char *const argv[] = { path, (char *)"--list", NULL };

		if (!*programs[i])
			continue;
		list = program_output(LIST_MS, path, argv);
		if (!list) {
			complain(NULL, "%s doesn't list its cases; install the package nvgrace-gpu-tests "
				 "again", path);
			return NULL;
		}
		add_cases(all, programs[i], list);
	}
	return g_strv_builder_end(all);
}

/* The output of a case, without addresses, on one line, and in the log. */
static char *told(struct test *t, const char *output)
{
	g_autoptr(GString) text = g_string_new(NULL);
	g_auto(GStrv) lines = g_strsplit(output, "\n", 0);
	size_t i;

	for (i = 0; lines[i] && i < LINES_MAX && !t->failed; i++) {
		char *line = lines[i] + (g_str_has_prefix(lines[i], "# ") ? 2 : 0);

		if (!*line || g_regex_match_simple(VERDICT, lines[i], 0, 0))
			continue;
		make_printable(line);
		remove_addresses(line);
		log_line(t, "  %s", line);
		if (text->len < TEXT_MAX)
			g_string_append_printf(text, ": %s", line);
	}
	return g_string_free(g_steal_pointer(&text), FALSE);
}

static void run_case(struct test *t, const char *name)
{
	g_auto(GStrv) words = g_strsplit(name, "::", 2);
	g_autofree char *path = g_build_filename(t->programs, words[0], NULL), *output = NULL, *text;
	char *const argv[] = { path, words[1], t->e.gpu.address, NULL };
	/* A result has the id of its program, and lives as long as it. */
	const char *id = g_intern_string(words[0]);
	int status, error;
	bool skipped;

	error = program_test(CASE_MS, path, argv, &output, &status);
	skipped = strstr(output, "# SKIP");
	text = told(t, output);
	if (error)
		result(t, id, FAILED, "%s: %s%s", words[1], strerror(error), text);
	else if (WIFSIGNALED(status))
		result(t, id, FAILED, "%s: ended by signal %d%s", words[1], WTERMSIG(status), text);
	else if (WEXITSTATUS(status))
		result(t, id, FAILED, "%s%s", words[1], text);
	else
		result(t, id, skipped ? SKIPPED : PASSED, "%s%s", words[1], skipped ? text : "");
}

/* The report says which driver it is about, and on what. */
static void describe(struct test *t)
{
	g_autofree char *name = host_os_release(t->e.host, "PRETTY_NAME");
	g_autofree char *features = host_line(t->e.host, "/sys/bus/pci/drivers/%s/features",
					      t->e.gpu.driver);

	result(t, "host", NOTED, "%s; %s%s", *name ? name : "unknown distribution",
	       features ? "this project's driver, features: " : "another driver, such as Linux's own",
	       features ?: "");
}

/* A failed case ends the step only if the host complains of it, too. */
void step_driver(struct test *t)
{
	size_t i, count = g_strv_length(t->cases);
	bool failed = false;

	pattern_unmap(&t->pattern);
	vfio_close(&t->e.vfio);
	describe(t);
	for (i = 0; i < count && !t->failed; i++) {
		progress_step((double)i / count, -1, "%s", t->cases[i]);
		log_line(t, "case %zu of %zu, %s", i + 1, count, t->cases[i]);
		if (t->failed)
			break;
		run_case(t, t->cases[i]);
		failed |= t->failed;
		t->failed = t->log < 0;
		complaints_read(t);
	}
	t->failed |= failed;
}
