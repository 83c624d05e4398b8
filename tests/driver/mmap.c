// SPDX-License-Identifier: GPL-2.0-only
/* Mappings of the fake BARs: contents, bounds, protections, and faults. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib.h"

static long minor_faults(void)
{
	struct rusage ru;

	getrusage(RUSAGE_SELF, &ru);
	return ru.ru_minflt;
}

/* KiB of page tables of this process. */
static long page_tables(void)
{
	char line[128];
	long kib = -1;
	FILE *f = fopen("/proc/self/status", "r");

	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "VmPTE: %ld", &kib) == 1)
			break;
	fclose(f);
	assert_true(kib >= 0);
	return kib;
}

/* Whether this kernel supports huge entries for pfns, and the memory has room. */
static bool has_huge_pfnmap(void)
{
	return machine_has("CONFIG_ARCH_SUPPORTS_PMD_PFNMAP") && v.gpu->base % table == 0;
}

/*
 * Bytes that @count page-table pages map, or as many as fit into @length. With
 * 64K pages that is few, since one maps 512 MiB.
 */
static uint64_t whole_tables(uint64_t length, uint64_t count)
{
	return (length / table < count ? length / table : count) * table;
}

/* Whether the part has so many tables, and something after them. */
static bool exceeds(const struct gpu_part *p, uint64_t tables)
{
	return p->mappable > tables * table;
}

static char *map_at(char *addr, unsigned int index, uint64_t offset,
		    uint64_t length)
{
	char *map = mmap(addr, length, RW, MAP_SHARED | MAP_FIXED_NOREPLACE,
			 v.device, REGION(index) + offset);

	assert_ptr_equal(map, addr);
	return map;
}

/* Both ends, the middle, and both sides of a memory block's edge. */
static uint64_t places(const struct gpu_part *p, int i)
{
	const uint64_t at[] = { 0, 4096 - 8, p->mappable / 2, p->mappable - 64,
				512 * MiB - 16, 512 * MiB, 1 * GiB - 64 };

	return i < (int)(ARRAY_SIZE(at)) && at[i] + 64 <= p->mappable ? at[i] : UINT64_MAX;
}

static void mapped_writes_are_seen_by_pread_and_from_outside(void **state)
{
	const struct gpu_part *p = *state;
	char *map = vfio_map(&v, p->index, 0, p->mappable, RW, MAP_SHARED, NULL);
	char in[64], out[64];
	uint64_t at;
	int i;

	for (i = 0; (at = places(p, i)) != UINT64_MAX; i++) {
		fill(in, sizeof(in), 10 * p->index + i);
		memcpy(map + at, in, sizeof(in));
		assert_int_equal(vfio_read(&v, REGION(p->index) + at,
					   out, sizeof(out)), 64);
		assert_memory_equal(in, out, sizeof(in));
		other_peek(&v, p->index, at, out, sizeof(out));
		assert_memory_equal(in, out, sizeof(in));
	}
	munmap(map, p->mappable);
}

static void writes_by_pwrite_and_from_outside_are_seen_in_the_mapping(void **state)
{
	const struct gpu_part *p = *state;
	char *map = vfio_map(&v, p->index, 0, p->mappable, RW, MAP_SHARED, NULL);
	char in[64];
	uint64_t at;
	int i;

	for (i = 0; (at = places(p, i)) != UINT64_MAX; i++) {
		fill(in, sizeof(in), 100 + 10 * p->index + i);
		assert_int_equal(vfio_write(&v, REGION(p->index) + at,
					    in, sizeof(in)), 64);
		assert_memory_equal(in, map + at, sizeof(in));
		fill(in, sizeof(in), 200 + 10 * p->index + i);
		other_poke(&v, p->index, at, in, sizeof(in));
		assert_memory_equal(in, map + at, sizeof(in));
	}
	munmap(map, p->mappable);
}

static void a_private_mapping_is_EINVAL(void **state)
{
	const struct gpu_part *p = *state;
	int err;

	vfio_map(&v, p->index, 0, page, PROT_READ, MAP_PRIVATE, &err);
	assert_int_equal(err, -EINVAL);
	vfio_map(&v, p->index, 0, page, RW, MAP_PRIVATE, &err);
	assert_int_equal(err, -EINVAL);
}

