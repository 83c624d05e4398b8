// SPDX-License-Identifier: GPL-2.0-only
/*
 * "nvgrace-gpu bench": what is measured, in which order and for how long.
 * main.c calls it; measure.c measures, print.c prints.
 *
 * There is a time budget. Each step gets its share of the time that is left, so
 * slow steps leave less for later ones, but each runs at least once. Steps of a
 * series, which take longer for more memory, are omitted if the smaller ones
 * show that they would take too long.
 */
#include <glib.h>
#include <stdlib.h>
#include <string.h>

#include "bench/measure.h"
#include "bench/print.h"
#include "bench/task.h"
#include "commands.h"
#include "open_gpu/progress.h"
#include "system/options.h"
#include "system/output.h"

/* Budgets in seconds, and repetitions if there is time for them. */
static const struct {
	double budget;
	unsigned int repetitions;
} levels[] = {
	[LEVEL_QUICK] = { 5, 3 },
	[LEVEL_NORMAL] = { 60, 5 },
	[LEVEL_FULL] = { 600, 9 },
};

static const char doc[] =
	"Measure the performance of a GPU's memory on this host: opening, first touch, DMA mapping, "
	"bandwidth, latency, read and write.\v"
	"An ADDRESS may be short (01:00.0) if only one GPU matches it. The GPU must be bound to a vfio "
	"driver that shows its memory, and no process may have it open. The command opens it as a VMM "
	"does. It overwrites the memory and resets the GPU, and asks first. It takes about a "
	"minute.";

enum { KEY_QUICK = 256, KEY_FULL, KEY_READ_ONLY };

static const struct argp_option options[] = {
	{ "quick", KEY_QUICK, NULL, 0, "Measure some of the memory, in about 5 seconds", 0 },
	{ "full", KEY_FULL, NULL, 0, "Measure all of the memory, in about 10 minutes", 0 },
	{ "read-only", KEY_READ_ONLY, NULL, 0,
	  "Don't write to GPU memory, and reset the GPU only by opening it. If nothing has written "
	  "the memory before, an error there can stop the host", 0 },
	{ }
};

