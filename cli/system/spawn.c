// SPDX-License-Identifier: GPL-2.0-only
/*
 * Asks other programs: see spawn.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "system/spawn.h"
#include "system/util.h"

#define OUTPUT_MAX ((size_t)1 << 20)

char *program_output(long long ms, const char *path, char *const argv[])
{
	char *const env[] = { (char *)"LC_ALL=C", (char *)"PATH=/usr/bin:/bin", NULL };
	long long end = now_ms() + ms, left;
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	struct pollfd p = { .events = POLLIN };
	int fds[2], status, error;
	g_autoptr(GString) out = NULL;
	bool complete = false;
	sigset_t none;
	char chunk[4096];
	ssize_t n;
	pid_t pid;

	if (access(path, X_OK) || pipe2(fds, O_CLOEXEC))
		return NULL;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, fds[1], 1);
	posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
	/* The caller may have blocked signals, which must end the program. */
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
	sigemptyset(&none);
	posix_spawnattr_setsigmask(&attributes, &none);
	error = posix_spawn(&pid, path, &actions, &attributes, argv, env);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	close(fds[1]);
	if (error) {
		close(fds[0]);
		return NULL;
	}

	out = g_string_new(NULL);
	p.fd = fds[0];
	while ((left = end - now_ms()) > 0 && poll(&p, 1, left) > 0 &&
	       out->len < OUTPUT_MAX) {
		n = read(fds[0], chunk, sizeof(chunk));
		if (n <= 0) {
			complete = !n;
			break;
		}
		g_string_append_len(out, chunk, n);
	}
	close(fds[0]);
	if (!complete)
		kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!complete || !WIFEXITED(status) || WEXITSTATUS(status))
		return NULL;
	return g_string_free(g_steal_pointer(&out), FALSE);
}
