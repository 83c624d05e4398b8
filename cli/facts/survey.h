/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Reads the whole system once: the GPUs, the processes that have them open,
 * where their memory is online, and the configuration. list and status print
 * it, and bind and unbind decide by it.
 */
#ifndef NVGRACE_GPU_FACTS_SURVEY_H
#define NVGRACE_GPU_FACTS_SURVEY_H

#include "facts/config.h"
#include "facts/online.h"
#include "facts/open_files.h"

struct json_object;

struct survey {
	struct host *host;
	struct gpus gpus;
	struct open_files files;
	struct iomem iomem;
	struct config config;
	char *obstacle;		/* why the configuration has no effect at boot; NULL: it has */
};

void survey_read(struct host *h, struct survey *s);
void survey_free(struct survey *s);

/* gpu_online() */
struct online survey_online(struct survey *s, const struct gpu *gpu);

/* One of the states in nvgrace-gpu(8): "unbound", "bound" and so on. */
const char *survey_state(struct survey *s, const struct gpu *gpu);

/* The line that binds this GPU at boot, or NULL. */
const struct config_line *survey_persisted(struct survey *s, const struct gpu *gpu);

/* Whether this GPU will be bound at boot. */
bool survey_boots(struct survey *s, const struct gpu *gpu);

/* Prints a warning for each malformed line of the configuration. */
void survey_complain(const struct survey *s);

/* The schema's "gpu". */
struct json_object *survey_json(struct survey *s, const struct gpu *gpu);

#endif
