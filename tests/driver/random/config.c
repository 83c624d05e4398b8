// SPDX-License-Identifier: GPL-2.0-only
/* Accesses of any width to config space, including the BAR registers. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>

#include <linux/pci_regs.h>

#include "random.h"

#define FAKE_START	PCI_BASE_ADDRESS_2
#define FAKE_END	(PCI_BASE_ADDRESS_5 + 4)
#define HEADER		0x40

static unsigned int draw_width(unsigned int most)
{
	static const unsigned int widths[] = { 1, 2, 4, 8 };
	unsigned int width = chance(50) ? widths[draw(4)] : 1 + draw(64);

	return width < most ? width : most;
}

static void read_config(void)
{
	unsigned int at, count, i;
	uint8_t seen[CONFIG_SIZE + 64], right[CONFIG_SIZE];
	int64_t ret;

	at = chance(60) ? draw(HEADER) : draw(chance(60) ? 256 : CONFIG_SIZE);
	count = chance(2) ? 1 + draw(CONFIG_SIZE - at) : draw_width(64);
	say(" %#x count %u", at, count);
	if (!s.fd_count)
		return not_now("no file");
	memset(seen, 0xa5, sizeof(seen));
	ret = dev_read(CONFIG + at, seen, count);
	/* Emulated registers need no device. */
	if (at < FAKE_START || at + count > FAKE_END)
		has_woken();
	if (at + count > CONFIG_SIZE) {
		if (ret >= 0)
			wrong("a config read past the end returned %lld",
			      (long long)ret);
		return;
	}
	expect("config read", ret, count);
	config_expected(at, right, count);
	for (i = 0; i < count; i++)
		if (seen[i] != right[i] && !in_power_register(at + i, 1))
			wrong("config byte %#x is %#x, expected %#x", at + i,
			      seen[i], right[i]);
	if (seen[count] != 0xa5)
		wrong("config read wrote behind its buffer");
}

/* What a write of @data leaves in the fake BARs and in BAR0. */
static void model_write(unsigned int at, const uint8_t *data, unsigned int count)
{
	unsigned int i, k, reg;
	uint64_t shift;

	for (i = 0; i < count; i++) {
		reg = at + i;
		for (k = 0; k < 2; k++) {
			if (reg < parts[k].bar || reg >= parts[k].bar + 8)
				continue;
			shift = 8 * (reg - parts[k].bar);
			parts[k].written &= ~(0xffULL << shift);
			parts[k].written |= (uint64_t)data[i] << shift;
		}
		if (reg >= PCI_BASE_ADDRESS_0 && reg < PCI_BASE_ADDRESS_2)
			s.config[reg] = (data[i] & s.bar0_mask[reg - 0x10]) |
					s.bar0_flags[reg - 0x10];
	}
}

/*
 * Of the real registers, only BAR0 changes. The others are written with what
 * they hold, since some would reset the device or put it into low power.
 */
static void write_config(void)
{
	unsigned int at, count, i, good;
	uint8_t data[HEADER + 8];
	static char *hole;
	char *buffer;
	int64_t ret;

	at = chance(80) ? 0x10 + draw(FAKE_END - 0x10) : draw(HEADER);
	count = draw_width(HEADER - at);
	config_expected(0, data, HEADER);
	for (i = PCI_BASE_ADDRESS_0; i < FAKE_END; i++)
		data[i] = chance(20) ? (chance(50) ? 0xff : 0) : draw(256);
	say(" %#x count %u", at, count);
	for (i = at; i < at + count && i < at + 16; i++)
		say("%s%02x", i == at ? " " : "", data[i]);
	if (!s.fd_count || s.low != AWAKE)
		return not_now("no file, or asleep");

	config_written(at, count);
	if (!chance(15)) {
		expect("config write", dev_write(CONFIG + at, data + at, count),
		       count);
		model_write(at, data + at, count);
		return;
	}

	/* A write that faults leaves the fake BARs alone. */
	good = draw(count);
	say(" faults after %u", good);
	if (!hole)
		hole = page_before_hole();
	buffer = hole + page - good;
	config_expected(0, data, HEADER);
	for (i = FAKE_START; i < FAKE_END; i++)
		data[i] = draw(256);
	memcpy(buffer, data + at, good);
	ret = dev_write(CONFIG + at, buffer, count);
	expect("config write", ret, -EFAULT);
}

/*
 * What the device is afterwards, nobody knows: it may be reset, in another
 * power state or without decoding. An open brings it back. The memory keeps its
 * content.
 */
static void write_anything(void)
{
	unsigned int i, count, at, writes = 1 + draw(20);
	uint8_t data[8];
	int64_t ret;

	if (!s.fd_count || s.low != AWAKE)
		return not_now("no file, or asleep");
	for (i = 0; i < writes; i++) {
		count = 1 + draw(8);
		at = draw((chance(60) ? 256 : CONFIG_SIZE) - count + 1);
		draw_bytes(data, count);
		if (in_power_register(at, count))
			continue;
		ret = dev_write(CONFIG + at, data, count);
		say(" %#x+%u", at, count);
		if (ret > (int64_t)count)
			wrong("a write of %u bytes returned %lld", count,
			      (long long)ret);
	}
	close_session();
	open_session();
}

const struct op config_ops[] = {
	OP("config-read", 6000, read_config),
	OP("config-write", 4000, write_config),
	OP("config-wild", 6, write_anything),
	{ }
};
