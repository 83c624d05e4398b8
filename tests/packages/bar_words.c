// SPDX-License-Identifier: GPL-2.0-only
/*
 * Writes the first and the last word of a GPU's BAR and reads them back. Runs
 * in the guest of domain.py.
 *
 *	bar_words FILE	FILE is a resourceN of the device in sysfs
 *
 * Prints "good", or what is wrong. Exit status: 0 if good, else 1.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const uint64_t first = 0x1122334455667788, last = 0x8877665544332211;

int main(int argc, char **argv)
{
	struct stat file;
	int fd = argc == 2 ? open(argv[1], O_RDWR | O_SYNC) : -1;

	if (fd < 0 || fstat(fd, &file)) {
		printf("can't open it: %m\n");
		return 1;
	}
	size_t words = file.st_size / sizeof(uint64_t);
	volatile uint64_t *bar;

	bar = mmap(NULL, file.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (bar == MAP_FAILED) {
		printf("can't map it: %m\n");
		return 1;
	}
	/* Write both before reading, to show that the ends differ in memory. */
	bar[0] = first;
	bar[words - 1] = last;
	if (bar[0] != first || bar[words - 1] != last) {
		printf("other words are read back\n");
		return 1;
	}
	printf("good\n");
	return 0;
}
