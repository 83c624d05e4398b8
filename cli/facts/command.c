// SPDX-License-Identifier: GPL-2.0-only
/*
 * A program's begin and end, and a command that is one: see command.h.
 */
#include <errno.h>
#include <glib.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "facts/command.h"
#include "facts/config.h"
#include "facts/gpu.h"
#include "system/output.h"
#include "system/program.h"

const char *argp_program_version = PROGRAM " " VERSION;

/*
 * A full disk or a closed pipe must not look like success. argp ends the program
 * after --help.
 */
static void check_stdout(int status, void *unused)
{
	if (!fflush(stdout) && !ferror(stdout))
		return;
	complain(NULL, "standard output: %s", strerror(errno));
	_exit(status ? status : EXIT_FAILED);
}

void command_begin(void)
{
	argp_err_exit_status = EXIT_USAGE_ERROR;
	/* If the caller ignores it, waitpid() finds no child. */
	signal(SIGCHLD, SIG_DFL);
	on_exit(check_stdout, NULL);
}

void command_values(struct unfinished *u, const char *argument)
{
	struct gpus gpus;
	size_t i;

	if (!strcmp(argument, "FILE") || !strcmp(argument, "PATH"))
		puts(":files");
	else if (!strcmp(argument, "DIR"))
		puts(":directories");
	else if (!strcmp(argument, "ADDRESS")) {
		gpus_find(u->data, &gpus);
		for (i = 0; i < gpus.count; i++)
			candidate(u, gpus.gpu[i].address, gpus.gpu[i].product);
		gpus_free(&gpus);
	}
}

int command_main(const char *name, int (*run)(struct host *h, int argc, char **argv), int argc,
		 char **argv)
{
	g_autofree char *full = g_strdup_printf(PROGRAM " %s", name);
	struct unfinished u = { .values = command_values };
	struct host h;
	int rc;

	command_begin();
	if (argc > 1 && !strcmp(argv[1], COMPLETE)) {
		host_init(&h, argv[0]);
		argv++;
		argc--;
		u.words = argv + 1;
		u.data = &h;
		complete_instead(&u);
	} else {
		host_init(&h, NULL);
	}
	h.adds_id = config_adds_id;
	if (argc)
		argv[0] = full;
	rc = run(&h, argc, argv);
	host_exit(&h);
	return rc;
}
