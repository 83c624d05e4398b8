// SPDX-License-Identifier: GPL-2.0-only
/*
 * Export of GPU memory as dma-bufs, and what an importer gets. The importer is
 * the module in tests/lab/modules/importer, which shows the addresses. It
 * imports for the exporting GPU itself: peer-to-peer DMA between other devices
 * requires a host bridge that the kernel knows, and an emulated one is unknown
 * to it. Needs a kernel with CONFIG_VFIO_PCI_DMABUF.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../lab/modules/importer/importer.h"
#include "lib.h"

#define COMMAND		(CONFIG + 4)
#define COMMAND_MEMORY	2

/* Returns a file descriptor or a negative errno. */
static int export(struct vfio *dev, unsigned int region, uint64_t offset,
		  uint64_t length)
{
	struct dma_range range = { offset, length };

	return vfio_dma_buf(dev, region, 0, 1, &range);
}

static int must_export(struct vfio *dev, unsigned int region, uint64_t offset,
		       uint64_t length)
{
	int fd = export(dev, region, offset, length);

	if (fd < 0)
		fail_msg("exporting %#llx bytes at %#llx of region %u: %s",
			 (unsigned long long)length, (unsigned long long)offset,
			 region, strerror(-fd));
	return fd;
}

static int importer_open(void)
{
	int fd = open("/dev/dmabuf_importer", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		fail_msg("/dev/dmabuf_importer: %s", strerror(errno));
	return fd;
}

static int attach(int importer, int dmabuf, const struct gpu *gpu,
		  bool revocable)
{
	struct importer_attach a = {
		.fd = dmabuf, .revocable = revocable,
		.domain = gpu->domain, .bus = gpu->bus, .devfn = gpu->dev << 3 | gpu->fn,
	};

	return ioctl(importer, IMPORTER_ATTACH, &a) ? -errno : 0;
}

/* Attaches without mapping. */
static int import(int dmabuf, const struct gpu *gpu)
{
	int fd = importer_open();

	assert_int_equal(attach(fd, dmabuf, gpu, true), 0);
	return fd;
}

static int map(int importer, struct importer_map *m)
{
	return ioctl(importer, IMPORTER_MAP, m) ? -errno : 0;
}

static struct importer_map state_of(int importer)
{
	struct importer_map m;

	assert_int_equal(ioctl(importer, IMPORTER_STATE, &m), 0);
	return m;
}

static void assert_one_entry(const struct importer_map *m, uint64_t phys,
			     uint64_t length)
{
	assert_int_equal(m->count, 1);
	assert_true(m->mapped);
	assert_int_equal(m->entries[0].address, phys);
	assert_int_equal(m->entries[0].length, length);
}

static int setup(void **state)
{
	return load_file("/tests/importer.ko");
}

static int teardown(void **state)
{
	return unload("importer");
}

static void the_importer_gets_the_addresses(void **state)
{
	static const char text[] = "what the importer's device would read";
	const struct gpu_part *p = *state;
	char back[sizeof(text)];
	struct importer_map m;
	int dmabuf, importer;

	/* Some pages in the middle. */
	dmabuf = must_export(&v, p->index, 3 * page, 5 * page);
	assert_int_equal(lseek(dmabuf, 0, SEEK_END), 5 * page);
	importer = import(dmabuf, v.gpu);
	assert_int_equal(map(importer, &m), 0);
	assert_one_entry(&m, p->phys + 3 * page, 5 * page);
	assert_int_equal(vfio_write(&v, REGION(p->index) + 3 * page, text,
				    sizeof(text)), sizeof(text));
	host_peek(m.entries[0].address, back, sizeof(back));
	assert_string_equal(back, text);
	assert_int_equal(ioctl(importer, IMPORTER_UNMAP), 0);
	close(importer);
	close(dmabuf);

	/* All of it. */
	dmabuf = must_export(&v, p->index, 0, p->length);
	importer = import(dmabuf, v.gpu);
	assert_int_equal(map(importer, &m), 0);
	assert_one_entry(&m, p->phys, p->length);
	close(dmabuf);
	assert_true(state_of(importer).mapped);
	close(importer);
}

static void several_ranges_make_one_dma_buf(void **state)
{
	/* In any order, one of them twice. */
	struct dma_range ranges[] = {
		{ GiB, 2 * page }, { page, page }, { page, page },
	};
	struct importer_map m;
	int dmabuf, importer, i;

	dmabuf = vfio_dma_buf(&v, USEMEM, 0, 3, ranges);
	assert_true(dmabuf >= 0);
	assert_int_equal(lseek(dmabuf, 0, SEEK_END), 4 * page);
	importer = import(dmabuf, v.gpu);
	assert_int_equal(map(importer, &m), 0);
	assert_int_equal(m.count, 3);
	for (i = 0; i < 3; i++) {
		assert_int_equal(m.entries[i].address,
				 v.gpu->base + ranges[i].offset);
		assert_int_equal(m.entries[i].length, ranges[i].length);
	}
	close(importer);
	close(dmabuf);

	/* One bad range makes the export fail. */
	ranges[2].offset = 1536 * MiB;
	assert_int_equal(vfio_dma_buf(&v, USEMEM, 0, 3, ranges), -EINVAL);
}

static void what_is_no_memory_is_refused(void **state)
{
	const struct gpu_part *p = *state;

	/* The BAR extends beyond the end of the memory. */
	assert_int_equal(export(&v, p->index, p->length, page), -EINVAL);
	assert_int_equal(export(&v, p->index, p->length - page, 2 * page), -EINVAL);
	assert_int_equal(export(&v, p->index, 0, 2 * GiB), -EINVAL);
	assert_int_equal(export(&v, p->index, 8 * GiB, page), -EINVAL);
	assert_true(export(&v, p->index, -page, 2 * page) < 0);
	assert_true(export(&v, p->index, -page, page) < 0);
	assert_true(export(&v, p->index, page, -page) < 0);
	assert_true(export(&v, p->index, 0, 1ULL << 63) < 0);
	assert_int_equal(export(&v, p->index, 0, 0), -EINVAL);
	assert_int_equal(export(&v, p->index, page / 2, page), -EINVAL);
	assert_int_equal(export(&v, p->index, 0, page + 1), -EINVAL);
	close(must_export(&v, p->index, p->length - page, page));
}

/* The rest of a page that is not all GPU memory belongs to something else. */
static void a_page_that_is_not_all_memory_is_refused(void **state)
{
	uint64_t whole, length;
	struct vfio odd;
	int fd;

	vfio_start(&odd, "odd");
	length = odd.gpu->size - 1536 * MiB;
	whole = length / page * page;
	assert_true(length > whole);
	assert_int_equal(export(&odd, RESMEM, whole, page), -EINVAL);
	assert_int_equal(export(&odd, RESMEM, 0, whole + page), -EINVAL);
	fd = must_export(&odd, RESMEM, 0, whole);
	close(fd);
}

/* A BAR of the device's own, which begins where the kernel says. */
struct own_bar {
	const char *gpu;
	unsigned int region;
	uint64_t size;
};

static void a_bar_of_the_devices_own_is_exported_as_ever(void **state)
{
	const struct own_bar *bar = *state;
	struct importer_map m;
	int dmabuf, importer;
	uint64_t start;

	vfio_start(&v, bar->gpu);
	gpu_bar(v.gpu, bar->region, &start);
	dmabuf = must_export(&v, bar->region, 0, bar->size);
	importer = import(dmabuf, v.gpu);
	assert_int_equal(map(importer, &m), 0);
	assert_one_entry(&m, start, bar->size);
	assert_true(export(&v, bar->region, bar->size, page) < 0);
	close(importer);
	close(dmabuf);
}

/* The kernel checks this with the provider that the driver names. */
static void a_device_behind_another_port_is_refused_the_mapping(void **state)
{
	int dmabuf = must_export(&v, USEMEM, 0, page);
	int importer = import(dmabuf, gpu_find("second"));
	struct importer_map m;

	assert_int_equal(map(importer, &m), -EINVAL);
	close(importer);
	close(dmabuf);
}

static void a_reset_takes_the_mapping_and_allows_it_again(void **state)
{
	int dmabuf = must_export(&v, USEMEM, page, page);
	int importer = import(dmabuf, v.gpu);
	struct importer_map m;
	unsigned int i;

	for (i = 1; i <= 3; i++) {
		assert_int_equal(map(importer, &m), 0);
		assert_one_entry(&m, v.gpu->base + page, page);
		assert_int_equal(vfio_reset(&v), 0);
		m = state_of(importer);
		assert_false(m.mapped);
		assert_true(m.invalidated >= i);
	}
	assert_int_equal(map(importer, &m), 0);
	assert_one_entry(&m, v.gpu->base + page, page);
	close(importer);
	close(dmabuf);
}

static void without_memory_in_the_command_register_it_is_revoked(void **state)
{
	int dmabuf = must_export(&v, RESMEM, 0, page);
	int importer = import(dmabuf, v.gpu);
	struct importer_map m;
	uint16_t on, off;
	int late;

	assert_int_equal(map(importer, &m), 0);
	assert_int_equal(vfio_read(&v, COMMAND, &on, 2), 2);
	off = on & ~COMMAND_MEMORY;
	on |= COMMAND_MEMORY;
	assert_int_equal(vfio_write(&v, COMMAND, &off, 2), 2);
	assert_false(state_of(importer).mapped);
	assert_int_equal(map(importer, &m), -ENODEV);
	/*
	 * A dma-buf that is exported while the memory is out of reach is
	 * revoked from the start.
	 */
	late = must_export(&v, USEMEM, 0, page);
	assert_int_equal(vfio_write(&v, COMMAND, &on, 2), 2);
	assert_int_equal(map(importer, &m), 0);
	assert_one_entry(&m, gpu_parts[1].phys, page);
	close(importer);
	importer = import(late, v.gpu);
	assert_int_equal(map(importer, &m), 0);
	assert_one_entry(&m, v.gpu->base, page);
	close(importer);
	close(late);
	close(dmabuf);
}

static void in_low_power_it_is_revoked(void **state)
{
	int dmabuf = must_export(&v, USEMEM, 0, page);
	int importer = import(dmabuf, v.gpu);
	struct importer_map m;

	assert_int_equal(map(importer, &m), 0);
	assert_int_equal(vfio_set_feature(&v,
					  VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY,
					  NULL, 0), 0);
	assert_false(state_of(importer).mapped);
	assert_int_equal(map(importer, &m), -ENODEV);
	assert_int_equal(vfio_set_feature(&v,
					  VFIO_DEVICE_FEATURE_LOW_POWER_EXIT,
					  NULL, 0), 0);
	assert_int_equal(map(importer, &m), 0);
	assert_one_entry(&m, v.gpu->base, page);
	close(importer);
	close(dmabuf);
}

/*
 * A dma-buf outlives the device's file, but then gives no access to the memory.
 */
static void closing_the_device_revokes_for_good_and_keeps_nobody(void **state)
{
	int dmabuf = must_export(&v, USEMEM, 0, page);
	int importer = import(dmabuf, v.gpu);
	int late = importer_open();
	struct importer_map m;

	assert_int_equal(map(importer, &m), 0);
	vfio_close(&v);
	assert_false(state_of(importer).mapped);
	assert_int_equal(map(importer, &m), -ENODEV);
	assert_int_equal(attach(late, dmabuf, v.gpu, true), -ENODEV);

	/* A later open doesn't make it valid again. */
	vfio_open(&v, v.gpu);
	assert_int_equal(map(importer, &m), -ENODEV);
	vfio_stop(&v);
	assert_int_equal(map(importer, &m), -ENODEV);
	close(importer);
	close(late);
	close(dmabuf);
}

/*
 * A VMM's main thread exports, and vfio-pci-core restores an export after a
 * reset without a wait, too.
 */
static void an_export_does_not_wait_for_the_memory(void **state)
{
	struct vfio other;

	vfio_start(&other, "second");
	vfio_unready_after_resets(&other);
	assert_int_equal(vfio_reset(&other), 0);
	close(must_export(&other, USEMEM, 0, page));
	vfio_make_ready(&other);
}

#define TEST(name) cmocka_unit_test_setup(name, open_parts)
#define OWN_BAR(name, ...) \
	VARIANT(name, a_bar_of_the_devices_own_is_exported_as_ever, NULL, NULL, \
		&((struct own_bar){ __VA_ARGS__ }))

static const struct CMUnitTest tests[] = {
	EACH_PART(the_importer_gets_the_addresses, open_parts),
	TEST(several_ranges_make_one_dma_buf),
	EACH_PART(what_is_no_memory_is_refused, open_parts),
	TEST(a_page_that_is_not_all_memory_is_refused),
	OWN_BAR(the_devices_bar0_is_exported_as_ever, "gh200", 0, BAR0_SIZE),
	OWN_BAR(without_resmem_the_devices_bar2_is_exported_as_ever, "nodefect", 2, 64 * KiB),
	OWN_BAR(without_memory_the_devices_bar2_is_exported_as_ever, "none", 2, 64 * KiB),
	TEST(a_device_behind_another_port_is_refused_the_mapping),
	TEST(a_reset_takes_the_mapping_and_allows_it_again),
	TEST(without_memory_in_the_command_register_it_is_revoked),
	TEST(in_low_power_it_is_revoked),
	TEST(closing_the_device_revokes_for_good_and_keeps_nobody),
	TEST(an_export_does_not_wait_for_the_memory),
};

const struct case_group groups[] = {
	{ "pages lab CONFIG_VFIO_PCI_DMABUF lab:importer", CASES(tests), setup, teardown },
	{ }
};
