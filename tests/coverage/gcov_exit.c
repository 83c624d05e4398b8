// SPDX-License-Identifier: GPL-2.0-only
/*
 * gcov writes its counters when a program ends by exit(). This is linked into
 * nvgrace-gpu(8) with --wrap=_exit, so that a process which ends by _exit()
 * counts, too: a forked child, or a handler of signals.
 */
#include <unistd.h>

void __gcov_dump(void);
void __real__exit(int status) __attribute__((noreturn));
void __wrap__exit(int status) __attribute__((noreturn));

void __wrap__exit(int status)
{
	__gcov_dump();
	__real__exit(status);
}
