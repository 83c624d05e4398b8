// SPDX-License-Identifier: GPL-2.0-only
/*
 * Changes the drivers of GPUs: see switch.h.
 *
 * One thread for each GPU does the steps. A child process does the writes to
 * sysfs that may wait in the kernel, as a bind does until the memory is ready.
 * Killing the child ends the driver's wait, and this process can restore the
 * GPU.
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bind/module.h"
#include "bind/switch.h"
#include "facts/overview.h"
#include "system/kmsg.h"
#include "system/output.h"
#include "system/signals.h"

#define DRIVERS "/sys/bus/pci/drivers"

/* After this time, a message says what the command waits for. */
#define NOTICE_MS 5000

/*
 * After this time without an end, a write is given up, unless it unbinds this
 * driver, whose scrub has a limit of its own.
 */
#define LIMIT_MS (10 * 60 * 1000)

/* At boot: udev kills its event after 180 s, and a bind may have two such writes. */
#define BOOT_LIMIT_MS (80 * 1000)

/* How long a killed child may take to die. One that waits uninterruptibly doesn't. */
#define GRACE_MS 5000

/* Protects every job's writer, so that a reused pid is never killed. */
static pthread_mutex_t writers_lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_bool stopped;

/* ---- jobs --------------------------------------------------------------- */

void job_end(struct job *job, enum exit_status status, const char *result, char *message,
	     char *next)
{
	outcome_set(&job->outcome, status, result, message, next);
}

void job_free(struct job *job)
{
	outcome_free(&job->outcome);
	g_free(job->was);
	g_ptr_array_unref(job->log);
}

/* ---- writes that may wait ----------------------------------------------- */

enum write_kind {
	WRITE_STEP,    /* an interruption ends or prevents it */
	WRITE_RESTORE, /* restores the GPU: not interruptible */
};

/*
 * Waits for the child, and says after a while what for. False: it goes on
 * although it was killed, because of an interruption or the limit.
 */
static bool wait_for_child(struct job *job, pid_t pid, bool limited, const char *waits_for)
{
	struct pollfd poll_writer = { .fd = syscall(SYS_pidfd_open, pid, 0), .events = POLLIN };
	int limit = job->at_boot ? BOOT_LIMIT_MS : LIMIT_MS, waited = 0, since_kill = -1;
	bool ended = poll_writer.fd < 0;

	for (; !ended && since_kill < GRACE_MS; waited += 500) {
		ended = poll(&poll_writer, 1, 500) == 1;
		if (waited == NOTICE_MS)
			complain(job->address, "still waiting: %s", waits_for);
		if (limited && waited == limit)
			kill(pid, SIGKILL);
		/* wait_for_signals() has killed it. */
		if (since_kill >= 0 || (stopped && job->writer) || (limited && waited >= limit))
			since_kill += 500;
	}
	if (poll_writer.fd >= 0)
		close(poll_writer.fd);
	return ended;
}

/*
 * Writes the text to the file of that path in a child process. 0 or an errno.
 * ECANCELED: interrupted, and the kernel may have done it or not. EINPROGRESS: the
 * child is left behind, and the kernel holds the device's lock until it ends.
 */
static int G_GNUC_PRINTF(5, 6) write_apart(struct job *job, enum write_kind kind,
					 const char *waits_for, const char *text,
					 const char *fmt, ...)
{
	g_autofree char *path = NULL;
	size_t length = strlen(text);
	bool limited, ended;
	int status, fd;
	va_list args;
	pid_t pid;

	va_start(args, fmt);
	path = g_strdup_vprintf(fmt, args);
	va_end(args);
	limited = !strstr(path, "/" DRIVER_NAME "/unbind");
	pthread_mutex_lock(&writers_lock);
	if (kind == WRITE_STEP && stopped) {
		pthread_mutex_unlock(&writers_lock);
		return ECANCELED;
	}
	pid = fork();
	if (!pid) {
		/*
		 * Other threads may hold any lock at fork(): only system calls.
		 * It may outlive this program, and must not keep a pipe open.
		 */
		close(STDIN_FILENO);
		close(STDOUT_FILENO);
		close(STDERR_FILENO);
		fd = open(path, O_WRONLY | O_CLOEXEC);
		if (fd < 0 || write(fd, text, length) != (ssize_t)length)
			_exit(errno > 0 && errno < 255 ? errno : 255);
		_exit(0);
	}
	if (pid < 0) {
		status = errno;
		pthread_mutex_unlock(&writers_lock);
		return status;
	}
	if (kind == WRITE_STEP)
		job->writer = pid;
	pthread_mutex_unlock(&writers_lock);

	ended = wait_for_child(job, pid, limited, waits_for);
	if (!ended) {
		pthread_mutex_lock(&writers_lock);
		job->writer = 0;
		pthread_mutex_unlock(&writers_lock);
		return EINPROGRESS;
	}
	/* WNOWAIT: the pid stays this child's until the job forgets it. */
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
	/* An empty line clears it. */
	return write_apart(job, kind, "the kernel is busy with the device",
			   override ? override : "\n",
			   DEVICES "/%s/driver_override", job->address);
}

