/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A GPU's memory as status shows it: in the pieces that are mapped in one way, and
 * the device's own BARs.
 */
#ifndef NVGRACE_GPU_STATUS_MEMORY_H
#define NVGRACE_GPU_STATUS_MEMORY_H

#include <glib.h>

#include "facts/location.h"
#include "facts/online.h"
#include "system/program.h"

/* A piece of the GPU's memory, all of which is mapped in the same way. */
struct part {
	const char *name;  /* usemem, resmem */
	const char *cache; /* how the CPU maps it */
	int bar;
	bool mappable;
	uint64_t base; /* GPU_UNKNOWN: not known */
	uint64_t size;
	uint64_t bar_size;
};

enum { PARTS_MAX = 4 };

struct bar {
	int number;
	bool hidden; /* from a guest, which sees a part of the memory in its place */
	uint64_t address, size;
};

/* The pieces, by address. Returns how many; 0: the driver doesn't report them. */
size_t find_parts(const struct host *h, const struct gpu *gpu, struct part parts[PARTS_MAX]);

/* Finds the device's own memory BARs, not the driver's fake BAR2 and BAR4. */
size_t find_bars(struct host *h, const struct gpu *gpu, struct bar bars[BARS]);

/*
 * Whether a range of /proc/iomem is in this GPU's memory; false unless root
 * reads it.
 */
bool in_memory(const struct gpu *gpu, const struct iomem_range *range);

/* Prints a line with a name at its left. */
void field(const char *name, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

/* Draws at least one piece, one above the other, with their addresses. */
void draw_parts(const struct part *parts, size_t count);

/* Draws how much of a BAR is memory; its size is a power of two. */
void draw_bar(int number, uint64_t used, uint64_t size);

#endif
