// SPDX-License-Identifier: GPL-2.0-only
/*
 * Functions of the kernel fail when the driver calls them: it must report that,
 * touch nothing meanwhile, and work again afterwards. The module
 * tests/lab/modules/failing makes them fail.
 *
 * tests/stress/faults.c makes each allocation fail, on a debug kernel.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib.h"
#include "waits.h"

#define ENTRY		VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY
#define EXIT		VFIO_DEVICE_FEATURE_LOW_POWER_EXIT

/* 64 MiB and some bytes, all of it usemem. */
#define TINY		"tinymem"

/* A GPU with both parts, which can be in low power. */
#define BOTH		"d3cold"

/* What functions return, as text: a negative errno or NULL. */
#define NO_MEMORY	"-12"
#define NO_IO		"-5"
#define NOTHING		"0"

/* ---- binding ------------------------------------------------------------ */

static void a_failed_bind_leaves_nothing(void **state)
{
	static const struct {
		const char *value, *names;
		int error;
	} steps[] = {
		{ NO_MEMORY, "_vfio_alloc_device", -ENOMEM },
		{ NO_IO, "pci_enable_device", -EIO },
		{ NOTHING, "pci_iomap", -ENOMEM },
		{ NO_MEMORY, "vfio_pci_core_register_device", -ENOMEM },
	};
	const struct gpu *gpu = gpu_find(TINY);
	size_t i;

	for (i = 0; i < ARRAY_SIZE(steps); i++) {
		begin_failing(steps[i].value, steps[i].names);
		print_message("# %s\n", steps[i].names);
		assert_int_equal(gpu_bind(gpu), steps[i].error);
		assert_false(gpu_bound(gpu));
		end_failing(steps[i].names);
		assert_int_equal(gpu_bind(gpu), 0);
		assert_int_equal(gpu_unbind(gpu), 0);
	}
}

static uint64_t resets(const struct gpu *gpu)
{
	return host_counter(gpu, "resets");
}

/* A GPU without an IOMMU, which vfio refuses. */
static void assert_vfio_refuses(const struct gpu *gpu)
{
	klog_mark();
	begin_failing(NOTHING, "iommu_group_get");
	assert_int_equal(gpu_bind(gpu), -EINVAL);
	end_failing("iommu_group_get");
	assert_int_equal(klog_count("vfio refuses the device (error -22): it has no coherent"), 1);
}

/* Somebody else may use the GPU, or its virtual functions. */
static void a_refused_bind_has_reset_nothing(void **state)
{
	const struct gpu *gpu = gpu_find(TINY);
	uint64_t before = resets(gpu);

	scrub_set_parameter(true);
	soil(gpu);
	assert_vfio_refuses(gpu);

	klog_mark();
	begin_failing("2", "pci_num_vf");
	assert_int_equal(gpu_bind(gpu), -EBUSY);
	end_failing("pci_num_vf");
	assert_int_equal(klog_count("2 virtual functions are on, and somebody may use them;"),
			 1);
	assert_int_equal(resets(gpu), before);

	assert_int_equal(gpu_bind(gpu), 0);
	assert_true(resets(gpu) > before);
	assert_string_equal(scrub_end(gpu), "clean");
	assert_clean(gpu);
}

static void each_failure_at_bind_has_a_line(void **state)
{
	const struct gpu *gpu = gpu_find(TINY);

	klog_mark();
	begin_failing(NO_IO, "pci_enable_device");
	assert_int_equal(gpu_bind(gpu), -EIO);
	end_failing("pci_enable_device");
	assert_int_equal(klog_count("the device can't be enabled (error -5); power-cycle the host"),
			 1);

	begin_failing(NO_IO, "nvgrace_gpu_gate_wait_probe");
	assert_int_equal(gpu_bind(gpu), -EIO);
	end_failing("nvgrace_gpu_gate_wait_probe");
	assert_int_equal(klog_count("the device does not leave D3, or does not decode memory;"), 1);
}

/* ---- the host's sleep --------------------------------------------------- */

