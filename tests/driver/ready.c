// SPDX-License-Identifier: GPL-2.0-only
/*
 * The wait for GPU memory in a bind: how long it takes, how often it reads the
 * registers, and how it ends. The waits that time out take 30 s. The first test
 * starts them, the others run meanwhile, and the last group checks their
 * results.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib.h"

#define LATE_MS		3000
#define TIMEOUT_MS	30000

/* Time in which an operation that doesn't wait would have ended. */
#define SETTLE_MS	500

struct outcome {
	int ret;
	uint64_t begin_ms;
	uint64_t end_ms;
};

/* A bind in a separate process. */
struct binder {
	const struct gpu *gpu;
	pid_t pid;
	int result;	/* pipe on which the child sends its outcome */
	int lines;	/* of the log about failed waits, before the bind */
	uint32_t reads;	/* of the model's register, before the bind */
	struct outcome outcome;
};

static void start_binder(struct binder *b, const struct gpu *gpu)
{
	struct outcome o;
	int fds[2];

	assert_int_equal(pipe(fds), 0);
	b->gpu = gpu;
	b->reads = gpu_bar0_read(gpu, MODEL_C2C_READS);
	b->result = fds[0];
	b->pid = fork();
	assert_true(b->pid >= 0);
	if (!b->pid) {
		o.begin_ms = now_ms();
		o.ret = gpu_bind(gpu);
		o.end_ms = now_ms();
		_exit(write(fds[1], &o, sizeof(o)) != sizeof(o));
	}
	close(fds[1]);
}

static struct outcome finish_binder(struct binder *b)
{
	struct outcome o;

	assert_int_equal(read(b->result, &o, sizeof(o)), sizeof(o));
	close(b->result);
	assert_int_equal(status_of_child(b->pid), 0);
	b->pid = 0;
	b->outcome = o;
	return o;
}

/* Whether the bind goes on. */
static bool is_waiting(struct binder *b)
{
	struct pollfd p = { .fd = b->result, .events = POLLIN };

	return !poll(&p, 1, 0);
}

/* The driver claims the parts in this order, and then waits. */
static bool is_claimed(const struct gpu *gpu)
{
	char *text = proc_text("/proc/iomem"), name[64];
	bool found;

	snprintf(name, sizeof(name), DRIVER " %s resmem\n", gpu->addr);
	found = strstr(text, name);
	free(text);
	return found;
}

/*
 * Sleeps until the driver waits for the GPU, or the bind has ended. @bar0: the
 * GPU's registers, mapped since before the bind.
 */
static void until_waiting(struct binder *b, volatile uint32_t *bar0)
{
	while (is_waiting(b) && !is_claimed(b->gpu))
		usleep(1000);
	/* The second read shows that the first one did not end the wait. */
	while (is_waiting(b) && bar0[MODEL_C2C_READS / 4] - b->reads < 2)
		usleep(1000);
}

/*
 * Makes the GPU ready, which must end the bind with success. Returns false if
 * the bind had failed before, as it must after TIMEOUT_MS: the machine stood
 * still in between, and the test begins anew.
 */
static bool release_binder(struct binder *b, volatile uint32_t *bar0)
{
	static unsigned int repeated;
	uint64_t before = now_ms(), after;
	struct outcome o;

	gpu_release(b->gpu, bar0);
	after = now_ms();
	o = finish_binder(b);
	if (o.ret == -ETIME && after - o.begin_ms >= TIMEOUT_MS) {
		print_message("# released only after %llu ms\n",
			      (unsigned long long)(after - o.begin_ms));
		assert_true(++repeated < 5);
		return false;
	}
	assert_int_equal(o.ret, 0);
	assert_true(o.end_ms >= before);
	assert_true(gpu_bound(b->gpu));
	return true;
}

/* The waits that end with -ETIME: from the first test to the last group. */
static struct binder never_c2c, never_hbm;

/* Reads of the first one's HBM register until then. */
static uint64_t never_hbm_reads;

static struct binder killed;

static void kill_binder(struct binder *b)
{
	if (b->pid <= 0)
		return;
	kill(b->pid, SIGKILL);
	waitpid(b->pid, NULL, 0);
	b->pid = 0;
}

