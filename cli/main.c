// SPDX-License-Identifier: GPL-2.0-only
/*
 * nvgrace-gpu(8): the global options and the table of commands. README.md
 * describes the other files, and which of them may call which.
 */
#include <errno.h>
#include <glib.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "facts/config.h"
#include "system/host.h"
#include "system/options.h"
#include "system/output.h"
#include "system/program.h"

static const struct command {
	const char *name;
	int (*run)(struct host *h, int argc, char **argv);	/* NULL: run_own() */
} commands[] = {
	{ "list", cmd_list },
	{ "bind", cmd_bind },
	{ "unbind", cmd_unbind },
	{ "status", cmd_status },
	{ "doctor", cmd_doctor },
	{ "metrics", cmd_metrics },
	{ "wait", cmd_wait },
	{ "bench", cmd_bench },
	{ "test", cmd_test },
	{ "scrub", cmd_scrub },
	{ "guest", cmd_guest },
	{ "help", NULL },
	{ "version", NULL },
};

const char *argp_program_version = PROGRAM " " VERSION;

static const char doc[] =
	"Assign the GPU of a Grace Hopper superchip to virtual machines, with its memory.\v"
	"Commands:\n"
	"  list                 list every supported GPU: driver, memory, state\n"
	"  bind ADDRESS...      bind GPUs to " DRIVER_NAME ", now or at boot\n"
	"  unbind ADDRESS...    unbind GPUs from it\n"
	"  status [ADDRESS]     show a GPU's state, and draw its memory\n"
	"  doctor [ADDRESS...]  check the host and its GPUs\n"
	"  metrics              print metrics for a monitoring system\n"
	"  wait ADDRESS...      wait until GPUs are bound and ready\n"
	"  bench ADDRESS        measure the performance of a GPU's memory\n"
	"  test ADDRESS         test a GPU and its memory in steps, the safest first\n"
	"  scrub ADDRESS...     overwrite the memory of idle GPUs with zeros\n"
	"  guest ADDRESS...     print the configuration of a guest for GPUs\n"
	"  help [COMMAND]       print this, or a command's help\n"
	"  version              print the version\n"
	"\n"
	"\"" PROGRAM " COMMAND --help\" prints a command's options.\n"
	"\n"
	"Exit status: 0 done or good, 1 failed or too late, 2 usage error, 3 no such device or not "
	"supported, 4 refused (in use, memory online), 5 not root, 6 doctor: a warning, 7 doctor: a "
	"bad finding, 130 interrupted.";

static const struct argp_option options[] = {
	{ "root", 'R', "DIR", 0,
	  "Read the recorded tree in DIR instead of this system; change nothing", 0 },
	{ }
};

struct arguments {
	const char *root;
	const struct command *command;
	int argc;
	char **argv;
};

static const struct command *find_command(const char *name)
{
	size_t i;

	for (i = 0; i < sizeof(commands) / sizeof(*commands); i++)
		if (!strcmp(commands[i].name, name))
			return &commands[i];
	return NULL;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;

	switch (key) {
	case 'R':
		a->root = arg;
		return 0;
	case ARGP_KEY_ARG:
		a->command = find_command(arg);
		if (!a->command)
			argp_error(state, "unknown command \"%s\"", arg);
		/* The command parses its options itself. */
		a->argv = state->argv + state->next - 1;
		a->argc = state->argc - state->next + 1;
		state->next = state->argc;
		return 0;
	case ARGP_KEY_NO_ARGS:
		argp_error(state, "no command given");
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

/* Runs "help [COMMAND]" or "version"; returns an exit status. */
static int run_own(const struct argp *argp, const struct arguments *a)
{
	static char option[] = "--help", name[] = PROGRAM;
	const struct command *about;
	bool help = !strcmp(a->command->name, "help");
	char *argv[] = { name, option, NULL };
	struct host none = { };

	if (a->argc > (help ? 2 : 1)) {
		complain(NULL, "%s: too many arguments; see \"" PROGRAM " --help\"",
			 a->command->name);
		return EXIT_USAGE_ERROR;
	}
	if (!help) {
		puts(argp_program_version);
		return EXIT_OK;
	}
	about = a->argc > 1 ? find_command(a->argv[1]) : NULL;
	if (a->argc > 1 && !about) {
		complain(NULL, "unknown command \"%s\"; see \"" PROGRAM " --help\"",
			 a->argv[1]);
		return EXIT_USAGE_ERROR;
	}
	/* Neither returns: --help ends the program. */
	if (!about || !about->run)
		return argp_parse(argp, 2, argv, 0, NULL, NULL);
	argv[0] = g_strdup_printf(PROGRAM " %s", about->name);
	return about->run(&none, 2, argv);
}

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

int main(int argc, char **argv)
{
	static const struct argp argp = {
		options, parse, "COMMAND [ARGUMENT...]", doc, common_children, NULL, NULL
	};
	static char name[] = PROGRAM;
	struct arguments a = { };
	struct host h;
	char *full;
	int rc;

	/* Messages begin with the same word, whatever argv[0] is. */
	if (argc)
		argv[0] = name;
	argp_err_exit_status = EXIT_USAGE_ERROR;
	/* If the caller ignores it, waitpid() finds no child. */
	signal(SIGCHLD, SIG_DFL);
	on_exit(check_stdout, NULL);
	rc = argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &a);
	if (rc || !a.command) {
		complain(NULL, "%s; see \"" PROGRAM " --help\"", rc ? strerror(rc) : "no command");
		return EXIT_USAGE_ERROR;
	}
	if (a.command->run) {
		full = g_strdup_printf(PROGRAM " %s", a.command->name);
		a.argv[0] = full;
		host_init(&h, a.root);
		h.adds_id = config_adds_id;
		rc = a.command->run(&h, a.argc, a.argv);
		host_exit(&h);
		free(full);
	} else {
		rc = run_own(&argp, &a);
	}
	return rc;
}
