// SPDX-License-Identifier: GPL-2.0-only
/*
 * Answers from system calls, programs and libkmod, and extracts of files that
 * are too long or too private to be recorded whole: kernel log, kernel
 * configuration, ACPI tables, key lists. Each answer is a short text with a
 * name, so that a recorded tree can have it. All checks call answer(); ask_*.c
 * have the questions by subject.
 */
#include <ctype.h>
#include <glib.h>
#include <stdlib.h>
#include <string.h>

#include "facts/answers.h"
#include "facts/ask.h"
#include "facts/images.h"
#include "facts/recorder.h"

static char *ask_initramfs(struct answers *a)
{
	return images_read(a->h);
}

/*
 * A tree that was made by hand or from a sosreport has no answers. Those that
 * are extracts of files (from_files) are then made from its files.
 */
static const struct {
	const char *name;
	char *(*ask)(struct answers *a);
	bool from_files;
} questions[] = {
	{ "euid", ask_euid, false },
	{ "machine", ask_machine, false },
	{ "kernel-release", ask_release, false },
	{ "page-size", ask_page_size, false },
	{ "memlock", ask_memlock, false },
	{ "cpu-dic", ask_cpu_dic, false },
	{ "kernel-log", ask_kernel_log, false },
	{ "kernel-config", ask_kernel_config, true },
	{ "command-line", ask_command_line, true },
	{ "acpi-tables", ask_acpi_tables, true },
	{ "kvm", ask_kvm, false },
	{ "kernel-package", ask_kernel_package, false },
	{ "module", ask_module, false },
	{ "secure-boot", ask_secure_boot, true },
	{ "keyrings", ask_keyrings, true },
	{ "mok", ask_mok, true },
	{ "processes", ask_processes, true },
	{ "qemu", ask_qemu, false },
	{ "libvirt", ask_libvirt, false },
	{ "qemu-options", ask_qemu_options, false },
	{ "libvirt-elements", ask_libvirt_elements, true },
	{ "libvirt-capabilities", ask_libvirt_capabilities, false },
	{ "initramfs", ask_initramfs, false },
};

#define QUESTIONS (G_N_ELEMENTS(questions))

/*
 * A tree's answers are not trusted: no control characters may reach a terminal.
 */
static char *clean(char *text, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++)
		if (!isprint((unsigned char)text[i]) && text[i] != '\n')
			text[i] = text[i] == '\t' ? ' ' : '?';
	/* A single line loses its newline; several lines keep theirs. */
	if (len && text[len - 1] == '\n' && memchr(text, '\n', len) == text + len - 1)
		text[len - 1] = 0;
	return text;
}

char config_option(const char *config, const char *name)
{
	g_auto(GStrv) lines = g_strsplit(config ? config : "", "\n", -1);
	size_t len = strlen(name), i;
	char value = 'n';

	for (i = 0; lines[i]; i++)
		if (!strncmp(lines[i], "CONFIG_", 7) && !strncmp(lines[i] + 7, name, len) &&
		    lines[i][7 + len] == '=')
			value = lines[i][8 + len];
	return value;
}

struct answers *answers_begin(struct host *h, struct recorder *recorder)
{
	struct answers *a = g_malloc0(sizeof(*a) + QUESTIONS * sizeof(a->of[0]));

	a->h = h;
	a->recorder = recorder;
	return a;
}

const char *answer(struct answers *a, const char *name)
{
	void (*seen)(struct host *h, enum host_kind kind, const char *path, const void *data,
		     size_t len, int error) = a->h->seen;
	size_t i, len;
	char *text;

	for (i = 0; strcmp(questions[i].name, name); i++)
		if (i + 1 == QUESTIONS)
			abort();	/* LCOV_EXCL_LINE: a mistake in this program */
	if (!a->of[i].asked) {
		a->of[i].asked = true;
		/* Record the answer, not the files read for it. */
		a->h->seen = NULL;
		text = a->h->recorded ? host_read(a->h, NULL, "/answers/%s", name) : NULL;
		if (!text && (!a->h->recorded || questions[i].from_files))
			text = questions[i].ask(a);
		len = text ? strlen(text) : 0;
		a->of[i].text = text ? clean(text, len) : NULL;
		a->h->seen = seen;
		if (text)
			recorder_answer(a->recorder, name, text);
	}
	return a->of[i].text;
}

void answers_free(struct answers *a)
{
	size_t i;

	for (i = 0; a && i < QUESTIONS; i++)
		g_free(a->of[i].text);
	g_free(a);
}
