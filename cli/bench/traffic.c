// SPDX-License-Identifier: GPL-2.0-only
/*
 * Measures bandwidth, latency and blocks, in memory that stays mapped.
 */
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "bench/measure.h"
#include "bench/task.h"

/* Bytes between two checks of the time. */
#define CHUNK MiB

/* At least a cache line, so that no line has two nodes of a chain. */
enum { NODE = 128 };

/* ---- bandwidth ---------------------------------------------------------- */

static void sum_up(struct bench *b, const uint64_t *at, size_t bytes)
{
	const uint64_t *end = at + bytes / sizeof(*at);
	uint64_t a = 0, c = 0, d = 0, e = 0;

	for (; at + 3 < end; at += 4) {
		a ^= at[0];
		c ^= at[1];
		d ^= at[2];
		e ^= at[3];
	}
	/* Otherwise the compiler omits the loop. */
	b->sink = a ^ c ^ d ^ e;
}

/* Each thread works in its own slice of the memory, again and again. */
static void run_stream(struct work *work, size_t index, size_t count)
{
	struct task *t = work->data;
	uint64_t page = t->b->e->host->page_size, slice = t->view->length / count / page * page;
	uint64_t from = slice * index, at = 0, length, done = 0;

	/* Fewer pages than threads: some share a page. */
	if (!slice) {
		slice = page;
		from = index * page % t->view->length;
	}
	length = t->operation == COPY ? slice / 2 : slice;
	do {
		char *map = t->view->map + from + at;
		uint64_t chunk = length - at < CHUNK ? length - at : CHUNK;

		if (t->operation == READ)
			sum_up(t->b, (uint64_t *)map, chunk);
		else if (t->operation == WRITE)
			write_words((uint64_t *)map, chunk, done);
		else
			memcpy(map + length, map, chunk);
		done += chunk;
		at += chunk;
		if (at >= length)
			at = 0;
	} while (now() < t->deadline && !atomic_load_explicit(&work->stop, memory_order_relaxed));
	atomic_fetch_add(&t->done, done);
}

static int stream(struct bench *b, struct step *s, double seconds, enum operation operation)
{
	struct view *view = bench_view(b, s->part);
	struct task t = { .b = b, .view = view, .operation = operation };

	if (!view)
		return -1;
	if (operation != READ)
		view->chained = false;
	t.deadline = now() + seconds;
	if (bench_run(&t, s->threads, run_stream, &seconds))
		return -1;
	figure_add(b, s->figure, atomic_load(&t.done) / seconds);
	return 0;
}

int measure_read(struct bench *b, struct step *s, double seconds)
{
	return stream(b, s, seconds, READ);
}

int measure_write(struct bench *b, struct step *s, double seconds)
{
	return stream(b, s, seconds, WRITE);
}

int measure_copy(struct bench *b, struct step *s, double seconds)
{
	return stream(b, s, seconds, COPY);
}

/* ---- latency ------------------------------------------------------------ */

/*
 * Builds one closed chain through all nodes in random order (Sattolo), against
 * prefetchers.
 */
static void run_chain(struct work *work, size_t index, size_t count)
{
	struct task *t = work->data;
	uint64_t nodes = t->bytes / NODE, random = 88172645463325252ULL, i, j;
	g_autofree uint32_t *next = g_new(uint32_t, nodes);
	uint32_t swap;

	for (i = 0; i < nodes; i++)
		next[i] = i;
	for (i = nodes - 1; i > 0; i--) {
		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		j = random % i;
		swap = next[i];
		next[i] = next[j];
		next[j] = swap;
	}
	for (i = 0; i < nodes; i++)
		*(char **)(t->view->map + i * NODE) = t->view->map + (uint64_t)next[i] * NODE;
}

static void run_walk(struct work *work, size_t index, size_t count)
{
	struct task *t = work->data;
	char *at = t->buffer;
	uint64_t done = 0;
	double begin = now();
	int i;

	do {
		for (i = 0; i < 256; i++)
			at = *(char *volatile *)at;
		done += i;
	} while (now() < t->deadline);
	t->seconds = now() - begin;
	/* The next walk continues here, at nodes that are not cached. */
	t->buffer = at;
	atomic_store(&t->done, done);
}

