/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Opens a GPU for this program with a client of vfio, and says why that fails.
 */
#ifndef NVGRACE_GPU_OPEN_GPU_VFIO_OPEN_H
#define NVGRACE_GPU_OPEN_GPU_VFIO_OPEN_H

#include "system/host.h"
#include "system/program.h"
#include "system/vfio.h"

/*
 * Opens a bound device, by its own file if the kernel has that, otherwise by its
 * group; -1: it has none. EXIT_OK, or an exit status and the message *reason, to be
 * freed. vfio resets the device at each open.
 */
enum exit_status vfio_open(struct host *h, struct vfio *v, const char *address, int iommu_group,
			   char **reason);

#endif
