// SPDX-License-Identifier: GPL-2.0-only
/*
 * "nvgrace-gpu test": tests a GPU's memory, to accept a new host. This file has
 * the options, the order of the checks (checks.c) and the output. main.c calls
 * it.
 */
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "commands.h"
#include "exercise/progress.h"
#include "system/options.h"
#include "system/output.h"
#include "test/checks.h"

/* A day is enough for a soak. */
enum { TIME_MAX_S = 86400, READY_S = 5, READY_MAX_S = 3600 };

static const char doc[] =
	"Test the memory of a GPU: patterns in all of it, sizes, BARs, read and write, a reset.\v"
	"An ADDRESS may be short (01:00.0) if only one GPU matches it. The GPU must be bound to a vfio "
	"driver that shows its memory, and no process may have it open. The command overwrites all of "
	"the memory and resets the GPU, and asks first.\n"
	"\n"
	"Exit status: 0 all checks passed, 1 a check failed; 2 to 5 and 130 as for the other commands.";

enum { KEY_SEED = 256, KEY_READY };

static const struct argp_option options[] = {
	{ "time", 't', "SECONDS", 0,
	  "Repeat the patterns for SECONDS (1 to 86400); the last pass is finished", 0 },
	{ "seed", KEY_SEED, "NUMBER", 0, "Use the patterns of an earlier test with this seed", 0 },
	{ "ready-within", KEY_READY, "SECONDS", 0,
	  "Time in which the memory must be ready after a reset (1 to 3600, default 5)", 0 },
	{ }
};