static void assert_hears_of_sleep(struct vfio *dev)
{
	assert_int_equal(read_a_byte(dev), 1);
	assert_true(gpu_sysfs_is(dev->gpu, "nvgrace_gpu/readiness", "ready"));
	host_sleeps();
	assert_true(gpu_sysfs_is(dev->gpu, "nvgrace_gpu/readiness", "unknown"));
	host_wakes();
	assert_int_equal(read_a_byte(dev), 1);
}

/* vfio-pci-core replaces the driver's power operations at each registration. */
static void whatever_fails_to_bind_every_gpu_hears_of_the_hosts_sleep(void **state)
{
	const struct gpu *refused = gpu_find("s1h");

	assert_vfio_refuses(refused);
	vfio_start(&v, TINY);
	assert_hears_of_sleep(&v);
	assert_vfio_refuses(refused);
	assert_hears_of_sleep(&v);
	vfio_stop(&v);

	scrub_set_parameter(true);
	assert_int_equal(gpu_bind(gpu_find(TINY)), 0);
	assert_string_equal(scrub_end(gpu_find(TINY)), "clean");
	assert_vfio_refuses(refused);
	host_hibernates();
	assert_true(gpu_sysfs_is(gpu_find(TINY), "nvgrace_gpu/scrub_state",
				 "unknown"));
}

/* ---- opening ------------------------------------------------------------ */

static void an_open_that_fails_leaves_nothing(void **state)
{
	static const char *const names[] = { TINY, "none" };
	const struct gpu *gpu;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		gpu = gpu_find(names[i]);
		assert_int_equal(gpu_bind(gpu), 0);
		begin_failing(NO_IO, "vfio_pci_core_enable");
		assert_int_equal(vfio_try_open(&v, gpu), -EIO);
		end_failing("vfio_pci_core_enable");
		/* It is not in use, so it can be scrubbed. */
		if (gpu->size) {
			assert_int_equal(gpu_sysfs_write(gpu, "nvgrace_gpu/scrub", "1"), 0);
			assert_string_equal(scrub_end(gpu), "clean");
		}
		vfio_open(&v, gpu);
		vfio_close(&v);
		assert_int_equal(gpu_unbind(gpu), 0);
	}
}

/* ---- resets ------------------------------------------------------------- */

static long reset_device(void *dev)
{
	return vfio_reset(dev);
}

static long read_first_byte(void *map)
{
	touch_read(map);
	return 0;
}

