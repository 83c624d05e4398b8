/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Parses the options of a command line; every command calls it.
 */
#ifndef NVGRACE_GPU_SYSTEM_OPTIONS_H
#define NVGRACE_GPU_SYSTEM_OPTIONS_H

#include <argp.h>

/*
 * argp_parse() for a command, with common_children after its own children, of
 * which there are at most two. A usage error ends the program with
 * EXIT_USAGE_ERROR.
 */
void parse_options(const struct argp *argp, int argc, char **argv, void *input);

/* The option of every command and of the program that argp lacks: -h. */
extern const struct argp_child common_children[];

/* The help of every command's --json. */
#define JSON_HELP "Print JSON; /usr/share/nvgrace-gpu/schema.json describes it"

#endif
