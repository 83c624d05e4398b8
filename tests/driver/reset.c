// SPDX-License-Identifier: GPL-2.0-only
/*
 * Resets, closing, unbinding, and two GPUs at once. The group "late" takes
 * minutes: a GPU that doesn't come back from a reset.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/pci_regs.h>

#include "lib.h"

/* What varies between cases of one function. */
struct variant {
	unsigned int index;	/* of what is mapped */
	bool closed;
	const char *gpu;
};

static uint32_t model(uint64_t reg)
{
	uint32_t val;

	assert_int_equal(vfio_read(&v, reg, &val, 4), 4);
	return val;
}

static void memory_comes_back(void **state)
{
	const struct variant *variant = *state;
	char *map = vfio_map(&v, variant->index, 0, 4 * page, RW, MAP_SHARED, NULL), back[7];

	strcpy(map, "before");
	assert_int_equal(vfio_reset(&v), 0);
	assert_string_equal(map, "before");
	assert_int_equal(vfio_read(&v, REGION(variant->index), back, 7), 7);
	assert_string_equal(back, "before");
	strcpy(map + page, "after");
	assert_string_equal(map + page, "after");
	assert_int_equal(vfio_reset(&v), 0);
	assert_int_equal(vfio_reset(&v), 0);
	assert_string_equal(map + page, "after");
	munmap(map, 4 * page);
}

/*
 * This GPU's id is one that the kernel may reset through the bus. For the
 * others, a quirk prevents hot resets.
 */
static void a_hot_reset_clears_the_registers_and_keeps_the_memory(void **state)
{
	union {
		struct vfio_pci_hot_reset_info info;
		char bytes[256];
	} i = { .info = { .argsz = sizeof(i) } };
	uint64_t bars[2] = { 0x0123456789abcdef, 0xfedcba9876543210 };
	char *map;

	if (ioctl(v.device, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, &i))
		fail_msg("VFIO_DEVICE_GET_PCI_HOT_RESET_INFO: %s",
			 strerror(errno));
	map = vfio_map(&v, USEMEM, 0, 65536, RW, MAP_SHARED, NULL);
	strcpy(map, "kept");
	assert_int_equal(vfio_write(&v, CONFIG + PCI_BASE_ADDRESS_2, bars, 16), 16);
	assert_int_equal(vfio_hot_reset(&v), 0);
	assert_int_equal(vfio_read(&v, CONFIG + PCI_BASE_ADDRESS_2, bars, 16), 16);
	assert_int_equal(bars[0], 0xc);
	assert_int_equal(bars[1], 0xc);
	assert_string_equal(map, "kept");
}

/* As in vfio-pci, unbinding waits for the last user, which may be a mapping. */
static void unbinding_waits(void **state)
{
	const struct variant *variant = *state;
	uint64_t at = REGION(variant->index) + 512;
	char word[8] = "waiting", back[8];
	char *map;
	pid_t pid;

	vfio_start(&v, "second");
	map = vfio_map(&v, variant->index, 0, 65536, RW, MAP_SHARED, NULL);
	if (variant->closed)
		vfio_close(&v);
	pid = fork();
	if (!pid) {
		/* The child must not keep the device open. */
		munmap(map, 65536);
		if (!variant->closed)
			vfio_close(&v);
		_exit(gpu_unbind(v.gpu) ? 1 : 0);
	}
	sleep(1);
	assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);

	/* Everything still works meanwhile. */
	strcpy(map, "still mine");
	assert_string_equal(map, "still mine");
	if (!variant->closed) {
		assert_int_equal(vfio_write(&v, at, word, 8), 8);
		assert_string_equal(map + 512, "waiting");
		assert_int_equal(vfio_read(&v, REGION(RESMEM), back, 8), 8);
	}

	munmap(map, 65536);
	if (!variant->closed)
		vfio_close(&v);
	assert_int_equal(status_of_child(pid), 0);
	assert_false(gpu_bound(v.gpu));

	/* It can be bound again. */
	vfio_start(&v, "second");
}

static void the_module_can_not_go_while_a_device_is_open(void **state)
{
	assert_int_equal(system("rmmod " DRIVER " 2>/dev/null") == 0, 0);
	assert_true(gpu_bound(v.gpu));
	assert_int_equal(model(BAR0_HBM), 0xff);
}

static void in_low_power_a_fault_is_SIGBUS_and_a_read_wakes_the_device(void **state)
{
	char *map = vfio_map(&v, USEMEM, 256 * MiB, 65536, RW, MAP_SHARED, NULL);
	uint64_t word = 0x0123456789abcdef, back = 0;

	assert_int_equal(vfio_write(&v, REGION(USEMEM) + 256 * MiB, &word, 8), 8);
	assert_int_equal(vfio_set_feature(&v, VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY, NULL, 0), 0);
	assert_true(raises_sigbus(touch_read, map));
	assert_int_equal(vfio_read(&v, REGION(USEMEM) + 256 * MiB, &back, 8), 8);
	assert_int_equal(back, word);
	/* The GPU is awake only for the read. */
	assert_true(raises_sigbus(touch_read, map));
	assert_int_equal(vfio_set_feature(&v, VFIO_DEVICE_FEATURE_LOW_POWER_EXIT, NULL, 0), 0);
	assert_int_equal(*(uint64_t *)map, word);
	munmap(map, 65536);
}

/*
 * The kernel gives up after a minute, and the GPU answers long after that. No
 * access waits for it, and the next reset brings it back.
 */
static long reset_by_sysfs_for_ever(void *gpu)
{
	while (still_wanted())
		gpu_sysfs_write(gpu, "reset", "1");
	return 0;
}