static long map_a_page(void *unused)
{
	void *map = mmap(NULL, MiB, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return map == MAP_FAILED || munmap(map, MiB) ? -errno : 0;
}

/*
 * vfio-pci-core holds its lock of the memory during a reset. A fault must not wait
 * for that with a lock of the address space. Here, the reset waits in the driver
 * until all has been seen.
 */
static void a_fault_during_a_reset_keeps_no_mmap_waiting(void **state)
{
	struct beside *reset, *fault, *mapping;
	unsigned int i;
	char *map;

	map = vfio_map(&v, USEMEM, 0, MiB, RW, MAP_SHARED, NULL);
	begin_failing(NO_IO, "pci_read_config_dword");
	hold_failing(true);
	reset = beside(reset_device, &v);
	while (!failing_count())
		usleep(1000);
	fault = beside(read_first_byte, map);
	until_it_waits(fault->tid);
	mapping = beside(map_a_page, NULL);
	/* Minutes, on any machine. */
	for (i = 0; i < 120000 && !mapping->over; i++)
		usleep(1000);
	assert_true(mapping->over);
	assert_false(fault->over);
	hold_failing(false);
	assert_int_equal(ended(mapping), 0);
	assert_int_equal(ended(reset), 0);
	assert_int_equal(ended(fault), 0);
	end_failing("pci_read_config_dword");
}

/* ---- readiness ---------------------------------------------------------- */

/* No wait would end better, so that readiness must not stay unknown. */
static void a_gpu_that_reads_as_all_ones_has_failed(void **state)
{
	vfio_unready_after_resets(&v);
	assert_int_equal(vfio_reset(&v), 0);
	assert_true(gpu_sysfs_is(v.gpu, "nvgrace_gpu/readiness", "unknown"));
	begin_failing(NOTHING, "pci_device_is_present");
	assert_int_equal(read_a_byte(&v), -EIO);
	assert_true(gpu_sysfs_is(v.gpu, "nvgrace_gpu/readiness", "failed"));
	end_failing("pci_device_is_present");
	vfio_make_ready(&v);
	assert_int_equal(read_a_byte(&v), 1);
	assert_true(gpu_sysfs_is(v.gpu, "nvgrace_gpu/readiness", "ready"));
}

/* ---- resets ------------------------------------------------------------- */

/* Opening it once makes the driver save config space. */
static void use(const struct gpu *gpu)
{
	vfio_open(&v, gpu);
	vfio_close(&v);
}

/* Returns how often the driver restores config space if BAR0 was lost. */
static int restores(const struct gpu *gpu)
{
	uint32_t bar0;

	/* Otherwise the kernel restores config space when the GPU wakes up. */
	assert_int_equal(gpu_sysfs_write(gpu, "power/control", "on"), 0);
	bar0 = gpu_set_bar0(gpu, 0);
	begin_failing(NOTHING, "pci_restore_state");
	assert_int_equal(gpu_sysfs_write(gpu, "reset", "1"), 0);
	gpu_set_bar0(gpu, bar0);
	assert_int_equal(gpu_sysfs_write(gpu, "power/control", "auto"), 0);
	return stop_failing();
}

/* Newer kernels would restore what they find. */
static void config_space_that_was_not_saved_is_not_restored(void **state)
{
	const struct gpu *gpu = gpu_find(TINY);

	assert_int_equal(gpu_bind(gpu), 0);
	begin_failing(NOTHING, "pci_store_saved_state");
	use(gpu);
	end_failing("pci_store_saved_state");
	assert_int_equal(restores(gpu), 0);
	/* The next user's is. */
	use(gpu);
	assert_int_equal(restores(gpu), 1);
}

/* One that goes to sleep until it is opened is saved by the kernel. */
static void a_gpu_that_stays_awake_is_saved_when_it_is_bound(void **state)
{
	static const char parameter[] =
		"/sys/module/" DRIVER "/parameters/disable_idle_d3";
	const struct gpu *gpu = gpu_find(TINY);

	must_write_file(parameter, "1");
	assert_int_equal(gpu_bind(gpu), 0);
	must_write_file(parameter, "0");
	assert_int_equal(restores(gpu), 1);
}

/* Virtual functions and Enhanced Allocation have registers of 0 by design. */
static void a_bar_that_was_never_seen_is_not_restored(void **state)
{
	const struct gpu *gpu = gpu_find("cxl");
	uint32_t bar0 = gpu_set_bar0(gpu, 0);

	assert_int_equal(gpu_bind(gpu), 0);
	use(gpu);
	assert_int_equal(restores(gpu), 0);
	assert_int_equal(gpu_unbind(gpu), 0);
	gpu_set_bar0(gpu, bar0);
}

/* ---- reads and writes --------------------------------------------------- */

static void memory_that_can_not_be_mapped_is_ENOMEM(void **state)
{
	static const struct {
		unsigned int index;
		const char *names;
	} parts[] = {
		{ USEMEM, "memremap" },
		{ RESMEM, "__ioremap_prot ioremap_prot" },
	};
	uint64_t word = 0;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(parts); i++) {
		uint64_t pos = REGION(parts[i].index);

		begin_failing(NOTHING, parts[i].names);
		assert_int_equal(vfio_read(&v, pos, &word, sizeof(word)),
				 -ENOMEM);
		assert_int_equal(vfio_write(&v, pos, &word, sizeof(word)),
				 -ENOMEM);
		end_failing(parts[i].names);
		assert_int_equal(vfio_write(&v, pos, &word, sizeof(word)),
				 sizeof(word));
		assert_int_equal(vfio_read(&v, pos, &word, sizeof(word)),
				 sizeof(word));
	}
}

