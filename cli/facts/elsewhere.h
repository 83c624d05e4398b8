/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the kernel command line says, and boots in which no GPU is bound, whatever the
 * configuration says.
 */
#ifndef NVGRACE_GPU_FACTS_ELSEWHERE_H
#define NVGRACE_GPU_FACTS_ELSEWHERE_H

#include "system/host.h"

/*
 * What this boot is, "the kernel of a crash dump" or a rescue system with the words
 * that say so, to be freed; NULL: an ordinary boot.
 */
char *boot_is_elsewhere(struct host *h);

/* The same for a kernel command line alone; NULL: none. */
char *line_is_elsewhere(const char *line);

/*
 * The words of a kernel command line, whose quotes may contain spaces and are gone;
 * g_strfreev() frees them.
 */
char **boot_words(const char *line);

/*
 * The value of the last word NAME=VALUE, as the kernel takes it, to be freed; NULL: there
 * is none. name: with underscores, for which the line can have hyphens.
 */
char *boot_parameter(const char *line, const char *name);

#endif
