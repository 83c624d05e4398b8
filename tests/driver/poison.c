// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory errors in GPU memory: a process that has the page mapped gets a signal
 * with the right address, and no other process does. The kernel makes the
 * errors itself, through the sysfs file that takes a bad page offline. From
 * there on, an error reported by hardware takes the same path.
 *
 *	poison reported|ignored
 *
 * "ignored" is for kernels that don't handle errors of memory without struct
 * pages. Such an error must do no harm there either.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib.h"
#include "waits.h"

/* Declares the page at @phys bad; returns 0 or the kernel's error. */
static int poison(uint64_t phys)
{
	static const char path[] = "/sys/devices/system/memory/hard_offline_page";
	char text[32];

	assert_return_code(access(path, W_OK), errno);
	snprintf(text, sizeof(text), "%#llx", (unsigned long long)phys);
	klog_mark();
	return write_file(path, text);
}

struct bad_page {
	uint64_t phys;
	int ret;
};

static void poison_it(void *arg)
{
	struct bad_page *bad = arg;

	bad->ret = poison(bad->phys);
}

/*
 * Poisons the page behind @addr in the caller's own mapping. The caller gets a
 * signal as if it had accessed the page.
 */
static void assert_told(void *addr, uint64_t phys)
{
	struct bad_page bad = { phys, 1 };

	assert_true(raises_sigbus(poison_it, &bad));
	assert_int_equal(sigbus_code, BUS_MCEERR_AR);
	assert_ptr_equal(sigbus_addr, addr);
	assert_int_equal(klog_count("Recovered"), 1);
}

static void assert_not_told(uint64_t phys)
{
	struct bad_page bad = { phys, 1 };

	assert_false(raises_sigbus(poison_it, &bad));
}

static void bad_pages_are_told_with_their_address(void **state)
{
	const struct gpu_part *p = *state;
	uint64_t phys = p->phys;
	char *map = vfio_map(&v, p->index, 0, 64 * page, RW, MAP_SHARED, NULL);

	strcpy(map + 8 * page, "next to it");
	strcpy(map + 7 * page, "bad");
	assert_told(map + 7 * page, phys + 7 * page);
	/* The first and the last page of the mapping. */
	assert_told(map, phys);
	assert_told(map + 63 * page, phys + 63 * page);
	/* Beside it, and outside of it. */
	assert_string_equal(map + 8 * page, "next to it");
	assert_not_told(phys + 64 * page);
}

static void the_offset_of_the_mapping_counts(void **state)
{
	char *map = vfio_map(&v, USEMEM, GiB + 16 * page, 16 * page, RW,
			     MAP_SHARED, NULL);

	touch_write(map + 3 * page);
	assert_told(map + 3 * page, v.gpu->base + GiB + 19 * page);
	assert_not_told(v.gpu->base + GiB + 15 * page);
	assert_not_told(v.gpu->base + GiB + 32 * page);
	assert_not_told(v.gpu->base + 3 * page);
	/* A page that has not been accessed yet. */
	assert_told(map + 9 * page, v.gpu->base + GiB + 25 * page);
}

/* If the kernel supports them, the mapping has huge entries. */
static void a_bad_page_in_a_huge_mapping_is_told_by_itself(void **state)
{
	uint64_t at = 512 * MiB + 37 * page;
	char *map = vfio_map(&v, USEMEM, 0, GiB, RW, MAP_SHARED, NULL);

	memset(map + 512 * MiB, 0x11, 64 * page);
	assert_told(map + at, v.gpu->base + at);
	assert_int_equal(map[at - 1], 0x11);
	assert_int_equal(map[at + page], 0x11);
}

static void after_a_bad_page_the_others_go_on(void **state)
{
	char *map = vfio_map(&v, USEMEM, 0, 16 * page, RW, MAP_SHARED, NULL);
	char back[16];

	assert_told(map + 2 * page, v.gpu->base + 2 * page);
	strcpy(map + 3 * page, "goes on");
	assert_int_equal(vfio_read(&v, REGION(USEMEM) + 3 * page, back, 8), 8);
	assert_string_equal(back, "goes on");
	assert_int_equal(vfio_reset(&v), 0);
	assert_string_equal(map + 3 * page, "goes on");
	/* And again, each time. */
	assert_told(map + 2 * page, v.gpu->base + 2 * page);
}