static void a_mapping_is_never_executable(void **state)
{
	const struct gpu_part *p = *state;
	char *map;
	int err;

	vfio_map(&v, p->index, 0, page, PROT_READ | PROT_EXEC,
		 MAP_SHARED, &err);
	assert_int_equal(err, -EPERM);
	map = vfio_map(&v, p->index, 0, page, PROT_READ, MAP_SHARED, NULL);
	assert_int_equal(mprotect(map, page, PROT_READ | PROT_EXEC), -1);
	assert_int_equal(errno, EACCES);
	munmap(map, page);
}

/* Returns the signal that ends a child which calls @fn(@arg), or 0. */
static int fatal_signal(void (*fn)(void *), void *arg)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		signal(SIGSEGV, SIG_DFL);
		signal(SIGBUS, SIG_DFL);
		fn(arg);
		_exit(0);
	}
	assert_true(pid > 0);
	status = status_of_child(pid);
	return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void the_last_page_can_be_mapped_and_nothing_behind_it(void **state)
{
	const struct gpu_part *p = *state;
	char *map;
	int err;

	map = vfio_map(&v, p->index, p->mappable - page, page, RW,
		       MAP_SHARED, NULL);
	map[0] = 1;
	map[page - 1] = 2;
	munmap(map, page);

	vfio_map(&v, p->index, p->mappable, page, RW, MAP_SHARED, &err);
	assert_int_equal(err, -EINVAL);
	vfio_map(&v, p->index, p->mappable - page, 2 * page, RW,
		 MAP_SHARED, &err);
	assert_int_equal(err, -EINVAL);
	vfio_map(&v, p->index, 0, p->mappable + page, RW, MAP_SHARED, &err);
	assert_int_equal(err, -EINVAL);
	/* The BAR may be larger than the memory; and the region's end. */
	if (p->bar > p->mappable) {
		vfio_map(&v, p->index, p->bar - page, page, RW,
			 MAP_SHARED, &err);
		assert_int_equal(err, -EINVAL);
	}
	vfio_map(&v, p->index, (1ULL << 40) - page, page, RW, MAP_SHARED, &err);
	assert_int_equal(err, -EINVAL);
	/* Mappings that don't start at 0 have the same bounds. */
	vfio_map(&v, p->index, page, p->mappable, RW, MAP_SHARED, &err);
	assert_int_equal(err, -EINVAL);
}

/* The rest of that page may belong to something else. */
static void a_partial_last_page_can_not_be_mapped(void **state)
{
	uint64_t whole = 0x50001235 / page * page;
	char *map;
	int err;

	map = vfio_map(&v, RESMEM, whole - page, page, RW, MAP_SHARED, NULL);
	map[page - 1] = 1;
	munmap(map, page);
	vfio_map(&v, RESMEM, whole, page, RW, MAP_SHARED, &err);
	assert_int_equal(err, -EINVAL);
	vfio_map(&v, RESMEM, whole - page, 2 * page, RW, MAP_SHARED, &err);
	assert_int_equal(err, -EINVAL);
}

static void touch_all(char *map, uint64_t length, uint64_t step)
{
	uint64_t at;

	for (at = 0; at < length; at += step)
		touch_read(map + at);
}

/* The maximum of page tables that one fault fills, without huge entries. */
static long tables_a_fault(void)
{
	long pages = page / 8;

	return pages < 2048 ? 2048 / pages : 1;
}

/* With huge entries, one fault fills up to 512 tables' worth. */
static void an_aligned_mapping_costs_few_faults(void **state)
{
	const struct gpu_part *p = *state;
	bool huge = has_huge_pfnmap();
	uint64_t length = whole_tables(p->mappable, 64);
	char *map = map_at(free_range(length, 0), p->index, 0, length);
	long before = minor_faults(), tables = length / table;
	long least = huge ? 1 : tables / tables_a_fault();
	long most = huge ? 2 : least + 1;

	touch_all(map, length, page);
	print_message("# %ld faults for %ld tables\n",
		      minor_faults() - before, tables);
	/* Some of the margin is for the test's own stack and code. */
	assert_in_range(minor_faults() - before, least, most + 4);
	munmap(map, length);
}

/*
 * If a mapping begins in the middle of a table, the driver fills that table
 * with pages. The rest still gets huge entries, by a fault of its own.
 */
