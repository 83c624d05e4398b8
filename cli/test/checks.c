// SPDX-License-Identifier: GPL-2.0-only
/*
 * The checks of "nvgrace-gpu test": see checks.h. test.c calls them in their
 * order.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "exercise/progress.h"
#include "system/output.h"
#include "test/checks.h"

/* ---- results ------------------------------------------------------------ */

static void result(struct test *t, const char *id, enum outcome outcome, const char *fmt, ...)
	printf_like(4, 5);

static void result(struct test *t, const char *id, enum outcome outcome, const char *fmt, ...)
{
	char text[1024];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	t->checks = xrealloc(t->checks, (t->count + 1) * sizeof(*t->checks));
	t->checks[t->count++] = (struct check){ id, outcome, xstrdup(text) };
}

/*
 * Reports a failed system call. EIO and ENODEV mean that the memory is
 * unusable.
 */
static void broken(struct test *t, const char *id, const char *what, int error)
{
	result(t, id, FAILED, "%s: %s; run \"dmesg | grep -e nvgrace -e vfio\"", what,
	       strerror(error));
	if (error == EIO || error == ENODEV)
		t->broken = true;
}

static void fault(struct test *t, const char *id, char *place)
{
	result(t, id, FAILED, "SIGBUS at %s: a memory error, or the GPU does not answer or is not "
	       "ready; run \"dmesg\"", place);
	t->broken = true;
	free(place);
}

static bool skip(struct test *t, const char *id)
{
	if (t->broken)
		result(t, id, SKIPPED, "not done, because the memory can't be used after a failure");
	return t->broken;
}

struct guarded {
	struct test *t;
	void (*check)(struct test *t);
};

static void run_guarded(struct work *work, size_t index, size_t count)
{
	struct guarded *g = work->data;

	g->check(g->t);
}

/* Runs a check in a worker thread, so that a fault becomes its result. */
static void guard(struct test *t, const char *id, void (*check)(struct test *t))
{
	struct guarded g = { t, check };
	struct work work = { .run = run_guarded, .data = &g };

	if (skip(t, id))
		return;
	progress_step(0, -1, "%s", id);
	if (!workers_run(&t->e.cpus, 1, &work))
		return;
	if (work.fault)
		fault(t, id, pattern_place(&t->pattern, work.fault));
	else
		broken(t, id, "can't start a thread", errno);
}

/* ---- sizes -------------------------------------------------------------- */

void check_sizes(struct test *t)
{
	const struct gpu *gpu = &t->e.gpu;
	const struct parts *parts = &t->e.parts;
	size_t i, before = t->count;
	bool told = false;

	for (i = 0; i < parts->count; i++) {
		const struct part *part = &parts->part[i];
		uint64_t size = part->bar == 4 ? gpu->usemem_size : gpu->resmem_size;
		uint64_t bar = part->bar == 4 ? gpu->usemem_bar_size : gpu->resmem_bar_size;

		if (part->bar_size & (part->bar_size - 1))
			result(t, "sizes", FAILED, "BAR%u of %s has %llu bytes, not a power of two",
			       part->bar, part->name, (unsigned long long)part->bar_size);
		if (bar != GPU_UNKNOWN && bar != part->bar_size)
			result(t, "sizes", FAILED, "BAR%u has %llu bytes, but %llu in sysfs",
			       part->bar, (unsigned long long)part->bar_size,
			       (unsigned long long)bar);
		if (size == GPU_UNKNOWN)
			continue;
		told = true;
		if (size > part->bar_size ||
		    size / t->e.host->page_size * t->e.host->page_size != part->mappable)
			result(t, "sizes", FAILED, "%llu bytes of %s can be mapped, but it has %llu in "
			       "sysfs", (unsigned long long)part->mappable, part->name,
			       (unsigned long long)size);
	}
	if (gpu->usemem_size != GPU_UNKNOWN && !part_named(parts, "usemem"))
		result(t, "sizes", FAILED, "vfio shows no usemem, but sysfs does");
	if (gpu->resmem_size != GPU_UNKNOWN && !part_named(parts, "resmem"))
		result(t, "sizes", FAILED, "vfio shows no resmem, but sysfs does");
	if (t->count == before)
		result(t, "sizes", PASSED, told ? "vfio and sysfs agree on memory and BARs"
						: "BARs are powers of two; this driver has no "
						  "sizes in sysfs");
}

