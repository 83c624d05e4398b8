// SPDX-License-Identifier: GPL-2.0-only
/*
 * "nvgrace-gpu doctor": looks at everything that decides whether a GPU can be given to a virtual
 * machine with its memory, and prints a finding a line. Owns the options, the order of the checks
 * and the output; doctor.h says where the checks are. Called by main.c.
 */
#include <ctype.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "doctor.h"

static const struct {
	const char *word;
	enum colour colour;
} verdicts[] = {
	[GOOD] = { "good", COLOUR_GOOD },
	[UNKNOWN] = { "unknown", COLOUR_DIM },
	[NOTE] = { "note", COLOUR_DIM },
	[WARNING] = { "warning", COLOUR_WARNING },
	[BAD] = { "bad", COLOUR_BAD },
};

/* ---- findings ------------------------------------------------------------------------------- */

const char *verdict_name(enum verdict verdict)
{
	return verdicts[verdict].word;
}

/* What files and logs hold gets into findings, and must not reach a terminal or JSON as it is. */
static char *clean_text(const char *fmt, va_list args)
{
	char *text = xvasprintf(fmt, args), *c;

	for (c = text; *c; c++)
		if (*c < ' ' || *c > '~')
			*c = '?';
	return text;
}

struct finding *finding(struct doctor *d, const char *id, enum verdict verdict, const char *device,
			const char *fmt, ...)
{
	struct finding *f;
	va_list args;

	d->findings = xrealloc(d->findings, (d->count + 1) * sizeof(*f));
	f = &d->findings[d->count++];
	*f = (struct finding){ .id = id, .verdict = verdict };
	f->device = device ? xstrdup(device) : NULL;
	va_start(args, fmt);
	f->text = clean_text(fmt, args);
	va_end(args);
	return f;
}

void because(struct finding *f, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	f->reason = clean_text(fmt, args);
	va_end(args);
}

void remedy(struct finding *f, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	f->remedy = clean_text(fmt, args);
	va_end(args);
}

/* ---- facts ---------------------------------------------------------------------------------- */

bool kernel_from(const struct doctor *d, int major, int minor)
{
	return d->major > major || (d->major == major && d->minor >= minor);
}

char kernel_option(const struct doctor *d, const char *name)
{
	const char *rest = d->config;
	size_t len = strlen(name);
	char *line, value = 'n';

	while ((line = next_line(&rest))) {
		if (!strncmp(line, "CONFIG_", 7) && !strncmp(line + 7, name, len) &&
		    line[7 + len] == '=')
			value = line[8 + len];
		free(line);
	}
	return value;
}

bool has_word(const char *list, const char *word)
{
	size_t len = strlen(word), n;

	while (list && *list) {
		list += strspn(list, " \n");
		n = strcspn(list, " \n");
		if (n == len && !strncmp(list, word, len))
			return true;
		list += n;
	}
	return false;
}

bool has_feature(const struct doctor *d, const char *word)
{
	return has_word(d->features, word);
}

static void learn(struct doctor *d)
{
	const char *euid = answer(d, "euid");

	d->privileged = euid && !strcmp(euid, "0");
	d->machine = answer(d, "machine");
	d->arm = d->machine && !strcmp(d->machine, "aarch64");
	d->release = answer(d, "kernel-release");
	if (!d->release || sscanf(d->release, "%d.%d", &d->major, &d->minor) != 2)
		d->major = d->minor = 0;
	d->config = answer(d, "kernel-config");
	d->log = answer(d, "kernel-log");
	answer(d, "page-size");	/* host.c has it already, but a recorded tree needs it */
	d->loaded = host_exists(d->h, "/sys/module/" DRIVER_NAME);
	d->features = host_line(d->h, "/sys/bus/pci/drivers/" DRIVER_NAME "/features");
	config_read(d->h, &d->wishes);
	d->obstacle = config_obstacle(d->h, &d->rule);
	iomem_read(d->h, &d->iomem);
	gpus_find(d->h, &d->gpus);
}