static void pages_leave_huge_entries_their_place(void **state)
{
	uint64_t length = whole_tables(gpu_parts[0].mappable, 4) - table / 2;
	uint64_t around = tables_a_fault() * table;
	uintptr_t at = (uintptr_t)free_range(length + around, 0);
	char *map;
	long before;

	only_if(exceeds(&gpu_parts[0], 1));
	/* At a place where one fault could also fill the next tables. */
	at = (at + around - 1) / around * around + table / 2;
	map = map_at((char *)at, gpu_parts[0].index, table / 2, length);
	touch_read(map);
	before = minor_faults();
	touch_read(map + table / 2);
	print_message("# %ld faults for the next table\n",
		      minor_faults() - before);
	if (has_huge_pfnmap())
		assert_true(minor_faults() > before);
	munmap(map, length);
}

/*
 * After one fault in the middle, everything that the fault has mapped must be
 * the mapping's own memory. The anonymous memory beside it, in the tables of
 * its first and last pages, must still be zeros.
 */
static void what_comes_with_a_fault_is_right(void **state)
{
	const struct gpu_part *p = *state;
	char in[16], seen[16], *map, *beside;
	uint64_t length, at;
	long before;

	/* From half a table to a page before a table's end. */
	length = whole_tables(p->mappable, 24) - table / 2 - page;
	beside = free_range(length + 2 * page, table / 2 - page);
	assert_ptr_equal(mmap(beside, length + 2 * page, RW,
			      MAP_PRIVATE | MAP_ANONYMOUS |
			      MAP_NORESERVE | MAP_FIXED_NOREPLACE,
			      -1, 0), beside);
	map = mmap(beside + page, length, RW, MAP_SHARED | MAP_FIXED,
		   v.device, REGION(p->index) + table / 2);
	assert_ptr_equal(map, beside + page);

	for (at = 0; at < length; at += table / 4) {
		fill(in, sizeof(in), at + p->index);
		assert_int_equal(vfio_write(&v, REGION(p->index) +
					    table / 2 + at, in,
					    sizeof(in)), sizeof(in));
	}
	/* The next page would show this if it were GPU memory. */
	assert_int_equal(vfio_write(&v, REGION(p->index) + table / 2 +
				    length, in, sizeof(in)), sizeof(in));
	/*
	 * The pages of the first table don't keep the next from a huge
	 * entry.
	 */
	before = page_tables();
	touch_read(map);
	touch_read(map + length / 2);
	print_message("# %ld KiB of page tables\n", page_tables() - before);
	if (has_huge_pfnmap())
		assert_in_range(page_tables() - before, 0, 3 * page / KiB);
	for (at = 0; at < length; at += table / 4) {
		fill(in, sizeof(in), at + p->index);
		assert_memory_equal(map + at, in, sizeof(in));
		fill(in, sizeof(in), at + p->index + 1);
		memcpy(map + at, in, sizeof(in));
		other_peek(&v, p->index, table / 2 + at, seen, sizeof(seen));
		assert_memory_equal(in, seen, sizeof(in));
	}
	for (at = 0; at < page; at++) {
		assert_int_equal(beside[at], 0);
		assert_int_equal(map[length + at], 0);
	}
	munmap(beside, length + 2 * page);
}

static void an_aligned_mapping_has_huge_entries_where_the_kernel_has_them(void **state)
{
	const struct gpu_part *p = *state;
	uint64_t length = whole_tables(p->mappable, 16);
	char *map = map_at(free_range(length, 0), p->index, 0, length);
	long tables = length / table, before, grown;
	bool huge = has_huge_pfnmap();

	before = page_tables();
	touch_all(map, length, table);
	grown = page_tables() - before;
	print_message("# %s: %ld KiB of page tables for %llu MiB\n",
		      huge ? "huge" : "pages", grown,
		      (unsigned long long)(length / MiB));
	/*
	 * Huge entries need only the tables above them, of which one is
	 * enough for few entries.
	 */
	if (huge)
		assert_in_range(grown, 0, (tables < 4 ? 1 : 3) * page / KiB);
	else
		assert_true(grown >= (long)(tables * page / KiB));
	munmap(map, length);
}

/*
 * If address and memory are not aligned to each other, there can be no huge
 * entries. Where the memory itself is misaligned by as much as the address,
 * there are.
 */
