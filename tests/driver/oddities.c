// SPDX-License-Identifier: GPL-2.0-only
/*
 * Rare events: unusual devices, and processes that are killed while another thread
 * holds a lock.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib.h"
#include "waits.h"

/* ---- unusual devices ---------------------------------------------------- */

/* A GPU that was not reset may still write into its memory. */
static void a_gpu_that_can_not_be_reset_is_not_scrubbed(void **state)
{
	const struct gpu *gpu = gpu_find("noreset");
	unsigned int i, said;
	char line[512];
	int level;

	scrub_set_parameter(true);
	klog_mark();
	assert_int_equal(gpu_bind(gpu), 0);
	assert_string_equal(scrub_end(gpu), "failed");
	assert_true(klog_wait("the GPU can't be reset (error -25); the device can't be opened",
			      1000));
	assert_int_equal(vfio_try_open(&v, gpu), -EIO);
	assert_int_equal(gpu_unbind(gpu), 0);

	/* With the parameter off, the GPU may be opened nevertheless. */
	scrub_set_parameter(false);
	klog_mark();
	said = 0;
	assert_int_equal(gpu_bind(gpu), 0);
	assert_int_equal(gpu_sysfs_write(gpu, "nvgrace_gpu/scrub", "1"), 0);
	assert_string_equal(scrub_end(gpu), "failed");
	assert_true(klog_wait("the GPU can't be reset (error -25); its content is unknown",
			      1000));
	for (i = 0; i < 20; i++) {
		assert_int_equal(gpu_sysfs_write(gpu, "nvgrace_gpu/scrub", "1"),
				 0);
		assert_string_equal(scrub_end(gpu), "failed");
	}
	/* Repeated attempts must not fill the log. */
	while (klog_next(&level, line, sizeof(line)))
		said += !!strstr(line, "the GPU can't be reset");
	assert_in_range(said, 5, 12);

	vfio_open(&v, gpu);
}

static long bind_beside(void *gpu)
{
	return gpu_bind(gpu);
}

/*
 * Begins to bind a GPU, held by gpu_hold(), and returns once that has read its
 * registers @count times.
 */
static struct beside *start_bind(const struct gpu *gpu, volatile uint32_t *bar0,
				 uint32_t count)
{
	uint32_t looks = bar0[MODEL_C2C_READS / 4];
	struct beside *bind;

	waits_begin();
	bind = beside(bind_beside, gpu);
	while (!bind->over && bar0[MODEL_C2C_READS / 4] - looks < count)
		usleep(1000);
	assert_true(!bind->over || waits_are_over());
	return bind;
}

/* Only the registers read as all ones: config space still answers. */
static void registers_of_all_ones_are_not_a_gpu_that_is_gone(void **state)
{
	const struct gpu *gpu = gpu_find("ones");
	volatile uint32_t *bar0;
	struct beside *bind;
	bool again;
	long ret;

	do {
		bar0 = gpu_hold(gpu);
		assert_int_equal(bar0[BAR0_C2C / 4], UINT32_MAX);
		/*
		 * The second read shows that the first one did not end the
		 * wait.
		 */
		bind = start_bind(gpu, bar0, 2);
		gpu_release(gpu, bar0);
		again = waits_again();
		ret = ended(bind);
	} while (again && ret);
	assert_int_equal(ret, 0);
}

static void a_gpu_that_leaves_during_the_wait_is_ENODEV(void **state)
{
	const struct gpu *gpu = gpu_find("ones");
	volatile uint32_t *bar0;
	struct beside *bind;
	bool again;
	long ret;

	do {
		bar0 = gpu_hold(gpu);
		klog_mark();
		bind = start_bind(gpu, bar0, 1);
		host_ask(NULL, 0, "answer ones 0");
		again = waits_again();
		ret = ended(bind);
		host_ask(NULL, 0, "answer ones 1");
		gpu_release(gpu, bar0);
	} while (again);
	assert_int_equal(ret, -ENODEV);
	assert_int_equal(klog_count("reads as all ones and may be gone"), 1);
	assert_false(gpu_bound(gpu));
	assert_int_equal(gpu_bind(gpu), 0);
}

static void a_bar0_without_the_registers_is_ENODEV(void **state)
{
	klog_mark();
	assert_int_equal(gpu_bind(gpu_find("smallbar0")), -ENODEV);
	assert_true(klog_wait("BAR0 has 0x10000 bytes, too few to hold the readiness registers",
			      1000));
}

/*
 * The driver starts one worker for each CPU of the GPU's node, if it has one.
 */
static void a_gpu_of_a_node_is_scrubbed(void **state)
{
	const struct gpu *gpu = gpu_find("tinymem");

	/* -EINVAL: the kernel has no NUMA support. */
	if (gpu_sysfs_write(gpu, "numa_node", "0"))
		print_message("# this kernel has no NUMA support\n");
	scrub_set_parameter(true);
	soil(gpu);
	assert_int_equal(gpu_bind(gpu), 0);
	assert_string_equal(scrub_end(gpu), "clean");
	assert_clean(gpu);
	assert_int_equal(gpu_unbind(gpu), 0);
	gpu_sysfs_write(gpu, "numa_node", "-1");
}

/* ---- unusual users ------------------------------------------------------ */

static long reset_until_ended(void *dev)
{
	while (still_wanted())
		vfio_reset(dev);
	return 0;
}

/* Reads memory, or writes D0 to the power state, which is D0 already. */
static void use_for_ever(bool power)
{
	char data[2] = "";

	for (;;)
		if (power)
			vfio_write(&v, CONFIG + 0x44, data, sizeof(data));
		else
			vfio_read(&v, REGION(USEMEM), data, sizeof(data));
}

static void users_are_killed_while_resets_hold_the_locks(void **state)
{
	unsigned int i, seed = 1;
	struct beside *resets;
	pid_t child[4];

	resets = beside(reset_until_ended, &v);
	for (i = 0; i < 10; i++) {
		size_t n;

		for (n = 0; n < ARRAY_SIZE(child); n++) {
			child[n] = fork();
			if (!child[n])
				use_for_ever(n % 2);
		}
		usleep(rand_r(&seed) % 150000);
		for (n = 0; n < ARRAY_SIZE(child); n++)
			assert_killed(child[n]);
	}
	ended(resets);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(a_gpu_that_can_not_be_reset_is_not_scrubbed),
	cmocka_unit_test(registers_of_all_ones_are_not_a_gpu_that_is_gone),
	cmocka_unit_test(a_gpu_that_leaves_during_the_wait_is_ENODEV),
	cmocka_unit_test(a_bar0_without_the_registers_is_ENODEV),
	cmocka_unit_test(a_gpu_of_a_node_is_scrubbed),
};

static const struct CMUnitTest slow_tests[] = {
	OPEN("gh200", users_are_killed_while_resets_hold_the_locks),
};

const struct case_group groups[] = {
	{ "scrubs lab", CASES(tests) },
	{ "scrubs lab slow", CASES(slow_tests) },
	{ }
};
