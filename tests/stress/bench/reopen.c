// SPDX-License-Identifier: GPL-2.0-only
/*
 * Runs a command, if there is one, until it ends. Then opens a bound GPU
 * through vfio and reads from its memory, and marks both in the kernel's trace.
 *
 *	reopen GPU [COMMAND...]
 *
 * Exit status: 0, or 1 if something failed.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib.h"

static void mark(const char *text)
{
	must_write_file("/sys/kernel/tracing/trace_marker", text);
}

int main(int argc, char **argv)
{
	struct vfio v;
	uint64_t word;
	int ret;

	if (argc > 2) {
		pid_t pid = fork();

		if (!pid) {
			execvp(argv[2], argv + 2);
			_exit(127);
		}
		waitpid(pid, NULL, 0);
		mark("ended");
	}
	ret = vfio_try_open(&v, gpu_find(argv[1]));
	if (ret) {
		fprintf(stderr, "reopen: %s: %s\n", argv[1], strerror(-ret));
		return 1;
	}
	mark("opened");
	ret = vfio_read(&v, REGION(USEMEM), &word, sizeof(word));
	if (ret != sizeof(word)) {
		fprintf(stderr, "reopen: reading usemem of %s: %s\n", argv[1], strerror(-ret));
		return 1;
	}
	mark("read");
	return 0;
}
