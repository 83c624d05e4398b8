// SPDX-License-Identifier: GPL-2.0-only
/* pread and pwrite on the fake BARs. */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib.h"

static const struct gpu_part *const usemem = &gpu_parts[0];

/*
 * Tries every offset within 16 bytes of @edge with every width up to 40, and
 * compares with an image of the memory around it. Beyond the part's end, the
 * image is 0xff. It ends with the BAR.
 */
static void check_around(const struct gpu_part *p, uint64_t edge)
{
	enum { SPAN = 64 };
	unsigned char image[2 * SPAN], got[SPAN], before[2 * SPAN];
	uint64_t first = edge - SPAN, pos;
	uint64_t real = p->length - first < 2 * SPAN ? p->length - first : 2 * SPAN;
	int off, width;
	ssize_t want;

	/* Fills what is memory; around the BAR's end there is none. */
	if (first >= p->length)
		real = 0;
	fill(image, sizeof(image), edge + p->index);
	memset(image + real, 0xff, sizeof(image) - real);
	if (real)
		assert_int_equal(vfio_write(&v, p->at + first, image, real), real);

	for (off = -16; off < 16; off++) {
		pos = edge + off;
		for (width = 1; width <= 40; width++) {
			want = pos >= p->bar ? -EINVAL :
			       pos + width > p->bar ? (ssize_t)(p->bar - pos) : width;
			/* The byte after the access must not change. */
			memset(got, 0x77, sizeof(got));
			assert_int_equal(vfio_read(&v, p->at + pos, got, width), want);
			if (want < 0)
				want = 0;
			assert_memory_equal(got, image + SPAN + off, want);
			assert_int_equal(got[want], 0x77);

			/*
			 * Writes the same bytes inverted; only memory takes
			 * them.
			 */
			memcpy(before, image, sizeof(image));
			for (ssize_t i = 0; i < want; i++) {
				got[i] = ~image[SPAN + off + i];
				if (SPAN + off + i < (ssize_t)real)
					image[SPAN + off + i] = got[i];
			}
			assert_int_equal(vfio_write(&v, p->at + pos, got, width),
					 want ?: -EINVAL);
			memset(before, 0, sizeof(before));
			ssize_t all = first + sizeof(before) > p->bar ?
				      (ssize_t)(p->bar - first) :
				      (ssize_t)sizeof(before);
			assert_int_equal(vfio_read(&v, p->at + first, before,
						   sizeof(before)), all);
			assert_memory_equal(before, image, all);
		}
	}
}

static void every_access_around_the_end_of_the_memory_is_right(void **state)
{
	const struct gpu_part *p = *state;

	check_around(p, p->length);
}

static void every_access_around_the_end_of_the_bar_is_right(void **state)
{
	const struct gpu_part *p = *state;

	check_around(p, p->bar);
}

/*
 * The end of the first WINDOW of src/window.c: 1 GiB, or 64 MiB with KASAN. A
 * smaller part has its middle here.
 */
static uint64_t window_end(const struct gpu_part *p)
{
	return p->length > GiB + 8 * MiB ? GiB : p->length / (4 * MiB) * (2 * MiB);
}

static void every_access_around_the_end_of_a_window_is_right(void **state)
{
	check_around(*state, window_end(*state));
}

static void bytes_of_a_partial_last_page_are_reached(void **state)
{
	uint64_t end = 0x50001235, at = end - 100;
	unsigned char in[200], out[200], before, behind;
	uint64_t phys;

	fill(in, sizeof(in), 5);
	/* The byte after the memory belongs to something else. */
	phys = v.gpu->base + 0x60000000 + end;
	host_peek(phys, &before, 1);
	behind = ~in[100];
	host_poke(phys, &behind, 1);
	assert_int_equal(vfio_write(&v, REGION(RESMEM) + at, in, 200), 200);
	assert_int_equal(vfio_read(&v, REGION(RESMEM) + at, out, 200), 200);
	assert_memory_equal(in, out, 100);
	memset(in, 0xff, sizeof(in));
	assert_memory_equal(in, out + 100, 100);
	host_peek(phys, out, 1);
	assert_int_equal(out[0], behind);
	host_poke(phys, &before, 1);
}