void doctor_end(struct doctor *d)
{
	size_t i;

	for (i = 0; i < d->count; i++) {
		free(d->findings[i].device);
		free(d->findings[i].text);
		free(d->findings[i].reason);
		free(d->findings[i].remedy);
		free(d->findings[i].accepted);
	}
	free(d->findings);
	free(d->obstacle);
	free(d->rule);
	free(d->features);
	iomem_free(&d->iomem);
	config_free(&d->wishes);
	gpus_free(&d->gpus);
	answers_free(d);
}

/* ---- the checks ----------------------------------------------------------------------------- */

static void check_gpus(struct doctor *d)
{
	struct finding *f;

	if (d->gpus.count) {
		finding(d, "gpus", GOOD, NULL, "%zu supported GPU%s", d->gpus.count,
			d->gpus.count > 1 ? "s" : "");
		return;
	}
	f = finding(d, "gpus", BAD, NULL, "no supported GPU");
	because(f,
		"no PCI device has one of the ids 10de:2342, 10de:2345, 10de:2348, 10de:2941, 10de:31c2");
	remedy(f,
	       "see what there is with \"lspci -nn -d 10de:\"; if a GPU is missing, power-cycle the host");
}

struct arguments {
	bool json, quiet;
	enum verdict fail_on;
	const char *record;
	char **typed;
	size_t count;
};

static void check(struct doctor *d, char (*addresses)[ADDRESS_MAX], size_t count)
{
	size_t i, j;

	check_gpus(d);
	check_kernel(d);
	check_module(d);
	check_iommu(d);
	check_kvm(d);
	check_memory(d);
	check_programs(d);
	check_configuration(d);
	check_initramfs(d);
	for (i = 0; i < d->gpus.count; i++) {
		for (j = 0; j < count && strcmp(addresses[j], d->gpus.gpu[i].address); j++)
			;
		if (!count || j < count)
			check_gpu(d, &d->gpus.gpu[i]);
	}
	check_accepted(d, addresses, count);
}

void doctor_look(struct doctor *d, char (*addresses)[ADDRESS_MAX], size_t count)
{
	learn(d);
	check(d, addresses, count);
}

/* ---- output --------------------------------------------------------------------------------- */

/* Whether --quiet leaves it out. */
static bool is_quiet(const struct finding *f)
{
	return f->verdict < WARNING || f->accepted;
}

static void print_text(const struct doctor *d, bool quiet)
{
	size_t sums[VERDICTS] = { }, i, accepted = 0;
	const struct finding *f;

	for (i = 0; i < d->count; i++) {
		f = &d->findings[i];
		sums[f->verdict]++;
		accepted += !!f->accepted;
		if (quiet && is_quiet(f))
			continue;
		printf("%s%-7s%s  %-12s  %s%s%s: %s%s%s%s\n",
		       colour(f->accepted ? COLOUR_DIM : verdicts[f->verdict].colour),
		       verdicts[f->verdict].word, colour(COLOUR_NONE),
		       f->device ? f->device : "host", colour(COLOUR_BOLD), f->id,
		       colour(COLOUR_NONE), f->text, f->accepted ? " (accepted by " : "",
		       f->accepted ? f->accepted : "", f->accepted ? ")" : "");
		if (f->reason)
			printf("         reason: %s\n", f->reason);
		if (f->remedy)
			printf("         remedy: %s\n", f->remedy);
	}
	if (!quiet)
		printf("\n%zu bad, %zu warning, %zu note, %zu unknown, %zu good; %zu accepted\n",
		       sums[BAD], sums[WARNING], sums[NOTE], sums[UNKNOWN], sums[GOOD], accepted);
}

