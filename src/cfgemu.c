// SPDX-License-Identifier: GPL-2.0-only
/*
 * Owns the fake BAR2 and BAR4 registers in config space: offsets 0x18 to 0x27,
 * or 0x20 to 0x27 without resmem.
 *
 * User space sizes and programs these registers like real BARs, but no access
 * to them reaches the device. They are one contiguous window. The parts of an
 * access outside it go to vfio-pci-core.
 */
#include <linux/pci.h>
#include <linux/uaccess.h>
#include <linux/vfio_pci_core.h>

#include "arith.h"
#include "nvgrace_gpu.h"

/* Bytes of BAR2 to BAR5, two 64-bit registers. */
#define FAKE_MAX	16

/* An access to config space, cut at the edges of the window. */
struct config_access {
	struct nvgrace_gpu_split split;
	unsigned int first;	/* config offset of the first byte inside */
};

/*
 * Cuts an access of @count bytes at @pos. One that runs past config space stays
 * whole, because vfio-pci-core refuses it and no part of it must take effect.
 */
static struct config_access cut(struct nvgrace_gpu *gpu, loff_t pos,
				size_t count)
{
	unsigned int start = gpu->resmem.length ? PCI_BASE_ADDRESS_2 :
						  PCI_BASE_ADDRESS_4;
	u64 offset = pos & VFIO_PCI_OFFSET_MASK;
	struct config_access access = { .split.before = count };

	/* Most accesses are elsewhere. */
	if (offset < PCI_BASE_ADDRESS_5 + 4 && offset + count > start &&
	    offset + count <= gpu->core.pdev->cfg_size) {
		access.split = nvgrace_gpu_split(offset, count, start,
						 PCI_BASE_ADDRESS_5 + 4);
		access.first = start + access.split.first;
	}
	return access;
}

static struct nvgrace_gpu_region *region_at(struct nvgrace_gpu *gpu,
					    unsigned int offset)
{
	return offset < PCI_BASE_ADDRESS_4 ? &gpu->resmem : &gpu->usemem;
}

static void fake_read(struct nvgrace_gpu *gpu, unsigned int offset, u8 *buf,
		      unsigned int count)
{
	struct nvgrace_gpu_region *region;

	spin_lock(&gpu->bar_lock);
	for (; count; count--, offset++) {
		region = region_at(gpu, offset);
		*buf++ = nvgrace_gpu_bar_read_byte(region->bar_written,
						   region->bar_size,
						   offset % 8);
	}
	spin_unlock(&gpu->bar_lock);
}

static unsigned int resets_seen(struct nvgrace_gpu *gpu)
{
	unsigned int resets;

	spin_lock(&gpu->bar_lock);
	resets = gpu->resets;
	spin_unlock(&gpu->bar_lock);
	return resets;
}

/* Drops the write if a reset has come since @resets was read. */
static void fake_write(struct nvgrace_gpu *gpu, unsigned int offset,
		       const u8 *buf, unsigned int count, unsigned int resets)
{
	struct nvgrace_gpu_region *region;

	spin_lock(&gpu->bar_lock);
	if (gpu->resets != resets)
		count = 0;
	for (; count; count--, offset++) {
		region = region_at(gpu, offset);
		region->bar_written =
			nvgrace_gpu_bar_write_byte(region->bar_written,
						   offset % 8, *buf++);
	}
	spin_unlock(&gpu->bar_lock);
}

void nvgrace_gpu_cfgemu_reset(struct nvgrace_gpu *gpu)
{
	spin_lock(&gpu->bar_lock);
	gpu->usemem.bar_written = 0;
	gpu->resmem.bar_written = 0;
	WRITE_ONCE(gpu->resets, gpu->resets + 1);
	spin_unlock(&gpu->bar_lock);
}

ssize_t nvgrace_gpu_cfgemu_read(struct nvgrace_gpu *gpu, char __user *buf,
				size_t count, loff_t *ppos)
{
	struct config_access access = cut(gpu, *ppos, count);
	const struct nvgrace_gpu_split *split = &access.split;
	loff_t pos = *ppos;
	u8 fake[FAKE_MAX];
	ssize_t ret;

	if (split->before) {
		ret = vfio_pci_core_read(&gpu->core.vdev, buf, split->before,
					 &pos);
		if (ret < 0)
			return ret;
	}

	if (split->inside) {
		fake_read(gpu, access.first, fake, split->inside);
		if (copy_to_user(buf + split->before, fake, split->inside))
			return -EFAULT;
		pos += split->inside;
	}

	if (split->after) {
		ret = vfio_pci_core_read(&gpu->core.vdev,
					 buf + split->before + split->inside,
					 split->after, &pos);
		if (ret < 0)
			return ret;
	}

	*ppos = pos;
	return count;
}

ssize_t nvgrace_gpu_cfgemu_write(struct nvgrace_gpu *gpu,
				 const char __user *buf, size_t count,
				 loff_t *ppos)
{
	struct config_access access = cut(gpu, *ppos, count);
	const struct nvgrace_gpu_split *split = &access.split;
	loff_t pos = *ppos;
	unsigned int resets;
	u8 fake[FAKE_MAX];
	ssize_t ret;

	/* Copy first: a fault here must change nothing. */
	if (split->inside &&
	    copy_from_user(fake, buf + split->before, split->inside))
		return -EFAULT;

	if (split->before) {
		ret = vfio_pci_core_write(&gpu->core.vdev, buf, split->before,
					  &pos);
		if (ret < 0)
			return ret;
	}

	pos += split->inside;
	resets = resets_seen(gpu);

	if (split->after) {
		ret = vfio_pci_core_write(&gpu->core.vdev,
					  buf + split->before + split->inside,
					  split->after, &pos);
		if (ret < 0)
			return ret;
	}

	/*
	 * Last, because the write after the window may fault. That write may
	 * also reset the device, and then the registers must read 0, as after
	 * byte-wise writes.
	 */
	if (split->inside)
		fake_write(gpu, access.first, fake, split->inside, resets);

	*ppos = pos;
	return count;
}
