// SPDX-License-Identifier: GPL-2.0-only
/*
 * Physical addresses: the client must find none in files, the kernel log, traces and
 * answers of the device.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "privilege.h"

#define TRACING		"/sys/kernel/tracing/"
#define FAULT_EVENT	TRACING "events/nvgrace_gpu/nvgrace_gpu_fault/"
#define MARK		"privilege: from here on"

void a_search_knows_an_address_in_every_form(void **state)
{
	static const struct {
		const char *format;
		int64_t offset;
		bool found;
	} forms[] = {
		{ "at %#llx.", 0, true }, { "%llx-", 0, true },
		{ "(%016llx)", 0x123456b, true }, { "%llX:", 0, true },
		{ "a=%llu\n", 0, true }, { "%llu", 4095, true },
		{ "%llx", -1, false }, { "%#llx", -1, false },
		{ "%llu", -1, false }, { "0x1%016llx", 0, false },
		{ "_%llu_", 17, false }, { "x%llx", 0, false },
	};
	unsigned int i;
	uint64_t last;
	char buf[128];

	for (i = 0; i < ARRAY_SIZE(forms); i++) {
		snprintf(buf, sizeof(buf), forms[i].format,
			 (unsigned long long)gpu->base + forms[i].offset);
		if (!search_in(buf, strlen(buf)) == forms[i].found)
			fail_msg("\"%s\" is mistaken", buf);
	}
	snprintf(buf, sizeof(buf), "pfn=%#llx",
		 (unsigned long long)gpu->base / page);
	assert_non_null(search_in(buf, strlen(buf)));
	last = gpu->base + gpu->size - 1;
	memset(buf, 0, sizeof(buf));
	memcpy(buf + 12, &last, sizeof(last));
	assert_non_null(search_in(buf, sizeof(buf)));
	last++;
	memcpy(buf + 12, &last, sizeof(last));
	assert_null(search_in(buf, sizeof(buf)));
}

static unsigned int files_read;
static char must_read[8][128];
static bool was_read[ARRAY_SIZE(must_read)];

static void search_one(const char *path)
{
	const char *found;
	unsigned int i;
	long bytes;

	found = search_file(path, &bytes);
	if (found)
		client_says("%s: %s", path, found);
	files_read += bytes >= 0;
	for (i = 0; i < ARRAY_SIZE(must_read); i++)
		was_read[i] |= bytes > 0 && !strcmp(path, must_read[i]);
}

/*
 * In the client: searches all of sysfs and /proc while both parts are mapped
 * and in use.
 */
static void search_everything(void)
{
	static const char *const others[] = {
		/* The kernel's types, with numbers of all sizes. */
		"/sys/kernel/btf",
		/* 512 GiB. For pages like these, the kernel hides the frame. */
		"/proc/self/pagemap",
		/* The same as /proc/self. */
		"/proc/self/task",
		NULL
	};
	struct vfio v;
	unsigned int i;

	if (!client_open(&v))
		return;
	use(&v);
	for (i = 0; i < ARRAY_SIZE(parts); i++) {
		char *map = map_part(&v, &parts[i], parts[i].length);

		client_expects(map != MAP_FAILED);
		if (map != MAP_FAILED)
			map[0] = map[parts[i].length - 1] = 1;
	}
	search_tree("/sys", others, search_one);
	search_tree("/proc", others, search_one);
	search_tree("/proc/self", others, search_one);
	for (i = 0; i < ARRAY_SIZE(must_read); i++) {
		if (!was_read[i])
			client_says("%s was not read", must_read[i]);
	}
	client_expects(files_read > 500);
	print_message("# files without an address: %u\n", files_read);
	fflush(stdout);
}

static void name_what_must_be_read(void)
{
	static const char *const ours[] = {
		"resource", "config", "nvgrace_gpu/usemem_size",
		"nvgrace_gpu/resmem_bar_size",
	};
	static const char *const kernels[] = {
		"/proc/iomem", "/proc/self/maps", "/proc/modules",
		"/proc/self/smaps"
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(ours); i++) {
		snprintf(must_read[i], sizeof(must_read[i]), "%.90s/%s",
			 device_folder, ours[i]);
		snprintf(must_read[i + 4], sizeof(must_read[i]), "%s",
			 kernels[i]);
	}
}

void no_file_has_an_address(void **state)
{
	name_what_must_be_read();
	as_client(search_everything);
}

static void search_device_folder(void)
{
	static const char *const none[] = { NULL };

	search_tree(device_folder, none, search_one);
}

