// SPDX-License-Identifier: GPL-2.0-only
/*
 * The measurements of "nvgrace-gpu bench": see measure.h. bench.c repeats them
 * while there is time.
 */
#include <errno.h>
#include <glib.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "bench/measure.h"
#include "system/output.h"

#define KiB ((uint64_t)1 << 10)
#define MiB ((uint64_t)1 << 20)
#define GiB ((uint64_t)1 << 30)

/* Bytes between two checks of the time. */
#define CHUNK MiB

/*
 * Below 4 GiB are the windows for interrupts; an IOMMU has more than 32 bits.
 */
#define IOVA ((uint64_t)1 << 32)

/* A line of the CPU's caches. */
enum { LINE = 64 };

/* At least a cache line, so that no line has two nodes of a chain. */
enum { NODE = 128 };

/* ---- tasks and failures ------------------------------------------------- */

enum operation { READ, WRITE, COPY };

/* What the threads do, and their results. */
struct task {
	struct bench *b;
	struct view *view;
	enum operation operation;
	double deadline;
	uint64_t bytes;		/* of a block, or to be touched */
	char *buffer;
	bool into;		/* the GPU's memory, by the file or by memcpy() */
	bool by_pieces;		/* first touch: not all pages */
	bool by_copy;		/* memcpy(), else the device's file */
	uint64_t file, span;	/* where the blocks are in the file, and how much there is of it */
	atomic_ullong done;	/* bytes, blocks, loads or faults */
	double seconds;		/* if not the time of work->seconds */
	int error;		/* a negative errno */
};

static int failed(struct bench *b, const char *what, int error)
{
	complain(b->e->gpu.address, "%s failed: %s; run \"dmesg | grep -e nvgrace -e vfio\" and \""
		 PROGRAM " doctor\"", what, strerror(-error));
	return -1;
}

/* Reports where in the GPU's memory a fault was. */
static int faulted(struct bench *b, void *address)
{
	const struct view *views[] = { &b->views[0], &b->views[1], &b->views[2], &b->once,
				       &b->writer };
	g_autofree char *place = NULL;
	char *at = address;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(views) && !place; i++)
		if (views[i]->map && views[i]->part && at >= views[i]->map &&
		    at < views[i]->map + views[i]->length)
			place = place_text(views[i]->part, at - views[i]->map);
	complain(b->e->gpu.address, "SIGBUS at %s: a memory error, or the GPU does not answer or is "
		 "not ready; run \"dmesg | grep -e nvgrace -e 'Memory failure'\"",
		 place ? place : "memory of the host");
	return -1;
}

/* Runs fn in this many threads; 0, or -1 after a message. */
static int go(struct task *t, size_t threads, void (*fn)(struct work *, size_t, size_t),
	      double *seconds)
{
	struct work work = { .run = fn, .data = t };

	atomic_store(&t->done, 0);
	if (workers_run(&t->b->e->cpus, threads, &work))
		return work.fault ? faulted(t->b, work.fault)
				  : failed(t->b, "starting a thread", -errno);
	*seconds = work.seconds;
	return 0;
}

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

static void fill(uint64_t *at, size_t bytes, uint64_t value)
{
	uint64_t *end = at + bytes / sizeof(*at);

	for (; at + 3 < end; at += 4) {
		at[0] = value;
		at[1] = value;
		at[2] = value;
		at[3] = value;
	}
	/* Otherwise the compiler may omit writes. */
	__asm__ volatile("" ::: "memory");
}

/* ---- memory to measure -------------------------------------------------- */

static void run_prepare_slice(struct work *work, size_t index, size_t count)
{
	struct task *t = work->data;
	uint64_t page = t->b->e->host->page_size, pages = t->view->length / page;
	uint64_t i = pages * index / count, end = pages * (index + 1) / count;
	bool host = !t->view->part;

	for (; i < end && !atomic_load_explicit(&work->stop, memory_order_relaxed); i++) {
		char *at = t->view->map + i * page;

		/* The host's pages are allocated when written. */
		if (host)
			*(volatile char *)at = i;
		else if (t->b->read_only)
			t->b->sink = *(volatile unsigned char *)at;
		else
			fill((uint64_t *)at, page, i);
	}
}

/* Bytes of memory for this level; at most what there is. */
static uint64_t window(const struct bench *b, uint64_t all)
{
	uint64_t most = b->level == LEVEL_QUICK ? GiB : b->level == LEVEL_NORMAL ? 8 * GiB : all;

	return all < most ? all : most;
}

static uint64_t host_window(const struct bench *b)
{
	uint64_t free_bytes = (uint64_t)sysconf(_SC_AVPHYS_PAGES) * b->e->host->page_size;
	uint64_t most = b->level == LEVEL_QUICK ? 256 * MiB : b->level == LEVEL_NORMAL ? 2 * GiB
										       : 8 * GiB;

	free_bytes = free_bytes / 4 / (2 * MiB) * (2 * MiB);
	return free_bytes < 2 * MiB ? 2 * MiB : free_bytes < most ? free_bytes : most;
}