/* ---- BAR registers ------------------------------------------------------ */

enum { BAR_FLAGS = 0xc, BAR_FLAG_MASK = 0xf };

/* A 64-bit BAR is two registers, accessed as the 32 bits that they are. */
static int bar_access(struct test *t, uint64_t at, uint64_t *value, bool write)
{
	uint32_t half[2] = { (uint32_t)*value, (uint32_t)(*value >> 32) };
	int i, error = 0;

	for (i = 0; i < 2 && !error; i++)
		error = write ? vfio_write(&t->e.vfio, at + 4 * i, &half[i], 4)
			      : vfio_read(&t->e.vfio, at + 4 * i, &half[i], 4);
	*value = half[0] | (uint64_t)half[1] << 32;
	return error;
}

void check_bars(struct test *t)
{
	uint64_t config, length, at, was, value, ones = ~0ULL;
	size_t i, before = t->count;
	int error;

	error = vfio_config(&t->e.vfio, &config, &length);
	for (i = 0; i < t->e.parts.count && !error; i++) {
		const struct part *part = &t->e.parts.part[i];

		at = config + 0x10 + 4 * part->bar;
		was = value = 0;
		/*
		 * As firmware sizes a BAR. Only the driver's emulation is
		 * involved.
		 */
		error = bar_access(t, at, &was, false);
		if (!error)
			error = bar_access(t, at, &ones, true);
		if (!error)
			error = bar_access(t, at, &value, false);
		if (!error)
			error = bar_access(t, at, &was, true);
		if (!error && ((value & BAR_FLAG_MASK) != BAR_FLAGS ||
			       -(value & ~(uint64_t)BAR_FLAG_MASK) != part->bar_size))
			result(t, "bars", FAILED, "BAR%u's register reads 0x%016llx after a write of all "
			       "ones, which is not a 64-bit prefetchable BAR of %llu bytes",
			       part->bar, (unsigned long long)value,
			       (unsigned long long)part->bar_size);
		ones = ~0ULL;
	}
	if (error)
		broken(t, "bars", "config space", -error);
	else if (t->count == before)
		result(t, "bars", PASSED, "the BAR registers have the sizes of the BARs");
}

/* ---- both ends ---------------------------------------------------------- */

static void ends(struct test *t)
{
	size_t i, j, before = t->count;

	for (i = 0; i < t->e.parts.count; i++) {
		const struct part *part = &t->e.parts.part[i];
		uint64_t at[] = { 0, part->mappable / 2 & ~7ULL, part->mappable - 8 };
		void *map;

		for (j = 0; j < 3; j++)
			*(volatile uint64_t *)(t->pattern.maps[i] + at[j]) = at[j] ^ t->seed;
		for (j = 0; j < 3; j++) {
			uint64_t found = *(volatile uint64_t *)(t->pattern.maps[i] + at[j]);
			char *place;

			if (found == (at[j] ^ t->seed))
				continue;
			place = place_text(part, at[j]);
			result(t, "ends", FAILED, "%s: wrote 0x%016llx, but read 0x%016llx",
			       place, (unsigned long long)(at[j] ^ t->seed),
			       (unsigned long long)found);
			free(place);
		}
		if (part->mappable == part->bar_size)
			continue;
		map = mmap(NULL, t->e.host->page_size, PROT_READ, MAP_SHARED, t->e.vfio.device,
			   part->offset + part->mappable);
		if (map != MAP_FAILED) {
			munmap(map, t->e.host->page_size);
			result(t, "ends", FAILED, "the page after %s can be mapped", part->name);
		}
	}
	if (t->count == before)
		result(t, "ends", PASSED, "the first, the middle and the last word keep what is "
		       "written; the pages after them can't be mapped");
}

