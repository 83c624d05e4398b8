/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Runs other programs. path is absolute.
 */
#ifndef NVGRACE_GPU_SYSTEM_SPAWN_H
#define NVGRACE_GPU_SYSTEM_SPAWN_H

/*
 * What a program prints on standard output, up to 1 MiB, to be freed with
 * g_free(); NULL if it is missing, fails, prints more or takes longer than ms.
 * The environment is not the caller's.
 */
char *program_output(long long ms, const char *path, char *const argv[]);

/*
 * Runs a program whose output goes to standard error, because standard output
 * may be a JSON document. Its exit status; -1: it did not start or was killed,
 * and errno is set.
 */
int program_show(const char *path, char *const argv[]);

/*
 * Runs a program in a process group of its own, of which nothing is left at the
 * end. *output: what it printed, to be freed with g_free(). 0 and the status of
 * waitpid(); ETIMEDOUT: it was killed, because it printed more or took longer
 * than ms; or another errno.
 */
int program_test(long long ms, const char *path, char *const argv[], char **output, int *status);

/* Kills that group, in another thread. No other one starts after this. */
void programs_end(void);

#endif