static void a_misaligned_mapping_shows_the_right_memory_in_few_faults(void **state)
{
	const struct gpu_part *p = *state;
	uint64_t length = whole_tables(p->mappable, 32), at, word;
	/* Both ends of the range are in the middle of a table. */
	long most = (length / table + 1) / tables_a_fault() + 5, before;
	int shift;

	for (shift = 1; shift <= 3; shift += 2) {
		char *map = map_at(free_range(length, shift * page),
				   p->index, 0, length);

		for (at = 0; at < length; at += table / 8 - 8) {
			word = at ^ 0x5aa5;
			at = at / 8 * 8;
			assert_int_equal(vfio_write(&v, REGION(p->index) + at,
						    &word, 8), 8);
		}
		before = minor_faults();
		for (at = 0; at < length; at += table / 8 - 8) {
			at = at / 8 * 8;
			vfio_read(&v, REGION(p->index) + at, &word, 8);
			assert_int_equal(*(uint64_t *)(map + at), word);
		}
		assert_in_range(minor_faults() - before, 1, most);
		munmap(map, length);
	}
}

static void a_memory_that_is_not_aligned_itself_is_mapped_right(void **state)
{
	uint64_t length = whole_tables(1536 * MiB, 4), at;
	char in[16], *map;

	map = mmap(free_range(length, 0), length, RW, MAP_SHARED, v.device,
		   REGION(USEMEM));
	assert_true(map != MAP_FAILED);
	for (at = 0; at < length; at += table / 4) {
		fill(in, sizeof(in), at);
		memcpy(map + at, in, sizeof(in));
		memset(in, 0, sizeof(in));
		host_peek(v.gpu->base + at, in, sizeof(in));
		assert_memory_equal(in, map + at, sizeof(in));
	}
	munmap(map, length);
}

static void a_hole_in_a_mapping_leaves_the_rest(void **state)
{
	const struct gpu_part *p = *state;
	uint64_t length = p->mappable < 4 * table ? p->mappable : 4 * table;
	char *map;

	only_if(exceeds(p, 2));
	map = map_at(free_range(length, 0), p->index, 0, length);
	/* Before and after the surrounding pages are mapped. */
	map[0] = 11;
	map[2 * table] = 13;
	assert_int_equal(munmap(map + table + page, page), 0);
	map[table] = 14;
	map[table + 2 * page] = 15;
	assert_int_equal(munmap(map + 2 * table + page, page), 0);
	assert_int_equal(fatal_signal(touch_read, map + table + page), SIGSEGV);
	assert_int_equal(fatal_signal(touch_read, map + 2 * table + page),
			 SIGSEGV);
	assert_int_equal(map[0], 11);
	assert_int_equal(map[2 * table], 13);
	assert_int_equal(map[table], 14);
	assert_int_equal(map[table + 2 * page], 15);
	munmap(map, length);
}

static void mremap_moves_and_shrinks_but_never_grows(void **state)
{
	const struct gpu_part *p = *state;
	uint64_t length = table + 64 * page;
	char *map, *to;

	only_if(exceeds(p, 1));
	map = map_at(free_range(length, 0), p->index, 0, length);
	strcpy(map + page, "before the move");
	strcpy(map + length - 64, "at the end");

	/* To an address at which huge entries are impossible. */
	to = mremap(map, length, length, MREMAP_MAYMOVE | MREMAP_FIXED,
		    free_range(length, page));
	assert_true(to != MAP_FAILED);
	assert_string_equal(to + page, "before the move");
	assert_string_equal(to + length - 64, "at the end");
	strcpy(to + table, "after the move");
	assert_string_equal(to + table, "after the move");

	assert_true(mremap(to, length, length + page,
			   MREMAP_MAYMOVE) == MAP_FAILED);
	assert_true(mremap(to, 0, length, MREMAP_MAYMOVE) == MAP_FAILED);
	assert_ptr_equal(mremap(to, length, table, 0), to);
	assert_string_equal(to + page, "before the move");
	munmap(to, table);
}

static void a_child_shares_the_memory(void **state)
{
	const struct gpu_part *p = *state;
	uint64_t length = table + 64 * page;
	pid_t pid;
	char *map;

	only_if(exceeds(p, 1));
	map = map_at(free_range(length, 0), p->index, 0, length);
	/* At the fork, one part is mapped in and one is not. */
	strcpy(map, "parent");
	pid = fork();
	if (!pid) {
		if (strcmp(map, "parent"))
			_exit(1);
		strcpy(map, "child");
		strcpy(map + table + page, "child too");
		_exit(0);
	}
	assert_int_equal(status_of_child(pid), 0);
	assert_string_equal(map, "child");
	assert_string_equal(map + table + page, "child too");
	munmap(map, length);
}

