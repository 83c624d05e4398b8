// SPDX-License-Identifier: GPL-2.0-only
/*
 * "nvgrace-gpu doctor": checks everything that decides whether a GPU can be
 * assigned to a virtual machine with its memory, and prints a line for each
 * finding. This file has the options, the order of the checks (checks.h) and
 * the output. main.c calls it, and metrics.c for the findings.
 */
#include <ctype.h>
#include <glib.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "doctor/checks.h"
#include "doctor/doctor.h"
#include "facts/egm.h"
#include "facts/recorder.h"
#include "facts/selection.h"
#include "system/options.h"
#include "system/output.h"

static const enum colour colours[] = {
	[GOOD] = COLOUR_GOOD, [UNKNOWN] = COLOUR_DIM, [NOTE] = COLOUR_DIM,
	[WARNING] = COLOUR_WARNING, [BAD] = COLOUR_BAD,
};

/* ---- facts that several checks need ---------------------------------------------------------- */

static void learn(struct doctor *d)
{
	const char *euid, *kernels;
	size_t i;

	d->answers = answers_begin(d->h, d->recorder);
	euid = answer(d->answers, "euid");
	d->privileged = euid && !strcmp(euid, "0");
	d->machine = answer(d->answers, "machine");
	d->arm = d->machine && !strcmp(d->machine, "aarch64");
	d->release = answer(d->answers, "kernel-release");
	if (!d->release || sscanf(d->release, "%d.%d.%d", &d->major, &d->minor, &d->patch) < 2)
		d->major = d->minor = d->patch = 0;
	d->line = answer(d->answers, "command-line");
	d->module = answer(d->answers, "module") ?: "";
	d->config = answer(d->answers, "kernel-config");
	d->log = answer(d->answers, "kernel-log");
	answer(d->answers, "page-size");	/* unused here, but a record needs it */
	d->loaded = host_exists(d->h, "/sys/module/" DRIVER_NAME);
	d->features = host_line(d->h, "/sys/bus/pci/drivers/" DRIVER_NAME "/features");
	d->egm_driver = egm_driver_loaded(d->h, d->answers);
	config_read(d->h, &d->wishes);
	for (i = 0; i < d->wishes.count; i++)
		d->binds |= config_line_binds(&d->wishes.line[i]);
	d->obstacle = config_obstacle(d->h, &d->rule);
	iomem_read(d->h, &d->iomem);
	gpus_find(d->h, &d->gpus);
	kernels = answer(d->answers, "kernels");
	boots_read(d->h, kernels, answer(d->answers, "initramfs"), d->release, &d->boots);
	d->builder = module_builder(d->h);
	guest_facts_read(d->h, d->answers, &d->gpus, &d->facts);
	if (d->recorder)
		guest_facts_ask(d->answers, &d->facts);	/* for guest --root */
}

void doctor_end(struct doctor *d)
{
	size_t i;

	for (i = 0; i < d->count; i++) {
		g_free(d->findings[i].device);
		g_free(d->findings[i].text);
		g_free(d->findings[i].reason);
		g_free(d->findings[i].remedy);
	}
	g_free(d->findings);
	guest_facts_free(&d->facts);
	boots_free(&d->boots);
	g_free(d->path);
	g_free(d->obstacle);
	g_free(d->rule);
	g_free(d->features);
	iomem_free(&d->iomem);
	config_free(&d->wishes);
	gpus_free(&d->gpus);
	answers_free(d->answers);
}

/* ---- the checks ----------------------------------------------------------------------------- */

static void check(struct doctor *d, char (*addresses)[ADDRESS_MAX], size_t count)
{
	size_t i, j;

	if (check_guest(d))
		return;
	check_gpus(d);
	check_kernel(d);
	check_module(d);
	check_iommu(d);
	check_kvm(d);
	check_memory(d);
	check_programs(d);
	check_configuration(d);
	check_boots(d);
	check_egm(d);
	for (i = 0; i < d->gpus.count; i++) {
		for (j = 0; j < count && strcmp(addresses[j], d->gpus.gpu[i].address); j++)
			;
		if (!count || j < count)
			check_gpu(d, &d->gpus.gpu[i]);
	}
}

