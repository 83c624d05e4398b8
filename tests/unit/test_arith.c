// SPDX-License-Identifier: GPL-2.0-only
/*
 * Unit tests of src/arith.c against its contract, include/arith.h.
 * tests/conftest.py builds them with ASan and UBSan, and runs them.
 *
 * Expected values are written out: if a test computed them, it would repeat the
 * mistakes of the code under test. The tests of every value count bytes or bits.
 */
#include <string.h>

#include <linux/errno.h>

#include "arith.h"
#include "lib.h"

#define MIB	(1024 * 1024ULL)
#define GIB	(1024 * MIB)
#define TIB	(1024 * GIB)
#define ALL	(~0ULL)

/* Carve-out */

struct carve_case {
	__u64 size;
	bool mig_defect;
	int ret;
	struct nvgrace_gpu_carve want;
};

static void carve(void **state)
{
	const struct carve_case *c = *state;
	struct nvgrace_gpu_carve got, untouched;

	memset(&got, 0xa5, sizeof(got));
	untouched = got;

	assert_int_equal(nvgrace_gpu_carve(c->size, c->mig_defect, &got), c->ret);
	if (c->ret) {
		assert_memory_equal(&got, &untouched, sizeof(got));
		return;
	}
	assert_int_equal(got.usemem, c->want.usemem);
	assert_int_equal(got.resmem, c->want.resmem);
	assert_int_equal(got.usemem_bar, c->want.usemem_bar);
	assert_int_equal(got.resmem_bar, c->want.resmem_bar);
}

#define CARVE_CASE(title, bytes, defect, ...) \
	{ "carve-out: " title, carve, NULL, NULL, \
	  &(struct carve_case){ .size = bytes, .mig_defect = defect, __VA_ARGS__ } }
#define CARVE(title, size, usemem, resmem, usemem_bar, resmem_bar) \
	CARVE_CASE(title, size, true, .want = { usemem, resmem, usemem_bar, resmem_bar })
#define CARVE_WHOLE(title, size, usemem, usemem_bar) \
	CARVE_CASE(title ", defect absent", size, false, .want = { usemem, 0, usemem_bar, 0 })
#define REFUSE(title, size, error) \
	CARVE_CASE("refuse " title, size, true, .ret = error)
#define REFUSE_WHOLE(title, size, error) \
	CARVE_CASE("refuse " title ", defect absent", size, false, .ret = error)

/* Whether @bar is the smallest power of two that holds @length bytes. */
static bool is_bar_of(__u64 bar, __u64 length)
{
	return bar <= TIB && __builtin_popcountll(bar) == 1 && length <= bar && bar / 2 < length;
}

/*
 * Sizes at and around every block up to the largest: the properties that define
 * a carve-out, rather than its arithmetic.
 */
static void carve_every_block(void **state)
{
	const __u64 block = 512 * MIB, blocks = TIB / block + 8;
	struct nvgrace_gpu_carve got;
	__u64 i, size;
	int d, ret;

	for (i = 0; i <= 3 * blocks; i++) {
		size = i / 3 * block + i % 3 - 1;
		if (!i)
			size = 0;
		for (d = 0; d < 2; d++) {
			ret = nvgrace_gpu_carve(size, d, &got);
			if (size < (d ? GIB + block : 1)) {
				assert_int_equal(ret, -EINVAL);
				continue;
			}
			if (size > (d ? TIB + GIB + block - 1 : TIB)) {
				assert_int_equal(ret, -EOVERFLOW);
				continue;
			}
			assert_int_equal(ret, 0);
			assert_true(is_bar_of(got.usemem_bar, got.usemem));
			assert_int_equal(got.usemem + got.resmem, size);
			if (d) {
				assert_int_equal(got.usemem % block, 0);
				assert_in_range(got.resmem, GIB, GIB + block - 1);
				assert_true(is_bar_of(got.resmem_bar, got.resmem));
			} else {
				assert_int_equal(got.resmem | got.resmem_bar, 0);
			}
		}
	}
}

/* Split of an access at a window */

struct split_case {
	__u64 pos, count, start, end;
	struct nvgrace_gpu_split want;
};

static void split(void **state)
{
	const struct split_case *c = *state;
	struct nvgrace_gpu_split got;

	got = nvgrace_gpu_split(c->pos, c->count, c->start, c->end);
	assert_int_equal(got.before, c->want.before);
	assert_int_equal(got.inside, c->want.inside);
	assert_int_equal(got.after, c->want.after);
	if (c->want.inside)
		assert_int_equal(got.first, c->want.first);
}

