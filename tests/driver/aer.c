// SPDX-License-Identifier: GPL-2.0-only
/*
 * PCIe errors while a client has the GPU open: what the kernel reports to the
 * client, and the state of the GPU and its memory afterwards. The kernel's
 * aer_inject makes device and root port appear to have these errors in their
 * registers, and raises the port's interrupt. Everything after that is the
 * kernel's real recovery. Needs the module aer_inject.
 *
 * The group "late" takes minutes: scrubs that can't begin.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib.h"
#include "waits.h"

#define DELAY_MS	1500

#define NEIGHBOUR	"/sys/module/neighbour/parameters/"

/* Recovery takes a second by itself: the kernel gives the bus that time. */
#define RECOVERY_MS	600000

/* What a case starts with, and what varies between cases of one function. */
struct variant {
	const char *gpu;
	bool unbound;		/* the case binds it itself */
	bool scrubbed;		/* the module scrubs it, and has done so */
	const char *module;	/* of lab/modules */
	uint32_t uncorrected, corrected;
	bool fault;		/* rather than a read */
	void (*end)(void);	/* of a failed recovery */
};

static int err_fd = -1;
static char *maps[2];
static const unsigned int indexes[] = { USEMEM, RESMEM };

static uint64_t resets(const struct gpu *gpu)
{
	return host_counter(gpu, "resets");
}

/* Number of errors signaled to the client since the last call. */
static uint64_t told(void)
{
	uint64_t count = 0;

	if (read(err_fd, &count, sizeof(count)) < 0)
		assert_int_equal(errno, EAGAIN);
	return count;
}

static void wait_until_told(void)
{
	struct pollfd p = { .fd = err_fd, .events = POLLIN };

	assert_int_equal(poll(&p, 1, RECOVERY_MS), 1);
}

static void wait_for_the_end(const char *how)
{
	char text[64];

	snprintf(text, sizeof(text), "device recovery %s", how);
	if (!klog_wait(text, RECOVERY_MS))
		fail_msg("the log has no \"%s\"", text);
}

/* An error of the open GPU, from its injection to the end of the recovery. */
static void have_error(uint32_t error, const char *how)
{
	gpu_inject_error(v.gpu, error, 0);
	wait_until_told();
	wait_for_the_end(how);
}

/* Opens a bound GPU, registers an eventfd for errors, and maps both parts. */
static void open_all(const struct gpu *gpu)
{
	union {
		struct vfio_irq_set set;
		char bytes[sizeof(struct vfio_irq_set) + sizeof(int32_t)];
	} u = { .set = {
		.argsz = sizeof(u),
		.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
		.index = VFIO_PCI_ERR_IRQ_INDEX,
		.count = 1,
	} };
	size_t i;

	vfio_open(&v, gpu);
	err_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	assert_true(err_fd >= 0);
	memcpy(u.set.data, &err_fd, sizeof(err_fd));
	if (ioctl(v.device, VFIO_DEVICE_SET_IRQS, &u))
		fail_msg("VFIO_PCI_ERR_IRQ_INDEX: %s", strerror(errno));
	for (i = 0; i < 2; i++)
		maps[i] = vfio_map(&v, indexes[i], 0, 16 * page, RW,
				   MAP_SHARED, NULL);
}

static void close_all(void)
{
	size_t i;

	for (i = 0; i < 2; i++)
		munmap(maps[i], 16 * page);
	close(err_fd);
	err_fd = -1;
	vfio_close(&v);
}

static int setup(void **state)
{
	return load_file("/tests/aer_inject.ko");
}

static int teardown(void **state)
{
	return unload("aer_inject");
}

static int begin(void **state)
{
	const struct variant *w = *state;
	const struct gpu *gpu = gpu_find(w->gpu);
	char path[64];
	size_t i;

	if (w->module) {
		snprintf(path, sizeof(path), "/tests/%s.ko", w->module);
		assert_int_equal(load_file(path), 0);
	}
	if (w->unbound)
		return 0;
	scrub_set_parameter(w->scrubbed);
	assert_int_equal(gpu_bind(gpu), 0);
	if (w->scrubbed) {
		assert_string_equal(scrub_end(gpu), "clean");
		return 0;
	}
	open_all(gpu);
	for (i = 0; i < 2; i++)
		strcpy(maps[i], "before");
	return 0;
}

