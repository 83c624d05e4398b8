// SPDX-License-Identifier: GPL-2.0-only
/*
 * The steps of "nvgrace-gpu test" that write and read memory, first at a few
 * places, then all of it, then through the device's file. See test.h.
 */
#include <glib.h>
#include <stdlib.h>
#include <string.h>

#include "open_gpu/progress.h"
#include "system/output.h"
#include "test/test.h"

#define MiB ((uint64_t)1 << 20)

/* More than any part: only its begin and its end. */
#define ENDS ((uint64_t)1 << 62)

/* ---- some places -------------------------------------------------------- */

/* Writes 64 bytes at these places of both parts, and then reads them. */
static void check_places(struct test *t, const char *id, uint64_t stride, const char *where)
{
	struct pattern *p = &t->pattern;
	char *place = NULL;
	enum sweep rc;

	if (t->failed)
		return;
	log_line(t, "writes 64 bytes %s of each part, and then reads them", where);
	progress_step(0, -1, "%s", id);
	p->stride = stride;
	p->inverse = false;
	rc = pattern_write(p, &place);
	if (rc == SWEEP_DONE)
		rc = pattern_compare(p, &place);
	p->stride = 0;
	if (!result_swept(t, id, rc, place))
		return;
	if (p->differences)
		say_differences(t, id);
	else
		result(t, id, PASSED, "64 bytes %s of each part keep what is written", where);
}

void step_touch(struct test *t)
{
	check_places(t, "ends", ENDS, "at the beginning and at the end");
	check_places(t, "every-64-MiB", 64 * MiB, "every 64 MiB");
}

void step_sample(struct test *t)
{
	check_places(t, "every-2-MiB", 2 * MiB, "every 2 MiB");
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

static void check_tail(struct test *t)
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
			error = vfio_read_all(&t->e.vfio, part->offset + at[j], bytes, most);
			if (!error && !all_ones(bytes, most))
				result(t, "tail", FAILED, "0x%llx bytes into %s's BAR, after its "
				       "memory, not all bytes read as 0xff",
				       (unsigned long long)at[j], part->name);
			memset(bytes, 0, most);
			if (!error)
				error = vfio_write_all(&t->e.vfio, part->offset + at[j], bytes, most);
			if (!error)
				error = vfio_read_all(&t->e.vfio, part->offset + at[j], bytes, most);
			if (!error && !all_ones(bytes, most))
				result(t, "tail", FAILED, "0x%llx bytes into %s's BAR, after its "
				       "memory, a write is kept", (unsigned long long)at[j],
				       part->name);
		}
	}
	if (error)
		result_error(t, "tail", "reading or writing after the memory", -error);
	else if (t->count == before)
		result(t, "tail", PASSED, any ? "after the memory, all reads as 0xff, and writes are dropped"
					      : "the memory fills its BARs");
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
	g_autofree char *place = NULL;
	char *map = t->pattern.maps[i];
	int error;

	make_bytes(bytes, length, t->seed + at);
	memcpy(map + at, bytes, length);
	error = vfio_read_all(&t->e.vfio, part->offset + at, back, length);
	if (error)
		return error;
	place = place_text(part, at);
	if (memcmp(bytes, back, length))
		result(t, "file", FAILED, "%s: pread of %zu bytes differs from what was "
		       "written through the mapping", place, length);
	make_bytes(bytes, length, ~(t->seed + at));
	error = vfio_write_all(&t->e.vfio, part->offset + at, bytes, length);
	if (!error) {
		memcpy(back, map + at, length);
		if (memcmp(bytes, back, length))
			result(t, "file", FAILED, "%s: the mapping differs from what pwrite "
			       "of %zu bytes wrote", place, length);
	}
	return error;
}

static void check_file(struct test *t)
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
		result_error(t, "file", "pread or pwrite", -error);
	else if (t->count == before)
		result(t, "file", PASSED, "pread and pwrite see what the mapping sees");
}

void step_file(struct test *t)
{
	int error;

	result_guarded(t, "file", check_file);
	if (!t->failed)
		result_guarded(t, "tail", check_tail);
	if (t->failed)
		return;
	/* Less than a page, which the pattern could not reach. */
	error = pattern_rest(&t->pattern);
	if (error)
		result_error(t, "file", "pread or pwrite of the last bytes", -error);
	else if (t->pattern.differences)
		say_differences(t, "file");
}

/* ---- the patterns ------------------------------------------------------- */

/*
 * Writes and compares a pattern and its inverse; false: not all of it was done.
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
		if (!t->passes)
			log_line(t, "%s all of the memory", doing[i]);
		if (t->failed)
			return false;
		rc = i % 2 ? pattern_compare(p, &place) : pattern_write(p, &place);
		if (!result_swept(t, "pattern", rc, place))
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
	g_autofree char *place = NULL;
	size_t i;

	*first = NULL;
	for (i = 0; i < p->listed && !*first; i++)
		if (!p->list[i].owner == !foreign)
			*first = &p->list[i];
	/* The list may have only the other kind. */
	if (!*first)
		return g_strdup("");
	place = place_text((*first)->part, (*first)->offset);
	return g_strdup_printf(", first at %s", place);
}

void say_differences(struct test *t, const char *id)
{
	struct pattern *p = &t->pattern;
	unsigned long long own = p->differences - p->foreign, foreign = p->foreign;
	const struct difference *own_first, *first;
	g_autofree char *own_place = first_place(p, false, &own_first);
	g_autofree char *place = first_place(p, true, &first);
	g_autofree char *owner = first ? place_text(first->owner, first->owner_offset) : g_strdup("");
	uint64_t bits = p->ones | p->zeros;

	if (own && bits && !(bits & (bits - 1)))
		result(t, id, FAILED, "wrong words: %llu%s: bit %d of 64 reads %s",
		       own, own_place, __builtin_ctzll(bits),
		       !p->zeros ? "1" : !p->ones ? "0" : "the other value");
	else if (own)
		result(t, id, FAILED, "wrong words: %llu%s", own, own_place);
	if (foreign)
		result(t, id, FAILED, "words with the content of another place: %llu%s%s%s: "
		       "two addresses access the same memory", foreign, place,
		       first ? ", which has that of " : "", owner);
}

void step_pattern(struct test *t)
{
	struct pattern *p = &t->pattern;
	char size[SIZE_MAX_TEXT];
	uint64_t bytes = 0;
	size_t i;

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
		/* A soak ends early, too. */
		if (t->bound > 0)
			complaints_read(t);
	} while (!t->failed && now() - p->begin < t->bound);
	if (p->differences)
		say_differences(t, "pattern");
	else if (!t->failed)
		result(t, "pattern", PASSED, "%s written, read back and inverted, %llu time%s",
		       size_text(bytes, size), (unsigned long long)t->passes,
		       t->passes > 1 ? "s" : "");
}