/* first is 0 where inside is 0: it is undefined there and isn't compared. */
#define SPLIT(title, pos, count, start, end, before, inside, after, first) \
	{ "split: " title, split, NULL, NULL, \
	  &(struct split_case){ pos, count, start, end, { before, inside, after, first } } }

static void split_byte_by_byte(__u64 pos, __u64 count, __u64 start, __u64 end)
{
	struct nvgrace_gpu_split got = nvgrace_gpu_split(pos, count, start, end);
	__u64 at, parts[3] = { 0 }, first = ALL;

	for (at = pos; at < pos + count; at++) {
		parts[at < start ? 0 : at < end ? 1 : 2]++;
		if (at >= start && at < end && first == ALL)
			first = at - start;
	}
	assert_int_equal(got.before, parts[0]);
	assert_int_equal(got.inside, parts[1]);
	assert_int_equal(got.after, parts[2]);
	if (got.inside)
		assert_int_equal(got.first, first);
}

/* Every access to every window of small numbers. */
static void split_every_small_one(void **state)
{
	const __u64 most = 9;
	__u64 pos, count, start, end;

	for (pos = 0; pos <= most; pos++)
		for (count = 0; count <= most; count++)
			for (end = 0; end <= 2 * most; end++)
				for (start = 0; start <= end; start++)
					split_byte_by_byte(pos, count, start, end);
}

/* BAR registers */

/*
 * What a register of each size reads after ~0: address bits from the size up.
 */
static const struct {
	__u64 size, all_ones;
} sizing[] = {
	{ 16,			0xfffffffffffffffc },
	{ 32,			0xffffffffffffffec },
	{ 4096,			0xfffffffffffff00c },
	{ 512 * MIB,		0xffffffffe000000c },
	{ GIB,			0xffffffffc000000c },
	{ 2 * GIB,		0xffffffff8000000c },
	{ 4 * GIB,		0xffffffff0000000c },
	{ 32 * GIB,		0xfffffff80000000c },
	{ 128 * GIB,		0xffffffe00000000c },
	{ TIB,			0xffffff000000000c },
	{ 1ULL << 63,		0x800000000000000c },
};

static void bar_sizing(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sizing); i++)
		assert_int_equal(nvgrace_gpu_bar_value(~0ULL, sizing[i].size), sizing[i].all_ones);
}

static void bar_bit_by_bit(__u64 written, unsigned int order)
{
	unsigned int bit, want;
	__u8 read = 0;

	for (bit = 0; bit < 64; bit++) {
		if (bit % 8 == 0)
			read = nvgrace_gpu_bar_read_byte(written, 1ULL << order, bit / 8);
		want = bit >= order ? written >> bit & 1 : bit < 4 ? 0xc >> bit & 1 : 0;
		assert_int_equal(read >> bit % 8 & 1, want);
	}
}

/* Every byte at every place, in a BAR of every size. */
static void bar_every_byte(void **state)
{
	const __u64 before = 0x5aa5c33c0ff09669;
	unsigned int order, byte, value, other;
	__u64 written;

	for (byte = 0; byte < 8; byte++)
		for (value = 0; value < 256; value++) {
			written = nvgrace_gpu_bar_write_byte(before, byte, value);
			for (other = 0; other < 8; other++)
				assert_int_equal((__u8)(written >> 8 * other), other == byte ?
						 value : (__u8)(before >> 8 * other));
			for (order = 4; order <= 40; order++)
				bar_bit_by_bit(written, order);
		}
}

/* Each step once if all are wanted, else at distances that differ by one. */
static void spread_steps(void **state)
{
	static const __u64 totals[] = { 1, 2, 5, 127, 128, 129, 6048, 65536 };
	__u64 count, i, step;
	unsigned int t;

	(void)state;
	for (t = 0; t < ARRAY_SIZE(totals); t++) {
		for (count = 1; count <= totals[t] && count <= 130; count++) {
			assert_int_equal(nvgrace_gpu_spread(0, count, totals[t]), 0);
			for (i = 1; i <= count; i++) {
				step = nvgrace_gpu_spread(i, count, totals[t]) -
				       nvgrace_gpu_spread(i - 1, count, totals[t]);
				assert_in_range(step, totals[t] / count,
						(totals[t] + count - 1) / count);
			}
			/* The one after the last would be the end. */
			assert_int_equal(nvgrace_gpu_spread(count, count, totals[t]), totals[t]);
		}
	}
	assert_int_equal(nvgrace_gpu_spread(127, 128, 6048), 6000);
}