static void a_read_behind_the_memory_without_a_buffer_is_ENOMEM(void **state)
{
	static const char names[] = "__kvmalloc_node_noprof kvmalloc_node";
	const size_t count = 64 * KiB, inside = 100;
	uint64_t end;
	uint8_t *data = malloc(count);
	size_t i;

	end = REGION(USEMEM) + v.gpu->size;
	begin_failing(NOTHING, names);
	assert_int_equal(vfio_read(&v, end, data, count), -ENOMEM);
	/* What comes before is read nevertheless. */
	assert_int_equal(vfio_read(&v, end - inside, data, count), inside);
	/* Small reads need no buffer. */
	assert_int_equal(vfio_read(&v, end, data, 8), 8);
	end_failing(names);
	memset(data, 0, count);
	assert_int_equal(vfio_read(&v, end, data, count), count);
	for (i = 0; i < count; i++)
		assert_int_equal(data[i], 0xff);
	free(data);
}

static void a_gpu_that_does_not_wake_up_is_not_accessed(void **state)
{
	static const char before[] = "before", after[] = "after!";
	static const unsigned int indexes[] = { USEMEM, RESMEM };
	char *big = malloc(MiB), word[8] = "";
	size_t i;

	memset(big, 0x5a, MiB);
	vfio_start(&v, BOTH);
	for (i = 0; i < ARRAY_SIZE(indexes); i++) {
		uint64_t pos = REGION(indexes[i]);

		assert_int_equal(vfio_write(&v, pos, before, 7), 7);
		assert_int_equal(vfio_set_feature(&v, ENTRY, NULL, 0), 0);
		begin_failing(NO_IO, "__pm_runtime_resume");
		assert_int_equal(vfio_read(&v, pos, word, 7), -EIO);
		assert_int_equal(vfio_write(&v, pos, after, 7), -EIO);
		assert_int_equal(vfio_read(&v, pos, big, MiB), -EIO);
		assert_int_equal(vfio_write(&v, pos, big, MiB), -EIO);
		end_failing("__pm_runtime_resume");
		assert_int_equal(vfio_set_feature(&v, EXIT, NULL, 0), 0);
		assert_int_equal(vfio_read(&v, pos, word, 7), 7);
		assert_string_equal(word, before);
	}
	free(big);
}

/* ---- region info -------------------------------------------------------- */

static void region_info_without_memory_is_ENOMEM(void **state)
{
	static const char names[] =
		"__kmalloc_cache_noprof __kmalloc_noprof kmalloc_trace __kmalloc";
	struct vfio_region_info info = { .argsz = 256, .index = USEMEM };
	char room[256];

	memcpy(room, &info, sizeof(info));
	begin_failing(NOTHING, names);
	assert_int_equal(ioctl(v.device, VFIO_DEVICE_GET_REGION_INFO, room), -1);
	assert_int_equal(errno, ENOMEM);
	end_failing(names);
	memcpy(room, &info, sizeof(info));
	assert_int_equal(ioctl(v.device, VFIO_DEVICE_GET_REGION_INFO, room), 0);
}

/* ---- memory errors ------------------------------------------------------ */

/* Then only the host's log has them. */
static void without_reports_of_bad_pages_an_open_works(void **state)
{
	begin_failing("-16", "register_pfn_address_space");
	klog_mark();
	vfio_start(&v, TINY);
	end_failing("register_pfn_address_space");
	assert_int_equal(klog_count("can't register usemem for memory errors (error -16);"), 1);
	assert_int_equal(read_a_byte(&v), 1);
}

/* ---- scrubs ------------------------------------------------------------- */

/*
 * The log has a reason for each failed scrub. No open gets the memory, until
 * one comes after a scrub that worked.
 */
