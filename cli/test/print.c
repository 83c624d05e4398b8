// SPDX-License-Identifier: GPL-2.0-only
/*
 * Prints what "nvgrace-gpu test" has found: see test.h.
 */
#include <glib.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "system/output.h"
#include "test/test.h"

static const char *const outcomes[] = {
	[PASSED] = "passed", [FAILED] = "failed", [NOTED] = "noted", [SKIPPED] = "skipped",
};

bool passed(const struct test *t)
{
	return !t->failed;
}

char *firmware_text(struct host *h)
{
	static const char *const names[] = { "bios_vendor", "bios_version", "bios_date", "sys_vendor",
					     "product_name" };
	char *text[G_N_ELEMENTS(names)], *all = NULL;
	size_t i;

	for (i = 0; i < G_N_ELEMENTS(names); i++)
		text[i] = host_line(h, "/sys/class/dmi/id/%s", names[i]);
	if (text[1])
		all = g_strdup_printf("%s %s of %s, %s %s", text[0] ?: "?", text[1], text[2] ?: "?",
				      text[3] ?: "?", text[4] ?: "?");
	for (i = 0; i < G_N_ELEMENTS(names); i++)
		g_free(text[i]);
	return all;
}

/* "passed", "failed" or "skipped". */
static const char *step_outcome(const struct test *t, size_t step)
{
	bool failed = false, skipped = true;
	size_t i;

	for (i = 0; i < t->count; i++) {
		if (t->checks[i].step != steps[step].name)
			continue;
		failed |= t->checks[i].outcome == FAILED;
		skipped &= t->checks[i].outcome == SKIPPED;
	}
	return outcomes[step >= t->done || skipped ? SKIPPED : failed ? FAILED : PASSED];
}

/* ---- for people --------------------------------------------------------- */

/*
 * Columns of an id, and the narrowest terminal in which the text follows on its
 * line.
 */
enum { ID = 19, WIDE = 80 };

static void print_difference(const struct difference *d)
{
	g_autoptr(GString) text = g_string_new(NULL);

	g_string_printf(text, "%s + 0x%llx: 0x%016llx expected, 0x%016llx found", d->part->name,
			(unsigned long long)d->offset, (unsigned long long)d->expected,
			(unsigned long long)d->found);
	if (d->owner)
		g_string_append_printf(text, ", which belongs to %s + 0x%llx", d->owner->name,
				       (unsigned long long)d->owner_offset);
	print_wrapped(text->str, 4, 0);
}

static void print_check(const struct check *check)
{
	static const enum colour colours[] = {
		[PASSED] = COLOUR_GOOD, [FAILED] = COLOUR_BAD, [NOTED] = COLOUR_NONE,
		[SKIPPED] = COLOUR_DIM,
	};
	bool wide = terminal_width() >= WIDE;

	printf("  %s%-7s%s  %-*s", colour(colours[check->outcome]), outcomes[check->outcome],
	       colour(COLOUR_NONE), wide ? ID : 0, check->id);
	if (!wide)
		putchar('\n');
	print_wrapped(check->text, wide ? 13 + ID : 4, wide ? 11 + ID : 0);
}

/* "look, open, touch passed; reset failed; d3hot, file, scrub not begun" */
static char *steps_text(const struct test *t)
{
	static const char *const words[] = { "passed", "failed", "skipped" };
	GString *all = g_string_new(NULL);
	size_t i, j;

	for (i = 0; i < 3; i++) {
		const char *before = all->len ? "; " : "";
		bool any = false;

		for (j = 0; j <= t->until; j++) {
			if (strcmp(step_outcome(t, j), words[i]))
				continue;
			g_string_append_printf(all, "%s%s", any ? ", " : before, steps[j].name);
			any = true;
		}
		if (any)
			g_string_append_printf(all, " %s", words[i]);
	}
	return g_string_free(all, FALSE);
}

void print_text(const struct test *t)
{
	const struct pattern *p = &t->pattern;
	time_t date = time(NULL);
	const char *step = NULL;
	g_autofree char *firmware = firmware_text(t->e.host), *steps_done = steps_text(t);
	char when[32];
	size_t i;

	open_gpu_print(&t->e);
	if (firmware)
		print_field("firmware", "%s", firmware);
	strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S UTC", gmtime(&date));
	print_field("test", PROGRAM " " VERSION ", seed 0x%llx, %llu pass%s in %.0f s, %s",
		    (unsigned long long)t->seed, (unsigned long long)t->passes,
		    t->passes == 1 ? "" : "es", t->seconds, when);
	print_field("steps", "%s", steps_done);
	for (i = 0; i < t->count; i++) {
		if (step != t->checks[i].step) {
			step = t->checks[i].step;
			printf("\n%s%s%s\n", colour(COLOUR_BOLD), step, colour(COLOUR_NONE));
		}
		print_check(&t->checks[i]);
	}
	if (p->listed)
		printf("\n  Differences: %llu; the %zu at the lowest addresses:\n",
		       (unsigned long long)p->differences, p->listed);
	for (i = 0; i < p->listed; i++)
		print_difference(&p->list[i]);
	printf("\n%s%s: %s%s\n", colour(passed(t) ? COLOUR_GOOD : COLOUR_BAD), t->e.gpu.address,
	       passed(t) ? "passed" : "FAILED", colour(COLOUR_NONE));
}

