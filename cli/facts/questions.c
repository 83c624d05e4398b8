// SPDX-License-Identifier: GPL-2.0-only
/* The table of questions. See answers.h. */
#include <glib.h>

#include "facts/answers.h"
#include "facts/ask.h"
#include "facts/boots.h"

static char *ask_initramfs(struct answers *a)
{
	return images_read(a->h);
}

static char *ask_kernels(struct answers *a)
{
	return kernels_read(a->h);
}

static const struct question questions[] = {
	{ "euid", ask_euid, false },
	{ "machine", ask_machine, false },
	{ "kernel-release", ask_release, false },
	{ "page-size", ask_page_size, false },
	{ "kernel-log", ask_kernel_log, false },
	{ "kernel-config", ask_kernel_config, true },
	{ "config.gz", ask_packed_config, false },
	{ "command-line", ask_command_line, true },
	{ "acpi-tables", ask_acpi_tables, true },
	{ "kvm", ask_kvm, false },
	{ "module", ask_module, false },
	{ "trusted-keys", ask_trusted_keys, false },
	{ "mok", ask_mok, false },
	{ "qemu", ask_qemu, false },
	{ "libvirt", ask_libvirt, false },
	{ "qemu-options", ask_qemu_options, false },
	{ "libvirt-version", ask_libvirt_version, false },
	{ "libvirt-capabilities", ask_libvirt_capabilities, false },
	{ "kernels", ask_kernels, false },
	{ "initramfs", ask_initramfs, false },
};

struct answers *answers_begin(struct host *h, struct recorder *recorder)
{
	const size_t count = G_N_ELEMENTS(questions);
	struct answers *a = g_malloc0(sizeof(*a) + count * sizeof(a->of[0]));

	a->h = h;
	a->recorder = recorder;
	a->questions = questions;
	a->count = count;
	return a;
}
