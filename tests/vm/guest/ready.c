// SPDX-License-Identifier: GPL-2.0-only
/*
 * The wait for GPU memory at bind time: how long, how often the registers are
 * read, and how it ends.  The waits that end with a timeout take 30 s: they run
 * beside the other tests, the first of which starts them, and the last group
 * looks at them.
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

/*
 * What an emulated machine on a busy host may take beyond what the driver is
 * asked for; the driver's own goal is 20 ms.
 */
#define SLACK_MS	2000
#define TIMEOUT_SLACK_MS 3000

#define NEVER		UINT32_MAX

/* A bind in a process of its own. */
struct binder {
	const struct gpu *gpu;
	pid_t pid;
	int result;	/* pipe on which the child sends struct outcome */
	int lines;	/* that the log had of failed waits for it before */
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

/* The waits that end with -ETIME, from the first test to the last ones. */
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

/* Lines of the log that say of @gpu that it isn't ready; the last one in @said. */
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
		/* An error. */
		assert_int_equal(level, 3);
		snprintf(said, size, "%s", line);
		lines++;
	}
	return lines;
}

/* The model is made with one register that never becomes ready. */
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

static void a_ready_gpu_is_bound_at_once(void **state)
{
	const struct gpu *gpu = gpu_find("gh200");
	uint64_t begin = now_ms(), took;

	assert_int_equal(gpu_bind(gpu), 0);
	took = now_ms() - begin;
	print_message("# bound after %llu ms\n", (unsigned long long)took);
	assert_true(took < SLACK_MS);
}

static void assert_took(uint64_t took, uint64_t at_least, uint64_t slack)
{
	if (took < at_least || took >= at_least + slack)
		fail_msg("took %llu ms, expected %llu to %llu",
			 (unsigned long long)took, (unsigned long long)at_least,
			 (unsigned long long)(at_least + slack));
}

static void a_gpu_is_bound_when_it_becomes_ready(void **state)
{
	const struct gpu *gpu = gpu_find("gh200");
	uint64_t begin = now_ms(), took;

	gpu_unready(gpu, LATE_MS);
	assert_int_equal(gpu_bind(gpu), 0);
	took = now_ms() - begin;
	print_message("# ready after %u ms, bound after %llu ms\n", LATE_MS,
		      (unsigned long long)took);
	assert_true(gpu_bound(gpu));
	assert_took(took, LATE_MS, SLACK_MS);
}

static void a_failed_wait_leaves_the_gpus_memory_to_others(void **state)
{
	const struct gpu *gpu = gpu_find("gh200");
	const struct gpu *twin = gpu_find("overlap");

	gpu_unready(gpu, NEVER);
	start_binder(&killed, gpu);
	usleep(500 * 1000);

	/* While it waits, the memory is spoken for. */
	assert_int_equal(gpu_bind(twin), -EBUSY);
	kill_binder(&killed);
	close(killed.result);
	assert_int_equal(gpu_bind(twin), 0);
	assert_int_equal(gpu_unbind(twin), 0);

	gpu_unready(gpu, 0);
	assert_int_equal(gpu_bind(gpu), 0);
}

static void a_killed_binder_gets_away_and_the_gpu_binds_later(void **state)
{
	const struct gpu *gpu = gpu_find("second");
	uint64_t begin;

	gpu_unready(gpu, NEVER);
	start_binder(&killed, gpu);
	sleep(1);
	assert_int_equal(waitpid(killed.pid, NULL, WNOHANG), 0);

	begin = now_ms();
	assert_int_equal(kill(killed.pid, SIGKILL), 0);
	assert_int_equal(waitpid(killed.pid, NULL, 0), killed.pid);
	killed.pid = 0;
	close(killed.result);
	print_message("# gone %llu ms after SIGKILL\n",
		      (unsigned long long)(now_ms() - begin));
	assert_true(now_ms() - begin < SLACK_MS);
	assert_false(gpu_bound(gpu));

	gpu_unready(gpu, 500);
	assert_int_equal(gpu_bind(gpu), 0);
	assert_true(gpu_bound(gpu));
}

/*
 * The PCI core probes a device with a NUMA node in a worker: the kill doesn't
 * get there, and the wait goes on to its end.
 */
static void on_a_numa_node_the_wait_outlives_a_killed_binder(void **state)
{
	const struct gpu *gpu = gpu_find("odd");
	uint64_t begin;

	assert_int_equal(gpu_sysfs_write(gpu, "numa_node", "0"), 0);
	gpu_unready(gpu, LATE_MS);
	begin = now_ms();
	start_binder(&killed, gpu);
	usleep(500 * 1000);
	assert_int_equal(kill(killed.pid, SIGKILL), 0);
	assert_int_equal(waitpid(killed.pid, NULL, 0), killed.pid);
	killed.pid = 0;
	close(killed.result);
	/* Without the 500 ms, to allow for the time between both calls. */
	assert_took(now_ms() - begin, LATE_MS - 500, SLACK_MS);
	assert_true(gpu_bound(gpu));
	assert_int_equal(gpu_sysfs_write(gpu, "numa_node", "-1"), 0);
}

