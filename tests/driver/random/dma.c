// SPDX-License-Identifier: GPL-2.0-only
/*
 * DMA by the GPU, to a buffer and to its own memory through a mapping; and
 * dma-bufs, with the importer of tests/lab/modules.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../lab/modules/importer/importer.h"
#include "random.h"

#define SLOTS		4
#define BUFFER		(4 * page)
#define IOVA(slot)	(0x10000000ULL + (slot) * 0x1000000ULL)

/* Bytes of one call to the host. */
#define MOST		64

static struct slot {
	bool mapped;
	uint8_t *bytes;		/* the buffer, or the model's bytes */
	uint64_t length;
} slots[SLOTS];

static uint8_t *buffers[SLOTS];

/* Closing the container has removed all its mappings. */
void dma_forget(void)
{
	memset(slots, 0, sizeof(slots));
}

/* Maps a buffer of the program's, or a known range of a mapping of the GPU. */
static void map_dma(void)
{
	unsigned int i = draw(SLOTS);
	struct vfio_iommu_type1_dma_map m = {
		.argsz = sizeof(m),
		.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
		.iova = IOVA(i),
	};
	struct seg *seg = seg_count && chance(50) ? &segs[draw(seg_count)] : NULL;
	struct place place;
	int ret;

	if (!s.fd_count || slots[i].mapped || s.low != AWAKE)
		return not_now("no file, or mapped");
	if (seg && seg->prot == RW && draw_place_in(seg, 1, &place)) {
		place.offset = place.offset / page * page;
		place.bytes = known(place.part, place.offset, page);
		if (!place.bytes || place.offset < seg->offset)
			return not_now("nothing known in it");
		m.vaddr = (uintptr_t)seg->addr + (place.offset - seg->offset);
		m.size = page;
		slots[i] = (struct slot){ false, place.bytes, page };
		say(" %u: %s+%#llx", i, place.part->name,
		    (unsigned long long)place.offset);
	} else {
		seg = NULL;
		if (!buffers[i])
			buffers[i] = mmap(NULL, BUFFER, RW, MAP_PRIVATE |
					  MAP_ANONYMOUS, -1, 0);
		assert_true(buffers[i] != MAP_FAILED);
		m.vaddr = (uintptr_t)buffers[i];
		m.size = BUFFER;
		slots[i] = (struct slot){ false, buffers[i], BUFFER };
		say(" %u: buffer", i);
	}
	ret = ioctl(s.v.iommu, VFIO_IOMMU_MAP_DMA, &m) ? -errno : 0;
	if (seg && !faults_in_reach()) {
		if (!ret)
			wrong("DMA to memory out of reach was mapped");
		return;
	}
	expect("VFIO_IOMMU_MAP_DMA", ret, 0);
	slots[i].mapped = true;
	if (seg)
		has_entered();
}

static void unmap_all_dma(void)
{
	struct vfio_iommu_type1_dma_unmap u = {
		.argsz = sizeof(u),
		.flags = VFIO_DMA_UNMAP_FLAG_ALL,
	};
	uint64_t all = 0;
	unsigned int i;

	for (i = 0; i < SLOTS; i++)
		all += slots[i].mapped ? slots[i].length : 0;
	say(" all");
	expect("VFIO_IOMMU_UNMAP_DMA",
	       ioctl(s.v.iommu, VFIO_IOMMU_UNMAP_DMA, &u) ? -errno : 0, 0);
	expect("bytes unmapped", u.size, all);
	dma_forget();
}

static void unmap_dma(void)
{
	unsigned int i = draw(SLOTS);
	struct vfio_iommu_type1_dma_unmap u = {
		.argsz = sizeof(u),
		.iova = IOVA(i),
		.size = slots[i].length,
	};

	if (s.session && chance(10))
		return unmap_all_dma();
	if (!slots[i].mapped)
		return not_now("not mapped");
	say(" %u", i);
	expect("VFIO_IOMMU_UNMAP_DMA",
	       ioctl(s.v.iommu, VFIO_IOMMU_UNMAP_DMA, &u) ? -errno : 0, 0);
	expect("bytes unmapped", u.size, slots[i].length);
	slots[i].mapped = false;
}

static bool can_do_dma(void)
{
	return machine_has("dma");
}

