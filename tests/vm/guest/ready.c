// SPDX-License-Identifier: GPL-2.0-only
/*
 * The wait for GPU memory in a bind: how long it takes, how often it reads the
 * registers, and how it ends. The waits that time out take 30 s. The first test
 * starts them, the others run meanwhile, and the last group checks their
 * results. Without the model GPU, the test that counts reads is left out.
 */
#define _GNU_SOURCE
#include <errno.h>
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

#define NEVER		UINT32_MAX

/* A bind in a separate process. */
struct binder {
	const struct gpu *gpu;
	pid_t pid;
	int result;	/* pipe on which the child sends struct outcome */
	int lines;	/* of the log about failed waits, before the bind */
};

struct outcome {
	int ret;
	uint64_t begin_ms;
	uint64_t end_ms;
};

static void start_binder(struct binder *b, const struct gpu *gpu)
{
	struct outcome o;
	int fds[2];

	assert_int_equal(pipe(fds), 0);
	b->gpu = gpu;
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
	int status;

	assert_int_equal(read(b->result, &o, sizeof(o)), sizeof(o));
	close(b->result);
	assert_int_equal(waitpid(b->pid, &status, 0), b->pid);
	assert_int_equal(status, 0);
	b->pid = 0;
	return o;
}

/* The waits that end with -ETIME: from the first test to the last group. */
static struct binder never_c2c, never_hbm;

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
	gpu_unbind_all();
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

/* On the model, one of these registers never becomes ready. */
static void start_never_ready(struct binder *b, const char *name, uint32_t reg)
{
	const struct gpu *gpu = gpu_find(name);
	char said[512];

	if (!gpu->is_model)
		gpu_bar0_write(gpu, reg, 0);
	b->lines = lines_of_failure(gpu, said, sizeof(said));
	start_binder(b, gpu);
}

static void a_gpu_that_is_not_ready_is_not_bound_yet(void **state)
{
	start_never_ready(&never_c2c, "noc2c", BAR0_C2C);
	start_never_ready(&never_hbm, "nohbm", BAR0_HBM);
	usleep(500 * 1000);
	assert_int_equal(waitpid(never_c2c.pid, NULL, WNOHANG), 0);
	assert_int_equal(waitpid(never_hbm.pid, NULL, WNOHANG), 0);
}

static bool is_waiting(struct binder *b)
{
	return !waitpid(b->pid, NULL, WNOHANG);
}

static void a_gpu_is_bound_when_it_becomes_ready(void **state)
{
	const struct gpu *gpu = gpu_find("gh200");
	volatile uint32_t *bar0 = gpu_hold(gpu);
	struct binder b;

	start_binder(&b, gpu);
	usleep(SETTLE_MS * 1000);
	assert_true(is_waiting(&b));
	gpu_release(gpu, bar0);
	assert_int_equal(finish_binder(&b).ret, 0);
	assert_true(gpu_bound(gpu));
}

static void a_failed_wait_leaves_the_gpus_memory_to_others(void **state)
{
	const struct gpu *gpu = gpu_find("gh200");
	const struct gpu *twin = gpu_find("overlap");

	gpu_unready(gpu, NEVER);
	start_binder(&killed, gpu);
	usleep(500 * 1000);

	/* During the wait, the memory is claimed. */
	assert_int_equal(gpu_bind(twin), -EBUSY);
	kill_binder(&killed);
	close(killed.result);
	assert_int_equal(gpu_bind(twin), 0);
	assert_int_equal(gpu_unbind(twin), 0);

	gpu_unready(gpu, 0);
	assert_int_equal(gpu_bind(gpu), 0);
}

/* A wait that began later and still goes on shows that the time isn't over. */
static void a_killed_binder_gets_away_and_the_gpu_binds_later(void **state)
{
	const struct gpu *gpu = gpu_find("second"), *other = gpu_find("gh200");
	volatile uint32_t *bar0;
	struct binder b;

	gpu_unready(gpu, NEVER);
	start_binder(&killed, gpu);
	usleep(SETTLE_MS * 1000);
	assert_true(is_waiting(&killed));
	bar0 = gpu_hold(other);
	start_binder(&b, other);
	usleep(SETTLE_MS * 1000);

	kill_binder(&killed);
	close(killed.result);
	assert_true(is_waiting(&b));
	assert_false(gpu_bound(gpu));
	gpu_release(other, bar0);
	assert_int_equal(finish_binder(&b).ret, 0);

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
	uint64_t begin;

	assert_int_equal(gpu_sysfs_write(gpu, "numa_node", "0"), 0);
	begin = now_ms();
	gpu_unready(gpu, LATE_MS);
	start_binder(&killed, gpu);
	usleep(500 * 1000);
	assert_int_equal(kill(killed.pid, SIGKILL), 0);
	assert_int_equal(waitpid(killed.pid, NULL, 0), killed.pid);
	killed.pid = 0;
	close(killed.result);
	assert_waited(begin, LATE_MS);
	assert_true(gpu_bound(gpu));
	assert_int_equal(gpu_sysfs_write(gpu, "numa_node", "-1"), 0);
}

/* The bind that began last ends first. */
static void four_gpus_wait_together_for_four_writers(void **state)
{
	volatile uint32_t *bar0[ARRAY_SIZE(side_by_side)];
	struct binder b[ARRAY_SIZE(side_by_side)];
	unsigned int i, k;

	for (i = 0; i < ARRAY_SIZE(b); i++) {
		bar0[i] = gpu_hold(gpu_find(side_by_side[i]));
		start_binder(&b[i], gpu_find(side_by_side[i]));
		usleep(SETTLE_MS * 1000);
	}
	while (i--) {
		gpu_release(b[i].gpu, bar0[i]);
		assert_int_equal(finish_binder(&b[i]).ret, 0);
		assert_true(gpu_bound(b[i].gpu));
		for (k = 0; k < i; k++)
			assert_true(is_waiting(&b[k]));
	}
}

