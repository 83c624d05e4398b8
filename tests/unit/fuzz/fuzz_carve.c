// SPDX-License-Identifier: GPL-2.0-only
/*
 * Fuzzes nvgrace_gpu_carve(). The oracle doesn't compute a carve-out. It checks
 * that the result has the properties that define one, in arithmetic that can't
 * overflow. tests/unit/test_fuzz.py builds and runs this target.
 */
#include <string.h>

#include <linux/errno.h>

#include "arith.h"
#include "fuzz.h"

/* 128 bits wide, so that no expression with 64-bit numbers overflows. */
static const __uint128_t block = 0x20000000;		/* 512 MiB */
static const __uint128_t resmem_min = 0x40000000;		/* 1 GiB */
static const __uint128_t bar_max = 0x10000000000;		/* 1 TiB */

/* Whether @bar is the smallest power of two that holds @length bytes. */
static bool is_bar_of(__uint128_t bar, unsigned __int128 length)
{
	return bar <= bar_max && __builtin_popcountll(bar) == 1 &&
	       length <= bar && bar < 2 * length;
}

static void check_with_resmem(__u64 size, const struct nvgrace_gpu_carve *got)
{
	oracle(got->usemem && got->usemem % block == 0,
	       "size %#llx: usemem %#llx is no whole number of blocks", size, got->usemem);
	oracle((__uint128_t)got->usemem + got->resmem == size,
	       "size %#llx: the parts are %#llx and %#llx", size, got->usemem, got->resmem);
	oracle(got->resmem >= resmem_min, "size %#llx: resmem %#llx is too small", size,
	       got->resmem);
	oracle(got->usemem + block + resmem_min > size,
	       "size %#llx: usemem %#llx could be one block larger", size, got->usemem);
	oracle(is_bar_of(got->resmem_bar, got->resmem), "resmem %#llx: BAR size %#llx",
	       got->resmem, got->resmem_bar);
}

static void check_without_resmem(__u64 size, const struct nvgrace_gpu_carve *got)
{
	oracle(got->usemem == size, "size %#llx: usemem is %#llx", size, got->usemem);
	oracle(!got->resmem && !got->resmem_bar, "size %#llx: resmem %#llx, BAR size %#llx",
	       size, got->resmem, got->resmem_bar);
}

/*
 * The return value: by the smallest size that fits, and the largest that vfio
 * can show.
 */
static int expected(__u64 size, bool mig_defect)
{
	__uint128_t least = mig_defect ? block + resmem_min : 1;
	__uint128_t too_much = mig_defect ? bar_max + block + resmem_min : bar_max + 1;

	if (size < least)
		return -EINVAL;
	return size < too_much ? 0 : -EOVERFLOW;
}

int LLVMFuzzerTestOneInput(const __u8 *data, size_t length)
{
	struct input in = { data, length };
	struct nvgrace_gpu_carve got, untouched;
	bool mig_defect = take(&in, 1) & 1;
	__u64 size = take_bytes(&in) + block * take(&in, 2);
	int ret;

	memset(&got, 0xa5, sizeof(got));
	untouched = got;
	ret = nvgrace_gpu_carve(size, mig_defect, &got);

	oracle(ret == expected(size, mig_defect), "size %#llx, defect %d: %d instead of %d", size,
	       mig_defect, ret, expected(size, mig_defect));
	if (ret) {
		oracle(!memcmp(&got, &untouched, sizeof(got)), "size %#llx: refused, but changed",
		       size);
		return 0;
	}
	if (mig_defect)
		check_with_resmem(size, &got);
	else
		check_without_resmem(size, &got);
	oracle(is_bar_of(got.usemem_bar, got.usemem), "usemem %#llx: BAR size %#llx", got.usemem,
	       got.usemem_bar);
	return 0;
}
