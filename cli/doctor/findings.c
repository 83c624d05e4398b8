// SPDX-License-Identifier: GPL-2.0-only
/*
 * Findings: see findings.h.
 */
#include <stdlib.h>
#include <string.h>

#include "doctor/findings.h"

static const char *const verdicts[] = {
	[GOOD] = "good", [UNKNOWN] = "unknown", [NOTE] = "note", [WARNING] = "warning",
	[BAD] = "bad",
};

const char *verdict_name(enum verdict verdict)
{
	return verdicts[verdict];
}

/*
 * Texts have parts of files and logs: no control characters may reach a
 * terminal or JSON.
 */
static char *clean_text(const char *fmt, va_list args)
{
	char *text = xvasprintf(fmt, args), *c;

	for (c = text; *c; c++)
		if (*c < ' ' || *c > '~')
			*c = '?';
	return text;
}

struct finding *finding(struct doctor *d, const char *id, enum verdict verdict, const char *device,
			const char *fmt, ...)
{
	struct finding *f;
	va_list args;

	d->findings = xrealloc(d->findings, (d->count + 1) * sizeof(*f));
	f = &d->findings[d->count++];
	*f = (struct finding){ .id = id, .verdict = verdict };
	f->device = device ? xstrdup(device) : NULL;
	va_start(args, fmt);
	f->text = clean_text(fmt, args);
	va_end(args);
	return f;
}

void because(struct finding *f, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	f->reason = clean_text(fmt, args);
	va_end(args);
}

void remedy(struct finding *f, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	f->remedy = clean_text(fmt, args);
	va_end(args);
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

bool has_feature(const struct doctor *d, const char *word)
{
	return has_word(d->features, word);
}
