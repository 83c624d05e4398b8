// SPDX-License-Identifier: GPL-2.0-only
/*
 * A client without root that owns a GPU's files: what it learns, and how far it
 * gets.  It must learn no physical address of the GPU's memory, get no executable
 * mapping, and reach nothing but its GPU.  What a search finds nothing in is also
 * searched where root has put an address, so that finding nothing means
 * something.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/iommufd.h>
#include <linux/perf_event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "client.h"
#include "search.h"

#define RW		(PROT_READ | PROT_WRITE)
#define TRACING		"/sys/kernel/tracing/"
#define FAULT_EVENT	TRACING "events/nvgrace_gpu/nvgrace_gpu_fault/"
#define DMESG_RESTRICT	"/proc/sys/kernel/dmesg_restrict"
#define MARK		"privilege: from here on"

/*
 * Both of its parts fill their BARs: whoever gets beyond is in other memory.  It
 * begins far from the begin of what the host's PCI windows and the stand-in for
 * GPU memory show to everybody.
 */
static const struct gpu *gpu;
static const struct gpu *other;
static bool by_cdev;		/* the client opens the GPU's own file */
static char cdev[64];
static uint64_t page;

static struct part {
	unsigned int index;
	uint64_t length;
} parts[] = {
	{ USEMEM, 2 * GiB },
	{ RESMEM, 1 * GiB },
};

/* In the client: opens its GPU. */
static int client_open(struct vfio *v)
{
	struct vfio_device_bind_iommufd bind = { .argsz = sizeof(bind) };

	if (!by_cdev)
		return vfio_try_open(v, gpu);
	*v = (struct vfio){ gpu, -1, -1, -1 };
	bind.iommufd = open("/dev/iommu", O_RDWR | O_CLOEXEC);
	v->container = bind.iommufd;
	v->device = open(cdev, O_RDWR | O_CLOEXEC);
	if (v->device < 0 || ioctl(v->device, VFIO_DEVICE_BIND_IOMMUFD, &bind))
		return -errno;
	return 0;
}

static char *map_part(struct vfio *v, const struct part *part, uint64_t length)
{
	return mmap(NULL, length, RW, MAP_SHARED, v->device,
		    REGION(part->index));
}

/* In the client: uses all that it may; what it fails at is said. */
static void use(struct vfio *v)
{
	uint64_t word = 0x1122334455667788, seen;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(parts); i++) {
		uint64_t at = REGION(parts[i].index) + 8 * i;
		volatile uint64_t *map = (void *)map_part(v, &parts[i], 2 * MiB);

		client_expects(map != MAP_FAILED);
		if (map == MAP_FAILED)
			continue;
		client_expects(vfio_write(v, at, &word, 8) == 8);
		client_expects(map[i] == word);
		map[i] = ~word;
		client_expects(vfio_read(v, at, &seen, 8) == 8);
		client_expects(seen == ~word);
		client_expects(!vfio_reset(v));
		client_expects(map[i] == ~word);
		munmap((void *)map, 2 * MiB);
	}
}

static void open_and_use(void)
{
	struct vfio v;
	int ret = client_open(&v);

	if (ret)
		client_says("can't open its GPU: %s", strerror(-ret));
	else
		use(&v);
}

static void the_owner_of_the_files_can_use_the_gpu(void **state)
{
	as_client(open_and_use);
}

/* ---- addresses ------------------------------------------------------------ */

static void a_search_knows_an_address_in_every_form(void **state)
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

/* The device's folder, where /sys/bus/pci/devices leads to. */
static char device_folder[256];

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

