// SPDX-License-Identifier: GPL-2.0-only
/*
 * Makes images again: see renew.h.
 */
#include <errno.h>
#include <glib.h>
#include <string.h>
#include <sys/stat.h>

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

/* Another address is as long as the one before, so sizes don't tell that a line has changed. */
static bool is_older(struct host *h, const char *image)
{
	g_auto(GStrv) names = host_list(h, CONFIG_DIR);
	struct stat made, file;
	bool older = false;
	size_t i;

	if (h->recorded || stat(image, &made))
		return false;
	for (i = 0; !i || (names && names[i - 1]); i++) {
		g_autofree char *path = i ? g_strdup_printf(CONFIG_DIR "/%s", names[i - 1]) : g_strdup(CONFIG_FILE);

		older |= !stat(path, &file) && (file.st_mtim.tv_sec > made.st_mtim.tv_sec ||
						(file.st_mtim.tv_sec == made.st_mtim.tv_sec &&
						 file.st_mtim.tv_nsec > made.st_mtim.tv_nsec));
	}
	return older;
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
	needed = (renewal->wants && reason == RENEW_CHANGED) ||
		 (renewal->wants && renewal->owner.command && is_older(h, image)) ||
		 (files ? !!image_fault(h, files, renewal->wants) : doubt);
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

		if (!files || !image_fault(h, files, false))
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
	struct loader loader;
	size_t i;

	loader_read(h, releases, &loader);
	for (i = 0; releases && releases[i]; i++) {
		g_autofree char *image = NULL;

		if (release && strcmp(release, releases[i]))
			continue;
		image = image_path(h, &loader, releases[i]);
		if (image)
			plan(list, h, releases[i], image, binds, reason, doubt);
	}
	loader_free(&loader);
	if (!release)
		plan_dumps(list, h);
	return list;
}

/* As update-initramfs does nothing in a live system, or where a link to true replaces it. */
static bool is_same(const struct stat *a, const struct stat *b)
{
	return a->st_ino == b->st_ino && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
	       a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

char *renew_image(struct host *h, const struct renewal *renewal, int *status)
{
	char **command = renewal->owner.command;
	struct stat before = { }, after = { };
	g_auto(GStrv) files = NULL;
	const char *fault;
	char *why = NULL;

	*status = -1;
	if (!command)
		return g_strdup_printf("can't update %s; %s", renewal->image, renewal->owner.remedy);
	stat(renewal->image, &before);
	*status = program_show(command[0], command);
	if (*status < 0)
		why = g_strdup_printf("%s did not finish: %s", command[0], strerror(errno));
	else if (*status)
		why = g_strdup_printf("%s exited with %d", command[0], *status);
	if (!why && !stat(renewal->image, &after) && is_same(&before, &after))
		why = g_strdup_printf("%s succeeded, but the image has not changed", command[0]);
	if (!why) {
		files = image_files(h, renewal->image);
		fault = files ? image_fault(h, files, renewal->wants) : NULL;
		if (fault)
			why = g_strdup_printf("%s succeeded, but the image %s", command[0], fault);
	}
	if (why) {
		char *whole = g_strdup_printf("can't update %s: %s; it keeps the old configuration until you %s "
					      "again", renewal->image, why, renewal->owner.remedy);

		g_free(why);
		return whole;
	}
	return NULL;
}
