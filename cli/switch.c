// SPDX-License-Identifier: GPL-2.0-only
/*
 * Changes devices' drivers: see switch.h.
 *
 * A thread for each device does the steps. What may wait in the kernel (a bind waits for the memory
 * to be trained, for half a minute at worst) is written by a process of its own: to kill it ends
 * the driver's wait and leaves us to put things back.
 */
#include <errno.h>
#include <fcntl.h>
#include <libkmod.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kmsg.h"
#include "switch.h"

#define DEVICES "/sys/bus/pci/devices"
#define DRIVERS "/sys/bus/pci/drivers"

/* When somebody who waits wants to know for what. */
#define NOTICE_MS 5000

/* Protects every job's writer, and that it isn't killed after its id is another process's. */
static pthread_mutex_t writers_lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_bool stopped;

/* ---- jobs --------------------------------------------------------------- */

void text_list_add(struct text_list *list, char *text)
{
	list->text = xrealloc(list->text, (list->count + 1) * sizeof(*list->text));
	list->text[list->count++] = text;
}

void text_list_free(struct text_list *list)
{
	size_t i;

	for (i = 0; i < list->count; i++)
		free(list->text[i]);
	free(list->text);
	memset(list, 0, sizeof(*list));
}

void job_end(struct job *job, enum exit_status status, const char *result, char *message,
	     char *next)
{
	free(job->message);
	free(job->next);
	job->status = status;
	job->result = result;
	job->message = message;
	job->next = next;
}

void job_free(struct job *job)
{
	free(job->message);
	free(job->next);
	free(job->was);
	text_list_free(&job->log);
}

/* ---- writing what may wait ---------------------------------------------- */

enum write_kind {
	WRITE_STEP,    /* not begun after an interruption, and ended by one */
	WRITE_RESTORE, /* puts things back: nothing stops it */
};

/*
 * 0 or an errno. ECANCELED: interrupted; whether the kernel did it nevertheless must be looked at.
 */
static int write_apart(struct job *job, enum write_kind kind, const char *waits_for,
		       const char *text, char *path)
{
	size_t length = strlen(text);
	struct pollfd poll_writer;
	int status, fd;
	pid_t pid;

	pthread_mutex_lock(&writers_lock);
	if (kind == WRITE_STEP && stopped) {
		pthread_mutex_unlock(&writers_lock);
		free(path);
		return ECANCELED;
	}
	pid = fork();
	if (!pid) {
		/* Other threads may have held any lock: nothing but system calls. */
		fd = open(path, O_WRONLY | O_CLOEXEC);
		if (fd < 0 || write(fd, text, length) != (ssize_t)length)
			_exit(errno > 0 && errno < 255 ? errno : 255);
		_exit(0);
	}
	if (pid < 0) {
		status = errno;
		pthread_mutex_unlock(&writers_lock);
		free(path);
		return status;
	}
	if (kind == WRITE_STEP)
		job->writer = pid;
	pthread_mutex_unlock(&writers_lock);

	poll_writer = (struct pollfd){ .fd = syscall(SYS_pidfd_open, pid, 0), .events = POLLIN };
	if (poll_writer.fd >= 0) {
		if (!poll(&poll_writer, 1, NOTICE_MS))
			complain(job->address, "still waiting: %s", waits_for);
		close(poll_writer.fd);
	}
	free(path);
	/* WNOWAIT: until its id is forgotten it must stay this child's. */
	waitid(P_PID, pid, &(siginfo_t){ }, WEXITED | WNOWAIT);
	pthread_mutex_lock(&writers_lock);
	job->writer = 0;
	waitpid(pid, &status, 0);
	pthread_mutex_unlock(&writers_lock);
	if (WIFSIGNALED(status))
		return ECANCELED;
	return WEXITSTATUS(status) == 255 ? EIO : WEXITSTATUS(status);
}

static int write_override(struct job *job, enum write_kind kind, const char *override)
{
	/* A line's end alone clears it. */
	return write_apart(job, kind, "the kernel is busy with the device",
			   override ? override : "\n",
			   xasprintf(DEVICES "/%s/driver_override", job->address));
}

static char *driver_now(struct job *job)
{
	return host_link_name(job->host, DEVICES "/%s/driver", job->address);
}

