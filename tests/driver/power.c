// SPDX-License-Identifier: GPL-2.0-only
/*
 * Runtime power management of a GPU whose power the firmware can cut, so that
 * the kernel puts it into D3cold: when it isn't open, and when its user
 * requests low power. The model counts every access that reaches it without
 * power. The test runner watches the memory, which is not behind the model.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib.h"

#define ENTRY		VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY
#define ENTRY_WAKEUP	VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP
#define EXIT		VFIO_DEVICE_FEATURE_LOW_POWER_EXIT
#define DELAY_MS	1500

static const struct gpu *gpu;

/* Both parts: region, physical address, and a mapping of the first pages. */
static struct part {
	unsigned int index;
	uint64_t phys;
	char *map;
} parts[2];

static uint64_t offs(void)
{
	return host_counter(gpu, "power_offs");
}

static uint64_t ons(void)
{
	return host_counter(gpu, "power_ons");
}

/*
 * Waits until the power is off. The kernel knows it only when the firmware's
 * method has returned.
 */
static void wait_until_off(uint64_t at_least)
{
	host_wait_counter(gpu, "power_offs", at_least);
	wait_until_asleep(gpu);
}

/* Requests low power, and waits until the power is off. */
static void enter(void)
{
	uint64_t before = offs();

	assert_int_equal(vfio_set_feature(&v, ENTRY, NULL, 0), 0);
	wait_until_off(before + 1);
}

static void leave(void)
{
	assert_int_equal(vfio_set_feature(&v, EXIT, NULL, 0), 0);
	assert_int_equal(offs(), ons());
}

static void set_delay(uint32_t ms)
{
	vfio_bar0_write(&v, MODEL_RESET_DELAY, ms);
}

static uint64_t touches(void)
{
	return host_counter(gpu, "accesses_without_power");
}

/* QEMU's own reads, when the root port's Link Status is read. */
static uint64_t port_reads(void)
{
	return host_counter(gpu, "port_reads_without_power");
}

/*
 * Since Linux 7.3, the port sleeps while its GPU does. When it wakes, before
 * the GPU has power, the kernel's bandwidth controller reads its Link Status. A
 * port that never sleeps has no reason for that.
 */
static void assert_nothing_reached_it(void)
{
	assert_int_equal(touches(), 0);
	if (!gpu_sysfs_is(gpu, "../power/control", "auto"))
		assert_int_equal(port_reads(), 0);
}

static int setup(void **state)
{
	size_t i;

	gpu = gpu_find("d3cold");
	vfio_start(&v, "d3cold");
	for (i = 0; i < 2; i++) {
		parts[i].index = i ? RESMEM : USEMEM;
		parts[i].phys = gpu->base + (i ? gpu->size - 1280 * MiB : 0);
		parts[i].map = vfio_map(&v, parts[i].index, 0, 16 * page, RW,
					MAP_SHARED, NULL);
	}
	return 0;
}

/* What the runner has seen in the guarded memory: power cycles, and writes. */
static void ask_guard(unsigned int *cycles, unsigned int *touched)
{
	char answer[64];

	host_ask(answer, sizeof(answer), "guarded %s", gpu->name);
	if (sscanf(answer, "%u %u", cycles, touched) != 2)
		fail_msg("\"%s\" should be two numbers", answer);
}

/* Every test begins and ends awake. */
static int back_to_normal(void **state)
{
	vfio_set_feature(&v, EXIT, NULL, 0);
	set_delay(0);
	return 0;
}

static void a_fault_in_low_power_is_SIGBUS_and_does_not_wake(void **state)
{
	char *map = ((struct part *)*state)->map, *fresh = map + 9 * page;
	uint64_t before;

	strcpy(map, "touched before");
	enter();
	before = ons();
	assert_true(raises_sigbus(touch_read, map));
	assert_ptr_equal(sigbus_addr, map);
	assert_true(raises_sigbus(touch_write, fresh));
	assert_ptr_equal(sigbus_addr, fresh);
	assert_int_equal(ons(), before);
	leave();
	assert_string_equal(map, "touched before");
	strcpy(fresh, "fresh");
	assert_string_equal(fresh, "fresh");
	assert_nothing_reached_it();
}

static void reads_and_writes_wake_it_for_as_long_as_they_last(void **state)
{
	const struct part *part = *state;
	uint64_t at = REGION(part->index) + 64, word = 0x0123456789abcdef, back = 0, cycles;

	enter();
	cycles = offs();
	assert_int_equal(vfio_write(&v, at, &word, 8), 8);
	assert_int_equal(ons(), cycles);
	wait_until_off(cycles + 1);
	assert_int_equal(vfio_read(&v, at, &back, 8), 8);
	assert_int_equal(back, word);
	assert_int_equal(ons(), cycles + 1);
	wait_until_off(cycles + 2);
	/* The user has not ended low power. */
	assert_true(raises_sigbus(touch_read, part->map));
	leave();
	assert_int_equal(*(volatile uint64_t *)(part->map + 64), word);
	assert_nothing_reached_it();
}

