// SPDX-License-Identifier: GPL-2.0-only
/*
 * Questions to programs: QEMU and libvirt.
 */
#include <glib.h>
#include <string.h>

#include "facts/answers.h"
#include "facts/ask.h"
#include "facts/libvirt.h"

/*
 * The limit for a program that lists what it has: QEMU first makes all its types,
 * which takes longer than 10 s on an emulated host.
 */
#define LIST_MS 60000

/* The text, or NULL if it is empty; frees t. */
static char *text_or_null(GString *t)
{
	return g_string_free(t, !t->len);
}

/* "PATH: first line of output" for each program that exists. */
static char *ask_versions(const char *const *paths)
{
	GString *t = g_string_new(NULL);

	for (; *paths; paths++) {
		char *const argv[] = { (char *)*paths, (char *)"--version", NULL };
		g_autofree char *out = program_output(PROGRAM_MS, *paths, argv);

		if (out)
			g_string_append_printf(t, "%s: %.*s\n", *paths,
					       (int)strcspn(out, "\n"), out);
	}
	return text_or_null(t);
}

static const char *const arm_qemus[] = {
	"/usr/bin/qemu-system-aarch64", "/usr/libexec/qemu-kvm",
	"/usr/local/bin/qemu-system-aarch64", NULL
};

char *ask_qemu(struct answers *a)
{
	static const char *const x86[] = {
		"/usr/bin/qemu-system-x86_64", "/usr/local/bin/qemu-system-x86_64", NULL
	};

	return ask_versions(is_arm(a) ? arm_qemus : x86);
}

/* "  ras=<bool>  - text" or "  iommufd" in a list of QEMU; NULL: another line. */
static const char *listed(char *line)
{
	char *name = line + strspn(line, " ");
	size_t n = strcspn(name, "=, ");

	if (name == line || !n)
		return NULL;
	name[n] = 0;
	return name;
}

/*
 * "PATH: machine.ras object.iommufd arm-smmuv3.accel ...": what each QEMU says
 * that it has, of all that the configuration of a guest with GPUs can use.
 */
char *ask_qemu_options(struct answers *a)
{
	static const struct {
		const char *option, *value, *prefix, *names;
	} lists[] = {
		{ "-machine", "virt,help", "machine", "ras highmem-mmio-size" },
		{ "-object", "help", "object", "acpi-generic-initiator iommufd" },
		{ "-device", "vfio-pci,help", "vfio-pci", "host iommufd ats" },
		{ "-device", "pxb-pcie,help", "pxb-pcie", "bus_nr numa_node" },
		{ "-device", "arm-smmuv3,help", "arm-smmuv3", "primary-bus accel" },
	};
	const char *const *path;
	GString *t = g_string_new(NULL);
	const char *name;
	size_t i, n;

	for (path = arm_qemus; is_arm(a) && *path; path++) {
		for (i = 0; i < G_N_ELEMENTS(lists); i++) {
			char *const argv[] = { (char *)*path, (char *)lists[i].option,
					       (char *)lists[i].value, NULL };
			g_autofree char *out = program_output(LIST_MS, *path, argv);
			g_auto(GStrv) lines = NULL;

			/* Every QEMU has the first list: this one can't be asked. */
			if (!out && !i)
				break;
			if (!i)
				g_string_append_printf(t, "%s:", *path);
			lines = g_strsplit(out ? out : "", "\n", -1);
			for (n = 0; lines[n]; n++) {
				name = listed(lines[n]);
				if (name && has_word(lists[i].names, name))
					g_string_append_printf(t, " %s.%s", lists[i].prefix, name);
			}
		}
		if (i)
			g_string_append(t, "\n");
	}
	return text_or_null(t);
}

char *ask_libvirt(struct answers *a)
{
	static const char *const paths[] = {
		"/usr/sbin/virtqemud", "/usr/sbin/libvirtd", NULL
	};

	return ask_versions(paths);
}

/* Elements for guests with GPUs that libvirt's schema of domains has. */
char *ask_libvirt_elements(struct answers *a)
{
	return libvirt_schema_words(a->h);
}

/* What libvirt says of its QEMU. Only if its daemon can be reached. */
char *ask_libvirt_capabilities(struct answers *a)
{
	static char *const argv[] = {
		(char *)"virsh", (char *)"-r", (char *)"-c", (char *)"qemu:///system",
		(char *)"domcapabilities", (char *)"--arch", (char *)"aarch64",
		(char *)"--machine", (char *)"virt", (char *)"--virttype", (char *)"kvm", NULL
	};
	g_autofree char *out = is_arm(a) ? program_output(PROGRAM_MS, "/usr/bin/virsh", argv) :
					   NULL;

	return out ? libvirt_capability_lines(out) : NULL;
}
