// SPDX-License-Identifier: GPL-2.0-only
/*
 * Threads that survive SIGBUS: see workers.h.
 */
#include <errno.h>
#include <glib.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>

#include "open_gpu/workers.h"

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

struct thread {
	pthread_t id;
	struct work *work;
	size_t index;
	void *fault;
};

static void *run_thread(void *data)
{
	struct thread *t = data;

	if (!sigsetjmp(after_fault, 1)) {
		guarded = 1;
		t->work->run(t->work, t->index, t->work->count);
	} else {
		t->fault = fault_address;
		atomic_store(&t->work->stop, true);
	}
	guarded = 0;
	return NULL;
}

int workers_run(struct work *work)
{
	struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };
	g_autofree struct thread *threads = NULL;
	size_t i, started;
	int error = 0;

	sigemptyset(&action.sa_mask);
	sigaction(SIGBUS, &action, NULL);
	work->count = work->count ?: g_get_num_processors();
	threads = g_new0(struct thread, work->count);
	for (started = 0; started < work->count; started++) {
		threads[started] = (struct thread){ .work = work, .index = started };
		error = pthread_create(&threads[started].id, NULL, run_thread, &threads[started]);
		if (error)
			break;
	}
	if (error)
		atomic_store(&work->stop, true);
	for (i = 0; i < started; i++) {
		pthread_join(threads[i].id, NULL);
		if (threads[i].fault)
			work->fault = threads[i].fault;
	}
	errno = error;
	return error || work->fault ? -1 : 0;
}
