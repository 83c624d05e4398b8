/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Whether a GPU's memory is online as memory of the host, by /proc/iomem and
 * NVIDIA's driver.
 */
#ifndef NVGRACE_GPU_FACTS_ONLINE_H
#define NVGRACE_GPU_FACTS_ONLINE_H

#include "facts/gpu.h"

struct iomem_range {
	uint64_t start;	/* 0 unless root, as is end */
	uint64_t end;	/* the last byte */
	int depth;	/* 0: not inside another range */
	char *name;
};

struct iomem {
	struct iomem_range *range;
	size_t count;
};

/* Reads /proc/iomem; no ranges if it can't be read. */
void iomem_read(struct host *h, struct iomem *iomem);
void iomem_free(struct iomem *iomem);

/* Whether, and where, a GPU's memory is System RAM of the host. */
struct online {
	bool online;
	const struct iomem_range *range;	/* NULL: not known */
};

/*
 * Whether a GPU's memory is System RAM, as far as user space can find out: by
 * the range that the driver reports, by NVIDIA's driver, or because this is the
 * only GPU and there is System RAM of NVIDIA's driver. The module refuses the
 * cases that this can't find.
 */
struct online gpu_online(struct host *h, const struct iomem *iomem, const struct gpus *gpus,
			 const struct gpu *gpu);

#endif
