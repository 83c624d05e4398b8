// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tests a guest's use of its GPUs. Runs in the guest, with the driver gpumem,
 * and asks the test's runner for the contents of the host's memory at the
 * addresses of the host's firmware table. /tests/gpus has a line for each GPU,
 * in the order of the guest's PCI addresses: name on the host, address and
 * length of usemem and of resmem there (0 0: none), sizes of BAR4 and of BAR2,
 * and "cached" or "device", which is how KVM maps usemem.
 *
 *	uses memory	patterns in both parts, and the BARs' ends
 *	uses normal	accesses that need Normal memory
 *	uses types	the types of both parts in the host's stage-2 tables
 *	uses pages [NODE]
 *			usemem as the guest's own memory, in this NUMA node
 *	uses dma	the GPU's own reads and writes
 *	uses touch	accesses by all processors, which go on after its end
 *	uses kept	the patterns of "memory", after a reset or a new start
 *
 * Prints TAP. Exit status: 0 if all passed, the number of failures, or 2 for
 * wrong usage.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <linux/mempolicy.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib.h"

#define GPUS_MAX	4
#define PIECE		1024	/* bytes of the host's memory in one request */
#define BLOCK		(512 * MiB)

struct guest_gpu {
	char name[32];
	uint64_t usemem, usemem_length;		/* in the host */
	uint64_t resmem, resmem_length;
	uint64_t bar4_size, bar2_size;
	char type[8];
	char folder[64];			/* in the guest's sysfs */
	uint64_t bar4;				/* guest physical address */
	int index;
};

static unsigned int node;
static struct guest_gpu gpus[GPUS_MAX];
static unsigned int count;

/* Returns a BAR's address, and sets its size and flags. */
static uint64_t bar(const struct guest_gpu *g, int index, uint64_t *size,
		    uint64_t *flags)
{
	unsigned long long start = 0, end = 0, bits = 0;
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/resource", g->folder);
	f = fopen(path, "r");
	if (!f)
		fail_msg("%s: %s", path, strerror(errno));
	for (int i = 0; i <= index; i++)
		if (fscanf(f, "%llx %llx %llx", &start, &end, &bits) != 3)
			fail_msg("%s has no line %d", path, i);
	fclose(f);
	*size = end ? end - start + 1 : 0;
	*flags = bits;
	return start;
}

/* Matches the lines of /tests/gpus with the GPUs on the guest's buses. */
static int find(void **state)
{
	FILE *f = fopen("/tests/gpus", "r");
	uint64_t unused;
	glob_t found;

	if (!f || glob("/sys/bus/pci/drivers/gpumem/0*", 0, NULL, &found))
		fail_msg("no list of GPUs, or gpumem has none");
	for (size_t i = 0; i < found.gl_pathc; i++) {
		struct guest_gpu *g = &gpus[count];

		if (count == GPUS_MAX ||
		    fscanf(f, "%31s %lx %lx %lx %lx %lx %lx %7s", g->name,
			   &g->usemem, &g->usemem_length, &g->resmem,
			   &g->resmem_length, &g->bar4_size, &g->bar2_size,
			   g->type) != 8)
			fail_msg("a GPU too many: %s", found.gl_pathv[i]);
		snprintf(g->folder, sizeof(g->folder), "%s", found.gl_pathv[i]);
		g->bar4 = bar(g, 4, &unused, &unused);
		g->index = count++;
	}
	assert_true(count > 0);
	if (!feof(f) && fscanf(f, "%*s") == 0)
		fail_msg("the guest has only %u GPUs", count);
	fclose(f);
	globfree(&found);
	return 0;
}

/* Maps usemem through gpumem, cacheable, and resmem through sysfs. */
static char *map_part(const struct guest_gpu *g, int index, uint64_t offset, uint64_t length)
{
	char path[128];
	void *memory;
	int fd;

	if (index == 4)
		snprintf(path, sizeof(path), "/dev/gpumem%d", g->index);
	else
		snprintf(path, sizeof(path), "%s/resource2_wc", g->folder);
	fd = open(path, O_RDWR);
	if (fd < 0)
		fail_msg("%s: %s", path, strerror(errno));
	memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset);
	if (memory == MAP_FAILED)
		fail_msg("mmap of %s at %#lx: %s", path, offset, strerror(errno));
	close(fd);
	return memory;
}

