/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Parses the options of a command line, and completes them for a shell; every
 * command calls it.
 */
#ifndef NVGRACE_GPU_SYSTEM_OPTIONS_H
#define NVGRACE_GPU_SYSTEM_OPTIONS_H

#include <argp.h>
#include <stddef.h>

/*
 * argp_parse() for a command, with common_children after its own children, of
 * which there are at most two. A usage error ends the program with
 * EXIT_USAGE_ERROR.
 */
void parse_options(const struct argp *argp, int argc, char **argv, void *input);

/* The option of every command and of the program that argp lacks: -h. */
extern const struct argp_child common_children[];

/*
 * A command line that is not finished: the words after the program or the
 * command, with the last one as far as it is typed, and then NULL.
 */
struct unfinished {
	char **words;
	/*
	 * Prints with candidate() what an option's or a command's argument of
	 * this name may be, or ":files" or ":directories", with which the shell
	 * goes on itself.
	 */
	void (*values)(struct unfinished *u, const char *argument);
	void *data;		/* values()'s */
	const char *start;	/* what the candidates begin with */
	const char *before;	/* in the same word: "--format=" */
	size_t before_length;
};

/*
 * Prints what the last word can become: a line each, with a tab and what it is
 * if that is known.
 */
void complete_options(const struct argp *argp, struct unfinished *u);

/* Prints a word if it begins as it must. what: NULL: nothing to say of it. */
void candidate(const struct unfinished *u, const char *word, const char *what);

/*
 * From now on, parse_options() calls complete_options() instead, and ends the
 * program.
 */
void complete_instead(struct unfinished *u);

/* The help of every command's --json. */
#define JSON_HELP "Print JSON; /usr/share/nvgrace-gpu/schema.json describes it"

#endif
