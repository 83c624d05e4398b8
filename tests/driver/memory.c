// SPDX-License-Identifier: GPL-2.0-only
/*
 * The memory as a whole: some places, all of it, and what resets, D3hot and a
 * scrub make of it. These are the steps of "nvgrace-gpu test" (cli/test/test.c).
 *
 * Each word is computed from its number, counted through both parts, and a seed, by
 * steps that can be reversed. So no two words are equal, and a wrong word that
 * belongs to another place shows that two addresses access the same memory.
 */
#define _GNU_SOURCE
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <linux/pci_regs.h>

#include "lib.h"

/* Odd, so that multiplication modulo 2^64 can be reversed: by INVERSE. */
#define FACTOR		0x9e3779b97f4a7c15ULL
#define INVERSE		0xf1de83e19937733dULL

/*
 * A line of the CPU's caches. The CPU may read the rest of a line of which less is
 * written, and memory that was never written may report an error then.
 */
#define LINE		64

#define THREADS_MAX	256

/* Power states in PCI_PM_CTRL. */
#define D0		0
#define D3HOT		3

static uint64_t seed;

static struct part {
	const char *name;
	unsigned int index;
	uint64_t first;		/* the number of its first word */
	uint64_t size;		/* bytes that are mapped */
	char *map;
} parts[2];
static size_t part_count;

static uint64_t word_of(uint64_t number)
{
	uint64_t word = (number + seed) * FACTOR;

	return word ^ word >> 32;
}

static uint64_t number_of(uint64_t word)
{
	return (word ^ word >> 32) * INVERSE - seed;
}

static void find_part(unsigned int index, const char *name)
{
	struct part *p = &parts[part_count];
	struct vfio_region r;

	vfio_region(&v, index, &r);
	if (!r.areas || !r.area_size)
		return;
	*p = (struct part){ .name = name, .index = index, .size = r.area_size };
	/* At an address that allows huge pages. */
	p->map = mmap(free_range(p->size, 0), p->size, RW, MAP_SHARED | MAP_FIXED, v.device,
		      REGION(index));
	assert_true(p->map != MAP_FAILED);
	p->first = part_count ? parts[0].size / 8 : 0;
	part_count++;
}

static void open_memory(void)
{
	vfio_open(&v, gpu_find("gh200"));
	part_count = 0;
	find_part(USEMEM, "usemem");
	find_part(RESMEM, "resmem");
	only_if(part_count);
}

static void close_memory(void)
{
	while (part_count) {
		part_count--;
		munmap(parts[part_count].map, parts[part_count].size);
	}
	vfio_close(&v);
}

static int setup(void **state)
{
	seed = time(NULL) * FACTOR;
	assert_int_equal(gpu_bind(gpu_find("gh200")), 0);
	open_memory();
	return 0;
}

/* ---- comparing ---------------------------------------------------------- */

/* Wrong words, and the first of them. */
struct wrong {
	uint64_t count;
	const struct part *part;
	uint64_t at, expected, found;
};

static void note(struct wrong *w, const struct part *p, uint64_t at, uint64_t expected,
		 uint64_t found)
{
	if (!w->count++)
		*w = (struct wrong){ 1, p, at, expected, found };
}

static void add(struct wrong *sum, const struct wrong *w)
{
	uint64_t count = sum->count + w->count;

	if (!sum->count)
		*sum = *w;
	sum->count = count;
}

/*
 * Prints no number that looks like an address, which "nvgrace-gpu test" would leave
 * out. flip: see sweep().
 */
static void assert_right(const struct wrong *w, uint64_t flip)
{
	uint64_t number = number_of(w->found ^ flip), bits = w->found ^ w->expected;
	const struct part *p;

	if (!w->count)
		return;
	print_message("# wrong words: %llu, first at byte %llu of %s: %d of 64 bits differ, ",
		      (unsigned long long)w->count, (unsigned long long)w->at, w->part->name,
		      __builtin_popcountll(bits));
	print_message("the lowest is bit %d\n", __builtin_ctzll(bits));
	for (p = parts; p < parts + part_count; p++)
		if (number - p->first < p->size / 8)
			print_message("# it is the word of byte %llu of %s: %s\n",
				      (unsigned long long)(number - p->first) * 8, p->name,
				      "two addresses access the same memory");
	fail();
}

/* ---- some places -------------------------------------------------------- */

/* The line must come from the GPU's memory when it is read again. */
static void leave_caches(const void *at)
{
#ifdef __aarch64__
	__asm__ volatile("dc civac, %0\n\tdsb sy" : : "r" (at) : "memory");
#endif
}

static void access_line(const struct part *p, uint64_t at, bool write, struct wrong *w)
{
	volatile uint64_t *line = (uint64_t *)(p->map + at);
	uint64_t number = p->first + at / 8, found;
	size_t i;

	for (i = 0; i < LINE / 8; i++) {
		if (write) {
			line[i] = word_of(number + i);
			continue;
		}
		found = line[i];
		if (found != word_of(number + i))
			note(w, p, at + i * 8, word_of(number + i), found);
	}
	if (write)
		leave_caches((char *)line);
}

