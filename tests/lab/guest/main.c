// SPDX-License-Identifier: GPL-2.0-only
/* Runs the cases of a test program in a machine of the lab. See lib.h. */
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

static bool has_case(const struct case_group *group, const char *name)
{
	size_t i;

	for (i = 0; i < group->count; i++)
		if (!name || !strcmp(group->cases[i].name, name))
			return true;
	return false;
}

/*
 * Runs the cases whose needs are met; with CASE in the environment, only the
 * one of this name. A program that waits for ever is killed, so that the
 * machine goes on with the next one.
 */
__attribute__((weak)) int main(void)
{
	const char *name = getenv("CASE");
	const struct case_group *group;
	int failed = 0;

	alarm(setting("SECONDS", 3000));
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

/* For programs with a main() of their own. */
__attribute__((weak)) const struct case_group groups[1];
