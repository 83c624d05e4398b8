// SPDX-License-Identifier: GPL-2.0-only
/*
 * "nvgrace-gpu status": the state of GPUs, and a drawing of their memory.
 * main.c calls it.
 */
#include <errno.h>
#include <glib.h>
#include <json-c/json.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "facts/boots.h"
#include "facts/egm.h"
#include "facts/fact.h"
#include "facts/selection.h"
#include "status/memory.h"
#include "system/options.h"
#include "system/output.h"

static const char doc[] =
	"Show the state of one GPU, or of all without an ADDRESS, and draw its memory: the physical "
	"address of each part in this host, how the CPU maps it, and as which BAR a virtual machine "
	"sees it.\v"
	"An ADDRESS may be short (01:00.0) if only one GPU matches it. Only root can see physical "
	"addresses.";

static const struct argp_option options[] = {
	{ "watch", 'w', "SECONDS", OPTION_ARG_OPTIONAL,
	  "Repeat every SECONDS (1 to 86400, default 2) until interrupted", 0 },
	{ "json", 'j', NULL, 0, JSON_HELP "; with --watch, one document each time", 0 },
	{ }
};

struct arguments {
	const char *typed;
	uint64_t watch; /* seconds; 0: once */
	bool json;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;

	switch (key) {
	case 'w':
		a->watch = 2;
		if (arg && (!parse_u64(arg, &a->watch) || !a->watch || a->watch > 86400))
			argp_error(state, "--watch=%s: not a whole number from 1 to 86400",
				   arg);
		return 0;
	case 'j':
		a->json = true;
		return 0;
	case ARGP_KEY_ARG:
		if (a->typed)
			argp_error(state, "more than one ADDRESS given; give one, or none for all GPUs");
		a->typed = arg;
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

static char *read_features(struct host *h)
{
	return host_line(h, "/sys/bus/pci/drivers/" DRIVER_NAME "/features");
}

/* ---- text --------------------------------------------------------------- */

/* What the driver's words mean, for people; NULL: they say it. */
static const char *const readiness_meanings[] = {
	[GPU_READY_UNKNOWN] = "no access since the last reset",
	[GPU_READY_FAILED] = "the memory did not become ready",
	[GPU_READY_NONE] = NULL,
}, *const scrub_meanings[] = {
	[GPU_SCRUB_OFF] = "GPU memory is not cleared between guests",
	[GPU_SCRUB_UNKNOWN] = "not scrubbed since it was bound",
	[GPU_SCRUB_CLEAN] = "all zeros, and not opened since",
	[GPU_SCRUB_DIRTY] = "opened, and not scrubbed since",
	[GPU_SCRUB_FAILED] = "see the kernel's log",
	[GPU_SCRUB_NONE] = NULL,
};

/* A line with a fact. none: what it has if the fact isn't known; NULL: no line. */
static void draw_fact(struct overview *s, const struct gpu *gpu, const char *label,
		      enum fact fact, const char *none)
{
	g_autofree char *text = fact_text(fact, s, gpu);

	if (text || none)
		field(label, "%s", text ?: none);
}

/* A line with a word of the driver's, if it has said one. */
static void draw_state(const char *label, const char *word, const char *meaning)
{
	if (word)
		field(label, "%s%s%s", word, meaning ? ": " : "", meaning ?: "");
}

/* The present scrub, and what is known of the last one. */
static void draw_scrub(struct overview *s, const struct gpu *gpu)
{
	uint64_t size = gpu_memory_size(gpu), done = gpu->scrub_progress;
	enum scrub_state state = scrub_state_of(gpu->scrub_state);
	g_autofree char *when = fact_text(FACT_scrub_time, s, gpu);

	if (state == GPU_SCRUB_RUNNING && size != GPU_UNKNOWN && size && done <= size)
		field("scrub", "scrubbing: %d %% overwritten with zeros",
		      (int)((double)done / size * 100));
	else
		draw_state("scrub", gpu->scrub_state, scrub_meanings[state]);
	if (gpu->scrub_result && when && gpu->scrub_ms != GPU_UNKNOWN)
		field("last scrub", "%s, %s, %.3f s", gpu->scrub_result, when, gpu->scrub_ms / 1e3);
	draw_fact(s, gpu, "read zeros", FACT_verified_time, NULL);
}

/* What firmware says of extended GPU memory, and whether the driver gives it to guests. */
static struct egm read_egm(struct overview *s, bool *given)
{
	struct answers *answers = answers_begin(s->host, NULL);
	struct egm egm = egm_read(answers, &s->iomem);

	*given = egm_driver_loaded(s->host, answers);
	answers_free(answers);
	return egm;
}

static void draw(struct overview *s, const struct gpu *gpu)
{
	const struct config_line *line = overview_persisted(s, gpu);
	const char *state = overview_state(s, gpu);
	struct part parts[PARTS_MAX];
	g_autofree struct holder *holders = NULL;
	g_autofree char *features = NULL;
	char size[SIZE_MAX_TEXT];
	struct bar bars[BARS];
	size_t count, i;
	struct egm egm;
	bool given;

	printf("%s%s%s  %s  %04x:%04x  %s\n", colour(COLOUR_BOLD), gpu->address,
	       colour(COLOUR_NONE), gpu->product, gpu->vendor, gpu->device, state);
	draw_fact(s, gpu, "driver", FACT_driver, "none");
	draw_fact(s, gpu, "override", FACT_driver_override, "none");
	if (line && overview_obstacle(s))
		field("at boot", "not bound, although %s:%u binds it: %s", line->file, line->line,
		      overview_obstacle(s));
	else if (line)
		field("at boot", "bound, by %s:%u", line->file, line->line);
	else
		field("at boot", "not bound, not in the configuration");
	field("IOMMU", gpu->iommu_group < 0 ? "no group" : "group %d", gpu->iommu_group);
	draw_fact(s, gpu, "NUMA node", FACT_numa_node, "none");
	egm = read_egm(s, &given);
	if (egm.size)
		field("EGM", "%s %s", size_text(egm.size, size), egm_meaning(egm.kind, given));
	else if (egm.kind != EGM_UNSTATED)
		field("EGM", "%s", egm_meaning(egm.kind, given));
	draw_fact(s, gpu, "slot", FACT_slot, NULL);
	draw_fact(s, gpu, "serial", FACT_serial, NULL);
	holders = holders_find(s->host, overview_files(s), gpu, &count);
	for (i = 0; i < count; i++)
		field("open", "%sby process %d (%s), %s", holders[i].certain ? "" : "perhaps ",
		      holders[i].file->pid, holders[i].file->comm, holders[i].file->path);
	if (!count)
		field("open", overview_files(s)->complete ? "no" : "unknown: only root can see all processes");
	if (gpu->ours) {
		features = read_features(s->host);
		field("features", "%s", features ? features : "not reported by this driver");
		draw_fact(s, gpu, "mode", FACT_mode, "not reported by this driver");
		draw_state("readiness", gpu->readiness,
			   readiness_meanings[readiness_of(gpu->readiness)]);
		draw_scrub(s, gpu);
	}
	putchar('\n');
	count = find_parts(s->host, gpu, parts);
	if (count) {
		draw_parts(parts, count);
		putchar('\n');
		draw_bar(4, gpu->usemem_size, gpu->usemem_bar_size);
		draw_bar(2, gpu->resmem_size, gpu->resmem_bar_size);
	} else if (gpu->mode == GPU_MODE_CORE_ONLY) {
		puts("  A plain PCI device: firmware reports no memory outside its BARs.");
	} else if (gpu->ours) {
		puts("  The driver does not report the GPU's memory.");
	} else {
		puts("  Not bound to " DRIVER_NAME ", which reports the GPU's memory.");
	}
	count = find_bars(s->host, gpu, bars);
	for (i = 0; i < count; i++) {
		char name[16];

		snprintf(name, sizeof(name), "BAR%d", bars[i].number);
		field(name, "%s at 0x%llx, the device's own%s", size_text(bars[i].size, size),
		      (unsigned long long)bars[i].address,
		      !bars[i].hidden ? "" :
		      bars[i].number < 4 ? "; a guest sees resmem instead" :
					   "; a guest sees usemem instead");
	}
	for (i = 0; i < s->iomem.count; i++) {
		const struct iomem_range *range = &s->iomem.range[i];

		if (in_memory(gpu, range))
			field("iomem", "%llx-%llx : %s", (unsigned long long)range->start,
			      (unsigned long long)range->end, range->name);
	}
}

/* ---- JSON --------------------------------------------------------------- */

/* Adds the schema's members of one GPU. */
static void fill_json(struct json_object *document, struct overview *s, const struct gpu *gpu)
{
	struct json_object *array, *object;
	g_autofree char *features = read_features(s->host);
	char *word, *save;
	struct egm egm;
	bool given;
	struct part parts[PARTS_MAX];
	struct bar bars[BARS];
	size_t count, i;

	json_object_object_add(document, "gpu", gpu_json(s, gpu));
	array = features ? json_object_new_array() : NULL;
	for (word = features ? strtok_r(features, " ", &save) : NULL; word;
	     word = strtok_r(NULL, " ", &save))
		if (strcmp(word, "none"))
			json_object_array_add(array, json_text(word));
	json_object_object_add(document, "features", array);
	egm = read_egm(s, &given);
	json_object_object_add(document, "egm_size",
			       json_size(egm.kind == EGM_UNSTATED ? GPU_UNKNOWN : egm.size));

	array = json_object_new_array();
	count = find_parts(s->host, gpu, parts);
	for (i = 0; i < count; i++) {
		object = json_object_new_object();
		json_object_object_add(object, "part", json_text(parts[i].name));
		json_object_object_add(object, "start", parts[i].base == GPU_UNKNOWN ? NULL :
				       json_hex(parts[i].base));
		json_object_object_add(object, "size", json_size(parts[i].size));
		json_object_object_add(object, "bar", json_object_new_int(parts[i].bar));
		json_object_object_add(object, "mappable",
				       json_object_new_boolean(parts[i].mappable));
		json_object_object_add(object, "cache", json_text(parts[i].cache));
		json_object_array_add(array, object);
	}
	json_object_object_add(document, "memory_map", array);

	array = json_object_new_array();
	count = find_bars(s->host, gpu, bars);
	for (i = 0; i < count; i++) {
		object = json_object_new_object();
		json_object_object_add(object, "bar", json_object_new_int(bars[i].number));
		json_object_object_add(object, "start", json_hex(bars[i].address));
		json_object_object_add(object, "size", json_size(bars[i].size));
		json_object_object_add(object, "hidden", json_object_new_boolean(bars[i].hidden));
		json_object_array_add(array, object);
	}
	json_object_object_add(document, "own_bars", array);

	array = gpu->usemem_base == GPU_UNKNOWN ? NULL : json_object_new_array();
	for (i = 0; array && i < s->iomem.count; i++) {
		const struct iomem_range *range = &s->iomem.range[i];

		if (!in_memory(gpu, range))
			continue;
		object = json_object_new_object();
		json_object_object_add(object, "start", json_hex(range->start));
		json_object_object_add(object, "end", json_hex(range->end));
		json_object_object_add(object, "name", json_text(range->name));
		json_object_array_add(array, object);
	}
	json_object_object_add(document, "iomem", array);
}

/* ---- the command -------------------------------------------------------- */

/* address: NULL for all GPUs. Returns an exit status. */
static int show(struct host *h, const struct arguments *a, const char *address)
{
	struct json_object *document = json_document("status"), *all = NULL, *one = document;
	struct overview s;
	size_t i, count = 0;
	int rc = EXIT_OK;

	if (!address) {
		all = json_object_new_array();
		json_object_object_add(document, "gpus", all);
	}
	overview_read(h, &s);
	s.no_module = boots_obstacle(h);
	overview_complain(&s);
	for (i = 0; i < s.gpus.count; i++) {
		if (address && strcmp(s.gpus.gpu[i].address, address))
			continue;
		if (!a->json) {
			if (count)
				putchar('\n');
			draw(&s, &s.gpus.gpu[i]);
		} else {
			if (all) {
				one = json_object_new_object();
				json_object_array_add(all, one);
			}
			fill_json(one, &s, &s.gpus.gpu[i]);
		}
		count++;
	}
	overview_free(&s);
	if (!count && address) {
		complain(address, "the device is gone");
		rc = EXIT_NO_DEVICE;
	} else if (!count) {
		complain(NULL, "no supported GPU on this host");
	}
	if (a->json && !rc)
		json_print(document);
	else
		json_object_put(document);
	return rc;
}

int cmd_status(struct host *h, int argc, char **argv)
{
	static const struct argp argp = { options, parse, "[ADDRESS]", doc, NULL, NULL, NULL };
	bool terminal = isatty(STDOUT_FILENO), again = false;
	struct arguments a = { };
	char address[ADDRESS_MAX];
	int rc = EXIT_OK;

	parse_options(&argp, argc, argv, &a);
	if (a.typed)
		rc = gpu_resolve(h, a.typed, address);
	while (!rc) {
		if (a.watch && terminal && !a.json)
			fputs("\033[H\033[2J", stdout); /* home, and clear the screen */
		else if (again && !a.json)
			putchar('\n');
		rc = show(h, &a, a.typed ? address : NULL);
		again = true;
		/* The reader is gone. */
		if (fflush(stdout) || ferror(stdout))
			break;
		if (!a.watch)
			break;
		poll(NULL, 0, a.watch * 1000);
	}
	return rc;
}