static const char *const side_by_side[] = { "gh200", "second", "odd", "s1h" };

static int teardown(void **state)
{
	unsigned int i;

	kill_binder(&killed);
	for (i = 0; i < ARRAY_SIZE(side_by_side); i++)
		if (gpu_bound(gpu_find(side_by_side[i])))
			gpu_unbind(gpu_find(side_by_side[i]));
	return 0;
}

static int last_teardown(void **state)
{
	kill_binder(&never_c2c);
	kill_binder(&never_hbm);
	return 0;
}

/*
 * Counts the log lines which say that @gpu isn't ready; the last one is in
 * @said.
 */
static int lines_of_failure(const struct gpu *gpu, char *said, size_t size)
{
	char prefix[64], line[512];
	int level, lines = 0;

	snprintf(prefix, sizeof(prefix), DRIVER " %s: ", gpu->addr);
	klog_rewind();
	while (klog_next(&level, line, sizeof(line))) {
		if (strncmp(line, prefix, strlen(prefix)) ||
		    !strstr(line, "not ready"))
			continue;
		/* KERN_ERR */
		assert_int_equal(level, 3);
		snprintf(said, size, "%s", line);
		lines++;
	}
	return lines;
}

/* One of this GPU's registers never becomes ready. */
static void start_never_ready(struct binder *b, const char *name)
{
	const struct gpu *gpu = gpu_find(name);
	char said[512];

	b->lines = lines_of_failure(gpu, said, sizeof(said));
	start_binder(b, gpu);
}

/* The kernel creates the driver's attributes after probe has succeeded. */
static bool probed(const struct gpu *gpu)
{
	return !access(gpu_file(gpu, "nvgrace_gpu/mode"), F_OK);
}

/* The last group checks that the binds fail, and when. */
static void a_gpu_that_is_not_ready_is_not_bound_yet(void **state)
{
	never_hbm_reads = host_counter(gpu_find("noc2c"), "hbm_reads");
	start_never_ready(&never_c2c, "noc2c");
	start_never_ready(&never_hbm, "nohbm");
	usleep(SETTLE_MS * 1000);
	assert_false(probed(never_c2c.gpu));
	assert_false(probed(never_hbm.gpu));
}

static void a_gpu_is_bound_when_it_becomes_ready(void **state)
{
	const struct gpu *gpu = gpu_find("gh200");
	volatile uint32_t *bar0;
	struct binder b;

	do {
		bar0 = gpu_hold(gpu);
		start_binder(&b, gpu);
		until_waiting(&b, bar0);
	} while (!release_binder(&b, bar0));
}

static void a_failed_wait_leaves_the_gpus_memory_to_others(void **state)
{
	const struct gpu *gpu = gpu_find("gh200");
	const struct gpu *twin = gpu_find("overlap");
	volatile uint32_t *bar0 = gpu_hold(gpu);
	bool waits;
	int ret;

	for (;;) {
		start_binder(&killed, gpu);
		until_waiting(&killed, bar0);
		ret = gpu_bind(twin);
		waits = is_waiting(&killed);
		if (ret || waits)
			break;
		/* The machine stood still until the wait was over. */
		assert_int_equal(finish_binder(&killed).ret, -ETIME);
		assert_int_equal(gpu_unbind(twin), 0);
	}

	/* During the wait, the memory is claimed. */
	assert_int_equal(ret, -EBUSY);
	kill_binder(&killed);
	close(killed.result);
	assert_int_equal(gpu_bind(twin), 0);
	assert_int_equal(gpu_unbind(twin), 0);

	gpu_release(gpu, bar0);
	assert_int_equal(gpu_bind(gpu), 0);
}

/* A wait that began later and still goes on shows that the time isn't over. */
static void a_killed_binder_gets_away_and_the_gpu_binds_later(void **state)
{
	const struct gpu *gpu = gpu_find("second"), *other = gpu_find("gh200");
	volatile uint32_t *bar0, *other_bar0;
	struct binder b;

	do {
		bar0 = gpu_hold(gpu);
		start_binder(&killed, gpu);
		until_waiting(&killed, bar0);
		other_bar0 = gpu_hold(other);
		start_binder(&b, other);
		until_waiting(&b, other_bar0);

		kill_binder(&killed);
		close(killed.result);
		gpu_unmap_bar0(bar0);
		assert_false(gpu_bound(gpu));
	} while (!release_binder(&b, other_bar0));

	gpu_unready(gpu, 500);
	assert_int_equal(gpu_bind(gpu), 0);
	assert_true(gpu_bound(gpu));
}

