// SPDX-License-Identifier: GPL-2.0-only
/*
 * Updates the initramfs: see initramfs.h.
 */
#include <errno.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "facts/initramfs.h"

extern char **environ;

/*
 * Whether a directory has a file of this project, with any number before its
 * name.
 */
static bool has_part(struct host *h, const char *directory)
{
	char **names = host_list(h, "%s", directory);
	bool found = false;
	size_t i;

	for (i = 0; names && names[i]; i++)
		found |= !!strstr(names[i], "nvgrace-gpu");
	host_free_list(names);
	return found;
}

const char *const *initramfs_command(struct host *h)
{
	static const char *const tools[] = { "/usr/sbin/update-initramfs", "-u", "-k", "all",
					     NULL };
	static const char *const dracut[] = { "/usr/bin/dracut", "--regenerate-all", "--force",
					      NULL };

	/*
	 * Check for mkinitramfs, because dracut's package has an
	 * update-initramfs, too.
	 */
	if (host_exists(h, "/usr/sbin/mkinitramfs") && host_exists(h, "%s", tools[0]) &&
	    has_part(h, "/usr/share/initramfs-tools/hooks"))
		return tools;
	if (host_exists(h, "%s", dracut[0]) && has_part(h, "/usr/lib/dracut/modules.d"))
		return dracut;
	return NULL;
}

int initramfs_run(const char *const *command)
{
	posix_spawn_file_actions_t actions;
	int error, status;
	pid_t pid;

	posix_spawn_file_actions_init(&actions);
	/* Standard output may be a JSON document. */
	posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
	error = posix_spawn(&pid, command[0], &actions, NULL, (char *const *)command, environ);
	posix_spawn_file_actions_destroy(&actions);
	if (error) {
		errno = error;
		return -1;
	}
	/* No signal interrupts this, because none has a handler. */
	waitpid(pid, &status, 0);
	errno = EINTR;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
