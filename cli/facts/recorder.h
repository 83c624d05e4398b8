/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * "nvgrace-gpu doctor --record": writes what the doctor reads, for --root on
 * another machine.
 */
#ifndef NVGRACE_GPU_FACTS_RECORDER_H
#define NVGRACE_GPU_FACTS_RECORDER_H

struct host;
struct recorder;

/*
 * From now on, writes what is read through h below the new directory. Returns
 * an exit status, after a message if it is not EXIT_OK.
 */
int recorder_begin(struct host *h, const char *directory, struct recorder **recorder);

/* recorder may be NULL, here and below: nothing is recorded. */
void recorder_answer(struct recorder *recorder, const char *name, const char *text);

/*
 * Ends the record: EXIT_OK, or EXIT_FAILED after a message if something could
 * not be written.
 */
int recorder_end(struct recorder *recorder);

#endif
