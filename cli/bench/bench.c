// SPDX-License-Identifier: GPL-2.0-only
/*
 * "nvgrace-gpu bench": measures a GPU's memory through vfio, as a VMM uses it. Each
 * round measures every figure once; the figure is the median of the rounds.
 */
#include <errno.h>
#include <glib.h>
#include <json-c/json.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "facts/command.h"
#include "open_gpu/open_gpu.h"
#include "open_gpu/workers.h"
#include "open_gpu/progress.h"
#include "system/options.h"
#include "system/output.h"

#define MiB ((uint64_t)1 << 20)
#define GiB ((uint64_t)1 << 30)

/*
 * Below 4 GiB are the windows for interrupts; an IOMMU has more than 32 bits.
 */
#define IOVA ((uint64_t)1 << 32)

/* Seconds for which short operations are repeated. */
#define REPEATED 0.05

/*
 * A whole line of the CPU's caches is written, because the CPU reads the rest of a
 * line of which it writes less. What was never written may report an error then.
 */
enum { LINE = 64 };

enum { ROUNDS = 5, ROUNDS_MAX = 1000 };

/* With --quick, at most so much of a part is touched and mapped. */
#define QUICK (256 * MiB)

static const char doc[] =
	"Measure the performance of a GPU's memory on this host: opening, resets, first touch, DMA "
	"mapping, read and write.\v"
	"An ADDRESS may be short (01:00.0) if only one GPU matches it. The GPU must be bound to a vfio "
	"driver that shows its memory, and no process may have it open. The command opens it as a VMM "
	"does. It overwrites the memory and resets the GPU, and asks first.";

enum { KEY_QUICK = 256, KEY_ROUNDS };

static const struct argp_option options[] = {
	{ "quick", KEY_QUICK, NULL, 0, "Touch and map only the first 256 MiB of each part, in one round", 0 },
	{ "rounds", KEY_ROUNDS, "N", 0, "Measure N times (1 to 1000, default 5)", 0 },
	{ }
};

