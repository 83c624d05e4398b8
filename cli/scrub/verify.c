// SPDX-License-Identifier: GPL-2.0-only
/* Reads the memory of a scrubbed GPU back, and finds what is not 0: see scrub.h. */
#include <errno.h>
#include <glib.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "open_gpu/open_gpu.h"
#include "open_gpu/progress.h"
#include "open_gpu/workers.h"
#include "scrub/scrub.h"
#include "system/output.h"
#include "system/program.h"

/* Bytes between two checks whether to stop. */
#define CHUNK ((uint64_t)1 << 20)

/*
 * A scrub goes upwards through both parts at the same time. What it wrote last
 * may still have been in the GPU's own cache, which a reset can empty: these
 * bytes at each part's end are read first.
 */
#define WRITTEN_LAST ((uint64_t)2 << 30)

/* A word of 8 bytes that isn't 0. */
struct difference {
	const struct part *part;
	uint64_t offset;		/* in the part, bytes */
	uint64_t found;
};

struct zeros {
	struct open_gpu *e;
	atomic_ullong differences;	/* words */
	atomic_ullong done;		/* bytes */
	uint64_t total;
	double begin;
	pthread_mutex_t lock;		/* protects first */
	struct difference first;	/* at the lowest address; part is NULL: none */
	char *maps[2];			/* of the parts */
};

/* Keeps a difference if it is the first. The parts are in an array. */
static void take_difference(struct zeros *z, const struct difference *d)
{
	struct difference *first = &z->first;

	pthread_mutex_lock(&z->lock);
	if (!first->part || d->part < first->part ||
	    (d->part == first->part && d->offset < first->offset))
		*first = *d;
	pthread_mutex_unlock(&z->lock);
}

static void compare(struct zeros *z, size_t part, uint64_t offset, uint64_t bytes)
{
	uint64_t *begin = (uint64_t *)(z->maps[part] + offset), *at, *end = begin + bytes / 8;
	uint64_t count = 0;

	for (at = begin; at < end; at++) {
		struct difference d = {
			.part = &z->e->parts.part[part], .offset = offset + (at - begin) * 8,
			.found = *(volatile uint64_t *)at,
		};

		if (d.found && !count++)
			take_difference(z, &d);
	}
	atomic_fetch_add(&z->differences, count);
}

static void show(struct zeros *z)
{
	double spent = now() - z->begin, done = (double)atomic_load(&z->done) / z->total;

	progress_step(done, done > 0.01 ? spent / done * (1 - done) : -1, "reading back");
}

/* This thread's slice of [from, to), which are whole pages, from its end on. */
static void read_slice(struct work *work, size_t index, size_t count, size_t part, uint64_t from,
		       uint64_t to)
{
	struct zeros *z = work->data;
	uint64_t page = z->e->host->page_size, pages = (to - from) / page, bytes;

	to = from + pages * (index + 1) / count * page;
	from += pages * index / count * page;
	while (from < to && !atomic_load_explicit(&work->stop, memory_order_relaxed)) {
		bytes = to - from < CHUNK ? to - from : CHUNK;
		to -= bytes;
		compare(z, part, to, bytes);
		atomic_fetch_add(&z->done, bytes);
		if (!index)
			show(z);
	}
}

static void read_slices(struct work *work, size_t index, size_t count)
{
	const struct parts *parts = &((struct zeros *)work->data)->e->parts;
	uint64_t last[2] = { };
	size_t i;

	for (i = 0; i < parts->count; i++) {
		last[i] = parts->part[i].mappable;
		last[i] -= last[i] < WRITTEN_LAST ? last[i] : WRITTEN_LAST;
		read_slice(work, index, count, i, last[i], parts->part[i].mappable);
	}
	for (i = 0; i < parts->count; i++)
		read_slice(work, index, count, i, 0, last[i]);
}

/* Reads what can't be mapped, less than a page, through the device's file. */
static int read_rest(struct zeros *z, const struct part *part)
{
	struct difference d = { .part = part, .offset = part->mappable };
	int error = 0;

	for (; d.offset < part->size && !error; d.offset += 8) {
		d.found = 0;
		error = vfio_read_all(&z->e->vfio, part->offset + d.offset, &d.found,
				      part->size - d.offset < 8 ? part->size - d.offset : 8);
		if (!error && d.found) {
			z->differences++;
			take_difference(z, &d);
		}
	}
	return error;
}