struct arguments {
	uint64_t time, seed, ready;
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

static const char *const outcomes[] = {
	[PASSED] = "passed", [FAILED] = "failed", [NOTED] = "noted", [SKIPPED] = "skipped",
};

static bool all_passed(const struct test *t)
{
	size_t i;

	for (i = 0; i < t->count; i++)
		if (t->checks[i].outcome == FAILED)
			return false;
	return true;
}

/* ---- for people --------------------------------------------------------- */

/*
 * Columns of an id, and the narrowest terminal in which the text follows on its
 * line.
 */
enum { ID = 19, WIDE = 80 };

static void print_difference(const struct difference *d)
{
	char *place = place_text(d->part, d->offset);
	char *owner = d->owner ? place_text(d->owner, d->owner_offset) : NULL;
	char *text = xasprintf("%s: 0x%016llx expected, 0x%016llx found%s%s", place,
			       (unsigned long long)d->expected, (unsigned long long)d->found,
			       owner ? ", which belongs to " : "", owner ? owner : "");

	print_wrapped(text, 4, 0);
	free(text);
	free(owner);
	free(place);
}

static void print(const struct test *t)
{
	static const enum colour colours[] = {
		[PASSED] = COLOUR_GOOD, [FAILED] = COLOUR_BAD, [NOTED] = COLOUR_NONE,
		[SKIPPED] = COLOUR_DIM,
	};
	const struct pattern *p = &t->pattern;
	bool passed = all_passed(t), wide = terminal_width() >= WIDE;
	time_t date = time(NULL);
	char when[32], *text;
	size_t i;

	exercise_print(&t->e);
	strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S UTC", gmtime(&date));
	text = xasprintf(PROGRAM " " VERSION ", seed 0x%llx, %llu pass%s in %.0f s, %s",
			 (unsigned long long)t->seed, (unsigned long long)t->passes,
			 t->passes == 1 ? "" : "es", t->seconds, when);
	print_wrapped(text, 11, printf("  test     "));
	free(text);
	putchar('\n');
	for (i = 0; i < t->count; i++) {
		const struct check *check = &t->checks[i];

		printf("  %s%-7s%s  %-*s", colour(colours[check->outcome]),
		       outcomes[check->outcome], colour(COLOUR_NONE), wide ? ID : 0, check->id);
		if (!wide)
			putchar('\n');
		print_wrapped(check->text, wide ? 13 + ID : 4, wide ? 11 + ID : 0);
	}
	if (p->listed)
		printf("\n  Differences: %llu; the %zu at the lowest addresses:\n",
		       (unsigned long long)p->differences, p->listed);
	for (i = 0; i < p->listed; i++)
		print_difference(&p->list[i]);
	printf("\n%s%s: %s%s\n", colour(passed ? COLOUR_GOOD : COLOUR_BAD), t->e.gpu.address,
	       passed ? "passed" : "FAILED", colour(COLOUR_NONE));
}

/* ---- JSON --------------------------------------------------------------- */

static void print_json(const struct test *t)
{
	struct json_object *document = json_document("test"), *array, *object;
	const struct pattern *p = &t->pattern;
	size_t i;

	exercise_json(&t->e, document);
	json_object_object_add(document, "passed", json_object_new_boolean(all_passed(t)));
	json_object_object_add(document, "seed", hex_json(t->seed));
	json_object_object_add(document, "passes", json_object_new_int64(t->passes));
	json_object_object_add(document, "seconds", json_object_new_double(t->seconds));
	array = json_object_new_array();
	for (i = 0; i < t->count; i++) {
		object = json_object_new_object();
		json_object_object_add(object, "id", json_text(t->checks[i].id));
		json_object_object_add(object, "outcome", json_text(outcomes[t->checks[i].outcome]));
		json_object_object_add(object, "text", json_text(t->checks[i].text));
		json_object_array_add(array, object);
	}
	json_object_object_add(document, "checks", array);
	json_object_object_add(document, "differences", json_size(p->differences));
	json_object_object_add(document, "bits_found_1", hex_json(p->ones));
	json_object_object_add(document, "bits_found_0", hex_json(p->zeros));
	array = json_object_new_array();
	for (i = 0; i < p->listed; i++) {
		const struct difference *d = &p->list[i];

		object = place_json(d->part, d->offset);
		json_object_object_add(object, "expected", hex_json(d->expected));
		json_object_object_add(object, "found", hex_json(d->found));
		json_object_object_add(object, "content_of", place_json(d->owner, d->owner_offset));
		json_object_array_add(array, object);
	}
	json_object_object_add(document, "places", array);
	json_object_object_add(document, "ready_seconds",
			       t->ready < 0 ? NULL : json_object_new_double(t->ready));
	json_object_object_add(document, "ready_within", json_object_new_double(t->ready_limit));
	json_object_object_add(document, "content_survived_reset",
			       t->survived < 0 ? NULL : json_object_new_boolean(t->survived));
	json_print(document);
}

/* ---- the command -------------------------------------------------------- */

static void run(struct test *t)
{
	double begin = now();

	errors_read(t, &t->before);
	check_sizes(t);
	check_bars(t);
	check_ends(t);
	check_tail(t);
	check_file(t);
	check_pattern(t);
	check_reset(t);
	check_link(t);
	check_errors_after(t);
	t->seconds = now() - begin;
}

int cmd_test(struct host *h, int argc, char **argv)
{
	static const struct argp argp = {
		options, parse, NULL, doc, exercise_children, NULL, NULL
	};
	struct arguments a = {
		.ready = READY_S,
		.wish = {
			.command = "test", .risk = "overwrites the memory of this GPU",
			.interrupted = "the GPU is bound and closed as before, but its memory is "
				       "overwritten",
		},
	};
	struct test t = { .ready = -1, .survived = -1 };
	size_t i;
	int rc;

	parse_options(&argp, argc, argv, &a);
	rc = exercise_begin(h, &a.wish, &t.e);
	if (rc)
		return rc;
	t.seed = a.seed;
	if (!a.seeded && getrandom(&t.seed, sizeof(t.seed), 0) != sizeof(t.seed))
		t.seed = time(NULL);
	t.bound = a.time;
	t.ready_limit = a.ready;
	t.pattern.e = &t.e;
	t.pattern.total = 1;
	pthread_mutex_init(&t.pattern.lock, NULL);
	if (pattern_map(&t.pattern)) {
		run(&t);
		progress_end();
		if (a.wish.json)
			print_json(&t);
		else
			print(&t);
		rc = all_passed(&t) ? EXIT_OK : EXIT_FAILED;
	} else {
		complain(t.e.gpu.address, "can't map the memory of the GPU");
		rc = EXIT_FAILED;
	}
	pattern_unmap(&t.pattern);
	pthread_mutex_destroy(&t.pattern.lock);
	for (i = 0; i < t.count; i++)
		free(t.checks[i].text);
	free(t.checks);
	exercise_end(&t.e);
	return rc;
}
