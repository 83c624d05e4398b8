// SPDX-License-Identifier: GPL-2.0-only
/*
 * Makes every allocation and every copy to or from user space fail, one at a
 * time, in each operation that the driver supports. Each time the operation
 * must either succeed or return an error, and leave nothing behind, so that it
 * can be repeated. The debug kernel checks for lost memory and for locks.
 * test_faults.py runs this program on a kernel with fault injection.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib.h"

#define FAULTS		"/sys/kernel/debug/"

/* More than any operation below has; reaching it is an error. */
#define MOST		4000

/* One chunk of the driver's copies and a part of the next. */
#define BULK		(96 * KiB)

/*
 * The range that is used: the end of each kind of region. The driver maps
 * regions in windows of 1 GiB, for each of which KASAN needs 128 MiB and two
 * seconds. The sizes of the GPUs are such that these windows have only a few
 * MiB.
 */
#define MEMORY		(7 * MiB)
static const struct part {
	const char *gpu;
	unsigned int index;
	uint64_t offset;
} parts[] = {
	{ "small", USEMEM, 0 },
	{ "gh200", RESMEM, GiB },
};

static const struct part *part;
static const struct gpu *gpu;
static int nth_fd;
static char *data, *back;

/*
 * An operation, which returns 0 or a negative errno. undo makes it possible
 * again after success. failed checks after an error that nothing was done. Both
 * may be NULL. also: what act may return besides -ENOMEM and -EFAULT.
 */
struct operation {
	int (*act)(void);
	void (*undo)(void);
	void (*failed)(void);
	int also[2];
};

/* The @n-th possible failure from now on, in this task, will happen. */
static void arm(unsigned int n)
{
	assert_true(dprintf(nth_fd, "%u", n) > 0);
}

/* Returns whether it has happened. Nothing fails afterwards. */
static bool disarm(void)
{
	char left[16] = "";
	bool fired;

	/* This read may fail, too. Then nothing had failed before. */
	fired = pread(nth_fd, left, sizeof(left) - 1, 0) > 0 && !atoi(left);
	while (pwrite(nth_fd, "0", 1, 0) != 1)
		;
	return fired;
}

static void fail_everywhere(const struct operation *op)
{
	unsigned int n, errors = 0;
	int ret;

	for (n = 1; n < MOST; n++) {
		arm(n);
		ret = op->act();
		if (!disarm())
			break;
		if (!ret) {
			if (op->undo)
				op->undo();
			continue;
		}
		errors++;
		if (ret != -ENOMEM && ret != -EFAULT && ret != op->also[0] && ret != op->also[1])
			fail_msg("failure %u gives %s", n, strerror(-ret));
		if (op->failed)
			op->failed();
	}
	printf("# %u points of failure, %u of them with an error\n", n - 1, errors);
	assert_true(n < MOST);
	/*
	 * There must be something that can fail. Without the debugging options,
	 * which allocate, closing has nothing.
	 */
	if (!access(FAULTS "kmemleak", F_OK))
		assert_true(n > 1);
	assert_int_equal(ret, 0);
	if (op->undo)
		op->undo();
}

static int load_module(void)
{
	int fd = open("/vm/module.ko", O_RDONLY | O_CLOEXEC), ret = 0;

	if (fd < 0 || syscall(SYS_finit_module, fd, "", 0))
		ret = -errno;
	close(fd);
	return ret;
}

static void load_again(void)
{
	assert_int_equal(module_load(), 0);
}

static void unload_module(void)
{
	assert_int_equal(module_unload(), 0);
}

static void loading(void **state)
{
	/*
	 * -EINVAL: the kernel can't register the parameter's file. -ENODEV: it
	 * can't bind the device that reports the host's sleep, for any reason.
	 */
	const struct operation op = { load_module, unload_module, NULL, { -EINVAL, -ENODEV } };

	unload_module();
	fail_everywhere(&op);
	load_again();
}

static int bind_gpu(void)
{
	return gpu_bind(gpu);
}

static void unbind_gpu(void)
{
	assert_int_equal(gpu_unbind(gpu), 0);
}