/* "usemem + 0x1000, physical address 0x420000001000"; to be freed. */
static char *place_text(const struct part *part, uint64_t offset)
{
	if (part->base == GPU_UNKNOWN)
		return g_strdup_printf("%s + 0x%llx", part->name, (unsigned long long)offset);
	return g_strdup_printf("%s + 0x%llx, physical address 0x%llx", part->name,
			       (unsigned long long)offset,
			       (unsigned long long)(part->base + offset));
}

static char *place_of(const struct zeros *z, const void *address)
{
	const char *at = address;
	size_t i;

	for (i = 0; i < z->e->parts.count; i++)
		if (at >= z->maps[i] && at < z->maps[i] + z->e->parts.part[i].mappable)
			return place_text(&z->e->parts.part[i], at - z->maps[i]);
	return g_strdup("memory of the host");
}

static char *reading_failed(int error)
{
	return g_strdup_printf("reading GPU memory failed: %s", strerror(error));
}

/* NULL, or why not all of the mapped parts was read; to be freed. */
static char *read_parts(struct zeros *z)
{
	struct work work = { .run = read_slices, .data = z };
	g_autofree char *place = NULL;
	int error = 0;
	size_t i;

	if (workers_run(&work)) {
		if (!work.fault)
			return reading_failed(errno);
		place = place_of(z, work.fault);
		return g_strdup_printf("SIGBUS at %s", place);
	}
	for (i = 0; i < z->e->parts.count && !error; i++)
		error = read_rest(z, &z->e->parts.part[i]);
	return error ? reading_failed(-error) : NULL;
}

/* Reads both parts with all threads; the rest as read_parts(). */
static char *read_all(struct zeros *z)
{
	const struct parts *parts = &z->e->parts;
	size_t i, count = parts->count;
	char *failure = NULL;

	if (count > G_N_ELEMENTS(z->maps))
		abort();	/* LCOV_EXCL_LINE: a mistake in this program */
	z->begin = now();
	pthread_mutex_init(&z->lock, NULL);
	for (i = 0; i < count && !failure; i++) {
		z->total += parts->part[i].size;
		z->maps[i] = part_map(&z->e->vfio, &parts->part[i], parts->part[i].mappable, false, 0);
		if (!z->maps[i])
			failure = reading_failed(errno);
	}
	if (!failure)
		failure = read_parts(z);
	for (i = 0; i < count; i++)
		part_unmap(z->maps[i], parts->part[i].mappable);
	pthread_mutex_destroy(&z->lock);
	return failure;
}

/* The GPU is open. */
static void read_back(struct target *t, struct zeros *z)
{
	g_autofree char *failure = read_all(z), *place = NULL, *amount = NULL;
	struct verified *v = &t->verified;

	v->tried = true;
	v->seconds = now() - z->begin;
	v->time = time(NULL);
	v->bytes = failure ? atomic_load(&z->done) : z->total;
	v->done = !failure;
	v->differences = z->differences;
	if (z->first.part) {
		v->part = *z->first.part;
		v->offset = z->first.offset;
		v->found = z->first.found;
	}
	if (failure) {
		target_end(t, EXIT_FAILED, "failed", g_strdup_printf("--verify: %s", failure),
		    g_strdup_printf("run \"" PROGRAM " doctor %s\"", t->gpu->address));
	} else if (v->differences) {
		place = place_text(&v->part, v->offset);
		target_end(t, EXIT_FAILED, "failed",
		    g_strdup_printf("not clean: words of 8 bytes that are not 0: %llu, the first is 0x%016llx at %s",
				    (unsigned long long)v->differences, (unsigned long long)v->found, place),
		    g_strdup_printf("run \"" PROGRAM " test %s\" before you assign it to a guest",
				    t->gpu->address));
	} else {
		amount = amount_text(v->bytes, v->seconds);
		target_end(t, EXIT_OK, "clean",
		    g_strdup_printf("%s; read back all zeros: %s", t->outcome.message, amount), NULL);
	}
}

void verify(struct host *h, struct target *t)
{
	struct wish wish = {
		.command = "scrub", .typed = t->gpu->address,
		.interrupted = "the GPU is scrubbed, but not all of it was read back",
	};
	enum exit_status status;
	struct open_gpu e;

	status = open_gpu_begin(h, &wish, &e);
	if (status) {
		/* open_gpu_begin() has printed why. */
		target_end(t, status, status == EXIT_REFUSED ? "refused" : "failed",
		    g_strdup("scrubbed, but can't open it for --verify"), NULL);
		return;
	}
	read_back(t, &(struct zeros){ .e = &e });
	open_gpu_end(&e);
}
