// SPDX-License-Identifier: GPL-2.0-only
/* See fact.h. */
#include <glib.h>
#include <json-c/json.h>
#include <string.h>

#include "facts/fact.h"
#include "system/output.h"

/* ---- values ------------------------------------------------------------- */

static const char *persisted_file(struct overview *s, const struct gpu *gpu)
{
	const struct config_line *line = overview_persisted(s, gpu);

	return line ? line->file : NULL;
}

static uint64_t persisted_line(struct overview *s, const struct gpu *gpu)
{
	const struct config_line *line = overview_persisted(s, gpu);

	return line ? line->line : GPU_UNKNOWN;
}

/* 1 or 0; if not all processes could be read, 0 is not known. */
static uint64_t in_use(struct overview *s, const struct gpu *gpu)
{
	size_t count;

	g_free(holders_find(s->host, overview_files(s), gpu, &count));
	return count || overview_files(s)->complete ? !!count : GPU_UNKNOWN;
}

/* A count of the driver's, if it has this file. */
static uint64_t count_of(struct overview *s, const struct gpu *gpu, const char *file)
{
	uint64_t value;

	return host_u64(s->host, &value, DEVICES "/%s/nvgrace_gpu/%s", gpu->address, file) ?
	       GPU_UNKNOWN : value;
}

/*
 * When "scrub --verify" has read zeros, in seconds since 1970; GPU_UNKNOWN: not since
 * the host's boot.
 */
static uint64_t verified_time(struct overview *s, const struct gpu *gpu)
{
	g_autofree char *file = gpu_verified_file(gpu->address);
	g_autofree char *text = host_read(s->host, NULL, "%s", file);
	struct json_object *document = text ? json_tokener_parse(text) : NULL, *value;
	uint64_t time = GPU_UNKNOWN;

	if (json_object_is_type(document, json_type_object) &&
	    json_object_object_get_ex(document, "time", &value) &&
	    json_object_is_type(value, json_type_int) && json_object_get_int64(value) >= 0)
		time = json_object_get_int64(value);
	json_object_put(document);
	return time;
}

static struct value text_value(const char *text)
{
	return (struct value){ .known = text, .text = text };
}

static struct value number_value(uint64_t number)
{
	return (struct value){ .known = number != GPU_UNKNOWN, .number = number };
}

#define TEXT text_value
#define WORD text_value
#define FLAG number_value
#define ID number_value
#define NUMBER number_value
#define SIZE number_value
#define TIME number_value
#define MILLISECONDS number_value
#define ADDRESS number_value

struct value fact_value(enum fact fact, struct overview *s, const struct gpu *gpu)
{
	switch (fact) {
#define FACT(id, type, name, value) case FACT_##id: return type(value);
#include "facts/fact_table.h"
#undef FACT
	case FACTS:
		break;
	}
	return (struct value){ };
}

#undef TEXT
#undef WORD
#undef FLAG
#undef ID
#undef NUMBER
#undef SIZE
#undef TIME
#undef MILLISECONDS
#undef ADDRESS

/* SIZE: bytes; TIME: seconds since 1970. */
enum type { TEXT, WORD, FLAG, ID, NUMBER, SIZE, TIME, MILLISECONDS, ADDRESS };

static const struct {
	enum type type;
	const char *name;
} facts[] = {
#define FACT(id, type, name, value) [FACT_##id] = { type, name },
#include "facts/fact_table.h"
#undef FACT
};

/* ---- text --------------------------------------------------------------- */

/* "2026-11-24 23:40:12 UTC" */
static char *time_text(uint64_t seconds)
{
	g_autoptr(GDateTime) time = g_date_time_new_from_unix_utc(MIN(seconds, G_MAXINT64));

	return time ? g_date_time_format(time, "%Y-%m-%d %H:%M:%S UTC") : g_strdup("?");
}

char *fact_text(enum fact fact, struct overview *s, const struct gpu *gpu)
{
	struct value value = fact_value(fact, s, gpu);
	char size[SIZE_MAX_TEXT];

	if (!value.known)
		return NULL;
	switch (facts[fact].type) {
	case TEXT:
	case WORD:
		return g_strdup(value.text);
	case ID:
		return g_strdup_printf("%04x", (unsigned int)value.number);
	case SIZE:
		return g_strdup(size_text(value.number, size));
	case TIME:
		return time_text(value.number);
	case ADDRESS:
		return g_strdup_printf("0x%llx", (unsigned long long)value.number);
	default:
		return g_strdup_printf("%llu", (unsigned long long)value.number);
	}
}

/* ---- JSON --------------------------------------------------------------- */

static struct json_object *fact_json(enum fact fact, struct overview *s, const struct gpu *gpu)
{
	struct value value = fact_value(fact, s, gpu);
	g_autofree char *text = NULL;

	if (!value.known)
		return NULL;
	switch (facts[fact].type) {
	case FLAG:
		return json_object_new_boolean(value.number);
	case NUMBER:
	case SIZE:
	case TIME:
	case MILLISECONDS:
		return json_size(value.number);
	default:
		/* An address, too, because not every JSON parser keeps 64 bits. */
		text = fact_text(fact, s, gpu);
		return json_text(text);
	}
}

static struct json_object *holders_json(struct overview *s, const struct gpu *gpu)
{
	g_autofree struct holder *holders = NULL;
	struct json_object *array, *holder;
	size_t count, i;

	/*
	 * Unless all processes could be read, no holders means not known: null.
	 */
	holders = holders_find(s->host, overview_files(s), gpu, &count);
	array = count || overview_files(s)->complete ? json_object_new_array() : NULL;
	for (i = 0; i < count; i++) {
		holder = json_object_new_object();
		json_object_object_add(holder, "pid", json_object_new_int(holders[i].file->pid));
		json_object_object_add(holder, "command", json_text(holders[i].file->comm));
		json_object_object_add(holder, "file", json_text(holders[i].file->path));
		json_object_object_add(holder, "certain",
				       json_object_new_boolean(holders[i].certain));
		json_object_array_add(array, holder);
	}
	return array;
}

struct json_object *gpu_json(struct overview *s, const struct gpu *gpu)
{
	struct json_object *object = json_object_new_object(), *part, *value;
	const char *dot;
	enum fact f;

	for (f = 0; f < FACTS; f++) {
		g_autofree char *whole = NULL;

		if (!facts[f].name)
			continue;
		value = fact_json(f, s, gpu);
		dot = strchr(facts[f].name, '.');
		if (!dot) {
			json_object_object_add(object, facts[f].name, value);
			continue;
		}
		whole = g_strndup(facts[f].name, dot - facts[f].name);
		if (!json_object_object_get_ex(object, whole, &part)) {
			part = fact_value(f, s, gpu).known ? json_object_new_object() : NULL;
			json_object_object_add(object, whole, part);
		}
		if (part)
			json_object_object_add(part, dot + 1, value);
		else
			json_object_put(value);
	}
	json_object_object_add(object, "holders", holders_json(s, gpu));
	return object;
}
