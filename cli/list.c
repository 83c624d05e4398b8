// SPDX-License-Identifier: GPL-2.0-only
/*
 * "nvgrace-gpu list": a table of every supported GPU. Called by main.c.
 */
#include <glib.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "facts/fact.h"
#include "system/options.h"
#include "system/output.h"
#include "system/program.h"

static const char doc[] =
	"List every supported GPU.\v"
	"STATE is one of\n"
	"  unbound        not bound to a driver\n"
	"  bound          bound to " DRIVER_NAME ", and no process has it open\n"
	"  in-use         bound to " DRIVER_NAME ", and a process has it open\n"
	"  other-driver   bound to the driver in column DRIVER\n"
	"  memory-online  its memory is System RAM of this host: it can't be bound\n"
	"\n"
	"SCRUB is the driver's scrub_state; the column is absent if no driver here reports it. "
	"BOOT is yes or no, or blocked if the configuration binds the GPU at boot, but the udev rule "
	"or its program is missing. Columns that don't fit the terminal are left out. Only root can "
	"see other users' processes and where memory is online, so for other users, bound may be "
	"in-use.";

static const struct argp_option options[] = {
	{ "json", 'j', NULL, 0, JSON_HELP, 0 },
	{ "wide", 'w', NULL, 0, "Print all columns, whatever the terminal's width", 0 },
	{ }
};

struct arguments {
	bool json, wide;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;

	switch (key) {
	case 'j':
		a->json = true;
		return 0;
	case 'w':
		a->wide = true;
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

enum { COLUMNS = 10, SCRUB = 7 };

static const char *const titles[COLUMNS] = {
	"ADDRESS", "PRODUCT", "NUMA", "DRIVER", "GROUP", "USEMEM", "RESMEM", "SCRUB", "BOOT",
	"STATE",
};

/*
 * Columns to leave out, in this order, if not all fit: "status" shows them,
 * too.
 */
static const int spare[] = { 2, 4, 6, SCRUB, 5, 1 };

/*
 * Sets the width of columns to 0, which leaves them out, until the rest fits.
 */
static void fit(int width[COLUMNS])
{
	size_t c, i;

	for (i = 0; i < sizeof(spare) / sizeof(*spare); i++) {
		int all = -2;

		for (c = 0; c < COLUMNS; c++)
			all += width[c] ? width[c] + 2 : 0;
		if (all <= terminal_width())
			return;
		width[spare[i]] = 0;
	}
}

static char *number_text(int number)
{
	return number < 0 ? g_strdup("-") : g_strdup_printf("%d", number);
}

static char *memory_text(uint64_t size)
{
	char text[SIZE_MAX_TEXT];

	return g_strdup(size == GPU_UNKNOWN ? "-" : size_text(size, text));
}

static enum colour state_colour(const char *state)
{
	if (!strcmp(state, "bound") || !strcmp(state, "in-use"))
		return COLOUR_GOOD;
	return !strcmp(state, "memory-online") ? COLOUR_BAD : COLOUR_WARNING;
}

static void print_table(struct overview *s, bool wide)
{
	g_autofree char *(*cells)[COLUMNS] = g_malloc0_n(s->gpus.count, sizeof(*cells));
	int width[COLUMNS];
	bool scrub = false;
	size_t i, c;

	for (c = 0; c < COLUMNS; c++)
		width[c] = strlen(titles[c]);
	for (i = 0; i < s->gpus.count; i++) {
		const struct gpu *gpu = &s->gpus.gpu[i];

		cells[i][0] = g_strdup(gpu->address);
		cells[i][1] = g_strdup(gpu->product);
		cells[i][2] = number_text(gpu->numa_node);
		cells[i][3] = g_strdup(gpu->driver ? gpu->driver : "-");
		cells[i][4] = number_text(gpu->iommu_group);
		cells[i][5] = memory_text(gpu->usemem_size);
		cells[i][6] = memory_text(gpu->resmem_size);
		cells[i][SCRUB] = g_strdup(gpu->scrub_state ? gpu->scrub_state : "-");
		scrub |= !!gpu->scrub_state;
		cells[i][8] = g_strdup(overview_boots(s, gpu) ? "yes" :
				       overview_persisted(s, gpu) ? "blocked" : "no");
		cells[i][9] = g_strdup(overview_state(s, gpu));
		for (c = 0; c < COLUMNS; c++)
			if ((int)strlen(cells[i][c]) > width[c])
				width[c] = strlen(cells[i][c]);
	}
	/* Older drivers don't report it: no column of dashes. */
	if (!scrub)
		width[SCRUB] = 0;
	if (!wide)
		fit(width);
	printf("%s", colour(COLOUR_BOLD));
	for (c = 0; c < COLUMNS - 1; c++)
		if (width[c])
			printf("%-*s  ", width[c], titles[c]);
	printf("%s%s\n", titles[c], colour(COLOUR_NONE));
	for (i = 0; i < s->gpus.count; i++) {
		for (c = 0; c < COLUMNS - 1; c++)
			if (width[c])
				printf("%-*s  ", width[c], cells[i][c]);
		printf("%s%s%s\n", colour(state_colour(cells[i][c])), cells[i][c],
		       colour(COLOUR_NONE));
		for (c = 0; c < COLUMNS; c++)
			g_free(cells[i][c]);
	}
}

int cmd_list(struct host *h, int argc, char **argv)
{
	static const struct argp argp = { options, parse, NULL, doc, NULL, NULL, NULL };
	struct json_object *document, *gpus;
	struct arguments a = { };
	struct overview s;
	size_t i;

	parse_options(&argp, argc, argv, &a);
	overview_read(h, &s);
	overview_complain(&s);
	if (a.json) {
		document = json_document("list");
		gpus = json_object_new_array();
		for (i = 0; i < s.gpus.count; i++)
			json_object_array_add(gpus, gpu_json(&s, &s.gpus.gpu[i]));
		json_object_object_add(document, "gpus", gpus);
		json_print(document);
	} else if (s.gpus.count) {
		print_table(&s, a.wide);
	} else {
		/*
		 * Not a failure: a script that loops over the GPUs has nothing
		 * to do.
		 */
		complain(NULL, "no supported GPU on this host");
	}
	overview_free(&s);
	return EXIT_OK;
}
