// SPDX-License-Identifier: GPL-2.0-only
/*
 * Compares how fast the driver scrubs memory with as many threads of user space
 * that call memset() on a mapping of the same memory. bench.py runs it and prints
 * its output. The time that the driver spends on caches does not count, because
 * user space does not clean them.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib.h"

#define TRACING	"/sys/kernel/tracing/"
#define RUNS	5

/* Bytes that a thread, or a worker of the driver, takes at a time. */
#define STEP	(16 * MiB)

static char *maps[2];
static uint64_t sizes[2], next[2];

static void *zero(void *first)
{
	size_t i, part;
	uint64_t at;

	for (i = 0; i < 2; i++) {
		part = (i + (size_t)first) % 2;
		while ((at = __atomic_fetch_add(&next[part], STEP,
						__ATOMIC_RELAXED)) < sizes[part])
			memset(maps[part] + at, 0, at + STEP < sizes[part] ?
			       STEP : sizes[part] - at);
	}
	return NULL;
}

/* MB/s of user space, the best of RUNS. */
static double by_threads(const struct gpu *gpu, unsigned int threads)
{
	static const unsigned int indexes[] = { USEMEM, RESMEM };
	pthread_t thread[64];
	struct vfio v;
	double best = 0;
	unsigned int i, run;

	assert_true(threads <= ARRAY_SIZE(thread));
	vfio_open(&v, gpu);
	for (i = 0; i < 2; i++) {
		struct vfio_region r;

		vfio_region(&v, indexes[i], &r);
		sizes[i] = r.area_size;
		maps[i] = vfio_map(&v, indexes[i], 0, sizes[i],
				   PROT_READ | PROT_WRITE, MAP_SHARED, NULL);
	}
	/* The first run takes the faults. It does not count. */
	for (run = 0; run <= RUNS; run++) {
		uint64_t start = now_ms();
		double rate;

		next[0] = 0;
		next[1] = 0;
		for (i = 0; i < threads; i++)
			pthread_create(&thread[i], NULL, zero,
				       (void *)(size_t)(i % 2));
		for (i = 0; i < threads; i++)
			pthread_join(thread[i], NULL);
		rate = (sizes[0] + sizes[1]) / 1e3 / (now_ms() - start);
		best = run && rate > best ? rate : best;
	}
	for (i = 0; i < 2; i++)
		munmap(maps[i], sizes[i]);
	vfio_close(&v);
	return best;
}

/* MB/s of the driver, by its tracepoint, and how many workers it had. */
static double by_driver(const struct gpu *gpu, unsigned int *workers,
			double *with_caches)
{
	unsigned long long written, ns, flush_ns;
	double best = 0;
	char line[512];
	int run, found;

	must_write_file(TRACING "events/nvgrace_gpu/nvgrace_gpu_scrub/enable", "1");
	for (run = 0; run < RUNS; run++) {
		const char *at = NULL;
		double rate;
		FILE *f;

		must_write_file(TRACING "trace", "");
		assert_int_equal(gpu_sysfs_write(gpu, "nvgrace_gpu/scrub", "1"),
				 0);
		assert_string_equal(scrub_end(gpu), "clean");
		f = fopen(TRACING "trace", "r");
		assert_non_null(f);
		while (!at && fgets(line, sizeof(line), f))
			at = strstr(line, "bytes=");
		fclose(f);
		assert_non_null(at);
		found = sscanf(at,
			       "bytes=%*u ns=%llu flush_ns=%llu workers=%u result=0 written=%llu",
			       &ns, &flush_ns, workers, &written);
		assert_int_equal(found, 4);
		rate = written * 1e3 / (ns - flush_ns / *workers);
		if (rate > best) {
			best = rate;
			*with_caches = written * 1e3 / ns;
		}
	}
	return best;
}

static void scrubbing_and_memset(void **state)
{
	const struct gpu *gpu = gpu_find("parts");
	double driver, threads, with_caches;
	unsigned int workers;

	assert_int_equal(gpu_bind(gpu), 0);
	driver = by_driver(gpu, &workers, &with_caches);
	threads = by_threads(gpu, workers);
	printf("says: scrubbing by %u workers: %.0f MB/s, memset by as many threads: %.0f MB/s, ",
	       workers, driver, threads);
	printf("ratio %.2f; with caches: %.0f MB/s\n", driver / threads, with_caches);
	assert_int_equal(gpu_unbind(gpu), 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(scrubbing_and_memset),
	};

	return cmocka_run_group_tests_name("scrub", tests, NULL, NULL);
}
