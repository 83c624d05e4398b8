// SPDX-License-Identifier: GPL-2.0-only
/*
 * Readiness after a reset: the first access to the memory waits, and delays
 * nothing else. The waits of 30 s and more run on other GPUs, concurrently with
 * the other tests.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib.h"
#include "waits.h"

#define COMMAND		(CONFIG + 4)
#define COMMAND_MEMORY	2

/* What varies between cases of one function. */
struct variant {
	int (*reset)(struct vfio *v);
	const char *gpu;
	int error;		/* of binding it */
	const char *line;	/* of the log, about that */
};

/* Returns a page that is not mapped in: its first touch is a fault. */
static char *fresh_page(struct vfio *dev)
{
	static size_t count;

	/* Far enough apart that no fault maps two of them. */
	return vfio_map(dev, USEMEM, count++ % 16 * 64 * MiB, page, RW, MAP_SHARED, NULL);
}

/* Resets; the memory is unready until make_ready(). */
static void reset_unready(struct vfio *dev)
{
	waits_begin();
	vfio_unready_after_resets(dev);
	assert_int_equal(vfio_reset(dev), 0);
}

/* Ready from now on, also after resets, and known to be. */
static void make_ready(struct vfio *dev)
{
	vfio_make_ready(dev);
	assert_int_equal(read_a_byte(dev), 1);
}

/* The wait that times out, in a process of its own, from the first test on. */
struct vain {
	bool fault_is_sigbus;
	int beside;
	bool again_at_once;
	int read;
	int write;
	uint64_t ms;
	uint32_t looks;		/* at the model's register, of the later accesses */
	int lines;
	bool good_after_reset;
};

static pid_t vain_pid;
static int vain_result;

/* Likewise a wait of more than 30 s, with a reset in it. */
static pid_t patient_pid;

static void wait_in_vain(struct vain *r)
{
	struct beside *read;
	struct vfio other;
	uint64_t begin;
	char byte = 0, said[64];

	vfio_start(&other, "second");
	/*
	 * Makes the kernel's own mappings, which stay until close: with KASAN
	 * they take a second each, which must not count below.
	 */
	read_a_byte(&other);
	vfio_write(&other, REGION(RESMEM), &byte, 1);
	klog_mark();
	begin = now_ms();
	reset_unready(&other);
	/* Two at once: the result of the first wait also ends the second. */
	read = beside(read_a_byte, &other);
	r->fault_is_sigbus = raises_sigbus(touch_read, fresh_page(&other));
	r->beside = ended(read);
	r->ms = now_ms() - begin;
	r->looks = vfio_bar0_read(&other, MODEL_C2C_READS);
	r->again_at_once = raises_sigbus(touch_write, fresh_page(&other));
	r->read = read_a_byte(&other);
	r->write = vfio_write(&other, REGION(RESMEM), &byte, 1);
	r->looks = vfio_bar0_read(&other, MODEL_C2C_READS) - r->looks;
	snprintf(said, sizeof(said), "%s: GPU memory is not ready after",
		 other.gpu->addr);
	r->lines = klog_count(said);
	make_ready(&other);
	r->good_after_reset = !raises_sigbus(touch_read, fresh_page(&other)) &&
			      read_a_byte(&other) == 1;
	/* The mappings, and so the device, are closed with this process. */
}

/* STORE: to a page that is not mapped in. READ and WRITE: in this region. */
static void start_access(struct access *a, int how, unsigned int index)
{
	*a = (struct access){
		.dev = &v,
		.how = how,
		.page = how == STORE ? fresh_page(&v) : NULL,
		.at = REGION(index) + 64,
		.word = 0x1122334455667788,
	};
	a->beside = beside(access_memory, a);
}

static void start_accesses(struct access *a, size_t count)
{
	size_t i;

	for (i = 0; i < count; i++)
		start_access(&a[i], i % 2 ? STORE : i % 4 ? WRITE : READ,
			     i % 8 < 4 ? USEMEM : RESMEM);
	assert_all_wait(a, count);
}

/*
 * The accesses must end because the memory becomes ready. Returns false if the
 * test must begin anew.
 */
static bool release(struct access *a, size_t count)
{
	vfio_make_ready(&v);
	return all_succeed(a, count);
}

/*
 * Waits for more than 30 s, less than 30 s of them after the second reset. A
 * wait takes at most 30 s.
 */
