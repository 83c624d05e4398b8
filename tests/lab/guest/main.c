// SPDX-License-Identifier: GPL-2.0-only
/*
 * The door of a test program:
 *
 *	PROGRAM --list		prints a line for each case: the file of its table,
 *				its name, and what it needs, with tabs between them
 *	PROGRAM			runs the cases whose needs are met
 *	PROGRAM CASE...		runs these of them
 *	PROGRAM CASE ADDRESS	runs it without the lab, on a GPU that is bound, and
 *				stays bound: for "nvgrace-gpu test --full"
 *
 * pytest collects the lines of the program that is compiled for its own machine.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib.h"

/* The GPU's address on hardware, NULL in the lab. */
static const char *address;

enum known { YES, NO, UNKNOWN };

/*
 * What a shell finds out about a word of tests/lab/needs.py on a host that the lab
 * doesn't know. Its exit status is an enum known.
 */
static const char of_host[] =
	"release=$(uname -r)\n"
	"case $word in\n"
	"'?'* | slow | pages | waits | scrubs) ;;\n"
	"CONFIG_*)\n"
	"	config=$({ zcat /proc/config.gz || cat /boot/config-$release ||\n"
	"	cat /lib/modules/$release/config; } 2>/dev/null) || exit 2\n"
	"	echo \"$config\" | grep -q \"^$word=\" ;;\n"
	"module:*)\n"
	"	[ -e /sys/module/${word#*:} ] ||\n"
	"	grep -qs \"/${word#*:}.ko$\" /lib/modules/$release/modules.builtin ;;\n"
	"this-driver) [ -e /sys/bus/pci/drivers/" DRIVER "/features ] ;;\n"
	"type1) [ -e /dev/vfio/vfio ] ;;\n"
	"tracing) [ -w /sys/kernel/tracing/instances ] ;;\n"
	"*) false ;;\n"
	"esac";

static enum known on_host(const char *word)
{
	int status;

	setenv("word", word, 1);
	status = system(of_host);
	return WIFEXITED(status) && WEXITSTATUS(status) < UNKNOWN ? WEXITSTATUS(status) : UNKNOWN;
}

/* Only the device says so, which this opens. */
static bool has_carve_out(void)
{
	bool both;

	vfio_open(&v, gpu_find("gh200"));
	both = vfio_length(&v, USEMEM) && vfio_length(&v, RESMEM);
	vfio_close(&v);
	return both;
}

static enum known in_lab(const char *word)
{
	const char *has = getenv("HAS");
	char all[2048], form[130];

	snprintf(all, sizeof(all), " %s ", has ?: "");
	snprintf(form, sizeof(form), " %s ", word);
	return !strstr(all, form);
}

/* The first of these words that doesn't hold, or NULL. */
static const char *lacking(const char *needs, enum known *how)
{
	static char words[512];
	char *word, *rest = words;

	snprintf(words, sizeof(words), "%s", needs);
	while ((word = strsep(&rest, " "))) {
		if (!*word)
			continue;
		if (!address)
			*how = in_lab(word);
		else if (!strcmp(word, "carve-out"))
			*how = !has_carve_out();
		else
			*how = on_host(word);
		if (*how != YES)
			return word;
	}
	return NULL;
}

static void say_lacking(const char *word, enum known how)
{
	const char *what = how == NO ? "needs" : "it can't be known whether there is";

	print_message("# %s %s\n", what, word);
}

bool machine_has(const char *needs)
{
	enum known how;
	const char *word = lacking(needs, &how);

	if (word && how == UNKNOWN) {
		say_lacking(word, how);
		skip();
	}
	return !word;
}

/* Programs with a main() of their own have none. */
#pragma weak groups

/* The group that runs, and its case. */
static const struct case_group *running;
static const struct CMUnitTest *current;

/* In a machine, the kernel's log shows where each case begins. */
static int begin(void **state)
{
	int log = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);

	current = *state;
	dprintf(log, "%s: %s begins\n", program_invocation_short_name, current->name);
	close(log);
	*state = current->initial_state;
	return current->setup_func ? current->setup_func(state) : 0;
}

/* There, what a case has left is no other one's, unless they share it. */
static int end(void **state)
{
	int ret = current->teardown_func ? current->teardown_func(state) : 0;

	return (running->shared ? 0 : leave_nothing(state)) ?: ret;
}

static int end_group(void **state)
{
	int ret = running->teardown ? running->teardown(state) : 0;

	return leave_nothing(state) ?: ret;
}

/* The cases of a group with one of these names, or all of them if there are none. */
static size_t chosen(const struct case_group *group, char **names, struct CMUnitTest *cases)
{
	size_t i, count = 0;
	char **name;

	for (i = 0; i < group->count; i++) {
		for (name = names; *name && strcmp(*name, group->cases[i].name); name++)
			;
		if (!*name && *names)
			continue;
		cases[count] = group->cases[i];
		if (getenv("HAS")) {
			cases[count].setup_func = begin;
			cases[count].teardown_func = end;
			cases[count].initial_state = (void *)&group->cases[i];
		}
		count++;
	}
	return count;
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
 * next one. Exit status: the number of failed cases, or 2 without such a case.
 */
__attribute__((weak)) int main(int argc, char **argv)
{
	const char *seconds = getenv("SECONDS"), *word;
	const struct case_group *group;
	CMFixtureFunction teardown;
	bool found = false;
	enum known how;
	int failed = 0;
	size_t count;

	if (argc > 1 && !strcmp(argv[1], "--list"))
		return list();
	alarm(seconds ? strtoul(seconds, NULL, 0) : 3000);
	/* A case that is killed has said what it said. */
	setlinebuf(stdout);
	if (argc == 3 && strchr(argv[2], ':')) {
		address = argv[2];
		argv[2] = NULL;
		gpu_given(address);
	}
	cmocka_set_message_output(CM_OUTPUT_TAP);
	/* A program that ended in a case has left its GPUs bound. */
	if (getenv("HAS"))
		leave_nothing(NULL);
	for (group = groups; group->needs; group++) {
		struct CMUnitTest cases[group->count];

		count = chosen(group, argv + 1, cases);
		if (!count)
			continue;
		found = true;
		word = lacking(group->needs, &how);
		running = group;
		teardown = getenv("HAS") ? end_group : group->teardown;
		if (!word)
			failed += _cmocka_run_group_tests(program_invocation_short_name,
							  cases, count, group->setup, teardown);
		if (word && argc > 1) {
			say_lacking(word, how);
			print_message("ok 1 - %s # SKIP\n", cases[0].name);
		}
	}
	return found ? failed : 2;
}
