// SPDX-License-Identifier: GPL-2.0-only
/*
 * Holds a device and uses its memory, as QEMU does for a guest. test_life.py
 * runs it in the emulated system to see whether changes to the packages disturb
 * a guest:
 *
 *	uses_memory ADDRESS FILE
 *
 * It opens the GPU through a type1 container and maps both memory regions. Then
 * it writes and reads them and reads the device's config space, again and
 * again, and writes the number of rounds to FILE, which is never empty. SIGTERM
 * ends it with status 0. If anything fails, it prints a line on stderr and ends
 * with status 1; usage errors give 2.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <linux/vfio.h>

/* Bytes used of each region. */
#define MAPPED	0x100000

static volatile sig_atomic_t ending;

static void end(int number)
{
	(void)number;
	ending = 1;
}

static void __attribute__((noreturn)) die(const char *what)
{
	fprintf(stderr, "uses_memory: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int open_file(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC);

	if (fd < 0)
		die(path);
	return fd;
}

static int group_of(const char *address)
{
	char path[128], target[256];
	ssize_t len;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/iommu_group", address);
	len = readlink(path, target, sizeof(target) - 1);
	if (len < 0)
		die(path);
	target[len] = 0;
	return atoi(strrchr(target, '/') + 1);
}

static volatile uint64_t *map(int device, unsigned int index)
{
	struct vfio_region_info info = { .argsz = sizeof(info), .index = index };
	void *p;

	if (ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &info))
		die("region");
	p = mmap(NULL, MAPPED, PROT_READ | PROT_WRITE, MAP_SHARED, device, info.offset);
	if (p == MAP_FAILED)
		die("mmap");
	return p;
}

int main(int argc, char **argv)
{
	struct vfio_region_info config = {
		.argsz = sizeof(config),
		.index = VFIO_PCI_CONFIG_REGION_INDEX,
	};
	const struct timespec pause = { .tv_nsec = 50 * 1000 * 1000 };
	struct sigaction action = { .sa_handler = end };
	volatile uint64_t *memory[2];
	int container, group, device, k;
	char path[64], new_file[256];
	uint64_t round = 0;

	if (argc != 3) {
		fprintf(stderr, "usage: uses_memory ADDRESS FILE\n");
		return 2;
	}
	snprintf(new_file, sizeof(new_file), "%s.new", argv[2]);
	sigaction(SIGTERM, &action, NULL);
	container = open_file("/dev/vfio/vfio", O_RDWR);
	snprintf(path, sizeof(path), "/dev/vfio/%d", group_of(argv[1]));
	group = open_file(path, O_RDWR);
	if (ioctl(group, VFIO_GROUP_SET_CONTAINER, &container))
		die("VFIO_GROUP_SET_CONTAINER");
	if (ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU))
		die("VFIO_SET_IOMMU");
	device = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, argv[1]);
	if (device < 0)
		die("VFIO_GROUP_GET_DEVICE_FD");
	if (ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &config))
		die("config space");
	memory[0] = map(device, VFIO_PCI_BAR4_REGION_INDEX);
	memory[1] = map(device, VFIO_PCI_BAR2_REGION_INDEX);

	while (!ending) {
		uint16_t vendor = 0;
		FILE *f;

		for (k = 0; k < 2; k++) {
			volatile uint64_t *word = &memory[k][(round * 509) % (MAPPED / 8)];

			*word = round ^ k;
			if (*word != (round ^ k)) {
				errno = EIO;
				die("memory differs from what was written");
			}
		}
		if (pread(device, &vendor, 2, config.offset) != 2 || vendor != 0x10de)
			die("config space");
		f = fopen(new_file, "w");
		round++;
		if (!f || fprintf(f, "%llu\n", (unsigned long long)round) < 0 || fclose(f) ||
		    rename(new_file, argv[2]))
			die(argv[2]);
		nanosleep(&pause, NULL);
	}
	return 0;
}
