/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Builds of packages include this before everything else.
 *
 * With glibc 2.38 or later, _GNU_SOURCE replaces strtol(), sscanf() and their
 * relatives with those of C23, which an older glibc lacks. Without them, a
 * program built on Debian 13 runs on Debian 12, Ubuntu 22.04 and RHEL 9.
 * glibc 2.38 and 2.39 use the second name.
 */
#include <features.h>

#undef __GLIBC_USE_C23_STRTOL
#define __GLIBC_USE_C23_STRTOL 0
#undef __GLIBC_USE_C2X_STRTOL
#define __GLIBC_USE_C2X_STRTOL 0