/* The GPU does it on request of the host. */
static void do_dma(void)
{
	unsigned int i = draw(SLOTS);
	uint64_t count = 1 + draw(MOST), at, k;
	char text[2 * MOST + 64], right[2 * MOST + 1];
	bool write = chance(50);
	uint8_t data[MOST];

	if (!slots[i].mapped || !s.fd_count || !in_reach() || s.low != AWAKE)
		return not_now("not mapped, or out of reach");
	at = draw(slots[i].length - count);
	say(" %u %s +%#llx count %llu", i, write ? "writes" : "reads",
	    (unsigned long long)at, (unsigned long long)count);
	set_bus_master();
	if (write)
		draw_bytes(data, count);
	else
		memcpy(data, slots[i].bytes + at, count);
	for (k = 0; k < count; k++)
		sprintf(right + 2 * k, "%02x", data[k]);
	if (write) {
		if (!host_try(text, sizeof(text), "dma_write %s %#llx %s",
			      s.gpu->name, (unsigned long long)(IOVA(i) + at),
			      right))
			wrong("DMA failed: %s", text);
		if (slots[i].bytes == buffers[i]) {
			if (memcmp(buffers[i] + at, data, count))
				wrong("the buffer has not what DMA wrote");
		} else {
			memcpy(slots[i].bytes + at, data, count);
		}
		return;
	}
	if (!host_try(text, sizeof(text), "dma_read %s %#llx %llu", s.gpu->name,
		      (unsigned long long)(IOVA(i) + at),
		      (unsigned long long)count))
		wrong("DMA failed: %s", text);
	if (strcmp(text, right))
		wrong("DMA has read %s, expected %s", text, right);
}

/* ---- dma-bufs ----------------------------------------------------------- */

#define RANGES		3

static bool can_export(void)
{
	return load_helper("importer");
}

static int attach(int dmabuf)
{
	struct importer_attach a = {
		.fd = dmabuf, .revocable = 1,
		.domain = s.gpu->domain, .bus = s.gpu->bus, .devfn = s.gpu->dev << 3 | s.gpu->fn,
	};
	int fd = open("/dev/dmabuf_importer", O_RDWR | O_CLOEXEC);

	assert_true(fd >= 0);
	expect("attach", ioctl(fd, IMPORTER_ATTACH, &a) ? -errno : 0, 0);
	return fd;
}

static void export_some(void)
{
	struct place place = draw_place(1);
	struct part *p = place.part;
	struct dma_range ranges[RANGES], *last = ranges;
	bool good = true;
	struct vfio v = { .gpu = s.gpu };
	struct importer_map m;
	unsigned int i, count = 1 + draw(RANGES);
	int dmabuf, importer;

	for (i = 0; i < count; i++) {
		last = &ranges[i];
		last->offset = (i ? draw(mappable(p)) : place.offset) / page * page;
		last->length = (1 + draw(8)) * page;
		good &= last->offset + last->length <= mappable(p);
	}
	if (chance(30)) {
		last->offset = mappable(p) + draw(100) * page;
		good = false;
	}
	say(" %u ranges, %s+%#llx length %#llx", count, p->name,
	    (unsigned long long)last->offset, (unsigned long long)last->length);
	if (!s.fd_count || !faults_in_reach())
		return not_now("out of reach");
	v.device = any_fd();
	if (chance(30)) {
		/* An export does not wait for the memory. */
		say(" after a reset");
		expect("VFIO_DEVICE_RESET", vfio_reset(&v), 0);
		model_reset();
	}
	dmabuf = vfio_dma_buf(&v, p->index, 0, count, ranges);
	if (!good) {
		expect("export of no memory", dmabuf, -EINVAL);
		return;
	}
	if (dmabuf < 0)
		wrong("export: %d", dmabuf);
	importer = attach(dmabuf);
	expect("map", ioctl(importer, IMPORTER_MAP, &m) ? -errno : 0, 0);
	expect("entries", m.count, count);
	for (i = 0; i < count; i++) {
		expect("address", m.entries[i].address, p->phys + ranges[i].offset);
		expect("length", m.entries[i].length, ranges[i].length);
	}
	if (chance(20)) {
		/*
		 * The reset revokes it, as the importer has promised to accept.
		 */
		say(" and reset");
		expect("VFIO_DEVICE_RESET",
		       ioctl(any_fd(), VFIO_DEVICE_RESET) ? -errno : 0, 0);
		model_reset();
		expect("state", ioctl(importer, IMPORTER_STATE, &m) ? -errno : 0, 0);
		if (!m.invalidated)
			wrong("the reset has not taken the dma-buf away");
	}
	close(importer);
	close(dmabuf);
}

const struct op dma_ops[] = {
	OP("dma-map", 200, map_dma),
	OP("dma-unmap", 150, unmap_dma),
	OP_IF("dma", 300, do_dma, can_do_dma),
	OP_IF("dma-buf", 150, export_some, can_export),
	{ }
};
