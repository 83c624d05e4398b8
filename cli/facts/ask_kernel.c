// SPDX-License-Identifier: GPL-2.0-only
/*
 * Questions to the kernel: its log, configuration and command line, and the module.
 */
#include <errno.h>
#include <glib.h>
#include <libkmod.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "facts/answers.h"
#include "facts/ask.h"
#include "facts/boots.h"
#include "system/kmsg.h"

/* The texts by which a line is known, for the filter and for its readers. */
static const struct {
	enum log_purpose purpose;
	const char *text;
} log_texts[] = {
	{ LOG_REFUSED, ": disagrees about version of symbol " },
	{ LOG_REFUSED, ": Unknown symbol " },
	{ LOG_REFUSED, ": no symbol version for " },
	{ LOG_REFUSED, ": version magic '" },
	{ LOG_REFUSED, ": exports duplicate symbol " },
	{ LOG_REFUSED, ": .gnu.linkonce.this_module section " },
	{ LOG_REFUSED, "] BTF: -" },
	{ LOG_REFUSED, LOG_PARAMETER },
	{ LOG_KEY, "unavailable key is rejected" },
	{ LOG_KEY, "unsigned module is rejected" },
	{ LOG_KEY, "unsigned module loading is restricted" },
	{ LOG_DRIVER, "nvgrace" },
};

/* What the kernel writes before the name in some of these lines. */
static const char *const before_names[] = { "module ", "failed to validate module [" };

bool log_names(const char *line, const char *module)
{
	const char *at = line + strspn(line, "01234567 ");
	size_t i;

	for (i = 0; i < G_N_ELEMENTS(before_names); i++)
		if (g_str_has_prefix(at, before_names[i]))
			at += strlen(before_names[i]);
	return g_str_has_prefix(at, module) && (at[strlen(module)] == ':' || at[strlen(module)] == ']');
}

bool log_says(const char *lines, enum log_purpose purpose)
{
	size_t i;

	for (i = 0; lines && i < G_N_ELEMENTS(log_texts); i++)
		if (log_texts[i].purpose == purpose && strstr(lines, log_texts[i].text))
			return true;
	return false;
}

/* Appends a message, "LEVEL text", if it is for something. */
static void keep_message(void *data, const struct kmsg *message)
{
	enum log_purpose purpose;
	GString *t = data;

	for (purpose = 0; purpose < LOG_PURPOSES; purpose++) {
		if (log_says(message->text, purpose)) {
			g_string_append_printf(t, "%d %s\n", message->priority & 7, message->text);
			return;
		}
	}
}

char *ask_kernel_log(struct answers *a)
{
	int fd = kmsg_open(), error;
	GString *t;

	if (fd < 0)
		return NULL;
	t = g_string_new(NULL);
	error = kmsg_read(fd, keep_message, t);
	close(fd);
	return g_string_free(t, error && error != EPIPE);
}

char *ask_packed_config(struct answers *a)
{
	static char *const gzip[] = {
		(char *)"gzip", (char *)"-dc", (char *)"/proc/config.gz", NULL
	};

	return program_output(PROGRAM_MS, "/usr/bin/gzip", gzip);
}

/* The kernel's configuration, from the places of the distributions. */
char *ask_kernel_config(struct answers *a)
{
	const char *release = answer(a, "kernel-release");
	char *text;

	if (!release)
		return NULL;
	text = host_read(a->h, NULL, "/boot/config-%s", release);
	if (!text)
		text = host_read(a->h, NULL, "/lib/modules/%s/config", release);
	if (!text)
		text = g_strdup(answer(a, "config.gz"));
	if (!text)
		text = host_read(a->h, NULL, "/lib/modules/%s/build/.config", release);
	return text;
}

/* The words of the kernel's command line, with a space before and after each. */
char *ask_command_line(struct answers *a)
{
	g_autofree char *line = host_read(a->h, NULL, "/proc/cmdline");

	return line ? g_strdelimit(g_steal_pointer(&line), "\n\t", ' ') : NULL;
}

/* In one line: libkmod breaks long numbers into several. */
static void append_value(GString *t, const char *key, const char *value)
{
	g_string_append_printf(t, "%s: ", key);
	for (; *value; value++)
		if (*value != '\n' && *value != '\t')
			g_string_append_c(t, *value);
	g_string_append_c(t, '\n');
}

static void module_info(GString *t, struct kmod_module *mod)
{
	static const char *const keys[] = {
		"version", "srcversion", "vermagic", "sig_id", "signer", "sig_key",
	};
	struct kmod_list *info = NULL, *item;
	const char *key;
	size_t i;

	if (kmod_module_get_info(mod, &info) < 0)
		append_value(t, "vermagic", "unknown");
	kmod_list_foreach(item, info) {
		key = kmod_module_info_get_key(item);
		for (i = 0; i < G_N_ELEMENTS(keys); i++)
			if (!strcmp(key, keys[i]))
				append_value(t, key, kmod_module_info_get_value(item));
	}
	kmod_module_info_free_list(info);
}