/* The same search by root, and by the client in what root has opened to it. */
void an_address_in_a_file_is_found(void **state)
{
	static const char *const files[] = { "usemem_base", "resmem_base" };
	const char *said;
	char path[300];
	unsigned int i;
	long bytes;

	assert_non_null(search_file("/proc/iomem", &bytes));
	for (i = 0; i < ARRAY_SIZE(files); i++) {
		device_path(path, sizeof(path), files[i]);
		assert_non_null(search_file(path, &bytes));
		assert_int_equal(chmod(path, 0444), 0);
	}
	said = client_answer(search_device_folder);
	for (i = 0; i < ARRAY_SIZE(files); i++) {
		if (!strstr(said, files[i]))
			fail_msg("%s is not among: %s", files[i], said);
		device_path(path, sizeof(path), files[i]);
		assert_int_equal(chmod(path, 0400), 0);
	}
}

/* In the client: searches the kernel log since the mark, by both interfaces. */
static void search_log(void)
{
	static char text[4 * MiB];
	unsigned int records = 0;
	bool marked = false;
	const char *found, *at;
	char record[8192];
	ssize_t n;
	int fd;

	fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
	client_expects(fd >= 0);
	while (fd >= 0 && ((n = read(fd, record, sizeof(record) - 1)) > 0 ||
			   errno == EPIPE)) {
		if (n <= 0)
			continue;
		record[n] = 0;
		marked |= !!strstr(record, MARK);
		found = marked ? search_in(record, n) : NULL;
		if (found)
			client_says("/dev/kmsg: %s in: %s", found, record);
		records += marked;
	}
	/* SYSLOG_ACTION_READ_ALL */
	n = klogctl(3, text, sizeof(text) - 1);
	client_expects(n > 0);
	text[n > 0 ? n : 0] = 0;
	at = strstr(text, MARK);
	found = at ? search_in(at, strlen(at)) : NULL;
	if (found)
		client_says("syslog: %s", found);
	if (!at || records < 2)
		client_says("the log can't be read from where it should be");
}

static void log_is_closed(void)
{
	char buf[64];

	client_expects(open("/dev/kmsg", O_RDONLY | O_NONBLOCK) == -1 ||
		       errno == EPERM);
	client_expects(klogctl(3, buf, sizeof(buf)) == -1 && errno == EPERM);
	client_expects(open("/proc/kmsg", O_RDONLY | O_NONBLOCK) == -1);
}

static void misuse(void)
{
	uint64_t offsets[] = { 0, parts[0].length, INT64_MAX };
	char buf[16] = "";
	struct vfio v;
	unsigned int i;

	if (!client_open(&v))
		return;
	use(&v);
	for (i = 0; i < ARRAY_SIZE(offsets); i++) {
		vfio_read(&v, REGION(USEMEM) + offsets[i], buf, sizeof(buf));
		vfio_write(&v, REGION(RESMEM) + offsets[i], buf, sizeof(buf));
		mmap(NULL, 8 * GiB, RW, MAP_SHARED, v.device, offsets[i]);
		mmap(NULL, page, RW, MAP_PRIVATE, v.device,
		     REGION(USEMEM) + offsets[i]);
	}
	/* While decoding is off, the memory is out of reach. */
	memset(buf, 0, sizeof(buf));
	vfio_write(&v, CONFIG + 4, buf, 2);
	vfio_read(&v, REGION(USEMEM), buf, sizeof(buf));
	vfio_reset(&v);
}

void the_log_of_a_good_gpu_has_no_address(void **state)
{
	assert_int_equal(gpu_unbind(gpu), 0);
	must_write_file("/dev/kmsg", MARK "\n");
	assert_int_equal(gpu_bind(gpu), 0);
	client_owns(gpu);
	as_client(misuse);
	assert_int_equal(gpu_unbind(gpu), 0);
	must_write_file(DMESG_RESTRICT, "0");
	as_client(search_log);
}

/*
 * A warning about wrong firmware quotes the address. Only users whom the
 * administrator lets read the log can see it.
 */
void a_warning_with_an_address_is_for_readers_of_the_log(void **state)
{
	const struct gpu *bad = gpu_find("claimbusy");

	must_write_file("/dev/kmsg", MARK "\n");
	assert_int_equal(gpu_bind(bad), 0);
	assert_int_equal(gpu_unbind(bad), 0);
	search_for(bad);
	must_write_file(DMESG_RESTRICT, "0");
	if (!strstr(client_answer(search_log), "can't claim"))
		fail_msg("a client does not see what it may see");
	must_write_file(DMESG_RESTRICT, "1");
	as_client(log_is_closed);
}

/*
 * Opens the tracepoint's event with its recorded data, the page frame number.
 */
