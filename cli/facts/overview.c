// SPDX-License-Identifier: GPL-2.0-only
/* See overview.h. */
#include <glib.h>
#include <string.h>

#include "facts/overview.h"
#include "system/output.h"

void overview_read(struct host *h, struct overview *s)
{
	g_autofree char *rule = NULL;

	memset(s, 0, sizeof(*s));
	s->host = h;
	gpus_find(h, &s->gpus);
	iomem_read(h, &s->iomem);
	config_read(h, &s->config);
	s->obstacle = config_obstacle(h, &rule);
}

void overview_free(struct overview *s)
{
	gpus_free(&s->gpus);
	open_files_free(&s->files);
	iomem_free(&s->iomem);
	config_free(&s->config);
	g_free(s->obstacle);
	g_free(s->no_module);
}

const struct open_files *overview_files(struct overview *s)
{
	if (!s->has_files)
		open_files_read(s->host, &s->files);
	s->has_files = true;
	return &s->files;
}

struct online overview_online(struct overview *s, const struct gpu *gpu)
{
	return gpu_online(s->host, &s->iomem, &s->gpus, gpu);
}

const char *overview_state(struct overview *s, const struct gpu *gpu)
{
	size_t count;

	if (overview_online(s, gpu).online)
		return "memory-online";
	if (!gpu->driver)
		return "unbound";
	if (!gpu->ours)
		return "other-driver";
	g_free(holders_find(s->host, overview_files(s), gpu, &count));
	return count ? "in-use" : "bound";
}

const struct config_line *overview_persisted(struct overview *s, const struct gpu *gpu)
{
	return config_ignores(&s->config, gpu) ? NULL : config_binds(&s->config, gpu);
}

const char *overview_obstacle(const struct overview *s)
{
	return s->obstacle ?: s->no_module;
}

bool overview_boots(struct overview *s, const struct gpu *gpu)
{
	return overview_persisted(s, gpu) && !overview_obstacle(s);
}

void overview_complain(const struct overview *s)
{
	size_t i;

	for (i = 0; i < s->config.errors; i++) {
		g_autofree char *text = config_error_text(&s->config.error[i]);

		complain(NULL, "%s", text);
	}
}
