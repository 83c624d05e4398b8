// SPDX-License-Identifier: GPL-2.0-only
/*
 * A GPU without memory behaves as with vfio-pci: on every kernel, both drivers
 * give the same answer to each question about the device. Some answers, such as
 * the widths of an ioeventfd, depend on the kernel.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "lib.h"

#define VFIO_PCI	"/sys/bus/pci/drivers/vfio-pci/"

#define MAX_ANSWERS	512

/* What a driver has answered to each question: an error, or numbers. */
struct answers {
	size_t count;
	struct {
		char question[48];
		int64_t value;
	} a[MAX_ANSWERS];
};

static void __attribute__((format(printf, 3, 4)))
note(struct answers *all, int64_t value, const char *format, ...)
{
	va_list args;

	assert_true(all->count < MAX_ANSWERS);
	va_start(args, format);
	vsnprintf(all->a[all->count].question,
		  sizeof(all->a[all->count].question), format, args);
	va_end(args);
	all->a[all->count++].value = value;
}

static int call(unsigned long request, void *arg)
{
	return ioctl(v.device, request, arg) ? -errno : 0;
}

static void ask_for_info(struct answers *all)
{
	struct vfio_device_info info = { .argsz = sizeof(info) };

	note(all, call(VFIO_DEVICE_GET_INFO, &info), "info");
	note(all, info.flags, "info's flags");
	note(all, info.num_regions, "number of regions");
	note(all, info.num_irqs, "number of interrupts");
}

static void ask_for_regions(struct answers *all)
{
	unsigned int i;

	for (i = 0; i <= VFIO_PCI_NUM_REGIONS; i++) {
		struct vfio_region_info info = {
			.argsz = sizeof(info), .index = i
		};

		note(all, call(VFIO_DEVICE_GET_REGION_INFO, &info),
		     "region %u", i);
		note(all, info.flags, "flags of region %u", i);
		note(all, info.size, "size of region %u", i);
		note(all, info.offset, "offset of region %u", i);
	}
}

static int set_irq(unsigned int index, uint32_t flags, unsigned int count,
		   int32_t fd)
{
	union {
		struct vfio_irq_set set;
		char bytes[sizeof(struct vfio_irq_set) + sizeof(fd)];
	} u = { .set = {
		.argsz = flags & VFIO_IRQ_SET_DATA_EVENTFD ? sizeof(u) :
							     sizeof(u.set),
		.flags = flags | VFIO_IRQ_SET_ACTION_TRIGGER,
		.index = index,
		.count = count,
	} };

	memcpy(u.set.data, &fd, sizeof(fd));
	return call(VFIO_DEVICE_SET_IRQS, &u);
}

/* Besides the counts: whether an eventfd can be set, and is signalled. */
static void ask_for_interrupts(struct answers *all)
{
	unsigned int i;
	uint64_t times;
	int fd;

	for (i = 0; i <= VFIO_PCI_NUM_IRQS; i++) {
		struct vfio_irq_info info = {
			.argsz = sizeof(info), .index = i
		};

		note(all, call(VFIO_DEVICE_GET_IRQ_INFO, &info),
		     "interrupt %u", i);
		note(all, info.flags, "flags of interrupt %u", i);
		note(all, info.count, "count of interrupt %u", i);

		fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		assert_true(fd >= 0);
		note(all, set_irq(i, VFIO_IRQ_SET_DATA_EVENTFD, 1, fd),
		     "eventfd of interrupt %u", i);
		note(all, set_irq(i, VFIO_IRQ_SET_DATA_NONE, 1, 0),
		     "trigger of interrupt %u", i);
		if (read(fd, &times, sizeof(times)) != sizeof(times))
			times = 0;
		note(all, times, "signals of interrupt %u", i);
		note(all, set_irq(i, VFIO_IRQ_SET_DATA_NONE, 0, 0),
		     "end of interrupt %u", i);
		close(fd);
	}
}