static bool reads_after_a_second_reset(void)
{
	unsigned int attempts = 0;
	uint64_t begin, waiting;
	struct access t;
	long ret;
	bool over;

	vfio_start(&v, "odd");
	do {
		begin = now_ms();
		reset_unready(&v);
		start_access(&t, READ, USEMEM);
		until_it_waits(t.beside->tid);
		waiting = now_ms();
		sleep(20);
		reset_unready(&v);
		over = now_ms() - begin >= WAIT_MS;
		while (now_ms() - waiting < WAIT_MS + 1000)
			usleep(10000);
		vfio_make_ready(&v);
		over |= waits_are_over();
		ret = ended(t.beside);
	} while (ret != 8 && over && ++attempts < 5);
	return ret == 8;
}

static int setup(void **state)
{
	struct vain r = { 0 };
	int fds[2];

	if (pipe(fds))
		return -1;
	vain_result = fds[0];
	vain_pid = fork();
	if (!vain_pid) {
		wait_in_vain(&r);
		_exit(write(fds[1], &r, sizeof(r)) != sizeof(r));
	}
	close(fds[1]);
	patient_pid = fork();
	if (!patient_pid)
		_exit(!reads_after_a_second_reset());
	vfio_start(&v, "gh200");
	return 0;
}

static int teardown(void **state)
{
	make_ready(&v);
	return 0;
}

static void a_fault_waits_until_the_memory_is_ready(void **state)
{
	struct access t;

	do {
		reset_unready(&v);
		start_access(&t, STORE, USEMEM);
		assert_all_wait(&t, 1);
	} while (!release(&t, 1));
}

static void reads_and_writes_wait_until_the_memory_is_ready(void **state)
{
	static const unsigned int indexes[] = { USEMEM, RESMEM };
	struct access t[2];
	uint64_t back;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(indexes); i++) {
		do {
			reset_unready(&v);
			start_access(&t[0], WRITE, indexes[i]);
			start_access(&t[1], READ, indexes[i]);
			assert_all_wait(t, ARRAY_SIZE(t));
		} while (!release(t, ARRAY_SIZE(t)));
		assert_int_equal(vfio_read(&v, REGION(indexes[i]) + 64, &back, 8), 8);
		assert_int_equal(back, t[0].word);
	}
	/* Beyond the memory there is nothing to wait for. */
	reset_unready(&v);
	assert_int_equal(vfio_read(&v, REGION(USEMEM) + 2 * GiB - 8, &back, 8), 8);
	make_ready(&v);
}

/*
 * Nothing waits for those who wait: address space, other files, config space, ioctls.
 * If a reset did, it would do so until they time out.
 */
