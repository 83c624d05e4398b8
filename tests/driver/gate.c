// SPDX-License-Identifier: GPL-2.0-only
/*
 * When GPU memory is inaccessible: while memory decoding is off, in D3hot,
 * during a reset, before the memory is ready, and while the host sleeps. The
 * driver zaps pages that are mapped already. Groups of tests that need suspend
 * or userfaultfd are left out where the machine lacks them.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib.h"
#include "waits.h"

#define COMMAND		(CONFIG + 4)
#define COMMAND_MEMORY	2
#define PM_CAP_ID	1
#define PM_CTRL		4
#define D0		0
#define D3HOT		3

/* What varies between cases of one function. */
struct variant {
	const char *gpu;
	bool unmapped;		/* nothing of its memory */
	void (*reset)(void);
	/* A write that closes the gate: bytes of config space, or of PM_CAP_ID. */
	bool power;
	unsigned int at, count;
};

static const unsigned int indexes[] = { USEMEM, RESMEM };

/* In each part, a page that every test has mapped in, and one that may be. */
static char *old[2], *fresh[2];

static int setup(void **state)
{
	const struct variant *variant = *state;
	const struct gpu *gpu = gpu_find(variant->gpu);
	size_t i;

	/* A failed test may have left the GPU unready. */
	if (!gpu_bound(gpu)) {
		gpu_bar0_write(gpu, MODEL_RESET_DELAY, 0);
		gpu_unready(gpu, 0);
	}
	vfio_start(&v, variant->gpu);
	for (i = 0; i < 2 && !variant->unmapped; i++) {
		old[i] = vfio_map(&v, indexes[i], 0, page, RW, MAP_SHARED,
				  NULL);
		/* Far enough away that no fault maps both pages. */
		fresh[i] = vfio_map(&v, indexes[i], 256 * MiB, page, RW,
				    MAP_SHARED, NULL);
		strcpy(old[i], "before");
	}
	return 0;
}

static void assert_out_of_reach(void)
{
	char word[8] = "written";
	size_t i;

	for (i = 0; i < 2; i++) {
		assert_true(raises_sigbus(touch_read, old[i]));
		assert_true(raises_sigbus(touch_write, old[i]));
		assert_true(raises_sigbus(touch_write, fresh[i]));
		assert_int_equal(vfio_read(&v, REGION(indexes[i]), word, 8),
				 -EIO);
		assert_int_equal(vfio_write(&v, REGION(indexes[i]), word, 8),
				 -EIO);
	}
}

static void assert_back(void)
{
	char word[8];
	size_t i;

	for (i = 0; i < 2; i++) {
		assert_string_equal(old[i], "before");
		strcpy(fresh[i], "fresh");
		assert_string_equal(fresh[i], "fresh");
		assert_int_equal(vfio_read(&v, REGION(indexes[i]), word, 7), 7);
		assert_string_equal(word, "before");
	}
}

static void reset(void)
{
	int ret;

	/* -EAGAIN: another thread holds the device's lock. */
	do {
		ret = vfio_reset(&v);
	} while (ret == -EAGAIN);
	assert_int_equal(ret, 0);
}

static uint16_t command(void)
{
	uint16_t val;

	assert_int_equal(vfio_read(&v, COMMAND, &val, 2), 2);
	return val;
}

/* The tail of the BAR is no memory, and can be read all the same. */
static void what_is_no_memory_needs_no_decoding(void **state)
{
	uint16_t off = command() & ~COMMAND_MEMORY;
	unsigned char byte = 0;
	struct vfio_region r;

	vfio_region(&v, USEMEM, &r);
	assert_true(r.area_size < r.size);
	assert_int_equal(vfio_write(&v, COMMAND, &off, 2), 2);
	assert_int_equal(vfio_read(&v, REGION(USEMEM) + r.size - 1, &byte, 1), 1);
	assert_int_equal(byte, 0xff);
}