static bool bound_to(struct job *job, const char *driver)
{
	char *now = driver_now(job);
	bool bound = now && !strcmp(now, driver);

	free(now);
	return bound;
}

/* ---- the steps ---------------------------------------------------------- */

static void take_line(void *data, const char *text)
{
	struct job *job = data;

	if (strstr(text, job->address))
		text_list_add(&job->log, xstrdup(text));
}

/* A step failed: say so, and what the kernel said. */
static void fail(struct job *job, int error, char *message, const char *next)
{
	if (error == ECANCELED) {
		free(message);
		job_end(job, EXIT_INTERRUPTED, "interrupted", xstrdup("interrupted"), NULL);
		return;
	}
	kmsg_read(job->kmsg, take_line, job);
	job_end(job, EXIT_FAILED, "failed", message,
		job->log.count ? xstrdup("the kernel's log says why")
			       : xasprintf("%s\"" PROGRAM " doctor %s\" looks further", next,
					   job->address));
}

/* Back to the driver and the override of before, whatever has been done. */
static void restore(struct job *job, const char *override)
{
	char *now, *longer;
	int error;

	error = write_override(job, WRITE_RESTORE, override);
	now = driver_now(job);
	if (!error && job->was && !now)
		error = write_apart(job, WRITE_RESTORE,
				    "the driver of before takes the device back", job->address,
				    xasprintf(DRIVERS "/%s/bind", job->was));
	free(now);
	if (error) {
		job->changed = true;
		longer = xasprintf("%s; and it could not be put back to %s: %s", job->message,
				   job->was ? job->was : "what it was", strerror(error));
		job_end(job, EXIT_FAILED, "failed", longer, job->next ? xstrdup(job->next) : NULL);
	} else {
		longer = xasprintf("%s; it is %s%s as before", job->message,
				   job->was ? "bound to " : "unbound", job->was ? job->was : "");
		job_end(job, job->status, job->result, longer,
			job->next ? xstrdup(job->next) : NULL);
	}
}

static void do_bind(struct job *job, const char *override)
{
	int error;

	error = write_override(job, WRITE_STEP, DRIVER_NAME);
	if (error) {
		fail(job, error, xasprintf("driver_override can't be set: %s", strerror(error)),
		     "");
		restore(job, override);
		return;
	}
	if (job->was) {
		error = write_apart(job, WRITE_STEP, "the driver must let go of the device",
				    job->address, xasprintf(DRIVERS "/%s/unbind", job->was));
		if (error) {
			fail(job, error,
			     xasprintf("%s does not let go of it: %s", job->was, strerror(error)),
			     "end what uses the device; ");
			restore(job, override);
			return;
		}
	}
	error = write_apart(job, WRITE_STEP,
			    "the GPU's memory is being trained, for half a minute at most",
			    job->address, xstrdup("/sys/bus/pci/drivers_probe"));
	/* The answer isn't in the write's status, which doesn't tell what probe returned. */
	if (bound_to(job, DRIVER_NAME)) {
		job_end(job, EXIT_OK, "bound",
			xasprintf("bound to " DRIVER_NAME "%s%s%s", job->was ? " (was " : "",
				  job->was ? job->was : "", job->was ? ")" : ""),
			NULL);
		job->changed = true;
		return;
	}
	if (stopped)
		error = ECANCELED;
	fail(job, error,
	     error ? xasprintf(DRIVER_NAME " did not take it: %s", strerror(error))
		   : xstrdup(DRIVER_NAME " did not take it"),
	     host_exists(job->host, DEVICES "/%s/iommu_group", job->address)
		     ? ""
		     : "the device has no IOMMU group: is the IOMMU on?; ");
	restore(job, override);
}

