// SPDX-License-Identifier: GPL-2.0-only
/*
 * With the parameter scrub on, the next user must never see what the previous
 * one left. Before each step, the runner fills the memory from outside the
 * machine, and checks it from there afterwards (tests/lab/gpu_memory.py).
 *
 * Campaigns set ROUNDS.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/pci_regs.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lib.h"

#define PARAMETER	"/sys/module/" DRIVER "/parameters/scrub"
#define STATE		"nvgrace_gpu/scrub_state"

/* What takes longer is stuck, not slow. */
#define STUCK_MS	300000

/* An open that waits for a scrub ends on its own after more than two of these. */
#define OPEN_ENDS_MS	100000

/* The smallest GPU with both parts: 512 MiB of usemem, 1 GiB of resmem. */
#define SMALL		"s1h"

/* 64 MiB and some bytes, all of it usemem. */
#define TINY		"tinymem"

/* It has 256 s to get ready after a reset. */
#define PATIENT		"cxllong"

/* Fifths of a second of random operations. */
#define ROUNDS	setting("ROUNDS", 25)

/* ---- events of the kernel for udev -------------------------------------- */

struct event {
	char text[8192];
	ssize_t length;
};

/* A kernel without CONFIG_NET has none. */
static bool events_exist(void)
{
	return !access("/proc/net", F_OK);
}

static int events_listen(void)
{
	struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = 1 };
	int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC,
			NETLINK_KOBJECT_UEVENT), size = 8 << 20;

	assert_return_code(fd, errno);
	assert_return_code(setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size,
				      sizeof(size)), errno);
	assert_return_code(bind(fd, (struct sockaddr *)&address,
				sizeof(address)), errno);
	return fd;
}

static void event_next(int fd, struct event *event)
{
	event->length = recv(fd, event->text, sizeof(event->text) - 1, 0);
	assert_return_code(event->length, errno);
	event->text[event->length] = 0;
}

/* A property that the event lacks is "". */
static const char *event_property(const struct event *event, const char *name)
{
	const char *at = event->text;
	size_t length = strlen(name);

	for (; at < event->text + event->length; at += strlen(at) + 1)
		if (!strncmp(at, name, length) && at[length] == '=')
			return at + length + 1;
	return "";
}

static uint64_t event_number(const struct event *event, const char *name)
{
	return strtoull(event_property(event, name), NULL, 10);
}

/* ---- steps -------------------------------------------------------------- */

static void assert_state(const struct gpu *gpu, const char *wanted)
{
	char state[32];

	gpu_sysfs_read(gpu, STATE, state, sizeof(state));
	assert_string_equal(state, wanted);
}

static bool is_scrubbing(const struct gpu *gpu)
{
	return gpu_sysfs_is(gpu, STATE, "scrubbing");
}

/* A bound GPU that isn't in use becomes clean, and its memory is zero. */
static void assert_becomes_clean(const struct gpu *gpu)
{
	assert_string_equal(scrub_end(gpu), "clean");
	assert_clean(gpu);
	assert_int_equal(scrub_progress(gpu), gpu->size);
	/* The kernel must not keep a mapping either, which this indicates. */
	assert_true(gpu_sysfs_is(gpu, "nvgrace_gpu/readiness", "unknown"));
}

/* The GPU is disabled and asleep. */
static void assert_becomes_idle(const struct gpu *gpu)
{
	uint64_t end = now_ms() + STUCK_MS;
	char enabled[8], power[32];
	bool late;

	do {
		late = now_ms() > end;
		gpu_sysfs_read(gpu, "enable", enabled, sizeof(enabled));
		gpu_sysfs_read(gpu, "power/runtime_status", power,
			       sizeof(power));
		if (!strcmp(enabled, "0") && !strcmp(power, "suspended"))
			return;
		usleep(10000);
	} while (!late);
	fail_msg("%s: enable is %s, power/runtime_status is %s", gpu->name,
		 enabled, power);
}

static uint64_t number(const struct gpu *gpu, const char *file)
{
	char path[64];

	snprintf(path, sizeof(path), "nvgrace_gpu/%s", file);
	return gpu_sysfs_number(gpu, path);
}

static void assert_result(const struct gpu *gpu, const char *wanted)
{
	char text[32];

	gpu_sysfs_read(gpu, "nvgrace_gpu/scrub_result", text, sizeof(text));
	assert_string_equal(text, wanted);
}

/*
 * Waits for the next event about a scrub of the GPU, and compares it with what
 * it should be. Returns the milliseconds that it names.
 */
static uint64_t assert_event(int fd, const struct gpu *gpu, const char *result,
			     uint64_t count, uint64_t bytes)
{
	struct event event;

	do
		event_next(fd, &event);
	while (!*event_property(&event, "NVGRACE_GPU_SCRUB"));
	assert_string_equal(event_property(&event, "ACTION"), "change");
	assert_string_equal(event_property(&event, "PCI_SLOT_NAME"), gpu->addr);
	assert_string_equal(event_property(&event, "NVGRACE_GPU_SCRUB"), result);
	assert_int_equal(event_number(&event, "NVGRACE_GPU_SCRUB_COUNT"), count);
	assert_int_equal(event_number(&event, "NVGRACE_GPU_SCRUB_BYTES"), bytes);
	assert_true(event_number(&event, "NVGRACE_GPU_SCRUB_TIME") > 0);
	return event_number(&event, "NVGRACE_GPU_SCRUB_MS");
}

static void bind_gpu(const struct gpu *gpu)
{
	assert_int_equal(gpu_bind(gpu), 0);
}

static void unbind(const struct gpu *gpu)
{
	assert_int_equal(gpu_unbind(gpu), 0);
}

/* Writes to both parts, at both ends, by both mmap and pwrite. */
static void leave_something(struct vfio *dev)
{
	static const unsigned int indexes[] = { USEMEM, RESMEM };
	size_t i;
	char data[64];

	fill(data, sizeof(data), 13);
	for (i = 0; i < 2; i++) {
		struct vfio_region r;
		char *map;

		vfio_region(dev, indexes[i], &r);
		if (!r.areas)
			continue;
		map = vfio_map(dev, indexes[i], 0, r.area_size, RW, MAP_SHARED,
			       NULL);
		memset(map, 0xa5, page);
		memset(map + r.area_size - page, 0xa5, page);
		munmap(map, r.area_size);
		assert_int_equal(vfio_write(dev, REGION(indexes[i]) +
					    r.area_size / 2 + 5, data,
					    sizeof(data)), sizeof(data));
	}
}

/* That of the case, and its name in its row. */
static const struct gpu *gpu;

static int setup(void **state)
{
	gpu = gpu_find(*state);
	scrub_set_parameter(true);
	return 0;
}

/* Children that a test has not killed yet. */
static pid_t children[10];

static pid_t fork_child(void)
{
	pid_t *child = children;

	while (*child)
		child++;
	assert_true(child < children + ARRAY_SIZE(children));
	*child = fork();
	assert_true(*child >= 0);
	return *child;
}

static void kill_child(pid_t pid)
{
	size_t i;
	int status;

	for (i = 0; i < ARRAY_SIZE(children); i++)
		if (children[i] == pid)
			children[i] = 0;
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
}

