// SPDX-License-Identifier: GPL-2.0-only
/*
 * When GPU memory is inaccessible: while memory decoding is off, in D3hot,
 * during a reset, before the memory is ready, and while the host sleeps. The
 * driver zaps pages that are mapped already. Groups of tests that need the
 * model GPU, suspend or userfaultfd are left out where the machine lacks them.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib.h"
#include "waits.h"

#define RW		(PROT_READ | PROT_WRITE)
#define COMMAND		(CONFIG + 4)
#define COMMAND_MEMORY	2
#define PM_CAP_ID	1
#define PM_CTRL		4
#define D0		0
#define D3HOT		3

static struct vfio v;
static size_t page;
static const unsigned int indexes[] = { USEMEM, RESMEM };

/* In each part, a page that every test has mapped in, and one that may be. */
static char *old[2], *fresh[2];

static void open_gpu(const char *name)
{
	const struct gpu *gpu = gpu_find(name);
	size_t i;

	page = sysconf(_SC_PAGESIZE);
	/* A failed test may have left the GPU unready. */
	if (!gpu_bound(gpu)) {
		if (gpu->is_model)
			gpu_bar0_write(gpu, MODEL_RESET_DELAY, 0);
		gpu_unready(gpu, 0);
	}
	vfio_start(&v, name);
	for (i = 0; i < 2; i++) {
		old[i] = vfio_map(&v, indexes[i], 0, page, RW, MAP_SHARED,
				  NULL);
		/* Far enough away that no fault maps both pages. */
		fresh[i] = vfio_map(&v, indexes[i], 256 * MiB, page, RW,
				    MAP_SHARED, NULL);
		strcpy(old[i], "before");
	}
}

static void close_gpu(void)
{
	size_t i;

	for (i = 0; i < 2; i++) {
		munmap(old[i], page);
		munmap(fresh[i], page);
	}
	vfio_close(&v);
}

static int setup(void **state)
{
	open_gpu("second");
	return 0;
}

static int setup_gh200(void **state)
{
	open_gpu("gh200");
	return 0;
}

