// SPDX-License-Identifier: GPL-2.0-only
/*
 * Mappings of both parts, of any size and place: accessed, cut, moved,
 * protected and advised. The kernel merges none of them, so each is one entry
 * of segs.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include "random.h"

/* The most bytes that one access copies. */
#define TOUCH		256

static void say_seg(const struct seg *seg)
{
	say(" [%p %llu pages of %s+%#llx prot %d]", (void *)seg->addr,
	    (unsigned long long)(seg->length / page), seg->part->name,
	    (unsigned long long)seg->offset, seg->prot);
}

static struct seg *draw_seg(void)
{
	struct seg *seg;

	if (!seg_count) {
		not_now("no mapping");
		return NULL;
	}
	seg = &segs[draw(seg_count)];
	say_seg(seg);
	return seg;
}

static void forget(struct seg *seg)
{
	*seg = segs[--seg_count];
}

/* Cuts @seg so that an entry begins @at bytes into it. */
static struct seg *cut(struct seg *seg, uint64_t at)
{
	struct seg *rest;

	if (!at)
		return seg;
	if (at == seg->length)
		return NULL;
	assert_true(seg_count < SEGS);
	rest = &segs[seg_count++];
	*rest = *seg;
	rest->addr += at;
	rest->offset += at;
	rest->length -= at;
	seg->length = at;
	return rest;
}

/* Draws some of its pages: all, or any number anywhere. */
static void draw_pages(const struct seg *seg, uint64_t *at, uint64_t *length)
{
	uint64_t pages = seg->length / page, first = 0, count = pages;
	struct place place;

	if (chance(60)) {
		if (chance(50) && draw_place_in(seg, 1, &place))
			first = (place.offset - seg->offset) / page;
		else
			first = draw(pages);
		count = 1 + draw(chance(70) ? 4 : pages);
		if (count > pages - first)
			count = pages - first;
	}
	*at = first * page;
	*length = count * page;
	say(" pages %llu+%llu", (unsigned long long)first,
	    (unsigned long long)count);
}

/* At the alignment of huge entries plus @shift. */
static char *map_part(struct part *p, uint64_t offset, uint64_t length, int prot,
		      uint64_t shift)
{
	/* Congruent with the physical address, so that huge entries fit. */
	char *addr = free_range(length, ((p->phys + offset) + shift) % table);
	char *map = mmap(addr, length, prot, MAP_SHARED | MAP_FIXED_NOREPLACE,
			 any_fd(), REGION(p->index) + offset);

	if (map != addr)
		wrong("mmap of %llu bytes of %s+%#llx failed: %d",
		      (unsigned long long)length, p->name,
		      (unsigned long long)offset, errno);
	return map;
}

static int draw_prot(void)
{
	static const int prots[] = { RW, RW, RW, RW, RW, PROT_READ, PROT_READ,
				     PROT_NONE };

	return prots[draw(ARRAY_SIZE(prots))];
}

static void map_some(void)
{
	struct place place = draw_place(1);
	struct part *p = place.part;
	uint64_t offset = place.offset / page * page, length, shift;
	int prot = draw_prot();

	if (offset >= mappable(p))
		offset = mappable(p) - page;
	length = 1 + draw(4);
	if (chance(35)) {
		/*
		 * Many pages, perhaps from a table's start, perhaps to the end.
		 */
		if (chance(70))
			offset = offset / table * table;
		length = 1 + draw((mappable(p) - offset) / page);
		if (chance(70))
			length = chance(50) ? (mappable(p) - offset) / page :
				 (1 + draw(5)) * table / page;
	}
	length *= page;
	if (length > mappable(p) - offset)
		length = mappable(p) - offset;
	shift = chance(70) ? 0 : page * (1 + draw(3));
	say(" %s+%#llx %llu pages prot %d shift %llu", p->name,
	    (unsigned long long)offset, (unsigned long long)(length / page),
	    prot, (unsigned long long)(shift / page));
	if (!s.fd_count)
		return not_now("no file");
	if (seg_count >= SEGS - 4)
		return not_now("enough mappings");
	segs[seg_count] = (struct seg){
		.addr = map_part(p, offset, length, prot, shift),
		.length = length, .part = p, .offset = offset, .prot = prot,
	};
	seg_count++;
}