/* From its next reset on, the GPU PATIENT is not ready until it is released. */
static void hold(void)
{
	host_ask(NULL, 0, "inactive_after_reset " PATIENT);
}

static void release_after(unsigned int ms)
{
	host_ask(NULL, 0, "after_reset " PATIENT " 0");
	host_ask(NULL, 0, "ready " PATIENT " %u", ms);
}

/* Undoes what a failed test has left. */
static int teardown(void **state)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(children); i++)
		if (children[i])
			kill_child(children[i]);
	release_after(0);
	host_ask(NULL, 0, "after_reset " TINY " 0");
	host_ask(NULL, 0, "soil_at_reset " SMALL " 0 0");
	/* The host's memory. */
	host_ask(NULL, 0, "drop %#llx %#llx", (unsigned long long)gpu->base,
		 (unsigned long long)gpu->size);
	return 0;
}

/* ---- off ---------------------------------------------------------------- */

static void it_is_off_unless_asked_for(void **state)
{
	scrub_set_parameter(false);
	soil_all(gpu);
	bind_gpu(gpu);
	assert_state(gpu, "off");
	vfio_open(&v, gpu);
	assert_state(gpu, "off");
	vfio_close(&v);
	assert_state(gpu, "off");
	unbind(gpu);
	host_ask(NULL, 0, "is_soiled %#llx %#llx",
		 (unsigned long long)gpu->base, (unsigned long long)gpu->size);
}

/* ---- when --------------------------------------------------------------- */

static void binding_clears_what_was_there(void **state)
{
	soil_all(gpu);
	bind_gpu(gpu);
	assert_becomes_clean(gpu);
	unbind(gpu);
	assert_all_clean(gpu);
}

static void closing_clears_what_a_user_left(void **state)
{
	bind_gpu(gpu);
	vfio_open(&v, gpu);
	assert_state(gpu, "dirty");
	leave_something(&v);
	vfio_close(&v);
	assert_becomes_clean(gpu);
	assert_all_clean(gpu);
}

static void a_mapping_that_outlives_the_file_counts_as_use(void **state)
{
	char *map;

	bind_gpu(gpu);
	vfio_open(&v, gpu);
	map = vfio_map(&v, USEMEM, 0, 65536, RW, MAP_SHARED, NULL);
	vfio_close(&v);
	assert_state(gpu, "dirty");
	strcpy(map, "mine");
	assert_string_equal(map, "mine");
	munmap(map, 65536);
	assert_becomes_clean(gpu);
}

/* The file descriptor of the group in the last child that has opened one. */
static int group_fd;

/* Opens in a child, which sends the result through the pipe @told. */
static pid_t open_in_a_child(const struct gpu *gpu, int *told)
{
	int pipes[2];
	pid_t pid;

	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	/* The child's first file gets the lowest number that is free. */
	group_fd = dup(pipes[0]);
	close(group_fd);
	pid = fork_child();
	if (!pid) {
		int ret = vfio_try_open(&v, gpu);

		if (!ret)
			leave_something(&v);
		if (write(pipes[1], &ret, sizeof(ret)) != sizeof(ret))
			_exit(1);
		for (;;)
			pause();
	}
	close(pipes[1]);
	*told = pipes[0];
	return pid;
}

static int result_of_child(int told)
{
	int ret;

	assert_int_equal(read(told, &ret, sizeof(ret)), sizeof(ret));
	close(told);
	return ret;
}

/* The same, until the child waits in the open for a scrub. */
static pid_t wait_in_a_child(const struct gpu *gpu, int *told)
{
	pid_t pid = open_in_a_child(gpu, told);

	wait_until_in(pid, SYS_ioctl, group_fd);
	return pid;
}

static void a_killed_user_leaves_nothing(void **state)
{
	pid_t pid;
	int told;

	bind_gpu(gpu);
	pid = open_in_a_child(gpu, &told);
	assert_int_equal(result_of_child(told), 0);
	assert_state(gpu, "dirty");
	soil(gpu);
	kill_child(pid);
	assert_becomes_clean(gpu);
}

static void an_open_waits_for_the_scrub(void **state)
{
	int i;

	soil(gpu);
	bind_gpu(gpu);
	for (i = 0; i < 3; i++) {
		/* Opens at once, when the scrub has hardly begun. */
		vfio_open(&v, gpu);
		assert_clean(gpu);
		assert_state(gpu, "dirty");
		soil(gpu);
		vfio_close(&v);
	}
	assert_becomes_clean(gpu);
}

/* The parameter is set later: no scrub was started, so the open starts it. */
static void an_open_begins_what_was_not_wanted_before(void **state)
{
	scrub_set_parameter(false);
	soil(gpu);
	bind_gpu(gpu);
	assert_state(gpu, "off");
	scrub_set_parameter(true);
	assert_state(gpu, "unknown");
	vfio_open(&v, gpu);
	assert_clean(gpu);
	vfio_close(&v);
	assert_becomes_clean(gpu);
}

/* ---- unbinding ---------------------------------------------------------- */

#define LATE	"no progress for 60 s"

/*
 * Clean after @step, which leaves something and unbinds. Unbinding gives up
 * after a minute. If a pause of the machine has taken that, the step is
 * repeated.
 */
static void clean_after(void (*step)(const struct gpu *gpu),
			const struct gpu *gpu)
{
	unsigned int tries = 0;

	do {
		assert_true(++tries < 10);
		klog_mark();
		step(gpu);
	} while (klog_count(LATE));
	assert_clean(gpu);
}

/* What was there before the bind */
static void soil_and_bind(const struct gpu *gpu)
{
	soil(gpu);
	bind_gpu(gpu);
	unbind(gpu);
}

/* A use. The scrub after it waits for memory that is not ready. */
static void bind_and_hold(const struct gpu *gpu)
{
	bind_gpu(gpu);
	assert_becomes_clean(gpu);
	hold();
	vfio_open(&v, gpu);
	soil(gpu);
	vfio_close(&v);
}

/* What a user left */
static void bind_and_soil(const struct gpu *gpu)
{
	bind_gpu(gpu);
	vfio_open(&v, gpu);
	soil(gpu);
	vfio_close(&v);
	unbind(gpu);
}

/* What was left while the parameter was off */
static void soil_and_bind_before_wanted(const struct gpu *gpu)
{
	scrub_set_parameter(false);
	soil(gpu);
	bind_gpu(gpu);
	scrub_set_parameter(true);
	unbind(gpu);
}

static void unbinding_waits_for_the_scrub(void **state)
{
	clean_after(soil_and_bind, gpu);
	clean_after(bind_and_soil, gpu);
	clean_after(soil_and_bind_before_wanted, gpu);
}

/* How often the GPU was seen whole, and as it is in a reset. */
static long whole, resetting;

/* The result is how many reads failed. */
static long look_for_resets(void *arg)
{
	int config = *(int *)arg;
	uint16_t command = 0;
	uint32_t bar0 = 0;
	long failed = 0;

	while (still_wanted()) {
		failed += pread(config, &command, 2, PCI_COMMAND) != 2 ||
			  pread(config, &bar0, 4, PCI_BASE_ADDRESS_0) != 4;
		if (command & PCI_COMMAND_MEMORY && bar0 & PCI_BASE_ADDRESS_MEM_MASK)
			whole++;
		else
			resetting++;
	}
	return failed;
}