/* The kernel creates the driver's attributes after probe has succeeded. */
static bool probed(const struct gpu *gpu)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/nvgrace_gpu/mode",
		 gpu->addr);
	return !access(path, F_OK);
}

/* The last test of its group: the module can't be unloaded during a wait. */
static void loading_the_module_binds_four_gpus_together(void **state)
{
	const struct gpu *gpu[ARRAY_SIZE(side_by_side)];
	volatile uint32_t *bar0[ARRAY_SIZE(gpu)];
	unsigned int i, k;
	int status;
	pid_t pid;

	assert_int_equal(module_unload(), 0);
	for (i = 0; i < ARRAY_SIZE(gpu); i++) {
		gpu[i] = gpu_find(side_by_side[i]);
		assert_int_equal(gpu_sysfs_write(gpu[i], "driver_override",
						 DRIVER), 0);
		bar0[i] = gpu_hold(gpu[i]);
	}
	/* Whether loading waits for the binding depends on the kernel. */
	pid = fork();
	if (!pid)
		_exit(module_load() != 0);
	sleep(1);
	while (i--) {
		gpu_release(gpu[i], bar0[i]);
		while (!probed(gpu[i]))
			usleep(10 * 1000);
		for (k = 0; k < i; k++)
			assert_false(probed(gpu[k]));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
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
			 "C2C link status 0x0, HBM training status 0xff,");
}

static void without_the_memory_binding_ends_with_ETIME_after_30_s(void **state)
{
	assert_timed_out(&never_hbm,
			 "C2C link status 0xff, HBM training status 0x0,");
}

/*
 * The model counts the reads. With pauses from 1 ms upward there are a few
 * hundred in 3 s. Without growing pauses there would be 3000 on hardware.
 */
static void the_registers_are_read_with_longer_and_longer_pauses(void **state)
{
	const struct gpu *gpu = gpu_find("gh200");
	volatile uint32_t *bar0 = gpu_hold(gpu);
	uint32_t c2c = bar0[MODEL_C2C_READS / 4];
	uint32_t hbm = bar0[MODEL_HBM_READS / 4];
	struct binder b;

	assert_int_equal(bar0[MODEL_MAGIC / 4], 0x4d47564e);
	start_binder(&b, gpu);
	usleep(LATE_MS * 1000);
	while (is_waiting(&b) && bar0[MODEL_C2C_READS / 4] - c2c < 6)
		usleep(SETTLE_MS * 1000);
	gpu_release(gpu, bar0);
	assert_int_equal(finish_binder(&b).ret, 0);
	assert_int_equal(gpu_unbind(gpu), 0);

	c2c = gpu_bar0_read(gpu, MODEL_C2C_READS) - c2c;
	hbm = gpu_bar0_read(gpu, MODEL_HBM_READS) - hbm;
	print_message("# %u and %u reads\n", c2c, hbm);
	assert_in_range(c2c, 6, 1500);
	assert_true(hbm <= c2c && hbm > 0);
}

#define TEST(fn)	cmocka_unit_test_teardown(fn, teardown)

static const struct CMUnitTest tests[] = {
	TEST(a_gpu_that_is_not_ready_is_not_bound_yet),
	TEST(a_gpu_is_bound_when_it_becomes_ready),
	TEST(a_failed_wait_leaves_the_gpus_memory_to_others),
	TEST(a_killed_binder_gets_away_and_the_gpu_binds_later),
	TEST(on_a_numa_node_the_wait_outlives_a_killed_binder),
	TEST(four_gpus_wait_together_for_four_writers),
};

static const struct CMUnitTest last_tests[] = {
	TEST(without_the_link_binding_ends_with_ETIME_after_30_s),
	TEST(without_the_memory_binding_ends_with_ETIME_after_30_s),
	TEST(loading_the_module_binds_four_gpus_together),
};

static void a_ready_gpu_is_bound_at_once(void **state)
{
	const struct gpu *gpu = gpu_find("gh200");
	uint64_t c2c = host_counter(gpu, "c2c_reads");
	uint64_t hbm = host_counter(gpu, "hbm_reads");

	assert_int_equal(gpu_bind(gpu), 0);
	assert_int_equal(host_counter(gpu, "c2c_reads"), c2c + 1);
	assert_int_equal(host_counter(gpu, "hbm_reads"), hbm + 1);
}

/* A stand-in's registers are memory, whose reads nothing counts. */
static const struct CMUnitTest model_tests[] = {
	TEST(a_ready_gpu_is_bound_at_once),
	TEST(the_registers_are_read_with_longer_and_longer_pauses),
};

int main(void)
{
	int failed;

	cmocka_set_message_output(CM_OUTPUT_TAP);
	failed = cmocka_run_group_tests_name("ready", tests, NULL, NULL);
	if (gpu_find("gh200")->is_model)
		failed += cmocka_run_group_tests_name("ready_model",
						      model_tests, NULL, NULL);
	else
		print_message("# %zu tests need the model GPU, for its counters\n",
			      ARRAY_SIZE(model_tests));
	failed += cmocka_run_group_tests_name("ready_last", last_tests, NULL,
					      last_teardown);
	return failed;
}
