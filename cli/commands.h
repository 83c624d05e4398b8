/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The commands, and what all of them share: exit statuses, the global options, how complaints and
 * colours look. main.c has the table of commands.
 */
#ifndef NVGRACE_GPU_COMMANDS_H
#define NVGRACE_GPU_COMMANDS_H

#include <argp.h>
#include <stdio.h>

#include "host.h"

#define PROGRAM "nvgrace-gpu"

/* The version of everything that --json prints; docs/nvgrace-gpu.schema.json describes it. */
#define SCHEMA_VERSION 1

/* nvgrace-gpu(8) has the same list. Where several devices end differently, it is the largest. */
enum exit_status {
	EXIT_OK = 0,		/* done, or nothing to do; doctor: nothing worse than a note */
	EXIT_FAILED = 1,	/* tried and failed, what was before has been restored; wait: too late */
	EXIT_USAGE_ERROR = 2,	/* the command line makes no sense */
	EXIT_NO_DEVICE = 3,	/* no such device, or none that the driver supports */
	EXIT_REFUSED = 4,	/* in use, or its memory is online: nothing was changed */
	EXIT_NOT_ROOT = 5,	/* only root may do this: nothing was changed */
	EXIT_WARNINGS = 6,	/* doctor: at least one warning, nothing bad */
	EXIT_BAD = 7,		/* doctor: at least one thing is bad */
	EXIT_INTERRUPTED = 130,	/* SIGINT or the like; all is restored, but a scrub goes on */
};

/* Each parses its own options: argv[0] is "nvgrace-gpu COMMAND". Returns an exit status. */
int cmd_list(struct host *h, int argc, char **argv);
int cmd_bind(struct host *h, int argc, char **argv);
int cmd_unbind(struct host *h, int argc, char **argv);
int cmd_status(struct host *h, int argc, char **argv);
int cmd_doctor(struct host *h, int argc, char **argv);
int cmd_metrics(struct host *h, int argc, char **argv);
int cmd_wait(struct host *h, int argc, char **argv);
int cmd_bench(struct host *h, int argc, char **argv);
int cmd_test(struct host *h, int argc, char **argv);
int cmd_scrub(struct host *h, int argc, char **argv);

/*
 * A complaint, on standard error: "nvgrace-gpu: 0009:01:00.0: what; next step". address may be
 * NULL. With a next step where there is one: bad input names the thing and the way out.
 */
void complain(const char *address, const char *fmt, ...) host_printf(2, 3);

/*
 * argp_parse() for a command, with common_children behind its own children, of which there are two
 * at most: usage errors end the program with EXIT_USAGE_ERROR.
 */
void parse_options(const struct argp *argp, int argc, char **argv, void *input);

/* The options that every command and the program itself have beside argp's: -h. */
extern const struct argp_child common_children[];

/* The help of every command's --json. */
#define JSON_HELP "Print JSON, as schema.json in /usr/share/nvgrace-gpu describes it"

/* ---- output ------------------------------------------------------------- */

enum colour { COLOUR_NONE, COLOUR_GOOD, COLOUR_WARNING, COLOUR_BAD, COLOUR_DIM, COLOUR_BOLD };

/* The escape sequence; "" unless stdout is a terminal, without NO_COLOR and not a dumb one. */
const char *colour(enum colour colour);

/* Columns of the terminal; else those in COLUMNS; else 80. Never under 40 nor over 200. */
int terminal_width(void);

/*
 * Prints words in lines as wide as terminal_width(), each from column indent on. column is where
 * the first one begins: how much of its line is printed already.
 */
void print_wrapped(const char *text, int indent, int column);

/* "95.0 GiB"; buf is what is returned. "?" for GPU_UNKNOWN. */
#define SIZE_MAX_TEXT 40
const char *size_text(uint64_t bytes, char buf[SIZE_MAX_TEXT]);

struct json_object;

/*
 * {"schema": SCHEMA_VERSION, "command": command}; to be filled and given to json_print(), which
 * frees it.
 */
struct json_object *json_document(const char *command);
int json_print(struct json_object *document);

/* Values that may be unknown become null. */
struct json_object *json_text(const char *text);
struct json_object *json_size(uint64_t value);

#endif
