// SPDX-License-Identifier: GPL-2.0-only
/*
 * The tracepoints of docs/tracing.md: their format, and whether their fields
 * are right.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib.h"
#include "waits.h"

/* A buffer of its own, since the host may be tracing, too. */
#define TRACING		"/sys/kernel/tracing/instances/nvgrace-gpu-tests"
#define EVENTS		TRACING "/events/nvgrace_gpu/"

/* No event takes longer. */
#define NS_MAX	2000000000000ULL

static void start_tracing(void)
{
	must_write_file(TRACING "/trace", "");
	must_write_file(EVENTS "enable", "1");
}

static char *log_text, *log_next;

/* Stops tracing; event() then reads what was recorded. */
static void stop_tracing(void)
{
	must_write_file(EVENTS "enable", "0");
	free(log_text);
	log_text = proc_text(TRACING "/trace");
	log_next = log_text;
}

/*
 * Returns the text of the next event @name of @gpu, after the device's address;
 * NULL if there are no more.
 */
static const char *event(const struct gpu *gpu, const char *name)
{
	static char line[512];
	char key[64];
	char *found;

	snprintf(key, sizeof(key), " nvgrace_gpu_%s: %s ", name, gpu->addr);
	found = strstr(log_next, key);
	if (!found)
		return NULL;
	found += strlen(key);
	log_next = strchrnul(found, '\n');
	snprintf(line, sizeof(line), "%.*s", (int)(log_next - found), found);
	return line;
}

static const char *need(const struct gpu *gpu, const char *name)
{
	const char *line = event(gpu, name);

	if (!line)
		fail_msg("no event %s in:\n%s", name, log_text);
	return line;
}

/*
 * The next event @name must be @text and a time that is neither zero nor
 * absurd; returns the time.
 */
static uint64_t need_timed(const struct gpu *gpu, const char *name,
			   const char *text)
{
	const char *line = need(gpu, name), *ns = strstr(line, " ns=");
	uint64_t time;

	if (!ns || strlen(text) != (size_t)(ns - line) ||
	    strncmp(line, text, ns - line))
		fail_msg("%s: \"%s\" instead of \"%s\"", name, line, text);
	time = strtoull(ns + 4, NULL, 10);
	assert_in_range(time, 1, NS_MAX);
	return time;
}

/*
 * How old the state was at the next look that found the memory ready; 0 if there is
 * none.
 */
static uint64_t ready_after_ns(const struct gpu *gpu)
{
	const char *line;

	while ((line = event(gpu, "ready")))
		if (strstr(line, "result=0 "))
			return strtoull(strstr(line, "since_ns=") + 9, NULL, 10);
	return 0;
}

/* The fields in their order, with size in bytes and signedness. */
static const struct {
	const char *event;
	const char *fields;
} formats[] = {
	{ "wait", "when 1 0, result 4 1, ns 8 0, " },
	{ "ready", "c2c 4 0, hbm 4 0, range 4 0, result 4 1, since_ns 8 0, " },
	{ "mmap", "bar 1 0, offset 8 0, size 8 0, result 4 1, " },
	{ "fault", "address 8 0, pfn 8 0, order 4 0, result 4 0, ns 8 0, " },
	{ "reset", "cause 1 0, " },
};

static void the_fields_are_those_documented(void **state)
{
	char path[128], all[512], expected[512], *text, *line, *rest;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(formats); i++) {
		size_t len = 0;

		snprintf(path, sizeof(path), EVENTS "nvgrace_gpu_%s/format",
			 formats[i].event);
		text = proc_text(path);
		rest = text;
		all[0] = '\0';
		while ((line = strsep(&rest, "\n"))) {
			char name[64];
			int size, sign;

			if (sscanf(line, "\tfield:%*s %63[^;]; offset:%*d; size:%d; signed:%d;",
				   name, &size, &sign) != 3 ||
			    !strncmp(name, "common_", 7) ||
			    strstr(line, "common_"))
				continue;
			len += snprintf(all + len, sizeof(all) - len, "%s %d %d, ",
					name, size, sign);
		}
		free(text);
		snprintf(expected, sizeof(expected),
			 "domain 4 0, bus 1 0, devfn 1 0, %s", formats[i].fields);
		assert_string_equal(all, expected);
	}
}

static void binding_tells_how_long_it_waited(void **state)
{
	const struct gpu *gpu = gpu_find("gh200");
	volatile uint32_t *bar0;
	uint64_t begin;
	int status;
	pid_t pid;
	bool again;

	do {
		bar0 = gpu_hold(gpu);
		start_tracing();
		waits_begin();
		begin = now_ms();
		pid = fork();
		if (!pid)
			_exit(gpu_bind(gpu) != 0);
		usleep(300000);
		gpu_release(gpu, bar0);
		again = waits_again();
		assert_int_equal(waitpid(pid, &status, 0), pid);
		stop_tracing();
	} while (again && status);
	assert_int_equal(status, 0);
	/* Since the bind, before which there was no state. */
	assert_in_range(ready_after_ns(gpu), 1, (now_ms() - begin + 1) * 1000000);
	assert_true(need_timed(gpu, "wait", "when=bind result=0") / 1000000 <=
		    now_ms() - begin);
	assert_null(event(gpu, "wait"));
}