/* What a VMM does first: it reads the BARs, and turns memory decoding on. */
static void use_at_once(const struct gpu *gpu)
{
	uint64_t address, was;
	uint16_t command;
	char byte;

	gpu_bar(gpu, 0, &address);
	assert_int_equal(vfio_read(&v, CONFIG + PCI_BASE_ADDRESS_0, &was, 8), 8);
	assert_int_equal(was & ~15ULL, address);
	assert_int_equal(vfio_read(&v, CONFIG + PCI_COMMAND, &command, 2), 2);
	command |= PCI_COMMAND_MEMORY;
	assert_int_equal(vfio_write(&v, CONFIG + PCI_COMMAND, &command, 2), 2);
	assert_int_equal(vfio_bar0_read(&v, MODEL_MAGIC), 0x4d47564e);
	if (gpu->size)
		assert_int_equal(vfio_read(&v, REGION(USEMEM), &byte, 1), 1);
}

/*
 * Resets clear the GPU's own BARs, and vfio-pci-core reads config space after the
 * reset of an open, without a lock. At the first open after a bind, the driver has
 * no copy of it.
 */
static void an_open_beside_resets_finds_the_bars(void **state)
{
	const struct variant *variant = *state;
	const struct gpu *gpu = gpu_find(variant->gpu);
	unsigned int opened = 0, busy = 0;
	struct beside *resets;
	int ret;

	assert_int_equal(load_file("/tests/forgetful.ko"), 0);
	while (opened < 8) {
		assert_int_equal(gpu_bind(gpu), 0);
		resets = beside(reset_by_sysfs_for_ever, gpu);
		do {
			/* -EAGAIN: a reset has begun before. */
			ret = vfio_try_open(&v, gpu);
			busy += ret == -EAGAIN;
			assert_true(!ret || ret == -EAGAIN);
		} while (ret);
		ended(resets);
		use_at_once(gpu);
		vfio_stop(&v);
		opened++;
	}
	print_message("# %u opens beside resets, and %u during one\n", opened, busy);
}

static int unload_forgetful(void **state)
{
	unload("forgetful");
	return 0;
}

static void a_gpu_that_is_gone_for_minutes_after_a_reset_comes_back(void **state)
{
	char *map, back[8];
	int i;

	map = vfio_map(&v, USEMEM, 0, 4096, RW, MAP_SHARED, NULL);
	strcpy(map, "before");
	host_ask(NULL, 0, "gone_at_reset %s", v.gpu->name);
	klog_mark();
	assert_true(vfio_reset(&v) < 0);
	assert_int_equal(klog_count("giving up"), 1);
	for (i = 0; i < 2; i++) {
		assert_int_equal(vfio_read(&v, REGION(USEMEM), back, 7), -EIO);
		assert_int_equal(vfio_write(&v, REGION(USEMEM), "lost", 5), -EIO);
		assert_true(raises_sigbus(touch_read, map));
		assert_true(gpu_sysfs_is(v.gpu, "nvgrace_gpu/readiness",
					 "failed"));
		/* A user who tries again waits as long, and gets as much. */
		if (!i)
			assert_true(vfio_reset(&v) < 0);
	}
	host_ask(NULL, 0, "answer %s 1", v.gpu->name);
	/* QEMU keeps the BARs over a reset; hardware does not. */
	gpu_set_bar0(v.gpu, 0);
	assert_int_equal(vfio_reset(&v), 0);
	assert_string_equal(map, "before");
	assert_int_equal(vfio_read(&v, REGION(USEMEM), back, 7), 7);
	assert_string_equal(back, "before");
	assert_true(gpu_sysfs_is(v.gpu, "nvgrace_gpu/readiness", "ready"));
	munmap(map, 4096);
}

#define LIKE(function, name, ...) \
	VARIANT(name, function, NULL, NULL, &((struct variant){ __VA_ARGS__ }))

static const struct CMUnitTest tests[] = {
	LIKE(memory_comes_back, memory_comes_back_after_a_reset, .index = USEMEM),
	cmocka_unit_test(in_low_power_a_fault_is_SIGBUS_and_a_read_wakes_the_device),
};

static const struct CMUnitTest resmem_tests[] = {
	LIKE(memory_comes_back, resmem_comes_back_after_a_reset, .index = RESMEM),
};

static const struct CMUnitTest lab_tests[] = {
	OPEN("second", a_hot_reset_clears_the_registers_and_keeps_the_memory),
	LIKE(unbinding_waits, unbinding_waits_until_the_device_is_closed, .index = USEMEM),
	LIKE(unbinding_waits, a_mapping_alone_keeps_the_device_in_use, .index = RESMEM,
	     .closed = true),
	OPEN("gh200", the_module_can_not_go_while_a_device_is_open),
};

static const struct CMUnitTest forgetful_tests[] = {
	VARIANT(an_open_beside_resets_finds_the_bars, an_open_beside_resets_finds_the_bars,
		NULL, unload_forgetful, &((struct variant){ .gpu = "gh200" })),
	VARIANT(an_open_of_a_plain_device_beside_resets_finds_the_bars,
		an_open_beside_resets_finds_the_bars, NULL, unload_forgetful,
		&((struct variant){ .gpu = "none" })),
};

static const struct CMUnitTest late[] = {
	OPEN("gh200", a_gpu_that_is_gone_for_minutes_after_a_reset_comes_back),
};

const struct case_group groups[] = {
	{ "", CASES(tests), open_gpu, .shared = true },
	{ "carve-out", CASES(resmem_tests), open_gpu, .shared = true },
	{ "lab", CASES(lab_tests) },
	{ "lab lab:forgetful CONFIG_KPROBES", CASES(forgetful_tests) },
	{ "lab late", CASES(late) },
	{ }
};
