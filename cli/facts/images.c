// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reads each kernel's initramfs: see images.h.
 */
#include <fcntl.h>
#include <fts.h>
#include <glib.h>
#include <libkmod.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "facts/config.h"
#include "facts/images.h"
#include "facts/initramfs.h"
#include "facts/loader.h"
#include "system/program.h"
#include "system/signals.h"
#include "system/spawn.h"

/*
 * A program that unpacks an image takes some seconds, and minutes on an emulated
 * machine; this one hangs.
 */
#define UNPACK_MS 600000

/* No configuration is larger. */
#define CONFIG_MAX ((off_t)1 << 20)

struct image {
	struct config directives;
	char *module;		/* its path below /lib/modules/RELEASE, or NULL */
	char *id;		/* its srcversion, or NULL */
	bool rule, helper;
	bool is_known;		/* has what only initramfs-tools' and dracut's images have */
	bool has_packed;	/* an image in the image, which dracut can make */
	bool is_unpacked;	/* and lsinitrd unpacked it */
	const char *error;	/* static; NULL: all of it was read */
};

/* ---- reading an image ------------------------------------------------------------------------ */

/* The srcversion of a module file, to be freed; NULL: none. */
static char *module_id(struct kmod_ctx *ctx, const char *path)
{
	struct kmod_list *info = NULL, *item;
	struct kmod_module *mod;
	char *id = NULL;

	if (kmod_module_new_from_path(ctx, path, &mod) < 0)
		return NULL;
	if (kmod_module_get_info(mod, &info) >= 0) {
		kmod_list_foreach(item, info)
			if (!id && !strcmp(kmod_module_info_get_key(item), "srcversion"))
				id = g_strdup(kmod_module_info_get_value(item));
		kmod_module_info_free_list(info);
	}
	kmod_module_unref(mod);
	return id;
}

/* The path below /lib/modules/RELEASE/, without a suffix of the compression. */
static char *module_place(const char *path)
{
	const char *at = strstr(path, "lib/modules/"), *slash;
	char *place, *suffix;

	slash = at ? strchr(at + strlen("lib/modules/"), '/') : NULL;
	place = g_strdup(slash ? slash + 1 : path);
	suffix = strstr(place, ".ko");
	if (suffix)
		suffix[3] = 0;
	return place;
}

static void keep_module(struct image *image, const char *path)
{
	struct kmod_ctx *ctx;

	/* With two copies, modprobe prefers the one that isn't the kernel's. */
	if (image->module && !g_str_has_prefix(image->module, "kernel/"))
		return;
	g_free(image->module);
	g_free(image->id);
	image->module = module_place(path);
	ctx = kmod_new(NULL, NULL);
	if (ctx)
		kmod_set_log_priority(ctx, 0);
	image->id = ctx ? module_id(ctx, path) : NULL;
	kmod_unref(ctx);
}

static void keep_config(struct image *image, const char *path, const char *name)
{
	g_autofree char *text = NULL;

	if (g_file_get_contents(path, &text, NULL, NULL))
		config_parse(&image->directives, name, text);
	else
		image->error = "its configuration can't be read";
}

/* One file of an unpacked image. */
static void keep(struct image *image, const FTSENT *file)
{
	const char *path = file->fts_path, *name = strstr(path, CONFIG_DIR "/");

	if (g_str_has_suffix(path, "udev/rules.d/60-nvgrace-gpu.rules"))
		image->rule = true;
	else if (g_str_has_suffix(path, "udev/nvgrace-gpu"))
		image->helper = true;
	else if (g_str_has_suffix(path, CONFIG_FILE))
		keep_config(image, path, CONFIG_FILE);
	else if (name && g_str_has_suffix(path, ".conf") &&
		 *file->fts_name != '.' && file->fts_statp->st_size <= CONFIG_MAX)
		keep_config(image, path, name);
	else if (g_str_has_prefix(file->fts_name, MODULE_NAME ".ko") &&
		 strstr(path, "lib/modules/"))
		keep_module(image, path);
	else if (g_str_has_suffix(path, "/scripts/functions") || strstr(path, "/lib/dracut/"))
		image->is_known = true;
	else if (g_str_has_suffix(path, "-root.img"))
		image->has_packed = true;
	else if (strstr(path, "fs-root/"))
		image->is_unpacked = true;
}

/* Looks at all files of an unpacked image. */
static void walk(struct image *image, char *directory)
{
	char *const roots[] = { directory, NULL };
	FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR | FTS_XDEV, NULL);
	FTSENT *file;

	while (fts && (file = fts_read(fts)))
		if (file->fts_info == FTS_F)
			keep(image, file);
	if (fts)
		fts_close(fts);
	if (image->rule && image->helper)
		return;
	/* Not every lsinitrd unpacks dracut's squashfs-root.img or erofs-root.img. */
	if (image->has_packed && !image->is_unpacked)
		image->error = "its files are in an image of their own, which was not unpacked";
	/* unmkinitramfs and lsinitrd stop at the end of the first compressed archive. */
	else if (!image->is_known)
		image->error = "what could be unpacked was made by neither initramfs-tools nor dracut";
}

