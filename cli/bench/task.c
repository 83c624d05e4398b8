// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the measurements share: see task.h.
 */
#include <errno.h>
#include <glib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench/task.h"
#include "system/output.h"

int bench_failed(struct bench *b, const char *what, int error)
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

	for (i = 0; i < G_N_ELEMENTS(views) && !place; i++)
		if (views[i]->map && views[i]->part && at >= views[i]->map &&
		    at < views[i]->map + views[i]->length)
			place = place_text(views[i]->part, at - views[i]->map);
	complain(b->e->gpu.address, "SIGBUS at %s: a memory error, or the GPU does not answer or is "
		 "not ready; run \"dmesg | grep -e nvgrace -e 'Memory failure'\"",
		 place ? place : "memory of the host");
	return -1;
}

int bench_run(struct task *t, size_t threads, void (*fn)(struct work *, size_t, size_t),
	      double *seconds)
{
	struct work work = { .run = fn, .data = t };

	atomic_store(&t->done, 0);
	if (workers_run(&t->b->e->cpus, threads, &work))
		return work.fault ? faulted(t->b, work.fault)
				  : bench_failed(t->b, "starting a thread", -errno);
	*seconds = work.seconds;
	return 0;
}

void write_words(uint64_t *at, size_t bytes, uint64_t value)
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
			write_words((uint64_t *)at, page, i);
	}
}

uint64_t bench_window(const struct bench *b, uint64_t all)
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

struct view *bench_view(struct bench *b, const struct part *part)
{
	struct view *view = &b->views[!part ? 2 : !strcmp(part->name, "usemem") ? 0 : 1];
	struct task t = { .b = b, .view = view };
	double seconds;

	if (view->map)
		return view;
	if (part) {
		view->length = bench_window(b, part->mappable);
		view->map = part_map(&b->e->vfio, part, 0, view->length, !b->read_only, 0);
	} else {
		view->length = host_window(b);
		view->map = mmap(NULL, view->length, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (view->map == MAP_FAILED)
			view->map = NULL;
	}
	if (!view->map) {
		bench_failed(b, part ? "mapping GPU memory" : "getting memory of the host", -errno);
		return NULL;
	}
	view->part = part;
	return bench_run(&t, b->e->cpus.count, run_prepare_slice, &seconds) ? NULL : view;
}

void bench_unmap_once(struct bench *b)
{
	part_unmap(b->once.map, b->once.length);
	part_unmap(b->writer.map, b->writer.length);
	memset(&b->once, 0, sizeof(b->once));
	memset(&b->writer, 0, sizeof(b->writer));
}

void bench_unmap(struct bench *b)
{
	size_t i;

	bench_unmap_once(b);
	for (i = 0; i < 3; i++)
		part_unmap(b->views[i].map, b->views[i].length);
	memset(b->views, 0, sizeof(b->views));
}
