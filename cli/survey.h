/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One look at the whole system: the GPUs, who has them open, where their memory is online, what the
 * configuration wants. list and status print it, bind and unbind decide by it, doctor may use its
 * parts.
 */
#ifndef NVGRACE_GPU_SURVEY_H
#define NVGRACE_GPU_SURVEY_H

#include "config.h"
#include "host.h"

struct json_object;

/* ---- processes that have devices open ----------------------------------- */

struct open_file {
	int pid;
	char *comm;		/* what the kernel calls the process */
	char *path;		/* /dev/vfio/12, or anon_inode:[vfio-device] */
	dev_t rdev;		/* of a character device; 0: not known */
	char *device;		/* whose device file it is, where the kernel tells; or NULL */
	bool names_device;	/* the process has a /dev/vfio file, too, which says which device */
};

struct open_files {
	struct open_file *file;
	size_t count;
	bool complete;		/* all processes could be looked at */
};

/*
 * All files of other processes that could be a GPU's: character devices, whatever their names in
 * the process's own file system are, and vfio's anonymous ones.
 */
void open_files_read(struct host *h, struct open_files *files);
void open_files_free(struct open_files *files);

struct holder {
	const struct open_file *file;
	bool certain; /* false: a vfio device of which the kernel doesn't say which */
};

/* Who has this GPU open, each process once; to be freed. */
struct holder *holders_find(struct host *h, const struct open_files *files, const struct gpu *gpu,
			    size_t *count);

/* For people: "process 1234 (qemu-system-aar) has /dev/vfio/12, ..."; to be freed. */
char *holders_text(const struct holder *holders, size_t count);

/* holders_text() of who has this GPU open now, or NULL; to be freed. */
char *gpu_users(struct host *h, const struct gpu *gpu);

/* ---- memory ------------------------------------------------------------- */

struct iomem_range {
	uint64_t start;	/* 0 unless root, as is end */
	uint64_t end;	/* the last byte */
	int depth;	/* 0: not inside another one */
	char *name;
};

struct iomem {
	struct iomem_range *range;
	size_t count;
};

/* /proc/iomem; without a range if it can't be read. */
void iomem_read(struct host *h, struct iomem *iomem);
void iomem_free(struct iomem *iomem);

struct memory_node {
	int id;
	bool cpus;
	uint64_t bytes; /* that are online */
};

/* NUMA nodes; to be freed. */
struct memory_node *memory_nodes(struct host *h, size_t *count);

/* Where a GPU's memory is the host's own. */
struct online {
	bool online;
	int node;				/* that holds this memory and no other; -1: not sure */
	const struct iomem_range *range;	/* NULL: not known */
};

/* ---- all of it ---------------------------------------------------------- */

struct survey {
	struct host *host;
	struct gpus gpus;
	struct open_files files;
	struct iomem iomem;
	struct config config;
	char *obstacle;		/* why the configuration has no effect at boot, NULL if it has */
};

void survey_read(struct host *h, struct survey *s);
void survey_free(struct survey *s);

/*
 * Whether a GPU's memory is System RAM, as far as user space can tell: by the range that the driver
 * told, by NVIDIA's driver's own word, or because it's the only GPU and System RAM of NVIDIA's is
 * there. What this can't see the module finds, and refuses.
 */
struct online survey_online(struct survey *s, const struct gpu *gpu);

/* One of the words that nvgrace-gpu(8) explains: "unbound", "bound"... */
const char *survey_state(struct survey *s, const struct gpu *gpu);

/* The line that wants this GPU bound at boot, or NULL. */
const struct config_line *survey_persisted(struct survey *s, const struct gpu *gpu);

/* Whether it will be. */
bool survey_boots(struct survey *s, const struct gpu *gpu);

/* A warning for each line of the configuration that is none. */
void survey_complain(const struct survey *s);

/* The schema's "gpu". */
struct json_object *survey_json(struct survey *s, const struct gpu *gpu);

#endif
