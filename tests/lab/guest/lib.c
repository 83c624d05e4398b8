// SPDX-License-Identifier: GPL-2.0-only
/* See lib.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <inttypes.h>
#include <linux/pci_regs.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lib.h"
#include "system/iommufd.h"

#define GPUS_CONF	"/vm/gpus.conf"
#define AER_INJECT	"/dev/aer_inject"
#define SCRUB_PARAMETER	"/sys/module/" DRIVER "/parameters/scrub"
#define FAILING		"/sys/module/failing/parameters/"

/* The channel to the test runner, inherited from init. */
#define HOST_FD		3

/*
 * After this many seconds, unbinding waits for a file of this process: of any
 * thread, or of the only one, which waits itself. The driver may need a minute,
 * and the machine may be paused meanwhile.
 */
#define STUCK_S		300
#define ALONE_S		60

void assert_same(long long a, long long b, const char *name_a, const char *name_b, const char *file,
		 int line)
{
	if (a == b)
		return;
	print_error("%s is %lld (%#llx), but %s is %lld (%#llx)\n", name_a, a, a, name_b, b, b);
	_fail(file, line);
}

uint64_t page, table;

static void __attribute__((constructor)) measure_pages(void)
{
	page = sysconf(_SC_PAGESIZE);
	table = page / 8 * page;
}

/* ---- GPUs --------------------------------------------------------------- */

static struct gpu gpus[64];
static size_t gpu_count;

/* There is no lab: gpus[] has a GPU that stays bound. */
static bool on_hardware;

void gpu_given(const char *address)
{
	struct gpu *g = &gpus[gpu_count++];

	on_hardware = true;
	snprintf(g->name, sizeof(g->name), "gh200");
	snprintf(g->addr, sizeof(g->addr), "%s", address);
	if (!access(gpu_file(g, "nvgrace_gpu/usemem_base"), R_OK))
		g->base = gpu_sysfs_number(g, "nvgrace_gpu/usemem_base");
}

static void load_gpus(void)
{
	char line[256];
	FILE *f = fopen(GPUS_CONF, "r");

	assert_non_null(f);
	while (fgets(line, sizeof(line), f) && gpu_count < ARRAY_SIZE(gpus)) {
		struct gpu *g = &gpus[gpu_count];

		char base[32], size[32];

		if (sscanf(line, "%31s %15s %31s %31s %15s", g->name,
			   g->addr, base, size, g->port) != 5)
			continue;
		if (sscanf(g->addr, "%x:%x:%x.%x", &g->domain, &g->bus, &g->dev,
			   &g->fn) != 4)
			fail_msg("%s is no PCI address", g->addr);
		/*
		 * strtoull() makes 0 of "-", which means that the firmware
		 * table has no number.
		 */
		g->base = strtoull(base, NULL, 0);
		g->size = strtoull(size, NULL, 0);
		gpu_count++;
	}
	fclose(f);
}

const struct gpu *gpu_find(const char *name)
{
	size_t i;

	if (!gpu_count)
		load_gpus();
	for (i = 0; i < gpu_count; i++)
		if (!strcmp(gpus[i].name, name))
			return &gpus[i];
	fail_msg("no GPU called %s in " GPUS_CONF, name);
	return NULL;
}

int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_TRUNC);
	int ret = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		ret = -errno;
	close(fd);
	return ret;
}

void must_write_file(const char *path, const char *text)
{
	int ret = write_file(path, text);

	if (ret)
		fail_msg("%s: %s", path, strerror(-ret));
}

char *proc_text(const char *path)
{
	size_t size = 4 * MiB, len;
	char *text = malloc(size);
	FILE *f = fopen(path, "r");

	assert_non_null(text);
	if (!f)
		fail_msg("%s can't be read", path);
	len = fread(text, 1, size - 1, f);
	assert_true(len > 0 && len < size - 1);
	text[len] = '\0';
	fclose(f);
	return text;
}

char *proc_list(const char *path)
{
	char *text = proc_text(path), *last;
	bool same;

	do {
		last = text;
		text = proc_text(path);
		same = !strcmp(text, last);
		free(last);
	} while (!same);
	return text;
}

unsigned int kernel_mappings(const struct gpu *gpu, uint64_t *bytes)
{
	char *mappings = proc_list("/proc/vmallocinfo");
	char *rest = mappings, *line, *at;
	uint64_t size, phys, sum = 0;
	unsigned int count = 0;

	while ((line = strsep(&rest, "\n"))) {
		at = strstr(line, "phys=");
		if (!at || sscanf(at, "phys=%" SCNx64, &phys) != 1 ||
		    sscanf(line, "%*s %" SCNu64, &size) != 1)
			continue;
		if (phys < gpu->base || phys >= gpu->base + gpu->size)
			continue;
		sum += size;
		count++;
	}
	free(mappings);
	if (bytes)
		*bytes = sum;
	return count;
}

const char *gpu_file(const struct gpu *gpu, const char *file)
{
	static __thread char path[128];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/%s", gpu->addr,
		 file);
	return path;
}

int gpu_config_open(const struct gpu *gpu, int flags)
{
	int fd = open(gpu_file(gpu, "config"), flags | O_CLOEXEC);

	assert_return_code(fd, errno);
	return fd;
}