/*
 * Words, because Device memory accepts neither unaligned accesses nor
 * instructions for two registers.
 */
static void copy_words(void *to, const void *from, size_t bytes)
{
	for (size_t i = 0; i < bytes / 8; i++)
		((volatile uint64_t *)to)[i] = ((const volatile uint64_t *)from)[i];
}

/* A piece of a part, in the guest and in the host's memory. */
struct piece {
	const struct guest_gpu *gpu;
	int index;
	uint64_t offset;
	uint64_t host;
	char *here;
	char want[PIECE];	/* the pattern for this address */
};

static void same(const struct piece *p, const char *have, const char *want, const char *trouble)
{
	if (memcmp(have, want, PIECE))
		fail_msg("%s BAR%d+%#lx: %s at %#lx", p->gpu->name, p->index, p->offset, trouble,
			 p->host);
}

/* Writes on either side must appear on the other one. */
static void place(struct piece *p)
{
	char other[PIECE], have[PIECE];

	fill(other, PIECE, ~p->host);
	host_poke(p->host, other, PIECE);
	copy_words(have, p->here, PIECE);
	same(p, have, other, "the guest doesn't see what is written outside");
	copy_words(p->here, p->want, PIECE);
	copy_words(have, p->here, PIECE);
	same(p, have, p->want, "the guest doesn't read what it has written");
	host_peek(p->host, have, PIECE);
	same(p, have, p->want, "what the guest has written isn't");
}

static void is_kept(struct piece *p)
{
	char have[PIECE];

	copy_words(have, p->here, PIECE);
	same(p, have, p->want, "the pattern is no longer");
}

/* At both ends of each part, near its middle, and across the end of a block. */
static void each_place(const struct guest_gpu *g, void (*look)(struct piece *p))
{
	uint64_t page = sysconf(_SC_PAGESIZE);

	for (int index = 4; index >= 2; index -= 2) {
		uint64_t base = index == 4 ? g->usemem : g->resmem;
		uint64_t length = index == 4 ? g->usemem_length : g->resmem_length;
		uint64_t size = index == 4 ? g->bar4_size : g->bar2_size;
		uint64_t at[] = { 0, length / 2 - 16 * PIECE, BLOCK - PIECE / 2, length - PIECE };

		for (unsigned int i = 0; length && i < ARRAY_SIZE(at); i++) {
			struct piece p = { .gpu = g, .index = index, .offset = at[i] };
			uint64_t start = at[i] & -page;
			/* A piece may need two pages; the BAR may have one. */
			uint64_t mapped = start + 2 * page > size ? page : 2 * page;
			char *map = map_part(g, index, start, mapped);

			p.host = base + at[i];
			p.here = map + at[i] - start;
			fill(p.want, PIECE, p.host);
			look(&p);
			munmap(map, mapped);
		}
	}
}

static void both_bars_have_the_right_sizes(void **state)
{
	for (unsigned int i = 0; i < count; i++) {
		uint64_t size, flags;

		bar(&gpus[i], 4, &size, &flags);
		assert_int_equal(size, gpus[i].bar4_size);
		/* IORESOURCE_MEM, _PREFETCH, _MEM_64 */
		assert_int_equal(flags & 0x102200, 0x102200);
		bar(&gpus[i], 2, &size, &flags);
		assert_int_equal(size, gpus[i].bar2_size);
		assert_int_equal(flags & 0x100200, 0x100200);
	}
}

static void patterns_are_where_the_firmware_says(void **state)
{
	for (unsigned int i = 0; i < count; i++)
		each_place(&gpus[i], place);
}

/* Beyond the memory, reads return all ones and writes are lost. */
static void beyond(const struct guest_gpu *g, int index, uint64_t length, uint64_t size)
{
	uint64_t page = sysconf(_SC_PAGESIZE);
	uint64_t at[] = { (length + page - 1) & -page, size - page };

	for (unsigned int i = 0; i < ARRAY_SIZE(at); i++) {
		char *map;

		/* The memory may fill the BAR. */
		if (at[i] < length || at[i] + page > size)
			continue;
		map = map_part(g, index, at[i], page);
		assert_int_equal(*(volatile uint64_t *)map, UINT64_MAX);
		*(volatile uint32_t *)(map + 8) = 0x12345678;
		assert_int_equal(*(volatile uint32_t *)(map + 8), UINT32_MAX);
		assert_int_equal(*(volatile uint8_t *)(map + page - 1), 0xff);
		munmap(map, page);
	}
}

