/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The initramfs has a copy of our configuration where the package's hook is installed: bind.c
 * renews it when that changed.
 */
#ifndef NVGRACE_GPU_INITRAMFS_H
#define NVGRACE_GPU_INITRAMFS_H

#include "host.h"

/* The command that renews every kernel's, static; NULL if no initramfs has a part of ours. */
const char *const *initramfs_command(struct host *h);

/* Run it, its output on standard error. Its exit status; -1 if it can't be run or was killed. */
int initramfs_run(const char *const *command);

#endif