/* ---- JSON --------------------------------------------------------------- */

static struct json_object *steps_json(const struct test *t)
{
	struct json_object *array = json_object_new_array(), *object;
	size_t i;

	for (i = 0; i <= t->until; i++) {
		object = json_object_new_object();
		json_object_object_add(object, "name", json_text(steps[i].name));
		json_object_object_add(object, "outcome", json_text(step_outcome(t, i)));
		json_object_array_add(array, object);
	}
	return array;
}

static struct json_object *checks_json(const struct test *t)
{
	struct json_object *array = json_object_new_array(), *object;
	size_t i;

	for (i = 0; i < t->count; i++) {
		object = json_object_new_object();
		json_object_object_add(object, "step", json_text(t->checks[i].step));
		json_object_object_add(object, "id", json_text(t->checks[i].id));
		json_object_object_add(object, "outcome", json_text(outcomes[t->checks[i].outcome]));
		json_object_object_add(object, "text", json_text(t->checks[i].text));
		json_object_array_add(array, object);
	}
	return array;
}

static struct json_object *places_json(const struct pattern *p)
{
	struct json_object *array = json_object_new_array(), *object;
	size_t i;

	for (i = 0; i < p->listed; i++) {
		const struct difference *d = &p->list[i];

		object = place_json(d->part, d->offset);
		json_object_object_add(object, "expected", json_hex(d->expected));
		json_object_object_add(object, "found", json_hex(d->found));
		json_object_object_add(object, "content_of", place_json(d->owner, d->owner_offset));
		json_object_array_add(array, object);
	}
	return array;
}

static struct json_object *seconds_json(double seconds)
{
	return seconds < 0 ? NULL : json_object_new_double(seconds);
}

static struct json_object *survived_json(int survived)
{
	return survived < 0 ? NULL : json_object_new_boolean(survived);
}

/* All resets, the longest, and whether the content survived each of them. */
static void add_resets(const struct test *t, struct json_object *document)
{
	struct json_object *array = json_object_new_array(), *object;
	double longest = -1;
	int survived = -1;
	size_t i;

	for (i = 0; i < t->reset_count; i++) {
		const struct reset *r = &t->resets[i];

		object = json_object_new_object();
		json_object_object_add(object, "method", json_text(r->method));
		json_object_object_add(object, "ready_seconds", seconds_json(r->ready));
		json_object_object_add(object, "content_survived", survived_json(r->survived));
		json_object_array_add(array, object);
		longest = r->ready > longest ? r->ready : longest;
		if (r->survived >= 0 && survived)
			survived = r->survived;
	}
	json_object_object_add(document, "resets", array);
	json_object_object_add(document, "ready_seconds", seconds_json(longest));
	json_object_object_add(document, "ready_within", json_object_new_double(t->ready_limit));
	json_object_object_add(document, "content_survived_reset", survived_json(survived));
}

void print_json(const struct test *t)
{
	struct json_object *document = json_document("test");
	const struct pattern *p = &t->pattern;
	g_autofree char *firmware = firmware_text(t->e.host);

	open_gpu_json(&t->e, document);
	json_object_object_add(document, "firmware", json_text(firmware));
	json_object_object_add(document, "passed", json_object_new_boolean(passed(t)));
	json_object_object_add(document, "seed", json_hex(t->seed));
	json_object_object_add(document, "passes", json_object_new_int64(t->passes));
	json_object_object_add(document, "seconds", json_object_new_double(t->seconds));
	json_object_object_add(document, "log", json_text(t->log_file));
	json_object_object_add(document, "steps", steps_json(t));
	json_object_object_add(document, "checks", checks_json(t));
	json_object_object_add(document, "differences", json_size(p->differences));
	json_object_object_add(document, "bits_found_1", json_hex(p->ones));
	json_object_object_add(document, "bits_found_0", json_hex(p->zeros));
	json_object_object_add(document, "places", places_json(p));
	add_resets(t, document);
	json_print(document);
}