struct arguments {
	uint64_t rounds;
	bool quick;
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
	case KEY_ROUNDS:
		if (!parse_u64(arg, &a->rounds) || !a->rounds || a->rounds > ROUNDS_MAX)
			argp_error(state, "--rounds=%s: not a whole number from 1 to %d", arg, ROUNDS_MAX);
		return 0;
	case ARGP_KEY_END:
		a->rounds = a->rounds ?: a->quick ? 1 : ROUNDS;
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

/* ---- figures ------------------------------------------------------------ */

enum unit { SECONDS, BYTES_PER_SECOND, PER_SECOND, FAULTS };

struct figure {
	char *name;		/* stable, in JSON: "pread/usemem/1MiB" */
	enum unit unit;
	uint64_t bytes;		/* measured; 0: not applicable */
	GArray *values;
	char *reason;		/* why there are none; NULL otherwise */
};

struct bench {
	struct open_gpu e;
	bool quick;
	uint64_t round;
	GPtrArray *figures;
	char *buffer;		/* of the largest block */
	volatile unsigned char sink;
	bool failed;		/* after a message */
};

static struct figure *figure_of(struct bench *b, enum unit unit, uint64_t bytes, const char *fmt,
				va_list args)
{
	g_autofree char *name = g_strdup_vprintf(fmt, args);
	struct figure *f;
	guint i;

	for (i = 0; i < b->figures->len; i++) {
		f = b->figures->pdata[i];
		if (!strcmp(f->name, name))
			return f;
	}
	f = g_new0(struct figure, 1);
	*f = (struct figure){ g_steal_pointer(&name), unit, bytes,
			      g_array_new(FALSE, FALSE, sizeof(double)), NULL };
	g_ptr_array_add(b->figures, f);
	return f;
}

G_GNUC_PRINTF(5, 6)
static void add(struct bench *b, enum unit unit, uint64_t bytes, double value, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	g_array_append_val(figure_of(b, unit, bytes, fmt, args)->values, value);
	va_end(args);
}

G_GNUC_PRINTF(4, 5)
static void leave_out(struct bench *b, enum unit unit, const char *reason, const char *fmt, ...)
{
	struct figure *f;
	va_list args;

	va_start(args, fmt);
	f = figure_of(b, unit, 0, fmt, args);
	va_end(args);
	if (!f->reason)
		f->reason = g_strdup(reason);
}

static void figure_free(void *data)
{
	struct figure *f = data;

	g_free(f->name);
	g_array_unref(f->values);
	g_free(f->reason);
	g_free(f);
}

/* error: a negative errno. */
static void failed(struct bench *b, const char *what, int error)
{
	complain(b->e.gpu.address, "%s failed: %s; run \"dmesg | grep -e nvgrace -e vfio\"", what,
		 strerror(-error));
	b->failed = true;
}

/* ---- opening, resetting ------------------------------------------------- */

static char *map(struct bench *b, const struct part *part, uint64_t bytes, uint64_t shift)
{
	char *at = part_map(&b->e.vfio, part, bytes, true, shift);

	if (!at)
		failed(b, "mapping GPU memory", -errno);
	return at;
}

static void write_lines(char *at, uint64_t from, uint64_t to, uint64_t stride)
{
	for (; from < to; from += stride)
		memset(at + from, from >> 12, LINE);
}

static void measure_open(struct bench *b)
{
	double begin;

	vfio_close(&b->e.vfio);
	begin = now();
	b->failed = open_gpu_open(&b->e);
	add(b, SECONDS, 0, now() - begin, "open");
}

static void measure_reset(struct bench *b)
{
	double begin = now();
	int error;
	char *at;

	if (!b->e.vfio.can_reset) {
		leave_out(b, SECONDS, "vfio can't reset this GPU alone", "reset");
		leave_out(b, SECONDS, "vfio can't reset this GPU alone", "reset-ready");
		return;
	}
	error = vfio_reset(&b->e.vfio);
	if (error) {
		failed(b, "VFIO_DEVICE_RESET", error);
		return;
	}
	add(b, SECONDS, 0, now() - begin, "reset");
	at = map(b, &b->e.parts.part[0], b->e.host->page_size, 0);
	if (!at)
		return;
	/* The driver makes the first access wait until the memory is ready. */
	write_lines(at, 0, LINE, LINE);
	add(b, SECONDS, 0, now() - begin, "reset-ready");
	part_unmap(at, b->e.host->page_size);
}

/* ---- first touch, DMA --------------------------------------------------- */

static long thread_faults(void)
{
	struct rusage usage;

	getrusage(RUSAGE_THREAD, &usage);
	return usage.ru_minflt + usage.ru_majflt;
}

/*
 * Reads these places, and adds up the time and the faults. Before that, another
 * mapping writes them. On CPUs that don't mark written pages themselves, writing by
 * the measured mapping would cause more faults.
 */
static void touch(struct bench *b, const char *at, char *writer, uint64_t from, uint64_t to,
		  uint64_t stride, double *seconds, long *faults)
{
	long before;
	double begin;

	write_lines(writer, from, to, stride);
	before = thread_faults();
	begin = now();
	for (; from < to; from += stride)
		b->sink = *(volatile unsigned char *)(at + from);
	*seconds += now() - begin;
	*faults += thread_faults() - before;
}

/*
 * Touches all pages of the first page tables, and of the rest one place for each piece
 * as large as the first faults mapped: touching every page takes long and causes no
 * more faults. Of 256 MiB or less, it touches all pages.
 */
static void measure_touch(struct bench *b, const struct part *part, uint64_t bytes, uint64_t shift,
			  const char *kind, const char *size)
{
	uint64_t page = b->e.host->page_size, table = page * (page / 8), stride = page;
	uint64_t first = bytes <= QUICK || bytes < 4 * table ? bytes : 4 * table;
	char *at = map(b, part, bytes, shift), *writer = at ? map(b, part, bytes, 0) : NULL;
	double seconds = 0;
	long faults = 0;

	if (writer) {
		touch(b, at, writer, 0, first, page, &seconds, &faults);
		while (faults && stride * 2 <= first / faults && stride < table)
			stride *= 2;
		touch(b, at, writer, first, bytes, stride, &seconds, &faults);
		add(b, SECONDS, bytes, seconds, "first-touch%s/%s/%s", kind, part->name, size);
		add(b, FAULTS, bytes, faults, "first-touch%s-faults/%s/%s", kind, part->name, size);
	}
	part_unmap(at, bytes);
	part_unmap(writer, bytes);
}

/* Without first touch, as a VMM does. */
static void measure_dma(struct bench *b, const struct part *part, uint64_t bytes, const char *size)
{
	uint64_t iova = IOVA + (part->base == GPU_UNKNOWN ? 0 : part->base % GiB);
	char *at = map(b, part, bytes, 0);
	double begin = now();
	int64_t result;

	if (!at)
		return;
	result = vfio_dma_map(&b->e.vfio, at, bytes, iova, true);
	if (result) {
		leave_out(b, SECONDS, b->e.vfio.cdev ? "iommufd can't map device memory" : "can't map",
			  "dma-map/%s/%s", part->name, size);
	} else {
		add(b, SECONDS, bytes, now() - begin, "dma-map/%s/%s", part->name, size);
		begin = now();
		result = vfio_dma_unmap(&b->e.vfio, bytes, iova);
		if (result < 0)
			failed(b, "unmapping for DMA", result);
		add(b, SECONDS, bytes, now() - begin, "dma-unmap/%s/%s", part->name, size);
	}
	part_unmap(at, bytes);
}

/* ---- blocks ------------------------------------------------------------- */

enum way { PREAD, PWRITE, COPY_FROM, COPY_TO };

/* Moves blocks in [from, from + span) of the file, or of the mapping. */
static void measure_blocks(struct bench *b, enum way way, uint64_t from, uint64_t span, char *mapped,
			   uint64_t bytes, const char *name)
{
	bool small = bytes < 4096;
	uint64_t at = 0, count = 0;
	double begin = now(), seconds;
	int error = 0;

	if (bytes > span) {
		leave_out(b, small ? PER_SECOND : BYTES_PER_SECOND, "less memory than a block", "%s", name);
		return;
	}
	do {
		if (way == PREAD)
			error = vfio_read_all(&b->e.vfio, from + at, b->buffer, bytes);
		else if (way == PWRITE)
			error = vfio_write_all(&b->e.vfio, from + at, b->buffer, bytes);
		else
			memcpy(way == COPY_FROM ? b->buffer : mapped + at,
			       way == COPY_FROM ? mapped + at : b->buffer, bytes);
		count++;
		at = at + 2 * bytes > span ? 0 : at + bytes;
		seconds = now() - begin;
	} while (!error && seconds < REPEATED);
	if (error)
		failed(b, way == PREAD ? "pread" : "pwrite", error);
	else
		add(b, small ? PER_SECOND : BYTES_PER_SECOND, bytes,
		    count / seconds * (small ? 1 : bytes), "%s", name);
}

#define BLOCKS_MAX (64 * MiB)

static void measure_part(struct bench *b, const struct part *part)
{
	static const struct {
		const char *name;
		uint64_t bytes;
	} sizes[] = { { "4KiB", 4096 }, { "64KiB", 65536 }, { "1MiB", MiB }, { "64MiB", BLOCKS_MAX },
		      { "8B", 8 } };
	static const struct {
		const char *name;
		enum way way;
	} ways[] = { { "pwrite", PWRITE }, { "pread", PREAD }, { "memcpy-to", COPY_TO },
		     { "memcpy-from", COPY_FROM } };
	uint64_t span = part->mappable < QUICK ? part->mappable : QUICK;
	uint64_t tail = part->bar_size - part->size;
	char *mapped = map(b, part, span, 0);
	g_autofree char *tail_name = g_strdup_printf("pread-tail/%s/1MiB", part->name);
	size_t i, j;

	if (!mapped)
		return;
	/* What is read was written. */
	memset(mapped, 0x5a, span);
	for (i = 0; i < G_N_ELEMENTS(ways); i++)
		for (j = 0; j < G_N_ELEMENTS(sizes) && !b->failed; j++) {
			g_autofree char *name = g_strdup_printf("%s/%s/%s", ways[i].name, part->name,
								sizes[j].name);

			if (ways[i].way <= PWRITE || sizes[j].bytes == MiB)
				measure_blocks(b, ways[i].way, part->offset, span, mapped,
					       sizes[j].bytes, name);
		}
	part_unmap(mapped, span);
	measure_blocks(b, PREAD, part->offset + part->size, tail, NULL, tail < MiB ? 4096 : MiB, tail_name);
}

static void measure_config(struct bench *b)
{
	struct vfio_region region;

	if (vfio_get_region(&b->e.vfio, VFIO_PCI_CONFIG_REGION_INDEX, &region))
		return;
	measure_blocks(b, PREAD, region.offset, 4, NULL, 4, "config-read");
}

/* ---- the run ------------------------------------------------------------ */

static void run_round(struct work *work, size_t index, size_t count)
{
	struct bench *b = work->data;
	const struct parts *parts = &b->e.parts;
	uint64_t bytes;
	size_t i;

	measure_open(b);
	for (i = 0; i < parts->count && !b->failed; i++) {
		const struct part *part = &parts->part[i];

		bytes = b->quick && part->mappable > QUICK ? QUICK : part->mappable;
		measure_touch(b, part, bytes, 0, "", b->quick ? "256MiB" : "1.00");
		if (!b->failed)
			measure_dma(b, part, bytes, b->quick ? "256MiB" : "1.00");
		if (!b->failed)
			measure_part(b, part);
	}
	bytes = parts->part[0].mappable < QUICK ? parts->part[0].mappable : QUICK;
	if (!b->failed)
		measure_touch(b, &parts->part[0], bytes, b->e.host->page_size, "-misaligned", "256MiB");
	if (!b->failed)
		measure_config(b);
	if (!b->failed)
		measure_reset(b);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/* The value in the middle, or the mean of the two that are. */
static double median(const struct figure *f)
{
	const double *sorted = (double *)f->values->data;
	guint n = f->values->len;

	return (sorted[(n - 1) / 2] + sorted[n / 2]) / 2;
}

static struct json_object *figure_json(const struct figure *f)
{
	static const char *const units[] = { "s", "B/s", "1/s", "faults" };
	struct json_object *object = json_object_new_object();
	const double *values = (double *)f->values->data;
	guint n = f->values->len;

	json_object_object_add(object, "name", json_text(f->name));
	json_object_object_add(object, "unit", json_text(units[f->unit]));
	json_object_object_add(object, "better", json_text(f->unit == BYTES_PER_SECOND || f->unit == PER_SECOND ?
							   "higher" : "lower"));
	json_object_object_add(object, "bytes", f->bytes ? json_size(f->bytes) : NULL);
	json_object_object_add(object, "min", n ? json_object_new_double(values[0]) : NULL);
	json_object_object_add(object, "median", n ? json_object_new_double(median(f)) : NULL);
	json_object_object_add(object, "max", n ? json_object_new_double(values[n - 1]) : NULL);
	json_object_object_add(object, "count", json_object_new_int(n));
	json_object_object_add(object, "reason", n ? NULL : json_text(f->reason));
	return object;
}

static void print_figure(const struct figure *f)
{
	static const char *const units[] = { "ms", "MB/s", "a second", "faults" };
	static const double scales[] = { 1e3, 1e-6, 1, 1 };

	if (f->values->len)
		printf("  %-44s %12.3f %s\n", f->name, median(f) * scales[f->unit], units[f->unit]);
	else
		printf("  %-44s %s\n", f->name, f->reason);
}

static void print_all(const struct bench *b, bool json, uint64_t rounds)
{
	struct json_object *document = json_document("bench"), *array = json_object_new_array();
	guint i;

	open_gpu_json(&b->e, document);
	json_object_object_add(document, "rounds", json_object_new_int64(rounds));
	if (!json)
		printf("%s  %s  %s %s, Linux %s; medians of %llu rounds:\n", b->e.gpu.address,
		       b->e.gpu.product, b->e.gpu.driver, b->e.driver_version ?: "", b->e.kernel,
		       (unsigned long long)rounds);
	for (i = 0; i < b->figures->len; i++) {
		struct figure *f = b->figures->pdata[i];

		g_array_sort(f->values, compare);
		json_object_array_add(array, figure_json(f));
		if (!json)
			print_figure(f);
	}
	json_object_object_add(document, "figures", array);
	if (json)
		json_print(document);
	else
		json_object_put(document);
}

static int cmd_bench(struct host *h, int argc, char **argv)
{
	static const struct argp argp = {
		options, parse, NULL, doc, open_gpu_children, NULL, NULL
	};
	struct arguments a = {
		.wish = {
			.command = "bench", .risk = "overwrites the memory of this GPU",
			.interrupted = "the GPU is bound and closed as before, but parts of its memory "
				       "are overwritten",
		},
	};
	struct bench b = { };
	struct work work = { .run = run_round, .data = &b, .count = 1 };
	int rc;

	parse_options(&argp, argc, argv, &a);
	rc = open_gpu_begin(h, &a.wish, &b.e);
	if (rc)
		return rc;
	b.quick = a.quick;
	b.figures = g_ptr_array_new_with_free_func(figure_free);
	b.buffer = g_malloc0(BLOCKS_MAX);
	for (; b.round < a.rounds && !b.failed; b.round++) {
		progress_step((double)b.round / a.rounds, -1, "round %d", (int)b.round + 1);
		if (workers_run(&work)) {
			complain(b.e.gpu.address, "SIGBUS: a memory error, or the GPU does not answer or is not "
				 "ready; run \"dmesg | grep -e nvgrace -e 'Memory failure'\"");
			b.failed = true;
		}
	}
	progress_end();
	if (!b.failed)
		print_all(&b, a.wish.json, a.rounds);
	g_free(b.buffer);
	g_ptr_array_unref(b.figures);
	open_gpu_end(&b.e);
	return b.failed ? EXIT_FAILED : EXIT_OK;
}

int main(int argc, char **argv)
{
	return command_main("bench", cmd_bench, argc, argv);
}