/*
 * Whether modules.alias has the module for the alias by which libvirt and other
 * tools find a variant driver. Each id of the driver has one; this is the
 * first.
 */
static bool has_alias(struct kmod_ctx *ctx)
{
	static const char alias[] = "vfio_pci:v000010DEd00002342sv000010DEsd000016EBbc03sc02i00";
	struct kmod_list *list = NULL, *item;
	struct kmod_module *mod;
	bool found = false;

	if (kmod_module_new_from_lookup(ctx, alias, &list) < 0)
		return false;
	kmod_list_foreach(item, list) {
		mod = kmod_module_get_module(item);
		found |= !strcmp(kmod_module_get_name(mod), DRIVER_NAME);
		kmod_module_unref(mod);
	}
	kmod_module_unref_list(list);
	return found;
}

/*
 * "KEY: NAME PATH|builtin|none", and the command that modprobe.d has in place of
 * loading it.
 */
static void append_need(GString *t, const char *key, struct kmod_module *mod)
{
	const char *install = kmod_module_get_install_commands(mod);

	g_string_append_printf(t, "%s: %s %s", key, kmod_module_get_name(mod), module_place(mod) ?: "none");
	if (install)
		g_string_append_printf(t, " install %s", install);
	g_string_append(t, "\n");
}

/* Those of a list, which it frees. Whether vfio-pci-core is one. */
static bool append_list(GString *t, const char *key, struct kmod_list *list)
{
	struct kmod_list *item;
	struct kmod_module *mod;
	bool core = false;

	kmod_list_foreach(item, list) {
		mod = kmod_module_get_module(item);
		core |= !strcmp(kmod_module_get_name(mod), "vfio_pci_core");
		append_need(t, key, mod);
		kmod_module_unref(mod);
	}
	kmod_module_unref_list(list);
	return core;
}

static void append_named(GString *t, struct kmod_ctx *ctx, const char *key, const char *name)
{
	struct kmod_list *list = NULL;

	if (kmod_module_new_from_lookup(ctx, name, &list) >= 0 && !list)
		g_string_append_printf(t, "%s: %s none\n", key, name);
	append_list(t, key, list);
}

/*
 * What maps memory for DMA, of which a VMM needs one; vfio-pci-core, which may be
 * installed or not, and all that the module depends on.
 */
static void append_needs(GString *t, struct kmod_ctx *ctx, struct kmod_module *module)
{
	append_named(t, ctx, "backend", "vfio_iommu_type1");
	append_named(t, ctx, "backend", "iommufd");
	if (!append_list(t, "needs", module ? kmod_module_get_dependencies(module) : NULL))
		append_named(t, ctx, "needs", "vfio_pci_core");
}

char *ask_module(struct answers *a)
{
	const char *release = answer(a, "kernel-release"), *s;
	struct kmod_list *list = NULL;
	struct kmod_module *mod;
	struct kmod_ctx *ctx;
	GString *t;

	/* Without the index, libkmod finds nothing and reports no error. */
	if (!release || !host_exists(a->h, "/lib/modules/%s/modules.dep.bin", release))
		return NULL;
	ctx = kmod_new(NULL, NULL);
	if (!ctx)
		return NULL;
	kmod_set_log_priority(ctx, 0);
	if (kmod_module_new_from_lookup(ctx, MODULE_NAME, &list) < 0) {
		kmod_unref(ctx);
		return NULL;
	}
	t = g_string_new(NULL);
	if (!list) {
		g_string_append(t, "path: none\n");
		append_needs(t, ctx, NULL);
	} else {
		mod = kmod_module_get_module(list);
		g_string_append_printf(t, "path: %s\n", module_place(mod) ?: "none");
		if (module_file(mod))
			module_info(t, mod);
		s = kmod_module_get_install_commands(mod);
		if (s)
			g_string_append_printf(t, "install: %s\n", s);
		/*
		 * From modprobe.d and the kernel's command line. An empty line
		 * means none.
		 */
		s = kmod_module_get_options(mod);
		g_string_append_printf(t, "options: %s\n", s ? s : "");
		g_string_append_printf(t, "alias: %s\n", has_alias(ctx) ? "yes" : "no");
		append_needs(t, ctx, mod);
		kmod_module_unref(mod);
		kmod_module_unref_list(list);
	}
	kmod_unref(ctx);
	return g_string_free(t, FALSE);
}
