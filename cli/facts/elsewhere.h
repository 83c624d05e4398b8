/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Boots in which no GPU is bound, whatever the configuration says.
 */
#ifndef NVGRACE_GPU_FACTS_ELSEWHERE_H
#define NVGRACE_GPU_FACTS_ELSEWHERE_H

#include "system/host.h"

/*
 * What this boot is, "the kernel of a crash dump" or a rescue system with the words
 * that say so, to be freed; NULL: an ordinary boot.
 */
char *boot_is_elsewhere(struct host *h);

#endif