static void each_gpu_has_its_own_errors(void **state)
{
	struct vfio other;
	char *map, *map2;

	vfio_start(&other, "second");
	map = vfio_map(&v, USEMEM, 0, 16 * page, RW, MAP_SHARED, NULL);
	map2 = vfio_map(&other, USEMEM, 0, 16 * page, RW, MAP_SHARED, NULL);
	assert_told(map + page, v.gpu->base + page);
	assert_told(map2 + page, other.gpu->base + page);
	munmap(map2, 16 * page);
	vfio_stop(&other);
	/* The GPU that is still open. */
	assert_told(map + 2 * page, v.gpu->base + 2 * page);
}

static void of_a_closed_gpu_the_log_alone_is_told(void **state)
{
	const struct gpu *gpu = gpu_find("second");
	struct vfio other;
	int i;

	assert_int_equal(gpu_bind(gpu), 0);
	for (i = 0; i < 2; i++) {
		assert_true(poison(gpu->base) < 0);
		assert_int_equal(klog_count("Recovered"), 0);
		/* After an open and a close, it is as before. */
		vfio_open(&other, gpu);
		assert_int_equal(poison(gpu->base), 0);
		vfio_close(&other);
	}
	assert_int_equal(gpu_unbind(gpu), 0);
	assert_true(poison(gpu->base) < 0);
}

static ssize_t read_at(struct vfio *dev, unsigned int index, uint64_t at,
		       void *buf, size_t count)
{
	return vfio_read(dev, REGION(index) + at, buf, count);
}

static ssize_t write_at(struct vfio *dev, unsigned int index, uint64_t at,
			const void *buf, size_t count)
{
	return vfio_write(dev, REGION(index) + at, buf, count);
}

/* The kernel would not survive a load from it. */
static void a_bad_page_is_not_read_by_the_kernel(void **state)
{
	const struct gpu_part *p = *state;
	char *map = vfio_map(&v, p->index, 0, 16 * page, RW, MAP_SHARED, NULL);
	char *buf = malloc(4 * page), *data = malloc(4 * page);

	fill(data, 4 * page, 5);
	memcpy(map + 4 * page, data, 4 * page);
	assert_int_equal(read_at(&v, p->index, 5 * page, buf, page), page);
	assert_told(map + 5 * page, p->phys + 5 * page);

	/* In it, to its last byte, and from it on. */
	assert_int_equal(read_at(&v, p->index, 5 * page, buf, 8), -EIO);
	assert_int_equal(read_at(&v, p->index, 6 * page - 1, buf, 1), -EIO);
	assert_int_equal(read_at(&v, p->index, 5 * page, buf, 2 * page), -EIO);
	/* Those beside it. A longer access ends at it. */
	assert_int_equal(read_at(&v, p->index, 4 * page, buf, page), page);
	assert_memory_equal(buf, data, page);
	assert_int_equal(read_at(&v, p->index, 6 * page, buf, page), page);
	assert_memory_equal(buf, data + 2 * page, page);
	assert_int_equal(read_at(&v, p->index, 4 * page, buf, 4 * page), page);
	assert_int_equal(read_at(&v, p->index, 5 * page - 4, buf, 8), 4);

	/* A store to a part of a line would need the rest of it. */
	assert_int_equal(write_at(&v, p->index, 5 * page, data, 64), -EIO);
	assert_int_equal(write_at(&v, p->index, 5 * page, data, page - 1), -EIO);
	assert_int_equal(write_at(&v, p->index, 5 * page + 1, data, page), -EIO);
	assert_int_equal(write_at(&v, p->index, 4 * page, data, page + 8), page);
	assert_int_equal(read_at(&v, p->index, 5 * page, buf, 8), -EIO);
	munmap(map, 16 * page);
	free(buf);
	free(data);
}