/* Binding and unbinding reset the GPU themselves, with the device lock held. */
static void in_a_reset_config_space_is_locked(void **state)
{
	static void (*const steps[])(const struct gpu *gpu) = {
		soil_and_bind, soil_and_bind_before_wanted,
	};
	int config = gpu_config_open(gpu, O_RDONLY);
	struct beside *looks;
	size_t i;

	/* The first bind lets the GPU decode memory. */
	soil_and_bind(gpu);
	for (i = 0; i < ARRAY_SIZE(steps); i++) {
		uint64_t before = host_counter(gpu, "resets");

		whole = 0;
		resetting = 0;
		looks = beside(look_for_resets, &config);
		clean_after(steps[i], gpu);
		assert_int_equal(ended(looks), 0);
		assert_true(whole > 0);
		assert_int_equal(resetting, 0);
		assert_true(host_counter(gpu, "resets") > before);
	}
	close(config);
}

static void remove_the_module(const struct gpu *gpu)
{
	soil(gpu);
	bind_gpu(gpu);
	assert_int_equal(module_unload(), 0);
	assert_int_equal(gpu_sysfs_write(gpu, "driver_override", "\n"), 0);
	assert_int_equal(module_load(), 0);
	scrub_set_parameter(true);
}

static void removing_the_module_waits_for_the_scrub(void **state)
{
	clean_after(remove_the_module, gpu);
}

static long unbind_beside(void *gpu)
{
	return gpu_unbind_here(gpu);
}

/*
 * While an unbind holds the device lock, vfio-pci-core can't reset the GPU at
 * close. Without a reset, the GPU may go on writing.
 */
static void a_gpu_at_work_is_reset_before_its_scrub(void **state)
{
	uint64_t end = now_ms() + STUCK_MS;
	struct beside *unbinding;
	char stopped[8];
	int i;

	bind_gpu(gpu);
	vfio_open(&v, gpu);
	host_ask(NULL, 0, "engine %s %#llx", gpu->name,
		 (unsigned long long)gpu->base + 12345);
	unbinding = beside(unbind_beside, gpu);
	/* The attribute group disappears as soon as unbinding has begun. */
	while (gpu_sysfs_write(gpu, STATE, "") != -ENOENT && now_ms() < end)
		usleep(1000);
	vfio_close(&v);
	assert_int_equal(ended(unbinding), 0);
	host_ask(stopped, sizeof(stopped), "engine_stopped %s", gpu->name);
	assert_string_equal(stopped, "1");
	assert_clean(gpu);

	/* The same if the host's own driver has left the GPU writing. */
	for (i = 0; i < 2; i++) {
		scrub_set_parameter(i);
		host_ask(NULL, 0, "engine %s %#llx", gpu->name,
			 (unsigned long long)gpu->base + 12345);
		bind_gpu(gpu);
		if (!i)
			assert_int_equal(gpu_sysfs_write(gpu, "nvgrace_gpu/scrub",
							 "1"), 0);
		assert_becomes_clean(gpu);
		host_ask(stopped, sizeof(stopped), "engine_stopped %s",
			 gpu->name);
		assert_string_equal(stopped, "1");
		if (!i)
			unbind(gpu);
	}
	unbind(gpu);
	assert_clean(gpu);
}

/* ---- resets and power --------------------------------------------------- */

/*
 * Waits until a scrub has written the first zeros, and resets the GPU by the
 * sysfs file @reset. Returns true if the reset came during the scrub.
 */
static bool reset_in_the_middle(const struct gpu *gpu, const char *reset)
{
	bool before, after;

	while (is_scrubbing(gpu) && scrub_progress(gpu) < 64 * MiB)
		usleep(100);
	before = is_scrubbing(gpu);
	must_write_file(reset, "1");
	after = is_scrubbing(gpu);
	return before && after;
}

/*
 * This reset restores the old content, so the bytes cleared before don't count.
 */
static void begins_anew_after(const struct gpu *gpu, const char *reset)
{
	unsigned int tries = 0;

	host_ask(NULL, 0, "soil_at_reset %s %#llx %#llx", gpu->name,
		 (unsigned long long)gpu->base, 128 * MiB);
	soil(gpu);
	bind_gpu(gpu);
	while (!reset_in_the_middle(gpu, reset)) {
		assert_true(++tries < 50);
		soil(gpu);
		assert_int_equal(gpu_sysfs_write(gpu, "nvgrace_gpu/scrub", "1"),
				 0);
	}
	host_ask(NULL, 0, "soil_at_reset %s 0 0", gpu->name);
	assert_becomes_clean(gpu);
	unbind(gpu);
}

static void a_scrub_begins_anew_after_a_reset(void **state)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/reset", gpu->addr);
	begins_anew_after(gpu, path);
}

/* This resets everything on the bus. The other function has no driver. */
static void a_scrub_begins_anew_after_a_reset_of_its_bus(void **state)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/reset_subordinate",
		 gpu->port);
	if (access(path, F_OK)) {
		print_message("# this kernel has no reset_subordinate\n");
		return;
	}
	begins_anew_after(gpu, path);
}

static void resets_of_all_kinds_by_the_user_before_keep_nothing(void **state)
{
	uint16_t flr = 0x8000;
	int i;

	bind_gpu(gpu);
	for (i = 0; i < 3; i++) {
		vfio_open(&v, gpu);
		soil(gpu);
		if (i < 2) {
			assert_int_equal(i ? vfio_hot_reset(&v) : vfio_reset(&v), 0);
		} else {
			/* Device Control of the model's PCI Express capability. */
			assert_int_equal(vfio_write(&v, CONFIG + 0x68, &flr, 2), 2);
			assert_int_equal(gpu_sysfs_write(gpu, "reset", "1"), 0);
		}
		vfio_close(&v);
		assert_becomes_clean(gpu);
	}
}

/* Low power by vfio, and D3hot by config space, at the time of the close. */
static void a_gpu_closed_asleep_is_woken_up_for_it(void **state)
{
	uint16_t d3hot = 3;

	bind_gpu(gpu);
	vfio_open(&v, gpu);
	soil(gpu);
	assert_int_equal(vfio_set_feature(&v, VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY,
					  NULL, 0), 0);
	vfio_close(&v);
	assert_becomes_clean(gpu);

	vfio_open(&v, gpu);
	soil(gpu);
	/* Control of the model's power management capability. */
	assert_int_equal(vfio_write(&v, CONFIG + 0x44, &d3hot, 2), 2);
	vfio_close(&v);
	assert_becomes_clean(gpu);
}

/* ---- late and never ready ----------------------------------------------- */

