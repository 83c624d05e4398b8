// SPDX-License-Identifier: GPL-2.0-only
/*
 * Fuzzes nvgrace_gpu_split(). The oracle checks on which side of the window
 * single bytes are: all of them if they are few, otherwise the first and the
 * last of each part. tests/unit/test_fuzz.py builds and runs this target.
 */
#include "arith.h"
#include "fuzz.h"

struct window {
	__u64 start, end;
};

enum side { BEFORE, INSIDE, AFTER };

static enum side side_of(__u64 byte, const struct window *window)
{
	if (byte < window->start)
		return BEFORE;
	return byte < window->end ? INSIDE : AFTER;
}

static void check_each_byte(__u64 pos, __u64 count, const struct window *window,
			    const struct nvgrace_gpu_split *got)
{
	__u64 seen[3] = { 0 };

	for (__u64 i = 0; i < count; i++)
		seen[side_of(pos + i, window)]++;
	oracle(got->before == seen[BEFORE] && got->inside == seen[INSIDE] &&
	       got->after == seen[AFTER],
	       "%#llx + %#llx at [%#llx, %#llx): %llu %llu %llu instead of %llu %llu %llu",
	       pos, count, window->start, window->end, got->before, got->inside, got->after,
	       seen[BEFORE], seen[INSIDE], seen[AFTER]);
}

/*
 * The bytes of a part are consecutive, so all are on one side if both ends are.
 */
static void check_part(__u64 pos, __u64 count, enum side side, const struct window *window)
{
	if (!count)
		return;
	oracle(side_of(pos, window) == side && side_of(pos + count - 1, window) == side,
	       "bytes %#llx to %#llx of part %d at [%#llx, %#llx)", pos, pos + count - 1, side,
	       window->start, window->end);
}

int LLVMFuzzerTestOneInput(const __u8 *data, size_t size)
{
	struct input in = { data, size };
	bool small = take(&in, 1) & 1;
	__u64 pos = small ? take(&in, 1) : take_bytes(&in);
	__u64 count = small ? take(&in, 1) : take_bytes(&in);
	struct window window = {
		.start = small ? take(&in, 1) : take_bytes(&in),
		.end = small ? take(&in, 1) : take_bytes(&in),
	};
	struct nvgrace_gpu_split got;

	/* The contract's conditions on the arguments. */
	if (window.start > window.end)
		window = (struct window){ window.end, window.start };
	if (count > ~0ULL - pos)
		count = ~0ULL - pos;

	got = nvgrace_gpu_split(pos, count, window.start, window.end);

	oracle((__uint128_t)got.before + got.inside + got.after == count,
	       "%#llx + %#llx at [%#llx, %#llx): %#llx + %#llx + %#llx", pos, count, window.start,
	       window.end, got.before, got.inside, got.after);
	check_part(pos, got.before, BEFORE, &window);
	check_part(pos + got.before, got.inside, INSIDE, &window);
	check_part(pos + got.before + got.inside, got.after, AFTER, &window);
	if (got.inside)
		oracle(window.start + got.first == pos + got.before,
		       "%#llx + %#llx at [%#llx, %#llx): first is %#llx", pos, count, window.start,
		       window.end, got.first);
	if (count <= 512)
		check_each_byte(pos, count, &window, &got);
	return 0;
}