void doctor_look(struct doctor *d, char (*addresses)[ADDRESS_MAX], size_t count)
{
	learn(d);
	check(d, addresses, count);
}

/* ---- output --------------------------------------------------------------------------------- */

/* Reason and remedy are indented to the device. */
enum { DETAIL_INDENT = 9 };

struct arguments {
	bool json, quiet, all, explain;
	enum verdict fail_on;
	const char *record;
	bool ignored[FINDING_IDS];
	char **typed;
	size_t count;
};

static bool is_shown(const struct arguments *a, const struct finding *f)
{
	return !a->ignored[f->id] && (!a->quiet || f->verdict >= WARNING);
}

static void print_detail(const char *name, const char *text)
{
	if (!text)
		return;
	printf("%*s%s: ", DETAIL_INDENT, "", name);
	print_for_terminal(text, DETAIL_INDENT + 8, DETAIL_INDENT + 8);
}

static void print_finding(const struct finding *f)
{
	const char *device = f->device ? f->device : "host", *id = finding_ids[f->id];
	int column = DETAIL_INDENT + (strlen(device) < 12 ? 12 : strlen(device)) + 2;

	printf("%s%-7s%s  %-12s  %s%s%s: ", colour(colours[f->verdict]), verdict_name(f->verdict),
	       colour(COLOUR_NONE), device, colour(COLOUR_BOLD), id, colour(COLOUR_NONE));
	print_for_terminal(f->text, column, column + strlen(id) + 2);
	print_detail("reason", f->reason);
	print_detail("remedy", f->remedy);
}

/* The worst first. */
static void print_text(const struct doctor *d, const struct arguments *a)
{
	size_t sums[VERDICTS] = { }, i;
	int verdict;

	for (verdict = BAD; verdict >= GOOD; verdict--)
		for (i = 0; i < d->count; i++) {
			const struct finding *f = &d->findings[i];

			if ((int)f->verdict != verdict || !is_shown(a, f))
				continue;
			sums[verdict]++;
			if (verdict != GOOD || a->all)
				print_finding(f);
		}
	if (a->quiet)
		return;
	printf("%s%zu bad, %zu warning, %zu note, %zu unknown, %zu good%s\n",
	       a->all || sums[BAD] + sums[WARNING] + sums[NOTE] + sums[UNKNOWN] ? "\n" : "",
	       sums[BAD], sums[WARNING], sums[NOTE], sums[UNKNOWN], sums[GOOD],
	       a->all || !sums[GOOD] ? "" : " (--all)");
}

static int print_json(const struct doctor *d, const struct arguments *a)
{
	struct json_object *document = json_document("doctor"), *list, *o;
	size_t i;

	list = json_object_new_array();
	for (i = 0; i < d->count; i++) {
		const struct finding *f = &d->findings[i];

		if (!is_shown(a, f))
			continue;
		o = json_object_new_object();
		json_object_object_add(o, "id", json_object_new_string(finding_ids[f->id]));
		json_object_object_add(o, "verdict",
				       json_object_new_string(verdict_name(f->verdict)));
		json_object_object_add(o, "device", json_text(f->device));
		json_object_object_add(o, "text", json_object_new_string(f->text));
		json_object_object_add(o, "reason", json_text(f->reason));
		json_object_object_add(o, "remedy", json_text(f->remedy));
		json_object_array_add(list, o);
	}
	json_object_object_add(document, "findings", list);
	return json_print(document);
}

/* ---- the command ---------------------------------------------------------------------------- */

enum { KEY_FAIL_ON = 256, KEY_EXPLAIN, KEY_IGNORE };

static const struct argp_option options[] = {
	{ "json", 'j', NULL, 0, "Print one JSON document", 0 },
	{ "all", 'a', NULL, 0, "Also print the findings that are good", 0 },
	{ "quiet", 'q', NULL, 0, "Print only warnings and worse", 0 },
	{ "ignore", KEY_IGNORE, "FINDINGS", 0,
	  "Leave out these findings (names between commas), which then don't count for the exit status", 0 },
	{ "fail-on", KEY_FAIL_ON, "bad|warning", 0,
	  "Lowest verdict for which the exit status is not 0: \"warning\" (default) or \"bad\"", 0 },
	{
		"record",
		'r', "DIR", 0, "Also write everything that was read into the new directory DIR, for a bug "
	  "report; --root=DIR gives the same findings on any machine", 0 },
	{ "explain", KEY_EXPLAIN, NULL, 0,
	  "Check nothing; print what all findings mean, or those that you name", 0 },
	{ }
};

