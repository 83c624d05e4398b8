/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Where a GPU is in the host: the sizes of its BARs, its IOMMU and what shares
 * its IOMMU group; and the host's NUMA nodes, with their distances.
 */
#ifndef NVGRACE_GPU_FACTS_LOCATION_H
#define NVGRACE_GPU_FACTS_LOCATION_H

#include "facts/gpu.h"

#define BARS 6

/* A line of the kernel's file "resource": where a BAR is. */
struct resource {
	uint64_t start, size;	/* size 0: it has no address */
	bool memory, wide;	/* not I/O ports; 64 bits */
};

void gpu_resources(struct host *h, const char *address, struct resource bars[BARS]);

/*
 * The sizes of the 64-bit BARs that a guest sees; 0: there is none. usemem and
 * resmem replace the device's own BAR4 and BAR2.
 */
void gpu_bars(struct host *h, const struct gpu *gpu, uint64_t bars[BARS]);

/* The name of its IOMMU in /sys/class/iommu; to be freed. NULL: not known. */
char *gpu_iommu(struct host *h, const struct gpu *gpu);

/*
 * The addresses of the other devices in its IOMMU group, without bridges, then
 * NULL; g_strfreev() frees it.
 */
char **gpu_group(struct host *h, const struct gpu *gpu);

/*
 * Calls use() for each number of a list of the kernel's such as "0-3,8", or NULL. It
 * ends at what is no such list.
 */
void each_number(const char *list, void (*use)(unsigned long number, void *data), void *data);

struct numa_node {
	int id;
	unsigned int cpus;
	unsigned short *cpu;	/* their numbers, ascending as the kernel lists them */
	unsigned short *isolated;	/* of these, those on which the scheduler moves nothing */
	unsigned int isolated_cpus;
	uint64_t bytes, free;	/* online memory, and what of it is free */
	bool initiator;		/* firmware made it for a device, such as a GPU */
	uint64_t *distance;	/* to each of the nodes, in their order; NULL: not known */
};

struct numa {
	struct numa_node *node;	/* ordered by id */
	size_t count;
};

void numa_read(struct host *h, struct numa *numa);
void numa_free(struct numa *numa);

#endif