/* The table is asked when the memory can be accessed, not before the wait. */
static void a_page_that_goes_bad_while_a_read_waits_is_not_read(void **state)
{
	const struct gpu_part *p = *state;
	struct access a = { .dev = &v, .how = READ, .at = p->at + page };
	struct bad_page bad = { p->phys + page, 1 };
	bool again;

	vfio_map(&v, p->index, 0, 16 * page, RW, MAP_SHARED, NULL);
	do {
		waits_begin();
		vfio_unready_after_resets(&v);
		assert_int_equal(vfio_reset(&v), 0);
		a.beside = beside(access_memory, &a);
		assert_waits(a.beside);
		raises_sigbus(poison_it, &bad);
		vfio_make_ready(&v);
		again = waits_again();
		assert_true(ended(a.beside) == -EIO || again);
	} while (again);
	assert_int_equal(vfio_read(&v, a.at - 8, &a.word, 8), 8);
}

/* Only a scrub writes whole cache lines for sure. */
static void overwritten_a_bad_page_stays_bad(void **state)
{
	const struct gpu_part *p = *state;
	char *map = vfio_map(&v, p->index, 0, 16 * page, RW, MAP_SHARED, NULL);
	char *buf = malloc(2 * page), *data = malloc(2 * page);

	fill(data, 2 * page, 6);
	assert_told(map + page, p->phys + page);
	assert_int_equal(write_at(&v, p->index, page, data, page), -EIO);
	/* A longer write ends before it. */
	assert_int_equal(write_at(&v, p->index, 7, data, 2 * page), page - 7);
	assert_int_equal(read_at(&v, p->index, page, buf, 8), -EIO);
	assert_int_equal(read_at(&v, p->index, 7, buf, page - 7), page - 7);
	assert_memory_equal(buf, data, page - 7);
	munmap(map, 16 * page);
	free(buf);
	free(data);
}

/* Control of the model's power management capability. */
#define PM_CONTROL	0x44

static void a_page_stays_bad_until_the_gpu_is_unbound(void **state)
{
	const struct gpu *gpu = v.gpu;
	char *map = vfio_map(&v, USEMEM, 0, 16 * page, RW, MAP_SHARED, NULL);
	char *whole = calloc(1, page), buf[8];
	uint16_t d3hot = 3, d0 = 0;
	int i;

	assert_told(map + page, gpu->base + page);
	/* Asleep it can't be made good. */
	assert_int_equal(vfio_write(&v, CONFIG + PM_CONTROL, &d3hot, 2), 2);
	assert_int_equal(write_at(&v, USEMEM, page, whole, page), -EIO);
	assert_int_equal(vfio_write(&v, CONFIG + PM_CONTROL, &d0, 2), 2);
	munmap(map, 16 * page);
	free(whole);
	for (i = 0; i < 2; i++) {
		vfio_close(&v);
		vfio_open(&v, gpu);
		assert_int_equal(read_at(&v, USEMEM, page, buf, 8), -EIO);
		assert_int_equal(vfio_reset(&v), 0);
		assert_int_equal(read_at(&v, USEMEM, page, buf, 8), -EIO);
	}
	vfio_stop(&v);
	vfio_start(&v, gpu->name);
	assert_int_equal(read_at(&v, USEMEM, page, buf, 8), 8);
}

/* As many as the driver can tell apart. */
#define BAD_PAGES	64

/* Makes that and one more bad, each fourth page. */
static void make_too_many_bad(struct vfio *dev)
{
	size_t size = 4 * (BAD_PAGES + 1) * page;
	char *map = vfio_map(dev, USEMEM, 0, size, RW, MAP_SHARED, NULL);
	char word[8];
	int i, lines;

	/* Each twice: the same page takes no more room. */
	for (i = 0; i < 2 * BAD_PAGES + 2; i++) {
		uint64_t at = 4 * (i / 2) * page;
		struct bad_page bad = { dev->gpu->base + at, 1 };

		assert_int_equal(read_at(dev, USEMEM, at + page, word, 8),
				 i <= 2 * BAD_PAGES ? 8 : -EIO);
		assert_true(raises_sigbus(poison_it, &bad));
		lines = klog_count("usemem has memory errors in more than 64 pages");
		assert_int_equal(lines, i == 2 * BAD_PAGES);
	}
	munmap(map, size);
}

