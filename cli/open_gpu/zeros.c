// SPDX-License-Identifier: GPL-2.0-only
/*
 * The check for zeros: see zeros.h.
 */
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "open_gpu/progress.h"
#include "open_gpu/zeros.h"

/* Bytes between two checks whether to stop. */
#define CHUNK ((uint64_t)1 << 20)

/*
 * A scrub goes upwards through both parts at the same time. What it wrote last
 * may still have been in the GPU's own cache, which a reset can empty: these
 * bytes at each part's end are read first.
 */
#define WRITTEN_LAST ((uint64_t)2 << 30)

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

static char *place_of(const struct zeros *z, const void *address)
{
	const char *at = address;
	size_t i;

	for (i = 0; i < z->e->parts.count; i++)
		if (at >= z->maps[i] && at < z->maps[i] + z->e->parts.part[i].mappable)
			return place_text(&z->e->parts.part[i], at - z->maps[i]);
	return g_strdup("memory of the host");
}

static enum sweep read_mapped(struct zeros *z, char **place)
{
	struct work work = { .run = read_slices, .data = z };
	int error = 0;
	size_t i;

	if (workers_run(&work)) {
		if (!work.fault)
			return SWEEP_ERROR;
		*place = place_of(z, work.fault);
		return SWEEP_FAULT;
	}
	for (i = 0; i < z->e->parts.count && !error; i++)
		error = read_rest(z, &z->e->parts.part[i]);
	errno = -error;
	return error ? SWEEP_ERROR : SWEEP_DONE;
}

enum sweep zeros_read(struct zeros *z, char **place)
{
	const struct parts *parts = &z->e->parts;
	enum sweep rc = SWEEP_DONE;
	size_t i;

	*place = NULL;
	z->begin = now();
	pthread_mutex_init(&z->lock, NULL);
	for (i = 0; i < parts->count && rc == SWEEP_DONE; i++) {
		z->total += parts->part[i].size;
		z->maps[i] = part_map(&z->e->vfio, &parts->part[i], parts->part[i].mappable, false, 0);
		if (!z->maps[i])
			rc = SWEEP_ERROR;
	}
	if (rc == SWEEP_DONE)
		rc = read_mapped(z, place);
	for (i = 0; i < parts->count; i++)
		part_unmap(z->maps[i], parts->part[i].mappable);
	pthread_mutex_destroy(&z->lock);
	return rc;
}
