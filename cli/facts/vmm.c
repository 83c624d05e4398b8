// SPDX-License-Identifier: GPL-2.0-only
/*
 * The QEMUs and libvirts of a host: see vmm.h.
 */
#include <glib.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "facts/answers.h"
#include "facts/vmm.h"
#include "system/util.h"
#include "system/xml.h"

static const struct {
	const char *words;	/* all of them; NULL: only the version shows it */
	int major, minor;
	const char *since;
} features[] = {
	[QEMU_INITIATOR] = { "object.acpi-generic-initiator", 9, 0, "QEMU 9.0" },
	[QEMU_ALIGNS] = { NULL, 9, 2, "QEMU 9.2" },
	[QEMU_WINDOW] = { "machine.highmem-mmio-size", 10, 0, "QEMU 10.0" },
	[QEMU_RAS] = { "machine.ras", 5, 0, "QEMU 5.0" },
	[QEMU_IOMMUFD] = { "object.iommufd vfio-pci.iommufd", 9, 0, "QEMU 9.0" },
	[QEMU_ATS] = { "vfio-pci.ats", 11, 1, "QEMU 11.1" },
	[QEMU_ACCEL] = { "arm-smmuv3.primary-bus arm-smmuv3.accel", 11, 0, "QEMU 11.0" },
	[QEMU_SMMU_DERIVES] = { "arm-smmuv3.ats=auto arm-smmuv3.ril=auto arm-smmuv3.ssidsize=auto arm-smmuv3.oas=auto", 11, 1, "QEMU 11.1" },
	[QEMU_SMMU_SSIDSIZE] = { "arm-smmuv3.ssidsize", 11, 0, "QEMU 11.0" },
	[QEMU_SMMU_PASID] = { "arm-smmuv3.pasid", INT_MAX, 0, "no QEMU" },
	[QEMU_SPEED] = { "pcie-root-port.x-speed", 9, 2, "QEMU 9.2" },
	[LIBVIRT_VARIANT] = { NULL, 10, 0, "libvirt 10.0" },
	[LIBVIRT_RAS] = { NULL, 10, 4, "libvirt 10.4" },
	[LIBVIRT_NODESET] = { NULL, 11, 8, "libvirt 11.8" },
	[LIBVIRT_ACCEL] = { NULL, 12, 7, "libvirt 12.7" },
	[LIBVIRT_IOMMUFD] = { NULL, 12, 1, "libvirt 12.1" },
};

/*
 * Parses "PATH: words 9.2.1 (more)" and cuts the line after the path; false: no
 * number.
 */
static bool parse_version(char *line, int *major, int *minor)
{
	char *at = strstr(line, ": ");

	if (!at)
		return false;
	*at = 0;
	for (at += 2; *at; at++)
		if (at[-1] == ' ' && sscanf(at, "%d.%d", major, minor) == 2)
			return true;
	return false;
}

/* Each line of versions is a program. */
static void read_versions(const char *versions, struct vmms *vmms)
{
	g_autofree char **lines = text_lines(versions);
	size_t i;

	vmms->count = g_strv_length(lines);
	vmms->vmm = g_new0(struct vmm, vmms->count);
	for (i = 0; i < vmms->count; i++) {
		struct vmm *vmm = &vmms->vmm[i];

		vmm->path = lines[i];
		vmm->known = parse_version(lines[i], &vmm->major, &vmm->minor);
	}
}

/*
 * Adds a line of a list: "  ras=<bool>  - text", "  ats=<OnOffAuto> ... (default: auto)"
 * or "  iommufd". kind: what the list is of.
 */
static void add_listed(GString *words, const char *kind, const char *line)
{
	const char *name = line + strspn(line, " ");
	int len = strcspn(name, "=, ");

	if (name == line || !len)
		return;
	g_string_append_printf(words, " %s.%.*s", kind, len, name);
	if (g_str_has_suffix(line, "(default: auto)"))
		g_string_append_printf(words, " %s.%.*s=auto", kind, len, name);
}

