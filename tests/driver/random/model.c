// SPDX-License-Identifier: GPL-2.0-only
/* What the GPU must show; see random.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/pci_regs.h>

#include "random.h"

#define BLOCK		(512 * MiB)
/* The least size of resmem. */
#define RESERVED	(1 * GiB)

/* 64-bit, prefetchable */
#define BAR_FLAGS	0xcULL

/* In the model's config space (lab/model/README.md) */
#define POWER		0xf8

/* Whether the model GPU would report its memory as ready. */
#define MODEL_READY	(MODEL_CTL + 0x18)

struct part parts[2];
struct state s;
struct seg segs[SEGS];
unsigned int seg_count;

uint64_t mappable(const struct part *p)
{
	return p->length / page * page;
}

/* ---- bytes -------------------------------------------------------------- */

static void add_area(struct part *p, uint64_t start, uint64_t end)
{
	struct area *a = &p->areas[p->area_count];

	if (end > p->length)
		end = p->length;
	/* Areas don't overlap: each byte has one place. */
	if (start >= end || (p->area_count &&
			     start < a[-1].start + a[-1].length))
		return;
	assert_true(p->area_count < AREAS);
	a->start = start;
	a->length = end - start;
	a->bytes = malloc(a->length);
	assert_non_null(a->bytes);
	p->area_count++;
}

static void part_init(struct part *p, const char *name, unsigned int index,
		      unsigned int bar, uint64_t phys, uint64_t length)
{
	uint64_t around = 2 * page;

	*p = (struct part){ .name = name, .index = index, .bar = bar,
			    .phys = phys, .length = length, .bar_size = 1 };
	while (p->bar_size < length)
		p->bar_size *= 2;
	add_area(p, 0, 4 * page);
	if (table < BLOCK) {
		add_area(p, table - around, table + around);
		/* Pages of one fault where huge entries don't fit. */
		add_area(p, 8 * MiB - around, 8 * MiB + around);
	}
	add_area(p, BLOCK - around, BLOCK + around);
	/*
	 * The driver's own mappings end here. The area is larger than its
	 * copies.
	 */
	add_area(p, GiB - 300 * KiB, GiB + 300 * KiB);
	add_area(p, mappable(p) - 4 * page, p->length);
}

uint8_t *known(const struct part *p, uint64_t offset, uint64_t count)
{
	unsigned int i;

	for (i = 0; i < p->area_count; i++) {
		const struct area *a = &p->areas[i];

		if (offset >= a->start && offset < a->start + a->length)
			return offset + count <= a->start + a->length ?
			       a->bytes + (offset - a->start) : NULL;
	}
	return NULL;
}

uint64_t draw_count(uint64_t most)
{
	static const unsigned int widths[] = { 1, 2, 4, 8 };
	unsigned int kind = draw(100);
	uint64_t count;

	if (kind < 40)
		count = widths[draw(4)];
	else if (kind < 70)
		count = 1 + draw(80);
	else if (kind < 95)
		count = 1 + draw(2 * page);
	else
		count = 1 + draw(most);
	return count < most ? count : most;
}

/* Draws from [@start, @end): most often near one of its ends or its middle. */
static struct place draw_within(struct part *p, uint64_t start, uint64_t end,
				uint64_t most)
{
	struct place place = { .part = p };
	uint64_t room = end - start, at;

	place.count = draw_count(most < room ? most : room);
	room -= place.count;
	switch (draw(4)) {
	case 0:
		at = draw(room < 64 ? room + 1 : 64);
		break;
	case 1:
		at = room - draw(room < 64 ? room + 1 : 64);
		break;
	case 2:
		/* Across the middle, which is a boundary of some kind. */
		at = (end - start) / 2 / page * page;
		at -= draw(place.count < at ? place.count + 1 : at + 1);
		break;
	default:
		at = draw(room + 1);
		break;
	}
	if (at > room)
		at = room;
	/* Sometimes aligned as a register is. */
	if (place.count <= 8 && chance(50))
		at -= (start + at) % place.count <= at ?
		      (start + at) % place.count : 0;
	place.offset = start + at;
	place.bytes = known(p, place.offset, place.count);
	assert_non_null(place.bytes);
	return place;
}

struct place draw_place(uint64_t most)
{
	struct part *p = &parts[draw(2)];
	struct area *a = &p->areas[draw(p->area_count)];

	return draw_within(p, a->start, a->start + a->length, most);
}

bool draw_place_in(const struct seg *seg, uint64_t most, struct place *place)
{
	struct part *p = seg->part;
	unsigned int i, first = draw(p->area_count);

	for (i = 0; i < p->area_count; i++) {
		struct area *a = &p->areas[(first + i) % p->area_count];
		uint64_t start = a->start, end = a->start + a->length;

		if (start < seg->offset)
			start = seg->offset;
		if (end > seg->offset + seg->length)
			end = seg->offset + seg->length;
		if (start >= end)
			continue;
		*place = draw_within(p, start, end, most);
		return true;
	}
	return false;
}

/* ---- reach -------------------------------------------------------------- */

bool in_reach(void)
{
	return s.open && s.decoding && !s.hot;
}

bool faults_in_reach(void)
{
	return in_reach() && s.low == AWAKE;
}

int any_fd(void)
{
	return s.fds[draw(s.fd_count)];
}

