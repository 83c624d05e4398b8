// SPDX-License-Identifier: GPL-2.0-only
/* See boots.h. */
#include <glib.h>
#include <libkmod.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "facts/answers.h"
#include "facts/boots.h"
#include "facts/elsewhere.h"
#include "facts/initramfs.h"
#include "system/program.h"
#include "system/util.h"

static char *null_if_none(char *text)
{
	if (text && !strcmp(text, "none"))
		g_clear_pointer(&text, g_free);
	return text;
}

static bool has_kernel(struct host *h, const char *release)
{
	return host_exists(h, "/boot/vmlinuz-%s", release) || host_exists(h, "/boot/Image-%s", release) ||
	       host_exists(h, "/lib/modules/%s/vmlinuz", release) ||
	       host_exists(h, "/lib/modules/%s/Image", release);
}

/* Whether a folder in /lib/modules is a kernel's: they stay behind when it is removed. */
static bool is_installed(struct host *h, const struct loader *loader, const char *release)
{
	g_autofree char *image = image_path(h, loader, release);

	return image || has_kernel(h, release);
}

const char *module_file(struct kmod_module *mod)
{
	const char *path = kmod_module_get_path(mod);

	return path && !access(path, F_OK) ? path : NULL;
}

const char *module_place(struct kmod_module *mod)
{
	return module_file(mod) ?: kmod_module_get_initstate(mod) == KMOD_MODULE_BUILTIN ? "builtin" : NULL;
}

#define CORE "vfio_pci_core"

/* Whether a kernel has the core of vfio-pci. depmod can't name a dependency that isn't there. */
static bool has_core(struct kmod_ctx *ctx)
{
	struct kmod_list *list = NULL;
	struct kmod_module *mod;
	bool found = false;

	if (kmod_module_new_from_lookup(ctx, CORE, &list) < 0)
		return true;
	if (list) {
		mod = kmod_module_get_module(list);
		found = module_place(mod);
		kmod_module_unref(mod);
	}
	kmod_module_unref_list(list);
	return found;
}

/*
 * The module that modprobe would load for that kernel: its place below
 * /lib/modules/RELEASE, without the suffix of a compression, its srcversion or "-", and
 * its key, and what it lacks; or "builtin". To be freed; NULL: none, or one that was
 * built for another kernel.
 */
static char *module_of(const char *release)
{
	g_autofree char *folder = g_strdup_printf("/lib/modules/%s", release), *id = NULL;
	g_autofree char *key = g_strdup("unsigned"), *magic = g_strdup_printf("%s ", release);
	struct kmod_ctx *ctx = kmod_new(folder, NULL);
	struct kmod_list *list = NULL, *info = NULL, *item;
	struct kmod_module *mod;
	const char *path, *end;
	char *text = NULL;
	bool fits;

	if (ctx)
		kmod_set_log_priority(ctx, 0);
	if (ctx && kmod_module_new_from_lookup(ctx, MODULE_NAME, &list) >= 0 && list) {
		mod = kmod_module_get_module(list);
		path = module_file(mod);
		end = path ? strstr(path, ".ko") : NULL;
		fits = path && strstr(path, WEAK_UPDATES);
		kmod_module_get_info(mod, &info);
		kmod_list_foreach(item, info) {
			const char *key_name = kmod_module_info_get_key(item), *value = kmod_module_info_get_value(item);

			if (!id && !strcmp(key_name, "srcversion"))
				id = g_strdup(value);
			if (!strcmp(key_name, "sig_key") || (!strcmp(key_name, "sig_id") && !strcmp(key, "unsigned"))) {
				g_free(key);
				key = !strcmp(key_name, "sig_key") ? plain_number(value) : g_strdup("-");
			}
			fits |= !strcmp(key_name, "vermagic") && g_str_has_prefix(value, magic);
		}
		if (end && fits && g_str_has_prefix(path, folder))
			text = g_strdup_printf("%.*s.ko %s %s%s", (int)(end - path - strlen(folder) - 1),
					       path + strlen(folder) + 1, id ?: "-", key,
					       has_core(ctx) ? "" : " " CORE);
		else if (kmod_module_get_initstate(mod) == KMOD_MODULE_BUILTIN)
			text = g_strdup("builtin");
		kmod_module_info_free_list(info);
		kmod_module_unref(mod);
		kmod_module_unref_list(list);
	}
	kmod_unref(ctx);
	return text;
}

