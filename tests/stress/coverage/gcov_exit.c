// SPDX-License-Identifier: GPL-2.0-only
/*
 * gcov writes its counters when a program ends by exit(). This is linked into
 * nvgrace-gpu(8) with --wrap=_exit, so that it also does so when a process ends
 * by _exit(), as a forked child and a signal handler do, or by a signal.
 */
#include <signal.h>
#include <stddef.h>
#include <unistd.h>

void __gcov_dump(void);
void __real__exit(int status) __attribute__((noreturn));
void __wrap__exit(int status) __attribute__((noreturn));

void __wrap__exit(int status)
{
	__gcov_dump();
	__real__exit(status);
}

/* It ends the program all the same: the signal comes again, and nothing handles it. */
static void ended(int number)
{
	__gcov_dump();
	raise(number);
}

static void __attribute__((constructor)) catch_signals(void)
{
	static const int numbers[] = { SIGHUP, SIGINT, SIGPIPE, SIGTERM };
	struct sigaction now, action = { .sa_handler = ended, .sa_flags = SA_RESETHAND };
	size_t i;

	for (i = 0; i < sizeof(numbers) / sizeof(*numbers); i++)
		if (!sigaction(numbers[i], NULL, &now) && now.sa_handler == SIG_DFL)
			sigaction(numbers[i], &action, NULL);
}
