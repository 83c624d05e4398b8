// SPDX-License-Identifier: GPL-2.0-only
/*
 * The part of `make demo` that runs in the virtual GH200; demo.py starts it. It
 * binds the GPU as an administrator does, shows the VMM's view, moves data both
 * ways through both parts, and prints a table. After a failure, it prints one
 * line and exits with status 1.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "lib.h"

#define RW	(PROT_READ | PROT_WRITE)
#define BULK	(32 * MiB)

static struct vfio v;
static const struct gpu *gpu;

/* Rows of the table at the end. */
static struct {
	char what[56];
	char result[40];
} rows[16];
static int row_count;

static void __attribute__((format(printf, 2, 3)))
done(const char *what, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	snprintf(rows[row_count].what, sizeof(rows[0].what), "%s", what);
	vsnprintf(rows[row_count].result, sizeof(rows[0].result), fmt, ap);
	va_end(ap);
	row_count++;
}

static void check(bool good, const char *what)
{
	if (good)
		return;
	printf("demo: %s\n", what);
	exit(1);
}

static const char *human(uint64_t bytes)
{
	static char text[16][32];
	static int next;
	char *s = text[next++ % 16];

	if (bytes >= GiB)
		snprintf(s, 32, "%.4g GiB", (double)bytes / GiB);
	else
		snprintf(s, 32, "%.4g MiB", (double)bytes / MiB);
	return s;
}

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

static void show_lines(const char *command)
{
	char line[256];
	FILE *f = popen(command, "r");

	check(f, "can't run a shell");
	while (fgets(line, sizeof(line), f))
		printf("      %s", line);
	check(!pclose(f), command);
}

static void bind_gpu(void)
{
	char command[256];

	printf("  1. Bind the GPU, as an administrator does\n\n");
	printf("      # echo " DRIVER " > /sys/bus/pci/devices/%s/driver_override\n"
	       "      # echo %s > /sys/bus/pci/drivers_probe\n", gpu->addr,
	       gpu->addr);
	check(!gpu_sysfs_write(gpu, "driver_override", DRIVER),
	      "can't write driver_override");
	snprintf(command, sizeof(command),
		 "echo %s > /sys/bus/pci/drivers_probe", gpu->addr);
	check(!system(command), "can't write drivers_probe");
	check(gpu_bound(gpu), "the GPU is not bound; see the kernel's log");
	printf("      # dmesg | tail -n 1\n");
	show_lines("dmesg | grep usemem | tail -n 1 | sed 's/^[^]]*\\] //'");
	printf("      # grep " DRIVER " /proc/iomem\n");
	show_lines("grep " DRIVER " /proc/iomem | sed 's/^ *//'");
	done("bind: driver_override, drivers_probe", "bound");
}

static void draw(const struct vfio_region *use, const struct vfio_region *res)
{
	uint64_t top = gpu->base + gpu->size, cut = gpu->base + use->area_size;

	printf("\n  2. The VMM's view: two ordinary BARs, which need no knowledge of the chip\n\n"
	       "      physical address\n"
	       "      %#014" PRIx64 "  +-----------------+\n"
	       "                      |                 |\n"
	       "                      | usemem %8s |---> BAR4, %s; mmap of [0, %s)\n"
	       "                      |                 |     write-back: a guest adds it as memory\n"
	       "                      |                 |\n"
	       "      %#014" PRIx64 "  +-----------------+\n"
	       "                      | resmem %8s |---> BAR2, %s; mmap of [0, %s)\n"
	       "                      |                 |     write-combine: for MIG\n"
	       "      %#014" PRIx64 "  +-----------------+\n"
	       "                       the device itself ----> BAR0, %s of registers\n",
	       gpu->base, human(use->area_size), human(use->size),
	       human(use->area_size), cut, human(res->area_size),
	       human(res->size), human(res->area_size), top, human(BAR0_SIZE));
}

static void size_bars(void)
{
	static const int at[] = { 0x18, 0x20 };
	uint64_t ones = ~0ULL, val;
	int i;

	printf("\n  3. Size the BARs in config space, as firmware in a guest does\n\n");
	for (i = 0; i < 2; i++) {
		check(vfio_write(&v, CONFIG + at[i], &ones, 8) == 8 &&
		      vfio_read(&v, CONFIG + at[i], &val, 8) == 8,
		      "config space does not answer");
		printf("      BAR%d: wrote %#" PRIx64 ", reads %#" PRIx64
		       ": %s, 64-bit, prefetchable\n", i ? 4 : 2, ones, val,
		       human(-(val & ~0xfULL)));
	}
	done("config: BAR2 and BAR4 sized by writing ones", "like ordinary BARs");
}

