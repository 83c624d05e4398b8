// SPDX-License-Identifier: GPL-2.0-only
/*
 * "nvgrace-gpu metrics": metrics of the GPUs, in Prometheus' text format 0.0.4,
 * which node_exporter's textfile collector and promtool read. main.c calls it.
 *
 * OpenMetrics is no alternative: it names a counter's family "x", and the older
 * format "x_total", so a counter has a type in only one of them.
 */
#include <errno.h>
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "doctor/doctor.h"
#include "facts/boots.h"
#include "facts/fact.h"
#include "system/options.h"
#include "system/output.h"
#include "system/program.h"

static const char doc[] =
	"Print the state of all supported GPUs and the doctor's findings as Prometheus text, "
	"for a monitoring system.\v"
	"For node_exporter's textfile collector, nvgrace-gpu-metrics.timer runs this regularly with "
	"--output=FILE, where FILE is in the collector's directory and ends in .prom. Run it as root: "
	"other users can't see all processes, or where memory is online.";

static const struct argp_option options[] = {
	{ "output", 'o', "FILE", 0,
	  "Replace FILE as a whole, or write to it if it is a device or a FIFO; -: standard output", 0 },
	{ }
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	const char **output = state->input;

	if (key != 'o')
		return ARGP_ERR_UNKNOWN;
	*output = arg;
	return 0;
}

/* ---- the format ------------------------------------------------------------------------------ */

#define PREFIX "nvgrace_gpu_"

/* Begins a family. It is a counter if its name says so. */
static void family(FILE *out, const char *name, const char *help)
{
	const char ending[] = "_total";
	size_t length = strlen(name), end = strlen(ending);
	bool counter = length > end && !strcmp(name + length - end, ending);

	fprintf(out, "# HELP " PREFIX "%s %s\n", name, help);
	fprintf(out, "# TYPE " PREFIX "%s %s\n", name, counter ? "counter" : "gauge");
}

/* Prints a sample. labels: pairs of name and value, then NULL. */
static void sample_text(FILE *out, const char *name, const char *const *labels, const char *value)
{
	const char *c, *between = "{";

	fprintf(out, PREFIX "%s", name);
	for (; labels[0]; labels += 2) {
		fprintf(out, "%s%s=\"", between, labels[0]);
		for (c = labels[1] ? labels[1] : ""; *c; c++) {
			if (*c == '"' || *c == '\\')
				fputc('\\', out);
			/* Unprintable bytes became '?' when they were read. */
			fputc(*c, out);
		}
		fputc('"', out);
		between = ",";
	}
	fprintf(out, "%s %s\n", *between == ',' ? "}" : "", value);
}

static void sample(FILE *out, const char *name, const char *const *labels, uint64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
	sample_text(out, name, labels, text);
}

#define SAMPLE(out, name, value, ...) \
	sample(out, name, (const char *const[]){ __VA_ARGS__, NULL }, value)

/* ---- the values ------------------------------------------------------------------------------ */

static void print_infos(FILE *out, struct overview *s)
{
	g_autofree char *loaded = host_line(s->host, "/sys/module/" DRIVER_NAME "/version");
	size_t i;

	family(out, "tool_info", "The version of this program.");
	SAMPLE(out, "tool_info", 1, "version", VERSION);
	family(out, "module_info", "The version of the loaded module.");
	if (loaded && *loaded) {
		make_printable(loaded);
		SAMPLE(out, "module_info", 1, "version", loaded);
	}
	family(out, "device_info", "A supported GPU.");
	for (i = 0; i < s->gpus.count; i++) {
		const struct gpu *gpu = &s->gpus.gpu[i];

		SAMPLE(out, "device_info", 1, "address", gpu->address, "product", gpu->product,
		       "serial", gpu->serial);
	}
}

static const char *const states[] = {
	"unbound", "other-driver", "bound", "in-use", "memory-online", NULL
}, *const drivers[] = {
	DRIVER_NAME, "vfio-pci", "nvidia", "nouveau", "NovaCore", "none", NULL
};