/* The reserved codes count as the longest timeout. */
static void cxl_timeouts(void **state)
{
	static const __u32 seconds[] = { 1, 4, 16, 64, 256, 256, 256, 256 };
	unsigned int code;

	(void)state;
	for (code = 0; code < sizeof(seconds) / sizeof(*seconds); code++)
		assert_int_equal(nvgrace_gpu_cxl_timeout_ms(code), 1000 * seconds[code]);
}

static const struct CMUnitTest tests[] = {
	/* The table of worked examples. */
	CARVE("0x17_f000_0000", 0x17f0000000, 0x17a0000000, 0x50000000, 128 * GIB, 2 * GIB),
	CARVE("33.25 GiB", 33 * GIB + 256 * MIB, 32 * GIB, 1280 * MIB, 32 * GIB, 2 * GIB),
	CARVE("33 GiB", 33 * GIB, 32 * GIB, GIB, 32 * GIB, GIB),
	CARVE("0xb000_0000", 0xb0000000, 0x60000000, 0x50000000, 2 * GIB, 2 * GIB),
	CARVE("1.5 GiB", 1536 * MIB, 512 * MIB, GIB, 512 * MIB, GIB),
	REFUSE("1.5 GiB - 1 byte", 1536 * MIB - 1, -EINVAL),
	CARVE_WHOLE("33.25 GiB", 33 * GIB + 256 * MIB, 33 * GIB + 256 * MIB, 64 * GIB),

	/* carve_every_block has all other sizes that are around whole blocks. */
	REFUSE("1 byte", 1, -EINVAL),

	/* Around the largest BAR. */
	CARVE("usemem one block below 1 TiB", TIB + 512 * MIB,
	      TIB - 512 * MIB, GIB, TIB, GIB),
	CARVE("usemem of 1 TiB", TIB + GIB, TIB, GIB, TIB, GIB),
	CARVE("usemem of 1 TiB, the largest resmem", TIB + 1536 * MIB - 1,
	      TIB, 1536 * MIB - 1, TIB, 2 * GIB),
	REFUSE("usemem one block above 1 TiB", TIB + 1536 * MIB, -EOVERFLOW),
	REFUSE("2^63", 1ULL << 63, -EOVERFLOW),
	REFUSE("2^64 - 1", ALL, -EOVERFLOW),

	/* Without resmem, nothing is rounded. */
	CARVE_WHOLE("4 KiB", 4096, 4096, 4096),
	CARVE_WHOLE("4 KiB + 1 byte", 4097, 4097, 8192),
	REFUSE_WHOLE("2^64 - 1", ALL, -EOVERFLOW),

	/* split_every_small_one has every position of an access. */
	SPLIT("empty window at 2^64 - 1", ALL - 8, 8, ALL, ALL, 8, 0, 0, 0),

	/* Up to the limits of 64 bits. */
	SPLIT("all there is, window all there is", 0, ALL, 0, ALL, 0, ALL, 0, 0),
	SPLIT("all there is, one byte each side", 0, ALL, 1, ALL - 1, 1, ALL - 2, 1, 0),
	SPLIT("one byte, window all there is", ALL - 1, 1, 0, ALL, 0, 1, 0, ALL - 1),
	SPLIT("last byte, window behind 2^63", ALL - 1, 1, 1ULL << 63, ALL,
	      0, 1, 0, ALL / 2 - 1),
	SPLIT("around 2^32", 0xffffffff, 2, 0x100000000, 0x200000000, 1, 1, 0, 0),
	SPLIT("long access before", 0, ALL - 1, ALL - 1, ALL, ALL - 1, 0, 0, 0),
	SPLIT("long access behind", 1, ALL - 1, 0, 1, 0, 0, ALL - 1, 0),

	cmocka_unit_test(carve_every_block),
	cmocka_unit_test(split_every_small_one),
	cmocka_unit_test(bar_every_byte),
	cmocka_unit_test(bar_sizing),
	cmocka_unit_test(cxl_timeouts),
	cmocka_unit_test(spread_steps),
};

const struct case_group groups[] = {
	{ "", CASES(tests) },
	{ }
};
