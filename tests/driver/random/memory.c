// SPDX-License-Identifier: GPL-2.0-only
/*
 * pread and pwrite of any range with any buffer, and comparisons of all known
 * bytes.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "random.h"

#define MOST		(512 * KiB)

/* Bytes after a buffer that must not change. */
#define CANARY		16
#define CANARY_BYTE	0xa5

/* A user buffer, of which the kernel can access the first @good bytes. */
struct buffer {
	const char *name;
	uint8_t *p;
	uint64_t good;
	uint64_t own;		/* bytes that the program can fill */
	struct place place;	/* if that is GPU memory itself */
};

static uint8_t *heap, *before_hole, *before_read_only;

static void init_buffers(void)
{
	if (heap)
		return;
	heap = mmap(NULL, MOST + CANARY + page, RW,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	before_hole = mmap(NULL, MOST + page, RW, MAP_PRIVATE | MAP_ANONYMOUS,
			   -1, 0);
	before_read_only = mmap(NULL, 2 * MOST, RW, MAP_PRIVATE | MAP_ANONYMOUS,
				-1, 0);
	assert_true(heap != MAP_FAILED && before_hole != MAP_FAILED &&
		    before_read_only != MAP_FAILED);
	assert_int_equal(munmap(before_hole + MOST, page), 0);
	fill(before_read_only + MOST, MOST, 3);
	assert_int_equal(mprotect(before_read_only + MOST, MOST, PROT_READ), 0);
}

static bool on_heap(const struct buffer *b)
{
	return b->p >= heap && b->p < heap + MOST;
}

static bool overlaps(const struct place *a, const struct place *b,
		     uint64_t count)
{
	return a->part == b->part && a->offset < b->offset + count &&
	       b->offset < a->offset + count;
}

/* Uses a mapping of the same GPU: @count bytes that don't overlap @place. */
static bool own_buffer(struct buffer *b, const struct place *place,
		       uint64_t count, int prot)
{
	struct seg *seg = seg_count ? &segs[draw(seg_count)] : NULL;

	if (!seg || s.low != AWAKE || !draw_place_in(seg, count, &b->place))
		return false;
	/* The range drawn may be shorter than @count. */
	b->place.bytes = known(seg->part, b->place.offset, count);
	if (!b->place.bytes || overlaps(&b->place, place, count) ||
	    b->place.offset + count > seg->offset + seg->length)
		return false;
	b->name = "own mapping";
	b->p = (uint8_t *)seg->addr + (b->place.offset - seg->offset);
	b->good = (seg->prot & prot) == prot && faults_in_reach() ? count : 0;
	return true;
}

/* @write: the kernel writes to the buffer. */
static struct buffer draw_buffer(const struct place *place, uint64_t count,
				 bool write)
{
	struct buffer b = { .name = "heap" };
	unsigned int kind = draw(100);

	init_buffers();
	/*
	 * In low power, whether the GPU wakes depends on where the buffer
	 * faults.
	 */
	if (s.low != AWAKE)
		kind = 99;
	if (kind < 20 && own_buffer(&b, place, count,
				    write ? PROT_WRITE : PROT_READ))
		return b;
	b.place.bytes = NULL;
	if (kind < 28) {
		b.name = "before a hole";
		b.good = draw(count);
		b.own = b.good;
		b.p = before_hole + MOST - b.good;
	} else if (kind < 35) {
		b.name = "before a read-only page";
		b.good = draw(count);
		b.own = b.good;
		b.p = before_read_only + MOST - b.good;
		if (!write)
			b.good = count;
	} else {
		b.good = count;
		b.own = count;
		b.p = heap + (chance(50) ? 0 : draw(64));
	}
	return b;
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* An access to known memory, to the rest of the BAR, or to neither. */
struct access {
	struct place place;
	uint64_t pos;
	uint64_t count;
	uint64_t memory;	/* bytes of it in memory */
	uint64_t total;		/* bytes of it in the BAR */
};

static struct access draw_access(void)
{
	struct access a = { .place = draw_place(MOST) };
	struct part *p = a.place.part;
	unsigned int kind = draw(100);

	a.count = a.place.count;
	a.pos = a.place.offset;
	if (kind < 8) {
		/* Across the end of the memory, or after it. */
		struct area *last = &p->areas[p->area_count - 1];

		a.count = draw_count(16 * KiB);
		a.pos = p->length - least(draw(2 * a.count), p->length - last->start) +
			draw(a.count);
	} else if (kind < 12) {
		/* Across the end of the BAR. */
		a.count = draw_count(16 * KiB);
		a.pos = p->bar_size + 8 - draw(a.count + 16);
		if (a.pos < p->length)
			a.pos = p->length;
	} else if (kind < 14) {
		a.pos = p->bar_size + draw((1ULL << 40) - p->bar_size);
	}
	a.memory = a.pos < p->length ? least(a.count, p->length - a.pos) : 0;
	a.total = a.pos < p->bar_size ? least(a.count, p->bar_size - a.pos) : 0;
	a.place.offset = a.pos;
	a.place.count = a.memory;
	a.place.bytes = a.memory ? known(p, a.pos, a.memory) : NULL;
	if (a.memory)
		assert_non_null(a.place.bytes);
	say(" %s+%#llx count %llu", p->name, (unsigned long long)a.pos,
	    (unsigned long long)a.count);
	return a;
}

/*
 * Returns what the access must return, and in *@other what it may return
 * instead. With an inaccessible buffer, either this error or that of the memory
 * may come first.
 */
static int64_t expected(const struct access *a, const struct buffer *b,
			bool write, int64_t *other)
{
	uint64_t limit = write ? a->memory : a->total, count;

	*other = -EINVAL;
	if (!a->total)
		return -EINVAL;
	if (a->memory && !in_reach()) {
		*other = b->good ? -EIO : -EFAULT;
		return -EIO;
	}
	count = least(limit, b->good);
	*other = -EFAULT;
	if (limit && !count)
		return -EFAULT;
	/* Data for the rest of the BAR is dropped unread. */
	if (write && count == limit)
		count = a->total;
	*other = count;
	return count;
}

static void judge(const struct access *a, const struct buffer *b, int64_t ret,
		  bool write)
{
	int64_t other, right = expected(a, b, write, &other);

	say(" = %lld", (long long)ret);
	if (ret != right && ret != other)
		wrong("%s returned %lld, expected %lld", write ? "pwrite" : "pread",
		      (long long)ret, (long long)right);
	if (!a->memory || !in_reach())
		return;
	if (ret > 0)
		has_entered();
	else
		may_have_entered();
}

static void compare(const char *what, const struct part *p, uint64_t pos,
		    const uint8_t *seen, const uint8_t *right, uint64_t count)
{
	uint64_t i;

	if (!memcmp(seen, right, count))
		return;
	for (i = 0; seen[i] == right[i]; i++)
		;
	wrong("%s: %s+%#llx is %#x, expected %#x", what, p->name,
	      (unsigned long long)(pos + i), seen[i], right[i]);
}

static void read_some(void)
{
	uint8_t right[4 * KiB];
	struct access a = draw_access();
	struct buffer b = draw_buffer(&a.place, a.count, true);
	bool own = b.place.bytes;
	uint64_t i, memory;
	int64_t ret;

	say(" to %s", b.name);
	if (!s.fd_count)
		return not_now("no file");
	if (on_heap(&b))
		memset(b.p, CANARY_BYTE, a.count + CANARY);
	ret = dev_read(REGION(a.place.part->index) + a.pos, b.p, a.count);
	judge(&a, &b, ret, false);
	if (ret < 0)
		return;

	memory = least(ret, a.memory);
	if (own) {
		/* Both places have the same bytes now. */
		memcpy(b.place.bytes, a.place.bytes, memory);
		memset(b.place.bytes + memory, 0xff, ret - memory);
		return;
	}
	compare("pread", a.place.part, a.pos, b.p, a.place.bytes, memory);
	for (i = memory; i < (uint64_t)ret; i += sizeof(right)) {
		memset(right, 0xff, sizeof(right));
		compare("pread", a.place.part, a.pos + i, b.p + i, right,
			least(ret - i, sizeof(right)));
	}
	for (i = ret; on_heap(&b) && i < (uint64_t)ret + CANARY; i++)
		if (b.p[i] != CANARY_BYTE)
			wrong("pread wrote behind the %lld bytes that it returned",
			      (long long)ret);
}

static void write_some(void)
{
	struct access a = draw_access();
	struct buffer b = draw_buffer(&a.place, a.count, false);
	uint64_t memory;
	int64_t ret;

	say(" from %s", b.name);
	if (!s.fd_count)
		return not_now("no file");
	draw_bytes(b.p, b.own);
	ret = dev_write(REGION(a.place.part->index) + a.pos, b.p, a.count);
	judge(&a, &b, ret, true);
	memory = ret > 0 ? least(ret, a.memory) : 0;
	if (memory)
		memcpy(a.place.bytes, b.place.bytes ? b.place.bytes : b.p, memory);
}

/* ---- all of it ---------------------------------------------------------- */

static void compare_area(struct part *p, struct area *a)
{
	uint8_t *seen = malloc(a->length);
	ssize_t ret;

	assert_non_null(seen);
	ret = dev_read(REGION(p->index) + a->start, seen, a->length);
	if (ret != (ssize_t)a->length)
		wrong("pread of %llu bytes returned %zd",
		      (unsigned long long)a->length, ret);
	has_entered();
	compare("pread", p, a->start, seen, a->bytes, a->length);
	free(seen);
}

static void compare_one(void)
{
	struct part *p = &parts[draw(2)];
	struct area *a = &p->areas[draw(p->area_count)];

	say(" %s+%#llx count %llu", p->name, (unsigned long long)a->start,
	    (unsigned long long)a->length);
	if (!s.fd_count || !in_reach())
		return not_now("out of reach");
	compare_area(p, a);
}

void compare_all(void)
{
	size_t k, i;

	back_to_normal();
	for (k = 0; k < 2; k++)
		for (i = 0; i < parts[k].area_count; i++)
			compare_area(&parts[k], &parts[k].areas[i]);
}

void write_all_known(void)
{
	size_t k, i;

	for (k = 0; k < 2; k++) {
		for (i = 0; i < parts[k].area_count; i++) {
			struct area *a = &parts[k].areas[i];

			fill(a->bytes, a->length, 10 * k + i + 1);
			expect("pwrite",
			       dev_write(REGION(parts[k].index) + a->start,
					 a->bytes, a->length), a->length);
		}
	}
	has_entered();
}

/* Without any mapping of the kernel's or the user's. */
static void look_from_outside(void)
{
	struct place place = draw_place(KiB);
	uint8_t seen[KiB];

	say(" %s+%#llx count %llu", place.part->name,
	    (unsigned long long)place.offset, (unsigned long long)place.count);
	host_peek(place.part->phys + place.offset, seen, place.count);
	compare("from outside", place.part, place.offset, seen, place.bytes,
		place.count);
}

static void write_from_outside(void)
{
	struct place place = draw_place(KiB);

	say(" %s+%#llx count %llu", place.part->name,
	    (unsigned long long)place.offset, (unsigned long long)place.count);
	draw_bytes(place.bytes, place.count);
	host_poke(place.part->phys + place.offset, place.bytes, place.count);
}

const struct op memory_ops[] = {
	OP("pread", 22000, read_some),
	OP("pwrite", 22000, write_some),
	OP("compare", 300, compare_one),
	OP("peek", 200, look_from_outside),
	OP("poke", 200, write_from_outside),
	{ }
};