static void what_is_no_memory_needs_no_power(void **state)
{
	char byte = 0;

	enter();
	assert_int_equal(vfio_read(&v, REGION(USEMEM) + 2 * GiB - 1, &byte, 1),
			 1);
	assert_int_equal((unsigned char)byte, 0xff);
	assert_int_equal(vfio_write(&v, REGION(USEMEM) + 2 * GiB - 1, &byte, 1),
			 1);
	assert_int_equal(offs(), ons() + 1);
	leave();
}

static void the_registers_of_the_bars_survive_low_power(void **state)
{
	uint64_t bar0, bar2 = 0x2280000000ULL, bar4 = 0x4480000000ULL, back;

	assert_int_equal(vfio_read(&v, CONFIG + 0x10, &bar0, 8), 8);
	assert_int_equal(vfio_write(&v, CONFIG + 0x18, &bar2, 8), 8);
	assert_int_equal(vfio_write(&v, CONFIG + 0x20, &bar4, 8), 8);
	enter();
	leave();
	/* As vfio-pci-core keeps the register of BAR0. */
	assert_int_equal(vfio_read(&v, CONFIG + 0x10, &back, 8), 8);
	assert_int_equal(back, bar0);
	assert_int_equal(vfio_read(&v, CONFIG + 0x18, &back, 8), 8);
	assert_int_equal(back, bar2 | 0xc);
	assert_int_equal(vfio_read(&v, CONFIG + 0x20, &back, 8), 8);
	assert_int_equal(back, bar4 | 0xc);
}

/* Without power the memory loses its training, as in a reset. */
static void after_low_power_a_fault_waits_until_the_memory_is_ready(void **state)
{
	const struct part *part = *state, *other = &parts[part == parts];
	uint64_t begin, reads;

	strcpy(part->map, "trained");
	strcpy(other->map, "ready");
	set_delay(DELAY_MS);
	enter();
	begin = now_ms();
	leave();
	assert_string_equal(part->map, "trained");
	assert_waited(begin, DELAY_MS);
	/* The other part doesn't check again. */
	reads = host_counter(gpu, "c2c_reads");
	assert_string_equal(other->map, "ready");
	assert_int_equal(host_counter(gpu, "c2c_reads"), reads);
	assert_nothing_reached_it();
}

/* Each access follows a power cycle, and so a training of its own. */
static void each_access_in_low_power_waits(void **state)
{
	uint64_t word = 0x99aabbccddeeff00, back, begin, cycles;
	int i;

	set_delay(DELAY_MS);
	enter();
	for (i = 0; i < 3; i++) {
		cycles = offs();
		begin = now_ms();
		if (i)
			assert_int_equal(vfio_read(&v, REGION(RESMEM), &back,
						   8), 8);
		else
			assert_int_equal(vfio_write(&v, REGION(RESMEM), &word,
						    8), 8);
		assert_waited(begin, DELAY_MS);
		wait_until_off(cycles + 1);
	}
	assert_int_equal(back, word);
	begin = now_ms();
	leave();
	assert_int_equal(*(volatile uint64_t *)parts[1].map, word);
	assert_waited(begin, DELAY_MS);
	assert_nothing_reached_it();
}

static long touch_beside(void *map)
{
	return raises_sigbus(touch_read, map);
}

/* If low power begins during a wait, the result of the wait doesn't count. */
static void a_wait_that_low_power_overtakes_does_not_count(void **state)
{
	uint64_t before, begin;
	struct beside *touch;

	strcpy(parts[0].map, "kept");
	assert_int_equal(vfio_reset(&v), 0);
	vfio_bar0_write(&v, MODEL_UNREADY, UINT32_MAX);
	set_delay(DELAY_MS);
	before = host_counter(gpu, "c2c_reads");
	touch = beside(touch_beside, parts[0].map);
	host_wait_counter(gpu, "c2c_reads", before + 2);
	before = offs();
	assert_int_equal(vfio_set_feature(&v, ENTRY, NULL, 0), 0);
	vfio_bar0_write(&v, MODEL_UNREADY, 0);
	/* The fault happens in low power. */
	assert_int_equal(ended(touch), true);
	wait_until_off(before + 1);

	begin = now_ms();
	leave();
	assert_string_equal(parts[0].map, "kept");
	assert_waited(begin, DELAY_MS);
	assert_nothing_reached_it();
}