int measure_latency(struct bench *b, struct step *s, double seconds)
{
	struct view *view = bench_view(b, s->part);
	struct view *other = view ? bench_view(b, s->part ? NULL : &b->e->parts.part[0]) : NULL;
	struct task t = { .b = b, .view = view }, evict = { .b = b, .view = other };
	uint64_t bytes = b->level == LEVEL_QUICK ? 32 * MiB : 512 * MiB;
	double unused;

	if (!view || !other)
		return -1;
	t.bytes = bytes < view->length / 2 ? bytes : view->length / 2;
	if (!view->chained && bench_run(&t, 1, run_chain, &unused))
		return -1;
	view->chained = true;
	/* Evict the chain from the caches. */
	evict.deadline = now() + seconds / 2;
	if (bench_run(&evict, 1, run_stream, &unused))
		return -1;
	t.buffer = view->map;
	t.deadline = now() + seconds / 2;
	if (bench_run(&t, 1, run_walk, &unused))
		return -1;
	figure_add(b, s->figure, t.seconds / atomic_load(&t.done));
	return 0;
}

/* ---- blocks, by the device's file and by memcpy() ----------------------- */

static void run_blocks(struct work *work, size_t index, size_t count)
{
	struct task *t = work->data;
	struct vfio *v = &t->b->e->vfio;
	uint64_t at = 0, done = 0;

	do {
		if (t->by_copy && t->into)
			memcpy(t->view->map + at, t->buffer, t->bytes);
		else if (t->by_copy)
			memcpy(t->buffer, t->view->map + at, t->bytes);
		else if (t->into)
			t->error = vfio_write_all(v, t->file + at, t->buffer, t->bytes);
		else
			t->error = vfio_read_all(v, t->file + at, t->buffer, t->bytes);
		done++;
		at += t->bytes;
		if (at + t->bytes > t->span)
			at = 0;
	} while (!t->error && now() < t->deadline);
	atomic_store(&t->done, done);
}

/* Measures blocks or bytes per second, by the figure's unit. */
static int blocks(struct bench *b, struct step *s, struct task *t, double seconds)
{
	struct view *host = bench_view(b, NULL);

	if (!host)
		return -1;
	if (s->bytes > host->length || s->bytes > t->span) {
		figure_refuse(b, s->figure, g_strdup(s->bytes > t->span ? "less memory than a block"
								       : "not enough free memory"));
		return 1;
	}
	t->b = b;
	t->buffer = host->map;
	t->bytes = s->bytes;
	host->chained = false;
	t->deadline = now() + seconds;
	if (bench_run(t, 1, run_blocks, &seconds))
		return -1;
	if (t->error)
		return bench_failed(b, t->into ? "pwrite" : "pread", t->error);
	figure_add(b, s->figure, atomic_load(&t->done) / seconds *
		   (b->figures[s->figure].unit == UNIT_PER_SECOND ? 1 : s->bytes));
	return 0;
}

static int by_file(struct bench *b, struct step *s, double seconds, bool into)
{
	/*
	 * At most as much as the mapping, so that both measure the same memory.
	 */
	struct task t = { .into = into, .file = s->part->offset,
			  .span = bench_window(b, s->part->mappable) };
	struct view *view = &b->views[!strcmp(s->part->name, "usemem") ? 0 : 1];

	/* This writes what is then read. */
	if (!into && !bench_view(b, s->part))
		return -1;
	if (into)
		view->chained = false;
	return blocks(b, s, &t, seconds);
}

int measure_pread(struct bench *b, struct step *s, double seconds)
{
	return by_file(b, s, seconds, false);
}

int measure_pwrite(struct bench *b, struct step *s, double seconds)
{
	return by_file(b, s, seconds, true);
}

static int by_memcpy(struct bench *b, struct step *s, double seconds, bool into)
{
	struct view *view = bench_view(b, s->part);
	struct task t = { .view = view, .into = into, .by_copy = true };

	if (!view)
		return -1;
	t.span = view->length;
	if (into)
		view->chained = false;
	return blocks(b, s, &t, seconds);
}

int measure_memcpy_from(struct bench *b, struct step *s, double seconds)
{
	return by_memcpy(b, s, seconds, false);
}

int measure_memcpy_to(struct bench *b, struct step *s, double seconds)
{
	return by_memcpy(b, s, seconds, true);
}

/* After the memory, a BAR reads as ones, up to its power of two. */
int measure_tail(struct bench *b, struct step *s, double seconds)
{
	struct task t = { .file = s->part->offset + s->part->size,
			  .span = s->part->bar_size - s->part->size };

	if (!t.span) {
		figure_refuse(b, s->figure, g_strdup_printf("%s fills its BAR", s->part->name));
		return 1;
	}
	return blocks(b, s, &t, seconds);
}

int measure_config(struct bench *b, struct step *s, double seconds)
{
	struct task t = { };
	uint64_t size;

	if (vfio_config(&b->e->vfio, &t.file, &size)) {
		figure_refuse(b, s->figure, g_strdup("vfio shows no config space"));
		return 1;
	}
	/* Reads the ids again and again. */
	t.span = s->bytes;
	return blocks(b, s, &t, seconds);
}
