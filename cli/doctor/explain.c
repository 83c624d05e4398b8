// SPDX-License-Identifier: GPL-2.0-only
/*
 * What each finding means: see explain.h.
 */
#include <json-c/json.h>
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

static struct json_object *to_json(enum finding_id id)
{
	struct json_object *o = json_object_new_object(), *cases = json_object_new_array(), *one;
	g_autofree char *text = text_of(id);
	const struct meaning *m;

	json_object_object_add(o, "id", json_object_new_string(finding_ids[id]));
	json_object_object_add(o, "text", json_object_new_string(text));
	for (m = meanings; m < meanings + FINDING_CASES; m++) {
		g_autofree char *when = NULL, *remedy = NULL;

		if (m->finding != id)
			continue;
		when = when_of(m);
		remedy = general(m->remedy);
		one = json_object_new_object();
		json_object_object_add(one, "verdict",
				       json_object_new_string(verdict_name(m->verdict)));
		json_object_object_add(one, "when", json_object_new_string(when));
		json_object_object_add(one, "remedy", m->remedy ? json_text(remedy) : NULL);
		json_object_array_add(cases, one);
	}
	json_object_object_add(o, "cases", cases);
	return o;
}

static bool is_named(enum finding_id id, char **ids, size_t count)
{
	size_t i;

	for (i = 0; i < count; i++)
		if (!strcmp(ids[i], finding_ids[id]))
			return true;
	return !count;
}

int explain(char **ids, size_t count, bool json)
{
	struct json_object *list, *document;
	enum finding_id id;
	bool first = true;
	size_t i;

	for (i = 0; i < count; i++) {
		for (id = 0; id < FINDING_IDS && strcmp(ids[i], finding_ids[id]); id++)
			;
		if (id == FINDING_IDS) {
			complain(NULL, "no finding has the name \"%s\"; run \"" PROGRAM " doctor --explain\", which prints all",
				 ids[i]);
			return EXIT_USAGE_ERROR;
		}
	}
	if (json) {
		document = json_document("doctor");
		list = json_object_new_array();
		for (id = 0; id < FINDING_IDS; id++)
			if (is_named(id, ids, count))
				json_object_array_add(list, to_json(id));
		json_object_object_add(document, "explanations", list);
		return json_print(document) ? EXIT_FAILED : EXIT_OK;
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
