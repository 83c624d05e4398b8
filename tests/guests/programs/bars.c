// SPDX-License-Identifier: GPL-2.0-only
/*
 * Prints the driver's BAR2 and BAR4 registers of the GPU that a process (QEMU)
 * has open. It uses a duplicate of the process's file. Runs in the host.
 *
 *	bars PID
 *
 * Exit status: 0, 1 if the registers can't be read, 2 for wrong usage.
 */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib.h"

#define BAR2_REGISTER	0x18

/*
 * The process's file descriptor of a vfio device, by group or by cdev; -1 if it
 * has none.
 */
static int vfio_file(const char *pid)
{
	char pattern[64], target[128];
	int found = -1;
	glob_t files;

	snprintf(pattern, sizeof(pattern), "/proc/%s/fd/*", pid);
	if (glob(pattern, 0, NULL, &files))
		return -1;
	for (size_t i = 0; i < files.gl_pathc && found < 0; i++) {
		ssize_t n = readlink(files.gl_pathv[i], target, sizeof(target) - 1);

		target[n < 0 ? 0 : n] = '\0';
		if (strstr(target, "[vfio-device]") || strstr(target, "/dev/vfio/devices/"))
			found = atoi(strrchr(files.gl_pathv[i], '/') + 1);
	}
	globfree(&files);
	return found;
}

int main(int argc, char **argv)
{
	int theirs, process, device;
	uint64_t registers[2];
	ssize_t count;

	if (argc != 2)
		return 2;
	theirs = vfio_file(argv[1]);
	process = syscall(SYS_pidfd_open, atoi(argv[1]), 0);
	device = syscall(SYS_pidfd_getfd, process, theirs, 0);
	count = pread(device, registers, sizeof(registers), CONFIG + BAR2_REGISTER);
	if (count != (ssize_t)sizeof(registers)) {
		fprintf(stderr, "bars: file %d of %s: %s\n", theirs, argv[1], strerror(errno));
		return 1;
	}
	printf("%#llx %#llx\n", (unsigned long long)registers[0], (unsigned long long)registers[1]);
	return 0;
}
