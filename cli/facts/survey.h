/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Reads the whole system once: the GPUs, the processes that have them open,
 * where their memory is online, and the configuration. list and status print
 * it, and bind and unbind decide by it.
 */
#ifndef NVGRACE_GPU_FACTS_SURVEY_H
#define NVGRACE_GPU_FACTS_SURVEY_H

#include "facts/config.h"

struct json_object;

/* ---- processes that have devices open ----------------------------------- */

struct open_file {
	int pid;
	char *comm;		/* the process's name in the kernel */
	char *path;		/* /dev/vfio/12, or anon_inode:[vfio-device] */
	dev_t rdev;		/* of a character device; 0: not known */
	char *device;		/* the device's sysfs path, if the kernel reports it; or NULL */
	bool names_device;	/* the process also has a file that names a device: one of vfio's,
				 * or /dev/nvidia0 for a file that all of NVIDIA's GPUs share */
};

struct open_files {
	struct open_file *file;
	size_t count;
	bool complete;		/* all processes could be read */
};

/*
 * Reads all open files of other processes that may be a GPU's: character
 * devices, whatever their names in a container, and vfio's anonymous files.
 */
void open_files_read(struct host *h, struct open_files *files);
void open_files_free(struct open_files *files);

struct holder {
	const struct open_file *file;
	bool certain; /* false: through a file that doesn't say of which device it is */
};

/* The processes that have this GPU open, each once; to be freed. */
struct holder *holders_find(struct host *h, const struct open_files *files, const struct gpu *gpu,
			    size_t *count);

/* "process 1234 (qemu-system-aar) has /dev/vfio/12, ..."; to be freed. */
char *holders_text(const struct holder *holders, size_t count);

/*
 * holders_text() of the processes that have this GPU open now, to be freed; or
 * NULL.
 */
char *gpu_users(struct host *h, const struct gpu *gpu);

/* ---- memory ------------------------------------------------------------- */

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
	int node;				/* holds only this GPU's memory; -1: not certain */
	const struct iomem_range *range;	/* NULL: not known */
};

/* ---- all of it ---------------------------------------------------------- */

struct survey {
	struct host *host;
	struct gpus gpus;
	struct open_files files;
	struct iomem iomem;
	struct config config;
	char *obstacle;		/* why the configuration has no effect at boot; NULL: it has */
};

void survey_read(struct host *h, struct survey *s);
void survey_free(struct survey *s);

/*
 * Whether a GPU's memory is System RAM, as far as user space can find out: by
 * the range that the driver reports, by NVIDIA's driver, or because this is the
 * only GPU and there is System RAM of NVIDIA's driver. The module refuses the
 * cases that this can't find.
 */
struct online survey_online(struct survey *s, const struct gpu *gpu);

/* One of the states in nvgrace-gpu(8): "unbound", "bound" and so on. */
const char *survey_state(struct survey *s, const struct gpu *gpu);

/* The line that binds this GPU at boot, or NULL. */
const struct config_line *survey_persisted(struct survey *s, const struct gpu *gpu);

/* Whether this GPU will be bound at boot. */
bool survey_boots(struct survey *s, const struct gpu *gpu);

/* Prints a warning for each malformed line of the configuration. */
void survey_complain(const struct survey *s);

/* The schema's "gpu". */
struct json_object *survey_json(struct survey *s, const struct gpu *gpu);

#endif
