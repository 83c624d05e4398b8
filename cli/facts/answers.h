/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Answers: results of system calls and programs, and what files say. docs/doctor.md
 * has the list.
 */
#ifndef NVGRACE_GPU_FACTS_ANSWERS_H
#define NVGRACE_GPU_FACTS_ANSWERS_H

#include <stdbool.h>
#include <stdint.h>

struct answers;
struct host;
struct recorder;

/*
 * recorder: where the answers are recorded, too; NULL: nowhere. answers_free()
 * frees the result.
 */
struct answers *answers_begin(struct host *h, struct recorder *recorder);
void answers_free(struct answers *a);

/*
 * An answer, as text; NULL if the system has none. Each is made once. In a
 * recorded tree, the answers are the files in /answers.
 */
const char *answer(struct answers *a, const char *name);

/*
 * The number "5A:01", or "5a:01", without what separates its digits and without zeros
 * before it, in small letters, to be freed; "" for NULL.
 */
char *plain_number(const char *text);

/*
 * The value of a kernel option (name without CONFIG_) in the answer
 * "kernel-config": 'y', 'm' or 'n'; 'n' if config is NULL. config_value(): the rest
 * of the text from the value on, or NULL.
 */
char config_option(const char *config, const char *name);
const char *config_value(const char *config, const char *name);

/*
 * What a line of the kernel's log is for. The answer "kernel-log" has those lines of
 * the log that are for something, "LEVEL text".
 */
enum log_purpose {
	LOG_REFUSED,	/* a module can't be loaded: log_names() */
	LOG_KEY,	/* a module was refused for its signature; no name */
	LOG_DRIVER,	/* of this driver, or about its module */
	LOG_PURPOSES
};

/* Whether the line, or one of several, is for this. */
bool log_says(const char *lines, enum log_purpose purpose);

/* Of a line for LOG_REFUSED: whether this is the module. */
bool log_names(const char *line, const char *module);

/* In a line for LOG_REFUSED: a value of an option is the cause. */
#define LOG_PARAMETER "' invalid for parameter `"

#endif