static void beyond_the_memory_are_ones(void **state)
{
	for (unsigned int i = 0; i < count; i++) {
		beyond(&gpus[i], 4, gpus[i].usemem_length, gpus[i].bar4_size);
		if (gpus[i].resmem)
			beyond(&gpus[i], 2, gpus[i].resmem_length, gpus[i].bar2_size);
	}
}

/* Only Normal memory accepts these accesses. */
static void unaligned_and_atomic_accesses(void **state)
{
	for (unsigned int i = 0; i < count; i++) {
		uint64_t length = 64 * KiB, *word, expected = 42;
		char *map = map_part(&gpus[i], 4, MiB, length);
		char *copy = malloc(length);

		for (unsigned int at = 0; at < 200; at++) {
			uint64_t value = 0x0123456789abcdef + at;

			memcpy(map + at, &value, 8);
			assert_int_equal(*(volatile uint64_t *)(map + at), value);
		}
		fill(copy, length, i);
		memcpy(map + 3, copy, length - 3);
		assert_memory_equal(map + 3, copy, length - 3);
		word = (uint64_t *)map;
		*word = 40;
		assert_int_equal(__atomic_add_fetch(word, 2, __ATOMIC_SEQ_CST), 42);
		assert_true(__atomic_compare_exchange_n(word, &expected, 43, 0, __ATOMIC_SEQ_CST,
							__ATOMIC_SEQ_CST));
		assert_int_equal(__atomic_exchange_n(word, 44, __ATOMIC_SEQ_CST), 43);
		assert_int_equal(__atomic_fetch_or(word, 1, __ATOMIC_SEQ_CST), 44);
		assert_int_equal(*word, 45);
		munmap(map, length);
		free(copy);
	}
}

static void the_kernel_uses_both_parts(void **state)
{
	for (unsigned int i = 0; i < count; i++) {
		char path[128], *text;

		snprintf(path, sizeof(path), "%s/check", gpus[i].folder);
		text = proc_text(path);
		assert_string_equal(text, "ok\n");
		free(text);
	}
}

static void patterns_are_kept(void **state)
{
	for (unsigned int i = 0; i < count; i++)
		each_place(&gpus[i], is_kept);
}

/* ---- the host's tables ---- */

/*
 * Checks the host's mapping of a byte of a BAR, which must have been accessed.
 * @least is the minimum size of its block, in bytes.
 */
static void assert_mapped(uint64_t guest, uint64_t host, const char *type, uint64_t least)
{
	unsigned long long size, address;
	char answer[256], found[64];

	host_ask(answer, sizeof(answer), "stage2 %#lx", guest);
	if (sscanf(answer, "%llx %llx %63[^\n]", &size, &address, found) != 3)
		fail_msg("%#lx: %s", guest, answer);
	print_message("# %#lx: %#llx, %llu KiB, %s\n", guest, address, size / KiB, found);
	assert_int_equal(address, host);
	assert_true(size >= least);
	if (strncmp(found, type, strlen(type)))
		fail_msg("%#lx is mapped %s", guest, found);
}

static void look_at(struct piece *p)
{
	*(volatile uint64_t *)p->here;
}

static void the_host_maps_both_parts_right(void **state)
{
	const struct guest_gpu *g = &gpus[0];
	uint64_t unused, last, bar2 = bar(g, 2, &unused, &unused);
	const char *type = strcmp(g->type, "cached") ? "device" : "write-back";
	pid_t busy;

	each_place(g, look_at);
	/* The host reads the registers of a processor in the guest. */
	busy = fork();
	if (!busy)
		for (;;)
			;
	assert_true(busy > 0);
	assert_mapped(g->bar4, g->usemem, type, 2 * MiB);
	last = g->usemem_length - 8;
	assert_mapped(g->bar4 + last, g->usemem + last, type, 2 * MiB);
	assert_mapped(bar2, g->resmem, "non-cacheable", 2 * MiB);
	/* resmem may end within a block, which has 512 MiB with 64K pages. */
	last = g->resmem_length - 8;
	assert_mapped(bar2 + last, g->resmem + last, "non-cacheable", 4 * KiB);
	kill(busy, SIGKILL);
	waitpid(busy, NULL, 0);
}

/* ---- usemem as the guest's own memory ---- */