static int teardown(void **state)
{
	close_gpu();
	gpu_unbind_all();
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

/* The byte, the register, with what follows it, and with what precedes it. */
static void while_decoding_is_off_nothing_is_in_reach(void **state)
{
	static const struct {
		unsigned int at;
		unsigned int count;
	} ways[] = { { 4, 1 }, { 4, 2 }, { 4, 4 }, { 0, 64 } };
	char on[64], off[64];
	size_t i;

	assert_true(command() & COMMAND_MEMORY);
	assert_int_equal(vfio_read(&v, CONFIG, on, 64), 64);
	memcpy(off, on, 64);
	off[4] &= ~COMMAND_MEMORY;
	for (i = 0; i < ARRAY_SIZE(ways); i++) {
		assert_int_equal(vfio_write(&v, CONFIG + ways[i].at,
					    off + ways[i].at, ways[i].count),
				 ways[i].count);
		assert_false(command() & COMMAND_MEMORY);
		assert_out_of_reach();
		assert_int_equal(vfio_write(&v, CONFIG + ways[i].at,
					    on + ways[i].at, ways[i].count),
				 ways[i].count);
		assert_true(command() & COMMAND_MEMORY);
		assert_back();
	}
}

/* The tail of the BAR is no memory, and can be read all the same. */
static void what_is_no_memory_needs_no_decoding(void **state)
{
	uint16_t on = command(), off = on & ~COMMAND_MEMORY;
	struct vfio other;
	unsigned char byte = 0;
	struct vfio_region r;

	vfio_start(&other, "odd");
	vfio_region(&other, USEMEM, &r);
	assert_true(r.area_size < r.size);
	assert_int_equal(vfio_write(&other, COMMAND, &off, 2), 2);
	assert_int_equal(vfio_read(&other, REGION(USEMEM) + r.size - 1, &byte,
				   1), 1);
	assert_int_equal(byte, 0xff);
	assert_int_equal(vfio_write(&other, COMMAND, &on, 2), 2);
	vfio_stop(&other);
}

/* Offset of the power management capability in config space, or 0. */
static unsigned int pm_cap(void)
{
	uint8_t at = 0x34, id;

	assert_int_equal(vfio_read(&v, CONFIG + at, &at, 1), 1);
	while (at) {
		assert_int_equal(vfio_read(&v, CONFIG + at, &id, 1), 1);
		if (id == PM_CAP_ID)
			return at;
		assert_int_equal(vfio_read(&v, CONFIG + at + 1, &at, 1), 1);
	}
	return 0;
}

static void set_power_state(uint16_t state)
{
	assert_int_equal(vfio_write(&v, CONFIG + pm_cap() + PM_CTRL, &state, 2),
			 2);
}

static void in_D3hot_nothing_is_in_reach(void **state)
{
	int i;

	for (i = 0; i < 3; i++) {
		set_power_state(D3HOT);
		assert_out_of_reach();
		set_power_state(D0);
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

/* An access in a thread, since it may wait. */
struct user {
	pthread_t thread;
	volatile pid_t tid;
	char *page;		/* to access; NULL: to read instead */
	volatile bool done;
	ssize_t result;
};

static void look_for_b(void *arg)
{
	struct user *u = arg;

	u->result = *(volatile char *)u->page == 'b' ? 1 : 0;
}

static void *use(void *arg)
{
	struct user *u = arg;
	char word[8] = "";

	u->tid = this_thread();
	if (u->page && raises_sigbus(look_for_b, u))
		u->result = -EFAULT;
	else if (!u->page)
		u->result = vfio_read(&v, REGION(USEMEM), word, 1);
	u->done = true;
	return NULL;
}

/* Starts an access, which may not finish. */
static void start_user(struct user *u, char *at)
{
	*u = (struct user){ .page = at };
	assert_int_equal(pthread_create(&u->thread, NULL, use, u), 0);
	while (!u->tid)
		usleep(1000);
	until_it_waits(u->tid);
	assert_true(!u->done || waits_are_over());
}

/* Starts accesses to both pages and a read. None of them may finish. */
static void start_users(struct user u[3])
{
	size_t i;

	for (i = 0; i < 3; i++)
		start_user(&u[i], i < 2 ? old[i] : NULL);
	for (i = 0; i < 3; i++)
		assert_true(!u[i].done || waits_are_over());
}

static void join_users(struct user *u, size_t count)
{
	size_t i;

	for (i = 0; i < count; i++) {
		pthread_join(u[i].thread, NULL);
		assert_int_equal(u[i].result, 1);
	}
}

/*
 * The accesses must end because the memory becomes ready. Returns false if the
 * test must begin anew.
 */
static bool release_users(struct user *u, size_t count)
{
	size_t i;

	vfio_make_ready(&v);
	if (!waits_again()) {
		join_users(u, count);
		return true;
	}
	for (i = 0; i < count; i++)
		pthread_join(u[i].thread, NULL);
	return false;
}

/*
 * On this GPU, going from D3hot to D0 is a reset: the memory must be checked
 * for readiness again.
 */
static void leaving_D3hot_asks_for_readiness_again(void **state)
{
	uint64_t before, soft;
	struct user u[3];
	int i;

	close_gpu();
	gpu_unbind_all();
	open_gpu("softreset");
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
		} while (!release_users(u, 3));
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

	close_gpu();
	gpu_unbind_all();
	page = sysconf(_SC_PAGESIZE);
	vfio_start(&v, "cxl");
	assert_int_equal(vfio_read(&v, REGION(USEMEM), &byte, 1), 1);
	for (i = 0; i < 2; i++) {
		set_power_state(D3HOT);
		assert_int_equal(vfio_read(&v, REGION(USEMEM), &byte, 1), -EIO);
		assert_readiness("unknown");
		set_power_state(D0);
		assert_int_equal(vfio_read(&v, REGION(USEMEM), &byte, 1), 1);
		assert_readiness("ready");
	}
	vfio_close(&v);
	gpu_unbind_all();
	open_gpu("second");
}

/*
 * D3hot and D0 from two threads, concurrently with accesses: no access may hang
 * or see wrong data.
 */
static volatile bool stop;

static void *change_power(void *arg)
{
	uint16_t states[2] = { D3HOT, D0 };
	unsigned int at = pm_cap() + PM_CTRL;
	unsigned int i;

	for (i = 0; !stop; i++)
		vfio_write(&v, CONFIG + at, &states[i % 2], 2);
	return NULL;
}

static void *use_anyhow(void *arg)
{
	unsigned int *wrong = arg;
	uint64_t word = 0x1122334455667788, back;
	ssize_t ret;

	while (!stop) {
		ret = vfio_write(&v, REGION(RESMEM) + page, &word, 8);
		if (ret == 8)
			ret = vfio_read(&v, REGION(RESMEM) + page, &back, 8);
		if (ret != -EIO && (ret != 8 || back != word))
			++*wrong;
	}
	return NULL;
}

static void changes_of_power_beside_accesses_end(void **state)
{
	unsigned int i, wrong = 0, sigbus = 0, good = 0;
	pthread_t threads[3];

	stop = false;
	pthread_create(&threads[0], NULL, change_power, NULL);
	pthread_create(&threads[1], NULL, change_power, NULL);
	pthread_create(&threads[2], NULL, use_anyhow, &wrong);
	for (i = 0; i < 300; i++) {
		if (raises_sigbus(touch_read, old[i % 2]))
			sigbus++;
		else
			good++;
	}
	stop = true;
	for (i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	set_power_state(D0);
	print_message("# %u accesses raised SIGBUS, %u succeeded\n", sigbus, good);
	assert_int_equal(wrong, 0);
	assert_int_equal(sigbus + good, 300);
	assert_back();
}

/* The buffer of the write is a mapping that the write itself zaps. */
static void a_config_write_from_the_gpus_own_memory_is_EFAULT(void **state)
{
	uint16_t *buffer = (uint16_t *)old[0];

	buffer[0] = D3HOT;
	assert_int_equal(vfio_write(&v, CONFIG + pm_cap() + PM_CTRL, buffer, 2),
			 -EFAULT);
	/* The write had no effect. */
	strcpy(old[0], "before");
	assert_back();
}

/* The result of a failed wait is void after D3hot. */
static void after_leaving_D3hot_the_wait_is_whole(void **state)
{
	uint32_t delay = 500;
	char byte;

	close_gpu();
	gpu_unbind_all();
	page = sysconf(_SC_PAGESIZE);
	vfio_start(&v, "cxlsoft");
	vfio_unready_after_resets(&v);
	reset();
	assert_int_equal(vfio_read(&v, REGION(USEMEM), &byte, 1), -EIO);
	vfio_bar0_write(&v, MODEL_RESET_DELAY, delay);
	set_power_state(D3HOT);
	set_power_state(D0);
	assert_int_equal(vfio_read(&v, REGION(USEMEM), &byte, 1), 1);
	vfio_bar0_write(&v, MODEL_RESET_DELAY, 0);
	vfio_close(&v);
	gpu_unbind_all();
	open_gpu("second");
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

	page = sysconf(_SC_PAGESIZE);
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

struct stalled {
	pthread_t thread;
	uint64_t at;
	ssize_t ret;
};

static void *write_stalled(void *arg)
{
	struct stalled *w = arg;

	w->ret = vfio_write(&v, w->at, stalling + page - 4, 8);
	return NULL;
}

/*
 * Writes @first to the 4 bytes at @at, and zeros after them once go_on() is
 * called.
 */
static void start_stalled(struct stalled *w, uint64_t at, uint32_t first)
{
	struct uffd_msg stalls;

	begin_to_stall();
	memcpy(stalling + page - 4, &first, 4);
	w->at = at;
	assert_int_equal(pthread_create(&w->thread, NULL, write_stalled, w), 0);
	assert_int_equal(read(faults, &stalls, sizeof(stalls)), sizeof(stalls));
	assert_int_equal(stalls.event, UFFD_EVENT_PAGEFAULT);
}

static void do_nothing(int signal)
{
}

/*
 * Whether a thread that waits sleeps on after a signal that does not kill.
 * Otherwise it uses its processor until it may go on.
 */
static bool sleeps_on(const struct user *u)
{
	bool asleep = true;
	unsigned int i;

	signal(SIGUSR1, do_nothing);
	assert_int_equal(pthread_kill(u->thread, SIGUSR1), 0);
	for (i = 0; i < 50; i++) {
		usleep(1000);
		asleep &= state_of(u->tid) == 'D';
	}
	return asleep;
}

static void while_a_write_to_the_power_state_stalls_nobody_gets_in(void **state)
{
	struct stalled w = { };
	struct user u[3];
	bool asleep = true;
	int status;
	pid_t child;
	uint32_t now;
	size_t i;

	/*
	 * Writes D0, which the GPU is in: after D3hot, SIGBUS would end the
	 * waiting threads.
	 */
	assert_back();
	assert_int_equal(vfio_read(&v, CONFIG + pm_cap() + PM_CTRL, &now, 4),
			 4);
	start_stalled(&w, CONFIG + pm_cap() + PM_CTRL, now);
	waits_have_no_end();
	start_users(u);
	assert_int_equal(kernel_mappings(v.gpu, NULL), 0);
	for (i = 0; i < ARRAY_SIZE(u); i++)
		asleep &= sleeps_on(&u[i]);
	/* A process that waits can be killed. */
	child = fork();
	if (!child) {
		touch_read(old[0]);
		_exit(0);
	}
	until_it_waits(child);
	kill(child, SIGKILL);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status));
	go_on();
	pthread_join(w.thread, NULL);
	assert_int_equal(w.ret, 8);
	join_users(u, 3);
	/* Asserted here, because nobody would end these threads' waits. */
	assert_true(asleep);
	assert_back();
}

struct crossed {
	struct vfio *dev;
	void *buffer;
	unsigned int written, refused;
};

static void *write_crossed(void *arg)
{
	struct crossed *w = arg;
	ssize_t ret;
	int i;

	for (i = 0; i < 1000; i++) {
		ret = vfio_write(w->dev, CONFIG + 0x44, w->buffer, 2);
		w->written += ret == 2;
		w->refused += ret == -EFAULT;
	}
	return NULL;
}

/*
 * Each write closes the gate of one GPU, and takes its bytes from the memory of
 * the other one. Waiting for each other, they would never end.
 */
static void two_config_writes_from_each_others_memory_end(void **state)
{
	struct vfio other;
	struct crossed w[2];
	pthread_t thread;
	char *map;

	vfio_start(&other, "s1h");
	map = vfio_map(&other, USEMEM, 0, page, PROT_READ | PROT_WRITE,
		       MAP_SHARED, NULL);
	memset(map, 0, 8);
	memset(old[0], 0, 8);
	w[0] = (struct crossed){ .dev = &v, .buffer = map };
	w[1] = (struct crossed){ .dev = &other, .buffer = old[0] };
	assert_int_equal(pthread_create(&thread, NULL, write_crossed, &w[0]), 0);
	write_crossed(&w[1]);
	pthread_join(thread, NULL);
	assert_int_equal(w[0].written + w[0].refused, 1000);
	assert_int_equal(w[1].written + w[1].refused, 1000);
	strcpy(old[0], "before");
	munmap(map, page);
	vfio_stop(&other);
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
	uint64_t before = v.gpu->is_model ? looks() : 0;
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
	if (v.gpu->is_model)
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
	struct user u[3];

	do {
		assert_back();
		assert_int_equal(kernel_mappings(v.gpu, NULL), 2);
		unready_after_resets();
		reset();
		assert_int_equal(kernel_mappings(v.gpu, NULL), 0);
		start_users(u);
		assert_int_equal(kernel_mappings(v.gpu, NULL), 0);
	} while (!release_users(u, 3));
	assert_int_equal(kernel_mappings(v.gpu, NULL), 1);
}

static void after_a_reset_by_ioctl_all_pages_wait(void **state)
{
	struct user u[3];

	do {
		unready_after_resets();
		reset();
		start_users(u);
	} while (!release_users(u, 3));
	assert_back();
}

/* As root, without vfio's knowledge. */
static void after_a_reset_by_sysfs_all_pages_wait(void **state)
{
	struct user u[3];
	uint64_t bar;

	do {
		bar = 0x4000000000ULL;
		assert_int_equal(vfio_write(&v, CONFIG + 0x20, &bar, 8), 8);
		unready_after_resets();
		assert_int_equal(gpu_sysfs_write(v.gpu, "reset", "1"), 0);
		assert_int_equal(vfio_read(&v, CONFIG + 0x20, &bar, 8), 8);
		assert_int_equal(bar, 0xc);
		start_users(u);
	} while (!release_users(u, 3));
	assert_back();
}

static void *reset_by_sysfs(void *arg)
{
	while (!stop) {
		if (gpu_sysfs_write(v.gpu, "reset", "1"))
			++*(unsigned int *)arg;
		/*
		 * Without a pause, a slow machine would do nothing but resets.
		 */
		usleep(20000);
	}
	return NULL;
}

static void *reset_by_ioctl(void *arg)
{
	int ret;

	while (!stop) {
		ret = vfio_reset(&v);
		/* -EAGAIN: another thread holds the device's lock. */
		if (ret && ret != -EAGAIN)
			++*(unsigned int *)arg;
	}
	return NULL;
}

/*
 * Under continuous resets, accesses make progress, and resets don't wait for
 * accesses.
 */
static void accesses_get_on_beside_resets_of_both_kinds(void **state)
{
	unsigned int bad = 0, i;
	pthread_t threads[2];
	char word[8];

	stop = false;
	pthread_create(&threads[0], NULL, reset_by_sysfs, &bad);
	pthread_create(&threads[1], NULL, reset_by_ioctl, &bad);
	for (i = 0; i < 30; i++) {
		assert_string_equal(old[i % 2], "before");
		assert_int_equal(vfio_read(&v, REGION(indexes[i % 2]), word, 7),
				 7);
		assert_string_equal(word, "before");
	}
	stop = true;
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	assert_int_equal(bad, 0);
}

/* A client must not be able to fill the log. */
static void resets_write_nothing_into_the_log(void **state)
{
	char line[512];
	int i, level;

	klog_mark();
	for (i = 0; i < 5; i++)
		reset();
	assert_int_equal(gpu_sysfs_write(v.gpu, "reset", "1"), 0);
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
	struct user u[3];
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
	good = release_users(u, 3);
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
	char text[8];

	munmap(old[1], page);
	munmap(fresh[0], page);
	munmap(fresh[1], page);
	vfio_close(&v);
	assert_true(gpu_bound(v.gpu));
	/* Only the mapping keeps the device open, and so this reset zaps. */
	assert_int_equal(gpu_sysfs_write(v.gpu, "reset", "1"), 0);
	assert_string_equal(old[0], "before");
	munmap(old[0], page);
	open_gpu("second");
	memcpy(text, old[0], 7);
	assert_string_equal(text, "before");
}

/* No user mappings are left, and both reset and close unmap the kernel's. */
static volatile bool reset_now, idle;

static void *reset_on_demand(void *arg)
{
	while (!stop) {
		idle = !reset_now;
		if (idle)
			usleep(200);
		else
			gpu_sysfs_write(v.gpu, "reset", "1");
	}
	return NULL;
}

static void closing_beside_resets_unmaps_once(void **state)
{
	const struct gpu *gpu = gpu_find("s95");
	pthread_t thread;
	uint16_t on;
	char byte;
	int i, at;

	close_gpu();
	gpu_unbind_all();
	vfio_start(&v, "s95");
	stop = false;
	reset_now = false;
	assert_int_equal(pthread_create(&thread, NULL, reset_on_demand, NULL), 0);
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
		vfio_open(&v, gpu);
		/*
		 * The reset may have saved and restored the state in the middle
		 * of the close.
		 */
		on = command() | COMMAND_MEMORY;
		assert_int_equal(vfio_write(&v, COMMAND, &on, 2), 2);
	}
	stop = true;
	pthread_join(thread, NULL);
	assert_int_equal(klog_count("nonexistent"), 0);
	vfio_close(&v);
	gpu_unbind_all();
	open_gpu("second");
}

static void over_the_hosts_sleep_readiness_is_forgotten(void **state)
{
	uint64_t before = v.gpu->is_model ? looks() : 0;
	uint64_t asleep = 0;
	struct user u[3];

	do {
		assert_back();
		unready_after_resets();
		if (v.gpu->is_model)
			vfio_bar0_write(&v, MODEL_UNREADY, UINT32_MAX);
		assert_readiness("ready");
		host_sleeps();
		assert_readiness("unknown");
		assert_int_equal(kernel_mappings(v.gpu, NULL), 0);
		if (v.gpu->is_model)
			asleep = looks();
		start_users(u);
		/* Nothing reads the registers of a GPU that may sleep. */
		if (v.gpu->is_model)
			assert_int_equal(looks(), asleep);
		host_wakes();
	} while (!release_users(u, 3));
	if (v.gpu->is_model)
		assert_true(looks() > before);
	assert_back();
}

/* Tasks that wait for the memory freeze like any other. */
static void waiting_does_not_keep_the_host_awake(void **state)
{
	struct user u[3];

	do {
		unready_after_resets();
		reset();
		start_users(u);
		suspend_host();
	} while (!release_users(u, 3));
	assert_back();
}

static void *write_power_state(void *arg)
{
	unsigned int at = pm_cap() + PM_CTRL;

	/*
	 * Some writes fail: the other thread's put their buffer out of reach.
	 */
	while (!stop)
		vfio_write(&v, CONFIG + at, arg, 2);
	return NULL;
}

static void changing_power_does_not_keep_the_host_awake(void **state)
{
	static uint16_t plain;
	pthread_t threads[2];

	memset(fresh[0], 0, 8);
	stop = false;
	pthread_create(&threads[0], NULL, write_power_state, fresh[0]);
	pthread_create(&threads[1], NULL, write_power_state, &plain);
	usleep(200000);
	suspend_host();
	stop = true;
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	assert_back();
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define TEST_GH200(name) cmocka_unit_test_setup_teardown(name, setup_gh200, teardown)

static const struct CMUnitTest tests[] = {
	TEST(what_is_no_memory_needs_no_decoding),
	TEST(asking_for_low_power_loses_nothing),
	TEST(low_power_takes_mappings_away),
	TEST(unready_memory_has_no_mapping_at_all),
	TEST(after_a_reset_by_ioctl_all_pages_wait),
	TEST(after_a_reset_by_sysfs_all_pages_wait),
	TEST(accesses_get_on_beside_resets_of_both_kinds),
	TEST(resets_write_nothing_into_the_log),
	TEST(mappings_in_all_shapes_are_taken_away),
	TEST(a_mapping_alone_goes_through_the_gate),
	TEST(closing_beside_resets_unmaps_once),
};

static const struct CMUnitTest sleep_tests[] = {
	TEST(over_the_hosts_sleep_readiness_is_forgotten),
};

/* Needs a kernel with suspend, which has this test mode. */
static const struct CMUnitTest suspend_tests[] = {
	TEST(waiting_does_not_keep_the_host_awake),
};

static const struct CMUnitTest suspend_power_tests[] = {
	TEST(changing_power_does_not_keep_the_host_awake),
};

/* Needs userfaultfd. */
static const struct CMUnitTest stall_tests[] = {
	TEST(while_a_write_to_the_power_state_stalls_nobody_gets_in),
};

/* A stand-in has no power states. */
static const struct CMUnitTest power_tests[] = {
	TEST(leaving_D3hot_asks_for_readiness_again),
	TEST(a_cxl_part_in_D3hot_is_not_asked),
	TEST(changes_of_power_beside_accesses_end),
	TEST(a_config_write_from_the_gpus_own_memory_is_EFAULT),
	TEST(two_config_writes_from_each_others_memory_end),
	TEST(after_leaving_D3hot_the_wait_is_whole),
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

static const struct CMUnitTest decoding_tests[] = {
	TEST_GH200(while_decoding_is_off_nothing_is_in_reach),
};

static const struct CMUnitTest d3hot_tests[] = {
	TEST_GH200(in_D3hot_nothing_is_in_reach),
	TEST_GH200(any_write_that_covers_the_power_state_counts),
};

const struct case_group groups[] = {
	{ "carve-out", CASES(decoding_tests) },
	{ "model carve-out", CASES(d3hot_tests) },
	{ "lab", CASES(tests) },
	{ "lab lab:sleeper CONFIG_KPROBES CONFIG_PM_SLEEP", CASES(sleep_tests) },
	{ "lab model", CASES(power_tests) },
	{ "lab model CONFIG_USERFAULTFD", CASES(stall_tests), group_stall },
	{ "lab CONFIG_SUSPEND CONFIG_PM_SLEEP_DEBUG", CASES(suspend_tests), group_suspend },
	{ "lab model CONFIG_SUSPEND CONFIG_PM_SLEEP_DEBUG",
	  CASES(suspend_power_tests), group_suspend },
	{ }
};