static void is_not_bound(void)
{
	assert_false(gpu_bound(gpu));
}

static void binding(void **state)
{
	/* -EBUSY: the PCI core can't reserve a BAR, for any reason. */
	const struct operation op = { bind_gpu, unbind_gpu, is_not_bound, { -EBUSY } };

	fail_everywhere(&op);
}

static int unbind_again(void)
{
	return gpu_unbind_here(gpu);
}

static void bind_again(void)
{
	assert_int_equal(gpu_bind(gpu), 0);
}

static void rebind(void)
{
	/*
	 * The write to sysfs may have failed before or after it reached the
	 * driver.
	 */
	if (!gpu_bound(gpu))
		bind_again();
}

static void unbinding(void **state)
{
	bind_again();
	fail_everywhere(&(struct operation){ unbind_again, bind_again, rebind });
}

static int open_device(void)
{
	v.device = ioctl(v.group, VFIO_GROUP_GET_DEVICE_FD, gpu->addr);
	return v.device < 0 ? -errno : 0;
}

static void close_device(void)
{
	assert_int_equal(close(v.device), 0);
	v.device = -1;
}

static void opening(void **state)
{
	vfio_start(&v, gpu->name);
	close_device();
	fail_everywhere(&(struct operation){ open_device, close_device, NULL });
	assert_int_equal(open_device(), 0);
}

static int ask_regions(void)
{
	union {
		struct vfio_region_info info;
		char bytes[512];
	} u;
	int i;

	for (i = 0; i < VFIO_PCI_NUM_REGIONS; i++) {
		u.info = (struct vfio_region_info){ .argsz = sizeof(u), .index = i };
		if (ioctl(v.device, VFIO_DEVICE_GET_REGION_INFO, &u.info) &&
		    errno != EINVAL)
			return -errno;
	}
	return 0;
}

/* The operation is the case's row. */
static void in_one_gpu(void **state)
{
	vfio_start(&v, gpu->name);
	fail_everywhere(*state);
}

/* Opens anew each time, since the first access makes the driver's mapping. */
static void reopen(void)
{
	close_device();
	assert_int_equal(open_device(), 0);
}

static uint64_t position(void)
{
	return REGION(part->index) + part->offset;
}

/* A short count is an error that came late. */
static int result_of(ssize_t ret, size_t count)
{
	return ret < 0 ? ret : ret < (ssize_t)count ? -EFAULT : 0;
}

static int read_bulk(void)
{
	ssize_t ret = vfio_read(&v, position(), back, BULK);

	if (ret > 0)
		assert_memory_equal(back, data, ret);
	return result_of(ret, BULK);
}

static int write_bulk(void)
{
	return result_of(vfio_write(&v, position(), data, BULK), BULK);
}

static int read_word(void)
{
	return result_of(vfio_read(&v, position(), back, 8), 8);
}

/* The end of the memory and the BAR after it. */
static int read_tail(void)
{
	return result_of(vfio_read(&v, position() + MEMORY - 4 * KiB, back,
				   BULK), BULK);
}

static void start(const struct part *which)
{
	part = which;
	vfio_start(&v, part->gpu);
	gpu = v.gpu;
	assert_int_equal(vfio_write(&v, position(), data, BULK), BULK);
}

static void stop(void)
{
	assert_int_equal(vfio_read(&v, position(), back, BULK), BULK);
	assert_memory_equal(back, data, BULK);
	vfio_stop(&v);
}

static void in_both_parts(void **state)
{
	int i;

	for (i = 0; i < 2; i++) {
		start(&parts[i]);
		reopen();
		fail_everywhere(*state);
		stop();
	}
}

static int close_one(void)
{
	close_device();
	return 0;
}

static void open_one(void)
{
	char word[4];

	assert_int_equal(open_device(), 0);
	/* Makes a mapping that close must remove. */
	assert_int_equal(vfio_read(&v, position(), word, 4), 4);
}

/* Two mappings of 4 MiB: one can have huge entries, the other can't. */
#define WINDOW		(4 * MiB)
static char *room, *map, *odd;

