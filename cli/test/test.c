// SPDX-License-Identifier: GPL-2.0-only
/*
 * "nvgrace-gpu test": goes through a GPU's memory in steps, the safest first, to
 * meet new hardware or to accept a host. After each step it reads what the host
 * says, and the first step with a complaint is the last. This file has the
 * options and the order. main.c calls it.
 */
#include <errno.h>
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "commands.h"
#include "open_gpu/progress.h"
#include "system/options.h"
#include "system/output.h"
#include "system/spawn.h"
#include "test/test.h"

/* A day is enough for a soak. */
enum { TIME_MAX_S = 86400, READY_S = 5, READY_MAX_S = 3600 };

/* Said after an interruption. */
#define OVERWRITTEN "the GPU is bound and closed as before, but its memory is overwritten"

const struct step steps[STEPS] = {
	{ "look", "read what the kernel has of this GPU, and touch nothing", "nothing done", step_look },
	{ "open", "open the GPU by vfio, which resets it, and compare its sizes and BARs",
	  "the GPU is bound and closed as before", step_open },
	{ "touch", "write and read 64 bytes at both ends and every 64 MiB of its memory", OVERWRITTEN,
	  step_touch },
	{ "sample", "write and read 64 bytes every 2 MiB of its memory", OVERWRITTEN, step_sample },
	{ "pattern", "write patterns to all of its memory by mappings, and read them", OVERWRITTEN,
	  step_pattern },
	{ "reset", "reset the GPU by each method that it has, and read what is left", OVERWRITTEN,
	  step_reset },
	{ "d3hot", "turn the GPU to D3hot and back, and read what is left", OVERWRITTEN, step_d3hot },
	{ "file", "write and read its memory by the device's file", OVERWRITTEN, step_file },
	{ "scrub", "have the driver overwrite its memory with zeros, and read them",
	  OVERWRITTEN "; the kernel continues a scrub that has started", step_scrub },
	{ "driver", "run the programs that test the driver, which reset the GPU many times", OVERWRITTEN,
	  step_driver },
};

static const char doc[] =
	"Test a GPU and its memory in steps, the safest first, and stop at the first step that fails or "
	"of which the host complains.\v"
	"The steps are:\n"
	"\n"
	"  look     read what the kernel has of the GPU, and touch nothing\n"
	"  open     open it by vfio, which resets it; compare sizes and BARs\n"
	"  touch    write and read 64 bytes at both ends and every 64 MiB\n"
	"  sample   write and read 64 bytes every 2 MiB\n"
	"  pattern  write and read all of the memory by mappings\n"
	"  reset    reset it by each method that it has\n"
	"  d3hot    turn it to D3hot and back\n"
	"  file     write and read the memory by the device's file\n"
	"  scrub    have the driver overwrite it with zeros; read them\n"
	"  driver   with --full: run the programs that test the driver\n"
	"\n"
	"An ADDRESS may be short (01:00.0) if only one GPU matches it. The GPU must be bound to a vfio "
	"driver that shows its memory, and no process may have it open. The command overwrites all of "
	"the memory and resets the GPU, and asks first.\n"
	"\n"
	"Exit status: 0 all steps passed, 1 a step failed; 2 to 5 and 130 as for the other commands.";

#define PROGRAMS LIBEXECDIR "/nvgrace-gpu-tests"

enum { KEY_SEED = 256, KEY_READY, KEY_UNTIL, KEY_LOG, KEY_FULL, KEY_LIST };

static const struct argp_option options[] = {
	{ "full", KEY_FULL, "DIR", OPTION_ARG_OPTIONAL,
	  "Then run the programs of the package nvgrace-gpu-tests, or those in DIR", 0 },
	{ "list", KEY_LIST, NULL, 0, "Print the steps, with --full also the programs' cases", 0 },
	{ "until", KEY_UNTIL, "STEP", 0, "Stop after this step", 0 },
	{ "log", KEY_LOG, "FILE", 0,
	  "Log there what each step is about to do (default " LOG_FILE ")", 0 },
	{ "time", 't', "SECONDS", 0,
	  "Repeat the patterns for SECONDS (1 to 86400); the last pass is finished", 0 },
	{ "seed", KEY_SEED, "NUMBER", 0, "Use the patterns of an earlier test with this seed", 0 },
	{ "ready-within", KEY_READY, "SECONDS", 0,
	  "Time in which the memory must be ready after a reset (1 to 3600, default 5)", 0 },
	{ }
};

