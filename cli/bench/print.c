// SPDX-License-Identifier: GPL-2.0-only
/*
 * The output of "nvgrace-gpu bench": tables with bars, hints, or JSON.
 */
#include <glib.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/print.h"
#include "system/output.h"

static const struct {
	const char *name;
	bool higher;	/* is better */
} units[] = {
	[UNIT_SECONDS] = { "s", false },
	[UNIT_BYTES_PER_SECOND] = { "B/s", true },
	[UNIT_PER_SECOND] = { "1/s", true },
	[UNIT_FAULTS] = { "faults", false },
};

static const char *const titles[] = {
	[GROUP_OPEN] = "Opening and resetting",
	[GROUP_TOUCH] = "First touch",
	[GROUP_DMA] = "Mapping for DMA",
	[GROUP_MEMORY] = "Bandwidth through the mapping",
	[GROUP_LATENCY] = "Latency of a load",
	[GROUP_FILE] = "Read and write through vfio",
};

/* ---- numbers ------------------------------------------------------------ */

enum { VALUE_MAX = 24 };

/* Three digits and a unit: "12.3 GB/s", "450 ns". */
static const char *value_text(enum unit unit, double value, char text[VALUE_MAX])
{
	static const struct {
		double from;
		const char *seconds, *bytes, *rate;
	} scales[] = { { 1e12, NULL, "TB/s", "T/s" }, { 1e9, NULL, "GB/s", "G/s" },
		       { 1e6, NULL, "MB/s", "M/s" }, { 1e3, NULL, "kB/s", "k/s" },
		       { 1, "s", "B/s", "/s" }, { 1e-3, "ms", NULL, NULL },
		       { 1e-6, "us", NULL, NULL }, { 0, "ns", NULL, NULL } };
	const char *name = "";
	size_t i;

	if (unit == UNIT_FAULTS) {
		snprintf(text, VALUE_MAX, "%.0f", value);
		return text;
	}
	for (i = 0; i < sizeof(scales) / sizeof(*scales); i++) {
		double from = scales[i].from ? scales[i].from : 1e-9;

		name = unit == UNIT_SECONDS ? scales[i].seconds
		       : unit == UNIT_BYTES_PER_SECOND ? scales[i].bytes : scales[i].rate;
		if (!name || (value < from && i + 1 < sizeof(scales) / sizeof(*scales) &&
			      !(scales[i].from == 1 && unit != UNIT_SECONDS)))
			continue;
		value /= from;
		break;
	}
	snprintf(text, VALUE_MAX, "%.*f %s", value < 9.995 ? 2 : value < 99.95 ? 1 : 0, value, name);
	return text;
}

/* ---- tables ------------------------------------------------------------- */

enum { LABEL = 33, NUMBER = 10, BAR_MIN = 8, BAR_MAX = 40, WIDE = 2 + LABEL + 3 * NUMBER };

static double largest(const struct bench *b, enum group group)
{
	double most = 0;
	size_t i;

	for (i = 0; i < b->count; i++)
		if (b->figures[i].group == group && b->figures[i].unit == UNIT_BYTES_PER_SECOND &&
		    b->figures[i].count) {
			double median = figure_summary(&b->figures[i]).median;

			most = median > most ? median : most;
		}
	return most;
}

static void print_bar(double value, double most, int cells)
{
	int filled = most > 0 ? value / most * cells + 0.5 : 0, i;

	fputs("  ", stdout);
	fputs(colour(COLOUR_GOOD), stdout);
	for (i = 0; i < filled; i++)
		putchar('#');
	fputs(colour(COLOUR_NONE), stdout);
}

static void print_figure(const struct figure *f, double most, int width)
{
	struct summary s = figure_summary(f);
	char min[VALUE_MAX], median[VALUE_MAX], max[VALUE_MAX];
	int cells = width - WIDE - 3, label = LABEL;

	if (!f->count) {
		/* The first figure of a pair has the reason. */
		if (*f->label != ' ')
			printf("  %-*.*s %s%.*s%s\n", width < WIDE ? 20 : LABEL,
			       width < WIDE ? 20 : LABEL, f->label, colour(COLOUR_DIM),
			       width - (width < WIDE ? 23 : LABEL + 3), f->reason ? f->reason : "-",
			       colour(COLOUR_NONE));
		return;
	}
	value_text(f->unit, s.median, median);
	if (width < WIDE) {
		label = width - 3 - NUMBER;
		printf("  %-*.*s%*s\n", label, label, f->label, NUMBER, median);
		return;
	}
	printf("  %-*.*s%*s%*s%*s", label, label, f->label, NUMBER, median, NUMBER,
	       value_text(f->unit, s.min, min), NUMBER, value_text(f->unit, s.max, max));
	if (cells >= BAR_MIN && f->unit == UNIT_BYTES_PER_SECOND)
		print_bar(s.median, most, cells > BAR_MAX ? BAR_MAX : cells);
	putchar('\n');
}