uint32_t gpu_set_bar0(const struct gpu *gpu, uint32_t value)
{
	int fd = gpu_config_open(gpu, O_RDWR);
	uint32_t was;

	assert_int_equal(pread(fd, &was, 4, PCI_BASE_ADDRESS_0), 4);
	assert_int_equal(pwrite(fd, &value, 4, PCI_BASE_ADDRESS_0), 4);
	close(fd);
	return was;
}

int gpu_sysfs_write(const struct gpu *gpu, const char *file, const char *text)
{
	return write_file(gpu_file(gpu, file), text);
}

void gpu_rescan(const struct gpu *gpu)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/rescan",
		 gpu->port);
	must_write_file(path, "1");
}

void gpu_sysfs_read(const struct gpu *gpu, const char *file, char *text,
		    size_t size)
{
	int fd = open(gpu_file(gpu, file), O_RDONLY);
	ssize_t len;

	if (fd < 0)
		fail_msg("%s: %s", gpu_file(gpu, file), strerror(errno));
	len = read(fd, text, size - 1);
	assert_true(len >= 0);
	close(fd);
	text[len] = 0;
	text[strcspn(text, "\n")] = 0;
}

bool gpu_sysfs_is(const struct gpu *gpu, const char *file, const char *wanted)
{
	char text[32];

	gpu_sysfs_read(gpu, file, text, sizeof(text));
	return !strcmp(text, wanted);
}

uint64_t gpu_sysfs_number(const struct gpu *gpu, const char *file)
{
	char text[32];

	gpu_sysfs_read(gpu, file, text, sizeof(text));
	return strtoull(text, NULL, 0);
}

uint64_t gpu_bar(const struct gpu *gpu, unsigned int index, uint64_t *start)
{
	FILE *f = fopen(gpu_file(gpu, "resource"), "r");
	unsigned long long first, last;
	unsigned int i;

	assert_non_null(f);
	for (i = 0; i <= index; i++)
		assert_int_equal(fscanf(f, "%llx %llx %*x", &first, &last), 2);
	fclose(f);
	if (start)
		*start = first;
	return last ? last - first + 1 : 0;
}

void wait_until_asleep(const struct gpu *gpu)
{
	while (!gpu_sysfs_is(gpu, "power/runtime_status", "suspended"))
		usleep(1000);
}

/*
 * Reads the last component of a link in the device's sysfs directory. Returns 0
 * or a negative errno.
 */
static int gpu_link(const struct gpu *gpu, const char *file, char *name,
		    size_t size)
{
	char target[256];
	ssize_t len = readlink(gpu_file(gpu, file), target, sizeof(target) - 1);

	if (len < 0)
		return -errno;
	target[len] = 0;
	snprintf(name, size, "%s", strrchr(target, '/') + 1);
	return 0;
}

bool gpu_bound(const struct gpu *gpu)
{
	char name[64];

	return !gpu_link(gpu, "driver", name, sizeof(name)) &&
	       !strcmp(name, DRIVER);
}

int gpu_bind(const struct gpu *gpu)
{
	if (on_hardware)
		return 0;
	return gpu_sysfs_write(gpu, "driver_override", DRIVER) ?:
	       write_file("/sys/bus/pci/drivers/" DRIVER "/bind", gpu->addr);
}

/*
 * Closes and unmaps all GPU files of this process. A test that failed half-way
 * leaves some open. Unbinding would wait for them for ever, and opening again
 * would fail.
 */
static void let_go(void)
{
	char line[512], path[32], target[64];
	unsigned long start, end;
	FILE *maps = fopen("/proc/self/maps", "r");
	ssize_t n;
	int fd;

	while (maps && fgets(line, sizeof(line), maps))
		if (strstr(line, "vfio") &&
		    sscanf(line, "%lx-%lx", &start, &end) == 2)
			munmap((void *)start, end - start);
	if (maps)
		fclose(maps);

	/* In the reverse order of opening, as by vfio_close(). */
	for (fd = 255; fd > STDERR_FILENO; fd--) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		n = readlink(path, target, sizeof(target) - 1);
		target[n > 0 ? n : 0] = 0;
		if (strstr(target, "vfio") || !strcmp(target, "/dev/iommu"))
			close(fd);
	}
}

static int write_unbind(const struct gpu *gpu)
{
	return write_file("/sys/bus/pci/drivers/" DRIVER "/unbind", gpu->addr);
}

int gpu_unbind_here(const struct gpu *gpu)
{
	if (on_hardware)
		return 0;
	return write_unbind(gpu) ?: gpu_sysfs_write(gpu, "driver_override", "\n");
}

static size_t thread_count(void)
{
	glob_t tasks;

	assert_int_equal(glob("/proc/self/task/*", 0, NULL, &tasks), 0);
	globfree(&tasks);
	return tasks.gl_pathc;
}

static void *unbind_thread(void *arg)
{
	return (void *)(long)write_unbind(arg);
}

