// SPDX-License-Identifier: GPL-2.0-only
/*
 * Queries, interrupts, regions that a GPU lacks, and writes of any value
 * anywhere in config space.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "random.h"

static int device_ioctl(unsigned long request, void *arg)
{
	return ioctl(any_fd(), request, arg) ? -errno : 0;
}

static void ask_for_info(void)
{
	struct vfio_device_info info = { .argsz = sizeof(info) };

	if (!s.fd_count || s.low != AWAKE)
		return not_now("no file, or asleep");
	expect("VFIO_DEVICE_GET_INFO", device_ioctl(VFIO_DEVICE_GET_INFO, &info), 0);
	if (~info.flags & (VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET))
		wrong("the device's flags are %#x", info.flags);
	expect("regions", info.num_regions, VFIO_PCI_NUM_REGIONS);
	expect("interrupts", info.num_irqs, VFIO_PCI_NUM_IRQS);
}

/* Of the container and the group, which the device in use keeps as they are. */
static void ask_the_group(void)
{
	struct vfio_group_status status = { .argsz = sizeof(status) };

	if (!s.session || !s.fd_count)
		return not_now("no file");
	expect("VFIO_GET_API_VERSION", ioctl(s.v.iommu, VFIO_GET_API_VERSION),
	       VFIO_API_VERSION);
	expect("VFIO_CHECK_EXTENSION",
	       ioctl(s.v.iommu, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU), 1);
	expect("VFIO_GROUP_GET_STATUS",
	       ioctl(s.v.group, VFIO_GROUP_GET_STATUS, &status) ? -errno : 0, 0);
	expect("the group's flags", status.flags,
	       VFIO_GROUP_FLAGS_VIABLE | VFIO_GROUP_FLAGS_CONTAINER_SET);
	expect("VFIO_GROUP_SET_CONTAINER",
	       ioctl(s.v.group, VFIO_GROUP_SET_CONTAINER, &s.v.iommu) ?
	       -errno : 0, -EINVAL);
	expect("VFIO_GROUP_UNSET_CONTAINER",
	       ioctl(s.v.group, VFIO_GROUP_UNSET_CONTAINER) ? -errno : 0, -EBUSY);
}

/* A probe changes nothing. */
static void probe_feature(void)
{
	static const struct {
		uint32_t feature;
		int result;
	} probes[] = {
		{ VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY, 0 },
		{ VFIO_DEVICE_FEATURE_SET |
		  VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP, 0 },
		{ VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_LOW_POWER_EXIT, 0 },
		{ VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_PCI_VF_TOKEN, -ENOTTY },
		{ VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIGRATION, -ENOTTY },
	};
	size_t i = draw(ARRAY_SIZE(probes));
	struct vfio_device_feature f = {
		.argsz = sizeof(f),
		.flags = VFIO_DEVICE_FEATURE_PROBE | probes[i].feature,
	};

	say(" %#x", probes[i].feature);
	if (!s.fd_count || s.low != AWAKE)
		return not_now("no file, or asleep");
	expect("VFIO_DEVICE_FEATURE_PROBE", device_ioctl(VFIO_DEVICE_FEATURE, &f),
	       probes[i].result);
}

/* ---- interrupts --------------------------------------------------------- */

static int set_irq(unsigned int index, uint32_t flags, int32_t data)
{
	union {
		struct vfio_irq_set set;
		char bytes[sizeof(struct vfio_irq_set) + sizeof(data)];
	} u = { .set = {
		.argsz = sizeof(u), .flags = flags, .index = index, .count = 1,
	} };

	memcpy(u.set.data, &data, sizeof(data));
	return device_ioctl(VFIO_DEVICE_SET_IRQS, &u);
}

/* Of errors, and of requests to release the GPU: the user can signal both. */
static void signal_irq(void)
{
	unsigned int index = VFIO_PCI_ERR_IRQ_INDEX + draw(2), i, signals = draw(4);
	struct vfio_irq_info info = { .argsz = sizeof(info), .index = index };
	bool keep = chance(30), none;
	uint64_t seen = 0;
	int fd;

	say(" %u, %u times", index, signals);
	if (!s.fd_count || s.low != AWAKE)
		return not_now("no file, or asleep");
	expect("VFIO_DEVICE_GET_IRQ_INFO",
	       device_ioctl(VFIO_DEVICE_GET_IRQ_INFO, &info), 0);
	expect("interrupts", info.count, 1);
	expect("masking", set_irq(index, VFIO_IRQ_SET_ACTION_MASK |
				  VFIO_IRQ_SET_DATA_NONE, 0), -ENOTTY);

	fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	expect("an eventfd", set_irq(index, VFIO_IRQ_SET_ACTION_TRIGGER |
				     VFIO_IRQ_SET_DATA_EVENTFD, fd), 0);
	for (i = 0; i < signals; i++) {
		none = chance(50);
		expect("a signal",
		       set_irq(index, VFIO_IRQ_SET_ACTION_TRIGGER |
			       (none ? VFIO_IRQ_SET_DATA_NONE : VFIO_IRQ_SET_DATA_BOOL),
			       1), 0);
	}
	if (chance(50))
		expect("no signal", set_irq(index, VFIO_IRQ_SET_ACTION_TRIGGER |
					    VFIO_IRQ_SET_DATA_BOOL, 0), 0);
	if (read(fd, &seen, sizeof(seen)) < 0 && errno != EAGAIN)
		wrong("reading the eventfd: %d", -errno);
	expect("signals", seen, signals);
	/* The kernel has its own reference, until the next one or the close. */
	if (!keep)
		expect("no eventfd", set_irq(index, VFIO_IRQ_SET_ACTION_TRIGGER |
					     VFIO_IRQ_SET_DATA_EVENTFD, -1), 0);
	close(fd);
}