void check_ends(struct test *t)
{
	guard(t, "ends", ends);
}

/* ---- after the memory --------------------------------------------------- */

static bool all_ones(const unsigned char *bytes, size_t length)
{
	while (length && *bytes == 0xff) {
		bytes++;
		length--;
	}
	return !length;
}

static void tail(struct test *t)
{
	unsigned char bytes[4096];
	size_t i, j, before = t->count;
	bool any = false;
	int error = 0;

	for (i = 0; i < t->e.parts.count && !error; i++) {
		const struct part *part = &t->e.parts.part[i];
		/*
		 * If the driver reports no size, less than a page after this
		 * may be memory.
		 */
		uint64_t from = part->size + (part->told ? 0 : t->e.host->page_size);
		uint64_t length = from < part->bar_size ? part->bar_size - from : 0;
		uint64_t most = length < sizeof(bytes) ? length : sizeof(bytes);
		uint64_t at[] = { from, part->bar_size - most };

		for (j = 0; j < 2 && length && !error; j++) {
			any = true;
			error = vfio_read(&t->e.vfio, part->offset + at[j], bytes, most);
			if (!error && !all_ones(bytes, most))
				result(t, "tail", FAILED, "0x%llx bytes into %s's BAR, after its "
				       "memory, not all bytes read as 0xff",
				       (unsigned long long)at[j], part->name);
			memset(bytes, 0, most);
			if (!error)
				error = vfio_write(&t->e.vfio, part->offset + at[j], bytes, most);
			if (!error)
				error = vfio_read(&t->e.vfio, part->offset + at[j], bytes, most);
			if (!error && !all_ones(bytes, most))
				result(t, "tail", FAILED, "0x%llx bytes into %s's BAR, after its "
				       "memory, a write is kept", (unsigned long long)at[j],
				       part->name);
		}
	}
	if (error)
		broken(t, "tail", "reading or writing after the memory", -error);
	else if (t->count == before)
		result(t, "tail", PASSED, any ? "after the memory, all reads as 0xff, and writes are dropped"
					      : "the memory fills its BARs");
}

void check_tail(struct test *t)
{
	guard(t, "tail", tail);
}

/* ---- the file and the mapping ------------------------------------------- */

enum { BLOCK = 65536 };

/* Fills bytes so that each depends on its place. */
static void make_bytes(unsigned char *bytes, size_t length, uint64_t seed)
{
	size_t i;

	for (i = 0; i < length; i++)
		bytes[i] = (seed + i * 37) ^ (seed + i) >> 8;
}

/*
 * At one place, compares mapping to file and file to mapping. 0 or a negative
 * errno.
 */
static int both_ways(struct test *t, size_t i, uint64_t at, size_t length, unsigned char *bytes,
		     unsigned char *back)
{
	const struct part *part = &t->e.parts.part[i];
	char *map = t->pattern.maps[i], *place;
	int error;

	make_bytes(bytes, length, t->seed + at);
	memcpy(map + at, bytes, length);
	error = vfio_read(&t->e.vfio, part->offset + at, back, length);
	if (error)
		return error;
	place = place_text(part, at);
	if (memcmp(bytes, back, length))
		result(t, "file", FAILED, "%s: pread of %zu bytes differs from what was "
		       "written through the mapping", place, length);
	make_bytes(bytes, length, ~(t->seed + at));
	error = vfio_write(&t->e.vfio, part->offset + at, bytes, length);
	if (!error) {
		memcpy(back, map + at, length);
		if (memcmp(bytes, back, length))
			result(t, "file", FAILED, "%s: the mapping differs from what pwrite "
			       "of %zu bytes wrote", place, length);
	}
	free(place);
	return error;
}