static void it_waits_until_the_memory_is_ready(void **state)
{
	host_ask(NULL, 0, "after_reset %s 1500", gpu->name);
	soil(gpu);
	bind_gpu(gpu);
	vfio_open(&v, gpu);
	assert_clean(gpu);
	assert_state(gpu, "dirty");
	soil(gpu);
	vfio_close(&v);
	assert_becomes_clean(gpu);

	/* Also of a scrub on demand while the parameter is off. */
	scrub_set_parameter(false);
	soil(gpu);
	assert_int_equal(gpu_sysfs_write(gpu, "reset", "1"), 0);
	assert_int_equal(gpu_sysfs_write(gpu, "nvgrace_gpu/scrub", "1"), 0);
	vfio_open(&v, gpu);
	assert_clean(gpu);
}

/* Counts new lines about a slow unbind. Sets *@late if one says it gave up. */
static int slow_lines(bool *late)
{
	char line[512];
	int level, count = 0;

	while (klog_next(&level, line, sizeof(line))) {
		count += !!strstr(line, "shutdown waits for a scrub: 0 of ");
		*late |= !!strstr(line, LATE);
	}
	return count;
}

/* Waits for @wanted such lines, unless it gives up or ends. Returns the number. */
static int slow_lines_of(const struct beside *unbinding, int wanted, bool *late)
{
	uint64_t end = now_ms() + STUCK_MS;
	int count = 0;

	while (count < wanted && !*late && !unbinding->over) {
		assert_true(now_ms() < end);
		usleep(10000);
		count += slow_lines(late);
	}
	return count;
}

/*
 * The scrub waits for memory that is not ready, and the unbind for the scrub.
 * Returns false if a pause of the machine has taken the unbind's time.
 */
static bool unbind_slowly(const struct gpu *gpu)
{
	struct beside *unbinding;
	bool late = false;
	int count;

	klog_mark();
	bind_and_hold(gpu);
	unbinding = beside(unbind_beside, gpu);
	/* It says so when its first sleep is over. */
	count = slow_lines_of(unbinding, 1, &late);
	release_after(0);
	assert_int_equal(ended(unbinding), 0);
	/* After that, each half minute. */
	count += slow_lines(&late);
	assert_true(count >= 1 || late);
	return !late;
}

/* One long sleep would be a hung task for the kernel. */
static void unbinding_sleeps_in_pieces_and_says_so(void **state)
{
	unsigned int tries = 0;

	while (!unbind_slowly(gpu))
		assert_true(++tries < 10);
	assert_clean(gpu);
}

static void unbinding_ends_an_open_that_waits(void **state)
{
	struct pollfd p = { .events = POLLIN };
	struct beside *unbinding;
	bool open_ended;
	pid_t pid;

	bind_and_hold(gpu);
	pid = wait_in_a_child(gpu, &p.fd);
	unbinding = beside(unbind_beside, gpu);
	/* Before the memory is ready; later, the open would end by itself. */
	open_ended = poll(&p, 1, OPEN_ENDS_MS) == 1;
	if (!open_ended)
		kill_child(pid);
	release_after(0);
	assert_int_equal(ended(unbinding), 0);
	assert_true(open_ended);
	assert_int_equal(result_of_child(p.fd), -ENODEV);
	kill_child(pid);
	assert_clean(gpu);
}

#define QUEUE	"/sys/bus/workqueue/devices/nvgrace_gpu_scrub/"

/* An administrator may restrict the workqueue. */
static void one_worker_at_a_time_gets_there_too(void **state)
{
	must_write_file(QUEUE "max_active", "1");
	must_write_file(QUEUE "nice", "19");
	soil(gpu);
	bind_gpu(gpu);
	assert_becomes_clean(gpu);
	unbind(gpu);
	must_write_file(QUEUE "max_active", "256");
	must_write_file(QUEUE "nice", "0");
}

/* ---- the host's sleep --------------------------------------------------- */

/*
 * Two opens wait, one with a lock that the other needs, for a scrub in
 * progress.
 */
static void waiting_for_it_does_not_keep_the_host_awake(void **state)
{
	int told[2], i;
	pid_t pid[2];

	bind_and_hold(gpu);
	pid[0] = wait_in_a_child(gpu, &told[0]);
	/* The group has one user at a time, for whom its open waits. */
	pid[1] = open_in_a_child(gpu, &told[1]);
	wait_until_in(pid[1], SYS_openat, -1);
	assert_state(gpu, "scrubbing");
	assert_true(host_can_suspend());
	suspend_host();
	assert_state(gpu, "scrubbing");
	release_after(0);
	/* What the suspend has interrupted continues. */
	assert_int_equal(result_of_child(told[0]), 0);
	for (i = 0; i < 2; i++)
		kill_child(pid[i]);
	close(told[1]);
	assert_becomes_clean(gpu);
}

static void unbind_after_hibernation(const struct gpu *gpu)
{
	bind_gpu(gpu);
	assert_becomes_clean(gpu);
	host_hibernates();
	/* Another kernel may have used the GPU before this one resumed. */
	assert_state(gpu, "unknown");
	soil(gpu);
	unbind(gpu);
}

static void after_hibernation_nothing_is_known(void **state)
{
	clean_after(unbind_after_hibernation, gpu);
}

/* Without a way to reset it, a GPU can't be scrubbed. */
static void forbid_resets(const struct gpu *gpu, bool forbid)
{
	assert_int_equal(gpu_sysfs_write(gpu, "reset_method",
					 forbid ? "\n" : "default"), 0);
}

/* The host hibernates after the unbind, whose scrub is the last. */
static void a_scrub_of_an_unbind_outlasts_hibernation(void **state)
{
	int events = events_listen();
	struct beside *unbinding;

	scrub_set_parameter(false);
	bind_gpu(gpu);
	hold();
	scrub_set_parameter(true);
	klog_mark();
	unbinding = beside(unbind_beside, gpu);
	assert_true(klog_wait("shutdown waits for a scrub: 0 of ", STUCK_MS));
	host_hibernates();
	/* The next sleep doesn't keep it waiting. */
	host_sleeps();
	release_after(0);
	assert_int_equal(ended(unbinding), 0);
	host_wakes();
	assert_event(events, gpu, "clean", 1, gpu->size);
	assert_clean(gpu);
	close(events);
}

/* Without the parameter, nothing scrubs the GPU after that. */
static void a_scrub_that_an_unbind_overtakes_leaves_a_record(void **state)
{
	int events = events_listen();

	scrub_set_parameter(false);
	bind_gpu(gpu);
	host_sleeps();
	klog_mark();
	assert_int_equal(gpu_sysfs_write(gpu, "nvgrace_gpu/scrub", "1"), 0);
	unbind(gpu);
	assert_event(events, gpu, "failed", 1, 0);
	assert_int_equal(klog_count("the device is being unbound (error -19); the GPU is released"),
			 1);
	host_wakes();
	close(events);
}

/*
 * Tasks freeze only after the kernel has told its subscribers, and those that
 * unbind only when they are back in user space.
 */
static void what_is_closed_and_unbound_before_the_host_sleeps_is_cleared(void **state)
{
	struct beside *unbinding;
	bool over, late = false;

	bind_gpu(gpu);
	vfio_open(&v, gpu);
	soil(gpu);
	host_sleeps();
	vfio_close(&v);
	klog_mark();
	unbinding = beside(unbind_beside, gpu);
	/* While it waits, it says so each half minute. */
	slow_lines_of(unbinding, 3, &late);
	over = unbinding->over;
	host_wakes();
	assert_int_equal(ended(unbinding), 0);
	assert_true(over);
	assert_clean(gpu);
}