static void ask_for_no_irq(void)
{
	unsigned int index = VFIO_PCI_NUM_IRQS + draw(chance(50) ? 3 : UINT32_MAX / 2);
	struct vfio_irq_info info = { .argsz = sizeof(info), .index = index };

	say(" %u", index);
	if (!s.fd_count || s.low != AWAKE)
		return not_now("no file, or asleep");
	expect("VFIO_DEVICE_GET_IRQ_INFO",
	       device_ioctl(VFIO_DEVICE_GET_IRQ_INFO, &info), -EINVAL);
	expect("VFIO_DEVICE_SET_IRQS",
	       set_irq(index, VFIO_IRQ_SET_ACTION_TRIGGER | VFIO_IRQ_SET_DATA_NONE, 0),
	       -EINVAL);
}

/* ---- nowhere, and anything ---------------------------------------------- */

static void use_absent_region(void)
{
	static const unsigned int absent[] = {
		VFIO_PCI_BAR1_REGION_INDEX, VFIO_PCI_BAR3_REGION_INDEX,
		VFIO_PCI_BAR5_REGION_INDEX, VFIO_PCI_ROM_REGION_INDEX,
		VFIO_PCI_VGA_REGION_INDEX, VFIO_PCI_NUM_REGIONS,
	};
	unsigned int index = absent[draw(ARRAY_SIZE(absent))];
	uint64_t pos = REGION(index) + draw(chance(50) ? 64 : 1ULL << 39);
	uint64_t count = draw_count(KiB);
	uint8_t bytes[KiB] = { 0 };

	say(" %u at %#llx", index, (unsigned long long)pos);
	if (!s.fd_count || s.low != AWAKE)
		return not_now("no file, or asleep");
	expect("pread", dev_read(pos, bytes, count), -EINVAL);
	expect("pwrite", dev_write(pos, bytes, count), -EINVAL);
	if (mmap(NULL, page, RW, MAP_SHARED, any_fd(), pos / page * page) != MAP_FAILED)
		wrong("mmap succeeded");
}

/*
 * Each region that the device states has the bytes that it states: a read across its
 * end brings no more. memory.c has the fake BARs, with what they hold.
 */
static void read_across_an_end(void)
{
	struct vfio_device_info info = { .argsz = sizeof(info) };
	struct vfio v = { .gpu = s.gpu, .device = -1 };
	uint64_t number = draw(UINT64_MAX), back = draw(300), count = 1 + draw(256), left, i;
	uint8_t bytes[256];
	struct vfio_region r;
	unsigned int index;
	int64_t ret;

	if (!s.fd_count || s.low != AWAKE)
		return not_now("no file, or asleep");
	v.device = any_fd();
	expect("VFIO_DEVICE_GET_INFO", device_ioctl(VFIO_DEVICE_GET_INFO, &info), 0);
	index = number % info.num_regions;
	say(" %u, %llu before its end, count %llu", index, (unsigned long long)back,
	    (unsigned long long)count);
	if (index == USEMEM || index == RESMEM || vfio_get_region(&v, index, &r))
		return;
	back = back < r.size ? back : r.size;
	left = back < count ? back : count;
	memset(bytes, 0xa5, sizeof(bytes));
	ret = dev_read(r.offset + r.size - back, bytes, count);
	if (ret > (int64_t)left)
		wrong("a read of region %u returned %lld", index, (long long)ret);
	for (i = left; i < sizeof(bytes); i++)
		if (bytes[i] != 0xa5)
			wrong("a read of region %u wrote behind its end", index);
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

const struct op call_ops[] = {
	OP("device-info", 100, ask_for_info),
	OP("group-info", 100, ask_the_group),
	OP("feature-probe", 200, probe_feature),
	OP("interrupt", 200, signal_irq),
	OP("interrupt-none", 50, ask_for_no_irq),
	OP("region-none", 200, use_absent_region),
	OP("region-end", 200, read_across_an_end),
	OP("config-wild", 6, write_anything),
	{ }
};
