// SPDX-License-Identifier: GPL-2.0-only
/*
 * Answers of system calls, programs and libkmod, and what files say that no check
 * reads itself. Each answer is a text with a name, so that a recorded tree can have it.
 * All checks call answer(); ask_*.c have the questions by subject.
 */
#include <ctype.h>
#include <glib.h>
#include <stdlib.h>
#include <string.h>

#include "facts/answers.h"
#include "facts/ask.h"
#include "facts/boots.h"
#include "facts/images.h"
#include "facts/recorder.h"

static char *ask_initramfs(struct answers *a)
{
	return images_read(a->h);
}

static char *ask_kernels(struct answers *a)
{
	return kernels_read(a->h);
}

/*
 * FILES: made from files alone, which a record has as they are. EXTRACT: also made
 * from files, which are too long for a record. A tree that was made by hand or from a
 * sosreport has no answers of these kinds. A record of an earlier version has them all,
 * and its answer counts.
 */
enum kind { SYSTEM, FILES, EXTRACT };

static const struct {
	const char *name;
	char *(*ask)(struct answers *a);
	enum kind kind;
} questions[] = {
	{ "euid", ask_euid, SYSTEM },
	{ "machine", ask_machine, SYSTEM },
	{ "kernel-release", ask_release, SYSTEM },
	{ "page-size", ask_page_size, SYSTEM },
	{ "memlock", ask_memlock, SYSTEM },
	{ "cpu-dic", ask_cpu_dic, SYSTEM },
	{ "kernel-log", ask_kernel_log, SYSTEM },
	{ "kernel-config", ask_kernel_config, FILES },
	{ "config.gz", ask_packed_config, SYSTEM },
	{ "command-line", ask_command_line, FILES },
	{ "acpi-tables", ask_acpi_tables, FILES },
	{ "kvm", ask_kvm, SYSTEM },
	{ "module", ask_module, SYSTEM },
	{ "secure-boot", ask_secure_boot, FILES },
	{ "keyrings", ask_keyrings, FILES },
	{ "trusted-keys", ask_trusted_keys, SYSTEM },
	{ "mok", ask_mok, SYSTEM },
	{ "qemu", ask_qemu, SYSTEM },
	{ "libvirt", ask_libvirt, SYSTEM },
	{ "qemu-options", ask_qemu_options, SYSTEM },
	{ "libvirt-version", ask_libvirt_version, SYSTEM },
	{ "libvirt-capabilities", ask_libvirt_capabilities, SYSTEM },
	{ "kernels", ask_kernels, SYSTEM },
	{ "initramfs", ask_initramfs, SYSTEM },
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

const char *config_value(const char *config, const char *name)
{
	g_autofree char *line = g_strdup_printf("CONFIG_%s=", name);
	const char *at = config;

	while (at && (at = strstr(at, line)) && at != config && at[-1] != '\n')
		at++;
	return at ? at + strlen(line) : NULL;
}

char config_option(const char *config, const char *name)
{
	const char *value = config_value(config, name);

	return value ? *value : 'n';
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
		bool files = questions[i].kind == FILES;

		a->of[i].asked = true;
		/* Record the answer, or the files read for it. */
		if (!files)
			a->h->seen = NULL;
		text = a->h->recorded ? host_read(a->h, NULL, "/answers/%s", name) : NULL;
		if (!text && (!a->h->recorded || questions[i].kind != SYSTEM))
			text = questions[i].ask(a);
		len = text ? strlen(text) : 0;
		a->of[i].text = text ? clean(text, len) : NULL;
		a->h->seen = seen;
		if (text && !files)
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
