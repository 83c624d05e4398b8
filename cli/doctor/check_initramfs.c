// SPDX-License-Identifier: GPL-2.0-only
/*
 * Whether the initramfs of each kernel has the module, the rule and the
 * configuration that are installed, because the next boot starts from it.
 * images.c reads it.
 */
#include <glib.h>
#include <string.h>

#include "doctor/checks.h"
#include "facts/initramfs.h"

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The directives sorted, without duplicates, one on a line. */
static char *sorted(GPtrArray *directives)
{
	GString *text = g_string_new(NULL);
	size_t i;

	g_ptr_array_sort(directives, by_text);
	for (i = 0; i < directives->len; i++)
		if (!i || strcmp(directives->pdata[i], directives->pdata[i - 1]))
			g_string_append_printf(text, "%s\n", (char *)directives->pdata[i]);
	return g_string_free(text, FALSE);
}

static char *wanted_directives(struct doctor *d)
{
	g_autoptr(GPtrArray) list = g_ptr_array_new_with_free_func(g_free);
	size_t i;

	for (i = 0; i < d->wishes.count; i++)
		g_ptr_array_add(list, config_text(&d->wishes.line[i]));
	return sorted(list);
}

static char *image_directives(const char *block)
{
	g_autoptr(GPtrArray) list = g_ptr_array_new();
	g_auto(GStrv) lines = text_lines(block);
	const char key[] = "directive: ";
	size_t i;

	for (i = 0; lines[i]; i++)
		if (g_str_has_prefix(lines[i], key))
			g_ptr_array_add(list, lines[i] + strlen(key));
	return sorted(list);
}

static bool binds(const char *directives)
{
	return !strncmp(directives, "bind ", 5) || strstr(directives, "\nbind ");
}

static void renew(struct doctor *d, struct finding *f, const char *release, const char *image)
{
	const char *const *command = initramfs_command(d->h);

	/* The table has all three commands. */
	if (g_str_has_suffix(image, ".efi")) {
		fill(f, "\"update-initramfs -u -k RELEASE\", \"dracut --force --kver RELEASE\" or ", "");
	} else {
		fill(f, " or \"kernel-install add RELEASE /lib/modules/RELEASE/vmlinuz\"", "");
		fill(f, command && strstr(command[0], "dracut") ?
			"\"update-initramfs -u -k RELEASE\", " :
			", \"dracut --force --kver RELEASE\"", "");
	}
	fill(f, "RELEASE", release);
}

static bool is_none(const char *module)
{
	return !module || !strcmp(module, "none");
}

/*
 * Whether two "PLACE ID" name the same module, as far as their ids are known.
 */
static bool is_same(const char *a, const char *b)
{
	const char *id_a = strrchr(a, ' '), *id_b = strrchr(b, ' ');

	if (!id_a || !id_b || id_a - a != id_b - b || strncmp(a, b, id_a - a))
		return false;
	return !strcmp(id_a, id_b) || !strcmp(id_a, " -") || !strcmp(id_b, " -");
}

/* Checks one kernel's lines; true: no finding. */
static bool check_block(struct doctor *d, const char *block, bool wants, const char *wanted)
{
	g_autofree char *release = field_value(block, "kernel"), *image = field_value(block, "image");
	g_autofree char *error = field_value(block, "error"), *module = field_value(block, "module");
	g_autofree char *installed = field_value(block, "installed");
	g_autofree char *parts = field_value(block, "parts");
	g_autofree char *has = image_directives(block);
	struct finding *f = NULL;

	if (!release || !image) {
		/* Only an edited record lacks these. */
	} else if (!strcmp(image, "none")) {
		if (wants) {
			f = finding(d, INITRAMFS_NONE, NULL, "no initramfs of %s is known", release);
			because(f, "there is none in the places of initramfs-tools, dracut and kernel-install; it may be a part of a unified kernel image with a name of its own");
		}
	} else if (error) {
		f = finding(d, d->privileged ? INITRAMFS_UNKNOWN : INITRAMFS_UNREADABLE, NULL,
			    "not known what the initramfs of %s contains", release);
		because(f, "%s: %s", image, error);
	} else if (!wants && binds(has)) {
		f = finding(d, INITRAMFS_OUTDATED, NULL, "the initramfs of %s still binds GPUs",
			    release);
		because(f, "%s has a copy of a configuration that was removed", image);
		renew(d, f, release, image);
	} else if (!wants) {
		/* Without a directive, the rule binds nothing. */
	} else if (!has_word(parts, "rule") || !has_word(parts, "helper")) {
		f = finding(d, INITRAMFS_OUTDATED, NULL, "the initramfs of %s binds no GPU",
			    release);
		because(f,
			"%s lacks the udev rule or its program: another driver may bind a GPU first, and keep it if the GPU is then in use",
			image);
		renew(d, f, release, image);
	} else if (strcmp(has, wanted)) {
		f = finding(d, INITRAMFS_OUTDATED, NULL,
			    "the initramfs of %s has another configuration", release);
		because(f, "the directives in %s differ from those in /etc", image);
		renew(d, f, release, image);
	} else if (!is_none(installed) && is_none(module)) {
		f = finding(d, INITRAMFS_OUTDATED, NULL, "the initramfs of %s has no module",
			    release);
		because(f, "%s was made before the module was built", image);
		renew(d, f, release, image);
	} else if (!is_none(installed) && !is_same(installed, module)) {
		f = finding(d, INITRAMFS_OUTDATED, NULL,
			    "the initramfs of %s has another module than /lib/modules", release);
		because(f, "%s has %s, which the boot would load, but %s is installed", image,
			module, installed);
		renew(d, f, release, image);
	}
	return !f;
}

void check_initramfs(struct doctor *d)
{
	const char *text = answer(d->answers, "initramfs"), *next, *begin;
	bool wants = false, hooked = initramfs_command(d->h), good = true;
	g_autofree char *wanted = wanted_directives(d);
	size_t kernels = 0, i;

	for (i = 0; i < d->wishes.count; i++)
		wants |= config_line_binds(&d->wishes.line[i]);
	for (begin = text; begin && *begin; begin = next) {
		g_autofree char *block = NULL;

		next = strstr(begin + 1, "\nkernel: ");
		next = next ? next + 1 : begin + strlen(begin);
		block = g_strndup(begin, next - begin);
		/*
		 * Where no tool puts this project's parts into images, their
		 * absence is right.
		 */
		if (hooked || strstr(block, "directive: ")) {
			kernels++;
			good &= check_block(d, block, wants && hooked, wanted);
		}
	}
	if (kernels && good)
		finding(d, INITRAMFS_GOOD, NULL,
			wants ? "the initramfs of %zu kernel%s matches what is installed" :
				"the initramfs of %zu kernel%s binds no GPU",
			kernels, kernels > 1 ? "s" : "");
}
