// SPDX-License-Identifier: GPL-2.0-only
/*
 * Questions to programs: QEMU and libvirt.
 */
#include <glib.h>
#include <string.h>

#include "facts/answers.h"
#include "facts/ask.h"

/*
 * The limit for a program that lists what it has: QEMU first makes all its types,
 * which takes longer than 10 s on an emulated host.
 */
#define LIST_MS 60000

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
	return g_string_free(t, !t->len);
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

/*
 * What each QEMU says that it has: after a line "$ PATH OPTION VALUE" for each question,
 * what it prints.
 */
char *ask_qemu_options(struct answers *a)
{
	static const char *const lists[][2] = {
		{ "-machine", "virt,help" }, { "-object", "help" }, { "-device", "vfio-pci,help" },
		{ "-device", "pxb-pcie,help" }, { "-device", "arm-smmuv3,help" },
		{ "-device", "pcie-root-port,help" },
	};
	const char *const *path;
	GString *t = g_string_new(NULL);
	size_t i;

	for (path = arm_qemus; is_arm(a) && *path; path++) {
		for (i = 0; i < G_N_ELEMENTS(lists); i++) {
			char *const argv[] = { (char *)*path, (char *)lists[i][0],
					       (char *)lists[i][1], NULL };
			g_autofree char *out = program_output(LIST_MS, *path, argv);

			/* Every QEMU has the first list: this one can't be asked. */
			if (!out && !i)
				break;
			g_string_append_printf(t, "$ %s %s %s\n%s", *path, lists[i][0], lists[i][1],
					       out ? out : "");
		}
	}
	return g_string_free(t, !t->len);
}

char *ask_libvirt(struct answers *a)
{
	static const char *const paths[] = {
		"/usr/sbin/virtqemud", "/usr/sbin/libvirtd", NULL
	};

	return ask_versions(paths);
}

#define VIRSH(...) { (char *)"virsh", (char *)"-c", (char *)"qemu:///system", __VA_ARGS__, NULL }

/*
 * What virsh says, if libvirt's daemon can be reached. Only root's: others would be asked
 * for a password, and a connection that only reads has no capabilities.
 */
static char *ask_virsh(struct answers *a, char *const command[])
{
	const char *euid = answer(a, "euid");

	return is_arm(a) && euid && !strcmp(euid, "0") ?
	       program_output(PROGRAM_MS, "/usr/bin/virsh", command) : NULL;
}

char *ask_libvirt_version(struct answers *a)
{
	static char *const argv[] = VIRSH((char *)"version", (char *)"--daemon");

	return ask_virsh(a, argv);
}

/* What libvirt says of its QEMU. */
char *ask_libvirt_capabilities(struct answers *a)
{
	static char *const argv[] = VIRSH((char *)"domcapabilities", (char *)"--arch", (char *)"aarch64",
					  (char *)"--machine", (char *)"virt", (char *)"--virttype",
					  (char *)"kvm");

	return ask_virsh(a, argv);
}