static void unmap_some(void)
{
	struct seg *seg = draw_seg();
	uint64_t at, length;

	if (!seg)
		return;
	draw_pages(seg, &at, &length);
	if (seg_count > SEGS - 3) {
		at = 0;
		length = seg->length;
	}
	expect("munmap", munmap(seg->addr + at, length) ? -errno : 0, 0);
	seg = cut(seg, at);
	if (length < seg->length)
		cut(seg, length);
	forget(seg);
}

void unmap_all(void)
{
	while (seg_count) {
		struct seg *seg = &segs[--seg_count];

		expect("munmap", munmap(seg->addr, seg->length) ? -errno : 0, 0);
	}
}

static void protect_some(void)
{
	struct seg *seg = draw_seg();
	uint64_t at, length;
	int prot;

	if (!seg)
		return;
	draw_pages(seg, &at, &length);
	if (seg_count > SEGS - 3)
		return not_now("enough mappings");
	if (chance(10)) {
		prot = PROT_EXEC | draw(4);
		say(" prot %d", prot);
		expect("mprotect", mprotect(seg->addr + at, length, prot) ?
		       -errno : 0, -EACCES);
		return;
	}
	prot = draw_prot();
	say(" prot %d", prot);
	expect("mprotect", mprotect(seg->addr + at, length, prot) ? -errno : 0, 0);
	if (prot == seg->prot)
		return;
	seg = cut(seg, at);
	if (length < seg->length)
		cut(seg, length);
	seg->prot = prot;
}

/* Huge entries may or may not fit at the new place. */
static void move_some(void)
{
	struct seg *seg = draw_seg();
	unsigned int kind = draw(10);
	uint64_t length;
	char *to;

	if (!seg)
		return;
	length = seg->length;
	if (kind == 0) {
		say(" grow");
		length += page * (1 + draw(4));
		if (mremap(seg->addr, seg->length, length, MREMAP_MAYMOVE) !=
		    MAP_FAILED)
			wrong("mremap made a mapping grow");
		return;
	}
	if (kind == 1) {
		say(" double");
		if (mremap(seg->addr, 0, length, MREMAP_MAYMOVE) != MAP_FAILED)
			wrong("mremap made a second mapping");
		return;
	}
	if (kind < 5) {
		length = page * (1 + draw(length / page));
		say(" shrink to %llu pages", (unsigned long long)(length / page));
		to = mremap(seg->addr, seg->length, length, 0);
		if (to != seg->addr)
			wrong("mremap to a smaller length failed: %d", errno);
		seg->length = length;
		return;
	}
	to = free_range(length, chance(50) ? 0 : page * (1 + draw(3)));
	say(" to %p", (void *)to);
	if (mremap(seg->addr, length, length, MREMAP_MAYMOVE | MREMAP_FIXED,
		   to) != to)
		wrong("mremap to another place failed: %d", errno);
	seg->addr = to;
}

/* Whatever the kernel returns, the bytes must not change. */
static void advise_some(void)
{
	static const int advices[] = {
		MADV_NORMAL, MADV_RANDOM, MADV_SEQUENTIAL, MADV_WILLNEED,
		MADV_DONTNEED, MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_COLD,
		MADV_PAGEOUT, MADV_DONTDUMP, MADV_DODUMP, MADV_FREE,
		MADV_REMOVE, MADV_MERGEABLE,
		22 /* MADV_POPULATE_READ */, 23 /* MADV_POPULATE_WRITE */,
		25 /* MADV_COLLAPSE */,
	};
	int advice = advices[draw(ARRAY_SIZE(advices))];
	struct seg *seg = draw_seg();
	int ret;

	if (!seg)
		return;
	/*
	 * For the whole mapping, since some advice makes the kernel split it,
	 * and it is moved as one.
	 */
	ret = madvise(seg->addr, seg->length, advice);
	say(" advice %d = %d", advice, ret ? -errno : 0);
}