static void with_wakeup_an_access_ends_low_power_and_says_so(void **state)
{
	struct vfio_device_low_power_entry_with_wakeup arg = { 0 };
	uint64_t before, signals = 0, word = 7, back = 0;
	struct pollfd p = { .events = POLLIN };

	strcpy(parts[0].map, "slept");
	p.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	assert_true(p.fd >= 0);
	set_delay(DELAY_MS);
	before = offs();
	arg.wakeup_eventfd = p.fd;
	assert_int_equal(vfio_set_feature(&v, ENTRY_WAKEUP, &arg, sizeof(arg)), 0);
	wait_until_off(before + 1);
	assert_int_equal(poll(&p, 1, 0), 0);
	assert_true(raises_sigbus(touch_read, parts[0].map));

	assert_int_equal(vfio_write(&v, REGION(RESMEM), &word, 8), 8);
	assert_int_equal(read(p.fd, &signals, 8), 8);
	assert_int_equal(signals, 1);
	/*
	 * Awake for good: the user doesn't have to end low power, and no access
	 * waits.
	 */
	assert_string_equal(parts[0].map, "slept");
	assert_int_equal(vfio_read(&v, REGION(RESMEM), &back, 8), 8);
	assert_int_equal(back, word);
	assert_int_equal(offs(), before + 1);
	close(p.fd);

	/* Low power can be requested again. */
	enter();
	leave();
	assert_string_equal(parts[0].map, "slept");
	assert_nothing_reached_it();
}

static void a_reset_in_low_power_wakes_it_and_leaves_it_in_low_power(void **state)
{
	uint64_t resets = host_counter(gpu, "resets");
	uint64_t cycles;

	strcpy(parts[0].map, "kept");
	enter();
	cycles = offs();
	assert_int_equal(vfio_reset(&v), 0);
	assert_int_equal(host_counter(gpu, "resets"), resets + 1);
	wait_until_off(cycles + 1);
	assert_true(raises_sigbus(touch_read, parts[0].map));
	leave();
	assert_string_equal(parts[0].map, "kept");
	assert_nothing_reached_it();
}

static void closing_in_low_power_is_all_right(void **state)
{
	char back[8];

	strcpy(parts[0].map, "closed");
	enter();
	assert_int_equal(leave_nothing(NULL), 0);
	assert_int_equal(setup(NULL), 0);
	assert_string_equal(parts[0].map, "closed");
	assert_int_equal(vfio_read(&v, REGION(USEMEM), back, 7), 7);
	assert_string_equal(back, "closed");
	assert_nothing_reached_it();
}

static void a_bound_gpu_that_nobody_has_open_is_without_power(void **state)
{
	uint64_t before = offs();

	strcpy(parts[1].map, "idle");
	munmap(parts[0].map, 16 * page);
	munmap(parts[1].map, 16 * page);
	vfio_close(&v);
	wait_until_off(before + 1);
	assert_int_equal(offs(), ons() + 1);
	assert_int_equal(setup(NULL), 0);
	assert_int_equal(offs(), ons());
	assert_string_equal(parts[1].map, "idle");
	assert_nothing_reached_it();
}

/* Accesses while the device enters and leaves low power. */
struct user {
	struct beside *beside;
	struct part *part;
	uint64_t accesses;
	uint64_t wrong;
};

static long use(void *arg)
{
	struct user *u = arg;
	uint64_t at = REGION(u->part->index) + 2 * page;
	uint64_t word = 0, back;

	while (still_wanted()) {
		word++;
		if (vfio_write(&v, at, &word, 8) != 8 ||
		    vfio_read(&v, at, &back, 8) != 8 || back != word)
			u->wrong++;
		u->accesses += 2;
		/* Without pauses, it hardly ever falls asleep on a slow machine. */
		usleep(1000);
	}
	return 0;
}

struct glance {
	volatile uint64_t *word;
	uint64_t seen;
};

static void glance_at(void *arg)
{
	struct glance *g = arg;

	g->seen = *g->word;
}

/*
 * While the power is off, the runner puts other content into these pages: a
 * read of the memory then returns wrong data, and a write is counted.
 */