static void do_unbind(struct job *job, const char *override)
{
	bool ours = override && !strcmp(override, DRIVER_NAME);
	bool had = job->was && !strcmp(job->was, DRIVER_NAME);
	char *now;
	int error;

	if (ours) {
		/* First: else whoever probes next gives it back to our driver. */
		error = write_override(job, WRITE_STEP, NULL);
		if (error) {
			fail(job, error,
			     xasprintf("driver_override can't be cleared: %s", strerror(error)),
			     "");
			restore(job, override);
			return;
		}
	}
	if (had) {
		error = write_apart(job, WRITE_STEP,
				    "somebody has the device open, the kernel waits for them",
				    job->address, xstrdup(DRIVERS "/" DRIVER_NAME "/unbind"));
		if (bound_to(job, DRIVER_NAME)) {
			fail(job, error,
			     xasprintf(DRIVER_NAME " does not let go of it: %s", strerror(error)),
			     "end what uses the device; ");
			restore(job, override);
			return;
		}
	}
	/* From here on it is done. That no other driver wants the device is no failure of ours. */
	now = driver_now(job);
	if ((ours || had) && !now && job->probe)
		write_apart(job, WRITE_STEP, "another driver takes the device", job->address,
			    xstrdup("/sys/bus/pci/drivers_probe"));
	free(now);
	now = driver_now(job);
	job->changed = ours || had;
	if (had)
		job_end(job, EXIT_OK, "unbound",
			xasprintf("unbound; now %s%s", now ? "bound to " : "without a driver",
				  now ? now : ""),
			NULL);
	else if (ours)
		job_end(job, EXIT_OK, "unbound",
			xstrdup("was not bound; its driver_override has been cleared"), NULL);
	else
		job_end(job, EXIT_OK, "already-unbound",
			xasprintf("is not bound to " DRIVER_NAME "%s%s", now ? ", but to " : "",
				  now ? now : ""),
			NULL);
	free(now);
}

/*
 * Whether our driver has it. The link alone is there from the begin of a bind on, and goes if that
 * fails: this waits for the end of another process's bind, perhaps the boot's.
 */
static bool is_bound(struct job *job)
{
	if (!job->was || strcmp(job->was, DRIVER_NAME))
		return false;
	if (!host_exists(job->host, DEVICES "/%s/nvgrace_gpu/mode", job->address) &&
	    host_exists(job->host, DRIVERS "/" DRIVER_NAME "/features"))
		/* It fails if that one has bound the device, and else binds it. */
		write_apart(job, WRITE_STEP, "another process is binding it", job->address,
			    xstrdup(DRIVERS "/" DRIVER_NAME "/bind"));
	if (bound_to(job, DRIVER_NAME))
		return true;
	free(job->was);
	job->was = driver_now(job);
	return false;
}

static void *work(void *data)
{
	struct job *job = data;
	char *path, *override;
	int lock;

	/*
	 * Not two of us at one device. Only root can open this file; that we do nothing with it but
	 * lock it saves a lock file somewhere.
	 */
	path = xasprintf(DEVICES "/%s/rescan", job->address);
	lock = open(path, O_WRONLY | O_CLOEXEC);
	free(path);
	if (lock < 0 || flock(lock, LOCK_EX | LOCK_NB)) {
		if (lock >= 0 && errno == EWOULDBLOCK)
			job_end(job, EXIT_REFUSED, "refused",
				xstrdup("another " PROGRAM " is at work on it"),
				xstrdup("let that end first"));
		else
			job_end(job, EXIT_FAILED, "failed",
				xasprintf("can't be locked: %s", strerror(errno)), NULL);
		if (lock >= 0)
			close(lock);
		return NULL;
	}
	job->kmsg = kmsg_mark();
	job->was = driver_now(job);
	override = host_line(job->host, DEVICES "/%s/driver_override", job->address);
	if (override && (!*override || !strcmp(override, "(null)"))) {
		free(override);
		override = NULL;
	}
	if (!job->bind)
		do_unbind(job, override);
	else if (is_bound(job))
		job_end(job, EXIT_OK, "already-bound",
			xstrdup("is bound to " DRIVER_NAME " already"), NULL);
	else
		do_bind(job, override);
	free(override);
	if (job->kmsg >= 0)
		close(job->kmsg);
	/* Other jobs' writers have inherited the file, and may need longer. */
	flock(lock, LOCK_UN);
	close(lock);
	return NULL;
}

/* ---- all jobs ----------------------------------------------------------- */

struct interruption {
	struct job *jobs;
	size_t count;
	sigset_t signals;
};

