/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Output: messages, colours, widths, sizes, and the parts of JSON documents
 * that several commands print.
 */
#ifndef NVGRACE_GPU_SYSTEM_OUTPUT_H
#define NVGRACE_GPU_SYSTEM_OUTPUT_H

#include <glib.h>
#include <stdio.h>
#include <sys/types.h>

#include "system/util.h"

/* The version of --json's output; docs/nvgrace-gpu.schema.json describes it. */
#define SCHEMA_VERSION 2

/*
 * Prints a message on standard error: "nvgrace-gpu: 0009:01:00.0: failure and
 * value; remedy". address may be NULL.
 */
void complain(const char *address, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
enum colour { COLOUR_NONE, COLOUR_GOOD, COLOUR_WARNING, COLOUR_BAD, COLOUR_DIM, COLOUR_BOLD };

/*
 * The escape sequence; "" unless stdout is a terminal, not dumb, and NO_COLOR
 * is unset or empty.
 */
const char *colour(enum colour colour);

/* Columns of the terminal, or else of COLUMNS, or else 80; from 40 to 200. */
int terminal_width(void);

/*
 * As print_wrapped(), but in one line unless standard output is a terminal:
 * programs and grep read it.
 */
void print_for_terminal(const char *text, int indent, int column);

/*
 * Prints words in lines of terminal_width(), each indented to column indent.
 * column: how many columns of the first line are already printed.
 */
void print_wrapped(const char *text, int indent, int column);

/*
 * Writes "95.50 GiB" to buf and returns it; "?" for UINT64_MAX, which means not
 * known.
 */
#define SIZE_MAX_TEXT 40
const char *size_text(uint64_t bytes, char buf[SIZE_MAX_TEXT]);

/*
 * For --output: writes the file as a whole, by system/replace.h; "-" is standard
 * output. mode: of a file that is replaced. 0, or -1 after a message.
 */
int write_whole(const char *file, mode_t mode, void (*print)(FILE *out, void *data), void *data);

struct json_object;

/*
 * {"schema": SCHEMA_VERSION, "command": command}, to be filled. json_write()
 * prints and frees it: 0, or -1 if the stream failed. json_print() does so on
 * standard output.
 */
struct json_object *json_document(const char *command);
int json_write(FILE *out, struct json_object *document);
int json_print(struct json_object *document);

/* Unknown values become null. */
struct json_object *json_text(const char *text);
struct json_object *json_texts(const GPtrArray *texts);
struct json_object *json_size(uint64_t value);

/* "0x1000": text, because not every JSON parser keeps 64 bits. */
struct json_object *json_hex(uint64_t value);

#endif