static void print_group(const struct bench *b, enum group group)
{
	int width = terminal_width();
	double most = largest(b, group);
	size_t i;

	if (width < WIDE)
		printf("\n%s%s%s\n", colour(COLOUR_BOLD), titles[group], colour(COLOUR_NONE));
	else
		printf("\n%s%-*s%s%*s%*s%*s\n", colour(COLOUR_BOLD), LABEL + 2, titles[group],
		       colour(COLOUR_NONE), NUMBER, "median", NUMBER, "minimum", NUMBER, "maximum");
	for (i = 0; i < b->count; i++)
		if (b->figures[i].group == group)
			print_figure(&b->figures[i], most, width);
}

/* ---- hints -------------------------------------------------------------- */

/*
 * Published figures of a Grace Hopper. C2C: NVIDIA's Grace Hopper Superchip
 * architecture, 900 GB/s for both ways together. The figures for 64 threads
 * were reported to the project.
 */
#define C2C 450e9
#define C2C_SOURCE "NVIDIA Grace Hopper Superchip architecture"
#define READ_64 238e9
#define WRITE_64 287e9
#define THREADS_SOURCE "reported for 64 threads"

/* A sentence for one direction, to be freed; NULL: not measured. */
static char *compare(const struct bench *b, const char *operation, double published)
{
	char name[64], value[VALUE_MAX];
	const struct figure *f;
	double median;

	snprintf(name, sizeof(name), "%s/usemem/%zu", operation, b->e->cpus.count);
	f = figure_find(b, name);
	if (!f)
		return NULL;
	median = figure_summary(f).median;
	return g_strdup_printf("%s of usemem with %zu threads: %s, %.0f %% of C2C's %.0f GB/s each way (%s); "
			       "%.0f GB/s was %s%s", operation, b->e->cpus.count,
			       value_text(f->unit, median, value), median / C2C * 100, C2C / 1e9,
			       C2C_SOURCE, published / 1e9, THREADS_SOURCE,
			       b->e->cpus.count >= 64 && median < published / 2
				 ? "; this is less than half of it: run \"" PROGRAM " doctor\""
				 : "");
}

/* The hint of this number; NULL: no more. To be freed. */
static char *hint(const struct bench *b, size_t number)
{
	if (!b->e->grace)
		return number ? NULL :
		       g_strdup("this CPU is not a Neoverse V2 as in Grace: published figures of Grace "
				"Hopper can't be compared with these");
	if (strncmp(b->e->gpu.product, "GH200", 5))
		return number ? NULL :
		       g_strdup("there are no published figures for this GPU to compare with");
	return number == 0 ? compare(b, "read", READ_64) :
	       number == 1 ? compare(b, "write", WRITE_64) : NULL;
}

/* ---- everything --------------------------------------------------------- */

void bench_print(const struct bench *b)
{
	enum group group;
	size_t i;

	open_gpu_print(b->e);
	for (group = 0; group < GROUPS; group++)
		print_group(b, group);
	printf("\n%sHints%s\n", colour(COLOUR_BOLD), colour(COLOUR_NONE));
	for (i = 0; i < 2; i++) {
		g_autofree char *text = hint(b, i);

		if (text)
			print_wrapped(text, 2, 0);
	}
	if (!b->read_only)
		print_wrapped("the memory of this GPU was overwritten", 2, 0);
}

static struct json_object *figure_json(const struct figure *f)
{
	struct json_object *object = json_object_new_object();
	struct summary s = figure_summary(f);
	bool any = f->count;

	json_object_object_add(object, "name", json_text(f->name));
	json_object_object_add(object, "unit", json_text(units[f->unit].name));
	json_object_object_add(object, "better",
			       json_text(units[f->unit].higher ? "higher" : "lower"));
	json_object_object_add(object, "bytes", f->bytes ? json_size(f->bytes) : NULL);
	json_object_object_add(object, "min", any ? json_object_new_double(s.min) : NULL);
	json_object_object_add(object, "median", any ? json_object_new_double(s.median) : NULL);
	json_object_object_add(object, "max", any ? json_object_new_double(s.max) : NULL);
	json_object_object_add(object, "count", json_object_new_int(f->count));
	json_object_object_add(object, "reason", any ? NULL : json_text(f->reason));
	return object;
}

void bench_json(const struct bench *b)
{
	static const char *const levels[] = {
		[LEVEL_QUICK] = "quick", [LEVEL_NORMAL] = "normal", [LEVEL_FULL] = "full",
	};
	struct json_object *document = json_document("bench"), *array;
	size_t i;

	open_gpu_json(b->e, document);
	json_object_object_add(document, "level", json_text(levels[b->level]));
	json_object_object_add(document, "read_only", json_object_new_boolean(b->read_only));
	json_object_object_add(document, "seconds", json_object_new_double(now() - b->begin));
	array = json_object_new_array();
	for (i = 0; i < b->count; i++)
		json_object_array_add(array, figure_json(&b->figures[i]));
	json_object_object_add(document, "figures", array);
	array = json_object_new_array();
	for (i = 0; i < 2; i++) {
		g_autofree char *text = hint(b, i);

		if (text)
			json_object_array_add(array, json_text(text));
	}
	json_object_object_add(document, "hints", array);
	json_print(document);
}