static char *driver_now(struct job *job)
{
	return host_link_name(job->host, DEVICES "/%s/driver", job->address);
}

/* Whether this driver has the device; @unread if the link can't be read. */
static bool is_ours(struct job *job, bool unread)
{
	g_autofree char *now = driver_now(job);
	bool ours = now ? !strcmp(now, DRIVER_NAME) : unread && !host_absent();

	return ours;
}

/* ---- the steps ---------------------------------------------------------- */

static void take_line(void *data, const struct kmsg *message)
{
	struct job *job = data;

	if (strstr(message->text, job->address))
		g_ptr_array_add(job->log, g_strdup(message->text));
}

/* Ends the job of a failed step, with the kernel's log. Takes over message. */
static void fail(struct job *job, int error, char *message, const char *next)
{
	if (error == ECANCELED) {
		g_free(message);
		job_end(job, EXIT_INTERRUPTED, "interrupted", g_strdup("interrupted"), NULL);
		return;
	}
	kmsg_read(job->kmsg, take_line, job);
	job_end(job, EXIT_FAILED, "failed", message,
		job->log->len ? g_strdup("see the kernel's log")
			      : g_strdup_printf("%srun \"" PROGRAM " doctor %s\"", next,
						job->address));
}

/*
 * Ends the job of a write that was left behind: who may be why, and what comes of
 * it. Reads nothing that needs the device's lock, such as driver_override.
 */
static void left_behind(struct job *job, const char *what, const char *override)
{
	g_autofree char *users = gpu_users(job->host, job->gpu);

	job->changed = true;
	job_end(job, stopped ? EXIT_INTERRUPTED : EXIT_FAILED, stopped ? "interrupted" : "failed",
		g_strdup_printf("%s, and the kernel goes on with that until the last user of the GPU is "
				"gone (%s); nothing can end it before; driver_override is %s",
				what, users ? users : "no process here has it open; perhaps a kernel module",
				override ? override : "not set"),
		g_strdup_printf("end what uses the GPU, and then run \"" PROGRAM " %s %s\" again",
				job->bind ? "bind" : "unbind", job->address));
}

/* Restores the former driver and override, and adds that to the message. */
static void restore(struct job *job, const char *override)
{
	g_autofree char *next = g_strdup(job->outcome.next), *before = NULL, *after = NULL;
	const struct outcome *o = &job->outcome;
	int error;

	error = write_override(job, WRITE_RESTORE, override);
	before = driver_now(job);
	if (!error && job->was && !before)
		error = write_apart(job, WRITE_RESTORE, "the former driver binds the device",
				    job->address, DRIVERS "/%s/bind", job->was);
	if (error == EINPROGRESS) {
		left_behind(job, "can't restore the former driver", override);
		return;
	}
	after = driver_now(job);
	if (!error && g_strcmp0(after, job->was) && (job->was || !g_strcmp0(after, DRIVER_NAME)))
		error = ENODEV;
	if (error) {
		job->changed = true;
		job_end(job, EXIT_FAILED, "failed",
			g_strdup_printf("%s; and can't restore %s: %s", o->message,
					job->was ? job->was : "the former state", strerror(error)),
			g_steal_pointer(&next));
	} else {
		job_end(job, o->status, o->result,
			g_strdup_printf("%s; it is %s%s as before", o->message,
					job->was ? "bound to " : "unbound", job->was ? job->was : ""),
			g_steal_pointer(&next));
	}
}

/*
 * At boot, after the override is set: loads the module, or ends the job. Without a
 * former driver the override stays: early in the boot the module may not be there
 * yet, and no other driver must bind the device.
 */
static bool load(struct job *job, const char *override)
{
	char *next, *why = module_load(job->host, &next, job->log);

	if (!why)
		return true;
	job_end(job, EXIT_FAILED, "failed", why, next);
	if (job->was)
		restore(job, override);
	else
		job->changed = true;
	return false;
}

