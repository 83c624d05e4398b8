/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Shared by the libFuzzer targets in this directory: a reader of the fuzzer's
 * bytes, and the report of an oracle that disagrees. See tests/unit/test_fuzz.py.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <linux/types.h>

/* The word tells a disagreement from a crash. */
#define oracle(agrees, ...) \
	do { \
		if (!(agrees)) { \
			fprintf(stderr, "oracle: " __VA_ARGS__); \
			fputc('\n', stderr); \
			abort(); \
		} \
	} while (0)

struct input {
	const __u8 *data;
	size_t left;
};

/* The next @bytes (at most 8) of the input as a number; missing ones are 0. */
static inline __u64 take(struct input *in, unsigned int bytes)
{
	__u64 value = 0;

	while (bytes--) {
		value <<= 8;
		if (in->left) {
			value |= *in->data++;
			in->left--;
		}
	}
	return value;
}

/* Any value, but often one next to a place where carries happen. */
static inline __u64 take_bytes(struct input *in)
{
	static const __u64 place[] = {
		0, 512ULL << 20, 1ULL << 30, 3ULL << 29, 1ULL << 32, 1ULL << 40,
		(1ULL << 40) + (1ULL << 30), (1ULL << 40) + (3ULL << 29), 1ULL << 63,
	};
	unsigned int choice = take(in, 1);

	if (choice >= 128)
		return take(in, 8);
	return place[choice % (sizeof(place) / sizeof(*place))] + (__u64)(__s8)take(in, 1);
}

int LLVMFuzzerTestOneInput(const __u8 *data, size_t size);

#endif /* FUZZ_H */
