// SPDX-License-Identifier: GPL-2.0-only
/*
 * Compares how fast the driver scrubs memory with as many threads of user space
 * that call memset() on a mapping of the same memory. bench.py runs it and prints
 * its output. The driver's time is that of the whole scrub: its looks at the
 * readiness registers, both passes and the caches, which user space does not clean.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib.h"

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

/* MB/s of the driver, by its record: a whole scrub, the best of RUNS. */
static double by_driver(const struct gpu *gpu)
{
	double best = 0, rate;
	int run;

	for (run = 0; run < RUNS; run++) {
		assert_int_equal(gpu_sysfs_write(gpu, "nvgrace_gpu/scrub", "1"),
				 0);
		assert_string_equal(scrub_end(gpu), "clean");
		rate = gpu->size / 1e3 /
		       gpu_sysfs_number(gpu, "nvgrace_gpu/scrub_ms");
		best = rate > best ? rate : best;
	}
	return best;
}

static void scrubbing_and_memset(void **state)
{
	const struct gpu *gpu = gpu_find("parts");
	unsigned int workers = sysconf(_SC_NPROCESSORS_ONLN);
	double driver, threads;

	assert_int_equal(gpu_bind(gpu), 0);
	driver = by_driver(gpu);
	threads = by_threads(gpu, workers);
	printf("says: scrubbing: %.0f MB/s, memset by %u threads: %.0f MB/s, ratio %.2f\n",
	       driver, workers, threads, driver / threads);
	assert_int_equal(gpu_unbind(gpu), 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(scrubbing_and_memset),
	};

	return cmocka_run_group_tests_name("scrub", tests, NULL, NULL);
}
