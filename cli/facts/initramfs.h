/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * If the package's hook is installed, the initramfs has a copy of the
 * configuration. bind.c updates it after a change.
 */
#ifndef NVGRACE_GPU_FACTS_INITRAMFS_H
#define NVGRACE_GPU_FACTS_INITRAMFS_H

#include "system/host.h"

/*
 * The command that updates every kernel's, static; NULL: no hook is installed.
 */
const char *const *initramfs_command(struct host *h);

#endif
