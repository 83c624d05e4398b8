// SPDX-License-Identifier: GPL-2.0-only
/*
 * What makes the initramfs: see initramfs.h.
 */
#include <glib.h>
#include <string.h>

#include "facts/initramfs.h"

/*
 * Whether a directory has a file of this project, with any number before its
 * name.
 */
static bool has_part(struct host *h, const char *directory)
{
	g_auto(GStrv) names = host_list(h, "%s", directory);
	bool found = false;
	size_t i;

	for (i = 0; names && names[i]; i++)
		found |= !!strstr(names[i], "nvgrace-gpu");
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

	for (i = 0; i < G_N_ELEMENTS(tools); i++)
		if (host_exists(h, "%s", tools[i].mark) && host_exists(h, "%s", tools[i].command[0]))
			break;
	if (i == G_N_ELEMENTS(tools) ||
	    !has_part(h, strstr(tools[i].command[0], "dracut") ? "/usr/lib/dracut/modules.d" :
							      "/usr/share/initramfs-tools/hooks"))
		return NULL;
	return tools[i].command;
}