ssize_t dev_read(uint64_t pos, void *buf, size_t count)
{
	ssize_t ret = pread(any_fd(), buf, count, pos);

	return ret < 0 ? -errno : ret;
}

ssize_t dev_write(uint64_t pos, const void *buf, size_t count)
{
	ssize_t ret = pwrite(any_fd(), buf, count, pos);

	return ret < 0 ? -errno : ret;
}

uint32_t gpu_register(uint32_t reg)
{
	uint32_t val;

	expect("a read of BAR0", dev_read(reg, &val, 4), 4);
	return val;
}

/* The first access after a reset must have waited for the memory. */
void has_entered(void)
{
	if (s.low != AWAKE) {
		has_woken();
		return;
	}
	if (s.ready != READY && s.fd_count &&
	    gpu_register(MODEL_READY) != 1)
		wrong("memory was touched before it was ready");
	s.ready = READY;
}

void may_have_entered(void)
{
	if (s.ready != READY)
		s.ready = EITHER;
}

void has_woken(void)
{
	if (s.low == ASLEEP_UNTIL_ACCESS) {
		s.low = AWAKE;
		/* The driver may have checked before or after. */
		s.ready = EITHER;
	}
}

/* ---- config space ------------------------------------------------------- */

bool in_power_register(unsigned int at, unsigned int count)
{
	return at < POWER + 4 && at + count > POWER;
}

void config_written(unsigned int at, unsigned int count)
{
	if (s.ready == READY && at < PCI_COMMAND + 2 && at + count > PCI_COMMAND)
		s.ready = EITHER;
}

void config_expected(unsigned int at, uint8_t *buf, unsigned int count)
{
	unsigned int i, k;
	uint64_t val;

	memcpy(buf, s.config + at, count);
	for (k = 0; k < 2; k++) {
		val = (parts[k].written & ~(parts[k].bar_size - 1)) | BAR_FLAGS;
		for (i = 0; i < 8; i++)
			if (parts[k].bar + i >= at && parts[k].bar + i < at + count)
				buf[parts[k].bar + i - at] = val >> 8 * i;
	}
}

/* ---- life --------------------------------------------------------------- */

void model_reset(void)
{
	parts[0].written = 0;
	parts[1].written = 0;
	s.hot = false;
	if (s.pm_cap)
		s.config[s.pm_cap + PCI_PM_CTRL] &= ~PCI_PM_CTRL_STATE_MASK;
	s.ready = UNKNOWN;
}

/* Offset of a capability in the list at 0x34; 0 if there is none. */
static unsigned int find_capability(uint8_t id)
{
	unsigned int at = s.config[PCI_CAPABILITY_LIST], steps;

	for (steps = 0; at && steps < 48; steps++) {
		if (s.config[at] == id)
			return at;
		at = s.config[at + PCI_CAP_LIST_NEXT];
	}
	return 0;
}

/*
 * Finds the bits of BAR0 that stay when ones are written, and when zeros are.
 */
static void learn_bar0(void)
{
	const unsigned int at = PCI_BASE_ADDRESS_0;
	uint8_t zero[8] = { 0 }, ones[8];

	memset(ones, 0xff, 8);
	expect("config write", dev_write(CONFIG + at, zero, 8), 8);
	expect("config read", dev_read(CONFIG + at, s.bar0_flags, 8), 8);
	expect("config write", dev_write(CONFIG + at, ones, 8), 8);
	expect("config read", dev_read(CONFIG + at, s.bar0_mask, 8), 8);
	expect("config write", dev_write(CONFIG + at, s.config + at, 8), 8);
}

void model_opened(void)
{
	uint8_t seen[CONFIG_SIZE];
	unsigned int i;

	s.open = true;
	model_reset();
	s.low = AWAKE;
	for (i = 0; i < CONFIG_SIZE; i++)
		expect("config read", dev_read(CONFIG + i, &s.config[i], 1), 1);
	s.decoding = s.config[PCI_COMMAND] & PCI_COMMAND_MEMORY;
	if (!s.decoding)
		wrong("an open leaves memory decoding off");
	config_expected(0, seen, CONFIG_SIZE);
	for (i = PCI_BASE_ADDRESS_2; i < PCI_BASE_ADDRESS_5 + 4; i++)
		if (s.config[i] != seen[i])
			wrong("after an open, config byte %#x is %#x, expected %#x",
			      i, s.config[i], seen[i]);
	if (!s.pm_cap && !s.exp_cap) {
		s.pm_cap = find_capability(PCI_CAP_ID_PM);
		s.exp_cap = find_capability(PCI_CAP_ID_EXP);
		learn_bar0();
	}
}

void settle(void)
{
	if (!s.open || s.fd_count || seg_count)
		return;
	s.open = false;
	s.low = AWAKE;
	s.hot = false;
	s.ready = UNKNOWN;
}

void model_init(const struct gpu *gpu)
{
	uint64_t usemem = (gpu->size - RESERVED) / BLOCK * BLOCK;

	s.gpu = gpu;
	part_init(&parts[0], "usemem", USEMEM, PCI_BASE_ADDRESS_4, gpu->base,
		  usemem);
	part_init(&parts[1], "resmem", RESMEM, PCI_BASE_ADDRESS_2,
		  gpu->base + usemem, gpu->size - usemem);
	fill(parts[0].areas[0].bytes, parts[0].areas[0].length, 1);
}
