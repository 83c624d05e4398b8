// SPDX-License-Identifier: GPL-2.0-only
/*
 * Answers of system calls, programs and libkmod, and what files say that no check
 * reads itself. Each answer is a text with a name, so that a recorded tree can have it.
 * All checks call answer(); ask_*.c have the questions by subject, which call
 * answer(), too. questions.c has the table.
 */
#include <ctype.h>
#include <glib.h>
#include <stdlib.h>
#include <string.h>

#include "facts/answers.h"
#include "facts/ask.h"
#include "facts/recorder.h"

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

const char *answer(struct answers *a, const char *name)
{
	void (*seen)(struct host *h, enum host_kind kind, const char *path, const void *data,
		     size_t len, int error) = a->h->seen;
	size_t i, len;
	char *text;

	for (i = 0; strcmp(a->questions[i].name, name); i++)
		if (i + 1 == a->count)
			abort();	/* LCOV_EXCL_LINE: a mistake in this program */
	if (!a->of[i].asked) {
		bool files = a->questions[i].from_files;

		a->of[i].asked = true;
		/* Record the answer, or the files read for it. */
		if (!files)
			a->h->seen = NULL;
		text = a->h->recorded ? host_read(a->h, NULL, "/answers/%s", name) : NULL;
		if (!text && (!a->h->recorded || files))
			text = a->questions[i].ask(a);
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

	for (i = 0; a && i < a->count; i++)
		g_free(a->of[i].text);
	g_free(a);
}