/*
 * The PCI core probes a device with a NUMA node in a worker. The kill doesn't
 * reach that, so the wait continues to its end.
 */
static void on_a_numa_node_the_wait_outlives_a_killed_binder(void **state)
{
	const struct gpu *gpu = gpu_find("odd");
	volatile uint32_t *bar0;
	uint64_t begin;

	assert_int_equal(gpu_sysfs_write(gpu, "numa_node", "0"), 0);
	begin = now_ms();
	gpu_unready(gpu, LATE_MS);
	bar0 = gpu_map_bar0(gpu);
	start_binder(&killed, gpu);
	/* The kill must not come before the worker has begun. */
	until_waiting(&killed, bar0);
	gpu_unmap_bar0(bar0);
	assert_int_equal(kill(killed.pid, SIGKILL), 0);
	assert_int_equal(waitpid(killed.pid, NULL, 0), killed.pid);
	killed.pid = 0;
	close(killed.result);
	assert_waited(begin, LATE_MS);
	assert_true(gpu_bound(gpu));
	assert_int_equal(gpu_sysfs_write(gpu, "numa_node", "-1"), 0);
}

/*
 * Both GPUs wait before either is ready. Returns false if that came too late: the
 * machine stood still, or one wait has ended before the other began.
 */
static bool loading_binds_two(void)
{
	static const char *const names[] = { "gh200", "second" };
	const struct gpu *gpu[ARRAY_SIZE(names)];
	volatile uint32_t *bar0[ARRAY_SIZE(names)];
	uint32_t reads[ARRAY_SIZE(names)];
	uint64_t begin;
	unsigned int i;
	bool late;
	pid_t pid;

	for (i = 0; i < ARRAY_SIZE(gpu); i++) {
		gpu[i] = gpu_find(names[i]);
		assert_int_equal(gpu_sysfs_write(gpu[i], "driver_override", DRIVER), 0);
		bar0[i] = gpu_hold(gpu[i]);
		reads[i] = bar0[i][MODEL_C2C_READS / 4];
	}
	begin = now_ms();
	/* Whether loading waits for the binding depends on the kernel. */
	pid = fork();
	if (!pid)
		_exit(-module_load());
	for (i = 0; i < ARRAY_SIZE(gpu); i++)
		while (bar0[i][MODEL_C2C_READS / 4] - reads[i] < 2) {
			assert_true(now_ms() - begin < 20 * TIMEOUT_MS);
			usleep(1000);
		}
	for (i = 0; i < ARRAY_SIZE(gpu); i++)
		gpu_release(gpu[i], bar0[i]);
	late = now_ms() - begin >= TIMEOUT_MS;
	assert_int_equal(status_of_child(pid), 0);
	for (i = 0; i < ARRAY_SIZE(gpu); i++)
		while (!late && !probed(gpu[i]))
			usleep(1000);
	return !late;
}

/* The last test of its group: the module can't be unloaded during a wait. */
static void loading_the_module_binds_gpus_side_by_side(void **state)
{
	unsigned int attempts = 0;

	do {
		assert_true(++attempts < 5);
		/* A probe that has failed may still be about to end. */
		while (module_unload())
			usleep(10000);
	} while (!loading_binds_two());
}

static void assert_timed_out(struct binder *b, const char *registers)
{
	const struct gpu *gpu = b->gpu;
	struct outcome o = finish_binder(b);
	char said[512] = "";
	int lines;

	print_message("# timed out after %llu ms\n",
		      (unsigned long long)(o.end_ms - o.begin_ms));
	/* Otherwise, what follows could bind it. */
	assert_int_equal(gpu_sysfs_write(gpu, "driver_override", "\n"), 0);
	assert_int_equal(o.ret, -ETIME);
	assert_false(gpu_bound(gpu));
	assert_true(o.end_ms - o.begin_ms >= TIMEOUT_MS);

	lines = lines_of_failure(gpu, said, sizeof(said)) - b->lines;
	print_message("# %s\n", said);
	assert_int_equal(lines, 1);
	if (!strstr(said, registers))
		fail_msg("the line does not say \"%s\"", registers);
}