static void ask_for_ioeventfds(struct answers *all)
{
	static const unsigned int indexes[] = {
		VFIO_PCI_BAR0_REGION_INDEX, RESMEM, USEMEM,
		VFIO_PCI_CONFIG_REGION_INDEX
	};
	int fd = eventfd(0, EFD_CLOEXEC);
	unsigned int i, width;

	assert_true(fd >= 0);
	for (i = 0; i < ARRAY_SIZE(indexes); i++) {
		for (width = 0; width <= 16; width++) {
			struct vfio_device_ioeventfd e = {
				.argsz = sizeof(e),
				.flags = width,
				.offset = REGION(indexes[i]) + 0x1000,
				.data = 1,
				.fd = fd,
			};

			note(all, call(VFIO_DEVICE_IOEVENTFD, &e),
			     "ioeventfd of %u bytes in region %u", width,
			     indexes[i]);
			e.fd = -1;
			note(all, call(VFIO_DEVICE_IOEVENTFD, &e),
			     "its end, %u in %u", width, indexes[i]);
		}
	}
	close(fd);
}

/* Config space and registers, as the client sees them. */
static void ask_for_bar0(const struct gpu *gpu, struct answers *all)
{
	uint32_t word;
	unsigned int i;

	for (i = 0; i < 64; i += 4) {
		word = 0;
		note(all,
		     vfio_read(&v, REGION(VFIO_PCI_CONFIG_REGION_INDEX) + i, &word, 4),
		     "config space, %#x", i);
		note(all, word, "word at %#x", i);
	}
	word = 0;
	note(all, vfio_read(&v, REGION(VFIO_PCI_BAR0_REGION_INDEX), &word, 4), "BAR0");
	note(all, word, "word of BAR0");
}

static void ask_for_features(struct answers *all)
{
	static const uint32_t ways[] = {
		VFIO_DEVICE_FEATURE_GET, VFIO_DEVICE_FEATURE_SET
	};
	unsigned int i, way;

	for (i = 0; i < 20; i++) {
		for (way = 0; way < 2; way++) {
			struct vfio_device_feature f = {
				.argsz = sizeof(f),
				.flags = i | ways[way] |
					 VFIO_DEVICE_FEATURE_PROBE,
			};

			note(all, call(VFIO_DEVICE_FEATURE, &f),
			     "feature %u, %s", i, way ? "set" : "get");
		}
	}
}

static void ask_all(const struct gpu *gpu, struct answers *all)
{
	vfio_open(&v, gpu);
	ask_for_info(all);
	ask_for_regions(all);
	ask_for_interrupts(all);
	ask_for_ioeventfds(all);
	ask_for_features(all);
	note(all, call(VFIO_DEVICE_RESET, NULL), "reset");
	vfio_close(&v);
}

/* The same while the host goes to sleep, and when it is awake again. */
static void ask_beside_sleep(const struct gpu *gpu, struct answers *all)
{
	vfio_open(&v, gpu);
	host_sleeps();
	ask_for_bar0(gpu, all);
	vfio_close(&v);
	ask_all(gpu, all);
	host_wakes();
}

/* What an error on the link is to the client, and what it leaves. */
static void ask_for_error(const struct gpu *gpu, struct answers *all, uint32_t error)
{
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	char line[256] = "";
	uint64_t times = 0;
	int level;

	assert_true(fd >= 0);
	vfio_open(&v, gpu);
	assert_int_equal(set_irq(VFIO_PCI_ERR_IRQ_INDEX, VFIO_IRQ_SET_DATA_EVENTFD, 1, fd), 0);
	gpu_inject_error(gpu, error, 0);
	/* From the mark that this has set. */
	while (!strstr(line, "device recovery "))
		if (!klog_next(&level, line, sizeof(line)))
			usleep(10000);
	note(all, !!strstr(line, "successful"), "recovery from %#x", error);
	if (read(fd, &times, sizeof(times)) < 0)
		assert_int_equal(errno, EAGAIN);
	note(all, times, "notices of %#x", error);
	ask_for_bar0(gpu, all);
	note(all, call(VFIO_DEVICE_RESET, NULL), "reset after %#x", error);
	vfio_close(&v);
	close(fd);
}

static void ask_for_errors(const struct gpu *gpu, struct answers *all)
{
	assert_int_equal(load_file("/tests/aer_inject.ko"), 0);
	ask_for_error(gpu, all, ERR_COMPLETION_TIMEOUT);
	ask_for_error(gpu, all, ERR_DATA_LINK);
	/*
	 * Before the module has gone, it fails some reads of config space, such as
	 * those by which the kernel saves the state of a device that falls asleep.
	 */
	wait_until_asleep(gpu);
	assert_int_equal(unload("aer_inject"), 0);
}

/* After the reset of its link, a GPU has no BARs until it is found again. */
static void find_again(const struct gpu *gpu)
{
	assert_int_equal(gpu_sysfs_write(gpu, "remove", "1"), 0);
	gpu_rescan(gpu);
}