int gpu_unbind(const struct gpu *gpu)
{
	struct timespec limit;
	pthread_t writer;
	void *ret;

	if (on_hardware)
		return 0;
	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += thread_count() == 1 ? ALONE_S : STUCK_S;
	assert_int_equal(pthread_create(&writer, NULL, unbind_thread,
					(void *)gpu), 0);
	if (pthread_timedjoin_np(writer, &ret, &limit)) {
		printf("# %s is still in use by this process; closing all GPUs\n",
		       gpu->name);
		fflush(stdout);
		let_go();
		pthread_join(writer, NULL);
		ret = (void *)-EBUSY;
	}
	if (ret)
		return (long)ret;
	return gpu_sysfs_write(gpu, "driver_override", "\n");
}

/* No process may have one open. */
static void unbind_all(void)
{
	size_t i;

	if (!gpu_count)
		load_gpus();
	for (i = 0; i < gpu_count; i++)
		if (gpu_bound(&gpus[i]))
			assert_int_equal(gpu_unbind(&gpus[i]), 0);
		else if (!on_hardware)
			/* Of a bind that was refused. A removed GPU has no such file. */
			gpu_sysfs_write(&gpus[i], "driver_override", "\n");
}

int leave_nothing(void **state)
{
	if (!on_hardware) {
		/* Where the module isn't loaded, there are no such files. */
		write_file(FAILING "hold", "0");
		write_file(FAILING "calls", "\n");
	}
	let_go();
	unbind_all();
	/* Another driver than this one has no such parameter. */
	if (!on_hardware)
		write_file(SCRUB_PARAMETER, "N");
	return 0;
}

volatile uint32_t *gpu_map_bar0(const struct gpu *gpu)
{
	void *map;
	int fd;

	/* Without a driver, the device's memory decoding is off. */
	assert_int_equal(gpu_sysfs_write(gpu, "enable", "1"), 0);
	fd = open(gpu_file(gpu, "resource0"), O_RDWR);
	assert_true(fd >= 0);
	map = mmap(NULL, BAR0_SIZE, RW, MAP_SHARED, fd, 0);
	assert_true(map != MAP_FAILED);
	close(fd);
	return map;
}

void gpu_unmap_bar0(volatile uint32_t *bar0)
{
	munmap((void *)bar0, BAR0_SIZE);
}

/* Of a GPU without a driver. */
static void gpu_release_bar0(const struct gpu *gpu, volatile uint32_t *bar0)
{
	gpu_unmap_bar0(bar0);
	/* The kernel counts, so a GPU would never be idle again. */
	assert_int_equal(gpu_sysfs_write(gpu, "enable", "0"), 0);
}

uint32_t gpu_bar0_read(const struct gpu *gpu, uint32_t reg)
{
	volatile uint32_t *bar0 = gpu_map_bar0(gpu);
	uint32_t val = bar0[reg / 4];

	gpu_release_bar0(gpu, bar0);
	return val;
}

void gpu_bar0_write(const struct gpu *gpu, uint32_t reg, uint32_t val)
{
	volatile uint32_t *bar0 = gpu_map_bar0(gpu);

	bar0[reg / 4] = val;
	gpu_release_bar0(gpu, bar0);
}

void gpu_unready(const struct gpu *gpu, uint32_t ms)
{
	gpu_bar0_write(gpu, MODEL_UNREADY, ms);
}

volatile uint32_t *gpu_hold(const struct gpu *gpu)
{
	gpu_unready(gpu, UINT32_MAX);
	return gpu_map_bar0(gpu);
}

void gpu_release(const struct gpu *gpu, volatile uint32_t *bar0)
{
	bar0[MODEL_UNREADY / 4] = 0;
	gpu_unmap_bar0(bar0);
}

/* The data that /dev/aer_inject takes. */
struct aer_error {
	uint8_t bus;
	uint8_t dev;
	uint8_t fn;
	uint32_t uncorrected;
	uint32_t corrected;
	uint32_t header[4];
	uint32_t domain;
};