/* Metrics with a sample for each GPU of which the fact is known, by the fact's type. */
#define VALUE(name, of, help) { name, (enum fact)NUMBER_OF_##of, NULL, 1, help }
#define SECONDS(name, of, help) { name, (enum fact)MILLISECONDS_OF_##of, NULL, 1000, help }
#define STATE(name, of, words, help) { name, (enum fact)WORD_OF_##of, words, 1, help }

static const struct {
	const char *name;
	enum fact fact;
	const char *const *words;	/* a sample for each; NULL: the fact is a number */
	unsigned int divisor;		/* to Prometheus' unit */
	const char *help;
} metrics[] = {
	VALUE("bound", bound, "Whether the GPU is bound to " DRIVER_NAME "."),
	VALUE("ready", ready,
	      "Whether the GPU's memory was found trained since the last reset or low power."),
	VALUE("in_use", in_use, "Whether a process has the GPU open."),
	VALUE("memory_online", memory_online,
	      "Whether the GPU's memory is System RAM of this host, so that the GPU can't be bound."),
	VALUE("bound_at_boot", at_boot, "Whether the GPU will be bound at boot."),
	STATE("state", state, states, "The state of the GPU, as \"nvgrace-gpu list\" shows it."),
	STATE("driver", driver_or_none, drivers, "The driver that the GPU is bound to."),
	STATE("mode", mode, gpu_mode_words, "How the driver presents the GPU's memory."),
	STATE("readiness", readiness, gpu_readiness_words, "The driver's readiness attribute of the GPU."),
	STATE("scrub_state", scrub_state, gpu_scrub_words, "The driver's scrub_state attribute of the GPU."),
	VALUE("usemem_bytes", usemem_size, "Size of the cacheable part of the GPU's memory."),
	VALUE("resmem_bytes", resmem_size, "Size of the non-cacheable part of the GPU's memory."),
	VALUE("scrub_progress_bytes", scrub_progress,
	      "Bytes of the GPU's memory that the running or last scrub has overwritten."),
	VALUE("scrubs_total", scrub_count, "Scrubs that have ended since the GPU was bound."),
	VALUE("scrub_last_clean", scrub_clean,
	      "Whether the last scrub that has ended has overwritten all of the GPU's memory."),
	VALUE("scrub_last_timestamp_seconds", scrub_time,
	      "When the last scrub ended, in seconds since 1970."),
	SECONDS("scrub_last_duration_seconds", scrub_ms, "How long the last scrub took."),
	VALUE("scrub_verified_timestamp_seconds", verified_time,
	      "When scrub --verify last read zeros from all of the GPU's memory, in seconds since 1970."),
	VALUE("resets_total", resets, "Resets since the GPU was bound."),
	VALUE("waits_total", waits, "Waits for the GPU's memory since the GPU was bound."),
};

/* Prints a sample for each word: 1 for the state, 0 for the others. */
static void print_state(FILE *out, const char *name, const char *address,
			const char *const *words, const char *state)
{
	bool known = false;

	for (; *words; words++) {
		known |= !strcmp(*words, state);
		SAMPLE(out, name, !strcmp(*words, state), "address", address, name, *words);
	}
	if (!known)
		SAMPLE(out, name, 1, "address", address, name, state);
}

static void print_metric(FILE *out, struct overview *s, size_t metric)
{
	const char *name = metrics[metric].name, *address;
	struct value value;
	char text[32];
	size_t i;

	family(out, name, metrics[metric].help);
	for (i = 0; i < s->gpus.count; i++) {
		address = s->gpus.gpu[i].address;
		value = fact_value(metrics[metric].fact, s, &s->gpus.gpu[i]);
		if (!value.known)
			continue;
		if (metrics[metric].words) {
			print_state(out, name, address, metrics[metric].words, value.text);
		} else if (metrics[metric].divisor == 1000) {
			snprintf(text, sizeof(text), "%llu.%03u",
				 (unsigned long long)value.number / 1000,
				 (unsigned int)(value.number % 1000));
			sample_text(out, name, (const char *const[]){ "address", address, NULL },
				    text);
		} else {
			SAMPLE(out, name, value.number, "address", address);
		}
	}
}