/*
 * What varies between these cases. @ask opens the device, and asks all that it wants
 * to know. If not NULL, @mend is for the unbound device afterwards.
 */
struct questions {
	const char *gpu;
	void (*ask)(const struct gpu *gpu, struct answers *all);
	void (*mend)(const struct gpu *gpu);
};

static void answers_are_those_of_vfio_pci(void **state)
{
	const struct questions *q = *state;
	static struct answers ours, theirs;
	const struct gpu *gpu = gpu_find(q->gpu);
	unsigned int differ = 0;
	size_t i;

	assert_int_equal(gpu_bind(gpu), 0);
	ours.count = 0;
	q->ask(gpu, &ours);
	assert_int_equal(gpu_unbind(gpu), 0);
	if (q->mend)
		q->mend(gpu);

	assert_int_equal(system("modprobe vfio-pci"), 0);
	assert_int_equal(gpu_sysfs_write(gpu, "driver_override", "vfio-pci"),
			 0);
	must_write_file(VFIO_PCI "bind", gpu->addr);
	theirs.count = 0;
	q->ask(gpu, &theirs);
	must_write_file(VFIO_PCI "unbind", gpu->addr);
	if (q->mend)
		q->mend(gpu);

	assert_int_equal(ours.count, theirs.count);
	for (i = 0; i < ours.count; i++) {
		if (ours.a[i].value == theirs.a[i].value)
			continue;
		differ++;
		print_message("# %s: %lld, with vfio-pci %lld\n",
			      ours.a[i].question, (long long)ours.a[i].value,
			      (long long)theirs.a[i].value);
	}
	assert_int_equal(differ, 0);
	print_message("# %zu answers\n", ours.count);
}

/* Its GPU is never ready. */
static void without_memory_no_readiness_register_is_read(void **state)
{
	const struct gpu *gpu = gpu_find("none");
	uint64_t c2c = host_counter(gpu, "c2c_reads");
	uint64_t hbm = host_counter(gpu, "hbm_reads");
	uint64_t reads = host_counter(gpu, "bar0_reads");
	uint32_t word;

	vfio_start(&v, "none");
	assert_int_equal(vfio_reset(&v), 0);
	assert_int_equal(vfio_read(&v, REGION(RESMEM), &word, 4), 4);
	vfio_close(&v);
	vfio_open(&v, gpu);
	vfio_stop(&v);
	assert_int_equal(host_counter(gpu, "c2c_reads"), c2c);
	assert_int_equal(host_counter(gpu, "hbm_reads"), hbm);
	assert_int_equal(host_counter(gpu, "bar0_reads"), reads);
}

static int teardown(void **state)
{
	static const char *const names[] = { "none", "nopcie" };
	size_t i;

	leave_nothing(state);
	for (i = 0; i < ARRAY_SIZE(names); i++) {
		write_file(VFIO_PCI "unbind", gpu_find(names[i])->addr);
		gpu_sysfs_write(gpu_find(names[i]), "driver_override", "\n");
	}
	/* Other programs expect that nothing is bound to it. */
	unload("vfio_pci");
	return 0;
}

#define TEST(name)	cmocka_unit_test_teardown(name, teardown)
#define ASKED(name, ...) \
	VARIANT(name, answers_are_those_of_vfio_pci, NULL, teardown, \
		&((struct questions){ __VA_ARGS__ }))

static const struct CMUnitTest tests[] = {
	ASKED(without_memory_every_answer_is_vfio_pcis, "none", ask_all),
	/* Linux 7.3 has an error interrupt for it, earlier ones have none. */
	ASKED(so_it_is_without_pci_express, "nopcie", ask_all),
	TEST(without_memory_no_readiness_register_is_read),
};

static const struct CMUnitTest error_tests[] = {
	ASKED(so_are_errors_and_what_they_leave, "none", ask_for_errors, find_again),
};

static const struct CMUnitTest sleep_tests[] = {
	ASKED(so_it_is_while_the_host_sleeps, "none", ask_beside_sleep),
};

const struct case_group groups[] = {
	{ "pages lab", CASES(tests) },
	{ "pages lab module:aer_inject !CONFIG_PROVE_RAW_LOCK_NESTING", CASES(error_tests) },
	{ "pages lab lab:sleeper CONFIG_PM_SLEEP", CASES(sleep_tests) },
	{ }
};
