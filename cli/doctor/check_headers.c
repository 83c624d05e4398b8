// SPDX-License-Identifier: GPL-2.0-only
/*
 * What DKMS builds the module from: its source, and the kernel's headers.
 */
#include <ctype.h>
#include <glib.h>
#include <string.h>

#include "doctor/checks.h"
#include "system/program.h"

#define DKMS_TREE "/var/lib/dkms"

/*
 * A setting of DKMS's own configuration, which is shell: the last plain assignment
 * of it, or the default; to be freed.
 */
static char *dkms_setting(struct doctor *d, const char *name, const char *by_default)
{
	g_auto(GStrv) more = host_list(d->h, "/etc/dkms/framework.conf.d");
	char *value = g_strdup(by_default);
	size_t i, j;

	for (i = 0; !i || (more && more[i - 1]); i++) {
		g_autofree char *text = NULL;
		g_auto(GStrv) lines = NULL;

		if (!i)
			text = host_read(d->h, NULL, "/etc/dkms/framework.conf");
		else if (g_str_has_suffix(more[i - 1], ".conf"))
			text = host_read(d->h, NULL, "/etc/dkms/framework.conf.d/%s", more[i - 1]);
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

bool has_dkms_source(struct doctor *d)
{
	g_autofree char *tree = dkms_setting(d, "dkms_tree", DKMS_TREE);
	g_auto(GStrv) versions = host_list(d->h, "%s/" MODULE_NAME, tree);

	return versions && versions[0];
}

void fill_dkms(struct doctor *d, struct finding *f)
{
	g_autofree char *tree = dkms_setting(d, "dkms_tree", DKMS_TREE);
	g_autofree char *source = g_strdup_printf("%s/" MODULE_NAME, tree);
	g_autofree char *mok = g_strdup_printf("%s/mok.pub", tree);
	g_autofree char *key = dkms_setting(d, "mok_certificate", mok);

	fill(f, DKMS_TREE "/mok.pub", key);
	fill(f, DKMS_TREE "/" MODULE_NAME, source);
}

/*
 * How to install the headers by the package of the running kernel, which each distribution calls
 * otherwise; NULL: it has none.
 */
static char *command_by_package(struct doctor *d)
{
	const char *package = answer(d->answers, "kernel-package");
	g_auto(GStrv) words = g_strsplit(package ? package : "", " ", 3);
	g_autoptr(GString) name = NULL;

	if (!words[0] || !words[1])
		return NULL;
	name = g_string_new(words[1]);
	if (!strcmp(words[0], "dpkg")) {
		/* linux-image-unsigned-6.8.0-1021-nvidia, proxmox-kernel-6.14.11-3-pve-signed */
		g_string_replace(name, "-unsigned", "", 1);
		g_string_replace(name, "-signed", "", 1);
		g_string_replace(name, "-image-", "-headers-", 1);
		g_string_replace(name, "-kernel-", "-headers-", 1);
		return g_strdup_printf("run \"apt install %s\"", name->str);
	}
	if (!words[2])
		return NULL;
	/* kernel-64k-core, kernel6.12, kernel-default */
	if (g_str_has_suffix(name->str, "-core"))
		g_string_truncate(name, name->len - strlen("-core"));
	if (host_exists(d->h, "/usr/bin/zypper"))
		return g_strdup_printf("run \"zypper install %s-devel=%s\"", name->str, words[2]);
	return g_strdup_printf("run \"dnf install %s-devel-%s\"", name->str, words[2]);
}

/*
 * How to install the running kernel's headers: "run" and the distribution's
 * command in quotes, or only words; to be freed. The release has the flavour's
 * name: 6.8.0-1021-nvidia-64k, 5.14.0-570.el9.aarch64+64k,
 * 6.4.0-150600.23-64kb.
 */
static char *headers_command(struct doctor *d)
{
	g_autofree char *id = host_os_release(d->h, "ID"), *like = host_os_release(d->h, "ID_LIKE");
	g_autofree char *ids = g_strdup_printf("%s %s", id, like);
	char *command = command_by_package(d), *flavour, *c;
	const char *release = d->release ? d->release : "";

	if (command) {
		/* The rest is for trees without answers, and kernels of no package. */
	} else if (g_str_has_suffix(release, "-pve")) {
		command = g_strdup_printf("run \"apt install proxmox-headers-%s\"", release);
	} else if (has_word(ids, "amzn")) {
		/* kernel6.12-devel and the like; each provides this name. */
		command = g_strdup_printf("run \"dnf install 'kernel-devel-uname-r = %s'\"", release);
	} else if (has_word(ids, "debian") || has_word(ids, "ubuntu")) {
		command = g_strdup_printf("run \"apt install linux-headers-%s\"", release);
	} else if (has_word(ids, "rhel") || has_word(ids, "fedora") || has_word(ids, "centos")) {
		flavour = strchr(release, '+');
		if (flavour) {
			command = g_strdup_printf("run \"dnf install kernel-%s-devel-%.*s\"", flavour + 1,
						  (int)(flavour - release), release);
		} else if (strstr(release, "uek") && g_str_has_suffix(release, ".64k")) {
			command = g_strdup_printf("run \"dnf install kernel-uek64k-devel-%.*s\"",
						  (int)(strlen(release) - strlen(".64k")), release);
		} else if (strstr(release, "uek")) {
			command = g_strdup_printf("run \"dnf install kernel-uek-devel-%s\"", release);
		} else {
			command = g_strdup_printf("run \"dnf install kernel-devel-%s\"", release);
		}
	} else if (has_word(ids, "suse") || has_word(ids, "sles") || has_word(ids, "opensuse")) {
		flavour = strrchr(release, '-');
		command = g_strdup_printf("run \"zypper install kernel-%s-devel\"",
					  flavour ? flavour + 1 : "default");
	} else {
		command = g_strdup_printf("install the headers of Linux %s", release);
	}
	/* Some of it comes from a file, and a person will type it. */
	for (c = command; *c; c++)
		if (!strchr("-+.=_~ \"'", *c) && !isalnum((unsigned char)*c))
			*c = '?';
	return command;
}

void fill_headers(struct doctor *d, struct finding *f)
{
	g_autofree char *command = headers_command(d);

	fill(f, "install the headers of Linux RELEASE", command);
	fill(f, "RELEASE", d->release);
}

void check_headers(struct doctor *d, const char *path)
{
	bool built = path && !strstr(path, "/kernel/");
	struct finding *f;

	/* DKMS does not build for these kernels. */
	if (!has_dkms_source(d) || !d->arm || !d->release || kernel_option(d, "NVGRACE_EGM") != 'n' ||
	    !host_exists(d->h, "/lib/modules/%s", d->release))
		return;
	if (host_exists(d->h, "/lib/modules/%s/build/Makefile", d->release)) {
		finding(d, HEADERS_GOOD, NULL, "the headers of Linux %s are installed", d->release);
		return;
	}
	f = finding(d, built ? HEADERS_MISSING_LATER : HEADERS_MISSING, NULL,
		    "the headers of Linux %s are missing", d->release);
	because(f, "there is no /lib/modules/%s/build/Makefile: DKMS can't build %s", d->release,
		built ? "a later version of the module for this kernel" :
			"the module for this kernel");
	fill_headers(d, f);
}
