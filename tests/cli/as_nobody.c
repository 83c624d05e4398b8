// SPDX-License-Identifier: GPL-2.0-only
/*
 * Runs a program as user and group 65534, without any other group.
 *
 *	as_nobody PROGRAM [ARGUMENT...]
 */
#define _DEFAULT_SOURCE
#include <grp.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc < 2)
		return 2;
	if (setgroups(0, NULL) || setgid(65534) || setuid(65534)) {
		perror("as_nobody");
		return 2;
	}
	execv(argv[1], argv + 1);
	perror(argv[1]);
	return 127;
}
