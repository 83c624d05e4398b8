/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What main.c and the commands that are programs of their own share.
 */
#ifndef NVGRACE_GPU_FACTS_COMMAND_H
#define NVGRACE_GPU_FACTS_COMMAND_H

#include "system/options.h"

struct host;

/*
 * For the shells: the words so far follow, of which the last is not finished. For a
 * command_main(), the word before it is the host's root.
 */
#define COMPLETE "__complete"

/* At the start of a program, whose output then can't fail silently. */
void command_begin(void);

/* For struct unfinished: what FILE, PATH, DIR and ADDRESS can be; data: the host. */
void command_values(struct unfinished *u, const char *argument);

/* The main() of a command that is a program. */
int command_main(const char *name, int (*run)(struct host *h, int argc, char **argv), int argc,
		 char **argv);

#endif
