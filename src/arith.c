// SPDX-License-Identifier: GPL-2.0-only
/*
 * Carve-out, access splitting, BAR register values, CXL timeouts and steps that
 * are spread over memory: pure functions, which tests/unit compiles, too. arith.h is
 * the contract.
 */
#include <linux/errno.h>

#include "arith.h"

/* Largest defined code; the ones above are reserved. */
#define CXL_TIMEOUT_CODE_MAX	4

/* Rounds @size up to a power of two. False if that exceeds the largest BAR. */
static bool bar_size(__u64 size, __u64 *bar)
{
	__u64 pow2 = 1;

	if (size > NVGRACE_GPU_BAR_SIZE_MAX)
		return false;
	while (pow2 < size)
		pow2 <<= 1;
	*bar = pow2;
	return true;
}

int nvgrace_gpu_carve(__u64 size, bool mig_defect,
		      struct nvgrace_gpu_carve *out)
{
	struct nvgrace_gpu_carve carve = { .usemem = size };

	if (mig_defect) {
		if (size <= NVGRACE_GPU_RESMEM_MIN)
			return -EINVAL;
		carve.usemem = (size - NVGRACE_GPU_RESMEM_MIN) &
			       ~(NVGRACE_GPU_MEMBLK - 1);
		carve.resmem = size - carve.usemem;
	}
	if (!carve.usemem)
		return -EINVAL;

	if (!bar_size(carve.usemem, &carve.usemem_bar))
		return -EOVERFLOW;
	/* Less than 1.5 GiB by construction, so this can't fail. */
	if (carve.resmem)
		bar_size(carve.resmem, &carve.resmem_bar);

	*out = carve;
	return 0;
}

struct nvgrace_gpu_split nvgrace_gpu_split(__u64 pos, __u64 count, __u64 start,
					   __u64 end)
{
	struct nvgrace_gpu_split split = { 0 };
	__u64 stop = pos + count;

	if (pos < start)
		split.before = (stop < start ? stop : start) - pos;
	if (stop > end)
		split.after = stop - (pos > end ? pos : end);
	split.inside = count - split.before - split.after;
	split.first = pos > start ? pos - start : 0;
	return split;
}

__u64 nvgrace_gpu_bar_value(__u64 written, __u64 bar_size)
{
	return (written & ~(bar_size - 1)) | NVGRACE_GPU_BAR_FLAGS;
}

__u8 nvgrace_gpu_bar_read_byte(__u64 written, __u64 bar_size, unsigned int byte)
{
	return nvgrace_gpu_bar_value(written, bar_size) >> (8 * byte);
}

__u64 nvgrace_gpu_bar_write_byte(__u64 written, unsigned int byte, __u8 val)
{
	unsigned int shift = 8 * byte;

	return (written & ~(0xffULL << shift)) | ((__u64)val << shift);
}

__u32 nvgrace_gpu_cxl_timeout_ms(unsigned int code)
{
	if (code > CXL_TIMEOUT_CODE_MAX)
		code = CXL_TIMEOUT_CODE_MAX;
	return 1000U << (2 * code);
}

__u64 nvgrace_gpu_spread(__u64 index, __u64 count, __u64 total)
{
	return index * total / count;
}