static char *map_at(char *address)
{
	return mmap(address, WINDOW, PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_FIXED, v.device, position());
}

static int map_region(void)
{
	map = map_at(room);
	if (map == MAP_FAILED)
		return -errno;
	odd = map_at(room + WINDOW + page);
	return odd == MAP_FAILED ? -errno : 0;
}

/* Also removes what a failed mmap has left. */
static void unmap_region(void)
{
	assert_true(mmap(room, 3 * WINDOW, PROT_NONE, MAP_PRIVATE | MAP_FIXED |
			 MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) == room);
}

static int touch(void)
{
	touch_read(map);
	touch_read(odd);
	return 0;
}

static void touched(void)
{
	assert_int_equal(map[0], data[0]);
	assert_int_equal(odd[0], data[0]);
	unmap_region();
	assert_int_equal(map_region(), 0);
}

static void faulting(void **state)
{
	int i;

	for (i = 0; i < 2; i++) {
		start(&parts[i]);
		assert_int_equal(map_region(), 0);
		/*
		 * The kernel retries after a failure, so there are no errors.
		 */
		fail_everywhere(&(struct operation){ touch, touched, NULL });
		unmap_region();
		stop();
	}
}

static int config(void)
{
	/*
	 * Real and fake registers in one access: BAR1, both fake BARs, and what
	 * follows.
	 */
	ssize_t ret = vfio_read(&v, CONFIG + 0x14, back, 0x18);

	if (ret == 0x18)
		ret = vfio_write(&v, CONFIG + 0x14, back, 0x18);
	return ret < 0 ? ret : ret == 0x18 ? 0 : -EIO;
}

static int setup(void **state)
{
	/* Nearly all allocations may wait. By default, none of those fails. */
	must_write_file(FAULTS "failslab/ignore-gfp-wait", "N");
	must_write_file(FAULTS "fail_page_alloc/ignore-gfp-wait", "N");
	must_write_file(FAULTS "fail_page_alloc/min-order", "0");
	/* A stack trace for each failure would count as trouble in the log. */
	must_write_file(FAULTS "failslab/verbose", "0");
	must_write_file(FAULTS "fail_page_alloc/verbose", "0");
	must_write_file(FAULTS "fail_usercopy/verbose", "0");

	nth_fd = open("/proc/thread-self/fail-nth", O_RDWR);
	assert_true(nth_fd >= 0);
	gpu = gpu_find("gh200");
	room = mmap(NULL, 4 * WINDOW, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS |
		    MAP_NORESERVE, -1, 0);
	assert_true(room != MAP_FAILED);
	room = (char *)(((uintptr_t)room + WINDOW - 1) & ~(WINDOW - 1));
	data = malloc(BULK);
	back = malloc(BULK);
	fill(data, BULK, 1);
	fill(back, BULK, 2);
	return 0;
}

static int teardown(void **state)
{
	disarm();
	unmap_region();
	return 0;
}

#define ROW(name, function, act, undo, failed) \
	VARIANT(name, function, NULL, teardown, (&(struct operation){ act, undo, failed }))

static const struct CMUnitTest tests[] = {
	cmocka_unit_test_teardown(loading, teardown),
	cmocka_unit_test_teardown(binding, teardown),
	cmocka_unit_test_teardown(unbinding, teardown),
	cmocka_unit_test_teardown(opening, teardown),
	ROW(closing, in_both_parts, close_one, open_one, NULL),
	ROW(region_info, in_one_gpu, ask_regions, NULL, NULL),
	ROW(reading, in_both_parts, read_bulk, reopen, reopen),
	ROW(reading_a_word, in_both_parts, read_word, reopen, reopen),
	ROW(reading_the_tail, in_both_parts, read_tail, reopen, reopen),
	ROW(writing, in_both_parts, write_bulk, reopen, reopen),
	ROW(mapping, in_both_parts, map_region, unmap_region, unmap_region),
	cmocka_unit_test_teardown(faulting, teardown),
	ROW(config_space, in_one_gpu, config, NULL, NULL),
};

const struct case_group groups[] = {
	{ "", CASES(tests), setup },
	{ }
};
