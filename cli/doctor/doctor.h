/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * All checks of a host and its GPUs, for the commands doctor and metrics.
 */
#ifndef NVGRACE_GPU_DOCTOR_DOCTOR_H
#define NVGRACE_GPU_DOCTOR_DOCTOR_H

#include "doctor/findings.h"

/*
 * Runs all checks, of the GPUs with these addresses, or of all if count is 0.
 * The caller sets d's h, and recorder if it records; doctor_end() frees the
 * rest.
 */
void doctor_look(struct doctor *d, char (*addresses)[ADDRESS_MAX], size_t count);
void doctor_end(struct doctor *d);

#endif