static void do_bind(struct job *job, const char *override)
{
	int error;

	error = write_override(job, WRITE_STEP, DRIVER_NAME);
	if (error == EINPROGRESS) {
		left_behind(job, "another task has the device's lock", override);
		return;
	}
	if (error) {
		fail(job, error, g_strdup_printf("can't set driver_override: %s", strerror(error)),
		     "");
		restore(job, override);
		return;
	}
	if (job->at_boot && !load(job, override))
		return;
	if (job->was) {
		error = write_apart(job, WRITE_STEP, "the driver unbinds the device",
				    job->address, DRIVERS "/%s/unbind", job->was);
		if (error == EINPROGRESS) {
			left_behind(job, "its driver has not unbound it", DRIVER_NAME);
			return;
		}
		if (error) {
			fail(job, error,
			     g_strdup_printf("can't unbind it from %s: %s", job->was, strerror(error)),
			     "end what uses the device; ");
			restore(job, override);
			return;
		}
	}
	error = write_apart(job, WRITE_STEP,
			    "the GPU's memory becomes ready, within 30 s on a GH200, or the bind fails",
			    job->address, "/sys/bus/pci/drivers_probe");
	if (error == EINPROGRESS) {
		left_behind(job, DRIVER_NAME " has not bound it", DRIVER_NAME);
		return;
	}
	/* The write succeeds whatever probe returned. */
	if (is_ours(job, false)) {
		job_end(job, EXIT_OK, "bound",
			g_strdup_printf("bound to " DRIVER_NAME "%s%s%s", job->was ? " (was " : "",
					job->was ? job->was : "", job->was ? ")" : ""),
			NULL);
		job->changed = true;
		return;
	}
	if (stopped)
		error = ECANCELED;
	fail(job, error,
	     error ? g_strdup_printf(DRIVER_NAME " refused it: %s", strerror(error))
		   : g_strdup(DRIVER_NAME " refused it"),
	     host_exists(job->host, DEVICES "/%s/iommu_group", job->address)
		     ? ""
		     : "check that the IOMMU is on, because the device has no IOMMU group; ");
	/* At boot, another driver would take a GPU that is not ready. */
	if (job->at_boot && !job->was)
		job->changed = true;
	else
		restore(job, override);
}

static void do_unbind(struct job *job, const char *override)
{
	bool ours = override && !strcmp(override, DRIVER_NAME);
	bool had = job->was && !strcmp(job->was, DRIVER_NAME);
	g_autofree char *before = NULL, *now = NULL;
	int error;

	if (ours) {
		/* First: otherwise the next probe binds this driver again. */
		error = write_override(job, WRITE_STEP, NULL);
		if (error == EINPROGRESS) {
			left_behind(job, "another task has the device's lock", override);
			return;
		}
		if (error) {
			fail(job, error,
			     g_strdup_printf("can't clear driver_override: %s", strerror(error)),
			     "");
			restore(job, override);
			return;
		}
	}
	if (had) {
		error = write_apart(job, WRITE_STEP,
				    "the kernel waits for a process that has the device open",
				    job->address, DRIVERS "/" DRIVER_NAME "/unbind");
		if (error == EINPROGRESS) {
			left_behind(job, DRIVER_NAME " has not unbound it", NULL);
			return;
		}
		/* If the link can't be read, only the write tells. */
		if (is_ours(job, error)) {
			fail(job, error,
			     error ? g_strdup_printf("can't unbind it from " DRIVER_NAME ": %s",
						     strerror(error))
				   : g_strdup("unbound, but another process has bound it to "
					      DRIVER_NAME " again"),
			     "end what uses the device; ");
			restore(job, override);
			return;
		}
	}
	/*
	 * The unbind has succeeded, even if no other driver binds the device.
	 */
	before = driver_now(job);
	error = 0;
	if ((ours || had) && !before && job->probe)
		error = write_apart(job, WRITE_STEP, "another driver binds the device", job->address,
				    "/sys/bus/pci/drivers_probe");
	if (error == EINPROGRESS) {
		left_behind(job, "unbound, but another driver has not bound it", NULL);
		return;
	}
	now = driver_now(job);
	job->changed = ours || had;
	if (now && !strcmp(now, DRIVER_NAME))
		job_end(job, EXIT_FAILED, "failed",
			g_strdup_printf("unbound, but " DRIVER_NAME " has bound it again without "
					"driver_override, as it does if the GPU's id is in its new_id"),
			g_strdup_printf("run \"echo 10de %04x > " DRIVERS "/" DRIVER_NAME "/remove_id\", "
					"and then unbind it again",
					gpu_id(job->host, job->address, "device")));
	else if (had)
		job_end(job, EXIT_OK, "unbound",
			g_strdup_printf("unbound; now %s%s", now ? "bound to " : "without a driver",
					now ? now : ""),
			NULL);
	else if (ours)
		job_end(job, EXIT_OK, "unbound",
			g_strdup("was not bound; cleared its driver_override"), NULL);
	else
		job_end(job, EXIT_OK, "already-unbound",
			g_strdup_printf("not bound to " DRIVER_NAME "%s%s", now ? ", but to " : "",
					now ? now : ""),
			NULL);
}

