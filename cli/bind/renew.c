// SPDX-License-Identifier: GPL-2.0-only
/*
 * Makes images again: see renew.h.
 */
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "bind/renew.h"
#include "facts/config.h"
#include "system/spawn.h"

static void free_renewal(void *data)
{
	struct renewal *renewal = data;

	g_free(renewal->image);
	g_free(renewal->release);
	image_owner_free(&renewal->owner);
	g_free(renewal);
}

static bool has(char **files, const char *name)
{
	size_t i;

	for (i = 0; files && files[i]; i++)
		if (g_str_has_suffix(files[i], name))
			return true;
	return false;
}

/*
 * Whether an image has the rule and the same configuration files as the host, as far
 * as their names say.
 */
static bool is_current(struct host *h, char **files)
{
	g_auto(GStrv) names = host_list(h, CONFIG_DIR);
	static const char folder[] = CONFIG_DIR "/";
	size_t i, here = 0, there = 0;

	if (!has(files, "/60-nvgrace-gpu.rules") || !has(files, "/udev/nvgrace-gpu"))
		return false;
	for (i = 0; names && names[i]; i++)
		if (g_str_has_suffix(names[i], ".conf") && *names[i] != '.') {
			g_autofree char *name = g_strconcat(folder + 1, names[i], NULL);

			here++;
			if (!has(files, name))
				return false;
		}
	for (i = 0; files[i]; i++)
		there += !!g_strrstr(files[i], folder + 1);
	return here == there;
}

static void plan(GPtrArray *list, struct host *h, const char *release, const char *image, bool binds,
		 enum renew_reason reason, bool doubt)
{
	g_auto(GStrv) files = image_files(h, image);
	struct renewal *renewal = g_new0(struct renewal, 1);
	bool needed;

	renewal->image = g_strdup(image);
	renewal->release = g_strdup(release);
	image_owner_find(h, image, release, &renewal->owner);
	renewal->wants = binds && reason != RENEW_REMOVE && renewal->owner.hooked;
	if (!files)
		needed = doubt || (renewal->wants && reason == RENEW_CHANGED);
	else if (!renewal->wants || reason == RENEW_CHANGED)
		needed = renewal->wants || *files;
	else
		needed = !is_current(h, files);
	if (needed)
		g_ptr_array_add(list, renewal);
	else
		free_renewal(renewal);
}

/* An image of crash dumps' kernel has files only by an earlier version. */
static void plan_dumps(GPtrArray *list, struct host *h)
{
	g_autoptr(GPtrArray) dumps = dump_images(h);
	size_t i;

	for (i = 0; i < dumps->len; i++) {
		struct dump_image *dump = dumps->pdata[i];
		g_auto(GStrv) files = image_files(h, dump->path);
		struct renewal *renewal;
		g_autofree char *command = NULL;

		if (!files || !*files)
			continue;
		renewal = g_new0(struct renewal, 1);
		renewal->image = g_strdup(dump->path);
		renewal->owner.command = g_strdupv(dump->command);
		command = g_strjoinv(" ", dump->command);
		renewal->owner.remedy = g_strdup_printf("run \"%s\"", command);
		g_ptr_array_add(list, renewal);
	}
}

GPtrArray *renew_plan(struct host *h, const char *release, enum renew_reason reason, bool binds,
		      bool doubt)
{
	g_auto(GStrv) releases = host_list(h, "/lib/modules");
	GPtrArray *list = g_ptr_array_new_with_free_func(free_renewal);
	size_t i;

	for (i = 0; releases && releases[i]; i++) {
		g_autofree char *image = NULL;

		if (release && strcmp(release, releases[i]))
			continue;
		image = image_path(h, releases[i]);
		if (image)
			plan(list, h, releases[i], image, binds, reason, doubt);
	}
	if (!release)
		plan_dumps(list, h);
	return list;
}

char *renew_image(struct host *h, const struct renewal *renewal, int *status)
{
	char **command = renewal->owner.command;
	g_auto(GStrv) files = NULL;
	char *why = NULL;

	*status = -1;
	if (!command)
		return g_strdup_printf("can't update %s; %s", renewal->image, renewal->owner.remedy);
	*status = program_show(command[0], command);
	if (*status < 0)
		why = g_strdup_printf("%s did not finish: %s", command[0], strerror(errno));
	else if (*status)
		why = g_strdup_printf("%s exited with %d", command[0], *status);
	if (!why) {
		files = image_files(h, renewal->image);
		if (files && renewal->wants != !!*files)
			why = g_strdup_printf("%s succeeded, but the image %s files of this package",
					      command[0], *files ? "still has" : "has no");
	}
	if (why) {
		char *whole = g_strdup_printf("can't update %s: %s; it keeps the old configuration until you %s "
					      "again", renewal->image, why, renewal->owner.remedy);

		g_free(why);
		return whole;
	}
	return NULL;
}
