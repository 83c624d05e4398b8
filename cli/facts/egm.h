/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Extended GPU memory (EGM): the part of the CPU's memory that firmware gives to GPUs.
 */
#ifndef NVGRACE_GPU_FACTS_EGM_H
#define NVGRACE_GPU_FACTS_EGM_H

#include "facts/answers.h"
#include "facts/online.h"

/* The properties of a GPU in ACPI, in bytes; pxm: of the NUMA node. */
#define EGM_BASE "nvidia,egm-base-pa"
#define EGM_SIZE "nvidia,egm-size"
#define EGM_PXM "nvidia,egm-pxm"

/* Of several parts, the last in this order counts. */
enum egm_kind {
	EGM_UNSTATED,	/* no table has the property */
	EGM_OFF,	/* there is none */
	EGM_GUESTS,	/* it is set aside for guests: firmware's mode for hypervisors */
	EGM_UNKNOWN,	/* there is some, and it isn't known whose */
	EGM_HOST,	/* it is RAM of this host: firmware's mode for bare metal */
};

struct egm {
	enum egm_kind kind;
	uint64_t size;		/* of all sockets together */
	uint64_t largest;	/* of one socket */
};

/* iomem: NULL: only the tables are read. */
struct egm egm_read(struct answers *a, const struct iomem *iomem);

/*
 * What that is, for status and the doctor: a sentence's end. given: the loaded driver
 * is NVIDIA's own, with EGM.
 */
const char *egm_meaning(enum egm_kind kind, bool given);

/* Whether NVIDIA's own driver, which gives guests EGM, is loaded. */
bool egm_driver_loaded(struct host *h, struct answers *a);

#endif
