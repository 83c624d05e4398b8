// SPDX-License-Identifier: GPL-2.0-only
/*
 * The door of a test program:
 *
 *	PROGRAM --list	prints a line for each case: the file of its table, its
 *			name, and what it needs, with tabs between them
 *	PROGRAM		runs the cases whose needs are met
 *	PROGRAM CASE	runs one of them
 *
 * pytest collects the lines of the program that is compiled for its own machine.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib.h"

bool machine_has(const char *needs)
{
	const char *has = getenv("HAS");
	char words[512], all[2048], *word, *rest = words, form[130];

	snprintf(words, sizeof(words), "%s", needs);
	snprintf(all, sizeof(all), " %s ", has ?: "");
	while ((word = strsep(&rest, " "))) {
		snprintf(form, sizeof(form), " %s ", word);
		if (*word && !strstr(all, form))
			return false;
	}
	return true;
}

/* Programs with a main() of their own have none. */
#pragma weak groups

static bool has_case(const struct case_group *group, const char *name)
{
	size_t i;

	for (i = 0; i < group->count; i++)
		if (!name || !strcmp(group->cases[i].name, name))
			return true;
	return false;
}

static int list(void)
{
	const struct case_group *group;
	size_t i;

	for (group = groups; group->needs; group++)
		for (i = 0; i < group->count; i++)
			printf("%s\t%s\t%s\n", group->file, group->cases[i].name, group->needs);
	return 0;
}

/*
 * A program that waits for ever is killed, so that the machine goes on with the
 * next one.
 */
__attribute__((weak)) int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : NULL, *seconds = getenv("SECONDS");
	const struct case_group *group;
	int failed = 0;

	if (name && !strcmp(name, "--list"))
		return list();
	alarm(seconds ? strtoul(seconds, NULL, 0) : 3000);
	cmocka_set_message_output(CM_OUTPUT_TAP);
	if (name)
		cmocka_set_test_filter(name);
	for (group = groups; group->needs; group++)
		if (machine_has(group->needs) && has_case(group, name))
			failed += _cmocka_run_group_tests(program_invocation_short_name,
							  group->cases, group->count,
							  group->setup, group->teardown);
	return failed;
}
