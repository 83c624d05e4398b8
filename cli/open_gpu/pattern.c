// SPDX-License-Identifier: GPL-2.0-only
/*
 * Patterns in all of a GPU's memory, and the check for zeros: see pattern.h.
 *
 * Each word is computed from its number, counted through both parts, and a
 * seed, by reversible steps. So no two words are equal, and a wrong word that
 * belongs to another place shows that two addresses access the same memory.
 */
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "open_gpu/pattern.h"
#include "open_gpu/progress.h"

/*
 * Odd, so that multiplication modulo 2^64 is reversible; INVERSE reverses it.
 */
#define FACTOR 0x9e3779b97f4a7c15ULL
#define INVERSE 0xf1de83e19937733dULL

/* Bytes between two checks whether to stop. */
#define CHUNK ((uint64_t)1 << 20)

enum { SAMPLE = 4096 };

/*
 * A scrub goes upwards through both parts at the same time. What it wrote last
 * may still have been in the GPU's own cache, which a reset can empty: these
 * bytes at each part's end are read first.
 */
#define WRITTEN_LAST ((uint64_t)2 << 30)

static uint64_t make_word(uint64_t number, uint64_t seed)
{
	uint64_t word = (number + seed) * FACTOR;

	return word ^ word >> 32;
}

static uint64_t word_number(uint64_t word, uint64_t seed)
{
	return (word ^ word >> 32) * INVERSE - seed;
}

/* The number of a part's first word. A partial word counts as one. */
static uint64_t first_word(const struct pattern *p, size_t part)
{
	return part ? (p->e->parts.part[0].size + 7) / 8 : 0;
}

static uint64_t word_at(const struct pattern *p, size_t part, uint64_t offset)
{
	uint64_t word;

	if (p->cleared)
		return 0;
	word = make_word(first_word(p, part) + offset / 8, p->seed);
	return p->inverse ? ~word : word;
}

/* ---- differences -------------------------------------------------------- */

/* Sets d->owner if the word belongs to another place in one of the parts. */
static void find_owner(const struct pattern *p, struct difference *d)
{
	uint64_t number = word_number(p->inverse ? ~d->found : d->found, p->seed), words;
	size_t i;

	for (i = 0; i < p->e->parts.count; i++) {
		words = (p->e->parts.part[i].size + 7) / 8;
		if (number < words) {
			d->owner = &p->e->parts.part[i];
			d->owner_offset = number * 8;
			return;
		}
		number -= words;
	}
}

/*
 * Compares by part and offset: a place is listed once, even after several
 * passes.
 */
static int order(const struct difference *a, const struct difference *b)
{
	if (a->part != b->part)
		return a->part < b->part ? -1 : 1;
	return a->offset < b->offset ? -1 : a->offset > b->offset;
}

/* The differences of one piece of memory, summed without the lock. */
struct tally {
	uint64_t differences, foreign, ones, zeros;
};

static void list_difference(struct pattern *p, const struct difference *d)
{
	size_t at;

	pthread_mutex_lock(&p->lock);
	for (at = 0; at < p->listed && order(&p->list[at], d) < 0; at++)
		;
	if (at < DIFFERENCES_LISTED && (at == p->listed || order(&p->list[at], d))) {
		if (p->listed < DIFFERENCES_LISTED)
			p->listed++;
		memmove(&p->list[at + 1], &p->list[at], (p->listed - at - 1) * sizeof(*d));
		p->list[at] = *d;
	}
	pthread_mutex_unlock(&p->lock);
}

/* Must be called in the order of places within a piece. */
static void note_difference(struct pattern *p, struct tally *tally, size_t part, uint64_t offset,
			    uint64_t expected, uint64_t found)
{
	struct difference d = { .part = &p->e->parts.part[part], .offset = offset,
				.expected = expected, .found = found };

	/* Data of earlier users may look like a word of the pattern. */
	if (!p->cleared)
		find_owner(p, &d);
	/*
	 * The list has only the lowest places, so more of one piece can't be in
	 * it.
	 */
	if (tally->differences++ < DIFFERENCES_LISTED)
		list_difference(p, &d);
	/* The bits of another place's word have no meaning here. */
	if (d.owner) {
		tally->foreign++;
	} else {
		tally->ones |= found & ~expected;
		tally->zeros |= expected & ~found;
	}
}

static void add_tally(struct pattern *p, const struct tally *tally)
{
	if (!tally->differences)
		return;
	pthread_mutex_lock(&p->lock);
	p->differences += tally->differences;
	p->foreign += tally->foreign;
	p->ones |= tally->ones;
	p->zeros |= tally->zeros;
	pthread_mutex_unlock(&p->lock);
}

/* ---- sweeps ------------------------------------------------------------- */

enum kind { WRITE, COMPARE, LOOK };

struct sweep_job {
	struct pattern *p;
	enum kind kind;
};