static void switch_thp(void)
{
	bool off = chance(50);

	say(" %s", off ? "off" : "on");
	expect("PR_SET_THP_DISABLE", prctl(PR_SET_THP_DISABLE, off, 0, 0, 0), 0);
}

/* What an access to @seg must raise. */
static int expected_signal(const struct seg *seg, bool write)
{
	int need = write ? PROT_WRITE : PROT_READ;

	if (!(seg->prot & need))
		return SIGSEGV;
	return faults_in_reach() ? 0 : SIGBUS;
}

static bool judge(const struct seg *seg, int sig, bool write)
{
	int right = expected_signal(seg, write);

	if (sig != right)
		wrong("the access raised signal %d, expected %d", sig, right);
	if (!sig)
		has_entered();
	return !sig;
}

static void load_some(void)
{
	struct seg *seg = draw_seg();
	struct place place;
	uint8_t seen[TOUCH];
	uint64_t i;
	char *at;

	if (!seg)
		return;
	if (!draw_place_in(seg, TOUCH, &place))
		return not_now("nothing known in it");
	at = seg->addr + (place.offset - seg->offset);
	say(" %s+%#llx count %llu", place.part->name,
	    (unsigned long long)place.offset, (unsigned long long)place.count);
	if (!judge(seg, try_copy(seen, at, place.count), false))
		return;
	for (i = 0; i < place.count; i++)
		if (seen[i] != place.bytes[i])
			wrong("%s+%#llx is %#x in the mapping, expected %#x",
			      place.part->name,
			      (unsigned long long)(place.offset + i), seen[i],
			      place.bytes[i]);
}

static void store_some(void)
{
	struct seg *seg = draw_seg();
	struct place place;
	uint8_t data[TOUCH];

	if (!seg)
		return;
	if (!draw_place_in(seg, TOUCH, &place))
		return not_now("nothing known in it");
	draw_bytes(data, place.count);
	say(" %s+%#llx count %llu", place.part->name,
	    (unsigned long long)place.offset, (unsigned long long)place.count);
	if (judge(seg, try_copy(seg->addr + (place.offset - seg->offset), data,
				place.count), true))
		memcpy(place.bytes, data, place.count);
}

/*
 * Writes a word anywhere in a mapping, where the model knows nothing, through
 * the mapping or the file, and reads it back by the other.
 */
static void tag(void)
{
	struct seg *seg = draw_seg();
	uint64_t at, offset, word = draw(UINT64_MAX), seen = ~word;
	bool mapped = chance(50);

	if (!seg)
		return;
	at = draw(seg->length / page) * page + draw(page / 8) * 8;
	offset = seg->offset + at;
	say(" %s+%#llx %s", seg->part->name, (unsigned long long)offset,
	    mapped ? "stored" : "written");
	if (!s.fd_count || !faults_in_reach() || seg->prot != RW)
		return not_now("out of reach");
	/* The bytes of a partial last page are not in the mapping. */
	if (known(seg->part, offset, 8) || known(seg->part, offset + 7, 1))
		return not_now("known");
	if (mapped) {
		expect("store", try_copy(seg->addr + at, &word, 8), 0);
		expect("pread", dev_read(REGION(seg->part->index) + offset,
					 &seen, 8), 8);
	} else {
		expect("pwrite", dev_write(REGION(seg->part->index) + offset,
					   &word, 8), 8);
		expect("load", try_copy(&seen, seg->addr + at, 8), 0);
	}
	has_entered();
	if (seen != word)
		wrong("%s+%#llx is %#llx, expected %#llx", seg->part->name,
		      (unsigned long long)offset, (unsigned long long)seen,
		      (unsigned long long)word);
}

const struct op mapping_ops[] = {
	OP("load", 14000, load_some),
	OP("store", 14000, store_some),
	OP("tag", 4000, tag),
	OP("mmap", 1600, map_some),
	OP("munmap", 1200, unmap_some),
	OP("mprotect", 1000, protect_some),
	OP("mremap", 1000, move_some),
	OP("madvise", 500, advise_some),
	OP("thp", 200, switch_thp),
	{ }
};
