/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The processes that have a GPU open, by the files in /proc.
 */
#ifndef NVGRACE_GPU_FACTS_OPEN_FILES_H
#define NVGRACE_GPU_FACTS_OPEN_FILES_H

#include "facts/gpu.h"

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

/*
 * Whether a process may have the GPU open: a driver has it, or there is a device file of
 * its own or of its IOMMU group. Much faster than to look at all open files.
 */
bool gpu_may_be_open(struct host *h, const struct gpu *gpu);

/* "process 1234 (qemu-system-aar) has /dev/vfio/12, ..."; to be freed. */
char *holders_text(const struct holder *holders, size_t count);

/*
 * holders_text() of the processes that have this GPU open now, to be freed; or
 * NULL.
 */
char *gpu_users(struct host *h, const struct gpu *gpu);

#endif