static void write_words(struct pattern *p, size_t part, uint64_t offset, uint64_t bytes)
{
	uint64_t *at = (uint64_t *)(p->maps[part] + offset), *end = at + bytes / 8;
	uint64_t number = first_word(p, part) + offset / 8 + p->seed;
	uint64_t flip = p->inverse ? ~0ULL : 0, word;

	for (; at < end; at++, number++) {
		word = number * FACTOR;
		*(volatile uint64_t *)at = word ^ word >> 32 ^ flip;
	}
}

static void compare_words(struct pattern *p, size_t part, uint64_t offset, uint64_t bytes)
{
	uint64_t *begin = (uint64_t *)(p->maps[part] + offset), *at = begin, *end = at + bytes / 8;
	uint64_t number = first_word(p, part) + offset / 8 + p->seed;
	uint64_t flip = p->inverse ? ~0ULL : 0, word, found;
	struct tally tally = { };

	for (; at < end; at++, number++) {
		word = number * FACTOR;
		word ^= word >> 32 ^ flip;
		found = *(volatile uint64_t *)at;
		if (found != word)
			note_difference(p, &tally, part, offset + (at - begin) * 8, word, found);
	}
	add_tally(p, &tally);
}

static void compare_zeros(struct pattern *p, size_t part, uint64_t offset, uint64_t bytes)
{
	uint64_t *begin = (uint64_t *)(p->maps[part] + offset), *at = begin, *end = at + bytes / 8;
	struct tally tally = { };
	uint64_t found;

	for (; at < end; at++) {
		found = *(volatile uint64_t *)at;
		if (found)
			note_difference(p, &tally, part, offset + (at - begin) * 8, 0, found);
	}
	add_tally(p, &tally);
}

static void sample_words(struct pattern *p, size_t part, uint64_t offset, uint64_t bytes)
{
	uint64_t sampled = 0, changed = 0, end = offset + bytes;

	for (; offset < end; offset += SAMPLE, sampled++)
		changed += *(volatile uint64_t *)(p->maps[part] + offset) !=
			   word_at(p, part, offset);
	pthread_mutex_lock(&p->lock);
	p->sampled += sampled;
	p->changed += changed;
	pthread_mutex_unlock(&p->lock);
}

static void show(struct pattern *p)
{
	double spent = now() - p->begin, done = (double)atomic_load(&p->done) / p->total, left;

	/* The last pass may end later. */
	if (p->bound > 0 && spent < p->bound) {
		done = spent / p->bound;
		left = p->bound - spent;
	} else {
		left = done > 0.01 && done <= 1 ? spent / done * (1 - done) : -1;
	}
	progress_step(done, left, "%s", p->doing);
}

/* This thread's slice of [from, to), which are whole pages. */
static void sweep_slice(struct work *work, size_t index, size_t count, size_t part, uint64_t from,
			uint64_t to)
{
	struct sweep_job *job = work->data;
	struct pattern *p = job->p;
	uint64_t page = p->e->host->page_size, pages = (to - from) / page, bytes, at;

	to = from + pages * (index + 1) / count * page;
	from += pages * index / count * page;
	while (from < to && !atomic_load_explicit(&work->stop, memory_order_relaxed)) {
		bytes = to - from < CHUNK ? to - from : CHUNK;
		at = p->cleared ? to - bytes : from;
		if (job->kind == WRITE)
			write_words(p, part, at, bytes);
		else if (job->kind == COMPARE && p->cleared)
			compare_zeros(p, part, at, bytes);
		else if (job->kind == COMPARE)
			compare_words(p, part, at, bytes);
		else
			sample_words(p, part, at, bytes);
		if (p->cleared)
			to -= bytes;
		else
			from += bytes;
		atomic_fetch_add(&p->done, job->kind == LOOK ? 0 : bytes);
		if (!index)
			show(p);
	}
}

static void run_sweep(struct work *work, size_t index, size_t count)
{
	struct pattern *p = ((struct sweep_job *)work->data)->p;
	uint64_t end, last;
	size_t part;

	for (part = 0; part < p->e->parts.count && p->cleared; part++) {
		end = p->e->parts.part[part].mappable;
		last = end < WRITTEN_LAST ? 0 : end - WRITTEN_LAST;
		sweep_slice(work, index, count, part, last, end);
	}
	for (part = 0; part < p->e->parts.count; part++) {
		end = p->e->parts.part[part].mappable;
		if (p->cleared)
			end -= end < WRITTEN_LAST ? end : WRITTEN_LAST;
		sweep_slice(work, index, count, part, 0, end);
	}
}

/* ---- lines at some places ----------------------------------------------- */

/*
 * A line of the CPU's caches. The CPU may read the rest of a line of which less
 * is written, and memory that was never written may report an error then.
 */
enum { LINE = 64 };

/* The line must come from the GPU's memory when it is read again. */
static void leave_caches(const void *at)
{
#ifdef __aarch64__
	__asm__ volatile("dc civac, %0\n\tdsb sy" : : "r" (at) : "memory");
#endif
}

