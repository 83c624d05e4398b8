/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A run of "nvgrace-gpu test". test.c has the steps and runs them; complaints.c
 * reads what the host says meanwhile; results.c prints and logs what they find.
 */
#ifndef NVGRACE_GPU_TEST_TEST_H
#define NVGRACE_GPU_TEST_TEST_H

#include "open_gpu/open_gpu.h"

enum outcome_of_check { PASSED, FAILED, NOTED, SKIPPED };

/* What must not grow, but corrected. GPU_UNKNOWN: not counted. */
enum count {
	PCI_FATAL, PCI_NONFATAL,	/* PCIe errors of this device and of the bridges above it */
	MEMORY_ERRORS,			/* uncorrected, counted by EDAC */
	POISONED,			/* KiB that the kernel has taken out of use */
	TAINT,				/* the kernel's flags */
	COUNTS
};

struct test {
	struct open_gpu e;
	const char *step;	/* the current one */
	bool failed;		/* a check of a step failed: no step follows */
	/* The GPU can't be opened: the exit status, after a message. */
	enum exit_status status;
	struct json_object *checks;	/* NULL: they are printed */
	char *programs;		/* the folder of those that have the cases */
	char *methods;		/* reset_method in sysfs; NULL: the kernel has none */

	const char *log_file;
	int log;

	int kmsg;		/* -1: the log can't be read */
	char *bridges;		/* the addresses of those above the GPU, with spaces */
	uint64_t counts[COUNTS];
};

/*
 * Prints a result of the current step, and writes it to the log file. id: of a case
 * or a subject. text: lines, without physical addresses. FAILED sets t->failed.
 */
void result(struct test *t, const char *id, enum outcome_of_check outcome, const char *fmt, ...)
	G_GNUC_PRINTF(4, 5);

/*
 * Replaces what may be an address: 0x and 5 or more hexadecimal digits, or a word
 * of 16 or more digits. People paste the results into reports.
 */
void remove_addresses(char *text);

#define LOG_FILE "/var/log/nvgrace-gpu-test.log"

/* Opens the log, NULL: LOG_FILE. EXIT_OK, or an exit status after a message. */
enum exit_status log_open(struct test *t, const char *file);

/*
 * If the host stops, the last line on its disk says what the test was about to do. So
 * each line is written at once, and what it says begins when the disk has it. If it
 * can't be written, the test has failed. log_write() returns 0 or an errno.
 */
void log_line(struct test *t, const char *text);
int log_write(const struct test *t, const char *text);

/* From here on, what the host complains of counts. */
void complaints_begin(struct test *t);

/*
 * Adds a failed result for each complaint of the host since the last call, and a
 * note for what is not one.
 */
void complaints_read(struct test *t);

#endif
