// SPDX-License-Identifier: GPL-2.0-only
/*
 * nvgrace-gpu(8): the global options and the table of commands. What the commands share in looks
 * (complaints, colours, sizes) is in output.c; how they see the system is in host.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"

static const struct command {
	const char *name;
	int (*run)(struct host *h, int argc, char **argv);
} commands[] = {
	{ "list", cmd_list },
	{ "bind", cmd_bind },
	{ "unbind", cmd_unbind },
	{ "status", cmd_status },
	{ "doctor", cmd_doctor },
};

const char *argp_program_version = PROGRAM " " VERSION;

static const char doc[] =
	"Give the GPU of a Grace Hopper superchip to virtual machines, with its memory.\v"
	"Commands:\n"
	"  list                 every supported GPU: driver, IOMMU group, memory, state\n"
	"  bind ADDRESS...      give GPUs to " DRIVER_NAME ", now or at every boot\n"
	"  unbind ADDRESS...    undo that\n"
	"  status ADDRESS       draw a GPU's memory map\n"
	"  doctor [ADDRESS...]  find out what is wrong\n"
	"\n"
	"\"" PROGRAM " COMMAND --help\" tells a command's options.\n"
	"\n"
	"Exit status: 0 done or all good, 1 failed, 2 usage, 3 no such or no supported device, "
	"4 refused (in use, memory online), 5 not root, 6 doctor: warnings, 7 doctor: something "
	"is bad, 130 interrupted.";

static const struct argp_option options[] = {
	{ "root", 'R', "DIR", 0,
	  "Look at the recorded tree in DIR instead of this system; nothing is changed", 0 },
	{ }
};

struct arguments {
	const char *root;
	const struct command *command;
	int argc;
	char **argv;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;
	size_t i;

	switch (key) {
	case 'R':
		a->root = arg;
		return 0;
	case ARGP_KEY_ARG:
		for (i = 0; i < sizeof(commands) / sizeof(*commands); i++)
			if (!strcmp(commands[i].name, arg))
				a->command = &commands[i];
		if (!a->command)
			argp_error(state, "no command is called \"%s\"", arg);
		/* The command's own options are its own parser's. */
		a->argv = state->argv + state->next - 1;
		a->argc = state->argc - state->next + 1;
		state->next = state->argc;
		return 0;
	case ARGP_KEY_NO_ARGS:
		argp_error(state, "which command?");
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

int main(int argc, char **argv)
{
	static const struct argp argp = {
		options, parse, "COMMAND [ARGUMENT...]", doc, NULL, NULL, NULL
	};
	static char name[] = PROGRAM;
	struct arguments a = { };
	struct host h;
	char *full;
	int rc;

	/* Complaints begin with the same word however we were called. */
	if (argc)
		argv[0] = name;
	argp_err_exit_status = EXIT_USAGE_ERROR;
	rc = argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &a);
	if (rc || !a.command) {
		complain(NULL, "%s; see \"" PROGRAM " --help\"", rc ? strerror(rc) : "no command");
		return EXIT_USAGE_ERROR;
	}
	full = xasprintf(PROGRAM " %s", a.command->name);
	a.argv[0] = full;
	host_init(&h, a.root);
	rc = a.command->run(&h, a.argc, a.argv);
	host_exit(&h);
	free(full);
	/* A full disk or a closed pipe must not look like success. */
	if (fflush(stdout) || ferror(stdout)) {
		complain(NULL, "standard output: %s", strerror(errno));
		rc = rc ? rc : EXIT_FAILED;
	}
	return rc;
}