/* The case may have failed half-way. */
static int end(void **state)
{
	static const char *const parameters[] = {
		NEIGHBOUR "hold", NEIGHBOUR "lock", NEIGHBOUR "numb",
	};
	const struct variant *w = *state;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(parameters); i++)
		write_file(parameters[i], "0");
	close(err_fd);
	err_fd = -1;
	scrub_set_parameter(false);
	return leave_nothing(state) ?: w->module ? unload(w->module) : 0;
}

static void write_bars(uint64_t bar)
{
	assert_int_equal(vfio_write(&v, CONFIG + 0x18, &bar, 8), 8);
	assert_int_equal(vfio_write(&v, CONFIG + 0x20, &bar, 8), 8);
}

static void assert_bars(uint64_t bar)
{
	uint64_t back;

	assert_int_equal(vfio_read(&v, CONFIG + 0x18, &back, 8), 8);
	assert_int_equal(back, bar | 0xc);
	assert_int_equal(vfio_read(&v, CONFIG + 0x20, &back, 8), 8);
	assert_int_equal(back, bar | 0xc);
}

/* Until the driver knows that the memory is ready, it refuses all accesses. */
static void assert_refused(void)
{
	char back[8];

	assert_int_equal(vfio_read(&v, REGION(USEMEM), back, 5), -EIO);
	assert_int_equal(vfio_write(&v, REGION(RESMEM), back, 5), -EIO);
	assert_true(raises_sigbus(touch_read, maps[0]));
	assert_true(raises_sigbus(touch_read, maps[1] + page));
}

/* Both parts are as begin() left them. */
static void assert_of_use(void)
{
	char back[8];
	size_t i;

	for (i = 0; i < 2; i++) {
		assert_int_equal(vfio_read(&v, REGION(indexes[i]), back, 7), 7);
		assert_string_equal(back, "before");
		assert_string_equal(maps[i], "before");
	}
}

static void an_error_loses_nothing(void **state)
{
	const struct variant *w = *state;
	uint64_t before, looks;
	char back[8];
	size_t i;

	write_bars(0x4000000000ULL);
	before = resets(v.gpu);
	looks = host_counter(v.gpu, "c2c_reads");

	gpu_inject_error(v.gpu, w->uncorrected, w->corrected);
	if (w->uncorrected) {
		wait_until_told();
		wait_for_the_end("successful");
	} else if (!klog_wait("severity=Correct", RECOVERY_MS)) {
		fail_msg("the log has no corrected error");
	}
	assert_int_equal(told(), w->uncorrected ? 1 : 0);

	assert_int_equal(resets(v.gpu), before);
	assert_bars(0x4000000000ULL);
	for (i = 0; i < 2; i++) {
		assert_string_equal(maps[i], "before");
		strcpy(maps[i] + 9 * page, "fresh");
		assert_int_equal(vfio_read(&v, REGION(indexes[i]) + 9 * page,
					   back, 6), 6);
		assert_string_equal(back, "fresh");
	}
	/* The driver had no reason to check readiness again. */
	assert_int_equal(host_counter(v.gpu, "c2c_reads"), looks);
}

/* The recovery resets the link and thereby the device. */
static void a_fatal_error_is_told_and_is_a_reset(void **state)
{
	uint64_t before;
	char back[8];
	size_t i;

	write_bars(0x4000000000ULL);
	before = resets(v.gpu);

	have_error(ERR_DATA_LINK, "successful");
	assert_int_equal(told(), 1);
	assert_true(resets(v.gpu) > before);
	assert_bars(0);

	for (i = 0; i < 2; i++) {
		assert_int_equal(vfio_read(&v, REGION(indexes[i]), back, 7), 7);
		assert_string_equal(back, "before");
		assert_string_equal(maps[i], "before");
		strcpy(maps[i] + 5 * page, "fresh");
		assert_string_equal(maps[i] + 5 * page, "fresh");
	}
	/* The GPU's own registers are reset, too, as by any other reset. */
	assert_int_equal(vfio_bar0_read(&v, BAR0_HBM), 0xff);
}

