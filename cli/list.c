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
#include "facts/boots.h"
#include "facts/elsewhere.h"
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
	"or its program is missing, or the kernel that boots next has no module. Columns that don't fit the terminal are left out. Only root can "
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

/*
 * spare: in which order columns are left out if not all fit, as "status" shows them,
 * too; 0: never. The last column has a colour.
 */
static const struct {
	const char *title;
	enum fact fact;
	int spare;
} columns[] = {
	{ "ADDRESS", FACT_address, 0 },
	{ "PRODUCT", FACT_product, 6 },
	{ "NUMA", FACT_numa_node, 1 },
	{ "DRIVER", FACT_driver, 0 },
	{ "GROUP", FACT_iommu_group, 2 },
	{ "USEMEM", FACT_usemem_size, 5 },
	{ "RESMEM", FACT_resmem_size, 3 },
	{ "SCRUB", FACT_scrub_state, 4 },
	{ "BOOT", FACT_boot, 0 },
	{ "STATE", FACT_state, 0 },
};

enum { COLUMNS = G_N_ELEMENTS(columns) };

/*
 * Sets the width of columns to 0, which leaves them out, until the rest fits.
 */
static void fit(int width[COLUMNS])
{
	int spare, all;
	size_t c;

	for (spare = 1; spare < COLUMNS; spare++) {
		all = -2;
		for (c = 0; c < COLUMNS; c++)
			all += width[c] ? width[c] + 2 : 0;
		if (all <= terminal_width())
			return;
		for (c = 0; c < COLUMNS; c++)
			if (columns[c].spare == spare)
				width[c] = 0;
	}
}

static enum colour state_colour(const char *state)
{
	if (!strcmp(state, "bound") || !strcmp(state, "in-use"))
		return COLOUR_GOOD;
	return !strcmp(state, "memory-online") ? COLOUR_BAD : COLOUR_WARNING;
}

static void print_table(struct overview *s, bool wide)
{
	/* The first row has the titles. */
	size_t rows = s->gpus.count + 1, row, c;
	g_autofree char *(*cells)[COLUMNS] = g_malloc0_n(rows, sizeof(*cells));
	int width[COLUMNS] = { };
	bool scrub = false;

	for (row = 0; row < rows; row++) {
		for (c = 0; c < COLUMNS; c++) {
			char *text = row ? fact_text(columns[c].fact, s, &s->gpus.gpu[row - 1]) :
					   g_strdup(columns[c].title);

			scrub |= row && text && columns[c].fact == FACT_scrub_state;
			cells[row][c] = text ?: g_strdup("-");
			width[c] = MAX(width[c], (int)strlen(cells[row][c]));
		}
	}
	/* Older drivers don't report it: no column of dashes. */
	for (c = 0; c < COLUMNS; c++)
		if (columns[c].fact == FACT_scrub_state && !scrub)
			width[c] = 0;
	if (!wide)
		fit(width);
	for (row = 0; row < rows; row++) {
		printf("%s", row ? "" : colour(COLOUR_BOLD));
		for (c = 0; c < COLUMNS - 1; c++)
			if (width[c])
				printf("%-*s  ", width[c], cells[row][c]);
		printf("%s%s%s\n", row ? colour(state_colour(cells[row][c])) : "", cells[row][c],
		       colour(COLOUR_NONE));
		for (c = 0; c < COLUMNS; c++)
			g_free(cells[row][c]);
	}
}

/* A boot that bound nothing, whatever the configuration says. */
static void complain_of_rescue(struct overview *s)
{
	g_autofree char *elsewhere = boot_is_elsewhere(s->host);
	size_t i;

	for (i = 0; elsewhere && i < s->gpus.count; i++)
		if (!s->gpus.gpu[i].ours && overview_boots(s, &s->gpus.gpu[i])) {
			complain(s->gpus.gpu[i].address, "not bound at boot, because this is %s; run \"" PROGRAM
				 " bind %s\"", elsewhere, s->gpus.gpu[i].address);
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
	s.no_module = boots_obstacle(h);
	overview_complain(&s);
	complain_of_rescue(&s);
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