struct arguments {
	bool quick, full, read_only;
	struct wish wish;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &a->wish;
		return 0;
	case KEY_QUICK:
		a->quick = true;
		return 0;
	case KEY_FULL:
		a->full = true;
		return 0;
	case KEY_READ_ONLY:
		a->read_only = true;
		return 0;
	case ARGP_KEY_END:
		if (a->quick && a->full)
			argp_error(state, "both --quick and --full given");
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

/* ---- the plan ----------------------------------------------------------- */

/* Takes over name and label; returns the figure's index. */
static size_t add_figure(struct bench *b, char *name, char *label, enum unit unit,
			 enum group group, uint64_t bytes)
{
	b->figures = g_renew(struct figure, b->figures, b->count + 1);
	b->figures[b->count] = (struct figure){
		.name = name, .label = label, .unit = unit, .group = group, .bytes = bytes,
	};
	return b->count++;
}

/* ---- the plan ----------------------------------------------------------- */

static struct step *add_step(struct bench *b, struct step step)
{
	b->steps = g_renew(struct step, b->steps, b->step_count + 1);
	b->steps[b->step_count] = step;
	return &b->steps[b->step_count++];
}

/* Rounds down to whole pages, at least one. */
static uint64_t pages_of(const struct bench *b, double bytes)
{
	uint64_t page = b->e->host->page_size, pages = bytes / page;

	return (pages ? pages : 1) * page;
}

static void plan_open(struct bench *b)
{
	struct step s = { .second = NO_FIGURE, .most = 3 };

	s.measure = measure_open;
	s.figure = add_figure(b, g_strdup("open"), g_strdup("open"), UNIT_SECONDS, GROUP_OPEN, 0);
	/* Each open resets the GPU, and one open is needed anyway. */
	s.most = b->read_only ? 1 : 3;
	add_step(b, s);
	s.measure = measure_reset;
	s.figure = add_figure(b, g_strdup("reset"), g_strdup("reset"), UNIT_SECONDS, GROUP_OPEN, 0);
	s.second = add_figure(b, g_strdup("reset-ready"), g_strdup("reset until the memory is ready"),
			      UNIT_SECONDS, GROUP_OPEN, 0);
	s.writes = true;
	s.most = 3;
	add_step(b, s);
}

/* Steps that take longer for more memory. */
static void plan_growth(struct bench *b, const struct part *part, int series)
{
	static const struct {
		double share;
		const char *text;
	} shares[] = { { 0.125, "0.125" }, { 0.25, "0.25" }, { 0.5, "0.50" }, { 1, "1.00" } };
	struct step s = { .part = part, .most = 3 };
	char size[SIZE_MAX_TEXT];
	const char *name;
	size_t i;

	for (i = 0; i < sizeof(shares) / sizeof(*shares); i++) {
		s.bytes = pages_of(b, part->mappable * shares[i].share);
		name = shares[i].text;
		size_text(s.bytes, size);
		s.measure = measure_touch;
		s.series = series;
		s.figure = add_figure(b, g_strdup_printf("first-touch/%s/%s", part->name, name),
				      g_strdup_printf("%s, %s", part->name, size), UNIT_SECONDS,
				      GROUP_TOUCH, s.bytes);
		s.second = add_figure(b, g_strdup_printf("first-touch-faults/%s/%s", part->name, name),
				      g_strdup("  faults"), UNIT_FAULTS, GROUP_TOUCH, s.bytes);
		add_step(b, s);
		s.measure = measure_dma;
		s.series = series + 1;
		s.figure = add_figure(b, g_strdup_printf("dma-map/%s/%s", part->name, name),
				      g_strdup_printf("%s, %s", part->name, size), UNIT_SECONDS,
				      GROUP_DMA, s.bytes);
		s.second = add_figure(b, g_strdup_printf("dma-unmap/%s/%s", part->name, name),
				      g_strdup("  unmapping"), UNIT_SECONDS, GROUP_DMA, s.bytes);
		add_step(b, s);
	}
}

/*
 * The same memory at addresses that large pages can map, and that they can't.
 */
static void plan_alignment(struct bench *b, const struct part *part)
{
	static const char *const kinds[] = { "aligned", "misaligned" };
	struct step s = { .measure = measure_touch, .part = part, .most = 3 };
	char size[SIZE_MAX_TEXT];
	size_t i;

	s.bytes = part->mappable < 256 * MiB ? part->mappable : 256 * MiB;
	size_text(s.bytes, size);
	for (i = 0; i < 2; i++) {
		s.shift = i ? b->e->host->page_size : 0;
		s.figure = add_figure(b,
				      g_strdup_printf("first-touch-%s/%s/256MiB", kinds[i], part->name),
				      g_strdup_printf("%s, %s, %s", part->name, size, kinds[i]),
				      UNIT_SECONDS, GROUP_TOUCH, s.bytes);
		s.second = add_figure(b, g_strdup_printf("first-touch-%s-faults/%s/256MiB", kinds[i],
							 part->name),
				      g_strdup("  faults"), UNIT_FAULTS, GROUP_TOUCH, s.bytes);
		add_step(b, s);
	}
}

static void plan_bandwidth(struct bench *b, const struct part *part)
{
	static const struct {
		const char *name;
		int (*measure)(struct bench *, struct step *, double);
		bool writes;
	} operations[] = { { "read", measure_read, false }, { "write", measure_write, true },
			   { "copy", measure_copy, true } };
	const char *name = part ? part->name : "host";
	struct step s = { .second = NO_FIGURE, .part = part, .weight = 2 };
	size_t i, threads, next;

	for (i = 0; i < sizeof(operations) / sizeof(*operations); i++) {
		s.measure = operations[i].measure;
		s.writes = operations[i].writes && part;
		for (threads = 1; threads; threads = next) {
			s.threads = threads;
			s.figure = add_figure(b, g_strdup_printf("%s/%s/%zu", operations[i].name, name,
								 threads),
					      g_strdup_printf("%s %s, %zu thread%s", operations[i].name,
							      name, threads, threads > 1 ? "s" : ""),
					      UNIT_BYTES_PER_SECOND, GROUP_MEMORY, 0);
			add_step(b, s);
			next = b->level == LEVEL_QUICK ? b->e->cpus.count : threads * 2;
			if (next > b->e->cpus.count)
				next = b->e->cpus.count;
			if (next <= threads)
				next = 0;
		}
	}
}

static void plan_latency(struct bench *b, const struct part *part)
{
	const char *name = part ? part->name : "host";
	struct step s = { .measure = measure_latency, .second = NO_FIGURE, .part = part,
			  .weight = 2, .writes = part };

	s.figure = add_figure(b, g_strdup_printf("latency/%s", name), g_strdup(name), UNIT_SECONDS,
			      GROUP_LATENCY, 0);
	add_step(b, s);
}

static void plan_file(struct bench *b, const struct part *part)
{
	static const struct {
		const char *name, *label;
		uint64_t bytes;
	} sizes[] = { { "4KiB", "4 KiB", 4096 }, { "64KiB", "64 KiB", 65536 },
		      { "1MiB", "1 MiB", MiB }, { "64MiB", "64 MiB", 64 * MiB } };
	static const struct {
		const char *name, *label;
		int (*measure)(struct bench *, struct step *, double);
		bool writes, all;
	} kinds[] = { { "pread", "pread", measure_pread, false, true },
		      { "pwrite", "pwrite", measure_pwrite, true, true },
		      { "memcpy-from", "memcpy from", measure_memcpy_from, false, false },
		      { "memcpy-to", "memcpy to", measure_memcpy_to, true, false } };
	struct step s = { .second = NO_FIGURE, .part = part, .weight = 1 };
	size_t i, j;

	for (i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
		for (j = 0; j < sizeof(sizes) / sizeof(*sizes); j++) {
			if (!kinds[i].all && sizes[j].bytes != MiB)
				continue;
			s.measure = kinds[i].measure;
			s.writes = kinds[i].writes;
			s.bytes = sizes[j].bytes;
			s.figure = add_figure(b, g_strdup_printf("%s/%s/%s", kinds[i].name, part->name,
								 sizes[j].name),
					      g_strdup_printf("%s %s, %s", kinds[i].label, part->name,
							      sizes[j].label),
					      UNIT_BYTES_PER_SECOND, GROUP_FILE, s.bytes);
			add_step(b, s);
		}
	s.writes = false;
	s.measure = measure_pread;
	s.bytes = 8;
	s.figure = add_figure(b, g_strdup_printf("pread/%s/8B", part->name),
			      g_strdup_printf("pread %s, 8 bytes", part->name), UNIT_PER_SECOND,
			      GROUP_FILE, s.bytes);
	add_step(b, s);
	s.measure = measure_tail;
	/* The same size as for memory, if there is as much. */
	s.bytes = part->bar_size - part->size < MiB ? 4096 : MiB;
	s.figure = add_figure(b, g_strdup_printf("pread-tail/%s/1MiB", part->name),
			      g_strdup_printf("pread after %s", part->name), UNIT_BYTES_PER_SECOND,
			      GROUP_FILE, s.bytes);
	add_step(b, s);
}

static void plan(struct bench *b)
{
	const struct parts *parts = &b->e->parts;
	struct step s = { .measure = measure_config, .second = NO_FIGURE, .weight = 1, .bytes = 4 };
	size_t i;

	plan_open(b);
	for (i = 0; i < parts->count; i++)
		plan_growth(b, &parts->part[i], 1 + 2 * i);
	plan_alignment(b, &parts->part[0]);
	for (i = 0; i < parts->count; i++)
		plan_bandwidth(b, &parts->part[i]);
	plan_bandwidth(b, NULL);
	for (i = 0; i < parts->count; i++)
		plan_latency(b, &parts->part[i]);
	plan_latency(b, NULL);
	for (i = 0; i < parts->count; i++)
		plan_file(b, &parts->part[i]);
	s.figure = add_figure(b, g_strdup("config-read"), g_strdup("config space, 4 bytes"),
			      UNIT_PER_SECOND, GROUP_FILE, s.bytes);
	add_step(b, s);
}

/* ---- the run ------------------------------------------------------------ */

enum { SERIES_MAX = 5 };

/* Takes over the reason. */
static void leave_out(struct bench *b, struct step *s, char *reason)
{
	figure_refuse(b, s->second, g_strdup(reason));
	figure_refuse(b, s->figure, reason);
}

/* Repeats a step for slice seconds. 0, or -1 if the bench has failed. */
static int repeat(struct bench *b, struct step *s, double slice, double *longest)
{
	unsigned int i, most = s->most ? s->most : levels[b->level].repetitions;
	double begin = now(), last, each = slice / most;
	int rc;

	/* Shorter measurements are noise. */
	each = each < 0.002 ? 0.002 : each;
	*longest = 0;
	for (i = 0; i < most; i++) {
		/* Another repetition must fit into the slice. */
		if (i && now() - begin + *longest > slice)
			break;
		last = now();
		rc = s->measure(b, s, each);
		if (rc)
			return rc < 0 ? -1 : 0;
		last = now() - last;
		*longest = last > *longest ? last : *longest;
	}
	return 0;
}

static int run(struct bench *b)
{
	double per_byte[SERIES_MAX] = { }, left, slice, longest, predicted;
	unsigned int weight = 0;
	size_t i;

	for (i = 0; i < b->step_count; i++)
		weight += b->steps[i].weight;
	for (i = 0; i < b->step_count; i++) {
		struct step *s = &b->steps[i];
		const struct figure *f = &b->figures[s->figure];

		left = b->begin + b->budget - now();
		progress_step((double)i / b->step_count, left > 0 ? left : -1, "%s", f->name);
		if (b->read_only && s->writes) {
			leave_out(b, s, g_strdup("omitted: --read-only"));
			weight -= s->weight;
			continue;
		}
		predicted = s->series ? per_byte[s->series] * s->bytes : 0;
		/*
		 * A step without a weight may use a third of the time that is
		 * left.
		 */
		if (predicted > (left > 0 ? left : 0) / 3 && predicted > 0.2) {
			leave_out(b, s, g_strdup_printf("omitted: it would take about %.1f s", predicted));
			continue;
		}
		slice = left <= 0 ? 0 : s->weight ? left * s->weight / weight : left / 50;
		if (repeat(b, s, slice, &longest))
			return -1;
		if (s->series && s->bytes)
			per_byte[s->series] = longest / s->bytes;
		weight -= s->weight;
	}
	return 0;
}

static void bench_free(struct bench *b)
{
	size_t i;

	for (i = 0; i < b->count; i++) {
		g_free(b->figures[i].name);
		g_free(b->figures[i].label);
		g_free(b->figures[i].values);
		g_free(b->figures[i].reason);
	}
	g_free(b->figures);
	g_free(b->steps);
}

int cmd_bench(struct host *h, int argc, char **argv)
{
	static const struct argp argp = {
		options, parse, NULL, doc, open_gpu_children, NULL, NULL
	};
	struct arguments a = { .wish = { .command = "bench" } };
	struct bench b = { };
	struct open_gpu e;
	int rc;

	parse_options(&argp, argc, argv, &a);
	/*
	 * What was never written may read as a memory error. Without an option,
	 * the bench writes all memory before it reads it.
	 */
	a.wish.risk = a.read_only ? "--read-only reads memory of this GPU that may never have been "
				    "written, and a memory error there can stop the host"
				  : "overwrites the memory of this GPU";
	a.wish.interrupted = a.read_only ? "the GPU is bound and closed as before"
					 : "the GPU is bound and closed as before, but parts of "
					   "its memory are overwritten";
	rc = open_gpu_begin(h, &a.wish, &e);
	if (rc)
		return rc;
	b.e = &e;
	b.level = a.quick ? LEVEL_QUICK : a.full ? LEVEL_FULL : LEVEL_NORMAL;
	b.read_only = a.read_only;
	b.budget = levels[b.level].budget;
	b.begin = now();
	plan(&b);
	rc = run(&b) ? EXIT_FAILED : EXIT_OK;
	bench_unmap(&b);
	progress_end();
	if (!rc && a.wish.json)
		bench_json(&b);
	else if (!rc)
		bench_print(&b);
	bench_free(&b);
	open_gpu_end(&e);
	return rc;
}
