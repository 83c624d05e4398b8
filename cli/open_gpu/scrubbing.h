/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The sysfs files that make the driver overwrite the memory of an idle GPU with
 * zeros. docs/ABI describes them.
 */
#ifndef NVGRACE_GPU_OPEN_GPU_SCRUBBING_H
#define NVGRACE_GPU_OPEN_GPU_SCRUBBING_H

/*
 * Interval for reading the progress. The end of a scrub wakes poll() earlier,
 * with POLLPRI of scrub_state.
 */
enum { SCRUB_POLL_MS = 250 };

/* Starts a scrub: 0 or an errno. */
int scrub_start(const char *address);

/* A descriptor of scrub_state, which the caller closes; -1 with errno. */
int scrub_state_open(const char *address);

/*
 * The current state, to be freed; NULL with errno if the GPU was unbound.
 */
char *scrub_state_read(int fd);

#endif