static unsigned int pm_cap(void)
{
	return vfio_capability(&v, PM_CAP_ID);
}

static void set_power_state(uint16_t state)
{
	assert_int_equal(vfio_write(&v, CONFIG + pm_cap() + PM_CTRL, &state, 2),
			 2);
}

static void while_closed_nothing_is_in_reach(void **state)
{
	const struct variant *w = *state;
	uint64_t base = CONFIG + (w->power ? pm_cap() : 0);
	char on[64], off[64];
	int i;

	assert_true(command() & COMMAND_MEMORY);
	assert_int_equal(vfio_read(&v, base, on, 64), 64);
	memcpy(off, on, 64);
	if (w->power)
		off[PM_CTRL] |= D3HOT;
	else
		off[4] &= ~COMMAND_MEMORY;
	for (i = 0; i < 3; i++) {
		assert_int_equal(vfio_write(&v, base + w->at, off + w->at,
					    w->count), w->count);
		assert_true(w->power || !(command() & COMMAND_MEMORY));
		assert_out_of_reach();
		assert_int_equal(vfio_write(&v, base + w->at, on + w->at,
					    w->count), w->count);
		assert_true(command() & COMMAND_MEMORY);
		assert_back();
	}
}

/* The state in the middle of a longer write, and its low byte alone. */
static void any_write_that_covers_the_power_state_counts(void **state)
{
	unsigned int at = CONFIG + pm_cap();
	uint8_t bytes[8], byte;

	assert_int_equal(vfio_read(&v, at, bytes, 8), 8);
	bytes[PM_CTRL] |= D3HOT;
	assert_int_equal(vfio_write(&v, CONFIG + pm_cap(), bytes, 8), 8);
	assert_out_of_reach();
	byte = 0;
	assert_int_equal(vfio_write(&v, CONFIG + pm_cap() + PM_CTRL, &byte, 1),
			 1);
	/* vfio-pci-core acts only on writes of two bytes or more. */
	set_power_state(D0);
	assert_back();
}

static uint64_t looks(void)
{
	return host_counter(v.gpu, "c2c_reads");
}

static void assert_readiness(const char *expected)
{
	char text[32];

	gpu_sysfs_read(v.gpu, "nvgrace_gpu/readiness", text, sizeof(text));
	assert_string_equal(text, expected);
}

/* The memory is unready after resets, until release_users(). */
static void unready_after_resets(void)
{
	waits_begin();
	vfio_unready_after_resets(&v);
}

/* Starts accesses to both pages and a read. None of them may finish. */
static void start_users(struct access u[3])
{
	size_t i;

	for (i = 0; i < 3; i++) {
		u[i] = (struct access){ .dev = &v, .how = i < 2 ? LOAD : READ };
		u[i].page = old[i % 2];
		u[i].at = REGION(USEMEM);
		u[i].beside = beside(access_memory, &u[i]);
	}
	assert_all_wait(u, 3);
}

/*
 * The accesses must end because the memory becomes ready. Returns false if the
 * test must begin anew.
 */
static bool release_users(struct access u[3])
{
	size_t i;

	vfio_make_ready(&v);
	if (!all_succeed(u, 3))
		return false;
	for (i = 0; i < 3; i++)
		assert_string_equal((char *)&u[i].word, "before");
	return true;
}

/*
 * On this GPU, going from D3hot to D0 is a reset: the memory must be checked
 * for readiness again.
 */
static void leaving_D3hot_asks_for_readiness_again(void **state)
{
	uint64_t before, soft;
	struct access u[3];
	int i;

	/* Binding and opening have left D3hot, too. */
	soft = host_counter(v.gpu, "soft_resets");
	for (i = 0; i < 3; i++) {
		do {
			assert_back();
			before = looks();
			assert_readiness("ready");
			unready_after_resets();
			set_power_state(D3HOT);
			assert_readiness("unknown");
			assert_out_of_reach();
			assert_int_equal(looks(), before);
			set_power_state(D0);
			assert_int_equal(host_counter(v.gpu, "soft_resets"),
					 ++soft);
			start_users(u);
		} while (!release_users(u));
		assert_true(looks() > before);
		assert_back();
	}
}

