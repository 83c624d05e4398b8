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
	static const struct {
		const char *mark;
		const char *command[6];
	} tools[] = {
#define INITRAMFS_TOOL(mark, ...) { mark, { __VA_ARGS__, NULL } },
#include "nvgrace_initramfs_tools.h"
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(tools); i++)
		if (host_exists(h, "%s", tools[i].mark) && host_exists(h, "%s", tools[i].command[0]))
			break;
	if (i == ARRAY_SIZE(tools) ||
	    !has_part(h, strstr(tools[i].command[0], "dracut") ? "/usr/lib/dracut/modules.d" :
							      "/usr/share/initramfs-tools/hooks"))
		return NULL;
	return tools[i].command;
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