static void move(unsigned int index, const char *name, uint64_t length,
		 uint64_t phys)
{
	char *in = malloc(BULK), *out = malloc(BULK), outside[64];
	uint64_t at = length / 2 / BULK * BULK;
	double t[5];
	char *map;

	check(in && out, "out of memory");
	map = vfio_map(&v, index, 0, length, RW, MAP_SHARED, NULL);
	fill(in, BULK, index);
	/* So that the times contain no first touch and no kernel mapping. */
	memset(map + at, 0, BULK);
	check(vfio_read(&v, REGION(index) + at, out, BULK) == BULK,
	      "pread was incomplete");

	t[0] = seconds();
	memcpy(map + at, in, BULK);
	t[1] = seconds();
	check(vfio_read(&v, REGION(index) + at, out, BULK) == BULK,
	      "pread was incomplete");
	t[2] = seconds();
	check(!memcmp(in, out, BULK), "pread differs from the mapping");
	host_peek(phys + at, outside, sizeof(outside));
	check(!memcmp(in, outside, sizeof(outside)),
	      "the memory differs when read from outside");

	fill(in, BULK, index + 100);
	t[3] = seconds();
	check(vfio_write(&v, REGION(index) + at, in, BULK) == BULK,
	      "pwrite was incomplete");
	t[4] = seconds();
	check(!memcmp(map + at, in, BULK), "the mapping differs from pwrite");

	/* Both ends. */
	map[0] = 1;
	map[length - 1] = 2;
	check(vfio_read(&v, REGION(index) + length - 1, out, 1) == 1 &&
	      *out == 2, "the last byte differs");
	munmap(map, length);

	printf("      %s: %s at offset %s through mmap, pread and pwrite;\n"
	       "              the same when read from outside\n", name, human(BULK),
	       human(at));
	printf("              times in this emulation, memcpy to the mapping = 1:\n"
	       "              pread %.1f, pwrite %.1f\n",
	       (t[2] - t[1]) / (t[1] - t[0]), (t[4] - t[3]) / (t[1] - t[0]));
	done(index == USEMEM ? "usemem: mmap -> pread, pwrite -> mmap" :
			       "resmem: mmap -> pread, pwrite -> mmap",
	     "%s each way, equal", human(BULK));
	free(in);
	free(out);
}

static void tail(const struct vfio_region *use)
{
	uint64_t word = 0;

	check(vfio_read(&v, REGION(USEMEM) + use->size - 8, &word, 8) == 8 &&
	      word == ~0ULL, "reads beyond the memory are not all ones");
	printf("      beyond the memory, up to the BAR's end: reads return %#" PRIx64
	       ", writes are dropped\n", word);
	done("reads beyond the memory", "all ones");
}

static void reset(void)
{
	char *map = vfio_map(&v, USEMEM, 0, MiB, RW, MAP_SHARED, NULL);
	uint64_t val;

	printf("\n  5. Reset the device while it is mapped\n\n");
	strcpy(map, "kept");
	check(!vfio_reset(&v), "VFIO_DEVICE_RESET failed");
	check(vfio_read(&v, CONFIG + 0x20, &val, 8) == 8 && val == 0xc,
	      "BAR4 was not cleared");
	check(!strcmp(map, "kept"), "the mapping lost its content");
	munmap(map, MiB);
	printf("      the BAR registers are cleared; the mapping shows the memory again\n");
	done("VFIO_DEVICE_RESET with mappings", "BARs cleared, mappings work");
}

static void rule(void)
{
	static const char dashes[] =
		"------------------------------------------------";

	printf("  +%.47s+%.31s+\n", dashes, dashes);
}

static void table(void)
{
	int i;

	printf("\n");
	rule();
	for (i = 0; i < row_count; i++)
		printf("  | %-45s | %-29s |\n", rows[i].what, rows[i].result);
	rule();
}

int main(void)
{
	struct vfio_region use, res;

	setvbuf(stdout, NULL, _IOLBF, 0);
	gpu = gpu_find("gh200");
	bind_gpu();
	vfio_open(&v, gpu);
	vfio_region(&v, USEMEM, &use);
	vfio_region(&v, RESMEM, &res);
	draw(&use, &res);
	done("the VMM's view: BAR4 usemem", "%s of %s", human(use.area_size),
	     human(use.size));
	done("the VMM's view: BAR2 resmem", "%s of %s", human(res.area_size),
	     human(res.size));
	size_bars();
	printf("\n  4. Move data\n\n");
	move(USEMEM, "usemem", use.area_size, gpu->base);
	move(RESMEM, "resmem", res.area_size, gpu->base + use.area_size);
	tail(&use);
	reset();
	vfio_close(&v);
	check(!gpu_unbind(gpu), "can't unbind the GPU");
	done("unbind", "the GPU is as before");
	table();
	return 0;
}
