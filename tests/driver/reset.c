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

static struct vfio v;

static int setup(void **state)
{
	vfio_start(&v, "gh200");
	return 0;
}

static uint32_t model(uint64_t reg)
{
	uint32_t val;

	assert_int_equal(vfio_read(&v, reg, &val, 4), 4);
	return val;
}

static void mappings_come_back(void **state)
{
	const struct variant *variant = *state;
	size_t page = sysconf(_SC_PAGESIZE);
	char *map = vfio_map(&v, variant->index, 0, 4 * page, RW, MAP_SHARED, NULL);

	strcpy(map, "before");
	assert_int_equal(vfio_reset(&v), 0);
	assert_string_equal(map, "before");
	strcpy(map + page, "after");
	assert_string_equal(map + page, "after");
	assert_int_equal(vfio_reset(&v), 0);
	assert_int_equal(vfio_reset(&v), 0);
	assert_string_equal(map + page, "after");
	munmap(map, 4 * page);
}

static void reads_and_writes_go_on_after_a_reset(void **state)
{
	char in[64], out[64];

	fill(in, sizeof(in), 9);
	assert_int_equal(vfio_write(&v, REGION(USEMEM) + 256 * MiB, in, 64), 64);
	assert_int_equal(vfio_reset(&v), 0);
	assert_int_equal(vfio_read(&v, REGION(USEMEM) + 256 * MiB, out, 64), 64);
	assert_memory_equal(in, out, 64);
}

static void a_reset_reaches_the_device(void **state)
{
	uint32_t before;

	assert_int_equal(model(MODEL_MAGIC), 0x4d47564e);
	before = model(MODEL_RESETS);
	assert_int_equal(vfio_reset(&v), 0);
	assert_int_equal(model(MODEL_RESETS), before + 1);
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
	struct vfio other;
	char *map;

	vfio_start(&other, "second");
	if (ioctl(other.device, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, &i))
		fail_msg("VFIO_DEVICE_GET_PCI_HOT_RESET_INFO: %s",
			 strerror(errno));
	map = vfio_map(&other, USEMEM, 0, 65536, RW, MAP_SHARED, NULL);
	strcpy(map, "kept");
	assert_int_equal(vfio_write(&other, CONFIG + PCI_BASE_ADDRESS_2, bars, 16), 16);
	assert_int_equal(vfio_hot_reset(&other), 0);
	assert_int_equal(vfio_read(&other, CONFIG + PCI_BASE_ADDRESS_2, bars, 16), 16);
	assert_int_equal(bars[0], 0xc);
	assert_int_equal(bars[1], 0xc);
	assert_string_equal(map, "kept");
	munmap(map, 65536);
	vfio_stop(&other);
}

/* As in vfio-pci, unbinding waits for the last user, which may be a mapping. */
static void unbinding_waits(void **state)
{
	const struct variant *variant = *state;
	uint64_t at = REGION(variant->index) + 512;
	char word[8] = "waiting", back[8];
	struct vfio other;
	char *map;
	pid_t pid;

	vfio_start(&other, "second");
	map = vfio_map(&other, variant->index, 0, 65536, RW, MAP_SHARED, NULL);
	if (variant->closed)
		vfio_close(&other);
	pid = fork();
	if (!pid) {
		/* The child must not keep the device open. */
		munmap(map, 65536);
		if (!variant->closed)
			vfio_close(&other);
		_exit(gpu_unbind(other.gpu) ? 1 : 0);
	}
	sleep(1);
	assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);

	/* Everything still works meanwhile. */
	strcpy(map, "still mine");
	assert_string_equal(map, "still mine");
	if (!variant->closed) {
		assert_int_equal(vfio_write(&other, at, word, 8), 8);
		assert_string_equal(map + 512, "waiting");
		assert_int_equal(vfio_read(&other, REGION(RESMEM), back, 8), 8);
	}

	munmap(map, 65536);
	if (!variant->closed)
		vfio_close(&other);
	assert_int_equal(status_of_child(pid), 0);
	assert_false(gpu_bound(other.gpu));

	/* It can be bound again. */
	vfio_start(&other, "second");
	vfio_stop(&other);
}

static void the_module_can_not_go_while_a_device_is_open(void **state)
{
	assert_int_equal(system("rmmod " DRIVER " 2>/dev/null") == 0, 0);
	assert_true(gpu_bound(v.gpu));
	assert_int_equal(model(BAR0_HBM), 0xff);
}