static void hibernation_makes_nothing_better(void **state)
{
	scrub_set_parameter(false);
	bind_gpu(gpu);
	forbid_resets(gpu, true);
	assert_int_equal(gpu_sysfs_write(gpu, "nvgrace_gpu/scrub", "1"), 0);
	assert_string_equal(scrub_end(gpu), "failed");
	host_hibernates();
	assert_state(gpu, "failed");
	forbid_resets(gpu, false);
}

/* Its CXL DVSEC limits the wait to 1 s. For others it is 30 s. */
static void memory_that_is_never_ready_is_never_shown(void **state)
{
	int i, events = -1;

	if (events_exist())
		events = events_listen();
	soil(gpu);
	bind_gpu(gpu);
	assert_becomes_clean(gpu);
	if (events >= 0)
		assert_event(events, gpu, "clean", 1, gpu->size);
	vfio_open(&v, gpu);
	soil(gpu);
	host_ask(NULL, 0, "after_reset cxl never");
	klog_mark();
	vfio_close(&v);
	assert_string_equal(scrub_end(gpu), "failed");
	assert_becomes_idle(gpu);
	assert_int_equal(klog_count("GPU memory could not be cleared"), 1);
	assert_result(gpu, "failed");
	if (events >= 0) {
		assert_event(events, gpu, "failed", 2, 0);
		close(events);
	}
	for (i = 0; i < 2; i++) {
		assert_int_equal(vfio_try_open(&v, gpu), -EIO);
		assert_state(gpu, "failed");
	}
	assert_becomes_idle(gpu);
	/* Ready again after the next reset, with which the next open begins. */
	host_ask(NULL, 0, "after_reset cxl 0");
	vfio_open(&v, gpu);
	assert_clean(gpu);
	vfio_close(&v);
	assert_becomes_clean(gpu);
	assert_becomes_idle(gpu);
}

/* ---- on demand ---------------------------------------------------------- */

static void on_demand_it_is_done_while_the_parameter_is_off(void **state)
{
	scrub_set_parameter(false);
	soil(gpu);
	bind_gpu(gpu);
	assert_int_equal(gpu_sysfs_write(gpu, "nvgrace_gpu/scrub", "1"), 0);
	/* The first scrub may still run or have ended: neither is an error. */
	assert_int_equal(gpu_sysfs_write(gpu, "nvgrace_gpu/scrub", "1"), 0);
	assert_becomes_clean(gpu);
	vfio_open(&v, gpu);
	assert_state(gpu, "off");
	assert_int_equal(gpu_sysfs_write(gpu, "nvgrace_gpu/scrub", "1"), -EBUSY);
	vfio_close(&v);
	assert_state(gpu, "off");
	assert_int_equal(gpu_sysfs_write(gpu, "nvgrace_gpu/scrub", "0"), -EINVAL);
	assert_int_equal(gpu_sysfs_write(gpu, "nvgrace_gpu/scrub", "x"), -EINVAL);
	assert_state(gpu, "off");

	/* An open waits for the scrub even with the parameter off. */
	soil(gpu);
	assert_int_equal(gpu_sysfs_write(gpu, "nvgrace_gpu/scrub", "1"), 0);
	vfio_open(&v, gpu);
	assert_clean(gpu);
}

/* ---- a GPU that flaps --------------------------------------------------- */

static long flap(void *bar0)
{
	volatile uint32_t *unready = (uint32_t *)bar0 + MODEL_UNREADY / 4;
	unsigned int i;

	while (still_wanted()) {
		*unready = 0;
		usleep(70000);
		/* Again and again, since a reset makes it ready. */
		for (i = 0; i < 20; i++) {
			*unready = UINT32_MAX;
			usleep(20000);
		}
	}
	*unready = 0;
	return 0;
}

/*
 * No look finds such a GPU ready twice. Its time is over nevertheless, and the
 * unbind that waits for the scrub ends.
 */
static void a_gpu_that_flaps_does_not_keep_unbinding_waiting(void **state)
{
	volatile uint32_t *bar0;
	struct beside *flaps;

	/* Before a driver has it. */
	bar0 = gpu_map_bar0(gpu);
	bind_gpu(gpu);
	assert_string_equal(scrub_end(gpu), "clean");
	vfio_open(&v, gpu);
	soil(gpu);
	flaps = beside(flap, (void *)bar0);
	klog_mark();
	vfio_close(&v);
	unbind(gpu);
	ended(flaps);
	gpu_unmap_bar0(bar0);
	assert_int_equal(gpu_sysfs_write(gpu, "enable", "0"), 0);
	assert_int_equal(klog_count("it is not ready or can't be reached"), 1);
	clean_after(soil_and_bind, gpu);
}

/*
 * A CPU may read at any time what has a mapping, and a scrub maps all. The pass ends
 * before it finds the GPU unready.
 */
static void a_scrub_that_finds_memory_unready_has_no_mapping_of_it(void **state)
{
	volatile uint32_t *bar0 = gpu_map_bar0(gpu), *unready = bar0 + MODEL_UNREADY / 4;

	bind_gpu(gpu);
	do {
		*unready = 0;
		assert_string_equal(scrub_end(gpu), "clean");
		assert_int_equal(gpu_sysfs_write(gpu, "nvgrace_gpu/scrub", "1"), 0);
		while (!kernel_mappings(gpu, NULL) && is_scrubbing(gpu))
			;
		*unready = UINT32_MAX;
		while (is_scrubbing(gpu) &&
		       gpu_sysfs_is(gpu, "nvgrace_gpu/readiness", "ready"))
			usleep(1000);
	} while (!is_scrubbing(gpu));
	assert_int_equal(kernel_mappings(gpu, NULL), 0);
	*unready = 0;
	assert_string_equal(scrub_end(gpu), "clean");
	unbind(gpu);
	gpu_unmap_bar0(bar0);
	assert_int_equal(gpu_sysfs_write(gpu, "enable", "0"), 0);
}

/* ---- the record --------------------------------------------------------- */

