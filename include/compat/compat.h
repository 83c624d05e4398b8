/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What differs between kernels.  The sources are written for the newest one;
 * this folder is the only place with conditions on kernel features, each of
 * which was found by compiling a probe of scripts/probes against the target's
 * headers (the generated header below), never by its version number.
 *
 * Everything here is named compat_* or COMPAT_*, or has the newest kernel's
 * name and stands in for it.
 */
#ifndef NVGRACE_GPU_COMPAT_H
#define NVGRACE_GPU_COMPAT_H

#include <generated/nvgrace_gpu_features.h>

#ifndef HAVE_VFIO_ALLOC_DEVICE
#error "vfio-pci-core of this kernel is too old: nvgrace-gpu-vfio-pci needs that of Linux 6.1"
#endif

#include "cache.h"
#include "mm.h"
#include "phys.h"
#include "vfio.h"

#endif /* NVGRACE_GPU_COMPAT_H */