static void two_gpus_at_once_keep_their_memory_apart(void **state)
{
	char a[4096], b[4096], out[4096];
	struct vfio other;
	char *map, *map2;
	int i;

	vfio_start(&other, "second");
	map = vfio_map(&v, USEMEM, 0, MiB, RW, MAP_SHARED, NULL);
	map2 = vfio_map(&other, USEMEM, 0, MiB, RW, MAP_SHARED, NULL);
	for (i = 0; i < 16; i++) {
		uint64_t at = i * 64 * KiB;

		fill(a, sizeof(a), i);
		fill(b, sizeof(b), 1000 + i);
		memcpy(map + at, a, sizeof(a));
		assert_int_equal(vfio_write(&other, REGION(USEMEM) + at, b,
					    sizeof(b)), sizeof(b));
	}
	/* A reset of one GPU doesn't affect the other. */
	assert_int_equal(vfio_reset(&other), 0);
	for (i = 0; i < 16; i++) {
		uint64_t at = i * 64 * KiB;

		fill(a, sizeof(a), i);
		fill(b, sizeof(b), 1000 + i);
		assert_int_equal(vfio_read(&v, REGION(USEMEM) + at, out,
					   sizeof(out)), sizeof(out));
		assert_memory_equal(a, out, sizeof(a));
		assert_memory_equal(b, map2 + at, sizeof(b));
	}
	munmap(map, MiB);
	munmap(map2, MiB);
	vfio_stop(&other);
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

/* Open and close reset the device, too. The memory keeps its content. */
static void opening_again_finds_the_memory_as_it_was(void **state)
{
	char in[32], out[32];
	struct vfio other;
	int i;

	for (i = 0; i < 4; i++) {
		vfio_start(&other, "second");
		fill(in, sizeof(in), 50 + i);
		if (i) {
			fill(out, sizeof(out), 49 + i);
			vfio_read(&other, REGION(RESMEM) + 8, in, sizeof(in));
			assert_memory_equal(in, out, sizeof(in));
			fill(in, sizeof(in), 50 + i);
		}
		vfio_write(&other, REGION(RESMEM) + 8, in, sizeof(in));
		vfio_stop(&other);
	}
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
		vfio_close(&v);
		assert_int_equal(gpu_unbind(gpu), 0);
		opened++;
	}
	print_message("# %u opens beside resets, and %u during one\n", opened, busy);
}

static int forgetful_teardown(void **state)
{
	int ret = leave_nothing(state);

	unload("forgetful");
	return ret;
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
	LIKE(mappings_come_back, mappings_come_back_after_a_reset, .index = USEMEM),
	cmocka_unit_test(reads_and_writes_go_on_after_a_reset),
	cmocka_unit_test(in_low_power_a_fault_is_SIGBUS_and_a_read_wakes_the_device),
};

static const struct CMUnitTest resmem_tests[] = {
	LIKE(mappings_come_back, mappings_of_resmem_come_back_after_a_reset, .index = RESMEM),
};

static const struct CMUnitTest lab_tests[] = {
	cmocka_unit_test(a_reset_reaches_the_device),
	cmocka_unit_test(a_hot_reset_clears_the_registers_and_keeps_the_memory),
	LIKE(unbinding_waits, unbinding_waits_until_the_device_is_closed, .index = USEMEM),
	LIKE(unbinding_waits, a_mapping_alone_keeps_the_device_in_use, .index = RESMEM,
	     .closed = true),
	cmocka_unit_test(the_module_can_not_go_while_a_device_is_open),
	cmocka_unit_test(two_gpus_at_once_keep_their_memory_apart),
	cmocka_unit_test(opening_again_finds_the_memory_as_it_was),
};

static const struct CMUnitTest forgetful_tests[] = {
	VARIANT(an_open_beside_resets_finds_the_bars, an_open_beside_resets_finds_the_bars,
		NULL, forgetful_teardown, &((struct variant){ .gpu = "gh200" })),
	VARIANT(an_open_of_a_plain_device_beside_resets_finds_the_bars,
		an_open_beside_resets_finds_the_bars, NULL, forgetful_teardown,
		&((struct variant){ .gpu = "none" })),
};

static const struct CMUnitTest late[] = {
	cmocka_unit_test(a_gpu_that_is_gone_for_minutes_after_a_reset_comes_back),
};

const struct case_group groups[] = {
	{ "", CASES(tests), setup, leave_nothing },
	{ "carve-out", CASES(resmem_tests), setup, leave_nothing },
	{ "lab", CASES(lab_tests), setup, leave_nothing },
	{ "lab lab:forgetful CONFIG_KPROBES", CASES(forgetful_tests) },
	{ "lab late", CASES(late), setup, leave_nothing },
	{ }
};