static uint64_t memory_total(void)
{
	struct sysinfo info;

	assert_int_equal(sysinfo(&info), 0);
	return info.totalram * info.mem_unit;
}

static uint64_t physical(int pagemap, const void *at)
{
	uint64_t page = sysconf(_SC_PAGESIZE), entry = 0;

	if (pread(pagemap, &entry, 8, (uintptr_t)at / page * 8) != 8 || !(entry >> 63))
		fail_msg("%p has no page: %s", at, strerror(errno));
	return (entry & ((1ULL << 55) - 1)) * page;
}

static void set_blocks(const struct guest_gpu *g, unsigned int blocks)
{
	char path[128], text[16];

	snprintf(path, sizeof(path), "%s/blocks", g->folder);
	snprintf(text, sizeof(text), "%u", blocks);
	must_write_file(path, text);
}

static void usemem_is_memory_of_the_guest(void **state)
{
	struct guest_gpu *g = &gpus[0];
	unsigned int blocks = g->usemem_length / BLOCK;
	uint64_t before = memory_total(), page = sysconf(_SC_PAGESIZE);
	uint64_t wanted = 256 * MiB, inside = 0, looked = 0;
	unsigned long nodes = 1UL << node;
	char have[PIECE], *memory;
	int pagemap;

	must_write_file("/sys/devices/system/memory/auto_online_blocks", "online_movable");
	set_blocks(g, blocks);
	assert_true(memory_total() > before + blocks * BLOCK * 9 / 10);

	memory = mmap(NULL, wanted, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(memory != MAP_FAILED);
	/* The kernel allocates from a node's movable zone first. */
	if (node && syscall(SYS_mbind, memory, wanted, MPOL_BIND, &nodes, 64, 0))
		fail_msg("mbind: %s", strerror(errno));
	for (uint64_t at = 0; at < wanted; at += page)
		fill(memory + at, 64, at);
	pagemap = open("/proc/self/pagemap", O_RDONLY);
	assert_true(pagemap >= 0);
	for (uint64_t at = 0; at < wanted; at += page) {
		uint64_t gpa = physical(pagemap, memory + at);

		if (gpa < g->bar4 || gpa >= g->bar4 + g->usemem_length)
			continue;
		inside += page;
		/* Only a few dozen: each is a request to the host. */
		if (inside / page % 1024 == 1) {
			host_peek(g->usemem + gpa - g->bar4, have, 64);
			assert_memory_equal(have, memory + at, 64);
			looked++;
		}
	}
	close(pagemap);
	print_message("# %llu MiB of the process are in usemem, %lu pages seen from outside\n",
		      inside / MiB, looked);
	assert_true(inside > wanted / 4 * 3);
	assert_true(looked > 0);
	for (uint64_t at = 0; at < wanted; at += page) {
		char want[64];

		fill(want, 64, at);
		assert_memory_equal(memory + at, want, 64);
	}
	munmap(memory, wanted);
	set_blocks(g, 0);
	assert_int_equal(memory_total(), before);
	/* Again, as a driver does that is loaded a second time. */
	set_blocks(g, 1);
	set_blocks(g, 0);
	assert_int_equal(memory_total(), before);
}

/* ---- DMA ---- */

#define DMA_BYTES	64

/*
 * The GPU must read what is in @here from address @at, and be able to write it
 * after that.
 */
static void assert_dma(const struct guest_gpu *g, uint64_t at, char *here)
{
	char hex[2 * DMA_BYTES + 1], answer[512], want[DMA_BYTES], have[DMA_BYTES];

	fill(want, DMA_BYTES, at);
	copy_words(here, want, DMA_BYTES);
	for (int i = 0; i < DMA_BYTES; i++)
		sprintf(hex + 2 * i, "%02x", (unsigned char)want[i]);
	host_ask(answer, sizeof(answer), "dma_read %s %#lx %d", g->name, at, DMA_BYTES);
	assert_string_equal(answer, hex);
	host_ask(NULL, 0, "dma_write %s %#lx %s", g->name, at + DMA_BYTES, hex);
	copy_words(have, here + DMA_BYTES, DMA_BYTES);
	assert_memory_equal(have, want, DMA_BYTES);
}

static void the_gpu_reads_and_writes_the_guests_memory(void **state)
{
	int flags = MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE;
	int pagemap = open("/proc/self/pagemap", O_RDONLY);
	uint64_t page = sysconf(_SC_PAGESIZE);
	char *memory;

	memory = mmap(NULL, page, PROT_READ | PROT_WRITE, flags, -1, 0);
	assert_true(memory != MAP_FAILED);
	assert_int_equal(mlock(memory, page), 0);
	for (unsigned int i = 0; i < count; i++)
		assert_dma(&gpus[i], physical(pagemap, memory), memory);
	close(pagemap);
	munmap(memory, page);
}

static void the_gpu_reads_and_writes_its_own_memory(void **state)
{
	for (unsigned int i = 0; i < count; i++) {
		struct guest_gpu *g = &gpus[i];
		char *map = map_part(g, 4, MiB, 64 * KiB), there[2 * DMA_BYTES];

		assert_dma(g, g->bar4 + MiB, map);
		host_peek(g->usemem + MiB, there, sizeof(there));
		assert_memory_equal(there, there + DMA_BYTES, DMA_BYTES);
		munmap(map, 64 * KiB);
	}
}

static void an_address_that_is_nobodys_is_refused(void **state)
{
	/* Above the highest BAR. */
	uint64_t nobodys = 0xff00000000;
	const char *name = gpus[0].name;
	char answer[512];

	assert_false(host_try(answer, sizeof(answer), "dma_read %s %#lx 64", name, nobodys));
	assert_false(host_try(answer, sizeof(answer), "dma_write %s %#lx 00", name, nobodys));
}

/* ---- accesses that do not end ---- */

static void touch_for_ever(const struct guest_gpu *g, int cpu, volatile uint64_t *rounds)
{
	char *map = map_part(g, 4, 0, g->usemem_length);
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus))
		_exit(1);
	for (;; ++*rounds)
		for (uint64_t at = 0; at < g->usemem_length; at += 2 * MiB)
			*(volatile uint64_t *)(map + at);
}

