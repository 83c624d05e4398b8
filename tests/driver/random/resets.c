// SPDX-License-Identifier: GPL-2.0-only
/*
 * What makes the memory inaccessible: resets of every kind, power states,
 * decoding, low power; and when it is ready again.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <linux/pci_regs.h>

#include "random.h"

/* Number of resets that the device has seen, 0 if it is out of reach. */
static uint32_t resets(void)
{
	return s.fd_count && in_reach() && s.low == AWAKE ?
	       gpu_register(MODEL_RESETS) : 0;
}

static bool can_reset(void)
{
	if (s.low == AWAKE)
		return true;
	not_now("asleep");
	return false;
}

static void after_reset(uint32_t before)
{
	model_reset();
	if (before && s.decoding && resets() <= before)
		wrong("the reset has not reached the device");
}

static void reset_by_ioctl(void)
{
	uint32_t before;

	if (!s.fd_count || !can_reset())
		return not_now("no file");
	before = resets();
	expect("VFIO_DEVICE_RESET",
	       ioctl(any_fd(), VFIO_DEVICE_RESET) ? -errno : 0, 0);
	after_reset(before);
}

static void reset_by_sysfs(void)
{
	uint32_t before;

	if (!s.bound || !can_reset())
		return not_now("not bound");
	before = resets();
	expect("reset", gpu_sysfs_write(s.gpu, "reset", "1"), 0);
	after_reset(before);
	if (!s.open)
		s.ready = EITHER;
}

/* Sometimes writes the fake BARs in the same access. */
static void reset_by_config(void)
{
	unsigned int end = s.exp_cap + PCI_EXP_DEVCTL + 2;
	uint8_t data[CONFIG_SIZE];
	unsigned int at = end - 2;
	uint32_t before;

	if (!s.fd_count || !can_reset())
		return not_now("no file");
	config_expected(0, data, end);
	/*
	 * The registers in between get what they hold, the power state
	 * included.
	 */
	if (chance(20) && !s.hot)
		at = 0x18;
	if (at == 0x18)
		draw_bytes(data + 0x18, 16);
	data[end - 1] |= PCI_EXP_DEVCTL_BCR_FLR >> 8;
	say(" %#x count %u", at, end - at);
	before = resets();
	expect("config write", dev_write(CONFIG + at, data + at, end - at),
	       end - at);
	after_reset(before);
}

static void reset_hot(void)
{
	struct vfio v = s.v;
	uint32_t before;

	if (!s.fd_count || !can_reset())
		return not_now("no file");
	v.device = any_fd();
	before = resets();
	expect("VFIO_DEVICE_PCI_HOT_RESET", vfio_hot_reset(&v), 0);
	after_reset(before);
}

/*
 * After the next resets, the memory becomes ready late: after more than the 100
 * ms that the kernel gives a device, in which no access could be too early.
 */
static void delay_readiness(void)
{
	uint32_t ms = chance(60) ? 0 : 120 + draw(200);

	say(" %u ms", ms);
	if (!s.fd_count || !in_reach() || s.low != AWAKE)
		return not_now("out of reach");
	expect("pwrite", dev_write(MODEL_RESET_DELAY, &ms, 4), 4);
}

static void ask_readiness(void)
{
	char text[16];

	if (!s.bound)
		return not_now("not bound");
	gpu_sysfs_read(s.gpu, "nvgrace_gpu/readiness", text, sizeof(text));
	say(" %s", text);
	if (s.ready != EITHER &&
	    strcmp(text, s.ready == READY ? "ready" : "unknown"))
		wrong("readiness is \"%s\", expected \"%s\"", text,
		      s.ready == READY ? "ready" : "unknown");
}

/* ---- power and decoding ------------------------------------------------- */

static void set_decoding(bool on)
{
	static const struct {
		unsigned int at;
		unsigned int count;
	} ways[] = { { 4, 1 }, { 4, 2 }, { 4, 4 }, { 0, 64 } };
	uint8_t data[64];
	size_t i = draw(ARRAY_SIZE(ways));

	config_expected(0, data, sizeof(data));
	data[PCI_COMMAND] &= ~PCI_COMMAND_MEMORY;
	data[PCI_COMMAND] |= on ? PCI_COMMAND_MEMORY : 0;
	say(" %s by %u bytes", on ? "on" : "off", ways[i].count);
	expect("config write", dev_write(CONFIG + ways[i].at, data + ways[i].at,
					 ways[i].count), ways[i].count);
	s.config[PCI_COMMAND] = data[PCI_COMMAND];
	config_written(ways[i].at, ways[i].count);
	s.decoding = on;
}

