// SPDX-License-Identifier: GPL-2.0-only
/* What became of the GPUs, as text, as JSON, in /run and in the log: see scrub.h. */
#include <errno.h>
#include <glib.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "scrub/scrub.h"
#include "system/output.h"
#include "system/program.h"
#include "system/replace.h"

static void say(const struct target *t)
{
	outcome_print(&t->outcome, t->gpu->address);
	if (t->log)
		complain(t->gpu->address, "kernel: %s", t->log);
}

static struct json_object *verified_json(const struct verified *v)
{
	struct json_object *object = json_object_new_object(), *array = json_object_new_array(), *o;

	json_object_object_add(object, "complete", json_object_new_boolean(v->done));
	json_object_object_add(object, "bytes", json_size(v->bytes));
	json_object_object_add(object, "seconds", json_object_new_double(v->seconds));
	json_object_object_add(object, "differences", json_size(v->differences));
	if (v->differences) {
		o = json_object_new_object();
		json_object_object_add(o, "part", json_text(v->part.name));
		json_object_object_add(o, "offset", json_hex(v->offset));
		json_object_object_add(o, "address", v->part.base == GPU_UNKNOWN ? NULL :
				       json_hex(v->part.base + v->offset));
		json_object_object_add(o, "found", json_hex(v->found));
		json_object_array_add(array, o);
	}
	json_object_object_add(object, "places", array);
	return object;
}

static struct json_object *target_json(struct host *h, const struct target *t)
{
	bool begun = strcmp(t->outcome.result, "refused") || t->bytes;
	struct json_object *object = json_object_new_object(), *log = json_object_new_array();
	g_autofree char *state = host_line(h, DEVICES "/%s/nvgrace_gpu/scrub_state", t->gpu->address);

	json_object_object_add(object, "address", json_text(t->gpu->address));
	json_object_object_add(object, "result", json_text(t->outcome.result));
	json_object_object_add(object, "exit_status", json_object_new_int(t->outcome.status));
	json_object_object_add(object, "message", json_text(t->outcome.message));
	json_object_object_add(object, "next", json_text(t->outcome.next));
	if (t->log)
		json_object_array_add(log, json_text(t->log));
	json_object_object_add(object, "kernel_log", log);
	json_object_object_add(object, "joined", json_object_new_boolean(t->joined));
	json_object_object_add(object, "bytes", begun ? json_size(t->bytes) : NULL);
	json_object_object_add(object, "seconds",
			       begun ? json_object_new_double(t->seconds) : NULL);
	json_object_object_add(object, "bytes_per_second", begun && t->seconds > 0 ?
			       json_object_new_double(bytes_seen(t) / t->seconds) : NULL);
	json_object_object_add(object, "verified",
			       t->verified.tried ? verified_json(&t->verified) : NULL);
	json_object_object_add(object, "scrub_state", json_text(state));
	return object;
}

/*
 * Keeps the document of a GPU whose memory was read back, so that "status" and
 * "metrics" can say when. A later failure to read removes it.
 */
static void keep_verified(struct scrub *s, const struct target *t)
{
	g_autofree char *file = gpu_verified_file(t->gpu->address);
	struct json_object *document = json_document("scrub"), *results = json_object_new_array();
	struct replacement *r = NULL;
	const char *text;

	json_object_array_add(results, target_json(s->host, t));
	json_object_object_add(document, "verify", json_object_new_boolean(true));
	json_object_object_add(document, "time", json_object_new_int64(t->verified.time));
	json_object_object_add(document, "results", results);
	text = json_object_to_json_string_ext(document, JSON_C_TO_STRING_PRETTY);
	if (!mkdir(RUN_DIR, 0755) || errno == EEXIST)
		r = replacement_begin(file, 0644, text, strlen(text));
	if (!r || replacement_commit(r))
		complain(t->gpu->address, "can't keep the result in %s: %s", file, strerror(errno));
	json_object_put(document);
}

void keep_results(struct scrub *s)
{
	size_t i;

	for (i = 0; i < s->count; i++) {
		const struct target *t = &s->targets[i];
		g_autofree char *file = gpu_verified_file(t->gpu->address);

		if (t->verified.tried && !t->outcome.status)
			keep_verified(s, t);
		else if (t->verified.tried)
			unlink(file);
		if (strcmp(t->outcome.result, "refused"))
			syslog(t->outcome.status ? LOG_ERR : LOG_NOTICE, "scrub %s by uid %u: %s",
			       t->gpu->address, getuid(), t->outcome.message);
	}
}

enum exit_status print_results(struct scrub *s)
{
	struct json_object *document = json_document("scrub"), *results = json_object_new_array();
	enum exit_status worst = EXIT_OK;
	size_t i;

	for (i = 0; i < s->count; i++) {
		const struct target *t = &s->targets[i];

		worst = t->outcome.status > worst ? t->outcome.status : worst;
		if (!s->json || t->outcome.status)
			say(t);
		json_object_array_add(results, target_json(s->host, t));
	}
	json_object_object_add(document, "verify", json_object_new_boolean(s->verify));
	json_object_object_add(document, "time", json_object_new_int64(time(NULL)));
	json_object_object_add(document, "results", results);
	if (s->json)
		json_print(document);
	else
		json_object_put(document);
	return worst;
}