static int print_json(const struct doctor *d, bool quiet)
{
	struct json_object *document = json_document("doctor"), *list, *o;
	const struct finding *f;
	size_t i;

	list = json_object_new_array();
	for (i = 0; i < d->count; i++) {
		f = &d->findings[i];
		if (quiet && is_quiet(f))
			continue;
		o = json_object_new_object();
		json_object_object_add(o, "id", json_object_new_string(f->id));
		json_object_object_add(o, "verdict",
				       json_object_new_string(verdicts[f->verdict].word));
		json_object_object_add(o, "device", json_text(f->device));
		json_object_object_add(o, "text", json_object_new_string(f->text));
		json_object_object_add(o, "reason", json_text(f->reason));
		json_object_object_add(o, "remedy", json_text(f->remedy));
		json_object_object_add(o, "accepted", json_text(f->accepted));
		json_object_array_add(list, o);
	}
	json_object_object_add(document, "findings", list);
	return json_print(document);
}

/* ---- the command ---------------------------------------------------------------------------- */

enum { KEY_FAIL_ON = 256 };

static const struct argp_option options[] = {
	{ "json", 'j', NULL, 0, "Print one JSON document", 0 },
	{ "quiet", 'q', NULL, 0, "Print only what is warning or bad, and not accepted", 0 },
	{ "fail-on", KEY_FAIL_ON, "VERDICT", 0,
	  "Which verdict makes the exit status other than 0: \"warning\" and worse, as without this "
	  "option, or \"bad\" alone", 0 },
	{
		"record",
		'r', "DIR", 0, "Also write all that was looked at into the new directory DIR, for a bug "
	  "report: --root=DIR gives the same findings anywhere", 0 },
	{ }
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;

	switch (key) {
	case 'j':
		a->json = true;
		return 0;
	case 'q':
		a->quiet = true;
		return 0;
	case 'r':
		a->record = arg;
		return 0;
	case KEY_FAIL_ON:
		if (strcmp(arg, "bad") && strcmp(arg, "warning"))
			argp_error(state, "--fail-on=%s: it is \"bad\" or \"warning\"", arg);
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
	"Find out whether GPUs can be given to virtual machines with their memory: of all GPUs and the "
	"host, or of the GPUs named and the host. A finding is good, warning, bad, a note, such as on "
	"a limit that only another kernel lifts, or unknown where this user or this system can't say; whatever isn't good "
	"has its reason and a remedy.\v"
	"Exit status: 0 nothing worse than a note, 6 at least one warning, 7 at least one bad; 1, 2 and 3 "
	"as of the other commands. Findings that a line of " ACCEPT_FILE " accepts don't count. The directory that --record writes holds the files below /sys, /proc "
	"and /etc that were read and, as root, physical addresses; of the kernel's log and command line, "
	"its configuration, its keys and the processes only the lines that matter.";

int cmd_doctor(struct host *h, int argc, char **argv)
{
	static const struct argp argp = { options, parse, "[ADDRESS...]", doc, NULL, NULL, NULL };
	char (*addresses)[ADDRESS_MAX] = NULL;
	struct arguments a = { .fail_on = WARNING };
	struct doctor d = { .h = h };
	enum verdict worst = GOOD;
	int rc = EXIT_OK, end;
	size_t i;

	parse_options(&argp, argc, argv, &a);

	addresses = xcalloc(a.count, sizeof(*addresses));
	for (i = 0; i < a.count && !rc; i++)
		rc = gpu_resolve(h, a.typed[i], addresses[i]);
	if (!rc && a.record)
		rc = record_begin(&d, a.record);
	if (rc) {
		free(addresses);
		return rc;
	}

	doctor_look(&d, addresses, a.count);
	rc = record_end(&d);
	if (!a.json)
		print_text(&d, a.quiet);
	else if (print_json(&d, a.quiet))
		rc = EXIT_FAILED;

	for (i = 0; i < d.count; i++)
		if (d.findings[i].verdict > worst && !d.findings[i].accepted)
			worst = d.findings[i].verdict;
	end = worst < a.fail_on ? EXIT_OK : worst == BAD ? EXIT_BAD : EXIT_WARNINGS;
	doctor_end(&d);
	free(addresses);
	return rc ? rc : end;
}