/* At each multiple of the stride, and at the end. Returns how many words. */
static uint64_t access_lines(uint64_t stride, bool write, struct wrong *w)
{
	uint64_t at, last, words = 0;
	size_t i;

	for (i = 0; i < part_count; i++) {
		last = parts[i].size - LINE;
		for (at = 0; at < last; at += stride, words += LINE / 8)
			access_line(&parts[i], at, write, w);
		access_line(&parts[i], last, write, w);
		words += LINE / 8;
	}
	return words;
}

static void check_lines(uint64_t stride)
{
	struct wrong w = { };

	access_lines(stride, true, NULL);
	access_lines(stride, false, &w);
	assert_right(&w, 0);
}

static void both_ends_keep_what_is_written(void **state)
{
	check_lines(UINT64_MAX / 2);
}

static void every_64_MiB_keep_what_is_written(void **state)
{
	check_lines(64 * MiB);
}

static void every_2_MiB_keep_what_is_written(void **state)
{
	check_lines(2 * MiB);
}

/* ---- all of it ---------------------------------------------------------- */

/* What a thread does: its slice of both parts. */
struct sweep {
	bool write, zeros;
	uint64_t flip;
	size_t index, count;
	struct wrong wrong;
};

static void sweep_slices(void *arg)
{
	struct sweep *s = arg;
	uint64_t i, end, expected, found;
	const struct part *p;

	for (p = parts; p < parts + part_count; p++) {
		volatile uint64_t *words = (uint64_t *)p->map;

		end = p->size / 8 * (s->index + 1) / s->count;
		for (i = p->size / 8 * s->index / s->count; i < end; i++) {
			expected = s->zeros ? 0 : word_of(p->first + i) ^ s->flip;
			if (s->write) {
				words[i] = expected;
				continue;
			}
			found = words[i];
			if (found != expected)
				note(&s->wrong, p, i * 8, expected, found);
		}
	}
}

static long run_slices(void *arg)
{
	return raises_sigbus(sweep_slices, arg);
}

/* All threads write or compare all words, with these bits of them changed. */
static void sweep(bool write, bool zeros, uint64_t flip)
{
	struct sweep sweeps[THREADS_MAX] = { };
	struct beside *threads[THREADS_MAX];
	size_t i, count = sysconf(_SC_NPROCESSORS_ONLN);
	struct wrong all = { };
	long faults = 0;

	count = count < THREADS_MAX ? count : THREADS_MAX;
	for (i = 0; i < count; i++) {
		sweeps[i] = (struct sweep){ write, zeros, flip, i, count, { } };
		threads[i] = beside(run_slices, &sweeps[i]);
	}
	for (i = 0; i < count; i++) {
		faults += ended(threads[i]);
		add(&all, &sweeps[i].wrong);
	}
	for (i = 0; i < part_count && faults; i++)
		if ((uint64_t)((char *)sigbus_addr - parts[i].map) < parts[i].size)
			print_message("# SIGBUS at byte %llu of %s\n",
				      (unsigned long long)((char *)sigbus_addr - parts[i].map),
				      parts[i].name);
	assert_int_equal(faults, 0);
	assert_right(&all, flip);
}

static void all_of_the_memory_keeps_a_pattern_and_its_inverse(void **state)
{
	int i;

	for (i = 0; i < 2; i++) {
		sweep(true, false, -(uint64_t)i);
		sweep(false, false, -(uint64_t)i);
	}
}

/* ---- resets and power --------------------------------------------------- */

#define SAMPLE	(2 * MiB)

/* Accesses the memory, which the driver makes ready. What is left isn't judged. */
static void say_what_is_left(const char *after, uint64_t since)
{
	struct wrong w = { };
	uint64_t ready, words;

	(void)*(volatile char *)parts[0].map;
	ready = now_ms() - since;
	words = access_lines(SAMPLE, false, &w);
	print_message("# %s: accessible after %llu ms; %llu of %llu words changed\n", after,
		      (unsigned long long)ready, (unsigned long long)w.count,
		      (unsigned long long)words);
	access_lines(SAMPLE, true, NULL);
}

static char methods[256];

static void reset_by(const char *method)
{
	uint64_t begin = now_ms();

	assert_int_equal(vfio_reset(&v), 0);
	say_what_is_left(method, begin);
}

/* As root, which can choose a method. */
static void memory_can_be_accessed_after_a_reset_by_each_method(void **state)
{
	char words[sizeof(methods)], *method, *rest = words;

	only_if(v.can_reset);
	access_lines(SAMPLE, true, NULL);
	if (access(gpu_file(v.gpu, "reset_method"), W_OK)) {
		reset_by("the kernel's choice");
		return;
	}
	gpu_sysfs_read(v.gpu, "reset_method", methods, sizeof(methods));
	strcpy(words, methods);
	while ((method = strsep(&rest, " "))) {
		assert_int_equal(gpu_sysfs_write(v.gpu, "reset_method", method), 0);
		reset_by(method);
	}
}