/*
 * The view of a part, or of the host (NULL), mapped and, unless the bench may
 * only read, written: a read of GPU memory that was never written may find a
 * memory error. NULL after a message.
 */
static struct view *view_of(struct bench *b, const struct part *part)
{
	struct view *view = &b->views[!part ? 2 : !strcmp(part->name, "usemem") ? 0 : 1];
	struct task t = { .b = b, .view = view };
	double seconds;

	if (view->map)
		return view;
	if (part) {
		view->length = window(b, part->mappable);
		view->map = part_map(&b->e->vfio, part, 0, view->length, !b->read_only, 0);
	} else {
		view->length = host_window(b);
		view->map = mmap(NULL, view->length, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (view->map == MAP_FAILED)
			view->map = NULL;
	}
	if (!view->map) {
		failed(b, part ? "mapping GPU memory" : "getting memory of the host", -errno);
		return NULL;
	}
	view->part = part;
	return go(&t, b->e->cpus.count, run_prepare_slice, &seconds) ? NULL : view;
}

static void unmap_once(struct bench *b)
{
	part_unmap(b->once.map, b->once.length);
	part_unmap(b->writer.map, b->writer.length);
	memset(&b->once, 0, sizeof(b->once));
	memset(&b->writer, 0, sizeof(b->writer));
}

void measure_end(struct bench *b)
{
	size_t i;

	unmap_once(b);
	for (i = 0; i < 3; i++)
		part_unmap(b->views[i].map, b->views[i].length);
	memset(b->views, 0, sizeof(b->views));
}

/* ---- opening, resetting ------------------------------------------------- */

int measure_open(struct bench *b, struct step *s, double seconds)
{
	g_autofree char *reason = NULL;
	struct open_gpu *e = b->e;
	double begin;
	int error;

	if (!b->figures[s->figure].count) {
		figure_add(b, s->figure, e->open_seconds);
		return 0;
	}
	measure_end(b);
	vfio_close(&e->vfio);
	begin = now();
	if (vfio_open(e->host, &e->vfio, e->gpu.address, e->gpu.iommu_group, &reason)) {
		complain(e->gpu.address, "can't reopen it: %s", reason);
		return -1;
	}
	figure_add(b, s->figure, now() - begin);
	error = parts_find(e->host, &e->vfio, &e->gpu, &e->parts);
	return error || !e->parts.count ? failed(b, "finding the memory again",
						error ? error : -ENODEV) : 0;
}

static int map_once(struct bench *b, const struct part *part, uint64_t bytes, uint64_t shift)
{
	unmap_once(b);
	b->once.map = part_map(&b->e->vfio, part, 0, bytes, !b->read_only, shift);
	b->once.length = bytes;
	b->once.part = part;
	return b->once.map ? 0 : failed(b, "mapping GPU memory", -errno);
}

/*
 * A whole line of the CPU's caches is written, because the CPU reads the rest of
 * a line of which it writes less.
 */
static void write_lines(const struct view *view, uint64_t from, uint64_t to, uint64_t stride)
{
	for (; from < to; from += stride)
		fill((uint64_t *)(view->map + from), LINE, from);
}

static void run_line(struct work *work, size_t index, size_t count)
{
	struct task *t = work->data;

	write_lines(t->view, 0, LINE, LINE);
}

int measure_reset(struct bench *b, struct step *s, double seconds)
{
	struct task t = { .b = b, .view = &b->once };
	double begin = now();
	int error;

	if (!b->e->vfio.can_reset) {
		figure_refuse(b, s->figure, g_strdup("vfio can't reset this GPU alone"));
		figure_refuse(b, s->second, g_strdup("vfio can't reset this GPU alone"));
		return 1;
	}
	error = vfio_reset(&b->e->vfio);
	if (error)
		return failed(b, "VFIO_DEVICE_RESET", error);
	figure_add(b, s->figure, now() - begin);
	/* The driver makes the first access wait until the memory is ready. */
	if (map_once(b, &b->e->parts.part[0], b->e->host->page_size, 0) || go(&t, 1, run_line, &seconds))
		return -1;
	figure_add(b, s->second, now() - begin);
	unmap_once(b);
	return 0;
}

/* ---- first touch -------------------------------------------------------- */

static long thread_faults(void)
{
	struct rusage usage;

	getrusage(RUSAGE_THREAD, &usage);
	return usage.ru_minflt + usage.ru_majflt;
}

/*
 * Reads these places, and adds up the time and the faults. Before that, another
 * mapping writes them. On CPUs that don't mark written pages themselves, writing
 * by the measured mapping would cause more faults.
 */
static void touch(struct task *t, uint64_t from, uint64_t to, uint64_t stride)
{
	double begin;
	long before;

	if (!t->b->read_only)
		write_lines(&t->b->writer, from, to, stride);
	before = thread_faults();
	begin = now();
	for (; from < to; from += stride)
		t->b->sink = *(volatile unsigned char *)(t->view->map + from);
	t->seconds += now() - begin;
	atomic_fetch_add(&t->done, thread_faults() - before);
}

/*
 * Touches all pages. In a series over sizes, touches all pages of the first
 * page tables, and of the rest one place for each piece as large as the first
 * faults mapped: touching every page takes long and causes no more faults.
 */
static void run_first_touch(struct work *work, size_t index, size_t count)
{
	struct task *t = work->data;
	uint64_t page = t->b->e->host->page_size, stride = page;
	uint64_t table = page * (page / sizeof(uint64_t)), first = 4 * table;
	unsigned long faults;

	if (!t->by_pieces || first > t->bytes)
		first = t->bytes;
	touch(t, 0, first, page);
	faults = atomic_load(&t->done);
	while (faults > 0 && stride * 2 <= first / faults && stride < table)
		stride *= 2;
	touch(t, first, t->bytes, stride);
}

int measure_touch(struct bench *b, struct step *s, double seconds)
{
	struct task t = {
		.b = b, .view = &b->once, .bytes = s->bytes, .by_pieces = s->series != 0,
	};

	if (map_once(b, s->part, s->bytes, s->shift))
		return -1;
	if (!b->read_only) {
		b->writer = b->once;
		b->writer.map = part_map(&b->e->vfio, s->part, 0, s->bytes, true, 0);
		if (!b->writer.map)
			return failed(b, "mapping GPU memory", -errno);
	}
	if (go(&t, 1, run_first_touch, &seconds))
		return -1;
	figure_add(b, s->figure, t.seconds);
	figure_add(b, s->second, atomic_load(&t.done));
	unmap_once(b);
	return 0;
}

/* ---- DMA ---------------------------------------------------------------- */

static int no_dma(struct bench *b, struct step *s, int error)
{
	bool unable = b->e->vfio.cdev && (error == -EFAULT || error == -EOPNOTSUPP);

	figure_refuse(b, s->figure,
		      unable ? g_strdup("iommufd of this kernel can't map device memory")
			     : g_strdup_printf("can't map: %s", strerror(-error)));
	figure_refuse(b, s->second, g_strdup("not mapped"));
	unmap_once(b);
	return 1;
}

int measure_dma(struct bench *b, struct step *s, double seconds)
{
	uint64_t iova = IOVA + (s->part->base == GPU_UNKNOWN ? 0 : s->part->base % GiB);
	int64_t unmapped;
	double begin;
	int error;

	/* Without first touch, as a VMM does. */
	if (map_once(b, s->part, s->bytes, s->shift))
		return -1;
	begin = now();
	error = vfio_dma_map(&b->e->vfio, b->once.map, s->bytes, iova, !b->read_only);
	seconds = now() - begin;
	if (error)
		return no_dma(b, s, error);
	begin = now();
	unmapped = vfio_dma_unmap(&b->e->vfio, s->bytes, iova);
	if (unmapped < 0)
		return failed(b, "unmapping for DMA", unmapped);
	figure_add(b, s->figure, seconds);
	figure_add(b, s->second, now() - begin);
	unmap_once(b);
	return 0;
}

/* ---- bandwidth ---------------------------------------------------------- */

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
			fill((uint64_t *)map, chunk, done);
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
	struct view *view = view_of(b, s->part);
	struct task t = { .b = b, .view = view, .operation = operation };

