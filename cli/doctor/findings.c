// SPDX-License-Identifier: GPL-2.0-only
/*
 * Findings: see findings.h.
 */
#include <glib.h>
#include <string.h>

#include "doctor/findings.h"

/*
 * Texts have parts of files and logs: no control characters may reach a
 * terminal or JSON.
 */
static char *clean_text(const char *fmt, va_list args)
{
	char *text = g_strdup_vprintf(fmt, args);

	make_printable(text);
	return text;
}

/*
 * A terminal shows no Markdown: commands get quotation marks, and single words
 * in backticks none; to be freed.
 */
static char *plain_text(const char *markdown)
{
	char *text = g_strdup(markdown), *to = text;
	bool code = false, quoted = false;

	for (; *markdown; markdown++) {
		if (*markdown != '`') {
			*to++ = *markdown;
			continue;
		}
		code = !code;
		if (code)
			quoted = memchr(markdown + 1, ' ', strcspn(markdown + 1, "`")) != NULL;
		if (quoted)
			*to++ = '"';
	}
	*to = 0;
	return text;
}

struct finding *finding(struct doctor *d, enum finding_case which, const char *device,
			const char *fmt, ...)
{
	const struct meaning *m = &meanings[which];
	struct finding *f;
	va_list args;

	d->findings = g_renew(struct finding, d->findings, d->count + 1);
	f = &d->findings[d->count++];
	*f = (struct finding){ .id = m->finding, .verdict = m->verdict };
	f->device = g_strdup(device);
	va_start(args, fmt);
	f->text = clean_text(fmt, args);
	va_end(args);
	if (m->remedy) {
		f->remedy = plain_text(m->remedy);
		if (device)
			fill(f, "ADDRESS", device);
	}
	return f;
}

void because(struct finding *f, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	f->reason = clean_text(fmt, args);
	va_end(args);
}

void fill(struct finding *f, const char *words, const char *by)
{
	char *before = f->remedy;

	if (!by)
		return;
	f->remedy = replaced(before, words, by);
	g_free(before);
	make_printable(f->remedy);
}

/* ---- facts ---------------------------------------------------------------------------------- */

bool kernel_from(const struct doctor *d, int major, int minor)
{
	return d->major > major || (d->major == major && d->minor >= minor);
}

char kernel_option(const struct doctor *d, const char *name)
{
	return config_option(d->config, name);
}

char *missing_options(const struct doctor *d, const char *const *names, size_t count)
{
	GString *missing = g_string_new(NULL);
	size_t i;

	for (i = 0; i < count; i++)
		if (kernel_option(d, names[i]) == 'n')
			g_string_append_printf(missing, "%sCONFIG_%s", missing->len ? ", " : "", names[i]);
	return g_string_free(missing, FALSE);
}

void no_config(const struct doctor *d, struct finding *f)
{
	because(f,
		"there is no configuration of this kernel in /boot/config-%s, /lib/modules/%s/config or /proc/config.gz",
		d->release, d->release);
	fill(f, "RELEASE", d->release);
}

bool other_driver_gives_egm(const struct doctor *d)
{
	char option = kernel_option(d, "NVGRACE_EGM");

	return d->loaded && !d->features && (option == 'm' || option == 'y');
}

bool has_feature(const struct doctor *d, const char *word)
{
	return has_word(d->features, word);
}

char *accel_obstacle(const struct doctor *d, size_t *gpus)
{
	const struct vmms *qemus = &d->facts.qemu;
	struct guest_plan plan;
	size_t i;

	guest_plan_all(&d->facts, &plan);
	*gpus = plan.gpus;
	if (!plan.gpus)
		return NULL;
	/* Without a known QEMU, as in containers, the kernel decides. */
	for (i = 0; i < qemus->count; i++)
		if (qemus->vmm[i].known && (!plan.qemu || vmm_has(&qemus->vmm[i], QEMU_ACCEL)))
			plan.qemu = &qemus->vmm[i];
	return guest_accel_obstacle(&d->facts, &plan);
}

bool exports_dmabufs(const struct doctor *d)
{
	return d->features ? has_feature(d, "dmabuf") : kernel_option(d, "VFIO_PCI_DMABUF") != 'n';
}