static void each_scrub_leaves_a_record(void **state)
{
	time_t before, end;
	uint64_t ms, count;
	int events;

	scrub_set_parameter(false);
	klog_mark();
	events = events_listen();
	bind_gpu(gpu);
	assert_result(gpu, "none");
	assert_int_equal(number(gpu, "scrub_count"), 0);
	assert_int_equal(number(gpu, "scrub_time"), 0);
	assert_int_equal(number(gpu, "scrub_ms"), 0);

	before = time(NULL);
	assert_int_equal(gpu_sysfs_write(gpu, "nvgrace_gpu/scrub", "1"), 0);
	ms = assert_event(events, gpu, "clean", 1, gpu->size);
	assert_state(gpu, "clean");
	assert_becomes_clean(gpu);
	assert_result(gpu, "clean");
	assert_int_equal(number(gpu, "scrub_count"), 1);
	assert_int_equal(number(gpu, "scrub_ms"), ms);
	/* time() may be a tick behind what the driver reads. */
	end = number(gpu, "scrub_time");
	assert_in_range(end, before, time(NULL) + 1);

	/* A use changes nothing in the record. The scrub after it does. */
	vfio_open(&v, gpu);
	assert_result(gpu, "clean");
	assert_int_equal(number(gpu, "scrub_count"), 1);
	assert_int_equal(number(gpu, "scrub_time"), end);
	scrub_set_parameter(true);
	vfio_close(&v);
	assert_event(events, gpu, "clean", 2, gpu->size);
	assert_becomes_clean(gpu);
	count = number(gpu, "scrub_count");
	assert_int_equal(count, 2);

	/* The scrub of an unbind has no attributes, but line and event. */
	vfio_open(&v, gpu);
	scrub_set_parameter(false);
	vfio_close(&v);
	scrub_set_parameter(true);
	klog_mark();
	unbind(gpu);
	assert_event(events, gpu, "clean", 3, gpu->size);
	assert_clean(gpu);
	close(events);
}

/* A client that opens and closes all the time can't fill the log. */
static void its_lines_are_limited(void **state)
{
	int scrubs = 0, lines = 0;

	klog_mark();
	bind_gpu(gpu);
	for (;;) {
		assert_string_equal(scrub_end(gpu), "clean");
		assert_int_equal(number(gpu, "scrub_count"), ++scrubs);
		lines += klog_count("overwriting the last");
		if (lines < scrubs || scrubs == 2000)
			break;
		assert_int_equal(gpu_sysfs_write(gpu, "nvgrace_gpu/scrub", "1"),
				 0);
	}
	assert_in_range(scrubs, 50, 1999);
}

/* The GPU is released with what its user left, and that is said. */
static void a_scrub_that_can_not_begin_leaves_a_record(void **state)
{
	int events = events_listen();
	struct beside *unbinding;

	bind_gpu(gpu);
	assert_event(events, gpu, "clean", 1, gpu->size);
	vfio_open(&v, gpu);
	soil(gpu);
	forbid_resets(gpu, true);
	/* With the lock that an unbind holds, the close can't reset its bus. */
	klog_mark();
	unbinding = beside(unbind_beside, gpu);
	assert_true(klog_wait("blocked until released by user", STUCK_MS));
	vfio_close(&v);
	assert_int_equal(ended(unbinding), 0);
	assert_event(events, gpu, "failed", 2, 0);
	forbid_resets(gpu, false);
	assert_int_equal(klog_count("(error -25); the GPU is released with its content"),
			 1);
	close(events);
}

/* ---- which bytes -------------------------------------------------------- */

/*
 * All of the GPU's memory must be cleared to the last byte, and nothing around
 * it. binding_clears_what_was_there compares each byte of both parts.
 */
static void an_odd_size_is_cleared_to_its_end(void **state)
{
	unsigned long long end = gpu->base + gpu->size, last = end - MiB;

	soil(gpu);
	host_ask(NULL, 0, "soil %#llx %#llx", last, MiB);
	host_ask(NULL, 0, "soil %#llx 65536", gpu->base - 65536ULL);
	host_ask(NULL, 0, "soil %#llx 65536", end);
	bind_gpu(gpu);
	assert_becomes_clean(gpu);
	unbind(gpu);
	assert_range_clean(last, MiB);
	host_ask(NULL, 0, "is_soiled %#llx 65536", gpu->base - 65536ULL);
	host_ask(NULL, 0, "is_soiled %#llx 65536", end);
}

/* ---- several users ------------------------------------------------------ */

/*
 * Of two opens that wait for one GPU, one is killed. The other gets it clean.
 */
static void of_two_that_wait_one_may_be_killed(void **state)
{
	int told;
	pid_t pid;

	hold();
	soil(gpu);
	bind_gpu(gpu);
	pid = wait_in_a_child(gpu, &told);
	kill_child(pid);
	close(told);
	assert_state(gpu, "scrubbing");
	/* The next open comes sooner, unless something is paused. */
	release_after(300);
	vfio_open(&v, gpu);
	assert_clean(gpu);
	vfio_close(&v);
	assert_becomes_clean(gpu);
}

/* ---- again and again ---------------------------------------------------- */

/* With shorter pauses, a scrub would hardly come to its end on a busy machine. */
static void pause_up_to(unsigned int ms)
{
	usleep(rand() % (ms * 1000));
}

/* Writes to all of the memory until it is killed. */
static void use_until_killed(const struct gpu *gpu)
{
	uint16_t command = PCI_COMMAND_MEMORY;
	struct vfio_region r;
	char *map;

	while (vfio_try_open(&v, gpu))
		usleep(1000);
	/* As VMMs do: an open beside a reset may have found decoding off. */
	assert_int_equal(vfio_write(&v, CONFIG + PCI_COMMAND, &command, 2), 2);
	vfio_region(&v, USEMEM, &r);
	map = vfio_map(&v, USEMEM, 0, r.area_size, RW, MAP_SHARED, NULL);
	for (;;)
		memset(map, 0xa5, r.area_size);
}

static void reset_for_ever(const struct gpu *gpu)
{
	for (;;) {
		gpu_sysfs_write(gpu, "reset", "1");
		/* A scrub needs some time without one. */
		pause_up_to(8000);
	}
}

static void bind_for_ever(const struct gpu *gpu)
{
	for (;;) {
		gpu_bind(gpu);
		pause_up_to(6000);
		gpu_unbind_here(gpu);
	}
}

/* A device that the driver refuses, beside the others. */
static void bind_in_vain_for_ever(const struct gpu *gpu)
{
	for (;;) {
		gpu_bind(gpu_find("onlybase"));
		pause_up_to(1200);
	}
}

static void replug_for_ever(const struct gpu *gpu)
{
	for (;;) {
		gpu_sysfs_write(gpu, "remove", "1");
		gpu_rescan(gpu);
		pause_up_to(12000);
	}
}

static void sleep_for_ever(const struct gpu *gpu)
{
	for (;;) {
		host_sleeps();
		pause_up_to(1200);
		host_wakes();
		host_hibernates();
		pause_up_to(12000);
	}
}

#define CPU	"/sys/devices/system/cpu/cpu1/online"

static void switch_a_cpu_for_ever(const struct gpu *gpu)
{
	for (;;) {
		write_file(CPU, "0");
		pause_up_to(4000);
		write_file(CPU, "1");
		pause_up_to(4000);
	}
}

static pid_t in_a_child(void (*fn)(const struct gpu *gpu),
			const struct gpu *gpu)
{
	pid_t pid = fork_child();

	if (!pid) {
		srand(getpid());
		fn(gpu);
		_exit(0);
	}
	return pid;
}

