// SPDX-License-Identifier: GPL-2.0-only
/*
 * Collects the results of "nvgrace-gpu test": see test.h.
 */
#include <errno.h>
#include <glib.h>
#include <stdio.h>
#include <string.h>

#include "open_gpu/progress.h"
#include "test/test.h"

/* People paste the results into reports, which may be public. */
static void remove_physical(char *text)
{
	static const char words[] = ", physical address 0x";
	char *at, *end;

	while ((at = strstr(text, words))) {
		end = at + strlen(words);
		end += strspn(end, "0123456789abcdef");
		memmove(at, end, strlen(end) + 1);
	}
}

void remove_addresses(char *text)
{
	static const char digits[] = "0123456789abcdefABCDEF";
	char *at = text;
	size_t length;
	bool marked;

	while (*at) {
		marked = !strncmp(at, "0x", 2);
		at += marked ? 2 : 0;
		length = strspn(at, digits);
		if (length >= (marked ? 5 : 16)) {
			memset(at, '.', 3);
			memmove(at + 3, at + length, strlen(at + length) + 1);
			length = 3;
		}
		at += length ?: !marked;
	}
}

void result(struct test *t, const char *id, enum outcome_of_check outcome, const char *fmt, ...)
{
	static const char *const words[] = {
		[PASSED] = "passed", [FAILED] = "FAILED", [NOTED] = "noted", [SKIPPED] = "skipped",
	};
	va_list args;
	char *text;

	va_start(args, fmt);
	text = g_strdup_vprintf(fmt, args);
	va_end(args);
	remove_physical(text);
	t->checks = g_renew(struct check, t->checks, t->count + 1);
	t->checks[t->count++] = (struct check){ t->step, id, outcome, text };
	t->failed |= outcome == FAILED;
	log_line(t, "%s: %s: %s", id, words[outcome], text);
}

void result_error(struct test *t, const char *id, const char *what, int error)
{
	result(t, id, FAILED, "%s: %s; run \"dmesg | grep -e nvgrace -e vfio\"", what,
	       strerror(error));
}

void result_fault(struct test *t, const char *id, char *place)
{
	result(t, id, FAILED, "SIGBUS at %s: a memory error, or the GPU does not answer or is not "
	       "ready; run \"dmesg\"", place);
	g_free(place);
}

bool result_swept(struct test *t, const char *id, enum sweep rc, char *place)
{
	if (rc == SWEEP_FAULT)
		result_fault(t, id, place);
	else if (rc == SWEEP_ERROR)
		result_error(t, id, "accessing the memory", errno);
	return rc == SWEEP_DONE;
}

struct guarded {
	struct test *t;
	void (*check)(struct test *t);
};

static void run_guarded(struct work *work, size_t index, size_t count)
{
	struct guarded *g = work->data;

	g->check(g->t);
}

void result_guarded(struct test *t, const char *id, void (*check)(struct test *t))
{
	struct guarded g = { t, check };
	struct work work = { .run = run_guarded, .data = &g };

	progress_step(0, -1, "%s", id);
	if (!workers_run(&t->e.cpus, 1, &work))
		return;
	if (work.fault)
		result_fault(t, id, pattern_place(&t->pattern, work.fault));
	else
		result_error(t, id, "can't start a thread", errno);
}
