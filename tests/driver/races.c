// SPDX-License-Identifier: GPL-2.0-only
/*
 * Faults and reads into fresh mappings, concurrently with everything that
 * removes mappings; binding concurrently with readiness; two openers. A failed
 * race shows in the kernel's log, as a wrong value, or as a thread that hangs.
 *
 * Each of three workers does ROUNDS rounds.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/pci_regs.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib.h"

/* Two huge entries with 4K pages. Resets and mremap remove them as a whole. */
#define SIZE	(4 * MiB)
#define WORKERS	3

static const unsigned int indexes[2] = { USEMEM, RESMEM };
static unsigned int rounds;

/* The disturber puts the memory out of reach: accesses may fail, but not lie. */
static bool closing;

/*
 * Where a disturber maps, moves and unmaps what the workers access; twice SIZE.
 */
static char *arena;

struct worker {
	struct beside *beside;
	unsigned int number;
	void (*round)(struct worker *w, unsigned int i);
	/*
	 * A device file for this worker alone, or -1. The disturber posts
	 * @given and leaves it alone until the worker posts @closed: it has
	 * closed the file, or has ended and takes no more.
	 */
	int file;
	sem_t given, closed;
	atomic_bool ended;
	atomic_ulong done;
	unsigned long signals;
	char wrong[64];		/* the first error */
};

static struct worker workers[WORKERS];
static sem_t round_done;	/* posted once for each round */
static atomic_bool all_done;
static atomic_ulong disturbed;

/*
 * Writes to a page that may just have been unmapped. Returns 0 or the signal.
 * Unlike raises_sigbus(), it works in several threads at a time.
 */
static __thread void *volatile way_out;	/* a sigjmp_buf */

static void caught(int sig)
{
	if (!way_out)
		abort();
	siglongjmp(*(sigjmp_buf *)way_out, sig);
}

static int touch(char *at, char value)
{
	sigjmp_buf out;
	int sig = sigsetjmp(out, 1);

	if (!sig) {
		way_out = &out;
		*(volatile char *)at = value;
	}
	way_out = NULL;
	return sig;
}

static void catch_signals(void (*handler)(int))
{
	struct sigaction action = { .sa_handler = handler };

	sigaction(SIGBUS, &action, NULL);
	sigaction(SIGSEGV, &action, NULL);
}

static void note(struct worker *w, const char *what, long value)
{
	if (!w->wrong[0])
		snprintf(w->wrong, sizeof(w->wrong), "%s: %ld", what, value);
}

/*
 * Maps, writes, checks by pread and unmaps, through @device, which stays open.
 */
static void own_mapping(struct worker *w, int device, unsigned int i)
{
	/* Each worker has its own range in each part. */
	uint64_t pos = REGION(indexes[i % 2]) + w->number * 2 * SIZE +
		       (i / 2 % 2) * SIZE;
	/* Most have few pages: more of them meet what runs beside them. */
	unsigned int size = i % 8 < 6 ? 64 * KiB : SIZE;
	unsigned int at = i * 4096 % size;
	char *map = mmap(NULL, size, RW, MAP_SHARED, device, pos), back;
	int sig;

	if (map == MAP_FAILED) {
		note(w, "mmap", -errno);
		return;
	}
	sig = touch(map + at, i);
	w->signals += !!sig;
	if (sig && !(closing && sig == SIGBUS))
		note(w, "signal", sig);
	if (!sig && pread(device, &back, 1, pos + at) != 1) {
		if (!closing || errno != EIO)
			note(w, "pread", -errno);
	} else if (!sig && back != (char)i) {
		note(w, "byte", back);
	}
	munmap(map, size);
}

static void fault(struct worker *w, unsigned int i)
{
	own_mapping(w, v.device, i);
}

/* Reads from one part into a fresh mapping of the other. */
static void read_into_mapping(struct worker *w, unsigned int i)
{
	uint64_t pos = REGION(indexes[i % 2]) + w->number * 2 * SIZE;
	char *map = mmap(NULL, SIZE, RW, MAP_SHARED, v.device,
			 REGION(indexes[(i + 1) % 2]) + w->number * 2 * SIZE);
	ssize_t ret;

	if (map == MAP_FAILED) {
		note(w, "mmap", -errno);
		return;
	}
	ret = vfio_read(&v, pos, map + i * 4096 % (SIZE - 16384), 16384);
	if (ret != 16384)
		note(w, "read", ret);
	munmap(map, SIZE);
}

