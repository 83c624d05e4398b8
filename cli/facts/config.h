/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The configuration for boot: /etc/nvgrace-gpu.conf and
 * /etc/nvgrace-gpu.conf.d/?*.conf, as in nvgrace-gpu.conf(5). The udev rule's
 * program binds by it, and every command that reports whether a GPU will be bound at
 * boot reads it; bind and unbind --persist write it.
 */
#ifndef NVGRACE_GPU_FACTS_CONF_H
#define NVGRACE_GPU_FACTS_CONF_H

#include "facts/gpu.h"
#include "system/replace.h"

#define CONFIG_FILE "/etc/nvgrace-gpu.conf"
#define CONFIG_DIR "/etc/nvgrace-gpu.conf.d"

/*
 * CONFIG_ID adds a GPU's id to those of the driver, and binds nothing itself.
 * Version 0.2.0 wrote slots and serial numbers.
 */
enum config_match { CONFIG_ADDRESS, CONFIG_ALL, CONFIG_ID, CONFIG_SLOT, CONFIG_SERIAL };

/* A directive. */
struct config_line {
	char *file;
	unsigned int line;
	bool ignore; /* "ignore", else "bind" or "id" */
	enum config_match match;
	char *value; /* NULL for CONFIG_ALL; without "slot=" and "serial=" */
};

/* A malformed line. */
struct config_error {
	char *file;
	unsigned int line; /* 0: the whole file */
	char *reason;
	char *may_ignore; /* it may be an "ignore": its printable text; NULL: it can't be */
};

struct config {
	struct config_line *line;
	size_t count;
	struct config_error *error;
	size_t errors;
};

/* Missing files are empty; unreadable ones are errors in config. */
void config_read(struct host *h, struct config *config);
void config_free(struct config *config);

/* What is wrong with a line and what follows; to be freed. */
char *config_error_text(const struct config_error *error);

/* Whether the line is a "bind". */
bool config_line_binds(const struct config_line *line);

/* Whether a line adds this id of NVIDIA. */
bool config_has_id(const struct config *config, uint16_t device);

/* Reads the configuration; as host.h has it. */
bool config_adds_id(struct host *h, uint16_t device);

/* The first line that binds, or ignores, this device; or NULL. */
const struct config_line *config_binds(const struct config *config, const struct gpu *gpu);
const struct config_line *config_ignores(const struct config *config, const struct gpu *gpu);

/*
 * The malformed line that may ignore this device, for which config_binds() has no
 * line therefore; or NULL. "bind all" counts only if no malformed line may be an
 * "ignore", and "bind ADDRESS" only if none has that address, however it is typed.
 */
const struct config_error *config_unclear(const struct config *config, const struct gpu *gpu);

/* Reads the configuration: whether a line of it binds some GPU. */
bool config_binds_any(struct host *h);

/*
 * Why the lines have no effect at boot: the udev rule or its program is
 * missing, or the rule is masked. NULL if they have; then *rule is the rule's
 * path. The caller frees both.
 */
char *config_obstacle(struct host *h, char **rule);

/* The path of a device's own file, which bind --persist writes; to be freed. */
char *config_own_file(const char *address);

/*
 * Begins to write the device's own file, which the caller commits or abandons.
 * NULL sets errno.
 */
struct replacement *config_prepare(struct host *h, const char *address);

#endif