/*
 * Config space answers in D3hot, so the DVSEC could be read there. The result
 * must not count.
 */
static void a_cxl_part_in_D3hot_is_not_asked(void **state)
{
	char byte;
	int i;

	assert_int_equal(vfio_read(&v, REGION(USEMEM), &byte, 1), 1);
	for (i = 0; i < 2; i++) {
		set_power_state(D3HOT);
		assert_int_equal(vfio_read(&v, REGION(USEMEM), &byte, 1), -EIO);
		assert_readiness("unknown");
		set_power_state(D0);
		assert_int_equal(vfio_read(&v, REGION(USEMEM), &byte, 1), 1);
		assert_readiness("ready");
	}
}

/* The buffer of the write is a mapping that the write itself removes. */
static void a_config_write_from_the_gpus_own_memory_counts(void **state)
{
	uint16_t *buffer = (uint16_t *)old[0];
	char byte;

	buffer[0] = D3HOT;
	assert_int_equal(vfio_write(&v, CONFIG + pm_cap() + PM_CTRL, buffer, 2),
			 2);
	assert_true(raises_sigbus(touch_read, old[0]));
	assert_int_equal(vfio_read(&v, REGION(USEMEM), &byte, 1), -EIO);
	set_power_state(D0);
	strcpy(old[0], "before");
	assert_back();
}

/* The result of a failed wait is void after D3hot. */
static void after_leaving_D3hot_the_wait_is_whole(void **state)
{
	uint32_t delay = 500;
	char byte;

	vfio_unready_after_resets(&v);
	reset();
	assert_int_equal(vfio_read(&v, REGION(USEMEM), &byte, 1), -EIO);
	vfio_bar0_write(&v, MODEL_RESET_DELAY, delay);
	set_power_state(D3HOT);
	set_power_state(D0);
	assert_int_equal(vfio_read(&v, REGION(USEMEM), &byte, 1), 1);
	vfio_bar0_write(&v, MODEL_RESET_DELAY, 0);
}

/*
 * A write of two registers. Its second half comes from a page that userfaultfd
 * delays, so the write stalls there. The first half must take effect before.
 */
static int faults = -1;
static char *stalling;		/* two pages, the second of which is missing */

static bool can_stall(void)
{
	struct uffdio_api api = { .api = UFFD_API };

	faults = syscall(SYS_userfaultfd, O_CLOEXEC);
	return faults >= 0 && !ioctl(faults, UFFDIO_API, &api);
}

static void begin_to_stall(void)
{
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };

	stalling = mmap(NULL, 2 * page, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(stalling != MAP_FAILED);
	stalling[0] = 0;
	reg.range.start = (uintptr_t)stalling + page;
	reg.range.len = page;
	assert_int_equal(ioctl(faults, UFFDIO_REGISTER, &reg), 0);
}

static void go_on(void)
{
	struct uffdio_zeropage zero = { .range = {
		.start = (uintptr_t)stalling + page,
		.len = page,
	} };

	assert_int_equal(ioctl(faults, UFFDIO_ZEROPAGE, &zero), 0);
}

/* 4 bytes before the missing page, and 4 in it. */
static long write_stalled(void *at)
{
	return vfio_write(&v, *(uint64_t *)at, stalling + page - 4, 8);
}

/*
 * Writes @first to the 4 bytes at *@at, and zeros after them once go_on() is
 * called.
 */
static struct beside *start_stalled(const uint64_t *at, uint32_t first)
{
	struct beside *write;
	struct uffd_msg stalls;

	begin_to_stall();
	memcpy(stalling + page - 4, &first, 4);
	write = beside(write_stalled, at);
	assert_int_equal(read(faults, &stalls, sizeof(stalls)), sizeof(stalls));
	assert_int_equal(stalls.event, UFFD_EVENT_PAGEFAULT);
	return write;
}