static void resets_tell_their_cause(void **state)
{
	const struct gpu *gpu = gpu_find("gh200");
	const char *line;

	assert_int_equal(gpu_bind(gpu), 0);
	start_tracing();
	vfio_open(&v, gpu);
	stop_tracing();
	/* vfio-pci-core resets the device when it enables it. */
	do {
		line = event(gpu, "reset");
	} while (line && !strcmp(line, "cause=reset"));
	if (!line)
		fail_msg("no reset at open in:\n%s", log_text);
	assert_string_equal(line, "cause=open");
	assert_null(event(gpu, "reset"));

	start_tracing();
	assert_int_equal(vfio_reset(&v), 0);
	stop_tracing();
	assert_string_equal(need(gpu, "reset"), "cause=reset");
	assert_null(event(gpu, "reset"));
}

static void mappings_and_refusals_are_told(void **state)
{
	char expected[128];
	struct vfio_region r;
	void *refused;
	int err;

	start_tracing();
	vfio_map(&v, USEMEM, 2 * MiB, 2 * MiB, PROT_READ, MAP_SHARED, NULL);
	vfio_region(&v, RESMEM, &r);
	refused = vfio_map(&v, RESMEM, r.area_size, page, PROT_READ, MAP_SHARED,
			   &err);
	stop_tracing();
	assert_ptr_equal(refused, MAP_FAILED);
	assert_int_equal(err, -EINVAL);
	assert_string_equal(need(v.gpu, "mmap"),
			    "bar=4 offset=0x200000 size=0x200000 result=0");
	snprintf(expected, sizeof(expected),
		 "bar=2 offset=%#llx size=%#llx result=-22",
		 (unsigned long long)r.area_size, (unsigned long long)page);
	assert_string_equal(need(v.gpu, "mmap"), expected);
}

static void faults_tell_address_pfn_order_and_time(void **state)
{
	unsigned long long address, pfn, ns, offset = 3 * MiB + 5;
	unsigned int order, done = 0;
	char result[64];
	const char *line;
	char *map;

	map = vfio_map(&v, USEMEM, 0, 4 * MiB, RW, MAP_SHARED, NULL);
	start_tracing();
	((volatile char *)map)[offset] = 1;
	stop_tracing();
	while ((line = event(v.gpu, "fault"))) {
		int fields = sscanf(line, "address=%llx pfn=%llx order=%u result=%63s ns=%llu",
				    &address, &pfn, &order, result, &ns);

		assert_int_equal(fields, 5);
		assert_int_equal(address & ~(page - 1),
				 (uintptr_t)(map + offset) & ~(page - 1));
		/* On hardware, addresses are in no message. */
		assert_true(pfn == (v.gpu->base + offset) / page);
		assert_in_range(ns, 1, NS_MAX);
		if (!strcmp(result, "NOPAGE"))
			done++;
		else if (strcmp(result, "FALLBACK") && strcmp(result, "RETRY"))
			fail_msg("a fault with the result %s", result);
	}
	assert_int_equal(done, 1);
}

/* Returns false if the test must begin anew. */
static bool first_touch_is_told(void)
{
	uint64_t looks = host_counter(v.gpu, "c2c_reads");
	struct beside *read;
	bool again;

	waits_begin();
	vfio_unready_after_resets(&v);
	assert_int_equal(vfio_reset(&v), 0);
	start_tracing();
	read = beside(read_a_byte, &v);
	/* A read that has looked in vain waits. */
	host_wait_counter(v.gpu, "c2c_reads", looks + 1);
	/* Still waiting: the event comes at the end. */
	assert_waits(read);
	vfio_make_ready(&v);
	again = waits_again();
	assert_true(ended(read) == 1 || again);
	assert_int_equal(read_a_byte(&v), 1);
	stop_tracing();
	return !again;
}

static void the_first_touch_after_a_reset_tells_its_wait(void **state)
{
	vfio_start(&v, "gh200");
	while (!first_touch_is_told())
		;
	need_timed(v.gpu, "wait", "when=use result=0");
	/* An access that finds the memory ready does not wait. */
	assert_null(event(v.gpu, "wait"));
}

/* The registers may read ready for some milliseconds after a reset. */
static void a_scrub_looks_twice_and_at_its_end(void **state)
{
	const struct gpu *gpu = gpu_smallest();
	unsigned int looks = 1;
	uint64_t first, last, next;

	assert_int_equal(gpu_bind(gpu), 0);
	start_tracing();
	assert_int_equal(gpu_sysfs_write(gpu, "nvgrace_gpu/scrub", "1"), 0);
	assert_string_equal(scrub_end(gpu), "clean");
	stop_tracing();
	first = ready_after_ns(gpu);
	for (last = first; (next = ready_after_ns(gpu)); looks++)
		last = next;
	/* All since the same reset: two 100 ms apart, and one after the zeros. */
	assert_in_range(first, 1, NS_MAX);
	assert_in_range(last, first + 100000000, NS_MAX);
	assert_in_range(looks, 3, 100);
}

static int make_instance(void **state)
{
	/* Without what a killed run has left there. */
	rmdir(TRACING);
	assert_return_code(mkdir(TRACING, 0700), errno);
	return 0;
}

static int remove_instance(void **state)
{
	return rmdir(TRACING);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(the_fields_are_those_documented),
	cmocka_unit_test(resets_tell_their_cause),
	OPEN("gh200", mappings_and_refusals_are_told),
	OPEN("gh200", faults_tell_address_pfn_order_and_time),
};

static const struct CMUnitTest lab_tests[] = {
	cmocka_unit_test(binding_tells_how_long_it_waited),
	cmocka_unit_test(the_first_touch_after_a_reset_tells_its_wait),
	cmocka_unit_test(a_scrub_looks_twice_and_at_its_end),
};

const struct case_group groups[] = {
	{ "this-driver carve-out tracing", CASES(tests), make_instance, remove_instance },
	{ "lab", CASES(lab_tests), make_instance, remove_instance },
	{ }
};