static void all_processors_touch_the_memory_for_ever(void **state)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	volatile uint64_t *rounds;

	rounds = mmap(NULL, cpus * sizeof(*rounds), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(rounds != MAP_FAILED);
	assert_true(cpus > 1);
	for (long cpu = 0; cpu < cpus; cpu++) {
		pid_t pid = fork();

		if (!pid)
			touch_for_ever(&gpus[0], cpu, &rounds[cpu]);
		assert_true(pid > 0);
	}
	for (long cpu = 0; cpu < cpus; cpu++)
		while (!rounds[cpu])
			usleep(1000);
}

static const struct {
	const char *name;
	struct CMUnitTest cases[5];
} uses[] = {
	{ "memory", {
		cmocka_unit_test(both_bars_have_the_right_sizes),
		/* First: it overwrites places of the next ones' patterns. */
		cmocka_unit_test(the_kernel_uses_both_parts),
		cmocka_unit_test(patterns_are_where_the_firmware_says),
		cmocka_unit_test(beyond_the_memory_are_ones),
	} },
	{ "normal", { cmocka_unit_test(unaligned_and_atomic_accesses) } },
	{ "types", { cmocka_unit_test(the_host_maps_both_parts_right) } },
	{ "pages", { cmocka_unit_test(usemem_is_memory_of_the_guest) } },
	{ "dma", {
		cmocka_unit_test(the_gpu_reads_and_writes_the_guests_memory),
		cmocka_unit_test(the_gpu_reads_and_writes_its_own_memory),
		cmocka_unit_test(an_address_that_is_nobodys_is_refused),
	} },
	{ "touch", { cmocka_unit_test(all_processors_touch_the_memory_for_ever) } },
	{ "kept", {
		cmocka_unit_test(both_bars_have_the_right_sizes),
		cmocka_unit_test(patterns_are_kept),
	} },
};

int main(int argc, char **argv)
{
	size_t i, cases = 0;

	for (i = 0; i < ARRAY_SIZE(uses); i++)
		if (argc >= 2 && !strcmp(argv[1], uses[i].name))
			break;
	if (i == ARRAY_SIZE(uses)) {
		fprintf(stderr, "usage: uses memory|normal|types|pages [NODE]|dma|touch|kept\n");
		return 2;
	}
	node = argc >= 3 ? strtoul(argv[2], NULL, 0) : 0;
	/* The last place is empty. */
	while (uses[i].cases[cases].name)
		cases++;
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return _cmocka_run_group_tests(uses[i].name, uses[i].cases, cases, find, NULL);
}