/* User space may keep the kernel waiting for the end of its write. */
static void a_write_to_the_power_state_that_stalls_keeps_nobody_waiting(void **state)
{
	uint64_t at = CONFIG + pm_cap() + PM_CTRL;
	struct beside *write;
	uint32_t now;
	char byte;

	assert_back();
	assert_int_equal(vfio_read(&v, at, &now, 4), 4);
	write = start_stalled(&at, now);
	assert_back();
	go_on();
	assert_int_equal(ended(write), 8);

	write = start_stalled(&at, now | D3HOT);
	assert_int_equal(vfio_read(&v, REGION(USEMEM), &byte, 1), -EIO);
	go_on();
	assert_int_equal(ended(write), 8);
	assert_true(raises_sigbus(touch_read, old[0]));
	set_power_state(D0);
	assert_back();
}

struct crossed {
	struct vfio *dev;
	void *buffer;
	unsigned int written;
};

static long write_crossed(void *arg)
{
	struct crossed *w = arg;
	int i;

	for (i = 0; i < 1000; i++)
		w->written += vfio_write(w->dev, CONFIG + 0x44, w->buffer, 2) == 2;
	return 0;
}

/* Each write takes its bytes from the memory of the other GPU. */
static void two_config_writes_from_each_others_memory_end(void **state)
{
	struct vfio other;
	struct crossed w[2];
	struct beside *first;
	char *map;

	vfio_start(&other, "s1h");
	map = vfio_map(&other, USEMEM, 0, page, PROT_READ | PROT_WRITE,
		       MAP_SHARED, NULL);
	memset(map, 0, 8);
	memset(old[0], 0, 8);
	w[0] = (struct crossed){ .dev = &v, .buffer = map };
	w[1] = (struct crossed){ .dev = &other, .buffer = old[0] };
	first = beside(write_crossed, &w[0]);
	write_crossed(&w[1]);
	ended(first);
	assert_int_equal(w[0].written, 1000);
	assert_int_equal(w[1].written, 1000);
	strcpy(old[0], "before");
}

static int feature(uint32_t flags)
{
	struct vfio_device_feature f = { .argsz = sizeof(f), .flags = flags };

	return ioctl(v.device, VFIO_DEVICE_FEATURE, &f) ? -errno : 0;
}

/*
 * Neither a probe of the low power feature nor a failed entry changes anything.
 */
static void asking_for_low_power_loses_nothing(void **state)
{
	static const uint32_t entries[] = {
		VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY,
		VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP,
	};
	uint64_t before = looks();
	size_t i;

	assert_readiness("ready");
	for (i = 0; i < 2; i++) {
		assert_int_equal(feature(VFIO_DEVICE_FEATURE_PROBE | entries[i]),
				 0);
		assert_int_equal(feature(VFIO_DEVICE_FEATURE_PROBE |
					 VFIO_DEVICE_FEATURE_SET | entries[i]),
				 0);
		assert_readiness("ready");
	}
	/* Without its argument. */
	assert_int_equal(feature(VFIO_DEVICE_FEATURE_SET | entries[1]),
			 -EINVAL);
	assert_readiness("ready");
	assert_back();
	assert_int_equal(looks(), before);
}

static void low_power_takes_mappings_away(void **state)
{
	char word[8];
	size_t i;

	assert_int_equal(vfio_set_feature(&v, VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY,
					  NULL, 0), 0);
	assert_readiness("unknown");
	for (i = 0; i < 2; i++) {
		assert_true(raises_sigbus(touch_read, old[i]));
		assert_true(raises_sigbus(touch_write, fresh[i]));
	}
	/*
	 * A read wakes the GPU for its duration, and must leave no mapping
	 * behind.
	 */
	assert_int_equal(vfio_read(&v, REGION(USEMEM), word, 7), 7);
	assert_string_equal(word, "before");
	assert_int_equal(kernel_mappings(v.gpu, NULL), 0);
	assert_int_equal(vfio_set_feature(&v, VFIO_DEVICE_FEATURE_LOW_POWER_EXIT,
					  NULL, 0), 0);
	assert_back();
}

