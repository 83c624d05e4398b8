// SPDX-License-Identifier: GPL-2.0-only
/*
 * Findings: see findings.h.
 */
#include <glib.h>
#include <string.h>

#include "doctor/findings.h"

/* What a word in braces is; NULL: it has no value here. */
static const char *value_of(const char *word, size_t length, char *const *pairs)
{
	for (; pairs[0]; pairs += 2)
		if (strlen(pairs[0]) == length && !strncmp(pairs[0], word, length))
			return pairs[1];
	return NULL;
}

/*
 * A text of table.h for a terminal: with the values of its words, and without
 * Markdown: commands get quotation marks, and single words in backticks none. Values
 * have parts of files and logs, of which no control character may reach a terminal.
 */
static char *complete_text(const char *text, char *const *pairs)
{
	GString *to = g_string_new(NULL);
	bool code = false, quoted = false;
	char *done;

	for (; *text; text++) {
		if (*text == '`') {
			code = !code;
			if (code)
				quoted = memchr(text + 1, ' ', strcspn(text + 1, "`")) != NULL;
			if (quoted)
				g_string_append_c(to, '"');
		} else if (*text == '{') {
			size_t length = strcspn(text + 1, "}");

			g_string_append(to, value_of(text + 1, length, pairs) ?: "");
			text += length + 1;
		} else {
			g_string_append_c(to, *text);
		}
	}
	done = g_string_free(to, FALSE);
	make_printable(done);
	return done;
}

void report(struct doctor *d, enum finding_case which, const char *device, ...)
{
	const struct meaning *m = &meanings[which];
	g_autoptr(GPtrArray) pairs = g_ptr_array_new();
	char *const *all;
	char *word;
	va_list args;

	va_start(args, device);
	while ((word = va_arg(args, char *))) {
		g_ptr_array_add(pairs, word);
		g_ptr_array_add(pairs, va_arg(args, char *));
	}
	va_end(args);
	g_ptr_array_add(pairs, (char *)"address");
	g_ptr_array_add(pairs, (char *)device);
	g_ptr_array_add(pairs, (char *)"release");
	g_ptr_array_add(pairs, (char *)d->release);
	g_ptr_array_add(pairs, NULL);
	all = (char *const *)pairs->pdata;
	d->findings = g_renew(struct finding, d->findings, d->count + 1);
	d->findings[d->count++] = (struct finding){
		.id = m->finding, .verdict = m->verdict, .device = g_strdup(device),
		.text = complete_text(m->text, all),
		.reason = m->reason ? complete_text(m->reason, all) : NULL,
		.remedy = m->remedy ? complete_text(m->remedy, all) : NULL,
	};
}

/* ---- facts ---------------------------------------------------------------------------------- */

bool kernel_from(const struct doctor *d, int major, int minor, int patch)
{
	if (d->major != major)
		return d->major > major;
	return d->minor > minor || (d->minor == minor && d->patch >= patch);
}

char kernel_option(const struct doctor *d, const char *name)
{
	return config_option(d->config, name);
}

bool exports_dmabufs(const struct doctor *d)
{
	return d->features ? has_word(d->features, "dmabuf") : kernel_option(d, "VFIO_PCI_DMABUF") != 'n';
}