/*
 * The error also removes pages that were mapped before, and faults wait as
 * well.
 */
static void after_a_fatal_error_the_memory_is_waited_for(void **state)
{
	const struct variant *w = *state;
	uint64_t begin;
	char byte;

	vfio_bar0_write(&v, MODEL_RESET_DELAY, UINT32_MAX);
	have_error(ERR_DATA_LINK, "successful");

	/* The memory is not ready yet, and becomes ready after a delay. */
	begin = now_ms();
	host_ask(NULL, 0, "ready %s %d", v.gpu->name, DELAY_MS);
	if (w->fault)
		assert_string_equal(maps[0], "before");
	else
		assert_int_equal(vfio_read(&v, REGION(RESMEM), &byte, 1), 1);
	assert_waited(begin, DELAY_MS);
	vfio_bar0_write(&v, MODEL_RESET_DELAY, 0);
}

/* Accesses during recovery fail, and are good again after it. */
static volatile uint64_t good, refused, bad;

static long use(void *arg)
{
	unsigned int index = *(const unsigned int *)arg;
	uint64_t word = 0x5a5a5a5a5a5a5a5a, back;
	ssize_t ret;

	while (still_wanted()) {
		ret = vfio_write(&v, REGION(index) + 64 * KiB, &word, 8);
		if (ret == 8)
			ret = vfio_read(&v, REGION(index) + 64 * KiB, &back, 8);
		if (ret == 8 && back == word)
			__atomic_fetch_add(&good, 1, __ATOMIC_RELAXED);
		else if (ret == -EIO)
			__atomic_fetch_add(&refused, 1, __ATOMIC_RELAXED);
		else
			__atomic_fetch_add(&bad, 1, __ATOMIC_RELAXED);
	}
	return 0;
}

static void users_meanwhile_are_refused_and_go_on(void **state)
{
	struct beside *users[4];
	uint64_t before;
	size_t i;

	vfio_bar0_write(&v, MODEL_RESET_DELAY, 300);
	good = 0;
	refused = 0;
	bad = 0;
	for (i = 0; i < ARRAY_SIZE(users); i++)
		users[i] = beside(use, &indexes[i % 2]);
	for (i = 0; i < 5; i++) {
		have_error(ERR_DATA_LINK, "successful");
		assert_int_equal(told(), 1);
		before = good;
		while (good < before + 100)
			usleep(1000);
	}
	for (i = 0; i < ARRAY_SIZE(users); i++)
		ended(users[i]);
	print_message("# %llu accesses, %llu refused\n",
		      (unsigned long long)good, (unsigned long long)refused);
	assert_int_equal(bad, 0);
	assert_true(refused > 0);
	vfio_bar0_write(&v, MODEL_RESET_DELAY, 0);
}

static void a_fatal_error_on_a_gpu_that_nobody_has_open(void **state)
{
	const struct gpu *gpu = v.gpu;
	uint64_t before;

	close_all();
	before = resets(gpu);
	gpu_inject_error(gpu, ERR_DATA_LINK, 0);
	wait_for_the_end("successful");
	assert_true(resets(gpu) > before);
	open_all(gpu);
	assert_of_use();
}

/*
 * The kernel never resets the bus of a GH200, so recovery fails. The client is
 * notified, and can't access memory whose state is unknown.
 */
static void a_gh200_that_can_not_recover_is_lost_to_its_client(void **state)
{
	const struct gpu *gpu = v.gpu;
	uint64_t before = resets(gpu), count;
	int i;

	have_error(ERR_DATA_LINK, "failed");
	/*
	 * Once for the error, and once for the failure if the kernel reports
	 * it.
	 */
	count = told();
	assert_true(count == 1 || count == 2);
	assert_int_equal(resets(gpu), before);
	close_all();
	assert_int_equal(gpu_unbind(gpu), 0);

	/* Removed and found again, the GPU works. */
	assert_int_equal(gpu_sysfs_write(gpu, "remove", "1"), 0);
	gpu_rescan(gpu);
	assert_int_equal(gpu_bind(gpu), 0);
	open_all(gpu);
	for (i = 0; i < 2; i++) {
		assert_of_use();
		assert_int_equal(vfio_reset(&v), 0);
	}
}