/* A CPU may speculatively read anything that it has a cacheable mapping of. */
static void unready_memory_has_no_mapping_at_all(void **state)
{
	struct access u[3];

	do {
		assert_back();
		assert_int_equal(kernel_mappings(v.gpu, NULL), 2);
		unready_after_resets();
		reset();
		assert_int_equal(kernel_mappings(v.gpu, NULL), 0);
		start_users(u);
		assert_int_equal(kernel_mappings(v.gpu, NULL), 0);
	} while (!release_users(u));
	assert_int_equal(kernel_mappings(v.gpu, NULL), 1);
}

/* As root, without vfio's knowledge. */
static void reset_by_sysfs(void)
{
	assert_int_equal(gpu_sysfs_write(v.gpu, "reset", "1"), 0);
}

static void after_a_reset_all_pages_wait(void **state)
{
	const struct variant *variant = *state;
	struct access u[3];
	uint64_t bar;

	do {
		bar = 0x4000000000ULL;
		assert_int_equal(vfio_write(&v, CONFIG + 0x20, &bar, 8), 8);
		unready_after_resets();
		variant->reset();
		assert_int_equal(vfio_read(&v, CONFIG + 0x20, &bar, 8), 8);
		assert_int_equal(bar, 0xc);
		start_users(u);
	} while (!release_users(u));
	assert_back();
}

/* A client must not be able to fill the log. */
static void resets_write_nothing_into_the_log(void **state)
{
	char line[512];
	int i, level;

	klog_mark();
	for (i = 0; i < 5; i++)
		reset();
	reset_by_sysfs();
	assert_back();
	while (klog_next(&level, line, sizeof(line)))
		if (strstr(line, v.gpu->addr))
			fail_msg("the log has: %s", line);
}

/*
 * A child's pages are zapped, too: it waits and then reads the right data.
 * Returns false if the test must begin anew.
 */
static bool child_waits_like_its_parent(void)
{
	struct access u[3];
	pid_t child;
	bool good;
	int status;

	*(volatile char *)old[0] = 'b';
	*(volatile char *)old[1] = 'b';
	child = fork();
	assert_true(child >= 0);
	if (!child) {
		volatile char c;

		/* Not cmocka's handler. */
		signal(SIGBUS, SIG_DFL);
		c = old[0][0];
		/* If the test fails, the child must not keep the GPU open. */
		alarm(600);
		while (c == 'b' && old[1][0] == 'b')
			c = old[0][0];
		_exit(c == 'z' || old[1][0] == 'z' ? 0 : 1);
	}
	unready_after_resets();
	reset();
	start_users(u);
	good = release_users(u);
	*(volatile char *)old[0] = 'z';
	*(volatile char *)old[1] = 'z';
	assert_int_equal(waitpid(child, &status, 0), child);
	if (good)
		assert_int_equal(status, 0);
	return good;
}

/* A mapping may be inherited by a child, moved, or partly unmapped. */
static void mappings_in_all_shapes_are_taken_away(void **state)
{
	char *was;

	was = vfio_map(&v, USEMEM, 0, 16 * page, RW, MAP_SHARED, NULL);
	assert_int_equal(was[0], 'b');
	munmap(old[0], page);
	old[0] = mmap(NULL, 16 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS,
		      -1, 0);
	assert_ptr_equal(mremap(was, 16 * page, 16 * page,
				MREMAP_MAYMOVE | MREMAP_FIXED, old[0]), old[0]);
	assert_string_equal(old[0], "before");
	assert_int_equal(munmap(old[0] + page, 15 * page), 0);

	while (!child_waits_like_its_parent())
		;
}