static void nothing_reaches_the_device_or_its_memory_while_it_sleeps(void **state)
{
	struct user u[2] = { { .part = &parts[0] }, { .part = &parts[1] } };
	struct glance g = { (uint64_t *)(parts[0].map + 3 * page), 0 };
	uint64_t begin, cycles, sigbus = 0, glances = 0, entries = 0;
	unsigned int touched, guarded;
	size_t i;

	*g.word = 0xfeedfacecafebeef;
	host_ask(NULL, 0, "guard %s %#llx %zu", gpu->name,
		 (unsigned long long)parts[0].phys + 2 * page, 2 * page);
	cycles = offs();
	for (i = 0; i < 2; i++)
		u[i].beside = beside(use, &u[i]);
	begin = now_ms();
	/* For 3 s, and on a slow machine until enough has happened. */
	while (now_ms() - begin < 3000 || offs() - cycles < 5 || !sigbus ||
	       !glances || u[0].accesses <= 10 || u[1].accesses <= 10) {
		if (entries++ % 2)
			vfio_set_feature(&v, EXIT, NULL, 0);
		else
			vfio_set_feature(&v, ENTRY, NULL, 0);
		for (i = 0; i < 20; i++) {
			if (raises_sigbus(glance_at, &g)) {
				sigbus++;
			} else {
				glances++;
				if (g.seen != 0xfeedfacecafebeef)
					u[0].wrong++;
			}
			usleep(1000);
		}
	}
	for (i = 0; i < 2; i++)
		ended(u[i].beside);
	vfio_set_feature(&v, EXIT, NULL, 0);
	cycles = offs() - cycles;
	ask_guard(&guarded, &touched);
	print_message("# %llu power cycles; %llu reads and writes; loads: %llu SIGBUS, %llu good\n",
		      (unsigned long long)cycles,
		      (unsigned long long)(u[0].accesses + u[1].accesses),
		      (unsigned long long)sigbus, (unsigned long long)glances);
	assert_int_equal(u[0].wrong + u[1].wrong, 0);
	assert_int_equal(touched, 0);
	assert_nothing_reached_it();
	/* The GPU lost and regained power, and was accessed in both states. */
	assert_true(cycles >= 5);
	assert_true(guarded >= cycles - 1);
	assert_true(sigbus > 0 && glances > 0);
	assert_true(u[0].accesses > 10 && u[1].accesses > 10);
}

#define STAY_AWAKE	"/sys/module/" DRIVER "/parameters/disable_idle_d3"

static uint64_t asleep_ms(const struct gpu *other)
{
	return gpu_sysfs_number(other, "power/runtime_suspended_time");
}

/* On every kernel, and whenever the parameter changes. */
static void with_disable_idle_d3_only_a_user_lets_it_sleep(void **state)
{
	const struct gpu *other = gpu_find("tinymem");
	struct vfio dev;
	uint64_t before;

	must_write_file(STAY_AWAKE, "1");
	assert_int_equal(gpu_bind(other), 0);
	before = asleep_ms(other);
	vfio_open(&dev, other);
	vfio_close(&dev);
	usleep(200000);
	assert_true(gpu_sysfs_is(other, "power/runtime_status", "active"));
	assert_int_equal(asleep_ms(other), before);

	vfio_open(&dev, other);
	assert_int_equal(vfio_set_feature(&dev, ENTRY, NULL, 0), 0);
	wait_until_asleep(other);
	assert_int_equal(vfio_set_feature(&dev, EXIT, NULL, 0), 0);
	/* The parameter counts at the next bind. */
	must_write_file(STAY_AWAKE, "0");
	vfio_close(&dev);
	usleep(200000);
	assert_true(gpu_sysfs_is(other, "power/runtime_status", "active"));
	assert_int_equal(gpu_unbind(other), 0);
	/* The reference went with the driver. */
	assert_int_equal(gpu_bind(other), 0);
	wait_until_asleep(other);
	assert_int_equal(gpu_unbind(other), 0);
}

#define TEST(name) \
	cmocka_unit_test_setup_teardown(name, back_to_normal, back_to_normal)
/* One case for each part. */
#define BOTH(name) \
	VARIANT(name, name, back_to_normal, back_to_normal, &parts[0]), \
	VARIANT(name##_in_resmem, name, back_to_normal, back_to_normal, &parts[1])

static const struct CMUnitTest tests[] = {
	BOTH(a_fault_in_low_power_is_SIGBUS_and_does_not_wake),
	BOTH(reads_and_writes_wake_it_for_as_long_as_they_last),
	TEST(what_is_no_memory_needs_no_power),
	TEST(the_registers_of_the_bars_survive_low_power),
	BOTH(after_low_power_a_fault_waits_until_the_memory_is_ready),
	TEST(each_access_in_low_power_waits),
	TEST(a_wait_that_low_power_overtakes_does_not_count),
	TEST(with_wakeup_an_access_ends_low_power_and_says_so),
	TEST(a_reset_in_low_power_wakes_it_and_leaves_it_in_low_power),
	TEST(closing_in_low_power_is_all_right),
	TEST(a_bound_gpu_that_nobody_has_open_is_without_power),
	TEST(nothing_reaches_the_device_or_its_memory_while_it_sleeps),
	TEST(with_disable_idle_d3_only_a_user_lets_it_sleep),
};

const struct case_group groups[] = {
	{ "waits lab", CASES(tests), setup, .shared = true },
	{ }
};