static int restore_methods(void **state)
{
	return *methods && gpu_sysfs_write(v.gpu, "reset_method", methods) ? -1 : 0;
}

static void set_power_state(unsigned int pm, uint16_t state)
{
	uint16_t word;

	assert_int_equal(vfio_read(&v, CONFIG + pm + PCI_PM_CTRL, &word, 2), 2);
	word = (word & ~PCI_PM_CTRL_STATE_MASK) | state;
	assert_int_equal(vfio_write(&v, CONFIG + pm + PCI_PM_CTRL, &word, 2), 2);
	assert_int_equal(vfio_read(&v, CONFIG + pm + PCI_PM_CTRL, &word, 2), 2);
	assert_int_equal(word & PCI_PM_CTRL_STATE_MASK, state);
}

static void memory_can_be_accessed_after_D3hot(void **state)
{
	unsigned int pm = vfio_capability(&v, PCI_CAP_ID_PM);
	uint64_t begin;

	only_if(pm);
	access_lines(SAMPLE, true, NULL);
	set_power_state(pm, D3HOT);
	begin = now_ms();
	set_power_state(pm, D0);
	say_what_is_left("D3hot", begin);
}

/* ---- the file, and zeros ------------------------------------------------ */

static void check_file(const struct part *p, uint64_t at, size_t count)
{
	static char bytes[64 * KiB], back[64 * KiB];

	fill(bytes, count, seed + at);
	memcpy(p->map + at, bytes, count);
	assert_int_equal(vfio_read_all(&v, REGION(p->index) + at, back, count), 0);
	assert_memory_equal(back, bytes, count);
	fill(bytes, count, ~(seed + at));
	assert_int_equal(vfio_write_all(&v, REGION(p->index) + at, bytes, count), 0);
	assert_memory_equal(p->map + at, bytes, count);
}

/* Also where the memory ends within a page, which can't be mapped. */
static void the_file_accesses_what_the_mapping_does(void **state)
{
	char bytes[64 * KiB], back[64 * KiB];
	uint64_t rest;
	size_t i;

	for (i = 0; i < part_count; i++) {
		const struct part *p = &parts[i];

		check_file(p, 0, 64 * KiB);
		check_file(p, p->size / 2, 64 * KiB);
		check_file(p, p->size - 64 * KiB, 64 * KiB);
		check_file(p, 3, 1021);
		check_file(p, p->size - 1021, 1021);
		rest = vfio_length(&v, p->index) - p->size;
		fill(bytes, rest, seed);
		assert_int_equal(vfio_write_all(&v, REGION(p->index) + p->size, bytes, rest), 0);
		assert_int_equal(vfio_read_all(&v, REGION(p->index) + p->size, back, rest), 0);
		assert_memory_equal(back, bytes, rest);
	}
}

/* An open resets the GPU, which can lose what a cache of its own still has. */
static void after_a_scrub_all_of_the_memory_is_zero(void **state)
{
	char bytes[64 * KiB];
	uint64_t rest;
	size_t i;

	only_if(!access(gpu_file(v.gpu, "nvgrace_gpu/scrub"), W_OK));
	access_lines(SAMPLE, true, NULL);
	close_memory();
	assert_int_equal(gpu_sysfs_write(v.gpu, "nvgrace_gpu/scrub", "1"), 0);
	assert_string_equal(scrub_end(v.gpu), "clean");
	open_memory();
	sweep(false, true, 0);
	for (i = 0; i < part_count; i++) {
		rest = vfio_length(&v, parts[i].index) - parts[i].size;
		assert_int_equal(vfio_read_all(&v, REGION(parts[i].index) + parts[i].size, bytes,
					       rest), 0);
		while (rest)
			assert_int_equal(bytes[--rest], 0);
	}
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(both_ends_keep_what_is_written),
	cmocka_unit_test(every_64_MiB_keep_what_is_written),
	cmocka_unit_test(every_2_MiB_keep_what_is_written),
	cmocka_unit_test_teardown(memory_can_be_accessed_after_a_reset_by_each_method,
				  restore_methods),
	cmocka_unit_test(memory_can_be_accessed_after_D3hot),
	cmocka_unit_test(the_file_accesses_what_the_mapping_does),
};

static const struct CMUnitTest slow_tests[] = {
	cmocka_unit_test(all_of_the_memory_keeps_a_pattern_and_its_inverse),
};

static const struct CMUnitTest scrub_tests[] = {
	cmocka_unit_test(after_a_scrub_all_of_the_memory_is_zero),
};

const struct case_group groups[] = {
	{ "pages", CASES(tests), setup, .shared = true },
	{ "pages slow", CASES(slow_tests), setup, .shared = true },
	{ "pages slow this-driver", CASES(scrub_tests), setup, .shared = true },
	{ }
};
