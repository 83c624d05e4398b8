// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pinned threads that survive SIGBUS: see workers.h.
 */
#include <errno.h>
#include <glib.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "facts/location.h"
#include "open_gpu/workers.h"

/* ---- CPUs --------------------------------------------------------------- */

enum { CPUS_MAX = 8192 };

static void set_cpu(unsigned long number, void *data)
{
	if (number < CPUS_MAX)
		CPU_SET_S(number, CPU_ALLOC_SIZE(CPUS_MAX), (cpu_set_t *)data);
}

void cpus_find(struct host *h, int node, struct cpus *cpus)
{
	size_t size = CPU_ALLOC_SIZE(CPUS_MAX);
	g_autofree cpu_set_t *allowed = g_malloc0(size), *local = g_malloc0(size);
	g_autofree char *list = NULL;
	int i;

	memset(cpus, 0, sizeof(*cpus));
	cpus->cpu = g_new0(int, CPUS_MAX);
	cpus->node = -1;
	if (sched_getaffinity(0, size, allowed)) {
		/* Not known: one thread, not pinned. */
		cpus->cpu[cpus->count++] = -1;
		return;
	}
	list = node < 0 ? NULL : host_line(h, "/sys/devices/system/node/node%d/cpulist", node);
	each_number(list, set_cpu, local);
	for (i = 0; i < CPUS_MAX; i++)
		if (CPU_ISSET_S(i, size, local) && CPU_ISSET_S(i, size, allowed))
			cpus->cpu[cpus->count++] = i;
	if (cpus->count)
		cpus->node = node;
	else
		for (i = 0; i < CPUS_MAX; i++)
			if (CPU_ISSET_S(i, size, allowed))
				cpus->cpu[cpus->count++] = i;
}

void cpus_free(struct cpus *cpus)
{
	g_free(cpus->cpu);
	memset(cpus, 0, sizeof(*cpus));
}

/* ---- faults ------------------------------------------------------------- */

/* Where the thread continues after a fault, if guarded is set. */
static __thread sigjmp_buf after_fault;
static __thread volatile sig_atomic_t guarded;
static __thread void *volatile fault_address;

static void on_fault(int signal, siginfo_t *info, void *context)
{
	/*
	 * Only advice that a page is bad; an access to it raises another
	 * SIGBUS.
	 */
	if (info->si_code == BUS_MCEERR_AO)
		return;
	if (!guarded) {
		/* Not in run(): the repeated instruction ends the program. */
		struct sigaction action = { .sa_handler = SIG_DFL };

		sigaction(signal, &action, NULL);
		return;
	}
	guarded = 0;
	fault_address = info->si_addr;
	siglongjmp(after_fault, 1);
}

/* ---- threads ------------------------------------------------------------ */

/* Threads wait here until all of them have been started. */
struct gate {
	pthread_rwlock_t lock;	/* held for writing until then */
	bool closed;		/* one could not be started: run nothing */
};

struct thread {
	pthread_t id;
	struct work *work;
	struct gate *gate;
	size_t index, count;
	int cpu;
	double begin, end;
	void *fault;
};

static void *run_thread(void *data)
{
	struct thread *t = data;
	struct work *work = t->work;
	size_t size = CPU_ALLOC_SIZE(CPUS_MAX);

	if (t->cpu >= 0) {
		g_autofree cpu_set_t *set = g_malloc0(size);

		CPU_SET_S(t->cpu, size, set);
		/*
		 * This fails if the CPU went offline; the thread then runs on
		 * another.
		 */
		pthread_setaffinity_np(pthread_self(), size, set);
	}
	pthread_rwlock_rdlock(&t->gate->lock);
	pthread_rwlock_unlock(&t->gate->lock);
	if (t->gate->closed)
		return NULL;
	t->begin = now();
	if (!sigsetjmp(after_fault, 1)) {
		guarded = 1;
		work->run(work, t->index, t->count);
	} else {
		t->fault = fault_address;
		atomic_store(&work->stop, true);
	}
	guarded = 0;
	t->end = now();
	return NULL;
}

int workers_run(const struct cpus *cpus, size_t count, struct work *work)
{
	struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };
	struct gate gate = { .lock = PTHREAD_RWLOCK_INITIALIZER };
	g_autofree struct thread *threads = NULL;
	double begin, end;
	size_t i, started;
	int error = 0;

	sigemptyset(&action.sa_mask);
	sigaction(SIGBUS, &action, NULL);
	count = count > cpus->count ? cpus->count : count ? count : 1;
	threads = g_new0(struct thread, count);
	atomic_store(&work->stop, false);
	work->fault = NULL;
	pthread_rwlock_wrlock(&gate.lock);
	for (started = 0; started < count; started++) {
		threads[started] = (struct thread){
			.work = work, .gate = &gate, .index = started, .count = count,
			.cpu = cpus->cpu[started],
		};
		error = pthread_create(&threads[started].id, NULL, run_thread, &threads[started]);
		if (error)
			break;
	}
	gate.closed = error;
	pthread_rwlock_unlock(&gate.lock);
	for (i = 0; i < started; i++)
		pthread_join(threads[i].id, NULL);
	pthread_rwlock_destroy(&gate.lock);
	if (error) {
		errno = error;
		return -1;
	}
	begin = threads[0].begin;
	end = threads[0].end;
	for (i = 0; i < count; i++) {
		begin = threads[i].begin < begin ? threads[i].begin : begin;
		end = threads[i].end > end ? threads[i].end : end;
		if (threads[i].fault && !work->fault)
			work->fault = threads[i].fault;
	}
	work->seconds = end - begin;
	return work->fault ? -1 : 0;
}