static void print_errors(FILE *out, struct overview *s)
{
	static const char *const severities[] = { "fatal", "nonfatal" };
	uint64_t value;
	size_t i, k;

	family(out, "pci_uncorrected_errors_total",
	       "Uncorrected PCIe errors (AER) since boot.");
	for (i = 0; i < s->gpus.count; i++)
		for (k = 0; k < G_N_ELEMENTS(severities); k++)
			if (!gpu_pci_errors(s->host, s->gpus.gpu[i].address, severities[k],
					    &value))
				SAMPLE(out, "pci_uncorrected_errors_total", value, "address",
				       s->gpus.gpu[i].address, "severity", severities[k]);
}

static void count_findings(FILE *out, const struct doctor *d, const char *device)
{
	uint64_t sums[VERDICTS] = { };
	size_t i;

	for (i = 0; i < d->count; i++) {
		const struct finding *f = &d->findings[i];

		if (!strcmp(f->device ? f->device : "host", device))
			sums[f->verdict]++;
	}
	for (i = 0; i < VERDICTS; i++)
		SAMPLE(out, "findings", sums[i], "device", device, "verdict", verdict_name(i));
}

/* Whether an earlier finding has the same labels. */
static bool is_repeated(const struct doctor *d, const struct finding *f)
{
	const struct finding *e;

	for (e = d->findings; e < f; e++)
		if (e->verdict == f->verdict && e->id == f->id &&
		    !strcmp(e->device ? e->device : "", f->device ? f->device : ""))
			return true;
	return false;
}

static void print_findings(FILE *out, const struct doctor *d)
{
	const struct finding *f;
	size_t i;

	family(out, "finding",
	       "A finding of the doctor that is not good, by the id of doctor.md.");
	for (f = d->findings; f < d->findings + d->count; f++)
		if (f->verdict != GOOD && !is_repeated(d, f))
			SAMPLE(out, "finding", 1, "device", f->device ? f->device : "host",
			       "finding", finding_ids[f->id], "verdict", verdict_name(f->verdict));

	family(out, "findings", "Number of the doctor's findings, by verdict.");
	count_findings(out, d, "host");
	for (i = 0; i < d->gpus.count; i++)
		count_findings(out, d, d->gpus.gpu[i].address);
}

static void print_metrics(FILE *out, void *host)
{
	struct doctor d = { .h = host };
	struct overview s;
	size_t i;

	doctor_look(&d, NULL, 0);
	overview_read(host, &s);
	s.no_module = boots_obstacle(host);
	print_infos(out, &s);
	for (i = 0; i < G_N_ELEMENTS(metrics); i++) {
		/* Before the other counters. */
		if (metrics[i].fact == FACT_resets)
			print_errors(out, &s);
		print_metric(out, &s, i);
	}
	print_findings(out, &d);
	overview_free(&s);
	doctor_end(&d);
}

/* ---- the command ----------------------------------------------------------------------------- */

/* Whether the folder of the file is there; after a message if not. */
static bool has_folder(const char *file)
{
	g_autofree char *folder = g_path_get_dirname(file);

	if (!access(folder, X_OK))
		return true;
	complain(NULL, "--output=%s: %s: %s; name a file in the folder that your collector reads; for nvgrace-gpu-metrics.service, it is FILE= of \"systemctl edit nvgrace-gpu-metrics.service\"",
		 file, folder, strerror(errno));
	return false;
}

int cmd_metrics(struct host *h, int argc, char **argv)
{
	static const struct argp argp = { options, parse, NULL, doc, NULL, NULL, NULL };
	const char *output = NULL;

	parse_options(&argp, argc, argv, &output);
	/* The doctor reads for seconds. */
	if (output && strcmp(output, "-") && !has_folder(output))
		return EXIT_FAILED;
	if (output)
		return write_whole(output, 0644, print_metrics, h) ? EXIT_FAILED : EXIT_OK;
	print_metrics(stdout, h);
	return EXIT_OK;
}
