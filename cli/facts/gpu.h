/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The GPUs of a host, and what sysfs says about each.
 */
#ifndef NVGRACE_GPU_FACTS_GPU_H
#define NVGRACE_GPU_FACTS_GPU_H

#include "system/host.h"

#define ADDRESS_MAX 24	       /* a domain may have more than four digits */
#define GPU_UNKNOWN UINT64_MAX /* a size or address that is not known */

enum gpu_mode {
	GPU_MODE_NONE,		/* not bound to DRIVER_NAME, or its sysfs has no mode */
	GPU_MODE_CARVE_OUT,	/* usemem and resmem */
	GPU_MODE_NO_CARVE_OUT,	/* only usemem */
	GPU_MODE_CORE_ONLY,	/* a plain PCI device */
};

/* What the driver says of the memory: its words, and what they are to this program. */
enum readiness {
	GPU_READY,		/* found trained since the last reset or low power */
	GPU_READY_UNKNOWN,	/* no access since then */
	GPU_READY_FAILED,	/* it did not become ready in time */
	GPU_READY_OTHER,	/* a word of a later driver */
	GPU_READY_NONE,		/* not reported */
};

enum scrub_state {
	GPU_SCRUB_OFF,		/* not cleared between guests */
	GPU_SCRUB_UNKNOWN,	/* not scrubbed since it was bound */
	GPU_SCRUB_RUNNING,
	GPU_SCRUB_CLEAN,	/* all zeros, and not opened since */
	GPU_SCRUB_DIRTY,	/* opened, and not scrubbed since */
	GPU_SCRUB_FAILED,
	GPU_SCRUB_OTHER,	/* as above */
	GPU_SCRUB_NONE,
};

/* In the order of the enums, and then NULL. Modes begin with GPU_MODE_CARVE_OUT. */
extern const char *const gpu_mode_words[], *const gpu_readiness_words[], *const gpu_scrub_words[];

/* word: NULL: not reported. */
enum readiness readiness_of(const char *word);
enum scrub_state scrub_state_of(const char *word);

struct gpu {
	char address[ADDRESS_MAX];	/* 0009:01:00.0 */
	uint16_t vendor;
	uint16_t device;
	const char *product;	/* static */
	int numa_node;		/* -1: none */
	int iommu_group;	/* -1: none */
	uint64_t functions;	/* SR-IOV virtual functions that are on */
	char *driver;		/* NULL: unbound */
	bool ours;		/* the driver is DRIVER_NAME */
	char *override;		/* driver_override; NULL: not set */
	char *slot;		/* name in /sys/bus/pci/slots, NULL: none */
	char *serial;		/* serial_number, small letters, NULL: none */

	/*
	 * Of the driver's sysfs group nvgrace_gpu. Only root can read
	 * addresses.
	 */
	enum gpu_mode mode;
	uint64_t usemem_size;
	uint64_t usemem_bar_size;
	uint64_t usemem_base;
	uint64_t resmem_size;
	uint64_t resmem_bar_size;
	uint64_t resmem_base;
	char *readiness;	/* the driver's words; NULL: not known */
	char *scrub_state;
	uint64_t scrub_progress;	/* bytes that the running or last scrub has overwritten */
	uint64_t scrub_count;	/* scrubs that have ended since the bind */
	char *scrub_result;	/* of the last one: "clean", "failed"; NULL: none, or not known */
	uint64_t scrub_time;	/* seconds since 1970 when it ended; GPU_UNKNOWN: none */
	uint64_t scrub_ms;	/* milliseconds that it took; GPU_UNKNOWN: none */
};

struct gpus {
	struct gpu *gpu;
	size_t count;
};

/*
 * The file where "scrub --verify" keeps its JSON document, if it has read zeros
 * from all of the memory; to be freed.
 */
#define RUN_DIR "/run/nvgrace-gpu"
char *gpu_verified_file(const char *address);

/* Every supported GPU, ordered by address. */
void gpus_find(struct host *h, struct gpus *gpus);
void gpus_free(struct gpus *gpus);

/*
 * The driver_override of a PCI device; to be freed. NULL sets errno;
 * host_absent() is true if there is none.
 */
char *gpu_override(struct host *h, const char *address);

/*
 * Reads any PCI device; product is NULL unless it is supported. -1: no such PCI
 * device.
 */
int gpu_read(struct host *h, const char *address, struct gpu *gpu);
void gpu_free(struct gpu *gpu);

/* The supported ids, "10de:2342 (GH200 120GB), ..."; to be freed. */
char *gpu_ids_text(void);

/*
 * Locks the device for a change, against other instances of this program: a
 * descriptor that the caller closes, or -1 with errno. EWOULDBLOCK: another
 * instance has it, and wait is false. EACCES: not root.
 */
int gpu_lock(const char *address, bool wait);

/* "vendor" or "device" of a PCI device; UINT16_MAX if it has none. */
uint16_t gpu_id(struct host *h, const char *address, const char *name);

/* Whether a PCI device is a virtual function, which is no GPU of its own. */
bool gpu_is_function(struct host *h, const char *address);

/*
 * A supported device's name, also of one whose id only the configuration has;
 * NULL: not supported.
 */
const char *gpu_product(struct host *h, const char *address);

/*
 * Whether NVIDIA's firmware for Grace treats a GPU with this id as one with
 * coherent memory.
 */
bool gpu_is_coherent(uint16_t device);

/* Whether the driver itself, and so modules.alias, has this device's id. */
bool gpu_has_alias(const struct gpu *gpu);

/*
 * Bytes that a scrub overwrites; GPU_UNKNOWN unless the driver reports memory.
 */
uint64_t gpu_memory_size(const struct gpu *gpu);

/* "carve-out" and so on; NULL for GPU_MODE_NONE. */
const char *gpu_mode_name(enum gpu_mode mode);

/*
 * PCIe errors since boot, "fatal", "nonfatal" or "correctable"; -1: not
 * counted, *count is unchanged.
 */
int gpu_pci_errors(struct host *h, const char *address, const char *severity, uint64_t *count);

#endif