static int perf_open(int id)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_TRACEPOINT,
		.size = sizeof(attr),
		.config = id,
		.sample_period = 1,
		.sample_type = PERF_SAMPLE_RAW,
	};
	int fd = syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);

	return fd < 0 ? -errno : fd;
}

static int event_id;

static void traces_are_closed(void)
{
	static const char *const files[] = {
		TRACING "trace", TRACING "trace_pipe", FAULT_EVENT "enable",
		FAULT_EVENT "format", "/sys/kernel/debug/tracing/trace"
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(files); i++)
		client_expects(open(files[i], O_RDONLY | O_NONBLOCK) == -1);
	client_expects(perf_open(event_id) < 0);
}

void traces_are_for_root(void **state)
{
	char text[16];
	struct vfio v;
	long bytes;
	char *map;
	int fd;

	must_write_file(FAULT_EVENT "enable", "1");
	vfio_open(&v, gpu);
	map = map_part(&v, &parts[0], page);
	assert_true(map != MAP_FAILED);
	*map = 1;
	munmap(map, page);
	vfio_close(&v);
	must_write_file(FAULT_EVENT "enable", "0");
	assert_non_null(search_file(TRACING "trace", &bytes));

	event_id = -1;
	fd = open(FAULT_EVENT "id", O_RDONLY);
	memset(text, 0, sizeof(text));
	if (fd >= 0 && read(fd, text, sizeof(text) - 1) > 0)
		event_id = atoi(text);
	close(fd);
	fd = perf_open(event_id);
	/* Kernels that are built here have no perf at all. */
	assert_int_equal(fd >= 0,
			 !access("/proc/sys/kernel/perf_event_paranoid", F_OK));
	close(fd);
	as_client(traces_are_closed);
}

/*
 * Searches an answer of the device: 8 KiB, some of which the device has filled.
 */
static void search_answer(const char *what, unsigned int index,
			  const void *answer, size_t length)
{
	const char *found = search_in(answer, length);

	if (found)
		client_says("%s %u: %s", what, index, found);
}

static void search_answers(void)
{
	static union {
		struct vfio_device_info device;
		struct vfio_region_info region;
		struct vfio_irq_info irq;
		struct vfio_pci_hot_reset_info reset;
		struct vfio_device_feature feature;
		struct vfio_iommu_type1_info iommu;
		char bytes[8 * KiB];
	} u;
	unsigned char config[4096];
	unsigned int i;
	struct vfio v;
	int ret;

	if (!client_open(&v))
		return;
#define ASK(member, what, command, i)					\
	do {								\
		u.member.argsz = sizeof(u);				\
		ret = ioctl(v.device, command, &u);			\
		search_answer(what, i, &u, sizeof(u));			\
		memset(&u, 0, sizeof(u));				\
	} while (0)
	ASK(device, "VFIO_DEVICE_GET_INFO", VFIO_DEVICE_GET_INFO, 0);
	client_expects(!ret);
	ASK(reset, "VFIO_DEVICE_GET_PCI_HOT_RESET_INFO",
	    VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, 0);
	client_expects(!ret);
	for (i = 0; i < 16; i++) {
		u.region.index = i;
		ASK(region, "VFIO_DEVICE_GET_REGION_INFO",
		    VFIO_DEVICE_GET_REGION_INFO, i);
		client_expects(!ret == (i <= VFIO_PCI_CONFIG_REGION_INDEX));
		u.irq.index = i;
		ASK(irq, "VFIO_DEVICE_GET_IRQ_INFO", VFIO_DEVICE_GET_IRQ_INFO,
		    i);
		client_expects(!ret || i);
		u.feature.flags = VFIO_DEVICE_FEATURE_GET | i;
		ASK(feature, "VFIO_DEVICE_FEATURE", VFIO_DEVICE_FEATURE, i);
	}
#undef ASK
	if (!by_cdev) {
		u.iommu.argsz = sizeof(u);
		client_expects(!ioctl(v.iommu, VFIO_IOMMU_GET_INFO, &u));
		search_answer("VFIO_IOMMU_GET_INFO", 0, &u, sizeof(u));
	}

	for (i = 0; i < 2; i++) {
		client_expects(vfio_read(&v, CONFIG, config, sizeof(config)) ==
			       sizeof(config));
		search_answer("config space", i, config, sizeof(config));
		/* After this, BAR0 to BAR5 read as their sizes. */
		memset(config, 0xff, 24);
		client_expects(vfio_write(&v, CONFIG + 0x10, config, 24) == 24);
	}
}

void no_answer_has_an_address(void **state)
{
	as_client(search_answers);
}
