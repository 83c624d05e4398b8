// SPDX-License-Identifier: GPL-2.0-only
/*
 * How long the kernel's tracer sees preemption or interrupts off anywhere while
 * 1 GiB of each part is read and written.  bench.py runs it in a machine whose
 * kernel has the tracer, and prints what it says; other work of the kernel, and
 * of the host that emulates it, is in these times, too.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../vm/guest/lib.h"

#define TRACING	"/sys/kernel/tracing/"

static void set(const char *file, const char *value)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), TRACING "%s", file);
	fd = open(path, O_WRONLY);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, value, strlen(value)), strlen(value));
	close(fd);
}

/* Microseconds. */
static long longest(void)
{
	FILE *f = fopen(TRACING "tracing_max_latency", "r");
	long us = -1;

	assert_non_null(f);
	assert_int_equal(fscanf(f, "%ld", &us), 1);
	fclose(f);
	return us;
}

static long moving(struct vfio *v, unsigned int index, char *buf, bool write)
{
	uint64_t pos = REGION(index);

	set("tracing_on", "1");
	set("tracing_max_latency", "0");
	assert_int_equal(write ? vfio_write(v, pos, buf, GiB) :
				 vfio_read(v, pos, buf, GiB), GiB);
	set("tracing_on", "0");
	return longest();
}

static void preemption_and_interrupts(void **state)
{
	static const struct {
		unsigned int index;
		const char *name;
	} parts[] = { { USEMEM, "usemem" }, { RESMEM, "resmem" } };
	struct vfio v;
	size_t i;
	char *buf;

	vfio_start(&v, "parts");
	buf = mmap(NULL, GiB, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	assert_true(buf != MAP_FAILED);
	set("current_tracer", "preemptirqsoff");
	for (i = 0; i < ARRAY_SIZE(parts); i++) {
		/* The windows are mapped and the pages there. */
		moving(&v, parts[i].index, buf, true);
		printf("off: %s: at most %ld us in a read of 1 GiB, %ld us in a write\n",
		       parts[i].name,
		       moving(&v, parts[i].index, buf, false),
		       moving(&v, parts[i].index, buf, true));
	}
	set("current_tracer", "nop");
	vfio_stop(&v);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(preemption_and_interrupts),
	};

	return cmocka_run_group_tests_name("off", tests, NULL, NULL);
}