static void ignore(struct arguments *a, const char *arg, struct argp_state *state)
{
	g_auto(GStrv) names = g_strsplit(arg, ",", -1);
	enum finding_id id;
	size_t i;

	if (!names[0])
		argp_error(state, "--ignore=: no finding has the name \"\"");
	for (i = 0; names[i]; i++) {
		id = finding_of(names[i]);
		if (id == FINDING_IDS)
			argp_error(state, "--ignore=%s: no finding has the name \"%s\"", arg, names[i]);
		else
			a->ignored[id] = true;
	}
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;

	switch (key) {
	case 'j':
		a->json = true;
		return 0;
	case 'a':
		a->all = true;
		return 0;
	case KEY_IGNORE:
		ignore(a, arg, state);
		return 0;
	case 'q':
		a->quiet = true;
		return 0;
	case 'r':
		a->record = arg;
		return 0;
	case KEY_EXPLAIN:
		a->explain = true;
		return 0;
	case KEY_FAIL_ON:
		if (strcmp(arg, "bad") && strcmp(arg, "warning"))
			argp_error(state, "--fail-on=%s: not a verdict; use \"bad\" or \"warning\"", arg);
		a->fail_on = *arg == 'b' ? BAD : WARNING;
		return 0;
	case ARGP_KEY_ARGS:
		a->typed = state->argv + state->next;
		a->count = state->argc - state->next;
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

static const char doc[] =
	"Check whether GPUs can be assigned to virtual machines with their memory: the host and all "
	"GPUs, or the host and the GPUs that you name. A finding is good, a warning, bad, a note (such "
	"as a limit that only another kernel removes), or unknown (this user or this system can't "
	"find out). A finding that isn't good has a reason and a remedy. The worst come first.\v"
	"Exit status: 0 nothing worse than a note, 6 at least one warning, 7 at least one bad; 1, 2 and 3 "
	"as for the other commands.\n"
	"\n"
	"--record writes the files in /sys, /proc, /etc and /boot that were read, such as the kernel's "
	"command line. For root, these have physical addresses. From the kernel's log, it writes only "
	"the lines that matter.";

int cmd_doctor(struct host *h, int argc, char **argv)
{
	static const struct argp argp = { options, parse, "[ADDRESS...]\n--explain [FINDING...]", doc, NULL, NULL, NULL };
	g_autofree char (*addresses)[ADDRESS_MAX] = NULL;
	struct arguments a = { .fail_on = WARNING };
	struct doctor d = { .h = h };
	enum verdict worst = GOOD;
	int rc = EXIT_OK, end;
	size_t i;

	parse_options(&argp, argc, argv, &a);
	if (a.explain && a.json) {
		complain(NULL, "--explain prints no JSON; leave out --json");
		return EXIT_USAGE_ERROR;
	}
	if (a.explain)
		return explain(a.typed, a.count);

	addresses = g_malloc0_n(a.count, sizeof(*addresses));
	for (i = 0; i < a.count && !rc; i++)
		rc = gpu_resolve(h, a.typed[i], addresses[i]);
	if (!rc && a.record)
		rc = recorder_begin(h, a.record, &d.recorder);
	if (rc)
		return rc;

	doctor_look(&d, addresses, a.count);
	rc = recorder_end(d.recorder);
	if (!a.json)
		print_text(&d, &a);
	else if (print_json(&d, &a))
		rc = EXIT_FAILED;

	for (i = 0; i < d.count; i++)
		if (d.findings[i].verdict > worst && !a.ignored[d.findings[i].id])
			worst = d.findings[i].verdict;
	end = worst < a.fail_on ? EXIT_OK : worst == BAD ? EXIT_BAD : EXIT_WARNINGS;
	doctor_end(&d);
	return rc ? rc : end;
}
