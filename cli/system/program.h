/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Names and numbers for the whole program: its name, the driver's names, and
 * the exit statuses.
 */
#ifndef NVGRACE_GPU_SYSTEM_PROGRAM_H
#define NVGRACE_GPU_SYSTEM_PROGRAM_H

#define PROGRAM "nvgrace-gpu"

/* /sys and driver_override have underscores, modprobe has hyphens. */
#define DRIVER_NAME "nvgrace_gpu_vfio_pci"
#define MODULE_NAME "nvgrace-gpu-vfio-pci"

/*
 * nvgrace-gpu(8) has the same list. If several GPUs end differently, it is the
 * largest.
 */
enum exit_status {
	EXIT_OK = 0,		/* done, or nothing to do; doctor: nothing worse than a note */
	EXIT_FAILED = 1,	/* failed, and the former state was restored; wait: too late */
	EXIT_USAGE_ERROR = 2,	/* the command line is invalid */
	EXIT_NO_DEVICE = 3,	/* no such device, or not supported */
	EXIT_REFUSED = 4,	/* in use, or its memory is online: nothing was changed */
	EXIT_NOT_ROOT = 5,	/* only root may do this: nothing was changed */
	EXIT_WARNINGS = 6,	/* doctor: at least one warning, nothing bad */
	EXIT_BAD = 7,		/* doctor: at least one bad finding */
	EXIT_INTERRUPTED = 130,	/* a signal: the former state was restored, but scrubs continue */
};

#endif
