/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Asks other programs.
 */
#ifndef NVGRACE_GPU_SYSTEM_SPAWN_H
#define NVGRACE_GPU_SYSTEM_SPAWN_H

/*
 * What a program prints on standard output, up to 1 MiB, to be freed with
 * g_free(); NULL if it is missing, fails, prints more or takes longer than ms.
 * path is absolute, and the environment is not the caller's.
 */
char *program_output(long long ms, const char *path, char *const argv[]);

#endif