static void access_line(struct sweep_job *job, size_t part, uint64_t offset)
{
	if (job->kind == COMPARE) {
		compare_words(job->p, part, offset, LINE);
		return;
	}
	write_words(job->p, part, offset, LINE);
	leave_caches(job->p->maps[part] + offset);
}

static void run_lines(struct work *work, size_t index, size_t count)
{
	struct sweep_job *job = work->data;
	struct pattern *p = job->p;
	uint64_t at, end;
	size_t part;

	for (part = 0; part < p->e->parts.count; part++) {
		end = p->e->parts.part[part].mappable - LINE;
		access_line(job, part, 0);
		access_line(job, part, end);
		for (at = p->stride; at < end; at += p->stride)
			access_line(job, part, at);
	}
}

/*
 * Sweeps what can't be mapped, less than a page at a part's end, through the
 * device's file.
 */
static int sweep_rest(struct pattern *p, size_t i, enum kind kind)
{
	const struct part *part = &p->e->parts.part[i];
	uint64_t length = part->size - part->mappable, at, word, found;
	g_autofree unsigned char *bytes = g_malloc0(length + 8);
	struct tally tally = { };
	int error = 0;

	if (kind == WRITE) {
		for (at = 0; at < length; at += 8) {
			word = word_at(p, i, part->mappable + at);
			memcpy(bytes + at, &word, 8);
		}
		error = vfio_write_all(&p->e->vfio, part->offset + part->mappable, bytes, length);
	} else if (kind == COMPARE) {
		error = vfio_read_all(&p->e->vfio, part->offset + part->mappable, bytes, length);
		for (at = 0; at < length && !error; at += 8) {
			word = word_at(p, i, part->mappable + at);
			memcpy(&found, bytes + at, 8);
			if (memcmp(&found, &word, length - at < 8 ? length - at : 8))
				note_difference(p, &tally, i, part->mappable + at, word, found);
		}
	}
	add_tally(p, &tally);
	return error;
}

static int sweep_rests(struct pattern *p, enum kind kind)
{
	int error = 0;
	size_t i;

	for (i = 0; i < p->e->parts.count && !error; i++)
		if (p->e->parts.part[i].size > p->e->parts.part[i].mappable)
			error = sweep_rest(p, i, kind);
	return error;
}

static enum sweep sweep(struct pattern *p, enum kind kind, char **place)
{
	bool lines = p->stride && kind != LOOK;
	struct sweep_job job = { .p = p, .kind = kind };
	struct work work = { .run = lines ? run_lines : run_sweep, .data = &job };
	int error = 0;

	*place = NULL;
	if (workers_run(&p->e->cpus, lines ? 1 : p->e->cpus.count, &work)) {
		if (!work.fault)
			return SWEEP_ERROR;
		*place = pattern_place(p, work.fault);
		return SWEEP_FAULT;
	}
	/* Only a scrub has written it before. */
	if (p->cleared)
		error = sweep_rests(p, kind);
	errno = -error;
	return error ? SWEEP_ERROR : SWEEP_DONE;
}

int pattern_rest(struct pattern *p)
{
	return sweep_rests(p, WRITE) ?: sweep_rests(p, COMPARE);
}

enum sweep pattern_write(struct pattern *p, char **place)
{
	return sweep(p, WRITE, place);
}

enum sweep pattern_compare(struct pattern *p, char **place)
{
	return sweep(p, COMPARE, place);
}

enum sweep pattern_sample(struct pattern *p, uint64_t *sampled, uint64_t *changed, char **place)
{
	enum sweep rc;

	p->sampled = p->changed = 0;
	rc = sweep(p, LOOK, place);
	*sampled = p->sampled;
	*changed = p->changed;
	return rc;
}

/* ---- mappings ----------------------------------------------------------- */

bool pattern_map(struct pattern *p)
{
	size_t i;

	for (i = 0; i < p->e->parts.count; i++) {
		struct part *part = &p->e->parts.part[i];

		p->maps[i] = part_map(&p->e->vfio, part, 0, part->mappable, !p->cleared, 0);
		if (!p->maps[i])
			return false;
	}
	return true;
}

void pattern_unmap(struct pattern *p)
{
	size_t i;

	for (i = 0; i < p->e->parts.count; i++) {
		part_unmap(p->maps[i], p->e->parts.part[i].mappable);
		p->maps[i] = NULL;
	}
}

char *pattern_place(const struct pattern *p, const void *address)
{
	const char *at = address;
	size_t i;

	for (i = 0; i < p->e->parts.count; i++)
		if (p->maps[i] && at >= p->maps[i] &&
		    at < p->maps[i] + p->e->parts.part[i].mappable)
			return place_text(&p->e->parts.part[i], at - p->maps[i]);
	return g_strdup("memory of the host");
}
