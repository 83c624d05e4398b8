// SPDX-License-Identifier: GPL-2.0-only
/*
 * Measures with the kernel's tracer how long preemption or interrupts are off
 * anywhere while 1 GiB of each part is read and written. bench.py runs it where
 * the kernel has the tracer, and prints its output. These times include other
 * work of the kernel, and of the host that emulates it.
 */
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib.h"

#define TRACING	"/sys/kernel/tracing/"

#define RUNS	5

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

/* How 1 GiB is moved. The last way does not use the driver. */
enum way { READ, WRITE, NEITHER };

static long moving(struct vfio *v, unsigned int index, char *buf, enum way way)
{
	uint64_t pos = REGION(index);

	must_write_file(TRACING "tracing_on", "1");
	must_write_file(TRACING "tracing_max_latency", "0");
	if (way == NEITHER)
		memcpy(buf, buf + GiB / 2, GiB / 2);
	else
		assert_int_equal(way == WRITE ? vfio_write(v, pos, buf, GiB) :
						vfio_read(v, pos, buf, GiB), GiB);
	must_write_file(TRACING "tracing_on", "0");
	return longest();
}

/*
 * Delays by the driver occur in each run, those by the emulating host only in
 * some. So the minimum of several runs counts.
 */
static void measure(struct vfio *v, unsigned int index, char *buf, enum way way,
		    const char *what)
{
	long us, least = LONG_MAX, most = 0;
	int i;

	for (i = 0; i < RUNS; i++) {
		us = moving(v, index, buf, way);
		least = us < least ? us : least;
		most = us > most ? us : most;
	}
	printf("says: preemption or interrupts off: %s: ", what);
	printf("at most %ld us in the calmest of %d runs, %ld us in the others\n",
	       least, RUNS, most);
}

static void preemption_and_interrupts(void **state)
{
	struct vfio v;
	char *buf;

	vfio_start(&v, "parts");
	buf = mmap(NULL, GiB, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	assert_true(buf != MAP_FAILED);
	must_write_file(TRACING "current_tracer", "preemptirqsoff");
	/* Map the windows and allocate the pages. */
	moving(&v, USEMEM, buf, WRITE);
	moving(&v, RESMEM, buf, WRITE);
	measure(&v, USEMEM, buf, READ, "usemem, read of 1 GiB");
	measure(&v, USEMEM, buf, WRITE, "usemem, write of 1 GiB");
	measure(&v, RESMEM, buf, READ, "resmem, read of 1 GiB");
	measure(&v, RESMEM, buf, WRITE, "resmem, write of 1 GiB");
	measure(&v, USEMEM, buf, NEITHER, "for comparison, a copy without the driver");
	must_write_file(TRACING "current_tracer", "nop");
	vfio_stop(&v);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(preemption_and_interrupts),
	};

	return cmocka_run_group_tests_name("off", tests, NULL, NULL);
}
