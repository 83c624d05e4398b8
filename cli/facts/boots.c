// SPDX-License-Identifier: GPL-2.0-only
/* See boots.h. */
#include <glib.h>
#include <stdlib.h>
#include <string.h>

#include "facts/boots.h"
#include "facts/images.h"
#include "facts/loader.h"
#include "system/program.h"

enum owner module_owner(const char *path)
{
	const char *place = path ? strstr(path, "lib/modules/") : NULL;

	if (!path || !strcmp(path, "none"))
		return OWNER_NONE;
	place = place ? strchr(place + strlen("lib/modules/"), '/') : NULL;
	place = place ? place + 1 : path;
	if (!strcmp(place, "builtin") || g_str_has_prefix(place, "kernel/"))
		return OWNER_KERNEL;
	/* DKMS puts it into extra/ on Red Hat's and SUSE's systems. */
	if (g_str_has_prefix(place, "updates/dkms/") || g_str_has_prefix(place, "extra/" MODULE_NAME))
		return OWNER_DKMS;
	return strstr(place, "nvgrace-gpu/") ? OWNER_PACKAGES : OWNER_OTHER;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

char *boot_directives(char **each, size_t count)
{
	GString *text = g_string_new(NULL);
	size_t i;

	if (count)
		qsort(each, count, sizeof(*each), by_text);
	for (i = 0; i < count; i++)
		if (!i || strcmp(each[i], each[i - 1]))
			g_string_append_printf(text, "%s\n", each[i]);
	return g_string_free(text, FALSE);
}

static char *null_if_none(char *text)
{
	if (text && !strcmp(text, "none"))
		g_clear_pointer(&text, g_free);
	return text;
}

/* Whether a folder in /lib/modules is a kernel's: they stay behind when it is removed. */
static bool is_installed(struct host *h, const char *release)
{
	return host_exists(h, "/boot/vmlinuz-%s", release) || host_exists(h, "/boot/Image-%s", release) ||
	       host_exists(h, "/lib/modules/%s/vmlinuz", release) ||
	       host_exists(h, "/lib/modules/%s/Image", release);
}

char *kernels_read(struct host *h)
{
	g_auto(GStrv) releases = host_list(h, "/lib/modules");
	GString *text = g_string_new(NULL);
	size_t i;

	for (i = 0; releases && releases[i]; i++) {
		g_autofree char *module = NULL;

		/* Without the index, libkmod finds nothing and reports no error. */
		if (!is_installed(h, releases[i]) ||
		    !host_exists(h, "/lib/modules/%s/modules.dep.bin", releases[i]))
			continue;
		module = images_installed(releases[i]);
		g_string_append_printf(text, "%s: %s\n", releases[i], module ?: "none");
	}
	return g_string_free(text, FALSE);
}

static struct boot *boot_of(struct boots *boots, const char *release)
{
	size_t i;

	for (i = 0; i < boots->count; i++)
		if (!strcmp(boots->boot[i].release, release))
			return &boots->boot[i];
	boots->boot = g_renew(struct boot, boots->boot, boots->count + 1);
	boots->boot[boots->count] = (struct boot){ .release = g_strdup(release) };
	return &boots->boot[boots->count++];
}

/* Reads one kernel's lines of the answer "initramfs". */
static void read_block(struct boots *boots, const char *block)
{
	g_autofree char *release = field_value(block, "kernel"), *parts = field_value(block, "parts");
	g_autofree char *installed = field_value(block, "installed");
	g_autoptr(GPtrArray) directives = g_ptr_array_new();
	g_auto(GStrv) lines = text_lines(block);
	const char key[] = "directive: ";
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
	b->image_module = null_if_none(field_value(block, "module"));
	b->rule = parts && has_word(parts, "rule");
	b->helper = parts && has_word(parts, "helper");
	for (i = 0; lines[i]; i++)
		if (g_str_has_prefix(lines[i], key))
			g_ptr_array_add(directives, lines[i] + strlen(key));
	b->directives = boot_directives((char **)directives->pdata, directives->len);
	if (!b->module_known && installed) {
		b->module_known = true;
		b->module = null_if_none(g_steal_pointer(&installed));
	}
}

void boots_read(struct host *h, struct answers *a, bool images, struct boots *boots)
{
	const char *kernels = answer(a, "kernels");
	/* A record has both; its readers need not be slow. */
	const char *read = images || h->recorded ? answer(a, "initramfs") : NULL, *begin, *next;
	g_autofree char **releases = NULL;
	g_auto(GStrv) lines = text_lines(kernels);
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
		b->module = null_if_none(g_strdup(colon + 2));
	}
	for (begin = read; begin && *begin; begin = next) {
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

		b->headers = host_exists(h, "/lib/modules/%s/build/Makefile", b->release);
		b->next = !loader.next ? NEXT_UNKNOWN :
			  strcmp(loader.next, b->release) ? NEXT_NO : NEXT_YES;
	}
	loader_free(&loader);
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
		g_free(b->image_module);
		g_free(b->directives);
	}
	g_free(boots->boot);
	*boots = (struct boots){ };
}
