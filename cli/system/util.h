/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Text, numbers and time. All files may include it.
 */
#ifndef NVGRACE_GPU_SYSTEM_UTIL_H
#define NVGRACE_GPU_SYSTEM_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Replaces each byte that is not printable ASCII by '?'. */
void make_printable(char *text);

/* The text with each of these words replaced, to be freed. */
char *replaced(const char *text, const char *words, const char *by);

/*
 * Parses a whole string as a number, like host_u64(); false: not a number of 64
 * bits.
 */
bool parse_u64(const char *text, uint64_t *value);

/*
 * The lines of a text, which g_strfreev() frees: none for NULL, and none after the
 * last newline.
 */
char **text_lines(const char *text);

/*
 * The value of the first line "name: value" of a text, without surrounding
 * space and with '?' for unprintable bytes; to be freed. NULL if no line has
 * that name, or text is NULL.
 */
char *field_value(const char *text, const char *name);

/* Whether the list, with spaces or newlines between words, has this word. */
bool has_word(const char *list, const char *word);

/* CLOCK_MONOTONIC, in seconds. */
double now(void);

#endif