/* In the client: all of sysfs and /proc while both parts are mapped and used. */
static void search_everything(void)
{
	static const char *const others[] = {
		/* Types of the kernel, among which there are all numbers. */
		"/sys/kernel/btf",
		/* 512 GiB; tested by itself. */
		"/proc/self/pagemap",
		/* The same as /proc/self. */
		"/proc/self/task",
		NULL
	};
	struct vfio v;
	unsigned int i;

	if (client_open(&v)) {
		client_says("can't open its GPU");
		return;
	}
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

static void device_path(char *path, size_t length, const char *file)
{
	snprintf(path, length, "%s/nvgrace_gpu/%s", device_folder, file);
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

/* In the client: what the kernel's log says since the mark, by both ways. */
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

static void set_dmesg_restrict(const char *value)
{
	must_write_file(DMESG_RESTRICT, value);
}

static void misuse(void)
{
	uint64_t offsets[] = { 0, parts[0].length, INT64_MAX };
	char buf[16] = "";
	struct vfio v;
	unsigned int i;

	if (client_open(&v)) {
		client_says("can't open its GPU");
		return;
	}
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
	assert_int_equal(gpu_unbind(gpu), 0);
	must_write_file("/dev/kmsg", MARK "\n");
	assert_int_equal(gpu_bind(gpu), 0);
	client_owns(gpu);
	as_client(misuse);
	assert_int_equal(gpu_unbind(gpu), 0);
	set_dmesg_restrict("0");
	as_client(search_log);
}

/*
 * What firmware says of a GPU is quoted where somebody must mend it: then the
 * address is for those whom the administrator lets read the log.
 */
static void a_warning_with_an_address_is_for_readers_of_the_log(void **state)
{
	const struct gpu *bad = gpu_find("claimbusy");

	must_write_file("/dev/kmsg", MARK "\n");
	assert_int_equal(gpu_bind(bad), 0);
	assert_int_equal(gpu_unbind(bad), 0);
	search_for(bad);
	set_dmesg_restrict("0");
	if (!strstr(client_answer(search_log), "can't claim"))
		fail_msg("a client does not see what it may see");
	set_dmesg_restrict("1");
	as_client(log_is_closed);
}

/* The PFN of an address of this process; 0 if it is kept secret. */
static uint64_t frame_of(const void *address)
{
	int fd = open("/proc/self/pagemap", O_RDONLY);
	uint64_t entry = 0;

	if (fd < 0 || pread(fd, &entry, sizeof(entry),
			    (uintptr_t)address / page * sizeof(entry)) !=
	    sizeof(entry))
		client_says("can't read /proc/self/pagemap");
	close(fd);
	return entry & ((1ULL << 55) - 1);
}

static void no_frame_is_seen(void)
{
	struct vfio v;
	unsigned int i;

	if (client_open(&v)) {
		client_says("can't open its GPU");
		return;
	}
	for (i = 0; i < ARRAY_SIZE(parts); i++) {
		char *map = map_part(&v, &parts[i], page);

		client_expects(map != MAP_FAILED);
		if (map == MAP_FAILED)
			continue;
		*map = 1;
		client_expects(!frame_of(map));
	}
}

/* Of pages without a struct page it says nothing even to root. */
static void the_page_map_tells_root_alone(void **state)
{
	char *map = mmap(NULL, page, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_true(map != MAP_FAILED);
	*map = 1;
	assert_true(frame_of(map));
	munmap(map, page);
	as_client(no_frame_is_seen);
}

/* An event with what the tracepoint has recorded: the number of the page. */
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

static void traces_are_for_root(void **state)
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
	/* Kernels that are built here have no perf for anybody. */
	assert_int_equal(fd >= 0,
			 !access("/proc/sys/kernel/perf_event_paranoid", F_OK));
	close(fd);
	as_client(traces_are_closed);
}

/* An answer of the device, as 8 KiB of which it has filled what it wanted. */
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

	if (client_open(&v)) {
		client_says("can't open its GPU");
		return;
	}
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
		client_expects(!ioctl(v.container, VFIO_IOMMU_GET_INFO, &u));
		search_answer("VFIO_IOMMU_GET_INFO", 0, &u, sizeof(u));
	}

	for (i = 0; i < 2; i++) {
		client_expects(vfio_read(&v, CONFIG, config, sizeof(config)) ==
			       sizeof(config));
		search_answer("config space", i, config, sizeof(config));
		/* BAR0 to BAR5 tell their sizes now. */
		memset(config, 0xff, 24);
		client_expects(vfio_write(&v, CONFIG + 0x10, config, 24) == 24);
	}
}

