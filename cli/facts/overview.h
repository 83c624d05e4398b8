/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Reads the whole system once: the GPUs, the processes that have them open, where
 * their memory is online, and the configuration. list and status print it, and bind
 * and unbind decide by it.
 */
#ifndef NVGRACE_GPU_FACTS_OVERVIEW_H
#define NVGRACE_GPU_FACTS_OVERVIEW_H

#include "facts/config.h"
#include "facts/online.h"
#include "facts/open_files.h"

struct overview {
	struct host *host;
	struct gpus gpus;
	struct open_files files;	/* overview_files() */
	bool has_files;
	struct iomem iomem;
	struct config config;
	char *obstacle;		/* why the configuration has no effect at any boot; NULL: it has */
	char *no_module;	/* boots_obstacle(), if the caller sets it */
};

void overview_read(struct host *h, struct overview *s);
void overview_free(struct overview *s);

/*
 * The open files of all processes. The first call reads them, which takes long where
 * there are many.
 */
const struct open_files *overview_files(struct overview *s);

/* gpu_online() */
struct online overview_online(struct overview *s, const struct gpu *gpu);

/* One of the states in nvgrace-gpu(8): "unbound", "bound" and so on. */
const char *overview_state(struct overview *s, const struct gpu *gpu);

/* The line that binds this GPU at boot, or NULL. */
const struct config_line *overview_persisted(struct overview *s, const struct gpu *gpu);

/* Why the next boot binds no GPU, whatever the configuration; NULL: nothing is known. */
const char *overview_obstacle(const struct overview *s);

/* Whether this GPU will be bound at the next boot. */
bool overview_boots(struct overview *s, const struct gpu *gpu);

/* Prints a warning for each malformed line of the configuration. */
void overview_complain(const struct overview *s);

#endif
