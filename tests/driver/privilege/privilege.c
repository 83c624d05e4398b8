// SPDX-License-Identifier: GPL-2.0-only
/*
 * An unprivileged client that owns a GPU's files must learn no physical address of
 * the GPU's memory: from files, the kernel log and answers of the device. To show
 * that the search works, it is repeated where root has put an address.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "privilege.h"

#define DMESG_RESTRICT	"/proc/sys/kernel/dmesg_restrict"
#define MARK		"privilege: from here on"

/*
 * The client's GPU. Both parts fill their BARs, so an access beyond them
 * reaches other memory. Its memory begins far from the addresses of the host's
 * PCI windows and of the stand-in for GPU memory, which any user can read.
 */
static const struct gpu *gpu;

/* The device's directory, to which its link in /sys/bus/pci/devices leads. */
static char device_folder[256];

static const struct part {
	unsigned int index;	/* of vfio's region */
	uint64_t length;
} parts[2] = {
	{ USEMEM, 2 * GiB },
	{ RESMEM, 1 * GiB },
};

/* In the client: opens its GPU. Reports it, and returns false, if that fails. */
static bool client_open(struct vfio *v)
{
	int error = vfio_try_open(v, gpu);

	if (error)
		client_says("can't open its GPU: %s", strerror(-error));
	return !error;
}

/* Uses both parts by mappings and by the file, with resets. */
static void use(struct vfio *v)
{
	uint64_t word = 0x1122334455667788, seen;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(parts); i++) {
		uint64_t at = REGION(parts[i].index) + 8 * i;
		volatile uint64_t *map;

		map = mmap(NULL, parts[i].length, RW, MAP_SHARED, v->device,
			   REGION(parts[i].index));
		client_expects(map != MAP_FAILED);
		if (map == MAP_FAILED)
			continue;
		client_expects(vfio_write(v, at, &word, 8) == 8);
		client_expects(map[i] == word);
		map[parts[i].length / 8 - 1] = word;
		client_expects(!vfio_reset(v));
		client_expects(vfio_read(v, at, &seen, 8) == 8 && seen == word);
		client_expects(map[i] == word);
	}
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
	unsigned int i;
	struct vfio v;

	if (!client_open(&v))
		return;
	use(&v);
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

static void no_file_has_an_address(void **state)
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
static void an_address_in_a_file_is_found(void **state)
{
	static const char *const files[] = { "usemem_base", "resmem_base" };
	const char *said;
	char path[300];
	unsigned int i;
	long bytes;

	assert_non_null(search_file("/proc/iomem", &bytes));
	for (i = 0; i < ARRAY_SIZE(files); i++) {
		snprintf(path, sizeof(path), "%s/nvgrace_gpu/%s", device_folder, files[i]);
		assert_non_null(search_file(path, &bytes));
		assert_int_equal(chmod(path, 0444), 0);
	}
	said = client_answer(search_device_folder);
	for (i = 0; i < ARRAY_SIZE(files); i++) {
		if (!strstr(said, files[i]))
			fail_msg("%s is not among: %s", files[i], said);
		snprintf(path, sizeof(path), "%s/nvgrace_gpu/%s", device_folder, files[i]);
		assert_int_equal(chmod(path, 0400), 0);
	}
}

/* In the client: searches the kernel log since the mark. */
static void search_log(void)
{
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
	unsigned int records = 0;
	bool marked = false;
	const char *found;
	char record[8192];
	ssize_t n;

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
	if (records < 2)
		client_says("the log can't be read from where it should be");
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

static void the_log_of_a_good_gpu_has_no_address(void **state)
{
	char restricted[8] = "";
	const char *said;
	int fd = open(DMESG_RESTRICT, O_RDONLY);

	assert_true(read(fd, restricted, sizeof(restricted) - 1) > 0);
	close(fd);
	assert_int_equal(gpu_unbind(gpu), 0);
	must_write_file("/dev/kmsg", MARK "\n");
	assert_int_equal(gpu_bind(gpu), 0);
	client_owns(gpu);
	as_client(misuse);
	assert_int_equal(gpu_unbind(gpu), 0);
	must_write_file(DMESG_RESTRICT, "0");
	said = client_answer(search_log);
	must_write_file(DMESG_RESTRICT, restricted);
	if (*said)
		fail_msg("the client says:\n%s", said);
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
	u.iommu.argsz = sizeof(u);
	client_expects(!ioctl(v.iommu, VFIO_IOMMU_GET_INFO, &u));
	search_answer("VFIO_IOMMU_GET_INFO", 0, &u, sizeof(u));

	for (i = 0; i < 2; i++) {
		client_expects(vfio_read(&v, CONFIG, config, sizeof(config)) ==
			       sizeof(config));
		search_answer("config space", i, config, sizeof(config));
		/* After this, BAR0 to BAR5 read as their sizes. */
		memset(config, 0xff, 24);
		client_expects(vfio_write(&v, CONFIG + 0x10, config, 24) == 24);
	}
}

static void no_answer_has_an_address(void **state)
{
	as_client(search_answers);
}

static int setup(void **state)
{
	gpu = gpu_find("second");
	search_for(gpu);
	assert_int_equal(gpu_bind(gpu), 0);
	client_owns(gpu);
	assert_non_null(realpath(gpu_file(gpu, ""), device_folder));
	return 0;
}

#define TEST(name)	cmocka_unit_test_setup(name, setup)

static const struct CMUnitTest slow_tests[] = {
	TEST(no_file_has_an_address),
};

static const struct CMUnitTest tests[] = {
	TEST(an_address_in_a_file_is_found),
	TEST(the_log_of_a_good_gpu_has_no_address),
	TEST(no_answer_has_an_address),
};

const struct case_group groups[] = {
	{ "lab", CASES(tests) },
	{ "lab slow", CASES(slow_tests) },
	{ }
};
