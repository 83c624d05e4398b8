/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The differences between kernels. The sources are written for the newest
 * kernel, and only this folder has conditions on kernel features. A feature is
 * found by compiling a probe of scripts/probes against the target's headers
 * (the generated header below has the results), never by a version number.
 *
 * All names here are compat_* or COMPAT_*, or those of the newest kernel that
 * they stand in for.
 */
#ifndef NVGRACE_GPU_COMPAT_H
#define NVGRACE_GPU_COMPAT_H

#include <generated/nvgrace_gpu_features.h>

#ifndef HAVE_VFIO_ALLOC_DEVICE
#error "this kernel's vfio-pci-core is too old: Linux 6.1 or later is required"
#endif

#include "cache.h"
#include "lock.h"
#include "mm.h"
#include "phys.h"
#include "vfio.h"

#endif /* NVGRACE_GPU_COMPAT_H */
