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
#include "system/kmsg.h"

/* Appends a message, "LEVEL text", if a check needs it. */
static void keep_message(void *data, const struct kmsg *message)
{
	static const char *const what[] = {
		"nvgrace", "CPU features: detected: Stage-2 Force Write-Back",
		"CPU features: detected: Instruction cache invalidation not required",
		"unavailable key is rejected", "unsigned module", "module verification failed",
	};
	GString *t = data;
	size_t i;

	/* The log has all messages since boot: a missing line was not logged. */
	if (!message->sequence)
		g_string_append(t, "6 log complete\n");
	for (i = 0; i < G_N_ELEMENTS(what); i++) {
		if (strstr(message->text, what[i])) {
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

/* The kernel's configuration, from the places of the distributions. */
static char *read_config(struct answers *a)
{
	static char *const gzip[] = {
		(char *)"gzip", (char *)"-dc", (char *)"/proc/config.gz", NULL
	};
	const char *release = answer(a, "kernel-release");
	char *text;

	if (!release)
		return NULL;
	text = host_read(a->h, NULL, "/boot/config-%s", release);
	if (!text)
		text = host_read(a->h, NULL, "/lib/modules/%s/config", release);
	if (!text && !a->h->recorded)
		text = program_output(PROGRAM_MS, "/usr/bin/gzip", gzip);
	if (!text)
		text = host_read(a->h, NULL, "/lib/modules/%s/build/.config", release);
	return text;
}

char *ask_kernel_config(struct answers *a)
{
	static const char *const options[] = {
		"VFIO_PCI_CORE", "VFIO_IOMMU_TYPE1", "VFIO_CONTAINER", "IOMMUFD",
		"IOMMUFD_VFIO_CONTAINER", "VFIO_DEVICE_CDEV", "ARCH_SUPPORTS_PMD_PFNMAP",
		"ARCH_SUPPORTS_PUD_PFNMAP", "VFIO_PCI_DMABUF", "MEMORY_FAILURE",
		"NVGRACE_GPU_VFIO_PCI", "NVGRACE_EGM", "MODULE_SIG", "MODULE_SIG_FORCE", "KVM",
		"ARM_SMMU_V3_IOMMUFD", "TEGRA241_CMDQV", "PCI_P2PDMA",
		"MEMORY_HOTPLUG", "ARM_SMMU_V3_SVA", "DEVICE_PRIVATE", "DEVICE_MIGRATION",
	};
	g_autofree char *config = read_config(a);
	g_auto(GStrv) lines = NULL;
	char *line, *equals;
	size_t i, n;
	GString *t;

	if (!config)
		return NULL;
	t = g_string_new(NULL);
	lines = g_strsplit(config, "\n", -1);
	for (n = 0; (line = lines[n]); n++) {
		equals = strchr(line, '=');
		if (equals && !strncmp(line, "CONFIG_", 7)) {
			*equals = 0;
			for (i = 0; i < G_N_ELEMENTS(options); i++)
				if (!strcmp(line + 7, options[i]))
					g_string_append_printf(t, "%s=%s\n", line, equals + 1);
		}
	}
	return g_string_free(t, FALSE);
}

/*
 * Only parameters that a check needs: others are private, such as names of
 * disks.
 */
char *ask_command_line(struct answers *a)
{
	static const char *const prefixes[] = {
		"iommu", "arm-smmu", "intel_iommu", "amd_iommu", "kvm-arm.", "kvm.", "arm64.",
		"module.sig_enforce", "lockdown", "vfio", "nvgrace", "acpi=", "pci=", "nouveau.",
		"modprobe.blacklist", "rd.driver",
	};
	g_autofree char *line = host_line(a->h, "/proc/cmdline");
	char *word, *rest = NULL;
	GString *t;
	size_t i;

	if (!line)
		return NULL;
	t = g_string_new(NULL);
	for (word = strtok_r(line, " ", &rest); word; word = strtok_r(NULL, " ", &rest))
		for (i = 0; i < G_N_ELEMENTS(prefixes); i++)
			if (!strncmp(word, prefixes[i], strlen(prefixes[i]))) {
				g_string_append_printf(t, "%s\n", word);
				break;
			}
	return g_string_free(t, FALSE);
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
		return;
	kmod_list_foreach(item, info) {
		key = kmod_module_info_get_key(item);
		for (i = 0; i < G_N_ELEMENTS(keys); i++)
			if (!strcmp(key, keys[i]))
				g_string_append_printf(t, "%s: %s\n", key,
						       kmod_module_info_get_value(item));
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
	} else {
		mod = kmod_module_get_module(list);
		s = kmod_module_get_path(mod);
		if (s) {
			g_string_append_printf(t, "path: %s\n", s);
			module_info(t, mod);
		} else {
			g_string_append_printf(t, "path: %s\n",
					       kmod_module_get_initstate(mod) ==
					       KMOD_MODULE_BUILTIN ? "builtin" : "none");
		}
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
		kmod_module_unref(mod);
		kmod_module_unref_list(list);
	}
	kmod_unref(ctx);
	return g_string_free(t, FALSE);
}