static void a_mapping_alone_goes_through_the_gate(void **state)
{
	munmap(old[1], page);
	munmap(fresh[0], page);
	munmap(fresh[1], page);
	vfio_close(&v);
	assert_true(gpu_bound(v.gpu));
	/* Only the mapping keeps the device open, and so this reset zaps. */
	reset_by_sysfs();
	assert_string_equal(old[0], "before");
}

/* No user mappings are left, and both reset and close unmap the kernel's. */
static volatile bool reset_now, idle;

static long reset_on_demand(void *unused)
{
	while (still_wanted()) {
		idle = !reset_now;
		if (idle)
			usleep(200);
		else
			gpu_sysfs_write(v.gpu, "reset", "1");
	}
	return 0;
}

static void closing_beside_resets_unmaps_once(void **state)
{
	struct beside *resets;
	uint16_t on;
	char byte;
	int i, at;

	reset_now = false;
	resets = beside(reset_on_demand, NULL);
	klog_mark();
	for (i = 0; i < 20; i++) {
		/* KASAN needs an eighth of what is mapped. */
		for (at = 0; at < 16; at++)
			assert_int_equal(vfio_read(&v, REGION(USEMEM) +
						   at * 512 * MiB, &byte, 1), 1);
		reset_now = true;
		usleep(i * 137 % 2000);
		vfio_close(&v);
		assert_int_equal(kernel_mappings(v.gpu, NULL), 0);
		reset_now = false;
		for (idle = false; !idle; )
			usleep(200);
		vfio_open(&v, v.gpu);
		/*
		 * The reset may have saved and restored the state in the middle
		 * of the close.
		 */
		on = command() | COMMAND_MEMORY;
		assert_int_equal(vfio_write(&v, COMMAND, &on, 2), 2);
	}
	ended(resets);
	assert_int_equal(klog_count("nonexistent"), 0);
}

static void over_the_hosts_sleep_readiness_is_forgotten(void **state)
{
	uint64_t before = looks(), asleep;
	struct access u[3];

	do {
		assert_back();
		unready_after_resets();
		vfio_bar0_write(&v, MODEL_UNREADY, UINT32_MAX);
		assert_readiness("ready");
		host_sleeps();
		assert_readiness("unknown");
		assert_int_equal(kernel_mappings(v.gpu, NULL), 0);
		asleep = looks();
		start_users(u);
		/* Nothing reads the registers of a GPU that may sleep. */
		assert_int_equal(looks(), asleep);
		host_wakes();
	} while (!release_users(u));
	assert_true(looks() > before);
	assert_back();
}

/* Tasks that wait for the memory freeze like any other. */
static void waiting_does_not_keep_the_host_awake(void **state)
{
	struct access u[3];

	do {
		unready_after_resets();
		reset();
		start_users(u);
		suspend_host();
	} while (!release_users(u));
	assert_back();
}

static long write_power_state(void *state)
{
	unsigned int at = pm_cap() + PM_CTRL;

	/*
	 * Some writes fail: the other thread's put their buffer out of reach.
	 */
	while (still_wanted())
		vfio_write(&v, CONFIG + at, state, 2);
	return 0;
}

static void changing_power_does_not_keep_the_host_awake(void **state)
{
	static uint16_t plain;
	struct beside *writes[2];

	memset(fresh[0], 0, 8);
	writes[0] = beside(write_power_state, fresh[0]);
	writes[1] = beside(write_power_state, &plain);
	usleep(200000);
	suspend_host();
	ended(writes[0]);
	ended(writes[1]);
	assert_back();
}

#define LIKE(function, name, ...) \
	VARIANT(name, function, setup, NULL, &((struct variant){ __VA_ARGS__ }))
#define TEST(name)	LIKE(name, name, .gpu = "second")

