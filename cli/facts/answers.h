/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Answers: results of system calls and programs, and extracts of files that are
 * too long or too private to be recorded whole. docs/doctor.md has the list.
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
 * The value of a kernel option (name without CONFIG_) in the answer
 * "kernel-config": 'y', 'm' or 'n'; 'n' if config is NULL.
 */
char config_option(const char *config, const char *name);

/*
 * Whether firmware states the size of extended GPU memory (EGM), the part of the
 * CPU's memory that it sets aside for guests. 0: it sets none aside. Of several
 * sockets, the largest.
 */
bool answer_egm(struct answers *a, uint64_t *size);

#endif