/*
 * Lets a recovery fail, after which the GPU is lost. Returns whether the kernel
 * told the driver, which then notifies the client before the kernel logs the
 * failure. Some kernels don't.
 */
static bool fail_to_recover(void)
{
	uint64_t count;

	/* As a link reset that was for nothing does: otherwise it would be back. */
	gpu_set_bar0(v.gpu, 0);
	gpu_inject_error(v.gpu, ERR_DATA_LINK, 0);
	wait_until_told();
	/* The driver removes the mappings before it tells the client. */
	assert_refused();
	count = told();
	wait_for_the_end("failed");
	assert_refused();
	count += told();
	return count == 2;
}

static void reset_by_ioctl(void)
{
	assert_int_equal(vfio_reset(&v), 0);
}

static void open_again(void)
{
	close_all();
	open_all(v.gpu);
}

/* A reset that works ends the failure. */
static void after_a_failed_recovery_the_memory_comes_back(void **state)
{
	const struct variant *w = *state;

	fail_to_recover();
	assert_true(gpu_sysfs_is(v.gpu, "nvgrace_gpu/readiness", "failed"));
	w->end();
	assert_of_use();
}

/* A later error that is not fatal doesn't bring the BARs back. */
static void after_a_failed_recovery_another_error_mends_nothing(void **state)
{
	if (fail_to_recover()) {
		gpu_inject_error(v.gpu, ERR_COMPLETION_TIMEOUT, 0);
		wait_for_the_end("successful");
		assert_true(gpu_sysfs_is(v.gpu, "nvgrace_gpu/readiness",
					 "failed"));
		assert_refused();
	}
	assert_int_equal(vfio_reset(&v), 0);
}

/* The GPU answers and has its BARs, so only its readiness must be found out. */
static void after_a_failed_recovery_a_gpu_that_is_there_works(void **state)
{
	uint64_t count;

	gpu_inject_error(v.gpu, ERR_DATA_LINK, 0);
	wait_until_told();
	count = told();
	wait_for_the_end("failed");
	count += told();
	/* Some kernels don't report the failure. */
	if (count == 2) {
		assert_of_use();
	} else {
		assert_refused();
		assert_int_equal(vfio_reset(&v), 0);
	}
}

/* The line reports the failed recovery, not registers that were never read. */
static void a_failed_recovery_has_one_true_line(void **state)
{
	static const char mark[] = "aer: the recovery to be told of";
	int level, lines = 0, wrong = 0, i;
	char line[512];
	bool reported;

	must_write_file("/dev/kmsg", mark);
	reported = fail_to_recover();
	if (!reported)
		print_message("# the kernel does not report the failure\n");
	for (i = 0; i < 3; i++)
		assert_refused();

	klog_rewind();
	assert_true(klog_wait(mark, 0));
	while (klog_next(&level, line, sizeof(line))) {
		lines += !!strstr(line, "recovery from a PCIe error");
		wrong += strstr(line, "all ones") ||
			 strstr(line, "not ready after");
	}
	assert_int_equal(lines, reported);
	assert_int_equal(wrong, 0);
	assert_int_equal(vfio_reset(&v), 0);
}

/* A neighbour without a driver makes a recovery fail that no device needed. */
static void a_neighbour_without_a_driver_loses_nothing(void **state)
{
	have_error(ERR_COMPLETION_TIMEOUT, "failed");
	assert_of_use();
}

/* Here the link was reset, and the kernel has not restored config space. */
static void after_a_link_reset_that_was_for_nothing_a_reset_restores_the_bars(void **state)
{
	uint64_t before, bar0;

	/* The low half of a register that was cleared looks right. */
	gpu_bar(v.gpu, 0, &bar0);
	assert_int_equal(bar0 % (4 * GiB), 0);
	before = resets(v.gpu);
	have_error(ERR_DATA_LINK, "failed");
	assert_true(resets(v.gpu) > before);
	assert_refused();
	told();
	/* Another error changes nothing. */
	have_error(ERR_COMPLETION_TIMEOUT, "failed");
	assert_refused();
	assert_int_equal(vfio_reset(&v), 0);
	assert_of_use();
	assert_int_equal(vfio_bar0_read(&v, MODEL_MAGIC), 0x4d47564e);
}