/*
 * The buffer is a mapping of the same memory, and overlaps by half. This hangs for ever
 * if the driver accesses user memory with a lock that a reset needs.
 */
static void io_into_own_mapping(struct worker *w, unsigned int i)
{
	uint64_t pos = REGION(indexes[i / 2 % 2]) + w->number * 2 * SIZE;
	char *map = mmap(NULL, SIZE, RW, MAP_SHARED, v.device, pos);
	ssize_t ret;

	if (map == MAP_FAILED) {
		note(w, "mmap", -errno);
		return;
	}
	ret = i % 2 ? vfio_write(&v, pos + SIZE / 2, map, SIZE) :
		      vfio_read(&v, pos + SIZE / 2, map, SIZE);
	if (ret != (ssize_t)SIZE)
		note(w, "read or write", ret);
	munmap(map, SIZE);
}

static void fault_in_arena(struct worker *w, unsigned int i)
{
	/* Advances by a prime number of pages each time. */
	int sig = touch(arena + i * 7 * 4096ULL % (2 * SIZE), i);

	w->signals += !!sig;
	/* The memory is always in reach, the mapping isn't. */
	if (sig == SIGBUS)
		note(w, "signal", sig);
}

static void read_into_arena(struct worker *w, unsigned int i)
{
	ssize_t ret = vfio_read(&v, REGION(indexes[i % 2]) + 64 * MiB,
				arena + i * 7 * 4096ULL % (2 * SIZE - 16384),
				16384);

	w->signals += ret == -EFAULT;
	if (ret <= 0 && ret != -EFAULT)
		note(w, "read", ret);
}

/* Uses the file that the disturber has handed over, while it closes its own. */
static void fault_by_given_file(struct worker *w, unsigned int i)
{
	unsigned int k;

	sem_wait(&w->given);
	for (k = 0; k < 32; k++)
		own_mapping(w, w->file, i + k);
	close(w->file);
	w->file = -1;
	sem_post(&w->closed);
	w->done += k - 1;
}

static long work(void *arg)
{
	struct worker *w = arg;

	/* On a slow machine, the disturber may hardly have begun. */
	while ((w->done < rounds || disturbed < 2) && !w->wrong[0]) {
		w->round(w, w->done);
		w->done++;
		sem_post(&round_done);
	}
	/* If a file is given to it now, nothing is to be waited for. */
	w->ended = true;
	sem_post(&w->closed);
	return 0;
}

static long wait_for_workers(void *arg)
{
	unsigned int i;

	for (i = 0; i < WORKERS; i++)
		ended(workers[i].beside);
	all_done = true;
	sem_post(&round_done);
	return 0;
}

static unsigned long rounds_done(void)
{
	unsigned long sum = 0;
	unsigned int i;

	for (i = 0; i < WORKERS; i++)
		sum += workers[i].done;
	return sum;
}

/* Says how far a long race is. Returns the tenths that are done. */
static unsigned int tell_progress(unsigned int told)
{
	unsigned int tenths = rounds_done() * 10 / (rounds * WORKERS);

	if (tenths > told && rounds >= 1000)
		print_message("# %u %% after %lu disturbances\n", tenths * 10,
			      disturbed);
	return tenths;
}

/*
 * Runs two workers of one kind and one of another until each has done its
 * rounds, and calls the disturber again and again meanwhile.
 */
static void race(void (*two)(struct worker *, unsigned int),
		 void (*one)(struct worker *, unsigned int),
		 int (*disturb)(unsigned int))
{
	unsigned long signals = 0;
	unsigned int tenths = 0;
	struct beside *waiter;
	unsigned int i;
	int ret = 0;

	all_done = false;
	disturbed = 0;
	sem_init(&round_done, 0, 0);
	catch_signals(caught);
	for (i = 0; i < WORKERS; i++) {
		workers[i] = (struct worker){ .number = i, .file = -1 };
		workers[i].round = i < 2 ? two : one;
		sem_init(&workers[i].given, 0, 0);
		sem_init(&workers[i].closed, 0, 0);
		workers[i].beside = beside(work, &workers[i]);
	}
	waiter = beside(wait_for_workers, NULL);
	/* Workers that wait for a file would hang if this loop ended early. */
	while (!all_done) {
		int this = disturb(disturbed);

		disturbed++;
		if (this && !ret)
			ret = this;
		tenths = tell_progress(tenths);
	}
	ended(waiter);
	catch_signals(SIG_DFL);
	for (i = 0; i < WORKERS; i++) {
		if (workers[i].wrong[0])
			fail_msg("worker %u, round %lu: %s", i,
				 (unsigned long)workers[i].done, workers[i].wrong);
		signals += workers[i].signals;
	}
	print_message("# %u rounds each, %lu disturbances, %lu accesses out of reach\n",
		      rounds, disturbed, signals);
	assert_int_equal(ret, 0);
}