static void decode(void)
{
	bool on = chance(85);

	if (!s.fd_count || s.low != AWAKE)
		return not_now("no file, or asleep");
	set_decoding(on);
}

static void set_hot(bool hot)
{
	/*
	 * The register alone, with what follows it, and with what precedes it.
	 */
	static const struct {
		unsigned int before;
		unsigned int count;
	} ways[] = { { 0, 2 }, { 0, 4 }, { 4, 8 } };
	unsigned int reg = s.pm_cap + PCI_PM_CTRL;
	size_t i = draw(ARRAY_SIZE(ways));
	uint8_t data[8];

	config_expected(reg - ways[i].before, data, 8);
	data[ways[i].before] &= ~PCI_PM_CTRL_STATE_MASK;
	data[ways[i].before] |= hot ? 3 : 0;
	say(" D%d by %u bytes", hot ? 3 : 0, ways[i].count);
	expect("config write", dev_write(CONFIG + reg - ways[i].before, data,
					 ways[i].count), ways[i].count);
	s.config[reg] = data[ways[i].before];
	s.ready = hot == s.hot ? EITHER : UNKNOWN;
	s.hot = hot;
}

static void change_power(void)
{
	bool hot = chance(20);

	if (!s.fd_count || s.low != AWAKE)
		return not_now("no file, or asleep");
	set_hot(hot);
}

static int low_power_feature(uint32_t feature, const void *data, size_t size)
{
	struct vfio v = { .gpu = s.gpu, .device = any_fd() };

	return vfio_set_feature(&v, feature, data, size);
}

static void leave_low_power(void)
{
	expect("LOW_POWER_EXIT",
	       low_power_feature(VFIO_DEVICE_FEATURE_LOW_POWER_EXIT, NULL, 0), 0);
	s.low = AWAKE;
	/*
	 * Whether the driver checks readiness while the GPU wakes is
	 * unspecified.
	 */
	s.ready = EITHER;
}

static void enter_low_power(void)
{
	struct vfio_device_low_power_entry_with_wakeup w = { };
	bool until_access = chance(50);
	int fd;

	say(" %s", until_access ? "until an access" : "until told");
	if (!s.fd_count || s.low != AWAKE || !in_reach())
		return not_now("no file, asleep, or out of reach");
	if (until_access) {
		/* The kernel keeps its own reference. */
		fd = eventfd(0, EFD_CLOEXEC);
		w.wakeup_eventfd = fd;
		expect("LOW_POWER_ENTRY_WITH_WAKEUP",
		       low_power_feature(VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP,
					 &w, sizeof(w)), 0);
		close(fd);
	} else {
		expect("LOW_POWER_ENTRY",
		       low_power_feature(VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY,
					 NULL, 0), 0);
	}
	s.low = until_access ? ASLEEP_UNTIL_ACCESS : ASLEEP;
	s.ready = UNKNOWN;
	wait_until_asleep(s.gpu);
}

static void exit_low_power(void)
{
	if (!s.fd_count || s.low == AWAKE)
		return not_now("awake");
	leave_low_power();
}

void back_to_normal(void)
{
	if (!s.bound) {
		expect("bind", gpu_bind(s.gpu), 0);
		s.bound = true;
	}
	open_session();
	if (s.low != AWAKE)
		leave_low_power();
	if (s.hot)
		set_hot(false);
	if (!s.decoding)
		set_decoding(true);
}

const struct op reset_ops[] = {
	OP("reset", 40, reset_by_ioctl),
	OP("reset-sysfs", 40, reset_by_sysfs),
	OP("reset-config", 40, reset_by_config),
	OP("reset-hot", 10, reset_hot),
	OP("delay", 100, delay_readiness),
	OP("readiness", 2000, ask_readiness),
	OP("decode", 500, decode),
	OP("power-state", 600, change_power),
	OP("low-power", 30, enter_low_power),
	OP("low-power-exit", 400, exit_low_power),
	{ }
};
