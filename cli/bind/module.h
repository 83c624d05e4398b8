/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Loads the module before a bind: bind.c for a command, and switch.c at boot.
 */
#ifndef NVGRACE_GPU_BIND_MODULE_H
#define NVGRACE_GPU_BIND_MODULE_H

#include <glib.h>

#include "system/host.h"

/*
 * Loads the module, unless the driver is registered. NULL, or the failure, to
 * be freed; then *next is the remedy, to be freed, or NULL, and log has the
 * kernel's lines.
 */
char *module_load(struct host *h, char **next, GPtrArray *log);

#endif