static int reset(unsigned int i)
{
	unsigned int pause = i * 7 % 256;
	int ret = vfio_reset(&v);

	/*
	 * A reset takes 100 ms, and seconds with KASAN, which allocates and
	 * frees an eighth of each kernel mapping. If the next one followed at
	 * once, all workers would wait for it.
	 */
	while (!sem_trywait(&round_done))
		;
	while (pause-- && !all_done)
		sem_wait(&round_done);
	/* -EAGAIN: another thread holds the device's lock. */
	return ret == -EAGAIN ? 0 : ret;
}

/* Memory decoding is off in every other round. */
static int decode(unsigned int i)
{
	uint16_t command = i % 2 ? PCI_COMMAND_MEMORY : 0;

	usleep(1000);
	return vfio_write(&v, CONFIG + PCI_COMMAND, &command, 2) == 2 ? 0 : -EIO;
}

static int map_arena(unsigned int i)
{
	char *map = mmap(arena, SIZE, RW, MAP_SHARED | MAP_FIXED, v.device,
			 REGION(indexes[i % 2]) + 64 * MiB);

	return map == arena ? 0 : -errno;
}

static int unmap_and_map(unsigned int i)
{
	if (munmap(arena, SIZE))
		return -errno;
	sched_yield();
	return map_arena(i);
}

/* Moves the mapping between the two halves. */
static int move(unsigned int i)
{
	char *from = arena + i % 2 * SIZE, *to = arena + (i + 1) % 2 * SIZE;

	if (mremap(from, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, to) != to)
		return -errno;
	return 0;
}

/* Protects single pages, so that huge entries are split and restored. */
static int protect(unsigned int i)
{
	unsigned int at = i * page % SIZE;

	if (mprotect(arena + at, page, PROT_READ) ||
	    mprotect(arena + at, page, RW))
		return -errno;
	return i % 8 ? 0 : map_arena(i);
}

static void give_files(void)
{
	struct worker *w;

	for (w = workers; w < workers + WORKERS; w++) {
		w->file = dup(v.device);
		sem_post(&w->given);
	}
}

/*
 * Waits until the workers have closed their files, and closes those that no
 * worker takes any more.
 */
static void wait_for_files(void)
{
	struct worker *w;

	for (w = workers; w < workers + WORKERS; w++) {
		sem_wait(&w->closed);
		if (!w->ended)
			continue;
		if (w->file >= 0)
			close(w->file);
		w->file = -1;
		/* It will not close another one. */
		sem_post(&w->closed);
	}
}

/* The last user closes the device: this thread, or a worker that unmaps. */
static int close_and_open(unsigned int i)
{
	int ret;

	give_files();
	vfio_close(&v);
	wait_for_files();
	ret = vfio_try_open(&v, v.gpu);
	if (ret)
		v.device = -1;
	return ret;
}

static long unbind(void *gpu)
{
	return gpu_unbind_here(gpu);
}

static int unbind_and_bind(unsigned int i)
{
	struct beside *unbinding;
	int err;

	give_files();
	unbinding = beside(unbind, v.gpu);
	usleep(i * 137 % 3000);
	vfio_close(&v);
	wait_for_files();
	err = ended(unbinding);
	if (!err)
		err = gpu_bind(v.gpu);
	return err ?: vfio_try_open(&v, v.gpu);
}

/* Two workers of one kind and one of another, and what goes on beside them. */
struct kinds {
	void (*two)(struct worker *w, unsigned int i);
	void (*one)(struct worker *w, unsigned int i);
	int (*disturb)(unsigned int i);
};

