// SPDX-License-Identifier: GPL-2.0-only
/*
 * Holds a device and uses its memory, as QEMU does for a guest. test_life.py
 * runs it in the emulated system to see whether changes to the packages disturb
 * a guest:
 *
 *	uses_memory ADDRESS FILE
 *
 * It opens the GPU through a type1 container and maps both memory regions. Then it
 * writes and reads them and reads the device's config space, again and again, and
 * writes the number of rounds to FILE, which is never empty. SIGTERM ends it with
 * status 0. If anything fails, it prints a line on stderr and ends with status 1;
 * usage errors give 2.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <linux/vfio.h>

#include "system/vfio.h"

/* Bytes used of each region. */
#define MAPPED	0x100000

static volatile sig_atomic_t ending;

static void end(int number)
{
	(void)number;
	ending = 1;
}

static void __attribute__((noreturn)) die(const char *what, int error)
{
	fprintf(stderr, "uses_memory: %s: %s\n", what, strerror(-error));
	exit(1);
}

static int group_of(const char *address)
{
	char path[128], target[256];
	ssize_t len;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/iommu_group", address);
	len = readlink(path, target, sizeof(target) - 1);
	if (len < 0)
		die(path, -errno);
	target[len] = 0;
	return atoi(strrchr(target, '/') + 1);
}

static uint64_t offset_of(struct vfio *v, unsigned int index)
{
	struct vfio_region region;
	int error = vfio_get_region(v, index, &region);

	if (error)
		die("region", error);
	return region.offset;
}

static volatile uint64_t *map(struct vfio *v, unsigned int index)
{
	void *p = mmap(NULL, MAPPED, PROT_READ | PROT_WRITE, MAP_SHARED, v->device,
		       offset_of(v, index));

	if (p == MAP_FAILED)
		die("mmap", -errno);
	return p;
}

int main(int argc, char **argv)
{
	const struct timespec pause = { .tv_nsec = 50 * 1000 * 1000 };
	struct sigaction action = { .sa_handler = end };
	volatile uint64_t *memory[2];
	uint64_t round = 0, config;
	char new_file[256];
	struct vfio v;
	int error, k;

	if (argc != 3) {
		fprintf(stderr, "usage: uses_memory ADDRESS FILE\n");
		return 2;
	}
	snprintf(new_file, sizeof(new_file), "%s.new", argv[2]);
	sigaction(SIGTERM, &action, NULL);
	error = vfio_open_group(&v, group_of(argv[1]), argv[1]);
	if (error)
		die(v.failed, error);
	config = offset_of(&v, VFIO_PCI_CONFIG_REGION_INDEX);
	memory[0] = map(&v, VFIO_PCI_BAR4_REGION_INDEX);
	memory[1] = map(&v, VFIO_PCI_BAR2_REGION_INDEX);

	while (!ending) {
		uint16_t vendor = 0;
		FILE *f;

		for (k = 0; k < 2; k++) {
			volatile uint64_t *word = &memory[k][(round * 509) % (MAPPED / 8)];

			*word = round ^ k;
			if (*word != (round ^ k))
				die("memory differs from what was written", -EIO);
		}
		error = vfio_read_all(&v, config, &vendor, 2);
		if (error || vendor != 0x10de)
			die("config space", error);
		f = fopen(new_file, "w");
		round++;
		if (!f || fprintf(f, "%llu\n", (unsigned long long)round) < 0 || fclose(f) ||
		    rename(new_file, argv[2]))
			die(argv[2], -errno);
		nanosleep(&pause, NULL);
	}
	return 0;
}
