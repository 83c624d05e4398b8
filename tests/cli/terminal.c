// SPDX-License-Identifier: GPL-2.0-only
/*
 * Runs a program on a terminal of its own, because test machines have no other.
 * Types keys, and prints the program's output without carriage returns.
 *
 *	terminal COLUMNS [-t TEXT KEYS]... PROGRAM [ARGUMENT...]
 *
 * Types KEYS when the program has printed TEXT, one pair after the other. "^C"
 * stands for that key. Exit status: that of the program; 128 plus the number of
 * the signal that ended it; 99 if it ended before all keys were typed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void type(int fd, const char *keys)
{
	const char *typed = strcmp(keys, "^C") ? keys : "\003";

	if (write(fd, typed, strlen(typed)) < 0)
		perror("typing");
}

int main(int argc, char **argv)
{
	static char seen[1 << 20];
	struct winsize size = { .ws_row = 24 };
	size_t length = 0, from = 0, i;
	int at = 2, status, fd;
	char **program;
	pid_t pid;

	if (argc < 3)
		return 2;
	size.ws_col = atoi(argv[1]);
	for (program = argv + 2; *program && !strcmp(*program, "-t"); program += 3)
		;
	if (!*program)
		return 2;
	pid = forkpty(&fd, NULL, NULL, &size);
	if (pid < 0) {
		perror("forkpty");
		return 2;
	}
	if (!pid) {
		setenv("TERM", "xterm", 1);
		/* A shell's background jobs ignore it. */
		signal(SIGINT, SIG_DFL);
		execv(program[0], program);
		perror(program[0]);
		_exit(127);
	}
	for (;;) {
		/* Leaves room for the NUL. */
		ssize_t n = read(fd, seen + length, sizeof(seen) - 1 - length);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		for (i = length; i < length + n; i++)
			if (seen[i] != '\r')
				putchar(seen[i]);
		length += n;
		seen[length] = 0;
		if (argv + at < program && strstr(seen + from, argv[at + 1])) {
			type(fd, argv[at + 2]);
			from = length;
			at += 3;
		}
	}
	putchar('\n');
	if (waitpid(pid, &status, 0) < 0)
		return 2;
	if (argv + at < program)
		return 99;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