/* Waits for signals until SIGUSR1, which is switch_all()'s word that all is done. */
static void *wait_for_signals(void *data)
{
	struct interruption *in = data;
	size_t i;
	int sig;

	while (!sigwait(&in->signals, &sig) && sig != SIGUSR1) {
		pthread_mutex_lock(&writers_lock);
		stopped = true;
		for (i = 0; i < in->count; i++)
			if (in->jobs[i].writer)
				kill(in->jobs[i].writer, SIGKILL);
		pthread_mutex_unlock(&writers_lock);
	}
	return NULL;
}

void switch_signals(sigset_t *signals)
{
	static const int all[] = { SIGINT, SIGTERM, SIGHUP };
	struct sigaction action;
	size_t i;

	sigemptyset(signals);
	for (i = 0; i < sizeof(all) / sizeof(*all); i++)
		if (!sigaction(all[i], NULL, &action) && action.sa_handler != SIG_IGN)
			sigaddset(signals, all[i]);
}

void switch_all(struct job *jobs, size_t count)
{
	struct interruption in = { .jobs = jobs, .count = count };
	pthread_t *threads = xcalloc(count, sizeof(*threads)), watcher;
	bool *running = xcalloc(count, sizeof(*running));
	bool watched;
	sigset_t done, before;
	size_t i;
	int error;

	/* Blocked in every thread and every writer: only the watcher gets them. */
	switch_signals(&in.signals);
	sigaddset(&in.signals, SIGUSR1);
	sigemptyset(&done);
	sigaddset(&done, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &done, &before);
	error = pthread_create(&watcher, NULL, wait_for_signals, &in);
	watched = !error;
	for (i = 0; i < count; i++) {
		if (jobs[i].result)
			continue;
		if (!error)
			error = pthread_create(&threads[i], NULL, work, &jobs[i]);
		if (error)
			job_end(&jobs[i], EXIT_FAILED, "failed",
				xasprintf("no thread: %s", strerror(error)), NULL);
		else
			running[i] = true;
	}
	for (i = 0; i < count; i++)
		if (running[i])
			pthread_join(threads[i], NULL);
	if (watched) {
		pthread_kill(watcher, SIGUSR1);
		pthread_join(watcher, NULL);
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	free(threads);
	free(running);
}

/* ---- the module --------------------------------------------------------- */

static void take_module_line(void *data, const char *text)
{
	if (strstr(text, "nvgrace") || strstr(text, DRIVER_NAME) || strstr(text, "module"))
		text_list_add(data, xstrdup(text));
}

static void no_log(void *data, int priority, const char *file, int line, const char *fn,
		   const char *format, va_list args)
{
}

char *switch_load_module(struct host *h, char **next, struct text_list *log)
{
	struct kmod_list *found = NULL, *item;
	struct kmod_ctx *ctx;
	struct utsname name;
	char *why = NULL;
	int mark, rc;

	*next = NULL;
	if (host_exists(h, DRIVERS "/" DRIVER_NAME))
		return NULL;
	ctx = kmod_new(NULL, NULL);
	if (!ctx)
		return xstrdup("libkmod does not start");
	/* What it would print is in what it returns. */
	kmod_set_log_fn(ctx, no_log, NULL);
	mark = kmsg_mark();
	rc = kmod_module_new_from_lookup(ctx, MODULE_NAME, &found);
	if (rc < 0 || !found) {
		uname(&name);
		why = xasprintf("the kernel %s has no module " MODULE_NAME, name.release);
		*next = xstrdup("install nvgrace-gpu-vfio-pci-dkms; \"dkms status\" tells for "
				"which kernels it is built");
	}
	kmod_list_foreach (item, found) {
		struct kmod_module *module = kmod_module_get_module(item);

		rc = kmod_module_probe_insert_module(module, 0, NULL, NULL, NULL, NULL);
		kmod_module_unref(module);
		if (rc >= 0)
			continue;
		why = xasprintf("the module " MODULE_NAME " can't be loaded: %s", strerror(-rc));
		if (rc == -EKEYREJECTED || rc == -ENOKEY)
			*next = xstrdup(
				"Secure Boot wants it signed with an enrolled key: \"" PROGRAM
				" doctor\" tells how");
		else
			*next = xstrdup("\"" PROGRAM " doctor\" looks further");
		kmsg_read(mark, take_module_line, log);
		break;
	}
	kmod_module_unref_list(found);
	kmod_unref(ctx);
	if (mark >= 0)
		close(mark);
	return why;
}
