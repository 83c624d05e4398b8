// SPDX-License-Identifier: GPL-2.0-only
/*
 * The ends of all regions, and writes of any value anywhere in config space.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "random.h"

static int device_ioctl(unsigned long request, void *arg)
{
	return ioctl(any_fd(), request, arg) ? -errno : 0;
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
	OP("region-end", 200, read_across_an_end),
	OP("config-wild", 6, write_anything),
	{ }
};