static void tell_neighbour(const char *what, bool on)
{
	char path[64];

	snprintf(path, sizeof(path), NEIGHBOUR "%s", what);
	must_write_file(path, on ? "1" : "0");
}

static void wait_for_neighbour(const char *what)
{
	char path[64], byte = 'N';
	int fd;

	snprintf(path, sizeof(path), NEIGHBOUR "%s", what);
	while (byte != 'Y') {
		usleep(1000);
		fd = open(path, O_RDONLY);
		assert_true(fd >= 0);
		assert_int_equal(read(fd, &byte, 1), 1);
		close(fd);
	}
}

/*
 * The neighbour delays recovery and requests a reset of the bus. Returns when its
 * driver has been notified, and the GPU's driver before it.
 */
static void start_held_up(uint32_t error)
{
	assert_of_use();
	tell_neighbour("hold", true);
	gpu_inject_error(v.gpu, error, 0);
	wait_for_neighbour("asked");
}

static void end_held_up(void)
{
	tell_neighbour("hold", false);
	wait_for_the_end("successful");
}

/*
 * Nothing waits for a recovery, which may take for ever: here it takes until
 * all accesses have ended. A GPU that has lost power must not be read, not even by a
 * processor's prefetches, for which a mapping suffices.
 */
static void while_the_link_is_frozen_all_accesses_fail(void **state)
{
	uint64_t before;
	int i;

	start_held_up(ERR_DATA_LINK);
	before = resets(v.gpu);
	assert_int_equal(kernel_mappings(v.gpu, NULL), 0);
	for (i = 0; i < 100; i++)
		assert_refused();
	assert_true(gpu_sysfs_is(v.gpu, "nvgrace_gpu/readiness", "failed"));
	/* The client may demand its memory back. */
	assert_int_equal(vfio_reset(&v), 0);
	assert_of_use();
	end_held_up();
	assert_true(resets(v.gpu) > before + 1);
	assert_of_use();
}

/* Only slot_reset() says that there was a reset. */
static void while_a_neighbour_wants_a_reset_all_goes_on(void **state)
{
	start_held_up(ERR_COMPLETION_TIMEOUT);
	assert_of_use();
	write_bars(0x4000000000ULL);
	assert_bars(0x4000000000ULL);
	end_held_up();
	assert_bars(0);
	assert_of_use();
}

/* The kernel retries such a fault for as long as the driver says so. */
static void a_fault_ends_if_the_gpu_does_not_wake_up(void **state)
{
	vfio_bar0_write(&v, MODEL_RESET_DELAY, UINT32_MAX);
	assert_int_equal(vfio_reset(&v), 0);
	tell_neighbour("numb", true);
	assert_true(raises_sigbus(touch_read, maps[0]));
	tell_neighbour("numb", false);
	vfio_bar0_write(&v, MODEL_RESET_DELAY, 0);
	assert_int_equal(vfio_reset(&v), 0);
	assert_string_equal(maps[0], "before");
}

/* A client that is told of success would go on without the GPU's BARs. */
static void a_link_reset_without_bars_afterwards_is_no_recovery(void **state)
{
	begin_failing("0", "pci_restore_state");
	have_error(ERR_DATA_LINK, "failed");
	end_failing("pci_restore_state");
	assert_refused();
	assert_int_equal(vfio_reset(&v), 0);
	assert_of_use();
}

/*
 * Accesses that wait for readiness when the link freezes: with a line in the
 * log, they would have waited to the end.
 */