static void a_mapping_outlives_the_file_descriptor(void **state)
{
	char *map;

	map = vfio_map(&v, USEMEM, 0, 2 * page, RW, MAP_SHARED, NULL);
	strcpy(map, "still here");
	close(v.device);
	assert_string_equal(map, "still here");
	strcpy(map + page, "and a new page");
	assert_string_equal(map + page, "and a new page");
	munmap(map, 2 * page);
	close(v.group);
	close(v.iommu);
}

/*
 * A single 8-byte access at any address: the compiler must not split it. Elsewhere, this
 * program only lists its cases.
 */
static void store(volatile uint64_t *p, uint64_t val)
{
#ifdef __aarch64__
	asm volatile("str %1, [%0]" : : "r"(p), "r"(val) : "memory");
#endif
}

static uint64_t load(const volatile uint64_t *p)
{
	uint64_t val = 0;

#ifdef __aarch64__
	asm volatile("ldr %0, [%1]" : "=r"(val) : "r"(p) : "memory");
#endif
	return val;
}

/*
 * Both parts are Normal memory. To Device memory, such an access raises SIGBUS,
 * on hardware and under emulation.
 */
static void unaligned_accesses_work(void **state)
{
	const struct gpu_part *p = *state;
	uint64_t val;
	int i;
	char *map = vfio_map(&v, p->index, 0, 2 * page, RW, MAP_SHARED, NULL);

	for (i = 1; i < 8; i++) {
		volatile uint64_t *p = (void *)(map + page - 8 + i);

		store(p, 0x0102030405060700 + i);
		val = load(p);
		assert_int_equal(val, 0x0102030405060700 + i);
	}
	munmap(map, 2 * page);
}

static void bar0_is_still_the_devices(void **state)
{
	volatile uint32_t *bar0 = vfio_map(&v, VFIO_PCI_BAR0_REGION_INDEX, 0,
					   BAR0_SIZE, RW, MAP_SHARED, NULL);

	assert_int_equal(bar0[BAR0_C2C / 4], 0xff);
	assert_int_equal(bar0[BAR0_HBM / 4], 0xff);
	munmap((void *)bar0, BAR0_SIZE);
}

static const struct CMUnitTest tests[] = {
	EACH_PART(mapped_writes_are_seen_by_pread_and_from_outside, NULL),
	EACH_PART(writes_by_pwrite_and_from_outside_are_seen_in_the_mapping, NULL),
	EACH_PART(a_private_mapping_is_EINVAL, NULL),
	EACH_PART(a_mapping_is_never_executable, NULL),
	EACH_PART(the_last_page_can_be_mapped_and_nothing_behind_it, NULL),
	EACH_PART(an_aligned_mapping_costs_few_faults, NULL),
	cmocka_unit_test(pages_leave_huge_entries_their_place),
	EACH_PART(what_comes_with_a_fault_is_right, NULL),
	EACH_PART(an_aligned_mapping_has_huge_entries_where_the_kernel_has_them, NULL),
	EACH_PART(a_misaligned_mapping_shows_the_right_memory_in_few_faults, NULL),
	EACH_PART(a_hole_in_a_mapping_leaves_the_rest, NULL),
	EACH_PART(mremap_moves_and_shrinks_but_never_grows, NULL),
	EACH_PART(a_child_shares_the_memory, NULL),
	EACH_PART(unaligned_accesses_work, NULL),
};

static const struct CMUnitTest lab_tests[] = {
	OPEN("odd", a_partial_last_page_can_not_be_mapped),
	OPEN("odd", a_memory_that_is_not_aligned_itself_is_mapped_right),
	OPEN("second", a_mapping_outlives_the_file_descriptor),
	OPEN("gh200", bar0_is_still_the_devices),
};

const struct case_group groups[] = {
	{ "pages carve-out ?CONFIG_ARCH_SUPPORTS_PMD_PFNMAP",
	  CASES(tests), open_parts, .shared = true },
	{ "pages lab", CASES(lab_tests) },
	{ }
};