static void beyond_the_bar_is_EINVAL(void **state)
{
	const struct gpu_part *p = *state;
	const uint64_t beyond[] = { p->bar, p->bar + 1, 1ULL << 39, (1ULL << 40) - 1 };
	char byte = 0;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(beyond); i++) {
		assert_int_equal(vfio_read(&v, p->at + beyond[i], &byte, 1), -EINVAL);
		assert_int_equal(vfio_write(&v, p->at + beyond[i], &byte, 1), -EINVAL);
	}
}

static void nothing_is_nothing(void **state)
{
	char byte = 7;

	assert_int_equal(vfio_read(&v, REGION(USEMEM), &byte, 0), 0);
	assert_int_equal(vfio_write(&v, REGION(USEMEM), &byte, 0), 0);
	if (usemem->length < usemem->bar)
		assert_int_equal(vfio_read(&v, REGION(USEMEM) + usemem->length, &byte, 0), 0);
	assert_int_equal(byte, 7);
}

static void a_large_tail_reads_as_ones(void **state)
{
	size_t size = 5 * MiB + 13, i;
	unsigned char *buf;

	only_if(usemem->bar >= usemem->length + 3 + size);
	buf = malloc(size);
	assert_int_equal(vfio_read(&v, REGION(USEMEM) + usemem->length + 3, buf, size), size);
	for (i = 0; i < size; i++)
		assert_int_equal(buf[i], 0xff);
	assert_int_equal(vfio_write(&v, REGION(USEMEM) + usemem->length, buf, size), size);
	free(buf);
}

/* Odd sizes, positions and buffers, across chunks and windows. */
static void bulk_data_arrives_whole(void **state)
{
	const struct gpu_part *p = *state;
	size_t size = 3 * MiB + 4099, slack = 16;
	char *in = malloc(size + slack), *out = malloc(size + slack);
	uint64_t start = window_end(p) - 2 * MiB;
	char *map = vfio_map(&v, p->index, start, 8 * MiB, RW, MAP_SHARED, NULL);
	int i;

	for (i = 0; i < 3; i++) {
		uint64_t pos = start + MiB + 5 * i;

		fill(in + i, size, 17 * p->index + i);
		assert_int_equal(vfio_write(&v, p->at + pos, in + i, size), size);
		assert_memory_equal(map + pos - start, in + i, size);
		memset(out, 0, size + slack);
		assert_int_equal(vfio_read(&v, p->at + pos, out + 3 * i, size), size);
		assert_memory_equal(out + 3 * i, in + i, size);
	}
	munmap(map, 8 * MiB);
	free(in);
	free(out);
}

static void a_fault_in_the_middle_ends_the_access_there(void **state)
{
	const struct gpu_part *p = *state;
	const size_t room[] = { 1, 7, 8, 15, 50, 63, 64, 65, 100, 127, page };
	const size_t more[] = { 1, 33, 100, 70000 };
	char *hole = page_before_hole() + page;
	char *memory = malloc(page + 300);
	uint64_t pos = p->at + window_end(p) - 50;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(room) * ARRAY_SIZE(more); i++) {
		size_t there = room[i / ARRAY_SIZE(more)];
		size_t count = there + more[i % ARRAY_SIZE(more)];
		char *buf = hole - there;

		/* A read returns what the buffer has room for. */
		memset(memory, 0x11, page + 300);
		vfio_write(&v, pos, memory, page + 300);
		memset(buf, 0x33, there);
		assert_int_equal(vfio_read(&v, pos, buf, count), there);
		assert_memory_equal(buf, memory, there);

		/* A write changes as many bytes as it returns, and no more. */
		memset(buf, 0x22, there);
		assert_int_equal(vfio_write(&v, pos, buf, count), there);
		memset(memory, 0x22, there);
		buf = malloc(page + 300);
		assert_int_equal(vfio_read(&v, pos, buf, there + 200), there + 200);
		assert_memory_equal(buf, memory, there + 200);
		free(buf);
	}
	free(memory);
	/* A buffer that is not accessible at all. */
	for (i = 0; i < ARRAY_SIZE(more); i++) {
		assert_int_equal(vfio_read(&v, pos, hole, more[i]), -EFAULT);
		assert_int_equal(vfio_write(&v, pos, hole, more[i]), -EFAULT);
	}
	/* In the tail, too. */
	if (p->bar < p->length + page + 70000)
		return;
	pos = p->at + p->length;
	assert_int_equal(vfio_read(&v, pos, hole, 64), -EFAULT);
	for (i = 0; i < ARRAY_SIZE(room); i++)
		assert_int_equal(vfio_read(&v, pos, hole - room[i], room[i] + 70000),
				 room[i]);
}

