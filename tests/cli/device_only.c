// SPDX-License-Identifier: GPL-2.0-only
/*
 * Has a vfio device open, but neither its group nor its container: opens all
 * three as a VMM does, closes group and container, prints "open", and waits for
 * the end of its standard input.
 *
 *	device_only NAME
 */
#include <unistd.h>

#include "lib.h"

int main(int argc, char **argv)
{
	struct vfio v;
	char byte;

	if (argc != 2)
		return 2;
	vfio_open(&v, gpu_find(argv[1]));
	close(v.group);
	close(v.iommu);
	puts("open");
	fflush(stdout);
	while (read(0, &byte, 1) > 0)
		;
	return 0;
}
