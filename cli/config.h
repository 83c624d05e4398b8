/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The administrator's wishes for the boot: /etc/nvgrace-gpu.conf and
 * /etc/nvgrace-gpu.conf.d/?*.conf, as nvgrace-gpu.conf(5) describes them and the udev helper reads
 * them. Read by every command that says whether a GPU will be bound at boot; written by bind and
 * unbind --persist.
 */
#ifndef NVGRACE_GPU_CONF_H
#define NVGRACE_GPU_CONF_H

#include "host.h"

enum config_match { CONFIG_ADDRESS, CONFIG_ALL, CONFIG_SLOT, CONFIG_SERIAL };

/* A directive. */
struct config_line {
	char *file;
	unsigned int line;
	bool ignore; /* "ignore", else "bind" */
	enum config_match match;
	char *value; /* NULL for CONFIG_ALL */
};

/* A line that is none, and why. */
struct config_error {
	char *file;
	unsigned int line; /* 0: the whole file */
	char *reason;
};

struct config {
	struct config_line *line;
	size_t count;
	struct config_error *error;
	size_t errors;
};

/* Files that aren't there hold no wishes; files that can't be read are errors. */
void config_read(struct host *h, struct config *config);
void config_free(struct config *config);

/* Adds the directives and errors of a file's text. */
void config_parse(struct config *config, const char *file, const char *text);

/* A directive as it would be written: "bind 0009:01:00.0". To be freed. */
char *config_text(const struct config_line *line);

/* The first line that says so of this device, or NULL. */
const struct config_line *config_binds(const struct config *config, const struct gpu *gpu);
const struct config_line *config_ignores(const struct config *config, const struct gpu *gpu);

/*
 * What keeps the lines from having an effect at boot: the udev rule or its program isn't there, or
 * the rule is masked. NULL if nothing does, and then *rule is the rule's path. Both are the
 * caller's to free.
 */
char *config_obstacle(struct host *h, char **rule);

/* The file that is ours to write for a device. */
char *config_own_file(const char *address);

/*
 * config_prepare() writes a temporary file beside the device's own, config_commit() renames it to
 * that, and config_abandon() removes it; both free it. NULL or -1 leaves errno.
 */
char *config_prepare(struct host *h, const char *address);
int config_commit(char *temporary, const char *address);
void config_abandon(char *temporary);

#endif