/* Fresh memory has no pages yet, and a file's are in the page cache. */
static void pages_that_are_not_there_yet_are_brought_in(void **state)
{
	const struct gpu_part *p = *state;
	const size_t size = 3 * MiB + 4099;
	uint64_t pos = p->at + window_end(p) - MiB + 1;
	char *in = malloc(size), *fresh;
	int shared, file = memfd_create("pages", MFD_CLOEXEC);

	assert_true(file >= 0);
	assert_int_equal(ftruncate(file, size), 0);
	for (shared = 0; shared < 2; shared++) {
		fill(in, size, 2 * shared + p->index);
		assert_int_equal(vfio_write(&v, pos, in, size), size);

		fresh = mmap(NULL, size, RW, shared ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS,
			     shared ? file : -1, 0);
		assert_true(fresh != MAP_FAILED);
		assert_int_equal(vfio_read(&v, pos, fresh, size), size);
		assert_memory_equal(fresh, in, size);
		munmap(fresh, size);

		/* Unwritten memory reads as zeros. */
		fresh = mmap(NULL, size, PROT_READ,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		assert_true(fresh != MAP_FAILED);
		assert_int_equal(vfio_read(&v, pos, fresh, size), -EFAULT);
		assert_int_equal(vfio_write(&v, pos, fresh, size), size);
		assert_int_equal(vfio_read(&v, pos, in, size), size);
		assert_memory_equal(in, fresh, size);
		munmap(fresh, size);
	}
	close(file);
	free(in);
}

#define TAKEN	(256 * KiB)

static long take_away(void *buf)
{
	while (still_wanted())
		madvise(buf, TAKEN, MADV_DONTNEED);
	return 0;
}

/* Accesses end even if the pages of their buffer vanish continuously. */
static void pages_that_are_taken_away_do_not_hold_an_access_up(void **state)
{
	char *buf = mmap(NULL, TAKEN, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t pos = ((const struct gpu_part *)*state)->at + 13;
	struct beside *taker;
	int i;

	assert_true(buf != MAP_FAILED);
	taker = beside(take_away, buf);
	for (i = 0; i < 25; i++) {
		assert_int_equal(vfio_read(&v, pos, buf, TAKEN), TAKEN);
		assert_int_equal(vfio_write(&v, pos, buf, TAKEN), TAKEN);
	}
	ended(taker);
	munmap(buf, TAKEN);
}

/* The position advances by the bytes transferred, as preadv() shows. */
static void vectors_are_read_and_written_in_a_row(void **state)
{
	char a[100], b[100], c[100], in[300], out[300];
	struct iovec iov[3] = { { a, 100 }, { b, 100 }, { c, 100 } };
	uint64_t pos = REGION(USEMEM) + usemem->length - 150;

	only_if(usemem->bar >= usemem->length + 150);
	fill(in, sizeof(in), 3);
	memcpy(a, in, 100);
	memcpy(b, in + 100, 100);
	memcpy(c, in + 200, 100);
	assert_int_equal(pwritev(v.device, iov, 3, pos), 300);
	assert_int_equal(vfio_read(&v, pos, out, 150), 150);
	assert_memory_equal(in, out, 150);
	memset(a, 0, 100);
	memset(b, 0, 100);
	memset(c, 0, 100);
	assert_int_equal(preadv(v.device, iov, 3, pos), 300);
	assert_memory_equal(a, in, 100);
	assert_memory_equal(b, in + 100, 50);
	memset(out, 0xff, sizeof(out));
	assert_memory_equal(b + 50, out, 50);
	assert_memory_equal(c, out, 100);
}

static long tear_writer(void *pos)
{
	uint64_t words[2] = { 0, ~0ULL };

	for (unsigned int i = 0; still_wanted(); i++)
		if (pwrite(v.device, &words[i % 2], 8, *(uint64_t *)pos) != 8)
			return -1;
	return 0;
}

static void an_aligned_word_is_never_torn(void **state)
{
	uint64_t pos = ((const struct gpu_part *)*state)->at + 4096, word = 0;
	struct beside *writer;
	int i;

	vfio_write(&v, pos, &word, 8);
	writer = beside(tear_writer, &pos);
	for (i = 0; i < 20000; i++) {
		assert_int_equal(vfio_read(&v, pos, &word, 8), 8);
		assert_true(word == 0 || word == ~0ULL);
	}
	assert_int_equal(ended(writer), 0);
}

/* A transfer of a GiB between @pos and a buffer, the GiB at @buf of USEMEM. */
struct transfer {
	uint64_t pos;
	uint64_t buf;
	bool write;
};

/* Makes it in a child. */
static pid_t fork_mover(const struct transfer *t)
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (!pid) {
		char *map = vfio_map(&v, USEMEM, t->buf, GiB, RW, MAP_SHARED, NULL);
		ssize_t ret = t->write ? pwrite(v.device, map, GiB, t->pos) :
					 pread(v.device, map, GiB, t->pos);

		if (ret != GiB)
			_exit(1);
		for (;;)
			pause();
	}
	return pid;
}

/*
 * How far a transfer to @dst has come, by the first word @mark that is left: a
 * multiple of 1 MiB. Transfers go from the beginning to the end.
 */
static uint64_t moved(const volatile uint64_t *dst, uint64_t mark)
{
	unsigned int done = 0, left = GiB / MiB, half;

	while (left) {
		half = left / 2;
		if (dst[(done + half) * (MiB / 8)] == mark) {
			left = half;
		} else {
			done += half + 1;
			left -= half + 1;
		}
	}
	return done * MiB;
}

/* Returns false if the transfer was over when it was killed. */
static bool kill_mover(const struct transfer *t)
{
	/* Words that nothing else writes, different ones for each transfer. */
	static uint64_t mark = 0x9e3779b97f4a7c15ULL;
	uint64_t dst = t->write ? t->pos - REGION(USEMEM) : t->buf, killed, ended, i;
	volatile uint64_t *map;
	pid_t pid;

	mark++;
	map = vfio_map(&v, USEMEM, dst, GiB, RW, MAP_SHARED, NULL);
	for (i = 0; i < GiB; i += MiB)
		map[i / 8] = mark;
	pid = fork_mover(t);
	while (map[16 * MiB / 8] == mark) {
		assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
		usleep(1000);
	}
	kill(pid, SIGKILL);
	killed = moved(map, mark);
	assert_killed(pid);
	ended = moved(map, mark);
	munmap((void *)map, GiB);
	/* However long each of both was paused, this limit holds. */
	assert_in_range(ended, killed, killed + 2 * MiB);
	return killed + 2 * MiB < GiB;
}

/*
 * A transfer ends soon after the place where it is killed, if the kill comes in
 * its middle.
 */
static void moving_a_gigabyte_ends_early_when_killed(void **state)
{
	unsigned int tries = 0;

	while (!kill_mover(*state))
		assert_true(++tries < 50);
}

/*
 * On one CPU, another task becomes runnable every 10 ms. It must run several
 * times during one transfer: once is possible when the transfer returns to user
 * space.
 */
static void moving_gigabytes_leaves_the_cpu_to_others(void **state)
{
	/* Shared with the child. */
	atomic_uint *ends = mmap(NULL, sizeof(*ends), RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	unsigned int runs = 0, most = 0, seen = 0, i;
	cpu_set_t cpu0;
	pid_t pid;
	char *buf;

	assert_true(ends != MAP_FAILED);
	/* In the GPU's own memory, which takes none of the machine's RAM. */
	buf = vfio_map(&v, USEMEM, 0, GiB, RW, MAP_SHARED, NULL);
	CPU_ZERO(&cpu0);
	CPU_SET(0, &cpu0);
	sched_setaffinity(0, sizeof(cpu0), &cpu0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		while (pread(v.device, buf, GiB, REGION(USEMEM) + GiB) == GiB)
			++*ends;
		_exit(1);
	}
	for (i = 0; i < 200; i++) {
		usleep(10 * 1000);
		runs = *ends == seen ? runs + 1 : 1;
		seen = *ends;
		if (runs > most)
			most = runs;
	}
	assert_killed(pid);
	CPU_SET(1, &cpu0);
	sched_setaffinity(0, sizeof(cpu0), &cpu0);
	munmap(buf, GiB);
	munmap(ends, sizeof(*ends));
	print_message("# the other task ran %u times during one transfer\n", most);
	assert_true(most >= 5);
}

/* Bytes of kernel mappings of the GPU's memory. */
static uint64_t kernel_mapped(const struct gpu *gpu)
{
	uint64_t bytes;

	kernel_mappings(gpu, &bytes);
	return bytes;
}

static void only_what_is_touched_is_mapped_and_until_close(void **state)
{
	uint32_t word = 0x12345678, back = 0;
	uint64_t mapped;

	assert_int_equal(kernel_mapped(v.gpu), 0);
	/* Beyond the memory: 94.5 GiB in a BAR of 128 GiB. */
	assert_int_equal(vfio_read(&v, REGION(USEMEM) + 100 * GiB, &back, 4), 4);
	assert_int_equal(back, 0xffffffff);
	assert_int_equal(vfio_write(&v, REGION(USEMEM) + 100 * GiB, &word, 4), 4);
	assert_int_equal(kernel_mapped(v.gpu), 0);

	assert_int_equal(vfio_write(&v, REGION(USEMEM) + 90 * GiB, &word, 4), 4);
	assert_int_equal(vfio_read(&v, REGION(USEMEM) + 90 * GiB, &back, 4), 4);
	assert_int_equal(back, word);
	mapped = kernel_mapped(v.gpu);
	assert_in_range(mapped, 4096, GiB + 65536);

	/* A second access makes no second mapping. */
	vfio_read(&v, REGION(USEMEM) + 90 * GiB + 64, &back, 4);
	assert_int_equal(kernel_mapped(v.gpu), mapped);
	vfio_read(&v, REGION(RESMEM), &back, 4);
	assert_true(kernel_mapped(v.gpu) > mapped);

	vfio_close(&v);
	assert_int_equal(kernel_mapped(v.gpu), 0);

	/* The next open begins without mappings. */
	vfio_open(&v, v.gpu);
	assert_int_equal(vfio_read(&v, REGION(USEMEM) + 90 * GiB, &back, 4), 4);
	assert_int_equal(kernel_mapped(v.gpu), mapped);
	vfio_close(&v);
	assert_int_equal(kernel_mapped(v.gpu), 0);
}

/*
 * Mappings of so many bytes that the kernel has unmapped, but not yet flushed
 * out of the TLBs. Their addresses are hidden.
 */
static unsigned int unpurged(uint64_t bytes)
{
	char *text = proc_list("/proc/vmallocinfo"), *rest = text, *line;
	unsigned int count = 0;
	uint64_t size;
	int end;

	while ((line = strsep(&rest, "\n"))) {
		end = 0;
		if (sscanf(line, "%*s %" SCNu64 " unpurged%n", &size, &end) == 1)
			count += end && size == bytes;
	}
	free(text);
	return count;
}

static void a_closed_gpus_memory_is_in_no_tlb(void **state)
{
	uint64_t size;

	assert_int_equal(read_a_byte(&v), 1);
	assert_int_equal(kernel_mappings(v.gpu, &size), 1);
	vfio_close(&v);
	assert_int_equal(unpurged(size), 0);
}

/* The result is 0 for success. */
static long open_hammer(void *unused)
{
	char byte;

	for (uint64_t at = 0; at < 8 * GiB; at += 512 * MiB)
		if (vfio_read(&v, REGION(USEMEM) + at, &byte, 1) != 1)
			return 1;
	return 0;
}

static void first_uses_from_many_threads_share_their_mappings(void **state)
{
	struct beside *hammers[8];
	uint64_t mapped;
	int i;

	/*
	 * First determine what a single thread needs, then open again without
	 * mappings.
	 */
	assert_int_equal(open_hammer(NULL), 0);
	mapped = kernel_mapped(v.gpu);
	assert_true(mapped > 0);
	vfio_close(&v);
	vfio_open(&v, v.gpu);
	assert_int_equal(kernel_mapped(v.gpu), 0);

	for (i = 0; i < 8; i++)
		hammers[i] = beside(open_hammer, NULL);
	for (i = 0; i < 8; i++)
		assert_int_equal(ended(hammers[i]), 0);
	assert_int_equal(kernel_mapped(v.gpu), mapped);
}

static int start_second(void **state)
{
	vfio_start(&v, "second");
	return 0;
}

static const struct CMUnitTest tests[] = {
	EACH_PART(every_access_around_the_end_of_the_memory_is_right, NULL),
	EACH_PART(every_access_around_the_end_of_the_bar_is_right, NULL),
	EACH_PART(every_access_around_the_end_of_a_window_is_right, NULL),
	EACH_PART(beyond_the_bar_is_EINVAL, NULL),
	cmocka_unit_test(nothing_is_nothing),
	cmocka_unit_test(a_large_tail_reads_as_ones),
	EACH_PART(bulk_data_arrives_whole, NULL),
	EACH_PART(a_fault_in_the_middle_ends_the_access_there, NULL),
	EACH_PART(pages_that_are_not_there_yet_are_brought_in, NULL),
	EACH_PART(pages_that_are_taken_away_do_not_hold_an_access_up, NULL),
	cmocka_unit_test(vectors_are_read_and_written_in_a_row),
	EACH_PART(an_aligned_word_is_never_torn, NULL),
};

#define MOVED(name, ...) \
	VARIANT(name, moving_a_gigabyte_ends_early_when_killed, start_second, NULL, \
		&((struct transfer){ __VA_ARGS__ }))

static const struct CMUnitTest lab_tests[] = {
	OPEN("flush", a_closed_gpus_memory_is_in_no_tlb),
	OPEN("odd", bytes_of_a_partial_last_page_are_reached),
	MOVED(moving_a_gigabyte_ends_early_when_killed, REGION(USEMEM), GiB, false),
	MOVED(writing_a_gigabyte_ends_early_when_killed, REGION(USEMEM), GiB, true),
	MOVED(reading_a_gigabyte_of_resmem_ends_early_when_killed, REGION(RESMEM), 0, false),
	OPEN("second", moving_gigabytes_leaves_the_cpu_to_others),
	OPEN("s95", only_what_is_touched_is_mapped_and_until_close),
	OPEN("s33", first_uses_from_many_threads_share_their_mappings),
};

const struct case_group groups[] = {
	{ "pages carve-out", CASES(tests), open_parts, .shared = true },
	{ "pages lab", CASES(lab_tests) },
	{ }
};