static void when_the_link_freezes_those_who_wait_fail(void **state)
{
	struct access waits[3];
	uint64_t looks;
	bool again;
	size_t i;

	do {
		waits_begin();
		klog_mark();
		vfio_unready_after_resets(&v);
		assert_int_equal(vfio_reset(&v), 0);
		looks = host_counter(v.gpu, "c2c_reads");
		for (i = 0; i < ARRAY_SIZE(waits); i++) {
			waits[i] = (struct access){ .dev = &v, .how = i < 2 ? LOAD : READ };
			waits[i].page = maps[i % 2];
			waits[i].at = REGION(RESMEM);
			waits[i].beside = beside(access_memory, &waits[i]);
		}
		host_wait_counter(v.gpu, "c2c_reads", looks + 5);
		gpu_set_bar0(v.gpu, 0);
		gpu_inject_error(v.gpu, ERR_DATA_LINK, 0);
		for (i = 0; i < ARRAY_SIZE(waits); i++)
			assert_int_equal(ended(waits[i].beside), i < 2 ? -EFAULT : -EIO);
		wait_for_the_end("failed");
		again = waits_again();
		assert_int_equal(vfio_reset(&v), 0);
		vfio_make_ready(&v);
	} while (again);
	assert_int_equal(klog_count("not ready after"), 0);
}

/*
 * Another task takes the device lock in the midst of a scrub. Returns once the
 * scrub needs its mappings no more.
 */
static void lock_during_scrub(const struct gpu *gpu)
{
	bool late;

	do {
		assert_int_equal(gpu_sysfs_write(gpu, "nvgrace_gpu/scrub", "1"),
				 0);
		while (scrub_progress(gpu) < 64 * MiB)
			usleep(100);
		tell_neighbour("lock", true);
		wait_for_neighbour("locked");
		late = !gpu_sysfs_is(gpu, "nvgrace_gpu/readiness", "ready");
		if (late)
			tell_neighbour("lock", false);
	} while (late);
	while (!gpu_sysfs_is(gpu, "nvgrace_gpu/readiness", "unknown"))
		usleep(1000);
}

/* The content is unknown now, and the next open clears it first. */
static void assert_next_open_scrubs(const struct gpu *gpu)
{
	assert_true(gpu_sysfs_is(gpu, "nvgrace_gpu/scrub_state", "unknown"));
	soil(gpu);
	vfio_open(&v, gpu);
	assert_clean(gpu);
	vfio_close(&v);
	assert_string_equal(scrub_end(gpu), "clean");
}

/* Nobody knows what a bus reset has left of zeros in the GPU's cache. */
static void after_a_fatal_error_nothing_is_clean(void **state)
{
	const struct gpu *gpu = gpu_find("neighbour");

	gpu_inject_error(gpu, ERR_DATA_LINK, 0);
	wait_for_the_end("successful");
	assert_next_open_scrubs(gpu);
}

static long try_to_open(void *gpu)
{
	return vfio_try_open(&v, gpu);
}

/* An error waits for the device lock, which the open's own reset has, and comes next. */
static void an_open_in_which_the_link_fails_shows_nothing(void **state)
{
	const struct gpu *gpu = gpu_find("second");
	struct beside *open;
	uint64_t before;
	int tries = 0;
	long ret;

	do {
		assert_true(++tries < 50);
		assert_string_equal(scrub_end(gpu), "clean");
		before = resets(gpu);
		open = beside(try_to_open, gpu);
		host_wait_counter(gpu, "resets", before + 1);
		gpu_inject_error(gpu, ERR_DATA_LINK, 0);
		wait_for_the_end("successful");
		ret = ended(open);
		/* The open was over before the error. */
		if (!ret)
			vfio_close(&v);
	} while (!ret);
	assert_int_equal(ret, -EAGAIN);
	assert_next_open_scrubs(gpu);
}

static void a_scrub_disables_the_gpu_under_the_device_lock(void **state)
{
	const struct gpu *gpu = gpu_find("neighbour");
	unsigned int looks;

	lock_during_scrub(gpu);
	for (looks = 0; looks < 100; looks++) {
		assert_true(gpu_sysfs_is(gpu, "nvgrace_gpu/scrub_state",
					 "scrubbing"));
		assert_true(gpu_sysfs_is(gpu, "enable", "1"));
		usleep(1000);
	}
	tell_neighbour("lock", false);
	assert_string_equal(scrub_end(gpu), "clean");
	assert_true(gpu_sysfs_is(gpu, "enable", "0"));

	/* One that unbinds has the lock itself. */
	lock_during_scrub(gpu);
	tell_neighbour("lock", false);
	scrub_set_parameter(false);
	assert_int_equal(gpu_unbind(gpu), 0);
	assert_true(gpu_sysfs_is(gpu, "enable", "0"));
}