static void no_answer_has_an_address(void **state)
{
	as_client(search_answers);
}

/* ---- execution ------------------------------------------------------------ */

/* Whether a mapping of this process's is of vfio and executable. */
static bool maps_executable(void)
{
	FILE *f = fopen("/proc/self/maps", "r");
	char line[512], mode[8] = "";
	bool found = false;

	if (!f)
		client_says("can't read /proc/self/maps");
	while (f && fgets(line, sizeof(line), f)) {
		if (strstr(line, "vfio") && sscanf(line, "%*s %7s", mode) == 1)
			found |= !!strchr(mode, 'x');
	}
	if (f)
		fclose(f);
	/* At least one was seen. */
	client_expects(*mode);
	return found;
}

static void try_to_execute(void)
{
	static const int prots[] = {
		PROT_EXEC, PROT_READ | PROT_EXEC, RW | PROT_EXEC
	};
	unsigned int i, k;
	struct vfio v;
	char *map;

	if (client_open(&v)) {
		client_says("can't open its GPU");
		return;
	}
	for (i = 0; i < ARRAY_SIZE(parts); i++) {
		for (k = 0; k < ARRAY_SIZE(prots); k++) {
			map = mmap(NULL, page, prots[k], MAP_SHARED, v.device,
				   REGION(parts[i].index));
			client_expects(map == MAP_FAILED && errno == EPERM);
		}
		map = map_part(&v, &parts[i], page);
		client_expects(map != MAP_FAILED);
		for (k = 0; k < ARRAY_SIZE(prots); k++)
			client_expects(mprotect(map, page, prots[k]) == -1 &&
				       errno == EACCES);
		client_expects(!maps_executable());

		/* Whatever can be read may be executed, says this process. */
		client_expects(personality(READ_IMPLIES_EXEC) != -1);
		if (!mprotect(map, page, PROT_READ))
			client_expects(!maps_executable());
		mmap(NULL, page, PROT_READ, MAP_SHARED, v.device,
		     REGION(parts[i].index));
		client_expects(!maps_executable());
		client_expects(personality(0) != -1);
		munmap(map, page);
	}
}

static void nothing_can_be_executed(void **state)
{
	as_client(try_to_execute);
}

/* ---- bounds --------------------------------------------------------------- */

static void try_beyond(void)
{
	const uint64_t far[] = { 1ULL << 39, (1ULL << 40) - 8 };
	const uint64_t nowhere[] = {
		REGION(9), REGION(9) + 4096, REGION(255), REGION(0x7fffff),
		INT64_MAX - 4096, 1ULL << 63, ~0ULL - 4095, ~0ULL
	};
	unsigned int i, k;
	struct vfio v;
	char buf[64];
	char *map;

	if (client_open(&v)) {
		client_says("can't open its GPU");
		return;
	}
	memset(buf, 0xee, sizeof(buf));
	for (i = 0; i < ARRAY_SIZE(parts); i++) {
		const uint64_t start = REGION(parts[i].index);
		const uint64_t length = parts[i].length;

		/* The last bytes are its own, and not one more. */
		client_expects(vfio_write(&v, start + length - 8, buf, 64) == 8);
		client_expects(vfio_read(&v, start + length - 8, buf, 64) == 8);
		client_expects(vfio_write(&v, start + length, buf, 8) == -EINVAL);
		client_expects(vfio_read(&v, start + length, buf, 8) == -EINVAL);
		for (k = 0; k < ARRAY_SIZE(far); k++) {
			client_expects(vfio_write(&v, start + far[k], buf, 8) ==
				       -EINVAL);
			client_expects(vfio_read(&v, start + far[k], buf, 8) ==
				       -EINVAL);
			client_expects(mmap(NULL, page, RW, MAP_SHARED, v.device,
					    (start + far[k]) / page * page) ==
				       MAP_FAILED);
		}
		client_expects(mmap(NULL, page, RW, MAP_SHARED, v.device,
				    start + length) == MAP_FAILED);
		client_expects(mmap(NULL, 2 * page, RW, MAP_SHARED, v.device,
				    start + length - page) == MAP_FAILED);
		client_expects(mmap(NULL, length + page, RW, MAP_SHARED,
				    v.device, start) == MAP_FAILED);

		map = mmap(NULL, page, RW, MAP_SHARED, v.device,
			   start + length - page);
		client_expects(map != MAP_FAILED);
		client_expects(mremap(map, page, 2 * page, MREMAP_MAYMOVE) ==
			       MAP_FAILED);
		client_expects(mremap(map, 0, 2 * page, MREMAP_MAYMOVE) ==
			       MAP_FAILED);
	}
	for (i = 0; i < ARRAY_SIZE(nowhere); i++) {
		client_expects(vfio_read(&v, nowhere[i], buf, 8) < 0);
		client_expects(vfio_write(&v, nowhere[i], buf, 8) < 0);
		client_expects(mmap(NULL, page, RW, MAP_SHARED, v.device,
				    nowhere[i] / page * page) == MAP_FAILED);
	}
	/* Config space has registers, which can't be mapped, and an end. */
	client_expects(mmap(NULL, page, RW, MAP_SHARED, v.device, CONFIG) ==
		       MAP_FAILED);
	client_expects(vfio_read(&v, CONFIG + 4096, buf, 8) < 0);
	client_expects(vfio_write(&v, CONFIG + 4092, buf, 8) < 0);
}