static void a_scrub_that_fails_says_why(void **state)
{
	static const struct {
		const char *value, *names, *line;
	} steps[] = {
		{ NO_IO, "__pm_runtime_resume", "the GPU does not wake up (error -5)" },
		{ NO_IO, "pci_enable_device", "the GPU can't be enabled (error -5)" },
		{ NOTHING, "memremap", "it can't be mapped (error -12)" },
	};
	const struct gpu *gpu = gpu_find(TINY);
	char line[256];
	size_t i;

	scrub_set_parameter(true);
	for (i = 0; i < ARRAY_SIZE(steps); i++) {
		print_message("# %s\n", steps[i].names);
		assert_int_equal(gpu_bind(gpu), 0);
		assert_string_equal(scrub_end(gpu), "clean");
		vfio_open(&v, gpu);
		soil(gpu);
		begin_failing(steps[i].value, steps[i].names);
		klog_mark();
		vfio_close(&v);
		assert_string_equal(scrub_end(gpu), "failed");
		snprintf(line, sizeof(line),
			 "GPU memory could not be cleared: %s; the device can't be opened until a scrub succeeds",
			 steps[i].line);
		assert_int_equal(klog_count(line), 1);
		end_failing(steps[i].names);

		/* The next try begins with a reset. */
		begin_failing("-25", "pci_reset_function_locked");
		klog_mark();
		assert_int_equal(vfio_try_open(&v, gpu), -EIO);
		assert_int_equal(klog_count("the GPU can't be reset (error -25)"), 1);
		end_failing("pci_reset_function_locked");

		vfio_open(&v, gpu);
		assert_clean(gpu);
		vfio_close(&v);
		assert_string_equal(scrub_end(gpu), "clean");
		assert_int_equal(gpu_unbind(gpu), 0);
	}
}

/* There is nobody to clear one part while the scrub itself clears the other. */
static void a_scrub_without_memory_for_workers_clears_both_parts(void **state)
{
	const struct gpu *gpu = gpu_find("s1h");

	scrub_set_parameter(true);
	assert_int_equal(gpu_bind(gpu), 0);
	assert_string_equal(scrub_end(gpu), "clean");
	vfio_open(&v, gpu);
	soil(gpu);
	begin_failing(NOTHING, "__kmalloc_noprof __kmalloc");
	vfio_close(&v);
	assert_string_equal(scrub_end(gpu), "clean");
	end_failing("__kmalloc_noprof __kmalloc");
	assert_clean(gpu);
}

/* ---- all ---------------------------------------------------------------- */

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(a_failed_bind_leaves_nothing),
	cmocka_unit_test(a_refused_bind_has_reset_nothing),
	cmocka_unit_test(each_failure_at_bind_has_a_line),
	cmocka_unit_test(an_open_that_fails_leaves_nothing),
	OPEN(TINY, a_fault_during_a_reset_keeps_no_mmap_waiting),
	OPEN("ones", a_gpu_that_reads_as_all_ones_has_failed),
	cmocka_unit_test(a_bar_that_was_never_seen_is_not_restored),
	cmocka_unit_test(config_space_that_was_not_saved_is_not_restored),
	cmocka_unit_test(a_gpu_that_stays_awake_is_saved_when_it_is_bound),
	OPEN(BOTH, memory_that_can_not_be_mapped_is_ENOMEM),
	OPEN(TINY, a_read_behind_the_memory_without_a_buffer_is_ENOMEM),
	cmocka_unit_test(a_gpu_that_does_not_wake_up_is_not_accessed),
	OPEN(TINY, region_info_without_memory_is_ENOMEM),
	cmocka_unit_test(a_scrub_that_fails_says_why),
};

static const struct CMUnitTest slow_tests[] = {
	cmocka_unit_test(a_scrub_without_memory_for_workers_clears_both_parts),
};

static const struct CMUnitTest sleep_tests[] = {
	cmocka_unit_test(whatever_fails_to_bind_every_gpu_hears_of_the_hosts_sleep),
};

static const struct CMUnitTest report_tests[] = {
	cmocka_unit_test(without_reports_of_bad_pages_an_open_works),
};

static int load(void **state)
{
	return load_file("/tests/failing.ko");
}

static int unload_it(void **state)
{
	return unload("failing");
}

const struct case_group groups[] = {
	{ "scrubs lab CONFIG_KPROBES lab:failing", CASES(tests), load, unload_it },
	{ "scrubs lab CONFIG_KPROBES lab:failing slow", CASES(slow_tests), load, unload_it },
	{ "scrubs lab CONFIG_KPROBES CONFIG_PM_SLEEP lab:failing lab:sleeper",
	  CASES(sleep_tests), load, unload_it },
	{ "scrubs lab CONFIG_KPROBES lab:failing symbol:register_pfn_address_space",
	  CASES(report_tests), load, unload_it },
	{ }
};
