/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How every command sees the system: files below /sys, /proc and /etc, through a root prefix, so
 * that a recorded tree can stand in for a host. Owns reading, the list of GPUs and what is known of
 * each; all commands call it. Nothing here changes the system.
 *
 * Paths are absolute, as on the host; the prefix is added here, and no link leads out of it. A
 * function that has no answer
 * returns NULL or -1 and leaves errno: ENOENT (host_absent()) where the thing isn't there, EINVAL
 * where it holds something else than asked for, else what the system said. What was returned is the
 * caller's to free().
 */
#ifndef NVGRACE_GPU_HOST_H
#define NVGRACE_GPU_HOST_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* The one with underscores is in /sys and in driver_override, the other one modprobe's. */
#define DRIVER_NAME "nvgrace_gpu_vfio_pci"
#define MODULE_NAME "nvgrace-gpu-vfio-pci"
#define CONFIG_FILE "/etc/nvgrace-gpu.conf"
#define CONFIG_DIR "/etc/nvgrace-gpu.conf.d"

enum host_kind {
	HOST_FILE,	/* data: the content */
	HOST_LINK,	/* data: the target */
	HOST_DIR,	/* data: nothing; the names were read */
	HOST_STAT,	/* data: nothing; it was asked whether it exists */
};

struct host {
	char *root;	/* "" on the running system, else the tree's, without a slash at its end */
	int dir;	/* the tree's root, -1 on the running system */
	bool recorded;	/* a tree: no system calls or programs for answers */
	bool privileged;	/* sees what root does; of a tree: unless /answers/euid isn't 0 */
	uint64_t page_size;	/* 4096, 16384 or 65536; of a tree: /answers/page-size, else 4096 */

	/*
	 * If set, called after each look at something, whether or not it succeeded (then data is
	 * NULL and error is what errno will be). path is that on the host, without the prefix.
	 */
	void (*seen)(struct host *h, enum host_kind kind, const char *path, const void *data,
		     size_t len, int error);
	void *seen_data;
};

/* The running system where root is NULL or "/". A tree that is none ends the program. */
void host_init(struct host *h, const char *root);
void host_exit(struct host *h);

#define host_printf(f, a) __attribute__((format(printf, f, a)))

/* Whether the last failure means that the thing simply isn't there. */
bool host_absent(void);

/* A whole file, NUL-terminated; its length in *len unless len is NULL. At most 64 MiB. */
char *host_read(struct host *h, size_t *len, const char *fmt, ...) host_printf(3, 4);

/* The first bytes of a file: how many, or -1. */
ssize_t host_head(struct host *h, void *data, size_t len, const char *fmt, ...) host_printf(4, 5);

/* Which device a character device's file is for; 0 if it is no such file. Never waits. */
dev_t host_rdev(struct host *h, const char *fmt, ...) host_printf(2, 3);

/* A sysfs attribute: the first line of a file without space around it, unprintable bytes as '?'. */
char *host_line(struct host *h, const char *fmt, ...) host_printf(2, 3);

/* The same as a number: decimal, or hexadecimal with 0x. 0, or -1: EINVAL for anything else. */
int host_u64(struct host *h, uint64_t *value, const char *fmt, ...) host_printf(3, 4);
int host_int(struct host *h, int *value, const char *fmt, ...) host_printf(3, 4);

/* A link's target, or only the last component of it; unprintable bytes as '?'. */
char *host_link(struct host *h, const char *fmt, ...) host_printf(2, 3);
char *host_link_name(struct host *h, const char *fmt, ...) host_printf(2, 3);

/* The names in a directory, sorted as versions are (so 2 before 10), NULL at the end. */
char **host_list(struct host *h, const char *fmt, ...) host_printf(2, 3);
void host_free_list(char **list);

bool host_exists(struct host *h, const char *fmt, ...) host_printf(2, 3);

/* ---- GPUs --------------------------------------------------------------- */

#define ADDRESS_MAX 24	       /* a domain may have more than four digits */
#define GPU_UNKNOWN UINT64_MAX /* a size or address that nobody told */

enum gpu_mode {
	GPU_MODE_NONE,		/* not bound to our driver, or it has no such file */
	GPU_MODE_CARVE_OUT,	/* usemem and resmem */
	GPU_MODE_NO_CARVE_OUT,	/* usemem alone */
	GPU_MODE_CORE_ONLY,	/* a plain PCI device */
};

struct gpu {
	char address[ADDRESS_MAX];	/* 0009:01:00.0 */
	uint16_t vendor;
	uint16_t device;
	const char *product;	/* static */
	int numa_node;		/* -1: none told */
	int iommu_group;	/* -1: none */
	char *driver;		/* NULL: unbound */
	bool ours;		/* the driver is DRIVER_NAME */
	char *override;		/* driver_override; NULL: not set */
	char *slot;		/* name in /sys/bus/pci/slots, NULL: none */
	char *serial;		/* serial_number, small letters, NULL: none */

	/* What the driver's nvgrace_gpu group tells; addresses it tells root alone. */
	enum gpu_mode mode;
	uint64_t usemem_size;
	uint64_t usemem_bar_size;
	uint64_t usemem_base;
	uint64_t resmem_size;
	uint64_t resmem_bar_size;
	uint64_t resmem_base;
	char *readiness;	/* "ready", "unknown", "failed"; NULL: not told */
	char *scrub_state;	/* "off", "unknown", "scrubbing"...; NULL: not told */
	uint64_t scrub_progress;	/* bytes that the present or last scrub has done */
};

struct gpus {
	struct gpu *gpu;
	size_t count;
};

/* Every supported GPU, ordered by address. */
void gpus_find(struct host *h, struct gpus *gpus);
void gpus_free(struct gpus *gpus);

/* One device, whether or not it is a GPU of ours (product NULL if not); -1: no such PCI device. */
int gpu_read(struct host *h, const char *address, struct gpu *gpu);
void gpu_free(struct gpu *gpu);

/* A supported device's name for people, NULL if it isn't one. */
const char *gpu_product(uint16_t vendor, uint16_t device);

/* Bytes that a scrub overwrites; GPU_UNKNOWN unless the driver tells of memory. */
uint64_t gpu_memory_size(const struct gpu *gpu);

/* "carve-out"..., NULL for GPU_MODE_NONE. */
const char *gpu_mode_name(enum gpu_mode mode);

/* Uncorrected PCIe errors since boot, "fatal" or "nonfatal"; -1: not counted, *count is kept. */
int gpu_pci_errors(struct host *h, const char *address, const char *severity, uint64_t *count);

/*
 * Make a full address of what a person typed ("9:1:0.0" and "01:00.0" do where only one device
 * fits). The devices looked at are the supported GPUs, then all PCI devices. EXIT_OK, or an exit
 * status after saying why.
 */
int gpu_resolve(struct host *h, const char *typed, char address[ADDRESS_MAX]);

/* ---- helpers ------------------------------------------------------------ */

/* As the C library's, but out of memory ends the program. */
void *xcalloc(size_t n, size_t size);
void *xrealloc(void *p, size_t size);
char *xstrdup(const char *s);
char *xasprintf(const char *fmt, ...) host_printf(1, 2);
char *xvasprintf(const char *fmt, va_list args) host_printf(1, 0);

/* '?' for each byte that would not be good for a terminal or for JSON. */
void make_printable(char *text);

/* Milliseconds of CLOCK_MONOTONIC, for limits of time. */
long long now_ms(void);

/* A whole string as a number, as host_u64() reads it; false if it is none or does not fit. */
bool parse_u64(const char *text, uint64_t *value);

#endif