static void faults_and_reads_end(void **state)
{
	const struct kinds *k = *state;

	closing = k->disturb == decode;
	/* For the others, a mapping would keep the device open. */
	if (k->two == fault_in_arena)
		assert_int_equal(map_arena(0), 0);
	race(k->two, k->one, k->disturb);
}

/*
 * The GPU is either bound or unbound, whenever it becomes ready or the binder
 * is killed.
 */
static void binding_beside_readiness_and_kills(void **state)
{
	const struct gpu *gpu = gpu_find("gh200");
	unsigned int i, bound = 0, killed = 0;
	volatile uint32_t *bar0;
	int status, ret;
	pid_t pid;

	for (i = 0; i < 2 + rounds / 100; i++) {
		bar0 = gpu_hold(gpu);
		pid = fork();
		assert_true(pid >= 0);
		if (!pid)
			_exit(gpu_bind(gpu) != 0);
		usleep(i * 7919 % 20000);
		if (i % 2)
			kill(pid, SIGKILL);
		gpu_release(gpu, bar0);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		if (WIFSIGNALED(status))
			killed++;
		else
			assert_int_equal(WEXITSTATUS(status), 0);
		ret = gpu_unbind(gpu);
		/* If it is killed too early, the bind doesn't happen. */
		assert_true(!ret || (ret == -ENODEV && WIFSIGNALED(status)));
		bound += !ret;
	}
	print_message("# bound %u times, killed %u times\n", bound, killed);
	assert_true(bound > 0);
}

static int open_all_the_time(const struct gpu *gpu, unsigned int count)
{
	struct vfio mine;
	unsigned int i;
	int ret;

	for (i = 0; i < count; ) {
		ret = vfio_try_open(&mine, gpu);
		if (ret == -EBUSY) {
			usleep(1000);
			continue;
		}
		if (ret || read_a_byte(&mine) != 1)
			return 1;
		vfio_close(&mine);
		i++;
	}
	return 0;
}

static void two_openers_in_turn(void **state)
{
	const struct gpu *gpu = gpu_find("gh200");
	pid_t pid[2];
	int i;

	assert_int_equal(gpu_bind(gpu), 0);
	for (i = 0; i < 2; i++) {
		pid[i] = fork();
		assert_true(pid[i] >= 0);
		if (!pid[i])
			_exit(open_all_the_time(gpu, 2 + rounds / 100));
	}
	for (i = 0; i < 2; i++)
		assert_int_equal(status_of_child(pid[i]), 0);
}

static int start(void **state)
{
	vfio_start(&v, "gh200");
	return 0;
}

static int clear_arena(void **state)
{
	mmap(arena, 2 * SIZE, PROT_NONE,
	     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
	return 0;
}

static int set_up(void **state)
{
	char *space = mmap(NULL, 3 * SIZE, PROT_NONE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	rounds = setting("ROUNDS", 100);
	assert_true(space != MAP_FAILED);
	arena = (char *)(((uintptr_t)space + SIZE - 1) & ~(SIZE - 1));
	return 0;
}

#define BESIDE(what, ...) \
	VARIANT(faults_and_reads_beside_##what, faults_and_reads_end, start, clear_arena, \
		&((struct kinds){ __VA_ARGS__ }))

static const struct CMUnitTest tests[] = {
	BESIDE(resets, fault, read_into_mapping, reset),
	VARIANT(io_into_the_own_mapping_beside_resets_ends, faults_and_reads_end, start,
		clear_arena, &((struct kinds){ io_into_own_mapping, fault, reset })),
	BESIDE(munmap, fault_in_arena, read_into_arena, unmap_and_map),
	BESIDE(mremap, fault_in_arena, read_into_arena, move),
	BESIDE(mprotect, fault_in_arena, read_into_arena, protect),
	BESIDE(decoding, fault, fault, decode),
	BESIDE(closing, fault_by_given_file, fault_by_given_file, close_and_open),
	cmocka_unit_test(two_openers_in_turn),
};

static const struct CMUnitTest lab_tests[] = {
	BESIDE(unbinding, fault_by_given_file, fault_by_given_file, unbind_and_bind),
	cmocka_unit_test(binding_beside_readiness_and_kills),
};

/* With Linux's own driver, reads into a mapping beside resets hang for ever. */
const struct case_group groups[] = {
	{ "pages this-driver carve-out", CASES(tests), set_up, NULL },
	{ "pages lab", CASES(lab_tests), set_up, NULL },
	{ }
};