/* The driver tries for at least two minutes. */
static void a_scrub_does_not_wait_for_the_device_lock_for_ever(void **state)
{
	const struct gpu *gpu = gpu_find("neighbour");

	tell_neighbour("lock", true);
	wait_for_neighbour("locked");
	klog_mark();
	assert_int_equal(gpu_sysfs_write(gpu, "nvgrace_gpu/scrub", "1"), 0);
	assert_string_equal(scrub_end(gpu), "failed");
	assert_int_equal(klog_count("another task holds the device lock"), 1);

	tell_neighbour("lock", false);
	lock_during_scrub(gpu);
	assert_string_equal(scrub_end(gpu), "clean");
}

/* Has an error in the midst of a scrub, which fails, however the recovery ends. */
static void assert_an_error_fails_a_scrub(const struct gpu *gpu, const char *how)
{
	const char *end;
	int tries = 0;

	do {
		assert_true(++tries < 50);
		soil(gpu);
		/* A scrub that has begun goes on. */
		assert_int_equal(gpu_sysfs_write(gpu, "nvgrace_gpu/scrub", "1"), 0);
		while (scrub_progress(gpu) < 64 * MiB)
			usleep(100);
		gpu_inject_error(gpu, ERR_DATA_LINK, 0);
		wait_for_the_end(how);
		end = scrub_end(gpu);
		/*
		 * A scrub that ended before the error is of no use any more. One
		 * that has begun again is.
		 */
		if (!strcmp(end, "clean"))
			assert_clean(gpu);
		else if (strcmp(end, "failed"))
			assert_string_equal(end, "unknown");
	} while (strcmp(end, "failed"));
	/* The next one begins with a reset. */
	assert_int_equal(gpu_sysfs_write(gpu, "nvgrace_gpu/scrub", "1"), 0);
	assert_string_equal(scrub_end(gpu), "clean");
	assert_clean(gpu);
}

static void a_scrub_fails_if_recovery_fails(void **state)
{
	assert_an_error_fails_a_scrub(gpu_find("gh200"), "failed");
}

/* The scrub waits for the memory for 30 s. */
static void unbinding_does_not_repeat_a_scrub_that_failed_meanwhile(void **state)
{
	const struct gpu *gpu = gpu_find("second");

	vfio_open(&v, gpu);
	vfio_bar0_write(&v, MODEL_RESET_DELAY, UINT32_MAX);
	klog_mark();
	vfio_close(&v);
	assert_int_equal(gpu_unbind(gpu), 0);
	assert_int_equal(klog_count("GPU memory could not be cleared"), 1);

	scrub_set_parameter(false);
	host_ask(NULL, 0, "ready second 0");
	vfio_start(&v, "second");
	vfio_bar0_write(&v, MODEL_RESET_DELAY, 0);
}

/*
 * The GPU isn't open, and the link reset restores the content that the scrub
 * had overwritten.
 */
static void a_link_reset_in_a_scrub_leaves_nothing_clean(void **state)
{
	const struct gpu *gpu = gpu_find("second");

	host_ask(NULL, 0, "soil_at_reset second %#llx %#llx",
		 (unsigned long long)gpu->base, 128 * MiB);
	scrub_set_parameter(true);
	assert_int_equal(gpu_bind(gpu), 0);
	assert_an_error_fails_a_scrub(gpu, "successful");
	host_ask(NULL, 0, "soil_at_reset second 0 0");
	scrub_set_parameter(false);
	assert_int_equal(gpu_unbind(gpu), 0);
	host_ask(NULL, 0, "drop %#llx %#llx", (unsigned long long)gpu->base,
		 (unsigned long long)gpu->size);
}