/* What is behind its memory stays as it was, seen from outside of the machine. */
static void nothing_beyond_its_memory_is_reached(void **state)
{
	unsigned char before[64], after[64];
	uint64_t end = gpu->base + gpu->size;

	fill(before, sizeof(before), 17);
	host_poke(end, before, sizeof(before));
	host_poke(gpu->base - sizeof(before), before, sizeof(before));
	as_client(try_beyond);
	host_peek(end, after, sizeof(after));
	assert_memory_equal(before, after, sizeof(before));
	host_peek(gpu->base - sizeof(before), after, sizeof(after));
	assert_memory_equal(before, after, sizeof(before));
	host_peek(end - 8, after, 8);
	assert_int_equal(after[0], 0xee);
}

static char other_group[32];

static void try_others(void)
{
	static union {
		struct vfio_pci_hot_reset reset;
		char bytes[sizeof(struct vfio_pci_hot_reset) + 8];
	} u;
	struct vfio v, w;

	client_expects(vfio_try_open(&w, other) == -EACCES);
	client_expects(open(other_group, O_RDWR) == -1 && errno == EACCES);
	client_expects(open("/dev/mem", O_RDONLY) == -1);
	if (client_open(&v)) {
		client_says("can't open its GPU");
		return;
	}
	if (!by_cdev) {
		client_expects(ioctl(v.group, VFIO_GROUP_GET_DEVICE_FD,
				     other->addr) == -1 && errno == ENODEV);
		client_expects(ioctl(v.group, VFIO_GROUP_GET_DEVICE_FD,
				     other->port) == -1 && errno == ENODEV);
	}
	/* A reset of what shares the bus wants proof that all of it is its own. */
	u.reset.argsz = sizeof(u.reset) + 4;
	u.reset.count = 1;
	u.reset.group_fds[0] = v.device;
	client_expects(ioctl(v.device, VFIO_DEVICE_PCI_HOT_RESET, &u) == -1);
	u.reset.group_fds[0] = v.container;
	client_expects(ioctl(v.device, VFIO_DEVICE_PCI_HOT_RESET, &u) == -1);
	u.reset.argsz += 4;
	u.reset.count = 2;
	u.reset.group_fds[0] = v.group;
	u.reset.group_fds[1] = -1;
	client_expects(ioctl(v.device, VFIO_DEVICE_PCI_HOT_RESET, &u) == -1);
}

static void other_gpus_are_refused(void **state)
{
	assert_int_equal(gpu_bind(other), 0);
	snprintf(other_group, sizeof(other_group), "/dev/vfio/%d",
		 gpu_group(other));
	as_client(try_others);
	assert_int_equal(gpu_unbind(other), 0);
}

