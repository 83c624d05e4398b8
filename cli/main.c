// SPDX-License-Identifier: GPL-2.0-only
/*
 * nvgrace-gpu(8): the global options and the table of commands. README.md
 * describes the other files, and which of them may call which.
 */
#include <errno.h>
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "facts/command.h"
#include "facts/config.h"
#include "system/host.h"
#include "system/options.h"
#include "system/output.h"
#include "system/program.h"

/* A command is only wanted for what its last word can become, below this root. */
static const char *completes;

/*
 * Runs the program of a command that is one of its own, whose name is in argv[0].
 * Returns only if that fails.
 */
static int run_tester(struct host *h, int argc, char **argv)
{
	static char complete[] = COMPLETE;
	const char *name = strrchr(argv[0], ' ') ? strrchr(argv[0], ' ') + 1 : argv[0];
	g_autofree char *path = g_strdup_printf(LIBEXECDIR "/" PROGRAM "/%s", name);

	if (h->recorded && !completes) {
		complain(NULL, "can't open a GPU of a recorded tree; run \"" PROGRAM " %s\" without --root",
			 name);
		return EXIT_USAGE_ERROR;
	}
	/* The command's words follow, and two words are before them. */
	if (completes) {
		*argv-- = complete;
		*argv = (char *)completes;
	}
	execv(path, argv);
	if (!completes)
		complain(NULL, "can't run %s: %s; install the package nvgrace-gpu-tests", path,
			 strerror(errno));
	return EXIT_FAILED;
}

static const struct command {
	const char *name;
	const char *arguments;
	const char *what;	/* NULL: not for people */
	int (*run)(struct host *h, int argc, char **argv);	/* NULL: run_own() */
} commands[] = {
	{ "list", "", "list every supported GPU: driver, memory, state", cmd_list },
	{ "bind", "ADDRESS...", "bind GPUs to " DRIVER_NAME ", now or at boot", cmd_bind },
	{ "unbind", "ADDRESS...", "unbind GPUs from it", cmd_unbind },
	{ "status", "[ADDRESS]", "show a GPU's state, and draw its memory", cmd_status },
	{ "doctor", "[ADDRESS...]", "check the host and its GPUs", cmd_doctor },
	{ "metrics", "", "print metrics for a monitoring system", cmd_metrics },
	{ "wait", "ADDRESS...", "wait until GPUs are bound and ready", cmd_wait },
	{ "bench", "ADDRESS", "measure the performance of a GPU's memory", run_tester },
	{ "test", "ADDRESS", "test a GPU and its memory in steps, the safest first", run_tester },
	{ "scrub", "ADDRESS...", "overwrite the memory of idle GPUs with zeros", cmd_scrub },
	{ "guest", "ADDRESS...", "print the configuration of a guest for GPUs", cmd_guest },
	{ "help", "[COMMAND]", "print this, or a command's help", NULL },
	{ "version", "", "print the version", NULL },
	/* For the shells: the words so far, of which the last is not finished. */
	{ COMPLETE, "", NULL, NULL },
};

static const char doc[] =
	"Assign the GPU of a Grace Hopper superchip to virtual machines, with its memory.\v"
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

/* Puts the commands before the rest of the help's text. */
static char *add_commands(int key, const char *text, void *input)
{
	GString *all;
	size_t i;
	int width;

	if (key != ARGP_KEY_HELP_POST_DOC)
		return (char *)text;
	all = g_string_new("Commands:\n");
	for (i = 0; commands[i].what; i++) {
		width = 20 - (int)strlen(commands[i].name);
		g_string_append_printf(all, "  %s %-*s%s\n", commands[i].name, width,
				       commands[i].arguments, commands[i].what);
	}
	g_string_append_printf(all, "\n%s", text);
	return g_string_free(all, FALSE);
}

struct arguments {
	const char *root;
	const struct command *command;
	int argc;
	char **argv;
};

static const struct command *find_command(const char *name)
{
	size_t i;

	for (i = 0; i < G_N_ELEMENTS(commands); i++)
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
		/* What there is, as without an argument to help. */
		argp_state_help(state, stdout, ARGP_HELP_STD_HELP);
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

static const struct argp argp = {
	options, parse, "COMMAND [ARGUMENT...]", doc, common_children, add_commands, NULL
};

/* ---- completion --------------------------------------------------------- */

static void print_values(struct unfinished *u, const char *argument)
{
	size_t i;

	for (i = 0; !strcmp(argument, "COMMAND") && commands[i].what; i++)
		candidate(u, commands[i].name, commands[i].what);
	command_values(u, argument);
}

/* Never fails: the shell has nowhere to say so. */
static int complete(const char *root, int argc, char **argv)
{
	static char name[] = PROGRAM;
	static const struct argp of_help = { .args_doc = "COMMAND" };
	struct unfinished u = { .words = argv + 1, .values = print_values };
	struct arguments a = { };
	struct host h;

	if (argc < 2)
		return EXIT_OK;
	argv[0] = name;
	argp_parse(&argp, argc - 1, argv, ARGP_IN_ORDER | ARGP_SILENT, NULL, &a);
	host_init(&h, a.root ?: root);
	u.data = &h;
	if (a.argv)
		u.words = a.argv + 1;
	if (!a.argv) {
		complete_options(&argp, &u);
	} else if (a.command && a.command->run) {
		complete_instead(&u);
		completes = a.root ?: root ?: "/";
		a.command->run(&h, a.argc, a.argv);
	} else if (a.command && !strcmp(a.command->name, "help") && a.argc == 1) {
		complete_options(&of_help, &u);
	}
	host_exit(&h);
	return EXIT_OK;
}

/* Runs "help [COMMAND]", "version" or COMPLETE; returns an exit status. */
static int run_own(const struct arguments *a)
{
	static char option[] = "--help", name[] = PROGRAM;
	const struct command *about;
	bool help = !strcmp(a->command->name, "help");
	char *argv[] = { name, option, NULL };
	struct host none = { };

	if (!strcmp(a->command->name, COMPLETE))
		return complete(a->root, a->argc, a->argv);
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
		return argp_parse(&argp, 2, argv, 0, NULL, NULL);
	argv[0] = g_strdup_printf(PROGRAM " %s", about->name);
	return about->run(&none, 2, argv);
}

int main(int argc, char **argv)
{
	static char name[] = PROGRAM;
	struct arguments a = { };
	struct host h;
	int rc;

	/* Messages begin with the same word, whatever argv[0] is. */
	if (argc)
		argv[0] = name;
	command_begin();
	rc = argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &a);
	if (rc || !a.command) {
		complain(NULL, "%s; see \"" PROGRAM " --help\"", rc ? strerror(rc) : "no command");
		return EXIT_USAGE_ERROR;
	}
	if (a.command->run) {
		g_autofree char *full = g_strdup_printf(PROGRAM " %s", a.command->name);

		a.argv[0] = full;
		host_init(&h, a.root);
		h.adds_id = config_adds_id;
		rc = a.command->run(&h, a.argc, a.argv);
		host_exit(&h);
	} else {
		rc = run_own(&a);
	}
	return rc;
}