#define LIKE(function, name, gpu_name, ...) \
	VARIANT(name, function, begin, end, &((struct variant){ .gpu = gpu_name, ##__VA_ARGS__ }))
#define ON(gpu_name, name, ...)	LIKE(name, name, gpu_name, ##__VA_ARGS__)
#define HELD_UP(name, ...)	ON("neighbour", name, .module = "neighbour", ##__VA_ARGS__)

static const struct CMUnitTest late[] = {
	HELD_UP(a_scrub_does_not_wait_for_the_device_lock_for_ever, .scrubbed = true),
	ON("gh200", a_scrub_fails_if_recovery_fails, .scrubbed = true),
	ON("second", unbinding_does_not_repeat_a_scrub_that_failed_meanwhile, .scrubbed = true),
};

static const struct CMUnitTest failing[] = {
	ON("second", a_link_reset_without_bars_afterwards_is_no_recovery, .module = "failing"),
};

static const struct CMUnitTest tests[] = {
	LIKE(an_error_loses_nothing, an_error_that_is_not_fatal_is_told_and_loses_nothing,
	     "gh200", .uncorrected = ERR_COMPLETION_TIMEOUT),
	LIKE(an_error_loses_nothing, a_corrected_error_is_nobodys_business,
	     "gh200", .corrected = ERR_COR_RECEIVER),
	ON("second", a_fatal_error_is_told_and_is_a_reset),
	LIKE(after_a_fatal_error_the_memory_is_waited_for,
	     after_a_fatal_error_a_read_waits_for_the_memory, "second"),
	LIKE(after_a_fatal_error_the_memory_is_waited_for,
	     after_a_fatal_error_a_fault_waits_for_the_memory, "second", .fault = true),
	ON("second", users_meanwhile_are_refused_and_go_on),
	ON("second", a_fatal_error_on_a_gpu_that_nobody_has_open),
	ON("gh200", a_gh200_that_can_not_recover_is_lost_to_its_client),
	LIKE(after_a_failed_recovery_the_memory_comes_back,
	     after_a_failed_recovery_a_reset_brings_the_memory_back,
	     "gh200", .end = reset_by_ioctl),
	LIKE(after_a_failed_recovery_the_memory_comes_back,
	     after_a_failed_recovery_an_open_brings_the_memory_back,
	     "gh200", .end = open_again),
	ON("gh200", after_a_failed_recovery_a_gpu_that_is_there_works),
	ON("gh200", after_a_failed_recovery_another_error_mends_nothing),
	ON("gh200", a_failed_recovery_has_one_true_line),
	ON("neighbour", a_neighbour_without_a_driver_loses_nothing),
	ON("neighbour", after_a_link_reset_that_was_for_nothing_a_reset_restores_the_bars),
	HELD_UP(while_the_link_is_frozen_all_accesses_fail),
	HELD_UP(while_a_neighbour_wants_a_reset_all_goes_on),
	ON("gh200", when_the_link_freezes_those_who_wait_fail),
	HELD_UP(a_fault_ends_if_the_gpu_does_not_wake_up),
};

/* They scrub large memory several times. */
static const struct CMUnitTest slow[] = {
	ON("second", a_link_reset_in_a_scrub_leaves_nothing_clean, .unbound = true),
	HELD_UP(after_a_fatal_error_nothing_is_clean, .scrubbed = true),
	ON("second", an_open_in_which_the_link_fails_shows_nothing, .scrubbed = true),
	HELD_UP(a_scrub_disables_the_gpu_under_the_device_lock, .scrubbed = true),
};

/* aer_inject takes a spinlock under pci_lock, which lockdep may report. */
#define ERRORS	"waits lab module:aer_inject lab:neighbour !CONFIG_PROVE_RAW_LOCK_NESTING "

const struct case_group groups[] = {
	{ ERRORS, CASES(tests), setup, teardown },
	{ ERRORS "slow", CASES(slow), setup, teardown },
	{ ERRORS "lab:failing CONFIG_KPROBES", CASES(failing), setup, teardown },
	{ ERRORS "late", CASES(late), setup, teardown },
	{ }
};