/* ---- what is for administrators -------------------------------------------- */

static unsigned int attributes;

static void try_to_write(const char *path)
{
	attributes++;
	if (open(path, O_WRONLY | O_NONBLOCK) != -1 || errno != EACCES)
		client_says("%s can be written", path);
}

static void try_attributes(void)
{
	static const char *const folders[] = {
		device_folder, "/sys/module/" DRIVER,
		"/sys/bus/pci/drivers/" DRIVER, "/sys/class/vfio",
		"/sys/kernel/iommu_groups", "/sys/devices/virtual"
	};
	static const char *const none[] = { NULL };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(folders); i++)
		search_tree(folders[i], none, try_to_write);
	client_expects(attributes > 50);
}

static void no_attribute_can_be_written(void **state)
{
	const char *said;
	char path[300];

	as_client(try_attributes);

	/* One that root has opened is found. */
	device_path(path, sizeof(path), "scrub");
	assert_int_equal(chmod(path, 0222), 0);
	said = client_answer(try_attributes);
	assert_int_equal(chmod(path, 0200), 0);
	if (!strstr(said, "scrub can be written"))
		fail_msg("the client says: %s", said);
}

/* ---- the tests ------------------------------------------------------------ */

static char dmesg_restrict[8];

static int setup(void **state)
{
	char path[64];

	gpu = gpu_find("second");
	other = gpu_find("s1h");
	page = sysconf(_SC_PAGESIZE);
	search_for(gpu);
	assert_int_equal(gpu_bind(gpu), 0);
	client_owns(gpu);
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s", gpu->addr);
	assert_non_null(realpath(path, device_folder));
	if (by_cdev && !client_cdev(gpu, cdev, sizeof(cdev)))
		fail_msg("the GPU has no file of its own");
	return 0;
}

static int teardown(void **state)
{
	must_write_file(DMESG_RESTRICT, dmesg_restrict);
	gpu_unbind_all();
	return 0;
}

#define TEST(name)	cmocka_unit_test_setup_teardown(name, setup, teardown)

static const struct CMUnitTest tests[] = {
	TEST(the_owner_of_the_files_can_use_the_gpu),
	TEST(a_search_knows_an_address_in_every_form),
	TEST(no_file_has_an_address),
	TEST(an_address_in_a_file_is_found),
	TEST(the_log_of_a_good_gpu_has_no_address),
	TEST(a_warning_with_an_address_is_for_readers_of_the_log),
	TEST(the_page_map_tells_root_alone),
	TEST(traces_are_for_root),
	TEST(no_answer_has_an_address),
	TEST(nothing_can_be_executed),
	TEST(nothing_beyond_its_memory_is_reached),
	TEST(other_gpus_are_refused),
	TEST(no_attribute_can_be_written),
};

/* The same by the GPU's own file and iommufd, whose mappings are another file's. */
static const struct CMUnitTest cdev_tests[] = {
	TEST(the_owner_of_the_files_can_use_the_gpu),
	TEST(no_file_has_an_address),
	TEST(the_log_of_a_good_gpu_has_no_address),
	TEST(no_answer_has_an_address),
	TEST(nothing_can_be_executed),
	TEST(nothing_beyond_its_memory_is_reached),
	TEST(other_gpus_are_refused),
};

int main(void)
{
	long bytes;
	int failed, fd;

	fd = open(DMESG_RESTRICT, O_RDONLY);
	bytes = read(fd, dmesg_restrict, sizeof(dmesg_restrict) - 1);
	if (bytes <= 0)
		return 1;
	close(fd);
	cmocka_set_message_output(CM_OUTPUT_TAP);
	printf("# " DMESG_RESTRICT ": %s", dmesg_restrict);
	failed = cmocka_run_group_tests_name("privilege", tests, NULL, NULL);
	if (!access("/dev/iommu", F_OK)) {
		by_cdev = true;
		failed += cmocka_run_group_tests_name("privilege_cdev",
						      cdev_tests, NULL, NULL);
	}
	return failed;
}
