// SPDX-License-Identifier: GPL-2.0-only
/*
 * Has a vfio device open, but neither its group nor its container: opens all
 * three as a VMM does, closes group and container, prints "open", and waits for
 * the end of its standard input. in_machine.py compiles it for the machine.
 *
 *	device_only /dev/vfio/GROUP ADDRESS
 */
#include <fcntl.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

static int fail(const char *what)
{
	perror(what);
	return 1;
}

int main(int argc, char **argv)
{
	int container, group, device;
	char byte;

	if (argc != 3)
		return 2;
	container = open("/dev/vfio/vfio", O_RDWR);
	group = open(argv[1], O_RDWR);
	if (container < 0 || group < 0)
		return fail(argv[1]);
	if (ioctl(group, VFIO_GROUP_SET_CONTAINER, &container))
		return fail("VFIO_GROUP_SET_CONTAINER");
	if (ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU))
		return fail("VFIO_SET_IOMMU");
	device = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, argv[2]);
	if (device < 0)
		return fail("VFIO_GROUP_GET_DEVICE_FD");
	close(group);
	close(container);
	puts("open");
	fflush(stdout);
	while (read(0, &byte, 1) > 0)
		;
	return 0;
}