static const struct CMUnitTest tests[] = {
	LIKE(what_is_no_memory_needs_no_decoding, what_is_no_memory_needs_no_decoding,
	     .gpu = "odd", .unmapped = true),
	TEST(asking_for_low_power_loses_nothing),
	TEST(low_power_takes_mappings_away),
	TEST(unready_memory_has_no_mapping_at_all),
	LIKE(after_a_reset_all_pages_wait, after_a_reset_by_ioctl_all_pages_wait,
	     .gpu = "second", .reset = reset),
	LIKE(after_a_reset_all_pages_wait, after_a_reset_by_sysfs_all_pages_wait,
	     .gpu = "second", .reset = reset_by_sysfs),
	TEST(resets_write_nothing_into_the_log),
	TEST(mappings_in_all_shapes_are_taken_away),
	TEST(a_mapping_alone_goes_through_the_gate),
	LIKE(leaving_D3hot_asks_for_readiness_again, leaving_D3hot_asks_for_readiness_again,
	     .gpu = "softreset"),
	LIKE(a_cxl_part_in_D3hot_is_not_asked, a_cxl_part_in_D3hot_is_not_asked,
	     .gpu = "cxl", .unmapped = true),
	TEST(a_config_write_from_the_gpus_own_memory_counts),
	TEST(two_config_writes_from_each_others_memory_end),
	LIKE(after_leaving_D3hot_the_wait_is_whole, after_leaving_D3hot_the_wait_is_whole,
	     .gpu = "cxlsoft", .unmapped = true),
};

static const struct CMUnitTest slow_tests[] = {
	LIKE(closing_beside_resets_unmaps_once, closing_beside_resets_unmaps_once,
	     .gpu = "s95", .unmapped = true),
};

static const struct CMUnitTest sleep_tests[] = {
	TEST(over_the_hosts_sleep_readiness_is_forgotten),
};

/* Needs a kernel with suspend, which has this test mode. */
static const struct CMUnitTest suspend_tests[] = {
	TEST(waiting_does_not_keep_the_host_awake),
	TEST(changing_power_does_not_keep_the_host_awake),
};

/* Needs userfaultfd. */
static const struct CMUnitTest stall_tests[] = {
	TEST(a_write_to_the_power_state_that_stalls_keeps_nobody_waiting),
};

static int group_suspend(void **state)
{
	assert_true(host_can_suspend());
	return 0;
}

static int group_stall(void **state)
{
	assert_true(can_stall());
	return 0;
}

static const struct CMUnitTest gh200_tests[] = {
	LIKE(while_closed_nothing_is_in_reach, while_decoding_is_off_nothing_is_in_reach,
	     .gpu = "gh200", .at = 4, .count = 2),
	LIKE(while_closed_nothing_is_in_reach, decoding_may_be_switched_by_a_byte,
	     .gpu = "gh200", .at = 4, .count = 1),
	LIKE(while_closed_nothing_is_in_reach, decoding_may_be_switched_with_what_follows,
	     .gpu = "gh200", .at = 4, .count = 4),
	LIKE(while_closed_nothing_is_in_reach, decoding_may_be_switched_with_what_precedes,
	     .gpu = "gh200", .at = 0, .count = 64),
	LIKE(while_closed_nothing_is_in_reach, in_D3hot_nothing_is_in_reach,
	     .gpu = "gh200", .power = true, .at = PM_CTRL, .count = 2),
	LIKE(any_write_that_covers_the_power_state_counts,
	     any_write_that_covers_the_power_state_counts, .gpu = "gh200"),
};

const struct case_group groups[] = {
	{ "pages waits carve-out", CASES(gh200_tests) },
	{ "pages waits lab", CASES(tests) },
	{ "pages waits lab slow", CASES(slow_tests) },
	{ "pages waits lab lab:sleeper CONFIG_PM_SLEEP", CASES(sleep_tests) },
	{ "pages waits lab CONFIG_USERFAULTFD", CASES(stall_tests), group_stall },
	{ "pages waits lab CONFIG_SUSPEND CONFIG_PM_SLEEP_DEBUG",
	  CASES(suspend_tests), group_suspend },
	{ }
};