/*
 * Unpacks an image with the distribution's own program into a folder; false: none
 * can.
 */
static bool unpack(struct image *image, const char *path, const char *directory)
{
	char *const initramfs_tools[] = { (char *)"unmkinitramfs", (char *)path, (char *)directory,
					  NULL };
	char *const dracut[] = { (char *)"env", (char *)"-C", (char *)directory,
				 (char *)"lsinitrd", (char *)"--unpack", (char *)path, NULL };
	g_autofree char *said = program_output(UNPACK_MS, "/usr/bin/unmkinitramfs", initramfs_tools);

	if (!said && !access("/usr/bin/lsinitrd", X_OK))
		said = program_output(UNPACK_MS, "/usr/bin/env", dracut);
	if (!said)
		image->error = access("/usr/bin/unmkinitramfs", X_OK) &&
			       access("/usr/bin/lsinitrd", X_OK) ?
			       "neither unmkinitramfs nor lsinitrd is there to read it" :
			       "unmkinitramfs or lsinitrd can't unpack it";
	return said;
}

static void read_image(struct image *image, const char *path)
{
	char directory[] = "/var/tmp/" PROGRAM ".XXXXXX";
	char *const remove[] = { (char *)"rm", (char *)"-rf", (char *)"--one-file-system",
				 directory, NULL };
	sigset_t signals, before;

	if (access(path, R_OK)) {
		image->error = "only root can read it";
		return;
	}
	/* The program is interrupted, and what it has unpacked is removed. */
	interrupting_signals(&signals);
	sigprocmask(SIG_BLOCK, &signals, &before);
	if (!mkdtemp(directory)) {
		image->error = "there can't be a folder in /var/tmp to unpack it";
	} else {
		if (unpack(image, path, directory))
			walk(image, directory);
		g_free(program_output(UNPACK_MS, "/usr/bin/rm", remove));
	}
	sigprocmask(SIG_SETMASK, &before, NULL);
}

/* ---- all images ------------------------------------------------------------------------------ */

char *images_installed(const char *release)
{
	g_autofree char *directory = g_strdup_printf("/lib/modules/%s", release);
	struct kmod_ctx *ctx = kmod_new(directory, NULL);
	struct kmod_list *list = NULL;
	struct kmod_module *mod;
	char *text = NULL;
	const char *path;

	if (ctx)
		kmod_set_log_priority(ctx, 0);
	if (ctx && kmod_module_new_from_lookup(ctx, MODULE_NAME, &list) >= 0 && list) {
		mod = kmod_module_get_module(list);
		path = kmod_module_get_path(mod);
		if (!path && kmod_module_get_initstate(mod) == KMOD_MODULE_BUILTIN)
			text = g_strdup("builtin");
		if (path) {
			g_autofree char *place = module_place(path), *id = module_id(ctx, path);

			text = g_strdup_printf("%s %s", place, id ? id : "-");
		}
		kmod_module_unref(mod);
		kmod_module_unref_list(list);
	}
	kmod_unref(ctx);
	return text;
}

static void add_image(struct host *h, GString *text, const char *release, const char *path)
{
	g_autofree char *installed = images_installed(release);
	struct image image = { };
	size_t i;

	read_image(&image, path);
	g_string_append_printf(text, "kernel: %s\nimage: %s\ninstalled: %s\nmodule: %s%s%s\nparts:%s%s\n",
			       release, path, installed ? installed : "none",
			       image.module ? image.module : "none", image.module ? " " : "",
			       !image.module ? "" : image.id ? image.id : "-",
			       image.rule ? " rule" : "", image.helper ? " helper" : "");
	for (i = 0; i < image.directives.count; i++) {
		g_autofree char *directive = config_text(&image.directives.line[i]);

		g_string_append_printf(text, "directive: %s\n", directive);
	}
	if (image.error)
		g_string_append_printf(text, "error: %s\n", image.error);
	g_free(image.module);
	g_free(image.id);
	config_free(&image.directives);
}

char *images_read(struct host *h)
{
	g_auto(GStrv) releases = host_list(h, "/lib/modules");
	GString *text = g_string_new(NULL);
	struct loader loader = { };
	size_t i;

	if (releases)
		loader_read(h, releases, &loader);
	for (i = 0; releases && releases[i]; i++) {
		const char *entry = loader_image(&loader, releases[i]);
		g_autofree char *path = entry && host_exists(h, "%s", entry) ? g_strdup(entry) :
					image_path(h, releases[i]);

		if (path)
			add_image(h, text, releases[i], path);
		/* Folders without a kernel stay behind when kernels are removed. */
		else if (host_exists(h, "/boot/vmlinuz-%s", releases[i]) ||
			 host_exists(h, "/lib/modules/%s/vmlinuz", releases[i]))
			g_string_append_printf(text, "kernel: %s\nimage: none\n", releases[i]);
	}
	loader_free(&loader);
	return g_string_free(text, !text->len);
}