static void without_the_link_binding_ends_with_ETIME_after_30_s(void **state)
{
	assert_timed_out(&never_c2c,
			 "C2C link status 0x0, expected 0xff;");
	/* Nothing is read of the HBM before the link is up. */
	assert_int_equal(host_counter(never_c2c.gpu, "hbm_reads"),
			 never_hbm_reads);
	/* At most every 8 ms for 2 s, and then every 50 ms; a busy machine reads less. */
	assert_in_range(host_counter(never_c2c.gpu, "c2c_reads") - never_c2c.reads, 10, 900);
}

static void without_the_memory_binding_ends_with_ETIME_after_30_s(void **state)
{
	assert_timed_out(&never_hbm,
			 "C2C link status 0xff, HBM training status 0x0,");
}

/*
 * The model counts the reads. From the fourth on, the pauses between them are
 * 8 ms or longer. Without growing pauses there would be one in each millisecond
 * on hardware.
 */
static void the_registers_are_read_with_longer_and_longer_pauses(void **state)
{
	const struct gpu *gpu = gpu_find("gh200");
	volatile uint32_t *bar0;
	uint32_t c2c, hbm;
	struct binder b;

	do {
		bar0 = gpu_hold(gpu);
		assert_int_equal(bar0[MODEL_MAGIC / 4], 0x4d47564e);
		c2c = bar0[MODEL_C2C_READS / 4];
		hbm = bar0[MODEL_HBM_READS / 4];
		start_binder(&b, gpu);
		usleep(LATE_MS * 1000);
		while (is_waiting(&b) && bar0[MODEL_C2C_READS / 4] - c2c < 6)
			usleep(SETTLE_MS * 1000);
	} while (!release_binder(&b, bar0));
	assert_int_equal(gpu_unbind(gpu), 0);

	c2c = gpu_bar0_read(gpu, MODEL_C2C_READS) - c2c;
	hbm = gpu_bar0_read(gpu, MODEL_HBM_READS) - hbm;
	print_message("# %u and %u reads\n", c2c, hbm);
	assert_in_range(c2c, 6, 20 + (b.outcome.end_ms - b.outcome.begin_ms) / 7);
	/* Only when the link is up. */
	assert_true(hbm < c2c && hbm > 0);
}

static void a_ready_gpu_is_bound_at_once(void **state)
{
	const struct gpu *gpu = gpu_find("gh200");
	uint64_t c2c = host_counter(gpu, "c2c_reads");
	uint64_t hbm = host_counter(gpu, "hbm_reads");

	assert_int_equal(gpu_bind(gpu), 0);
	assert_int_equal(host_counter(gpu, "c2c_reads"), c2c + 1);
	assert_int_equal(host_counter(gpu, "hbm_reads"), hbm + 1);
}

#define TEST(fn)	cmocka_unit_test_teardown(fn, teardown)

static const struct CMUnitTest tests[] = {
	TEST(a_gpu_that_is_not_ready_is_not_bound_yet),
	TEST(a_gpu_is_bound_when_it_becomes_ready),
	TEST(a_failed_wait_leaves_the_gpus_memory_to_others),
	TEST(a_killed_binder_gets_away_and_the_gpu_binds_later),
	TEST(on_a_numa_node_the_wait_outlives_a_killed_binder),
	TEST(a_ready_gpu_is_bound_at_once),
	TEST(the_registers_are_read_with_longer_and_longer_pauses),
};

static const struct CMUnitTest last_tests[] = {
	TEST(without_the_link_binding_ends_with_ETIME_after_30_s),
	TEST(without_the_memory_binding_ends_with_ETIME_after_30_s),
	TEST(loading_the_module_binds_gpus_side_by_side),
};

const struct case_group groups[] = {
	{ "waits lab", CASES(tests), .shared = true },
	{ "waits lab", CASES(last_tests), NULL, last_teardown, true },
	{ }
};
