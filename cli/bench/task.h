/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the measurements of "nvgrace-gpu bench" share: the work of threads, the memory
 * they work on, and messages about failures.
 */
#ifndef NVGRACE_GPU_BENCH_TASK_H
#define NVGRACE_GPU_BENCH_TASK_H

#include "bench/figures.h"

#define KiB ((uint64_t)1 << 10)
#define MiB ((uint64_t)1 << 20)
#define GiB ((uint64_t)1 << 30)

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

/* Says that something failed; returns -1. error: a negative errno. */
int bench_failed(struct bench *b, const char *what, int error);

/* Runs fn in this many threads; 0, or -1 after a message. */
int bench_run(struct task *t, size_t threads, void (*fn)(struct work *, size_t, size_t),
	      double *seconds);

/* Writes this value into all words of 8 bytes. */
void write_words(uint64_t *at, size_t bytes, uint64_t value);

/* Bytes of memory for this level; at most what there is. */
uint64_t bench_window(const struct bench *b, uint64_t all);

/*
 * The view of a part, or of the host (NULL), mapped and, unless the bench may
 * only read, written: a read of GPU memory that was never written may find a
 * memory error. NULL after a message.
 */
struct view *bench_view(struct bench *b, const struct part *part);

/* Unmaps b->once and b->writer, or everything. */
void bench_unmap_once(struct bench *b);
void bench_unmap(struct bench *b);

#endif