static void file(struct test *t)
{
	/* Not on the heap: a fault ends this function without its end. */
	static unsigned char bytes[BLOCK], back[BLOCK];
	size_t i, j, before = t->count;
	int error = 0;

	for (i = 0; i < t->e.parts.count && !error; i++) {
		uint64_t end = t->e.parts.part[i].mappable;
		size_t most = end < BLOCK ? end : BLOCK;
		/* Whole blocks, words, and odd lengths at unaligned places. */
		struct {
			uint64_t at;
			size_t length;
		} places[] = { { 0, most }, { end / 2 & ~7ULL, most / 2 }, { end - most, most },
			       { 0, 8 }, { end - 8, 8 }, { end - 4, 4 }, { 1, 1 }, { 3, 1021 },
			       { end - 1021, 1021 } };

		for (j = 0; j < sizeof(places) / sizeof(*places) && !error; j++)
			error = both_ways(t, i, places[j].at, places[j].length, bytes, back);
	}
	if (error)
		broken(t, "file", "pread or pwrite", -error);
	else if (t->count == before)
		result(t, "file", PASSED, "pread and pwrite see what the mapping sees");
}

void check_file(struct test *t)
{
	guard(t, "file", file);
}

/* ---- the patterns ------------------------------------------------------- */

/* Reports a failed sweep; false: the memory is unusable. */
static bool swept(struct test *t, const char *id, enum sweep rc, char *place)
{
	if (rc == SWEEP_FAULT)
		fault(t, id, place);
	else if (rc == SWEEP_ERROR)
		broken(t, id, "accessing the memory", errno);
	t->broken |= rc != SWEEP_DONE;
	return rc == SWEEP_DONE;
}

/*
 * Writes and compares a pattern and its inverse; false: the memory is unusable.
 */
static bool run_pass(struct test *t)
{
	static const char *const doing[] = { "writing", "comparing", "writing the inverse",
					     "comparing the inverse" };
	struct pattern *p = &t->pattern;
	char *place = NULL;
	enum sweep rc;
	int i;

	for (i = 0; i < 4; i++) {
		p->inverse = i >= 2;
		p->doing = doing[i];
		rc = i % 2 ? pattern_compare(p, &place) : pattern_write(p, &place);
		if (!swept(t, "pattern", rc, place))
			return false;
	}
	return true;
}

/*
 * ", first at usemem + 0x1000": the first listed difference that holds another
 * place's word (foreign) or not; "" if none is listed. To be freed.
 */
static char *first_place(const struct pattern *p, bool foreign, const struct difference **first)
{
	char *place, *text;
	size_t i;

	*first = NULL;
	for (i = 0; i < p->listed && !*first; i++)
		if (!p->list[i].owner == !foreign)
			*first = &p->list[i];
	/* The list may have only the other kind. */
	if (!*first)
		return xstrdup("");
	place = place_text((*first)->part, (*first)->offset);
	text = xasprintf(", first at %s", place);
	free(place);
	return text;
}

static void say_differences(struct test *t)
{
	struct pattern *p = &t->pattern;
	unsigned long long own = p->differences - p->foreign, foreign = p->foreign;
	const struct difference *first;
	uint64_t bits = p->ones | p->zeros;
	char *place, *owner;

	place = first_place(p, false, &first);
	if (own && bits && !(bits & (bits - 1)))
		result(t, "pattern", FAILED, "wrong words: %llu%s: bit %d of 64 reads %s",
		       own, place, __builtin_ctzll(bits),
		       !p->zeros ? "1" : !p->ones ? "0" : "the other value");
	else if (own)
		result(t, "pattern", FAILED, "wrong words: %llu%s", own, place);
	free(place);
	place = first_place(p, true, &first);
	owner = first ? place_text(first->owner, first->owner_offset) : xstrdup("");
	if (foreign)
		result(t, "pattern", FAILED, "words with the content of another place: %llu%s%s%s: "
		       "two addresses access the same memory", foreign, place,
		       first ? ", which has that of " : "", owner);
	free(owner);
	free(place);
}