/* While others do this and users are killed: whenever an open succeeds, memory is zero. */
static void nobody_sees_anything_when_all_happens_at_once(void **state)
{
	static void (*const others[])(const struct gpu *gpu) = {
		reset_for_ever, bind_for_ever, bind_in_vain_for_ever,
		replug_for_ever, sleep_for_ever, switch_a_cpu_for_ever,
	};
	uint64_t end = now_ms() + ROUNDS * 200;
	unsigned int opened = 0, refused = 0, tries;
	unsigned int late = 0;
	pid_t child[ARRAY_SIZE(others)];
	char line[256];
	int level;
	size_t i;

	klog_mark();
	for (i = 0; i < ARRAY_SIZE(others); i++)
		child[i] = in_a_child(others[i], gpu);
	while (now_ms() < end || opened < 5) {
		pid_t user = in_a_child(use_until_killed, gpu);

		pause_up_to(2000);
		kill_child(user);
		/* The GPU may be unbound, or about to be, but not for ever. */
		for (tries = 0; vfio_try_open(&v, gpu); tries++) {
			assert_true(tries < 30000);
			usleep(10000);
		}
		refused += tries;
		opened++;
		assert_clean(gpu);
		soil(gpu);
		vfio_close(&v);
	}
	for (i = 0; i < ARRAY_SIZE(others); i++)
		kill_child(child[i]);
	/* The memory was always ready. */
	while (klog_next(&level, line, sizeof(line))) {
		if (strstr(line, LATE))
			late++;
		else if (strstr(line, "could not be cleared"))
			fail_msg("%s", line);
	}
	/* A pause of the machine takes the minute of one unbind. */
	assert_true(late < 3);
	printf("# %u opens found zeros, %u were refused\n", opened, refused);
	/* What was killed half-way. */
	gpu_rescan(gpu);
	write_file(CPU, "1");
	host_hibernates();
	if (gpu_bound(gpu))
		unbind(gpu);
	else
		assert_int_equal(gpu_sysfs_write(gpu, "driver_override", "\n"),
				 0);
	if (late || klog_count(LATE))
		clean_after(soil_and_bind, gpu);
	assert_clean(gpu);
	assert_int_equal(gpu_sysfs_write(gpu_find("onlybase"), "driver_override", "\n"), 0);
}

/* ---- its steps ---------------------------------------------------------- */

#define TRACING		"/sys/kernel/tracing/"
#define INSTANCE	TRACING "instances/scrub"
#define STEP		(16 * MiB)
#define END_STEPS	4

/* A part of a GPU, by the address of the driver's structure. */
struct part {
	unsigned long long address;
	unsigned int first;	/* steps seen before the end */
	unsigned int last;	/* and at the end */
};

/* Reads a step of a scrub from a line of the trace. */
static bool read_step(const char *line, char *task, unsigned long long *address,
		      unsigned int *step)
{
	const char *fields = strstr(line, " part=");
	unsigned long long offset;

	if (!fields || sscanf(line, " %63s", task) != 1 ||
	    sscanf(fields, " part=%llx offset=%llu", address, &offset) != 2)
		return false;
	*step = offset / STEP;
	return true;
}

static struct part *find_part(struct part *parts, unsigned long long address)
{
	while (parts->address && parts->address != address)
		parts++;
	parts->address = address;
	return parts;
}

/*
 * The last 64 MiB of both parts come after all else, one after the other, by one
 * worker. What follows overwrites some of it again.
 */
static void the_end_of_each_part_comes_last(void **state)
{
	const unsigned int all = gpu->size / STEP;
	struct part parts[3] = { };
	unsigned long long address;
	unsigned int seen = 0, step;
	char task[64], last[64] = "";
	char *text, *rest, *line;

	scrub_set_parameter(false);
	bind_gpu(gpu);
	must_write_file(TRACING "kprobe_events",
			"p:nvgrace_scrub_step nvgrace_gpu_rw_zero part=%x0:x64 offset=%x1:u64");
	assert_return_code(mkdir(INSTANCE, 0700), errno);
	must_write_file(INSTANCE "/events/kprobes/nvgrace_scrub_step/enable", "1");
	assert_int_equal(gpu_sysfs_write(gpu, "nvgrace_gpu/scrub", "1"), 0);
	assert_string_equal(scrub_end(gpu), "clean");
	must_write_file(INSTANCE "/events/kprobes/nvgrace_scrub_step/enable", "0");
	text = proc_text(INSTANCE "/trace");

	rest = text;
	while (seen < all && (line = strsep(&rest, "\n"))) {
		struct part *p;

		if (!read_step(line, task, &address, &step))
			continue;
		p = find_part(parts, address);
		assert_true(p < parts + 2);
		if (seen++ < all - 2 * END_STEPS) {
			p->first++;
		} else {
			assert_int_equal(step, p->first + p->last++);
			assert_string_equal(*last ? last : task, task);
			strcpy(last, task);
		}
	}
	assert_int_equal(seen, all);
	assert_int_equal(parts[0].last, END_STEPS);
	assert_int_equal(parts[1].last, END_STEPS);
	free(text);
}

/*
 * The bit that keeps user space from config space shares a word with those that a
 * runtime suspend changes without a lock. So an attempt that follows another one at
 * once takes the device lock after the suspend between them, not during it.
 */
static void an_attempt_begins_after_the_suspend_of_the_last_one(void **state)
{
	unsigned int suspends = 0, locks = 0, i;
	bool suspending = false;
	char *text, *rest, *line;

	bind_gpu(gpu);
	assert_string_equal(scrub_end(gpu), "clean");
	must_write_file(TRACING "kprobe_events", "p:nvgrace_scrub_lock pci_cfg_access_trylock");
	assert_return_code(mkdir(INSTANCE, 0700), errno);
	must_write_file(INSTANCE "/events/rpm/rpm_suspend/enable", "1");
	must_write_file(INSTANCE "/events/rpm/rpm_return_int/enable", "1");
	must_write_file(INSTANCE "/events/kprobes/nvgrace_scrub_lock/enable", "1");
	for (i = 0; i < 20; i++) {
		assert_int_equal(gpu_sysfs_write(gpu, "nvgrace_gpu/scrub", "1"), 0);
		assert_string_equal(scrub_end(gpu), "clean");
	}
	must_write_file(INSTANCE "/events/enable", "0");
	text = proc_text(INSTANCE "/trace");

	rest = text;
	while ((line = strsep(&rest, "\n"))) {
		if (strstr(line, " nvgrace_scrub_lock:")) {
			assert_false(suspending);
			locks++;
		} else if (strstr(line, " rpm_suspend:") && strstr(line, gpu->addr)) {
			suspending = true;
			suspends++;
		} else if (strstr(line, ": rpm_suspend+") && strstr(line, gpu->addr)) {
			suspending = false;
		}
	}
	assert_true(locks >= 20 && suspends > 0);
	free(text);
}

static int stop_tracing(void **state)
{
	if (!rmdir(INSTANCE))
		must_write_file(TRACING "kprobe_events", "\n");
	return teardown(state);
}

/*
 * An unbind waits for a step that does not end, but for no other one. At the
 * fourth line, more than a minute has gone by since the first.
 */