void gpu_inject_error(const struct gpu *gpu, uint32_t uncorrected,
		      uint32_t corrected)
{
	struct aer_error e = {
		.domain = gpu->domain, .bus = gpu->bus, .dev = gpu->dev, .fn = gpu->fn,
		.uncorrected = uncorrected, .corrected = corrected,
	};
	int fd = open(AER_INJECT, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		fail_msg(AER_INJECT ": %s", strerror(errno));
	klog_mark();
	if (write(fd, &e, sizeof(e)) != sizeof(e))
		fail_msg("injecting into %s: %s", gpu->addr, strerror(errno));
	close(fd);
}

const struct gpu *gpu_smallest(void)
{
	return gpu_find("tinymem");
}

int gpu_group(const struct gpu *gpu)
{
	char name[64];

	return gpu_link(gpu, "iommu_group", name, sizeof(name)) ?: atoi(name);
}

/* ---- vfio --------------------------------------------------------------- */

const char *vfio_cdev_path(const struct gpu *gpu)
{
	static __thread char path[64];
	bool none;
	glob_t found;

	none = glob(gpu_file(gpu, "vfio-dev/vfio*"), 0, NULL, &found);
	snprintf(path, sizeof(path), "/dev/vfio/devices/%s",
		 none ? "none" : strrchr(found.gl_pathv[0], '/') + 1);
	globfree(&found);
	return path;
}

int vfio_try_open(struct vfio *v, const struct gpu *gpu)
{
	int group = gpu_group(gpu), err;

	if (access("/dev/vfio/vfio", F_OK))
		err = vfio_open_cdev(v, vfio_cdev_path(gpu));
	else
		err = group < 0 ? group :
				  vfio_open_group(v, group, gpu->addr);
	v->gpu = gpu;
	return err;
}

void vfio_open(struct vfio *v, const struct gpu *gpu)
{
	int ret = vfio_try_open(v, gpu);

	if (ret)
		fail_msg("opening %s: %s", gpu->addr, strerror(-ret));
}

void vfio_start(struct vfio *v, const char *name)
{
	const struct gpu *gpu = gpu_find(name);
	int ret = gpu_bound(gpu) ? 0 : gpu_bind(gpu);

	if (ret)
		fail_msg("binding %s (%s): %s", name, gpu->addr,
			 strerror(-ret));
	vfio_open(v, gpu);
}

void vfio_stop(struct vfio *v)
{
	vfio_close(v);
	assert_int_equal(gpu_unbind(v->gpu), 0);
}

struct vfio v = { .device = -1 };

int open_gpu(void **state)
{
	vfio_start(&v, *state ?: "gh200");
	return 0;
}

struct gpu_part gpu_parts[2] = { { .index = USEMEM }, { .index = RESMEM } };

int open_parts(void **state)
{
	struct vfio_region r;
	struct gpu_part *p;

	vfio_start(&v, "gh200");
	for (p = gpu_parts; p < gpu_parts + 2; p++) {
		vfio_region(&v, p->index, &r);
		p->at = REGION(p->index);
		p->length = vfio_length(&v, p->index);
		p->mappable = r.area_size;
		p->bar = r.size;
		p->phys = v.gpu->base + (p == gpu_parts ? 0 : gpu_parts[0].length);
	}
	return 0;
}

void cdev_start(struct vfio *v, const char *name)
{
	const struct gpu *gpu = gpu_find(name);

	if (!gpu_bound(gpu))
		assert_int_equal(gpu_bind(gpu), 0);
	*v = VFIO_CLOSED;
	v->gpu = gpu;
	v->cdev = true;
	v->device = open(vfio_cdev_path(gpu), O_RDWR | O_CLOEXEC);
	assert_return_code(v->device, errno);
}

void cdev_open_iommu(struct vfio *v)
{
	struct ioas_alloc alloc = { .size = sizeof(alloc) };

	v->iommu = open("/dev/iommu", O_RDWR | O_CLOEXEC);
	assert_return_code(v->iommu, errno);
	assert_int_equal(ioctl(v->iommu, IOAS_ALLOC, &alloc), 0);
	v->ioas = alloc.out_ioas_id;
}

int cdev_bind(struct vfio *v)
{
	struct bind_iommufd bind = { .argsz = sizeof(bind), .iommufd = v->iommu };

	return ioctl(v->device, BIND_IOMMUFD, &bind) ? -errno : (int)bind.out_devid;
}

int cdev_attach(struct vfio *v)
{
	struct attach_iommufd attach = { .argsz = sizeof(attach), .pt_id = v->ioas };

	return ioctl(v->device, ATTACH_IOMMUFD, &attach) ? -errno : 0;
}

void vfio_region(struct vfio *v, unsigned int index, struct vfio_region *r)
{
	assert_int_equal(vfio_get_region(v, index, r), 0);
	if (r->areas)
		assert_int_equal(r->version, 1);
}

void assert_region(struct vfio *v, unsigned int index, uint64_t length,
		   uint64_t bar)
{
	struct vfio_region r;

	vfio_region(v, index, &r);
	assert_int_equal(r.size, bar);
	assert_int_equal(r.offset, REGION(index));
	assert_int_equal(r.flags, FAKE_BAR_FLAGS);
	assert_int_equal(r.areas, 1);
	assert_int_equal(r.area_offset, 0);
	assert_int_equal(r.area_size, length / page * page);
}

uint64_t vfio_length(struct vfio *v, unsigned int index)
{
	const char *file = index == USEMEM ? "nvgrace_gpu/usemem_size" :
					     "nvgrace_gpu/resmem_size";
	struct vfio_region r;

	if (!access(gpu_file(v->gpu, file), R_OK))
		return gpu_sysfs_number(v->gpu, file);
	vfio_region(v, index, &r);
	return r.area_size;
}

int vfio_hot_reset(struct vfio *v)
{
	union {
		struct vfio_pci_hot_reset reset;
		char bytes[sizeof(struct vfio_pci_hot_reset) + 4];
	} u = { .reset = { .argsz = sizeof(u), .count = 1 } };

	u.reset.group_fds[0] = v->group;
	return ioctl(v->device, VFIO_DEVICE_PCI_HOT_RESET, &u) ? -errno : 0;
}

int vfio_set_feature(struct vfio *v, uint32_t feature, const void *data,
		     size_t size)
{
	union {
		struct vfio_device_feature f;
		char bytes[128];
	} u = { .f = {
		.argsz = sizeof(u.f) + size,
		.flags = VFIO_DEVICE_FEATURE_SET | feature,
	} };

	assert_true(u.f.argsz <= sizeof(u));
	if (size)
		memcpy(u.f.data, data, size);
	return ioctl(v->device, VFIO_DEVICE_FEATURE, &u.f) ? -errno : 0;
}

int vfio_dma_buf(struct vfio *v, uint32_t region, uint32_t flags,
		 uint32_t count, const struct dma_range *ranges)
{
	struct {
		struct vfio_device_feature f;
		uint32_t region;
		uint32_t open_flags;
		uint32_t flags;
		uint32_t count;
		struct dma_range ranges[DMA_RANGES];
	} r = {
		.f = {
			.argsz = sizeof(r),
			.flags = VFIO_DEVICE_FEATURE_GET | 11,
		},
		.region = region,
		.open_flags = O_RDWR | O_CLOEXEC,
		.flags = flags,
		.count = count,
	};
	int fd;

	assert_true(count <= DMA_RANGES);
	memcpy(r.ranges, ranges, count * sizeof(*ranges));
	fd = ioctl(v->device, VFIO_DEVICE_FEATURE, &r);
	return fd < 0 ? -errno : fd;
}

long read_a_byte(void *v)
{
	char byte;

	return vfio_read(v, REGION(USEMEM), &byte, 1);
}

unsigned int vfio_capability(struct vfio *v, uint8_t id)
{
	uint8_t at, found[2], steps;

	assert_int_equal(vfio_read(v, CONFIG + PCI_CAPABILITY_LIST, &at, 1), 1);
	for (steps = 0; at && steps < 48; steps++) {
		assert_int_equal(vfio_read(v, CONFIG + at, found, 2), 2);
		if (found[PCI_CAP_LIST_ID] == id)
			return at;
		at = found[PCI_CAP_LIST_NEXT];
	}
	return 0;
}

uint32_t vfio_bar0_read(struct vfio *v, uint32_t reg)
{
	uint32_t val;

	assert_int_equal(vfio_read(v, reg, &val, 4), 4);
	return val;
}

void vfio_bar0_write(struct vfio *v, uint32_t reg, uint32_t val)
{
	assert_int_equal(vfio_write(v, reg, &val, 4), 4);
}

void vfio_unready_after_resets(struct vfio *v)
{
	vfio_bar0_write(v, MODEL_RESET_DELAY, UINT32_MAX);
}

void vfio_make_ready(struct vfio *v)
{
	vfio_bar0_write(v, MODEL_RESET_DELAY, 0);
	vfio_bar0_write(v, MODEL_UNREADY, 0);
}

void *vfio_map(struct vfio *v, unsigned int index, uint64_t offset,
	       uint64_t length, int prot, int flags, int *err)
{
	void *map = mmap(NULL, length, prot, flags, v->device,
			 REGION(index) + offset);

	if (err)
		*err = map == MAP_FAILED ? -errno : 0;
	else if (map == MAP_FAILED)
		fail_msg("mmap of region %u at %#llx: %s", index,
			 (unsigned long long)offset, strerror(errno));
	return map;
}

/* ---- memory and time ---------------------------------------------------- */

void fill(void *buf, size_t count, uint64_t seed)
{
	uint64_t x = seed * 0x9e3779b97f4a7c15ULL + 1;
	unsigned char *p = buf;
	size_t i;

	for (i = 0; i < count; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		p[i] = x >> 24;
	}
}

char *page_before_hole(void)
{
	char *map = mmap(NULL, 2 * page, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_true(map != MAP_FAILED);
	assert_int_equal(munmap(map + page, page), 0);
	return map;
}

char *free_range(uint64_t length, uint64_t shift)
{
	char *p = mmap(NULL, length + 2 * table, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uintptr_t at;

	assert_true(p != MAP_FAILED);
	munmap(p, length + 2 * table);
	at = ((uintptr_t)p + table - 1) / table * table + shift;
	return (char *)at;
}

uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ULL + ts.tv_nsec / 1000000;
}

void assert_waited(uint64_t begin, uint64_t ms)
{
	uint64_t took = now_ms() - begin;

	if (took < ms)
		fail_msg("took %llu ms, expected %llu",
			 (unsigned long long)took, (unsigned long long)ms);
}

static __thread struct beside *this_one;

static void *run_beside(void *arg)
{
	struct beside *b = arg;

	this_one = b;
	b->tid = syscall(SYS_gettid);
	sem_post(&b->runs);
	b->result = b->function(b->arg);
	b->over = true;
	return NULL;
}

struct beside *beside(long (*function)(void *arg), const void *arg)
{
	struct beside *b = calloc(1, sizeof(*b));

	assert_non_null(b);
	b->function = function;
	b->arg = (void *)arg;
	sem_init(&b->runs, 0, 0);
	assert_int_equal(pthread_create(&b->thread, NULL, run_beside, b), 0);
	while (sem_wait(&b->runs))
		;
	return b;
}

bool still_wanted(void)
{
	return !this_one->unwanted;
}

long ended(struct beside *b)
{
	long result;

	b->unwanted = true;
	assert_int_equal(pthread_join(b->thread, NULL), 0);
	result = b->result;
	sem_destroy(&b->runs);
	free(b);
	return result;
}

int status_of_child(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

void assert_killed(pid_t pid)
{
	int status;

	assert_int_equal(kill(pid, SIGKILL), 0);
	status = status_of_child(pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

void wait_until_in(pid_t tid, long number, int fd)
{
	unsigned long long first;
	char path[64];
	long found;
	FILE *f;
	int n;

	snprintf(path, sizeof(path), "/proc/%d/syscall", tid);
	for (;;) {
		f = fopen(path, "r");
		if (!f)
			fail_msg("no thread %d", tid);
		/* "running" if it doesn't wait. */
		n = fscanf(f, "%ld %llx", &found, &first);
		fclose(f);
		if (n == 2 && found == number && (fd < 0 || (int)first == fd))
			return;
		usleep(1000);
	}
}

/* ---- kernel log --------------------------------------------------------- */

static int klog = -1;

static void klog_seek(int whence)
{
	if (klog < 0) {
		klog = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
		assert_true(klog >= 0);
	}
	lseek(klog, 0, whence);
}

void klog_mark(void)
{
	klog_seek(SEEK_END);
}

void klog_rewind(void)
{
	klog_seek(SEEK_SET);
}

/* Reads a record of /dev/kmsg: "level,number,time,flags;text\n" and more. */
static bool klog_record(char *record, size_t size)
{
	ssize_t len;

	do {
		len = read(klog, record, size - 1);
	} while (len < 0 && errno == EPIPE);
	if (len < 0)
		return false;
	record[len] = 0;
	return true;
}

#define MARK	"a test reads up to here:"

/*
 * Reads a record. Returns false if there is none from before the call.
 *
 * A record that another CPU has begun hides those after it until it is
 * finished. So the end is a line that this function has written itself. A
 * client without root, which can't write it, may miss a hidden record.
 */
static bool klog_record_until_now(char *record, size_t size)
{
	struct pollfd p = { .fd = klog, .events = POLLIN };
	static unsigned int marks;
	char mark[64] = "";
	int ret;

	assert_true(klog >= 0);
	for (;;) {
		if (klog_record(record, size)) {
			if (!strstr(record, MARK))
				return true;
			if (*mark && strstr(record, mark))
				return false;
		} else if (!*mark) {
			snprintf(mark, sizeof(mark), MARK " %d %u\n", getpid(),
				 ++marks);
			/*
			 * The kernel limits the lines of each open file, and
			 * this opens one.
			 */
			ret = write_file("/dev/kmsg", mark);
			if (ret == -EACCES)
				return false;
			assert_int_equal(ret, 0);
		} else {
			poll(&p, 1, -1);
		}
	}
}

int klog_count(const char *text)
{
	char record[8192];
	int count = 0;

	while (klog_record_until_now(record, sizeof(record)))
		if (strstr(record, text))
			count++;
	return count;
}

bool klog_wait(const char *text, int ms)
{
	uint64_t end = now_ms() + ms;
	struct pollfd p = { .fd = klog, .events = POLLIN };
	char record[8192];
	int64_t left;

	for (;;) {
		while (klog_record(record, sizeof(record)))
			if (strstr(record, text))
				return true;
		left = end - now_ms();
		if (left <= 0)
			return false;
		poll(&p, 1, left);
	}
}

bool klog_next(int *level, char *line, size_t size)
{
	char record[8192];
	char *text;

	if (!klog_record_until_now(record, sizeof(record)))
		return false;
	text = strchr(record, ';');
	assert_non_null(text);
	/* The higher bits are the facility. */
	*level = atoi(record) & 7;
	snprintf(line, size, "%.*s", (int)strcspn(text + 1, "\n"), text + 1);
	return true;
}

/* ---- modules ------------------------------------------------------------ */

#define MODULE		"/vm/module.ko"
#define MODULE_PARAMS	"/vm/module.params"

static int load_with(const char *path, const char *params)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int ret = 0;

	if (fd < 0)
		fail_msg("%s: %s", path, strerror(errno));
	if (syscall(SYS_finit_module, fd, params, 0))
		ret = -errno;
	close(fd);
	return ret;
}

int module_load(void)
{
	char params[256] = "";
	int fd = open(MODULE_PARAMS, O_RDONLY);

	assert_true(fd >= 0);
	assert_true(read(fd, params, sizeof(params) - 1) >= 0);
	close(fd);
	params[strcspn(params, "\n")] = 0;
	return load_with(MODULE, params);
}

int load_file(const char *path)
{
	return load_with(path, "");
}

int unload(const char *name)
{
	return syscall(SYS_delete_module, name, O_NONBLOCK) ? -errno : 0;
}

int module_unload(void)
{
	return unload(DRIVER);
}

void begin_failing(const char *value, const char *names)
{
	char text[256];

	snprintf(text, sizeof(text), "%s %s", value, names);
	must_write_file(FAILING "calls", text);
}

void hold_failing(bool on)
{
	must_write_file(FAILING "hold", on ? "1" : "0");
}

int failing_count(void)
{
	char *text = proc_text(FAILING "failed");
	int failed = atoi(text);

	free(text);
	return failed;
}

int stop_failing(void)
{
	int failed = failing_count();

	must_write_file(FAILING "calls", "\n");
	return failed;
}

void end_failing(const char *names)
{
	if (!stop_failing())
		fail_msg("the driver has called none of %s", names);
}

/* ---- SIGBUS ------------------------------------------------------------- */

void *volatile sigbus_addr;
volatile int sigbus_code;
static __thread sigjmp_buf sigbus_jmp;
static __thread volatile bool sigbus_expected;

/* Threads in raises_sigbus(), and the handler that was there before. */
static pthread_mutex_t sigbus_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned int sigbus_threads;
static struct sigaction sigbus_before;

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	(void)context;
	if (!sigbus_expected) {
		/* The access faults again. */
		sigaction(sig, &sigbus_before, NULL);
		return;
	}
	sigbus_addr = info->si_addr;
	sigbus_code = info->si_code;
	siglongjmp(sigbus_jmp, 1);
}

bool raises_sigbus(void (*fn)(void *), void *arg)
{
	struct sigaction sa = { .sa_sigaction = on_sigbus,
				.sa_flags = SA_SIGINFO };
	struct sigaction old;
	volatile bool raised = true;

	pthread_mutex_lock(&sigbus_lock);
	sigaction(SIGBUS, &sa, &old);
	if (old.sa_sigaction != on_sigbus)
		sigbus_before = old;
	sigbus_threads++;
	pthread_mutex_unlock(&sigbus_lock);

	sigbus_expected = true;
	if (!sigsetjmp(sigbus_jmp, 1)) {
		fn(arg);
		raised = false;
	}
	sigbus_expected = false;

	pthread_mutex_lock(&sigbus_lock);
	if (!--sigbus_threads)
		sigaction(SIGBUS, &sigbus_before, NULL);
	pthread_mutex_unlock(&sigbus_lock);
	return raised;
}

void touch_read(void *addr)
{
	(void)*(volatile char *)addr;
}

void touch_write(void *addr)
{
	*(volatile char *)addr = 1;
}

/* ---- test runner -------------------------------------------------------- */

#define HOST_MAX	1024
#define QUESTION_MAX	(2 * HOST_MAX + 80)

/*
 * Calls a handler of the test runner. @question gets the line, and @answer its
 * answer without "ok ", or its error. Returns whether it succeeded.
 */
static bool asked(char question[QUESTION_MAX], char *answer, size_t size,
		  const char *format, va_list args)
{
	size_t len = vsnprintf(question, QUESTION_MAX, format, args) + 1, got = 0;

	assert_true(len < QUESTION_MAX);
	strcat(question, "\n");
	/* There, the file may be the GPU's. */
	assert_false(on_hardware);
	assert_int_equal(write(HOST_FD, question, len), (ssize_t)len);
	/* What doesn't fit is read, too: the next answer comes after it. */
	for (;;) {
		char c;

		assert_int_equal(read(HOST_FD, &c, 1), 1);
		if (c == '\n')
			break;
		if (got < size - 1)
			answer[got++] = c;
	}
	answer[got] = 0;
	if (strncmp(answer, "ok", 2))
		return false;
	memmove(answer, answer + 2, got - 1);
	if (answer[0] == ' ')
		memmove(answer, answer + 1, strlen(answer));
	return true;
}

/* resmem follows usemem, which is whole memory blocks. */
static uint64_t address_of(struct vfio *v, unsigned int index, uint64_t offset)
{
	return v->gpu->base + offset +
	       (index == RESMEM ? vfio_length(v, USEMEM) : 0);
}

void host_peek(uint64_t phys, void *buf, size_t count)
{
	char answer[2 * HOST_MAX + 16];
	unsigned char *p = buf;
	size_t i;

	assert_true(count <= HOST_MAX);
	host_ask(answer, sizeof(answer), "peek %#llx %zu",
		 (unsigned long long)phys, count);
	assert_int_equal(strlen(answer), 2 * count);
	for (i = 0; i < count; i++) {
		char byte[3] = { answer[2 * i], answer[2 * i + 1] }, *end;

		p[i] = strtoul(byte, &end, 16);
		assert_int_equal(*end, 0);
	}
}

void host_poke(uint64_t phys, const void *buf, size_t count)
{
	char text[2 * HOST_MAX + 1] = "";
	const unsigned char *p = buf;
	size_t i;

	assert_true(count <= HOST_MAX);
	for (i = 0; i < count; i++)
		sprintf(text + 2 * i, "%02x", p[i]);
	host_ask(NULL, 0, "poke %#llx %s", (unsigned long long)phys, text);
}

void other_peek(struct vfio *v, unsigned int index, uint64_t offset, void *buf, size_t count)
{
	if (on_hardware)
		assert_int_equal(vfio_read(v, REGION(index) + offset, buf, count), count);
	else
		host_peek(address_of(v, index, offset), buf, count);
}

void other_poke(struct vfio *v, unsigned int index, uint64_t offset, const void *buf,
		size_t count)
{
	if (on_hardware)
		assert_int_equal(vfio_write(v, REGION(index) + offset, buf, count), count);
	else
		host_poke(address_of(v, index, offset), buf, count);
}

void host_ask(char *answer, size_t size, const char *format, ...)
{
	char question[QUESTION_MAX], unused[256];
	va_list args;
	bool done;

	if (!answer) {
		answer = unused;
		size = sizeof(unused);
	}
	va_start(args, format);
	done = asked(question, answer, size, format, args);
	va_end(args);
	if (!done)
		fail_msg("the host answers \"%s\" to %s", answer, question);
}

bool host_try(char *answer, size_t size, const char *format, ...)
{
	char question[QUESTION_MAX];
	va_list args;
	bool done;

	va_start(args, format);
	done = asked(question, answer, size, format, args);
	va_end(args);
	return done;
}

uint64_t host_counter(const struct gpu *gpu, const char *name)
{
	char answer[1024], key[64], *at;

	host_ask(answer, sizeof(answer), "counters %s", gpu->name);
	snprintf(key, sizeof(key), "\"%s\": ", name);
	at = strstr(answer, key);
	if (!at)
		fail_msg("no counter %s in %s", name, answer);
	return strtoull(at + strlen(key), NULL, 10);
}

void host_wait_counter(const struct gpu *gpu, const char *name,
		       uint64_t at_least)
{
	uint64_t begin = now_ms();

	/*
	 * Each query is a message to the host and back, so this loop is no busy
	 * loop.
	 */
	while (host_counter(gpu, name) < at_least) {
		if (now_ms() - begin > 600000)
			fail_msg("%s of %s stays at %llu, not %llu", name,
				 gpu->name,
				 (unsigned long long)host_counter(gpu, name),
				 (unsigned long long)at_least);
		usleep(1000);
	}
}

#define SCRUB_PROGRESS	"nvgrace_gpu/scrub_progress"

/* A scrub that takes longer is stuck, not slow. */
#define SCRUB_STUCK_MS	600000

void scrub_set_parameter(bool on)
{
	must_write_file(SCRUB_PARAMETER, on ? "Y" : "N");
}

static void soil_by(const struct gpu *gpu, uint64_t step)
{
	host_ask(NULL, 0, "soil %#llx %#llx %#llx",
		 (unsigned long long)gpu->base, (unsigned long long)gpu->size,
		 (unsigned long long)step);
}

static void assert_zeros(uint64_t address, uint64_t count, uint64_t step)
{
	char found[64];

	host_ask(found, sizeof(found), "remains %#llx %#llx %#llx",
		 (unsigned long long)address, (unsigned long long)count,
		 (unsigned long long)step);
	if (strcmp(found, "0"))
		fail_msg("bytes that are not zero: %s", found);
}

void assert_range_clean(uint64_t address, uint64_t count)
{
	assert_zeros(address, count, 0);
}

void soil(const struct gpu *gpu)
{
	soil_by(gpu, MiB);
}

void assert_clean(const struct gpu *gpu)
{
	assert_zeros(gpu->base, gpu->size, MiB);
}

void soil_all(const struct gpu *gpu)
{
	soil_by(gpu, 0);
}

void assert_all_clean(const struct gpu *gpu)
{
	assert_zeros(gpu->base, gpu->size, 0);
}

uint64_t scrub_progress(const struct gpu *gpu)
{
	return gpu_sysfs_number(gpu, SCRUB_PROGRESS);
}

const char *scrub_end(const struct gpu *gpu)
{
	static char state[32];
	struct pollfd p = { .events = POLLPRI };
	uint64_t end = now_ms() + SCRUB_STUCK_MS;
	ssize_t len;

	p.fd = open(gpu_file(gpu, "nvgrace_gpu/scrub_state"), O_RDONLY);
	assert_true(p.fd >= 0);
	for (;;) {
		len = pread(p.fd, state, sizeof(state) - 1, 0);
		assert_true(len > 0);
		state[len] = 0;
		state[strcspn(state, "\n")] = 0;
		if (strcmp(state, "scrubbing"))
			break;
		/* The kernel notifies pollers of this attribute. */
		if (poll(&p, 1, SCRUB_STUCK_MS) != 1 || now_ms() > end)
			fail_msg("%s is still being scrubbed, at %llu bytes",
				 gpu->name, (unsigned long long)scrub_progress(gpu));
	}
	close(p.fd);
	return state;
}

/* ---- suspend ------------------------------------------------------------ */

/* How long it sleeps: seconds in which a processor does nothing else. */
#define PM_TEST_DELAY	"/sys/module/suspend/parameters/pm_test_delay"

/* Milliseconds that tasks have to freeze. */
#define FREEZE_TIMEOUT	"/sys/power/pm_freeze_timeout"

bool host_can_suspend(void)
{
	bool can = !write_file("/sys/power/pm_test", "freezer");

	if (can && !access(PM_TEST_DELAY, W_OK))
		must_write_file(PM_TEST_DELAY, "1");
	if (can)
		must_write_file(FREEZE_TIMEOUT, "300000");
	return can;
}

void suspend_host(void)
{
	must_write_file("/sys/power/state", "freeze");
}

static void call_sleeper(const char *step)
{
	int ret = load_file("/tests/sleeper.ko");

	if (ret && ret != -EEXIST)
		fail_msg("sleeper.ko: %s", strerror(-ret));
	must_write_file("/sys/module/sleeper/parameters/step", step);
}

void host_sleeps(void)
{
	call_sleeper("prepare");
}

void host_wakes(void)
{
	call_sleeper("complete");
	assert_int_equal(unload("sleeper"), 0);
}

void host_hibernates(void)
{
	call_sleeper("prepare");
	call_sleeper("freeze");
	host_wakes();
}

unsigned long setting(const char *name, unsigned long usual)
{
	const char *value = getenv(name);

	return value ? strtoul(value, NULL, 0) : usual;
}
