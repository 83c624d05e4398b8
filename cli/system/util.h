/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Memory, text, numbers and time. All files may include it.
 */
#ifndef NVGRACE_GPU_SYSTEM_UTIL_H
#define NVGRACE_GPU_SYSTEM_UTIL_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#define printf_like(f, a) __attribute__((format(printf, f, a)))

/* Like the C library's functions, but end the program if memory runs out. */
void *xcalloc(size_t n, size_t size);
void *xrealloc(void *p, size_t size);
char *xstrdup(const char *s);
char *xasprintf(const char *fmt, ...) printf_like(1, 2);
char *xvasprintf(const char *fmt, va_list args) printf_like(1, 0);

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
 * Returns the next line of *text, to be freed, and advances *text; NULL at the
 * end.
 */
char *next_line(const char **text);

/*
 * The value of the first line "name: value" of a text, without surrounding
 * space and with '?' for unprintable bytes; to be freed. NULL if no line has
 * that name, or text is NULL.
 */
char *field_value(const char *text, const char *name);

/* Whether the list, with spaces or newlines between words, has this word. */
bool has_word(const char *list, const char *word);

/* CLOCK_MONOTONIC, in milliseconds and in seconds. */
long long now_ms(void);
double now(void);

#endif