/*
 * Whether the GPU is bound to this driver. The link to the driver exists from
 * the start of a bind and goes if it fails, so this waits for the end of
 * another process's bind, such as the one at boot.
 */
static bool is_bound(struct job *job)
{
	if (!job->was || strcmp(job->was, DRIVER_NAME))
		return false;
	if (!host_exists(job->host, DEVICES "/%s/nvgrace_gpu/mode", job->address) &&
	    host_exists(job->host, DRIVERS "/" DRIVER_NAME "/features"))
		/*
		 * It waits for that bind, then fails or binds the device
		 * itself.
		 */
		write_apart(job, WRITE_STEP, "another process is binding it", job->address,
			    DRIVERS "/" DRIVER_NAME "/bind");
	if (is_ours(job, false))
		return true;
	g_free(job->was);
	job->was = driver_now(job);
	return false;
}

/*
 * Reads the driver and the override, NULL without one. False if they can't be
 * read: the job has ended.
 */
static bool read_state(struct job *job, char **override)
{
	const char *what = "driver";

	*override = NULL;
	job->was = driver_now(job);
	if (job->was || host_absent()) {
		what = "driver_override";
		*override = gpu_override(job->host, job->address);
		if (*override || host_absent())
			return true;
	}
	job_end(job, EXIT_FAILED, "failed",
		g_strdup_printf("can't read its %s: %s", what, strerror(errno)), NULL);
	return false;
}

static void *work(void *data)
{
	g_autofree char *override = NULL;
	struct job *job = data;
	int lock;

	/* At boot, the event before the end of the initramfs may have left a child behind. */
	lock = gpu_lock(job->address, job->at_boot);
	if (lock < 0) {
		if (errno == EWOULDBLOCK)
			job_end(job, EXIT_REFUSED, "refused",
				g_strdup("another " PROGRAM " is changing it"),
				g_strdup("wait until that ends"));
		else
			job_end(job, EXIT_FAILED, "failed",
				g_strdup_printf("can't lock it: %s", strerror(errno)), NULL);
		return NULL;
	}
	job->kmsg = kmsg_mark();
	if (!read_state(job, &override))
		; /* nothing has changed */
	else if (!job->bind)
		do_unbind(job, override);
	else if (is_bound(job))
		job_end(job, EXIT_OK, "already-bound",
			g_strdup("already bound to " DRIVER_NAME), NULL);
	else
		/*
		 * An event that was cut short may have set it. What was before is lost, and
		 * the former driver may need one.
		 */
		do_bind(job, job->at_boot && !g_strcmp0(override, DRIVER_NAME) ? job->was : override);
	if (job->kmsg >= 0)
		close(job->kmsg);
	/*
	 * Other jobs' child processes have inherited the file and may live
	 * longer.
	 */
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

/* Waits for signals until switch_all() sends SIGUSR1. */
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

void switch_all(struct job *jobs, size_t count)
{
	struct interruption in = { .jobs = jobs, .count = count };
	pthread_t watcher;
	bool watched;
	sigset_t done, before;
	size_t i;
	int error;

	/*
	 * Blocked in all threads and child processes: only the watcher gets
	 * them.
	 */
	interrupting_signals(&in.signals);
	sigaddset(&in.signals, SIGUSR1);
	sigemptyset(&done);
	sigaddset(&done, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &done, &before);
	error = pthread_create(&watcher, NULL, wait_for_signals, &in);
	watched = !error;
	for (i = 0; i < count; i++) {
		if (jobs[i].outcome.result)
			continue;
		if (!error)
			error = pthread_create(&jobs[i].thread, NULL, work, &jobs[i]);
		if (error)
			job_end(&jobs[i], EXIT_FAILED, "failed",
				g_strdup_printf("can't start a thread: %s", strerror(error)), NULL);
		else
			jobs[i].runs = true;
	}
	for (i = 0; i < count; i++)
		if (jobs[i].runs)
			pthread_join(jobs[i].thread, NULL);
	if (watched) {
		pthread_kill(watcher, SIGUSR1);
		pthread_join(watcher, NULL);
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}