static void nobody_else_is_kept_waiting(void **state)
{
	struct access t[8];
	struct vfio_region r;
	uint32_t word;
	char *map;

	do {
		reset_unready(&v);
		start_accesses(t, ARRAY_SIZE(t));
		map = mmap(NULL, 64 * page, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		memset(map, 1, 64 * page);
		munmap(map, 64 * page);
		map = vfio_map(&v, USEMEM, GiB, page, RW, MAP_SHARED, NULL);
		munmap(map, page);
		vfio_region(&v, USEMEM, &r);
		assert_int_equal(vfio_read(&v, CONFIG, &word, 4), 4);
		assert_int_equal(vfio_reset(&v), 0);
		assert_all_wait(t, ARRAY_SIZE(t));
	} while (!release(t, ARRAY_SIZE(t)));
}

/*
 * Kills a process that waits for a fault or for a read. A wait that began later
 * and still goes on shows that the time isn't over. Returns false if the test
 * must begin anew.
 */
static bool killed_in_a_wait(bool fault)
{
	struct access other;
	bool waited;
	int status;
	pid_t pid;

	reset_unready(&v);
	pid = fork();
	if (!pid) {
		/* Not cmocka's handler. */
		signal(SIGBUS, SIG_DFL);
		if (fault)
			touch_read(fresh_page(&v));
		else
			read_a_byte(&v);
		_exit(0);
	}
	until_it_waits(pid);
	start_access(&other, READ, USEMEM);
	until_it_waits(other.beside->tid);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	waited = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
	assert_true(waited || waits_are_over());
	assert_all_wait(&other, 1);
	return release(&other, 1);
}

static void whoever_waits_can_be_killed(void **state)
{
	while (!killed_in_a_wait(false))
		;
	while (!killed_in_a_wait(true))
		;
}

/* After a reset, readiness can be checked only with memory decoding on. */
static void without_memory_enabled_it_can_not_be_asked(void **state)
{
	uint16_t command, off;
	char byte;

	make_ready(&v);
	assert_int_equal(vfio_read(&v, COMMAND, &command, 2), 2);
	off = command & ~COMMAND_MEMORY;
	assert_true(command & COMMAND_MEMORY);

	assert_int_equal(vfio_reset(&v), 0);
	assert_int_equal(vfio_write(&v, COMMAND, &off, 2), 2);
	assert_true(raises_sigbus(touch_write, fresh_page(&v)));
	assert_int_equal(read_a_byte(&v), -EIO);
	assert_int_equal(vfio_write(&v, REGION(RESMEM), &byte, 1), -EIO);

	assert_int_equal(vfio_write(&v, COMMAND, &command, 2), 2);
	assert_false(raises_sigbus(touch_write, fresh_page(&v)));
	assert_int_equal(read_a_byte(&v), 1);
}

/* Writes 1 to a word by FUTEX_WAKE_OP; returns 0 or a negative errno. */
static int futex_write(char *word)
{
	uint32_t other = 0;

	return syscall(SYS_futex, &other, FUTEX_WAKE_OP | FUTEX_PRIVATE_FLAG, 0,
		       0, word, FUTEX_OP(FUTEX_OP_SET, 1, FUTEX_OP_CMP_EQ, 1)) < 0 ?
		       -errno : 0;
}

/*
 * The kernel faults in a futex's page under a lock of the address space that
 * the fault can't drop, so the fault must not wait.
 */
static void a_fault_that_may_not_wait_does_not(void **state)
{
	char *word = fresh_page(&v);

	reset_unready(&v);
	assert_int_equal(futex_write(word), -EFAULT);
	make_ready(&v);
	assert_int_equal(futex_write(word), 0);
	assert_int_equal(*(volatile uint32_t *)word, 1);
}

static void memory_that_never_becomes_ready_is_SIGBUS_and_EIO(void **state)
{
	struct vain r;

	assert_int_equal(read(vain_result, &r, sizeof(r)), sizeof(r));
	assert_int_equal(status_of_child(vain_pid), 0);
	print_message("# timed out after %llu ms, then %u looks\n",
		      (unsigned long long)r.ms, r.looks);
	assert_true(r.fault_is_sigbus);
	assert_int_equal(r.beside, -EIO);
	assert_true(r.ms >= 30000);
	/* Later accesses check once. Another wait would also say so in the log. */
	assert_true(r.again_at_once);
	assert_int_equal(r.read, -EIO);
	assert_int_equal(r.write, -EIO);
	assert_true(r.looks <= 3);
	assert_int_equal(r.lines, 1);
	assert_true(r.good_after_reset);
}

/* The wait doesn't end 30 s after the first reset. */
static void a_reset_during_the_wait_begins_it_anew(void **state)
{
	assert_int_equal(status_of_child(patient_pid), 0);
}

static int secondary_bus_reset(struct vfio *cxl)
{
	int ret = gpu_sysfs_write(cxl->gpu, "reset_method", "bus");

	ret = ret ?: gpu_sysfs_write(cxl->gpu, "reset", "1");
	return ret ?: gpu_sysfs_write(cxl->gpu, "reset_method", "default");
}

/*
 * This GPU needs 1500 ms after any reset, and Linux resets its bus, unlike a
 * GH200's. Only its DVSEC says when it is ready: its C2C and HBM registers never
 * do.
 */
static void a_cxl_part_is_waited_for(void **state)
{
	int (*reset)(struct vfio *cxl) = ((struct variant *)*state)->reset;
	uint64_t begin, looks;

	vfio_start(&v, "cxl");
	looks = host_counter(v.gpu, "c2c_reads");
	assert_int_equal(read_a_byte(&v), 1);
	begin = now_ms();
	assert_int_equal(reset(&v), 0);
	assert_int_equal(read_a_byte(&v), 1);
	/*
	 * From the middle of the reset on. FLR takes 100 ms, a bus reset, with
	 * what the kernel waits for, a second or two.
	 */
	assert_waited(begin, 1500);
	assert_int_equal(host_counter(v.gpu, "c2c_reads"), looks);
}

static void a_cxl_part_is_refused(void **state)
{
	const struct variant *refusal = *state;
	const struct gpu *gpu = gpu_find(refusal->gpu);
	uint64_t begin = now_ms();

	klog_mark();
	assert_int_equal(gpu_bind(gpu), refusal->error);
	if (refusal->error == -ETIME)
		assert_waited(begin, 1000);
	assert_false(gpu_bound(gpu));
	/* Otherwise, loading the module could bind it. */
	assert_int_equal(gpu_sysfs_write(gpu, "driver_override", "\n"), 0);
	assert_int_equal(klog_count(refusal->line), 1);
}

/* A thread that reads continuously, also during a reset. */
struct reader {
	struct beside *reads;
	struct vfio *dev;
	unsigned int during;	/* reads during which a reset happened */
	unsigned int failed;	/* of these */
};

static volatile unsigned int resets_done;

static long read_always(void *arg)
{
	struct reader *r = arg;
	unsigned int before;
	ssize_t ret;
	char byte;

	while (still_wanted()) {
		before = resets_done;
		ret = vfio_read(r->dev, REGION(USEMEM), &byte, 1);
		if (before != resets_done) {
			r->during++;
			r->failed += ret != 1;
		}
	}
	return 0;
}

/*
 * After a wait has timed out, reads fail at once until the next reset. Then
 * they wait as long as it takes, also those that had begun before.
 */
static void a_wait_in_vain_counts_until_the_next_reset(void **state)
{
	uint32_t never = UINT32_MAX, delay = 200;
	unsigned int during = 0, failed = 0;
	struct reader readers[4];
	size_t i, j;

	for (i = 0; i < 5; i++) {
		assert_int_equal(vfio_write(&v, MODEL_RESET_DELAY, &never, 4), 4);
		assert_int_equal(vfio_reset(&v), 0);
		assert_int_equal(read_a_byte(&v), -EIO);
		assert_int_equal(vfio_write(&v, MODEL_RESET_DELAY, &delay, 4), 4);

		for (j = 0; j < ARRAY_SIZE(readers); j++) {
			readers[j] = (struct reader){ .dev = &v };
			readers[j].reads = beside(read_always, &readers[j]);
		}
		usleep(100000);
		assert_int_equal(vfio_reset(&v), 0);
		resets_done++;
		assert_int_equal(read_a_byte(&v), 1);
		for (j = 0; j < ARRAY_SIZE(readers); j++) {
			ended(readers[j].reads);
			during += readers[j].during;
			failed += readers[j].failed;
		}
	}
	print_message("# %u of %u reads during a reset failed\n", failed, during);
	/* Some may have failed before the reset without having returned yet. */
	assert_true(during > 0);
	assert_true(failed * 5 <= during);
}

#define LIKE(function, name, ...) \
	VARIANT(name, function, NULL, NULL, &((struct variant){ __VA_ARGS__ }))

static const struct CMUnitTest cxl_tests[] = {
	LIKE(a_cxl_part_is_waited_for, a_cxl_part_is_ready_when_its_dvsec_says_so,
	     .reset = vfio_reset),
	LIKE(a_cxl_part_is_waited_for, a_hot_reset_is_waited_for, .reset = vfio_hot_reset),
	LIKE(a_cxl_part_is_waited_for, a_secondary_bus_reset_through_sysfs_is_waited_for,
	     .reset = secondary_bus_reset),
	OPEN("cxl", a_wait_in_vain_counts_until_the_next_reset),
	LIKE(a_cxl_part_is_refused, a_cxl_part_without_valid_information_is_ETIME_after_1_s,
	     .gpu = "cxlinvalid", .error = -ETIME, .line = "without Memory_Info_Valid"),
	LIKE(a_cxl_part_is_refused, a_cxl_part_without_active_memory_is_ETIME_after_its_timeout,
	     .gpu = "cxlinactive", .error = -ETIME, .line = "without Memory_Active"),
	LIKE(a_cxl_part_is_refused, a_cxl_part_that_is_gone_is_ENODEV,
	     .gpu = "cxlgone", .error = -ENODEV, .line = "reads as all ones"),
};

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(a_fault_waits_until_the_memory_is_ready),
	cmocka_unit_test(reads_and_writes_wait_until_the_memory_is_ready),
	cmocka_unit_test(nobody_else_is_kept_waiting),
	cmocka_unit_test(whoever_waits_can_be_killed),
	cmocka_unit_test(without_memory_enabled_it_can_not_be_asked),
	cmocka_unit_test(a_fault_that_may_not_wait_does_not),
	cmocka_unit_test(memory_that_never_becomes_ready_is_SIGBUS_and_EIO),
	cmocka_unit_test(a_reset_during_the_wait_begins_it_anew),
};

const struct case_group groups[] = {
	{ "waits lab", CASES(tests), setup, teardown, true },
	{ "waits lab", CASES(cxl_tests) },
	{ }
};