static void four_gpus_wait_together_for_four_writers(void **state)
{
	struct binder b[ARRAY_SIZE(side_by_side)];
	uint64_t begin = now_ms(), took, longest = 0;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(b); i++)
		gpu_unready(gpu_find(side_by_side[i]), LATE_MS);
	for (i = 0; i < ARRAY_SIZE(b); i++)
		start_binder(&b[i], gpu_find(side_by_side[i]));
	for (i = 0; i < ARRAY_SIZE(b); i++) {
		struct outcome o = finish_binder(&b[i]);

		assert_int_equal(o.ret, 0);
		assert_true(gpu_bound(b[i].gpu));
		took = o.end_ms - begin;
		assert_true(took >= LATE_MS);
		if (took > longest)
			longest = took;
	}
	print_message("# all bound after %llu ms\n",
		      (unsigned long long)longest);
	assert_took(longest, LATE_MS, 4 * SLACK_MS);
}

/* The last one: the module can't be unloaded while somebody waits. */
static void loading_the_module_binds_four_gpus_together(void **state)
{
	const struct gpu *gpu[ARRAY_SIZE(side_by_side)];
	uint64_t begin, took;
	unsigned int i;

	assert_int_equal(module_unload(), 0);
	for (i = 0; i < ARRAY_SIZE(gpu); i++) {
		gpu[i] = gpu_find(side_by_side[i]);
		assert_int_equal(gpu_sysfs_write(gpu[i], "driver_override",
						 DRIVER), 0);
	}
	begin = now_ms();
	for (i = 0; i < ARRAY_SIZE(gpu); i++)
		gpu_unready(gpu[i], LATE_MS);
	assert_int_equal(module_load(), 0);

	/* Whether loading waits for the binding is the kernel's affair. */
	for (i = 0; i < ARRAY_SIZE(gpu); i++)
		while (!gpu_bound(gpu[i]) && now_ms() < begin + 5 * LATE_MS)
			usleep(10 * 1000);
	took = now_ms() - begin;
	print_message("# all bound after %llu ms\n", (unsigned long long)took);
	for (i = 0; i < ARRAY_SIZE(gpu); i++)
		assert_true(gpu_bound(gpu[i]));
	assert_took(took, LATE_MS, 4 * SLACK_MS);
}

static void assert_timed_out(struct binder *b, const char *registers)
{
	const struct gpu *gpu = b->gpu;
	struct outcome o = finish_binder(b);
	char said[512] = "";
	int lines;

	print_message("# gave up after %llu ms\n",
		      (unsigned long long)(o.end_ms - o.begin_ms));
	/* Whatever is found below, nobody shall bind it in passing. */
	assert_int_equal(gpu_sysfs_write(gpu, "driver_override", "\n"), 0);
	assert_int_equal(o.ret, -ETIME);
	assert_false(gpu_bound(gpu));
	assert_took(o.end_ms - o.begin_ms, TIMEOUT_MS, TIMEOUT_SLACK_MS);

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
 * The model counts.  From 1 ms upward, 3 s are a few hundred looks; a driver
 * that doesn't pause longer and longer would make 3000 of them on hardware.
 */
static void the_registers_are_read_with_longer_and_longer_pauses(void **state)
{
	const struct gpu *gpu = gpu_find("gh200");
	uint32_t c2c = gpu_bar0_read(gpu, MODEL_C2C_READS);
	uint32_t hbm = gpu_bar0_read(gpu, MODEL_HBM_READS);

	assert_int_equal(gpu_bar0_read(gpu, MODEL_MAGIC), 0x4d47564e);
	gpu_unready(gpu, LATE_MS);
	assert_int_equal(gpu_bind(gpu), 0);
	assert_int_equal(gpu_unbind(gpu), 0);

	c2c = gpu_bar0_read(gpu, MODEL_C2C_READS) - c2c;
	hbm = gpu_bar0_read(gpu, MODEL_HBM_READS) - hbm;
	print_message("# %u and %u reads\n", c2c, hbm);
	assert_in_range(c2c, 20, 1500);
	assert_true(hbm <= c2c && hbm > 0);
}

#define TEST(fn)	cmocka_unit_test_teardown(fn, teardown)

static const struct CMUnitTest tests[] = {
	TEST(a_gpu_that_is_not_ready_is_not_bound_yet),
	TEST(a_ready_gpu_is_bound_at_once),
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

/* A stand-in's registers are memory, whose reads nobody counts. */
static const struct CMUnitTest model_tests[] = {
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
		print_message("# a stand-in: %zu tests are not for it (no counters)\n",
			      ARRAY_SIZE(model_tests));
	failed += cmocka_run_group_tests_name("ready_last", last_tests, NULL,
					      last_teardown);
	return failed;
}