void check_pattern(struct test *t)
{
	struct pattern *p = &t->pattern;
	char size[SIZE_MAX_TEXT];
	uint64_t bytes = 0;
	size_t i;

	if (skip(t, "pattern"))
		return;
	for (i = 0; i < t->e.parts.count; i++)
		bytes += t->e.parts.part[i].mappable;
	p->total = 4 * bytes;
	p->begin = now();
	p->bound = t->bound;
	do {
		p->seed = t->seed + t->passes * ((uint64_t)1 << 48);
		atomic_store(&p->done, 0);
		if (!run_pass(t))
			break;
		t->passes++;
	} while (now() - p->begin < t->bound);
	if (p->differences)
		say_differences(t);
	else if (!t->broken)
		result(t, "pattern", PASSED, "%s written, read back and inverted, %llu time%s",
		       size_text(bytes, size), (unsigned long long)t->passes,
		       t->passes > 1 ? "s" : "");
}

/* ---- the reset ---------------------------------------------------------- */

static void check_survival(struct test *t)
{
	uint64_t sampled, changed;
	char *place = NULL;
	enum sweep rc;

	t->pattern.doing = "reading the content after the reset";
	rc = pattern_sample(&t->pattern, &sampled, &changed, &place);
	if (!swept(t, "content-after-reset", rc, place))
		return;
	/*
	 * If memory failed before the reset, a change may have another cause.
	 */
	if (!changed || !t->pattern.differences)
		t->survived = !changed;
	if (changed && t->pattern.differences)
		result(t, "content-after-reset", NOTED, "not known: %llu of %llu words differ, but "
		       "some did before the reset", (unsigned long long)changed,
		       (unsigned long long)sampled);
	else if (!changed)
		result(t, "content-after-reset", NOTED, "the content survived the reset (%llu words "
		       "of 8 bytes, one in each 4 KiB)", (unsigned long long)sampled);
	else
		result(t, "content-after-reset", NOTED, "the content did not survive the reset: %llu "
		       "of %llu words of 8 bytes, one in each 4 KiB, differ",
		       (unsigned long long)changed, (unsigned long long)sampled);
}

void check_reset(struct test *t)
{
	const struct part *part = &t->e.parts.part[0];
	double begin;
	uint64_t word;
	int error;

	if (skip(t, "reset"))
		return;
	if (!t->e.vfio.can_reset) {
		result(t, "reset", SKIPPED, "vfio can't reset this GPU alone");
		return;
	}
	progress_step(1, -1, "reset");
	begin = now();
	error = vfio_reset(&t->e.vfio);
	if (error) {
		broken(t, "reset", "VFIO_DEVICE_RESET", -error);
		t->broken = true;
		return;
	}
	/* The driver makes the first access wait for the memory. */
	error = vfio_read(&t->e.vfio, part->offset, &word, sizeof(word));
	if (error) {
		result(t, "reset", FAILED, "the memory is not ready %.1f s after a reset: %s; "
		       "if that persists, power-cycle the host", now() - begin, strerror(-error));
		t->broken = true;
		return;
	}
	t->ready = now() - begin;
	if (t->ready > t->ready_limit)
		result(t, "reset", FAILED, "the memory is ready %.1f s after a reset; the limit is "
		       "%.0f s", t->ready, t->ready_limit);
	else
		result(t, "reset", PASSED, "the memory is ready %.3f s after a reset; the limit is "
		       "%.0f s", t->ready, t->ready_limit);
	check_survival(t);
}

/* ---- error counts ------------------------------------------------------- */

static uint64_t count_edac(struct host *h, const char *name)
{
	char **controllers = host_list(h, "/sys/devices/system/edac/mc");
	uint64_t all = GPU_UNKNOWN, one;
	size_t i;

	for (i = 0; controllers && controllers[i]; i++)
		if (!host_u64(h, &one, "/sys/devices/system/edac/mc/%s/%s", controllers[i], name))
			all = (all == GPU_UNKNOWN ? 0 : all) + one;
	host_free_list(controllers);
	return all;
}