/*
 * Reads what this QEMU has said: after each line "$ PATH OPTION KIND,help" what it printed.
 */
static void read_lists(const char *said, struct vmm *vmm)
{
	g_auto(GStrv) lines = g_strsplit(said, "\n", -1);
	g_autofree char *mine = g_strdup_printf("$ %s ", vmm->path), *kind = NULL;
	GString *words = NULL;
	const char *at;
	size_t i;

	for (i = 0; lines[i]; i++) {
		if (*lines[i] == '$') {
			g_clear_pointer(&kind, g_free);
			if (!g_str_has_prefix(lines[i], mine))
				continue;
			if (!words)
				words = g_string_new(NULL);
			/* "-object help" is a list of objects. */
			at = strrchr(lines[i], ' ') + 1;
			kind = !strcmp(at, "help") ? g_strdup("object") :
			       !strcmp(at, "virt,help") ? g_strdup("machine") :
			       g_strndup(at, strcspn(at, ","));
		} else if (kind) {
			at = strstr(lines[i], "-machine options:");
			if (at && !vmm->machine)
				vmm->machine = g_strndup(lines[i], at - lines[i]);
			add_listed(words, kind, lines[i]);
		}
	}
	vmm->words = words ? g_string_free(words, FALSE) : NULL;
}

void qemus_read(struct answers *a, struct vmms *vmms)
{
	const char *said = answer(a, "qemu-options");
	size_t i;

	read_versions(answer(a, "qemu"), vmms);
	for (i = 0; said && i < vmms->count; i++)
		read_lists(said, &vmms->vmm[i]);
}

void libvirts_read(struct answers *a, struct vmms *vmms)
{
	read_versions(answer(a, "libvirt"), vmms);
}

void vmms_free(struct vmms *vmms)
{
	size_t i;

	for (i = 0; i < vmms->count; i++) {
		g_free(vmms->vmm[i].path);
		g_free(vmms->vmm[i].words);
		g_free(vmms->vmm[i].machine);
	}
	g_free(vmms->vmm);
	memset(vmms, 0, sizeof(*vmms));
}

bool vmm_has(const struct vmm *vmm, enum vmm_feature feature)
{
	const char *words = features[feature].words;
	g_auto(GStrv) each = NULL;
	bool all = true;
	size_t i;

	if (!words || !vmm->words)
		return vmm->known && (vmm->major > features[feature].major ||
				      (vmm->major == features[feature].major &&
				       vmm->minor >= features[feature].minor));
	each = g_strsplit(words, " ", -1);
	for (i = 0; each[i]; i++)
		all &= has_word(vmm->words, each[i]);
	return all;
}

const char *vmm_since(enum vmm_feature feature)
{
	return features[feature].since;
}

/* Whether a libvirt that lists it has "yes" for iommufd. One before 12.1 lists none. */
static bool has_iommufd(const struct element *domain)
{
	const struct element *list = xml_find(domain, "devices/hostdev/enum"), *value;

	while (list && !xml_is(list, "name", "iommufd"))
		list = xml_next(list);
	for (value = xml_find(list, "value"); value; value = xml_next(value))
		if (!strcmp(value->text->str, "yes"))
			return true;
	return !list;
}

void libvirt_ask(const char *version, const char *capabilities, struct vmms *libvirts,
		 bool *iommufd)
{
	g_autofree char *daemon = field_value(version, "Running against daemon"), *error = NULL;
	struct element *root = capabilities ? xml_read(capabilities, &error) : NULL;
	int major, minor;
	size_t i;

	/* virsh knows one daemon. A program may be newer, until the daemon starts again. */
	for (i = 0; daemon && i < libvirts->count; i++)
		if (sscanf(daemon, "%d.%d", &major, &minor) == 2) {
			libvirts->vmm[i].known = true;
			libvirts->vmm[i].major = major;
			libvirts->vmm[i].minor = minor;
		}
	*iommufd = !root || has_iommufd(root);
	xml_free(root);
}
