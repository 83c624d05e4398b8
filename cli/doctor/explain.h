/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What findings there can be, and what each means: table.h for programs and for
 * "doctor --explain", which also writes docs/doctor.md.
 */
#ifndef NVGRACE_GPU_DOCTOR_EXPLAIN_H
#define NVGRACE_GPU_DOCTOR_EXPLAIN_H

#include <stdbool.h>
#include <stddef.h>

/*
 * NOTE: no alarm, such as a limit that only another kernel removes. WARNING and
 * worse count.
 */
enum verdict { GOOD, UNKNOWN, NOTE, WARNING, BAD, VERDICTS };

enum finding_id {
#define FINDING(name, ...)	ID_##name,
#define CASE(...)
#include "doctor/table.h"
	FINDING_IDS
};

enum finding_case {
#define FINDING(...)
#define CASE(name, suffix, ...)	name##_##suffix,
#include "doctor/table.h"
	FINDING_CASES
};

struct meaning {
	enum finding_id finding;
	enum verdict verdict;
	/* Markdown, with words in braces; no reason and no remedy if the verdict is GOOD. */
	const char *text, *reason, *remedy;
};

/* The headings of docs/doctor.md. */
extern const char *const finding_ids[FINDING_IDS];
extern const struct meaning meanings[FINDING_CASES];

/* The finding of this name; FINDING_IDS: none. */
enum finding_id finding_of(const char *name);

/* "good", "warning" and so on. */
const char *verdict_name(enum verdict verdict);

/*
 * Prints what the findings with these ids mean, or all if count is 0, as Markdown.
 * Returns an exit status.
 */
int explain(char **ids, size_t count);

#endif
