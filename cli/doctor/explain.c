// SPDX-License-Identifier: GPL-2.0-only
/*
 * What each finding means: see explain.h.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "doctor/explain.h"
#include "facts/gpu.h"
#include "system/output.h"
#include "system/program.h"

const char *const finding_ids[FINDING_IDS] = {
#define FINDING(name, id, text)	[ID_##name] = (id),
#define CASE(...)
#include "doctor/table.h"
};

static const char *const texts[FINDING_IDS] = {
#define FINDING(name, id, text)	[ID_##name] = (text),
#define CASE(...)
#include "doctor/table.h"
};

const struct meaning meanings[FINDING_CASES] = {
#define FINDING(...)
#define CASE(name, suffix, verdict, text, reason, remedy) \
	[name##_##suffix] = { ID_##name, verdict, text, reason, remedy },
#include "doctor/table.h"
};

static const char *const verdicts[] = {
	[GOOD] = "good", [UNKNOWN] = "unknown", [NOTE] = "note", [WARNING] = "warning",
	[BAD] = "bad",
};

const char *verdict_name(enum verdict verdict)
{
	return verdicts[verdict];
}

/* The explanation, to be freed; "" if the cases say it all. */
static char *text_of(enum finding_id id)
{
	g_autofree char *ids = gpu_ids_text();

	return replaced(texts[id], "GPU_IDS", ids);
}

/* A text of the table as table.h says of the document; to be freed. */
static char *general(const char *text)
{
	char *done = g_strdup(text ?: ""), *to = done, *from;
	bool word = false;

	for (from = done; *from; from++) {
		if (*from == '{' || *from == '}')
			word = *from == '{' && !memchr(from, ' ', strcspn(from, "}"));
		else
			*to++ = word ? g_ascii_toupper(*from) : *from;
	}
	*to = 0;
	return done;
}

/* The text and the reason, to be freed. */
static char *when_of(const struct meaning *m)
{
	g_autofree char *text = general(m->text), *reason = general(m->reason);

	return g_strdup_printf("%s%s%s", text, *reason ? ": " : "", reason);
}

static void print_cell(const char *text)
{
	g_autofree char *cell = replaced(text, "|", "\\|");

	printf("%s%s |", *cell ? " " : "", cell);
}

static void print_markdown(enum finding_id id)
{
	g_autofree char *text = text_of(id);
	const struct meaning *m;

	printf("### %s\n\n", finding_ids[id]);
	if (*text) {
		print_wrapped(text, 0, 0);
		printf("\n");
	}
	printf("| verdict | when | remedy |\n|---|---|---|\n");
	for (m = meanings; m < meanings + FINDING_CASES; m++) {
		g_autofree char *when = NULL, *remedy = NULL;

		if (m->finding != id)
			continue;
		when = when_of(m);
		remedy = general(m->remedy);
		printf("| %s |", verdict_name(m->verdict));
		print_cell(when);
		print_cell(remedy);
		printf("\n");
	}
}

static bool is_named(enum finding_id id, char **ids, size_t count)
{
	size_t i;

	for (i = 0; i < count; i++)
		if (!strcmp(ids[i], finding_ids[id]))
			return true;
	return !count;
}

enum finding_id finding_of(const char *name)
{
	enum finding_id id;

	for (id = 0; id < FINDING_IDS && strcmp(name, finding_ids[id]); id++)
		;
	return id;
}

int explain(char **ids, size_t count)
{
	enum finding_id id;
	bool first = true;
	size_t i;

	for (i = 0; i < count; i++) {
		if (finding_of(ids[i]) == FINDING_IDS) {
			complain(NULL, "no finding has the name \"%s\"; run \"" PROGRAM " doctor --explain\", which prints all",
				 ids[i]);
			return EXIT_USAGE_ERROR;
		}
	}
	for (id = 0; id < FINDING_IDS; id++) {
		if (!is_named(id, ids, count))
			continue;
		if (!first)
			printf("\n");
		first = false;
		/* All of it is the end of docs/doctor.md. */
		if (!count && (id == 0 || id == ID_DEVICE))
			printf("## %s\n\n", id ? "Each GPU" : "The host");
		print_markdown(id);
	}
	return EXIT_OK;
}