static void unbinding_gives_up_a_scrub_that_gets_no_further(void **state)
{
	struct beside *unbinding;
	int events = events_listen();
	int i;

	assert_int_equal(load_file("/tests/failing.ko"), 0);
	bind_gpu(gpu);
	assert_becomes_clean(gpu);
	assert_event(events, gpu, "clean", 1, gpu->size);
	vfio_open(&v, gpu);
	hold_failing(true);
	begin_failing("0", "nvgrace_gpu_rw_zero");
	vfio_close(&v);
	klog_mark();
	unbinding = beside(unbind_beside, gpu);
	for (i = 0; i < 4; i++)
		assert_true(klog_wait("shutdown waits for a scrub: 0 of ", STUCK_MS));
	klog_rewind();
	assert_int_equal(klog_count("could not be cleared"), 0);
	hold_failing(false);
	assert_int_equal(ended(unbinding), 0);
	assert_event(events, gpu, "failed", 2, 0);
	assert_int_equal(klog_count("no progress for 60 s at unbinding or shutdown (error -62)"),
			 1);
	end_failing("nvgrace_gpu_rw_zero");
	assert_int_equal(unload("failing"), 0);
	close(events);
}

/* Readiness has a limit of its own, for this GPU one of some minutes. */
static void unbinding_gives_up_no_scrub_that_waits_for_readiness(void **state)
{
	struct beside *unbinding;
	bool late = false;

	klog_mark();
	bind_and_hold(gpu);
	unbinding = beside(unbind_beside, gpu);
	slow_lines_of(unbinding, 4, &late);
	release_after(0);
	assert_int_equal(ended(unbinding), 0);
	assert_false(late);
	assert_clean(gpu);
}

/* ---- files -------------------------------------------------------------- */

static void the_files_are_what_they_should_be(void **state)
{
	const struct gpu *none = gpu_find("none");
	struct stat st;
	char path[128];

	bind_gpu(gpu);
	snprintf(path, sizeof(path),
		 "/sys/bus/pci/devices/%s/nvgrace_gpu/scrub", gpu->addr);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0200);
	assert_int_equal(stat(PARAMETER, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0644);
	assert_int_equal(access("/sys/bus/workqueue/devices/nvgrace_gpu_scrub/nice",
				W_OK), 0);
	unbind(gpu);
	bind_gpu(none);
	snprintf(path, sizeof(path),
		 "/sys/bus/pci/devices/%s/" STATE, none->addr);
	assert_int_equal(stat(path, &st), -1);
}

#define ON(gpu, name)		VARIANT(name, name, setup, teardown, gpu)
#define TRACED(gpu, name)	VARIANT(name, name, setup, stop_tracing, gpu)

static const struct CMUnitTest tests[] = {
	ON(TINY, it_is_off_unless_asked_for),
	ON(SMALL, binding_clears_what_was_there),
	ON(SMALL, closing_clears_what_a_user_left),
	ON(TINY, a_mapping_that_outlives_the_file_counts_as_use),
	ON(TINY, a_killed_user_leaves_nothing),
	ON(TINY, an_open_waits_for_the_scrub),
	ON(TINY, an_open_begins_what_was_not_wanted_before),
	ON(TINY, unbinding_waits_for_the_scrub),
	ON(TINY, removing_the_module_waits_for_the_scrub),
	ON(TINY, resets_of_all_kinds_by_the_user_before_keep_nothing),
	ON(TINY, a_gpu_closed_asleep_is_woken_up_for_it),
	ON(TINY, on_demand_it_is_done_while_the_parameter_is_off),
	ON(TINY, an_odd_size_is_cleared_to_its_end),
	ON(TINY, one_worker_at_a_time_gets_there_too),
	ON(TINY, the_files_are_what_they_should_be),
	ON(TINY, a_gpu_at_work_is_reset_before_its_scrub),
	ON(TINY, in_a_reset_config_space_is_locked),
	ON(TINY, it_waits_until_the_memory_is_ready),
	ON(PATIENT, of_two_that_wait_one_may_be_killed),
	ON(PATIENT, unbinding_sleeps_in_pieces_and_says_so),
	ON(PATIENT, unbinding_ends_an_open_that_waits),
	ON("cxl", memory_that_is_never_ready_is_never_shown),
};

static const struct CMUnitTest sleep_tests[] = {
	ON(TINY, after_hibernation_nothing_is_known),
	ON(TINY, hibernation_makes_nothing_better),
	ON(TINY, what_is_closed_and_unbound_before_the_host_sleeps_is_cleared),
};

static const struct CMUnitTest slow_sleep_tests[] = {
	ON(TINY, nobody_sees_anything_when_all_happens_at_once),
};

static const struct CMUnitTest sleep_event_tests[] = {
	ON(PATIENT, a_scrub_of_an_unbind_outlasts_hibernation),
	ON(TINY, a_scrub_that_an_unbind_overtakes_leaves_a_record),
};

/* Needs a kernel with events. */
static const struct CMUnitTest event_tests[] = {
	ON(TINY, each_scrub_leaves_a_record),
	ON(TINY, a_scrub_that_can_not_begin_leaves_a_record),
};

/* They scrub large memory, or again and again. */
static const struct CMUnitTest slow_tests[] = {
	ON(TINY, a_gpu_that_flaps_does_not_keep_unbinding_waiting),
	ON(SMALL, a_scrub_that_finds_memory_unready_has_no_mapping_of_it),
	ON(SMALL, a_scrub_begins_anew_after_a_reset),
	ON("neighbour", a_scrub_begins_anew_after_a_reset_of_its_bus),
	VARIANT(an_odd_size_of_resmem_is_cleared_to_its_end, an_odd_size_is_cleared_to_its_end,
		setup, teardown, "odd"),
	ON(TINY, its_lines_are_limited),
};

static const struct CMUnitTest traced_tests[] = {
	TRACED("gh200", the_end_of_each_part_comes_last),
};

static const struct CMUnitTest power_tests[] = {
	TRACED(TINY, an_attempt_begins_after_the_suspend_of_the_last_one),
};

/* Take minutes in which the machine has nothing to do. */
static const struct CMUnitTest late_tests[] = {
	ON(TINY, unbinding_gives_up_a_scrub_that_gets_no_further),
	ON(PATIENT, unbinding_gives_up_no_scrub_that_waits_for_readiness),
};

/* Needs a kernel with suspend. */
static const struct CMUnitTest suspend_tests[] = {
	ON(PATIENT, waiting_for_it_does_not_keep_the_host_awake),
};

const struct case_group groups[] = {
	{ "scrubs lab", CASES(tests) },
	{ "scrubs lab lab:sleeper CONFIG_PM_SLEEP", CASES(sleep_tests) },
	{ "scrubs lab lab:sleeper CONFIG_PM_SLEEP slow", CASES(slow_sleep_tests) },
	{ "scrubs lab lab:sleeper CONFIG_PM_SLEEP CONFIG_NET", CASES(sleep_event_tests) },
	{ "scrubs lab CONFIG_NET", CASES(event_tests) },
	{ "scrubs lab CONFIG_KPROBE_EVENTS slow", CASES(traced_tests) },
	{ "scrubs lab CONFIG_KPROBE_EVENTS", CASES(power_tests) },
	{ "scrubs lab CONFIG_KPROBES CONFIG_NET lab:failing late",
	  CASES(late_tests) },
	{ "scrubs lab slow", CASES(slow_tests) },
	{ "scrubs lab CONFIG_SUSPEND CONFIG_PM_SLEEP_DEBUG", CASES(suspend_tests) },
	{ }
};
