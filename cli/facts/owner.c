// SPDX-License-Identifier: GPL-2.0-only
/* See owner.h. */
#include <glib.h>
#include <string.h>

#include "facts/owner.h"
#include "system/program.h"

/* With which Ubuntu's DKMS signs, and others' that has no key of its own. */
#define SHIM_CERTIFICATE "/var/lib/shim-signed/mok/MOK.der"

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

/*
 * A setting of DKMS's own configuration, which is shell: the last plain assignment
 * of it, or the default; to be freed.
 */
static char *dkms_setting(struct host *h, const char *name, const char *by_default)
{
	g_auto(GStrv) more = host_list(h, "/etc/dkms/framework.conf.d");
	char *value = g_strdup(by_default);
	size_t i, j;

	for (i = 0; !i || (more && more[i - 1]); i++) {
		g_autofree char *text = NULL;
		g_auto(GStrv) lines = NULL;

		if (!i)
			text = host_read(h, NULL, "/etc/dkms/framework.conf");
		else if (g_str_has_suffix(more[i - 1], ".conf"))
			text = host_read(h, NULL, "/etc/dkms/framework.conf.d/%s", more[i - 1]);
		lines = text_lines(text);
		for (j = 0; lines[j]; j++) {
			g_auto(GStrv) words = NULL;
			char *line = g_strstrip(lines[j]);

			if (!g_str_has_prefix(line, name) || line[strlen(name)] != '=' ||
			    !g_shell_parse_argv(line + strlen(name) + 1, NULL, &words, NULL) || strchr(line, '$'))
				continue;
			g_free(value);
			value = g_strdup(words[0]);
		}
	}
	return value;
}

static char *dkms_tree(struct host *h)
{
	return dkms_setting(h, "dkms_tree", "/var/lib/dkms");
}

char *dkms_certificate(struct host *h)
{
	g_autofree char *tree = dkms_tree(h);
	g_autofree char *mok = g_strdup_printf("%s/mok.pub", tree);
	bool shared = !host_exists(h, "%s", mok) && host_exists(h, SHIM_CERTIFICATE);

	return dkms_setting(h, "mok_certificate", shared ? SHIM_CERTIFICATE : mok);
}

/* Folders and links can be left over. */
static bool has_source(struct host *h)
{
	g_autofree char *tree = dkms_tree(h);
	g_auto(GStrv) versions = host_list(h, "%s/" MODULE_NAME, tree);
	size_t i;

	for (i = 0; versions && versions[i]; i++)
		if (host_exists(h, "%s/" MODULE_NAME "/%s/source/dkms.conf", tree, versions[i]))
			return true;
	return false;
}

enum owner module_builder(struct host *h)
{
	g_auto(GStrv) releases = host_list(h, "/lib/modules");
	size_t i;

	if (has_source(h))
		return OWNER_DKMS;
	for (i = 0; releases && releases[i]; i++)
		if (host_exists(h, "/lib/modules/%s/updates/nvgrace-gpu", releases[i]))
			return OWNER_PACKAGES;
	/* As the packages of 0.3.0 had it. */
	return host_exists(h, "/usr/share/" MODULE_NAME) ? OWNER_PACKAGES : OWNER_NONE;
}

/* Whether / can't be written, as of a snapshot that only a new one replaces. */
static bool is_read_only(struct host *h)
{
	g_autofree char *text = host_read(h, NULL, "/proc/self/mounts");
	g_auto(GStrv) lines = text_lines(text);
	bool found = false;
	size_t i;

	for (i = 0; lines[i]; i++) {
		g_auto(GStrv) words = g_strsplit(lines[i], " ", 5);

		if (g_strv_length(words) == 5 && !strcmp(words[1], "/"))
			found = !strcmp(words[3], "ro") || g_str_has_prefix(words[3], "ro,");
	}
	return found;
}

enum system_kind system_kind(struct host *h)
{
	if (host_exists(h, "/run/ostree-booted"))
		return SYSTEM_OSTREE;
	return host_exists(h, "/usr/sbin/transactional-update") && is_read_only(h) ? SYSTEM_SNAPSHOT :
										     SYSTEM_ORDINARY;
}

char *in_snapshot(struct host *h, char *remedy)
{
	g_autofree char *ordinary = remedy;

	return system_kind(h) != SYSTEM_SNAPSHOT ? g_steal_pointer(&ordinary) :
	       g_strdup_printf("in \"transactional-update shell\", %s; then reboot", ordinary);
}

void module_lack(struct host *h, const char *release, char **why, char **remedy)
{
	enum owner builder = module_builder(h);

	if (system_kind(h) == SYSTEM_OSTREE) {
		*why = g_strdup("this system's image has none, and DKMS can't build in it");
		*remedy = g_strdup_printf("have \"make module-packages\" build nvgrace-gpu-vfio-pci-modules-%s, add it by "
					  "\"rpm-ostree install\" or to the host's image, and reboot", release);
		return;
	}
	if (builder == OWNER_DKMS && !host_exists(h, "/lib/modules/%s/build/Makefile", release)) {
		*why = g_strdup_printf("DKMS can't build it, because the headers of Linux %s are missing", release);
		*remedy = g_strdup_printf("install the headers of Linux %s, and the package that brings them with "
					  "each kernel (administration.md, \"Headers\"), then run \"dkms autoinstall -k %s\"",
					  release, release);
	} else if (builder == OWNER_DKMS) {
		*why = g_strdup_printf("DKMS has not built it for Linux %s", release);
		*remedy = g_strdup_printf("run \"dkms autoinstall -k %s\", which names the log of a failed build", release);
	} else if (builder == OWNER_PACKAGES) {
		*why = g_strdup_printf("there is no package of the built module for Linux %s, nor DKMS", release);
		*remedy = g_strdup_printf("install nvgrace-gpu-vfio-pci-modules-%s, which \"make module-packages\" builds; "
					  "or boot a kernel that has it", release);
	} else {
		*why = g_strdup_printf("neither DKMS nor Linux %s has one", release);
		*remedy = g_strdup("run \"apt install nvgrace-gpu-vfio-pci-dkms\" or \"dnf install nvgrace-gpu-vfio-pci-dkms\", "
				   "or boot a kernel that has the driver");
	}
	*remedy = in_snapshot(h, *remedy);
}