char *kernels_read(struct host *h)
{
	g_auto(GStrv) releases = host_list(h, "/lib/modules");
	GString *text = g_string_new(NULL);
	struct loader loader;
	size_t i;

	loader_read(h, releases, &loader);
	for (i = 0; releases && releases[i]; i++) {
		g_autofree char *module = NULL;

		if (!is_installed(h, &loader, releases[i]))
			continue;
		module = module_of(releases[i]);
		g_string_append_printf(text, "%s: %s\n", releases[i], module ?: "none");
	}
	loader_free(&loader);
	return g_string_free(text, FALSE);
}

/*
 * Whether the entry that boots next names an image that isn't there, and another one
 * than this, which is in a usual place. GRUB's paths can begin with a subvolume.
 */
static bool names_other_image(struct host *h, const struct loader *loader, const char *release, const char *path)
{
	const struct loader_entry *chosen = loader->chosen;
	g_autofree char *theirs = NULL, *here = path ? g_path_get_basename(path) : NULL;

	if (!chosen || !chosen->image || g_strcmp0(chosen->release, release) || host_exists(h, "%s", chosen->image))
		return false;
	theirs = g_path_get_basename(chosen->image);
	return g_strcmp0(theirs, here);
}

char *images_read(struct host *h)
{
	g_auto(GStrv) releases = host_list(h, "/lib/modules");
	GString *text = g_string_new(NULL);
	struct loader loader;
	size_t i, k;

	loader_read(h, releases, &loader);
	for (i = 0; releases && releases[i]; i++) {
		g_autofree char *path = image_path(h, &loader, releases[i]);
		g_auto(GStrv) files = NULL;

		if (names_other_image(h, &loader, releases[i], path)) {
			g_string_append_printf(text, "kernel: %s\nimage: %s\nerror: the boot loader's entry names it, and it is not there; its partition may not be mounted\n",
					       releases[i], loader.chosen->image);
			continue;
		}
		files = path ? image_files(h, path) : NULL;
		if (!path && !has_kernel(h, releases[i]))
			continue;
		g_string_append_printf(text, "kernel: %s\nimage: %s\n", releases[i], path ?: "none");
		for (k = 0; files && files[k]; k++)
			g_string_append_printf(text, "file: %s\n", files[k]);
		if (path && !files)
			g_string_append_printf(text, "error: %s\n", access(path, R_OK) ? "only root can read it" :
					       "neither lsinitramfs nor lsinitrd lists all of it");
	}
	loader_free(&loader);
	return g_string_free(text, !text->len);
}

static struct boot *boot_of(struct boots *boots, const char *release)
{
	size_t i;

	for (i = 0; i < boots->count; i++)
		if (!strcmp(boots->boot[i].release, release))
			return &boots->boot[i];
	boots->boot = g_renew(struct boot, boots->boot, boots->count + 1);
	boots->boot[boots->count] = (struct boot){ .release = g_strdup(release) };
	make_printable(boots->boot[boots->count].release);
	return &boots->boot[boots->count++];
}

/* The files of an image as 0.3.0 recorded them: "parts: rule helper" and the module. */
static void add_older(GPtrArray *files, const char *release, const char *block)
{
	g_autofree char *parts = field_value(block, "parts"), *module = field_value(block, "module");

	if (has_word(parts, "rule"))
		g_ptr_array_add(files, g_strdup(IMAGE_RULE));
	if (has_word(parts, "helper"))
		g_ptr_array_add(files, g_strdup(IMAGE_PROGRAM));
	if (module && *module && strcmp(module, "none"))
		g_ptr_array_add(files, g_strdup_printf("usr/lib/modules/%s/%.*s", release,
						       (int)strcspn(module, " "), module));
}

/* Reads one kernel's lines of the answer "initramfs". */
static void read_block(struct boots *boots, const char *block)
{
	g_autofree char *release = field_value(block, "kernel"), *installed = field_value(block, "installed");
	g_autoptr(GPtrArray) files = g_ptr_array_new_with_free_func(g_free);
	g_auto(GStrv) lines = text_lines(block);
	const char key[] = "file: ";
	struct boot *b;
	size_t i;

	if (!release)
		return;
	b = boot_of(boots, release);
	if (b->read)
		return;
	b->read = true;
	b->image = null_if_none(field_value(block, "image"));
	b->error = field_value(block, "error");
	for (i = 0; lines[i]; i++)
		if (g_str_has_prefix(lines[i], key))
			g_ptr_array_add(files, g_strdup(lines[i] + strlen(key)));
	add_older(files, release, block);
	g_ptr_array_add(files, NULL);
	b->files = (char **)g_ptr_array_free(g_steal_pointer(&files), FALSE);
	/* Of 0.3.0, too. */
	if (!b->module_known && installed) {
		b->module_known = true;
		b->module = null_if_none(g_steal_pointer(&installed));
	}
}