static void with_too_many_bad_pages_all_count_as_bad(void **state)
{
	char *buf = malloc(page);

	make_too_many_bad(&v);
	assert_int_equal(read_at(&v, USEMEM, page, buf, 8), -EIO);
	assert_int_equal(read_at(&v, USEMEM, GiB, buf, 8), -EIO);
	assert_int_equal(read_at(&v, RESMEM, 0, buf, 8), 8);
	assert_int_equal(write_at(&v, USEMEM, page, buf, page), -EIO);
	free(buf);
}

/* A scrub overwrites all. */
static void after_a_scrub_too_many_bad_pages_are_good(void **state)
{
	const struct gpu *gpu = gpu_smallest();
	char *buf = malloc(page);
	struct vfio other;

	vfio_start(&other, gpu->name);
	make_too_many_bad(&other);
	vfio_close(&other);
	assert_int_equal(gpu_sysfs_write(gpu, "nvgrace_gpu/scrub", "1"), 0);
	assert_string_equal(scrub_end(gpu), "clean");
	vfio_open(&other, gpu);
	assert_int_equal(read_at(&other, USEMEM, 0, buf, page), page);
	assert_int_equal(read_at(&other, USEMEM, page, buf, 8), 8);
	/* New ones are told apart again. */
	make_too_many_bad(&other);
	vfio_stop(&other);
	free(buf);
}

/* Scrubbing writes whole cache lines and doesn't read the old content. */
static void a_bad_page_is_cleared_for_the_next_user(void **state)
{
	const struct gpu *gpu = gpu_smallest();
	struct vfio other;
	char *map, word[8];

	scrub_set_parameter(true);
	assert_int_equal(gpu_bind(gpu), 0);
	vfio_open(&other, gpu);
	soil(gpu);
	map = vfio_map(&other, USEMEM, 0, 16 * page, RW, MAP_SHARED, NULL);
	assert_told(map, gpu->base);
	munmap(map, 16 * page);
	assert_int_equal(read_at(&other, USEMEM, 0, word, 8), -EIO);
	vfio_close(&other);
	assert_string_equal(scrub_end(gpu), "clean");
	assert_clean(gpu);
	vfio_open(&other, gpu);
	assert_int_equal(read_at(&other, USEMEM, 0, word, 8), 8);
	vfio_close(&other);
	assert_string_equal(scrub_end(gpu), "clean");
	scrub_set_parameter(false);
}

/* For kernels that don't know which driver has the memory. */
static void an_error_is_an_error_and_breaks_nothing(void **state)
{
	char *map = vfio_map(&v, USEMEM, 0, 16 * page, RW, MAP_SHARED, NULL);
	struct bad_page bad = { v.gpu->base, 0 };

	strcpy(map, "still there");
	assert_false(raises_sigbus(poison_it, &bad));
	assert_true(bad.ret < 0);
	assert_string_equal(map, "still there");
}

/* Each test with a newly bound GPU, because bad pages stay bad until then. */
#define test(name)	cmocka_unit_test_setup(name, open_parts)

static const struct CMUnitTest reported[] = {
	EACH_PART(bad_pages_are_told_with_their_address, open_parts),
	test(the_offset_of_the_mapping_counts),
	test(a_bad_page_in_a_huge_mapping_is_told_by_itself),
	test(after_a_bad_page_the_others_go_on),
	test(each_gpu_has_its_own_errors),
	test(of_a_closed_gpu_the_log_alone_is_told),
	EACH_PART(a_bad_page_is_not_read_by_the_kernel, open_parts),
	EACH_PART(a_page_that_goes_bad_while_a_read_waits_is_not_read, open_parts),
	EACH_PART(overwritten_a_bad_page_stays_bad, open_parts),
	test(a_page_stays_bad_until_the_gpu_is_unbound),
	test(with_too_many_bad_pages_all_count_as_bad),
	test(after_a_scrub_too_many_bad_pages_are_good),
	test(a_bad_page_is_cleared_for_the_next_user),
};

static const struct CMUnitTest ignored[] = {
	test(an_error_is_an_error_and_breaks_nothing),
};

const struct case_group groups[] = {
	{ "pages lab symbol:register_pfn_address_space", CASES(reported) },
	{ "pages lab !symbol:register_pfn_address_space", CASES(ignored) },
	{ }
};