void errors_read(const struct test *t, struct errors *errors)
{
	struct host *h = t->e.host;
	const char *address = t->e.gpu.address;
	char *text = host_read(h, NULL, "/proc/meminfo"), *at;

	memset(errors, 0xff, sizeof(*errors));
	gpu_pci_errors(h, address, "fatal", &errors->fatal);
	gpu_pci_errors(h, address, "nonfatal", &errors->nonfatal);
	gpu_pci_errors(h, address, "correctable", &errors->correctable);
	at = text ? strstr(text, "HardwareCorrupted:") : NULL;
	if (at)
		errors->poisoned = strtoull(at + strlen("HardwareCorrupted:"), NULL, 10) << 10;
	free(text);
	errors->uncorrected = count_edac(h, "ue_count");
	errors->corrected = count_edac(h, "ce_count");
}

static uint64_t grown(uint64_t before, uint64_t after)
{
	return before == GPU_UNKNOWN || after == GPU_UNKNOWN || after < before ? 0 : after - before;
}

void check_errors_after(struct test *t)
{
	struct errors *before = &t->before, after;
	unsigned long long bad, other;

	errors_read(t, &after);
	bad = grown(before->fatal, after.fatal) + grown(before->nonfatal, after.nonfatal);
	other = grown(before->correctable, after.correctable);
	if (after.fatal == GPU_UNKNOWN || after.nonfatal == GPU_UNKNOWN)
		result(t, "pcie-errors", SKIPPED, "the kernel counts no errors of this device (no AER)");
	else if (bad)
		result(t, "pcie-errors", FAILED, "%llu uncorrected and %llu corrected PCIe errors "
		       "during the test", bad, other);
	else if (other)
		result(t, "pcie-errors", NOTED, "%llu corrected PCIe errors during the test", other);
	else
		result(t, "pcie-errors", PASSED, "no PCIe errors during the test; since boot, %llu "
		       "uncorrected", (unsigned long long)after.fatal + after.nonfatal);
	bad = grown(before->poisoned, after.poisoned) / 1024;
	other = grown(before->uncorrected, after.uncorrected);
	if (bad || other)
		result(t, "memory-errors", FAILED, "%llu KiB taken out of use and %llu uncorrected "
		       "memory errors counted during the test", bad, other);
	else if (grown(before->corrected, after.corrected))
		result(t, "memory-errors", NOTED, "%llu corrected memory errors during the test",
		       (unsigned long long)grown(before->corrected, after.corrected));
	else if (after.poisoned == GPU_UNKNOWN && after.uncorrected == GPU_UNKNOWN)
		result(t, "memory-errors", SKIPPED, "this kernel counts no memory errors");
	else
		result(t, "memory-errors", PASSED, "no memory errors during the test");
}

void check_link(struct test *t)
{
	static const char *const names[] = { "current_link_speed", "max_link_speed",
					     "current_link_width", "max_link_width" };
	char *text[4];
	size_t i;

	for (i = 0; i < 4; i++)
		text[i] = host_line(t->e.host, "/sys/bus/pci/devices/%s/%s", t->e.gpu.address,
				    names[i]);
	if (!text[0] || !text[1] || !text[2] || !text[3])
		result(t, "pcie-link", SKIPPED, "sysfs does not report the PCIe link");
	else if (strcmp(text[0], text[1]) || strcmp(text[2], text[3]))
		result(t, "pcie-link", NOTED, "the PCIe link is %s x%s; the GPU supports %s "
		       "x%s", text[0], text[2], text[1], text[3]);
	else
		result(t, "pcie-link", PASSED, "the PCIe link is %s x%s, the GPU's maximum",
		       text[0], text[2]);
	for (i = 0; i < 4; i++)
		free(text[i]);
}
