/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A run of "nvgrace-gpu test": its steps and what they find. test.c runs the
 * steps, and print.c prints the results.
 */
#ifndef NVGRACE_GPU_TEST_TEST_H
#define NVGRACE_GPU_TEST_TEST_H

#include <glib.h>

#include "open_gpu/pattern.h"

enum outcome_of_check { PASSED, FAILED, NOTED, SKIPPED };

struct check {
	const char *step;	/* static */
	const char *id;		/* stable, in JSON */
	enum outcome_of_check outcome;
	char *text;		/* without physical addresses */
};

struct test;

struct step {
	const char *name;	/* for --until, and in JSON */
	const char *what;	/* what it is about to do */
	const char *interrupted;	/* said after an interruption */
	void (*run)(struct test *t);
};

/* FULL: the step that only --full has, after all others. */
enum { FULL = 9, STEPS };
extern const struct step steps[STEPS];

/* Counts that must not grow. GPU_UNKNOWN: not counted. */
struct counts {
	/* PCIe errors of this device and of the bridges above it. */
	uint64_t fatal, nonfatal, correctable;
	uint64_t poisoned;			/* bytes that the kernel has taken out of use */
	uint64_t uncorrected, corrected;	/* memory errors, counted by EDAC */
	uint64_t taint;				/* the kernel's flags */
};

/* A reset by one method, or by what the kernel chooses. */
struct reset {
	char *method;		/* "flr"; NULL: the kernel's choice */
	double ready;		/* seconds until the memory was; negative: not known */
	int survived;		/* content: 1, 0; -1: not known */
};

struct test {
	struct open_gpu e;
	struct pattern pattern;
	double ready_limit;	/* seconds */
	uint64_t seed;
	uint64_t passes;
	double seconds;
	double bound;		/* --time; 0: one pass */
	size_t until;		/* index of the last step */
	const char *programs;	/* the folder of those that --full runs */
	char **cases;		/* of these, "program::case"; NULL without --full */

	const char *step;	/* name of the current one */
	size_t done;		/* steps that were begun */
	bool failed;		/* a check of a step failed: no step follows */
	/*
	 * The GPU can't be opened, or its memory can't be mapped: the exit
	 * status, after a message. The run has no results.
	 */
	enum exit_status status;

	/* complaints.c */
	int kmsg;		/* -1: the log can't be read */
	char *bridges;		/* the addresses of those above the GPU, with spaces */
	struct counts before, last;

	/* log.c */
	int log;
	char *log_file;

	struct reset *resets;
	size_t reset_count;
	struct check *checks;
	size_t count;
};

/* ---- results.c ---------------------------------------------------------- */

/*
 * Adds a result of the current step, and writes it to the log file. FAILED sets
 * t->failed.
 */
void result(struct test *t, const char *id, enum outcome_of_check outcome, const char *fmt, ...)
	G_GNUC_PRINTF(4, 5);

/* A failed system call. */
void result_error(struct test *t, const char *id, const char *what, int error);

/* SIGBUS; takes over place. */
void result_fault(struct test *t, const char *id, char *place);

/* A sweep that did not do all; takes over place. Whether it did all. */
bool result_swept(struct test *t, const char *id, enum sweep rc, char *place);

/* Runs a check in a worker thread, so that a fault becomes its result. */
void result_guarded(struct test *t, const char *id, void (*check)(struct test *t));

/*
 * Replaces what may be an address: 0x and 5 or more hexadecimal digits, or a word
 * of 16 or more digits.
 */
void remove_addresses(char *text);

/* ---- the steps ---------------------------------------------------------- */

void step_look(struct test *t);		/* look.c */
void step_open(struct test *t);
void step_touch(struct test *t);	/* memory.c */
void step_sample(struct test *t);
void step_pattern(struct test *t);
void step_file(struct test *t);
void step_reset(struct test *t);	/* resets.c */
void step_d3hot(struct test *t);
void step_scrub(struct test *t);	/* zeros.c */
void step_driver(struct test *t);	/* driver.c */

/*
 * The wrong words that pattern.c has found: results of this check. In memory.c.
 */
void say_differences(struct test *t, const char *id);

/*
 * Restores the kernel's list of reset methods, in another thread than that of
 * the steps, which can't change it afterwards. In resets.c.
 */
void reset_methods_undo(void);

/*
 * The cases of the programs in a folder, to be freed with g_strfreev(); NULL
 * after a message. In driver.c.
 */
char **driver_cases(struct host *h, const char *folder);

/* Opens the GPU and finds its memory, or sets t->status. In look.c. */
bool open_memory(struct test *t);

/* ---- complaints.c ------------------------------------------------------- */

/* From here on, complaints count. */
void complaints_begin(struct test *t);

/*
 * Adds a failed result for each complaint of the host since the last call, and a
 * note for what is not one. Each step ends with it.
 */
void complaints_read(struct test *t);

/* The sums of the whole run. */
void complaints_sum(struct test *t);
void complaints_end(struct test *t);

/* ---- log.c -------------------------------------------------------------- */

/*
 * Opens the file, NULL: LOG_FILE, to append. EXIT_OK, or an exit status after a
 * message.
 */
#define LOG_FILE "/var/log/nvgrace-gpu-test.log"
enum exit_status log_open(struct test *t, const char *file);
void log_close(struct test *t);

/*
 * Writes a line with the time, and waits until it is on the disk. If it can't be
 * written, the test has failed.
 */
void log_line(struct test *t, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

/*
 * Writes the last line, in another thread than that of the steps.
 */
void log_interrupted(const struct test *t);

/* ---- print.c ------------------------------------------------------------ */

bool passed(const struct test *t);
/* The names of the firmware and the machine, to be freed; NULL: not known. */
char *firmware_text(struct host *h);
void print_text(const struct test *t);
void print_json(const struct test *t);

#endif
