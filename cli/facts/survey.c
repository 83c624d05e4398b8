// SPDX-License-Identifier: GPL-2.0-only
/* See survey.h. */
#include <glib.h>
#include <json-c/json.h>
#include <string.h>

#include "facts/survey.h"
#include "system/output.h"

void survey_read(struct host *h, struct survey *s)
{
	g_autofree char *rule = NULL;

	memset(s, 0, sizeof(*s));
	s->host = h;
	gpus_find(h, &s->gpus);
	open_files_read(h, &s->files);
	iomem_read(h, &s->iomem);
	config_read(h, &s->config);
	s->obstacle = config_obstacle(h, &rule);
}

void survey_free(struct survey *s)
{
	gpus_free(&s->gpus);
	open_files_free(&s->files);
	iomem_free(&s->iomem);
	config_free(&s->config);
	g_free(s->obstacle);
}

struct online survey_online(struct survey *s, const struct gpu *gpu)
{
	return gpu_online(s->host, &s->iomem, &s->gpus, gpu);
}

const char *survey_state(struct survey *s, const struct gpu *gpu)
{
	size_t count;

	if (survey_online(s, gpu).online)
		return "memory-online";
	if (!gpu->driver)
		return "unbound";
	if (!gpu->ours)
		return "other-driver";
	g_free(holders_find(s->host, &s->files, gpu, &count));
	return count ? "in-use" : "bound";
}

const struct config_line *survey_persisted(struct survey *s, const struct gpu *gpu)
{
	return config_ignores(&s->config, gpu) ? NULL : config_binds(&s->config, gpu);
}

bool survey_boots(struct survey *s, const struct gpu *gpu)
{
	return !s->obstacle && survey_persisted(s, gpu);
}

void survey_complain(const struct survey *s)
{
	size_t i;

	for (i = 0; i < s->config.errors; i++) {
		const struct config_error *e = &s->config.error[i];

		if (e->line)
			complain(NULL, "%s:%u: ignored: %s; see nvgrace-gpu.conf(5)",
				 e->file, e->line, e->reason);
		else
			complain(NULL, "%s: %s", e->file, e->reason);
	}
}

static struct json_object *memory_json(uint64_t size, uint64_t bar_size, uint64_t base)
{
	g_autofree char *text = NULL;
	struct json_object *object;

	if (size == GPU_UNKNOWN)
		return NULL;
	object = json_object_new_object();
	json_object_object_add(object, "size", json_size(size));
	json_object_object_add(object, "bar_size", json_size(bar_size));
	/* Text, because not every JSON parser keeps 64 bits. */
	text = base == GPU_UNKNOWN ? NULL : g_strdup_printf("0x%llx", (unsigned long long)base);
	json_object_object_add(object, "base", json_text(text));
	return object;
}

/* The schema's "last_scrub". */
static struct json_object *last_scrub_json(const struct gpu *gpu)
{
	struct json_object *object;

	if (gpu->scrub_count == GPU_UNKNOWN)
		return NULL;
	object = json_object_new_object();
	json_object_object_add(object, "count", json_size(gpu->scrub_count));
	json_object_object_add(object, "result", json_text(gpu->scrub_result));
	json_object_object_add(object, "time", json_size(gpu->scrub_time));
	json_object_object_add(object, "milliseconds", json_size(gpu->scrub_ms));
	json_object_object_add(object, "verified_time", json_size(gpu->verified_time));
	return object;
}

struct json_object *survey_json(struct survey *s, const struct gpu *gpu)
{
	struct json_object *object = json_object_new_object(), *part;
	const struct config_line *line = survey_persisted(s, gpu);
	g_autofree struct holder *holders = NULL;
	size_t count, i;
	char id[8];

	json_object_object_add(object, "address", json_text(gpu->address));
	snprintf(id, sizeof(id), "%04x", gpu->vendor);
	json_object_object_add(object, "vendor", json_text(id));
	snprintf(id, sizeof(id), "%04x", gpu->device);
	json_object_object_add(object, "device", json_text(id));
	json_object_object_add(object, "product", json_text(gpu->product));
	json_object_object_add(object, "state", json_text(survey_state(s, gpu)));
	json_object_object_add(object, "driver", json_text(gpu->driver));
	json_object_object_add(object, "driver_override", json_text(gpu->override));
	json_object_object_add(object, "numa_node",
			       gpu->numa_node < 0 ? NULL : json_object_new_int(gpu->numa_node));
	json_object_object_add(object, "iommu_group",
			       gpu->iommu_group < 0 ? NULL : json_object_new_int(gpu->iommu_group));
	json_object_object_add(object, "slot", json_text(gpu->slot));
	json_object_object_add(object, "serial", json_text(gpu->serial));
	json_object_object_add(object, "mode", json_text(gpu_mode_name(gpu->mode)));
	json_object_object_add(object, "readiness", json_text(gpu->readiness));
	json_object_object_add(object, "scrub_state", json_text(gpu->scrub_state));
	json_object_object_add(object, "scrub_progress", json_size(gpu->scrub_progress));
	json_object_object_add(object, "last_scrub", last_scrub_json(gpu));
	json_object_object_add(
		object, "usemem",
		memory_json(gpu->usemem_size, gpu->usemem_bar_size, gpu->usemem_base));
	json_object_object_add(
		object, "resmem",
		memory_json(gpu->resmem_size, gpu->resmem_bar_size, gpu->resmem_base));
	part = NULL;
	if (line) {
		part = json_object_new_object();
		json_object_object_add(part, "file", json_text(line->file));
		json_object_object_add(part, "line", json_object_new_int(line->line));
	}
	json_object_object_add(object, "persisted", part);
	json_object_object_add(object, "at_boot", json_object_new_boolean(survey_boots(s, gpu)));
	json_object_object_add(object, "boot_obstacle", json_text(line ? s->obstacle : NULL));
	/*
	 * Unless all processes could be read, no holders means not known: null.
	 */
	holders = holders_find(s->host, &s->files, gpu, &count);
	part = count || s->files.complete ? json_object_new_array() : NULL;
	for (i = 0; i < count; i++) {
		struct json_object *holder = json_object_new_object();

		json_object_object_add(holder, "pid", json_object_new_int(holders[i].file->pid));
		json_object_object_add(holder, "command", json_text(holders[i].file->comm));
		json_object_object_add(holder, "file", json_text(holders[i].file->path));
		json_object_object_add(holder, "certain",
				       json_object_new_boolean(holders[i].certain));
		json_object_array_add(part, holder);
	}
	json_object_object_add(object, "holders", part);
	return object;
}
