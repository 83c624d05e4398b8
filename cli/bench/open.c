// SPDX-License-Identifier: GPL-2.0-only
/*
 * Measures how long it takes to open the GPU, to reset it, to touch its memory for the
 * first time and to map it for DMA. Each maps what it measures anew.
 */
#include <errno.h>
#include <glib.h>
#include <string.h>
#include <sys/resource.h>

#include "bench/measure.h"
#include "bench/task.h"
#include "system/output.h"

/*
 * Below 4 GiB are the windows for interrupts; an IOMMU has more than 32 bits.
 */
#define IOVA ((uint64_t)1 << 32)

/* A line of the CPU's caches. */
enum { LINE = 64 };

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
	bench_unmap(b);
	vfio_close(&e->vfio);
	begin = now();
	if (vfio_open(e->host, &e->vfio, e->gpu.address, e->gpu.iommu_group, &reason)) {
		complain(e->gpu.address, "can't reopen it: %s", reason);
		return -1;
	}
	figure_add(b, s->figure, now() - begin);
	error = parts_find(e->host, &e->vfio, &e->gpu, &e->parts);
	return error || !e->parts.count ? bench_failed(b, "finding the memory again",
						       error ? error : -ENODEV) : 0;
}

static int map_once(struct bench *b, const struct part *part, uint64_t bytes, uint64_t shift)
{
	bench_unmap_once(b);
	b->once.map = part_map(&b->e->vfio, part, 0, bytes, !b->read_only, shift);
	b->once.length = bytes;
	b->once.part = part;
	return b->once.map ? 0 : bench_failed(b, "mapping GPU memory", -errno);
}

/*
 * A whole line of the CPU's caches is written, because the CPU reads the rest of
 * a line of which it writes less.
 */
static void write_lines(const struct view *view, uint64_t from, uint64_t to, uint64_t stride)
{
	for (; from < to; from += stride)
		write_words((uint64_t *)(view->map + from), LINE, from);
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
		return bench_failed(b, "VFIO_DEVICE_RESET", error);
	figure_add(b, s->figure, now() - begin);
	/* The driver makes the first access wait until the memory is ready. */
	if (map_once(b, &b->e->parts.part[0], b->e->host->page_size, 0) || bench_run(&t, 1, run_line, &seconds))
		return -1;
	figure_add(b, s->second, now() - begin);
	bench_unmap_once(b);
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
			return bench_failed(b, "mapping GPU memory", -errno);
	}
	if (bench_run(&t, 1, run_first_touch, &seconds))
		return -1;
	figure_add(b, s->figure, t.seconds);
	figure_add(b, s->second, atomic_load(&t.done));
	bench_unmap_once(b);
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
	bench_unmap_once(b);
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
		return bench_failed(b, "unmapping for DMA", unmapped);
	figure_add(b, s->figure, seconds);
	figure_add(b, s->second, now() - begin);
	bench_unmap_once(b);
	return 0;
}