struct arguments {
	uint64_t time, seed, ready;
	size_t until;
	const char *log, *programs;
	bool seeded;
	struct wish wish;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &a->wish;
		return 0;
	case KEY_UNTIL:
		for (a->until = 0; a->until < STEPS; a->until++)
			if (!strcmp(steps[a->until].name, arg))
				return 0;
		argp_error(state, "--until=%s: no such step; see --help", arg);
		return 0;
	case ARGP_KEY_END:
		if (a->until == FULL && !a->programs)
			argp_error(state, "--until=%s needs --full", steps[FULL].name);
		if (a->until == STEPS)
			a->until = a->programs ? FULL : FULL - 1;
		return 0;
	case KEY_FULL:
		a->programs = arg ?: PROGRAMS;
		return 0;
	case KEY_LIST:
		a->wish.lists = true;
		return 0;
	case KEY_LOG:
		a->log = arg;
		return 0;
	case 't':
		if (!parse_u64(arg, &a->time) || !a->time || a->time > TIME_MAX_S)
			argp_error(state, "--time=%s: not a whole number from 1 to %d", arg,
				   TIME_MAX_S);
		return 0;
	case KEY_SEED:
		if (!parse_u64(arg, &a->seed))
			argp_error(state, "--seed=%s: not a number of at most 64 bits", arg);
		a->seeded = true;
		return 0;
	case KEY_READY:
		if (!parse_u64(arg, &a->ready) || !a->ready || a->ready > READY_MAX_S)
			argp_error(state, "--ready-within=%s: not a whole number from 1 to "
				   "%d", arg, READY_MAX_S);
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

/* ---- the run ------------------------------------------------------------ */

/* Says what the step is about to do, on the disk before anything happens. */
static void announce(struct test *t)
{
	const struct step *step = &steps[t->done];
	g_autofree char *text = g_strdup_printf("step %zu of %d, %s: %s", t->done + 1,
						t->cases ? STEPS : FULL,
			       step->name, step->what);

	log_line(t, "%s", text);
	if (!t->failed) {
		progress_say(t->e.gpu.address, text);
		progress_interrupted(step->interrupted);
	}
}

/* In another thread, before the end of the process. */
static void interrupted(void *data)
{
	programs_end();
	reset_methods_undo();
	log_interrupted(data);
}

/* Stops if t->status is set. */
static void run(struct test *t)
{
	double begin = now();

	complaints_begin(t);
	progress_undo(interrupted, t);
	while (t->done <= t->until && !t->failed) {
		t->step = steps[t->done].name;
		announce(t);
		if (t->failed)
			break;
		steps[t->done++].run(t);
		if (t->status)
			break;
		complaints_read(t);
	}
	progress_undo(NULL, NULL);
	t->step = "end";
	complaints_sum(t);
	t->seconds = now() - begin;
	log_line(t, "end: %s", t->status ? "not possible" : passed(t) ? "passed" : "FAILED");
	complaints_end(t);
}

/*
 * Another instance may neither test nor unbind the GPU while a scrub is running
 * and this one does not have it open. EXIT_OK, or an exit status after a
 * message. A user who is not root can't scrub.
 */
static enum exit_status lock(const struct test *t, int *fd)
{
	*fd = gpu_lock(t->e.gpu.address);
	if (*fd >= 0 || errno == EACCES || errno == EPERM)
		return EXIT_OK;
	if (errno == EWOULDBLOCK) {
		complain(t->e.gpu.address, "another " PROGRAM " is changing or testing it; wait until "
			 "that ends");
		return EXIT_REFUSED;
	}
	complain(t->e.gpu.address, "can't lock it: %s", strerror(errno));
	return EXIT_FAILED;
}

static enum exit_status run_locked(struct test *t, const struct arguments *a)
{
	g_autofree char *firmware = NULL;
	size_t i;

	t->status = log_open(t, a->log);
	if (t->status)
		return t->status;
	firmware = firmware_text(t->e.host);
	t->step = steps->name;
	log_line(t, "begin: " PROGRAM " " VERSION " test, seed 0x%llx; %s, driver %s %s, kernel %s, "
		 "firmware %s", (unsigned long long)t->seed, t->e.gpu.product, t->e.gpu.driver,
		 t->e.driver_version ?: "", t->e.kernel, firmware ?: "not known");
	run(t);
	progress_end();
	if (!t->status && a->wish.json)
		print_json(t);
	else if (!t->status)
		print_text(t);
	pattern_unmap(&t->pattern);
	log_close(t);
	for (i = 0; i < t->count; i++)
		g_free(t->checks[i].text);
	g_free(t->checks);
	for (i = 0; i < t->reset_count; i++)
		g_free(t->resets[i].method);
	g_free(t->resets);
	return t->status ? t->status : passed(t) ? EXIT_OK : EXIT_FAILED;
}

static void print_list(char **cases)
{
	size_t i;

	for (i = 0; i < (cases ? STEPS : FULL); i++)
		puts(steps[i].name);
	for (i = 0; cases && cases[i]; i++)
		puts(cases[i]);
}

int cmd_test(struct host *h, int argc, char **argv)
{
	static const struct argp argp = {
		options, parse, NULL, doc, open_gpu_children, NULL, NULL
	};
	struct arguments a = {
		.ready = READY_S, .until = STEPS,
		.wish = {
			.command = "test", .interrupted = "nothing done",
		},
	};
	struct test t = { .log = -1, .kmsg = -1 };
	g_auto(GStrv) cases = NULL;
	int rc, fd;

	parse_options(&argp, argc, argv, &a);
	if (a.programs) {
		t.programs = a.programs;
		t.cases = cases = driver_cases(h, a.programs);
		if (!cases)
			return EXIT_FAILED;
	}
	if (a.wish.lists) {
		print_list(cases);
		return EXIT_OK;
	}
	if (a.until)
		a.wish.risk = "overwrites the memory of this GPU";
	rc = open_gpu_find(h, &a.wish, &t.e);
	if (rc)
		return rc;
	rc = lock(&t, &fd);
	if (!rc) {
		t.seed = a.seed;
		if (!a.seeded && getrandom(&t.seed, sizeof(t.seed), 0) != sizeof(t.seed))
			t.seed = time(NULL);
		t.bound = a.time;
		t.ready_limit = a.ready;
		t.until = a.until;
		t.pattern.e = &t.e;
		t.pattern.seed = t.seed;
		t.pattern.total = 1;
		pthread_mutex_init(&t.pattern.lock, NULL);
		rc = run_locked(&t, &a);
		pthread_mutex_destroy(&t.pattern.lock);
		if (fd >= 0)
			close(fd);
	}
	open_gpu_end(&t.e);
	return rc;
}
