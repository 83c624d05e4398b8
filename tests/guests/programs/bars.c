// SPDX-License-Identifier: GPL-2.0-only
/*
 * Prints the driver's BAR2 and BAR4 registers of the GPU that a process (QEMU)
 * has open as this file. It uses a duplicate of the file. Runs in the host.
 *
 *	bars PID FILE
 *
 * Exit status: 0, 1 if the registers can't be read, 2 for wrong usage.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib.h"

#define BAR2_REGISTER	0x18

int main(int argc, char **argv)
{
	int process, device;
	uint64_t registers[2];
	ssize_t count;

	if (argc != 3)
		return 2;
	process = syscall(SYS_pidfd_open, atoi(argv[1]), 0);
	device = syscall(SYS_pidfd_getfd, process, atoi(argv[2]), 0);
	count = pread(device, registers, sizeof(registers), CONFIG + BAR2_REGISTER);
	if (count != (ssize_t)sizeof(registers)) {
		fprintf(stderr, "bars: file %s of %s: %s\n", argv[2], argv[1], strerror(errno));
		return 1;
	}
	printf("%#llx %#llx\n", (unsigned long long)registers[0], (unsigned long long)registers[1]);
	return 0;
}