/*
 * The kernel from which on faults count if the boot loader doesn't say which boots
 * next: the running one, or, where it isn't installed, as in a chroot, the newest.
 */
static const char *reference(const struct boots *boots, const char *running)
{
	const char *newest = "";
	size_t i;

	for (i = 0; i < boots->count; i++) {
		if (!g_strcmp0(boots->boot[i].release, running))
			return boots->boot[i].release;
		if (strverscmp(boots->boot[i].release, newest) > 0)
			newest = boots->boot[i].release;
	}
	return newest;
}

void boots_read(struct host *h, const char *kernels, const char *images, const char *running,
		struct boots *boots)
{
	g_autofree char **releases = NULL;
	g_auto(GStrv) lines = text_lines(kernels);
	const char *begin, *next;
	struct loader loader;
	size_t i;

	*boots = (struct boots){ };
	for (i = 0; lines[i]; i++) {
		char *colon = strstr(lines[i], ": ");
		struct boot *b;

		if (!colon)
			continue;
		*colon = 0;
		b = boot_of(boots, lines[i]);
		b->module_known = true;
		/* A damaged record can have a line twice. */
		g_free(b->module);
		b->module = null_if_none(g_strdup(colon + 2));
	}
	for (begin = images; begin && *begin; begin = next) {
		g_autofree char *block = NULL;

		next = strstr(begin + 1, "\nkernel: ");
		next = next ? next + 1 : begin + strlen(begin);
		block = g_strndup(begin, next - begin);
		read_block(boots, block);
	}
	releases = g_new0(char *, boots->count + 1);
	for (i = 0; i < boots->count; i++)
		releases[i] = boots->boot[i].release;
	loader_read(h, releases, &loader);
	for (i = 0; i < boots->count; i++) {
		struct boot *b = &boots->boot[i];

		b->next = !loader.next ? NEXT_UNKNOWN :
			  strcmp(loader.next, b->release) ? NEXT_NO : NEXT_YES;
		b->counts = b->next == NEXT_YES || (b->next == NEXT_UNKNOWN &&
						    strverscmp(b->release, reference(boots, running)) >= 0);
	}
	if (loader.chosen) {
		boots->line = g_steal_pointer(&loader.line);
		if (!boots->line)
			boots->unread = g_strdup(loader.chosen->image);
		if (loader.chosen->foreign)
			boots->foreign = g_strdup(loader.chosen->title ?: loader.chosen->id ?: loader.chosen->path);
	}
	loader_free(&loader);
}

const char *boot_lack(const struct boot *b)
{
	const char *space = b->module ? strrchr(b->module, ' ') : NULL;

	return space && !strcmp(space + 1, CORE) ? space + 1 : NULL;
}

char *boots_obstacle(struct host *h)
{
	g_autofree char *kernels = h->recorded ? host_read(h, NULL, "/answers/kernels") : kernels_read(h);
	g_autofree char *images = h->recorded ? host_read(h, NULL, "/answers/initramfs") : NULL;
	g_autofree char *elsewhere = NULL;
	struct boots boots;
	char *why = NULL;
	size_t i;

	boots_read(h, kernels, images, NULL, &boots);
	elsewhere = line_is_elsewhere(boots.line);
	if (elsewhere)
		why = g_strdup_printf("the next boot is of %s", elsewhere);
	for (i = 0; i < boots.count && !why; i++) {
		const struct boot *b = &boots.boot[i];

		if (b->next == NEXT_YES && b->module_known && (!b->module || boot_lack(b)))
			why = g_strdup_printf("Linux %s, which boots next, has no %s", b->release,
					      boot_lack(b) ?: MODULE_NAME);
	}
	boots_free(&boots);
	return why;
}

void boots_free(struct boots *boots)
{
	size_t i;

	for (i = 0; i < boots->count; i++) {
		struct boot *b = &boots->boot[i];

		g_free(b->release);
		g_free(b->module);
		g_free(b->image);
		g_free(b->error);
		g_strfreev(b->files);
	}
	g_free(boots->boot);
	g_free(boots->line);
	g_free(boots->unread);
	g_free(boots->foreign);
	*boots = (struct boots){ };
}
