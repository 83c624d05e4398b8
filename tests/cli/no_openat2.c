// SPDX-License-Identifier: GPL-2.0-only
/*
 * Runs a program for which openat2(2) fails, as on a kernel without it or in a
 * sandbox. test_trees.py calls it.
 *
 *	no_openat2 ERRNO PROGRAM [ARGUMENT...]
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int error = argc > 1 ? atoi(argv[1]) : 0;
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat2, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof(filter) / sizeof(*filter), filter };
	char **command = argv + 2;

	if (argc < 3 || error <= 0)
		return 2;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) {
		perror("no_openat2");
		return 1;
	}
	/* Without an effect of the filter, the test would show nothing. */
	if (syscall(SYS_openat2, -1, NULL, NULL, 0) != -1 || errno != error) {
		fputs("no_openat2: the filter does not block openat2\n", stderr);
		return 1;
	}
	execvp(*command, command);
	perror(*command);
	return 127;
}