	if (!view)
		return -1;
	if (operation != READ)
		view->chained = false;
	t.deadline = now() + seconds;
	if (go(&t, s->threads, run_stream, &seconds))
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
	struct view *view = view_of(b, s->part);
	struct view *other = view ? view_of(b, s->part ? NULL : &b->e->parts.part[0]) : NULL;
	struct task t = { .b = b, .view = view }, evict = { .b = b, .view = other };
	uint64_t bytes = b->level == LEVEL_QUICK ? 32 * MiB : 512 * MiB;
	double unused;

	if (!view || !other)
		return -1;
	t.bytes = bytes < view->length / 2 ? bytes : view->length / 2;
	if (!view->chained && go(&t, 1, run_chain, &unused))
		return -1;
	view->chained = true;
	/* Evict the chain from the caches. */
	evict.deadline = now() + seconds / 2;
	if (go(&evict, 1, run_stream, &unused))
		return -1;
	t.buffer = view->map;
	t.deadline = now() + seconds / 2;
	if (go(&t, 1, run_walk, &unused))
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
	struct view *host = view_of(b, NULL);

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
	if (go(t, 1, run_blocks, &seconds))
		return -1;
	if (t->error)
		return failed(b, t->into ? "pwrite" : "pread", t->error);
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
			  .span = window(b, s->part->mappable) };
	struct view *view = &b->views[!strcmp(s->part->name, "usemem") ? 0 : 1];

	/* This writes what is then read. */
	if (!into && !view_of(b, s->part))
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
	struct view *view = view_of(b, s->part);
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
