// SPDX-License-Identifier: GPL-2.0-only
/*
 * Runs other programs: see spawn.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "system/spawn.h"
#include "system/util.h"

#define OUTPUT_MAX ((size_t)1 << 20)

/* How a program differs from its caller, and where its output goes. */
enum manner {
	ASKED,		/* a clean environment, and no standard error */
	SHOWN,		/* output to standard error, the caller's signals, no limit */
	TESTED,		/* a process group, all of which ends with the program */
};

/*
 * The group that runs. programs_end() kills it in another thread, and keeps the
 * lock, so that no other one starts.
 */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pid_t running;

void programs_end(void)
{
	pthread_mutex_lock(&lock);
	if (!running)
		return;
	kill(-running, SIGKILL);
	waitid(P_PID, running, &(siginfo_t){ }, WEXITED | WNOWAIT);
}

/* fds: a pipe. 0 or an errno. */
static int start(enum manner manner, const char *path, char *const argv[], const int fds[2], pid_t *pid)
{
	char *const clean[] = { (char *)"LC_ALL=C", (char *)"PATH=/usr/bin:/bin", NULL };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	short flags = manner == SHOWN ? 0 : POSIX_SPAWN_SETSIGMASK;
	sigset_t none;
	int error;

	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, manner == SHOWN ? STDERR_FILENO : fds[1], 1);
	if (manner != SHOWN)
		posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	if (manner == ASKED)
		posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
	if (manner == TESTED) {
		posix_spawn_file_actions_adddup2(&actions, fds[1], 2);
		flags |= POSIX_SPAWN_SETPGROUP;
	}
	/* The caller may have blocked signals, which must end the program. */
	posix_spawnattr_init(&attributes);
	sigemptyset(&none);
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setflags(&attributes, flags);
	error = posix_spawn(pid, path, &actions, &attributes, argv, manner == ASKED ? clean : environ);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	return error;
}

/* Adds what can be read now. 1: there may be more, 0: the end, -1: an error or too much. */
static int take(int fd, GString *out)
{
	char chunk[4096];
	ssize_t n = read(fd, chunk, sizeof(chunk));

	if (n > 0)
		g_string_append_len(out, chunk, n);
	return n <= 0 ? n : out->len < OUTPUT_MAX ? 1 : -1;
}

/*
 * Whether a program came to its end within the limit. With ended, a pidfd, it has
 * ended although something that it left behind can still write.
 */
static bool collect(int fd, int ended, long long ms, GString *out)
{
	struct pollfd p[] = { { .fd = fd, .events = POLLIN }, { .fd = ended, .events = POLLIN } };
	gint64 end = g_get_monotonic_time() / 1000 + ms, left;
	int more = 1;

	while (more > 0 && (left = end - g_get_monotonic_time() / 1000) > 0 &&
	       poll(p, G_N_ELEMENTS(p), left) > 0) {
		if (p[0].revents)
			more = take(fd, out);
		else if (p[1].revents)
			return true;
	}
	return !more;
}

/* 0 and the status of waitpid(), or an errno; out gets the output. */
static int run(enum manner manner, long long ms, const char *path, char *const argv[], GString *out,
	       int *status)
{
	bool group = manner == TESTED, complete = true;
	int fds[2] = { -1, -1 }, ended = -1, error;
	pid_t pid;

	if (access(path, X_OK) || (manner != SHOWN && pipe2(fds, O_CLOEXEC)))
		return errno;
	if (group)
		pthread_mutex_lock(&lock);
	error = start(manner, path, argv, fds, &pid);
	if (group) {
		running = error ? 0 : pid;
		pthread_mutex_unlock(&lock);
	}
	if (manner != SHOWN) {
		close(fds[1]);
		if (group && !error)
			ended = syscall(SYS_pidfd_open, pid, 0);
		complete = !error && collect(fds[0], ended, ms, out);
		close(fds[0]);
		if (ended >= 0)
			close(ended);
	}
	if (error)
		return error;
	if (!complete)
		kill(group ? -pid : pid, SIGKILL);
	if (group) {
		/* The pid stays this child's until the group has ended. */
		while (waitid(P_PID, pid, &(siginfo_t){ }, WEXITED | WNOWAIT) < 0 && errno == EINTR)
			;
		pthread_mutex_lock(&lock);
		kill(-pid, SIGKILL);
		running = 0;
	}
	while (waitpid(pid, status, 0) < 0 && errno == EINTR)
		;
	if (group)
		pthread_mutex_unlock(&lock);
	return complete ? 0 : ETIMEDOUT;
}

char *program_output(long long ms, const char *path, char *const argv[])
{
	g_autoptr(GString) out = g_string_new(NULL);
	int status;

	if (run(ASKED, ms, path, argv, out, &status) || !WIFEXITED(status) || WEXITSTATUS(status))
		return NULL;
	return g_string_free(g_steal_pointer(&out), FALSE);
}

int program_show(const char *path, char *const argv[])
{
	int status, error = run(SHOWN, 0, path, argv, NULL, &status);

	errno = error ?: EINTR;
	return !error && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int program_test(long long ms, const char *path, char *const argv[], char **output, int *status)
{
	g_autoptr(GString) out = g_string_new(NULL);
	int error = run(TESTED, ms, path, argv, out, status);

	*output = g_string_free(g_steal_pointer(&out), FALSE);
	return error;
}
