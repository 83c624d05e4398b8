// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reads and writes the configuration: see config.h.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "facts/config.h"

static void add_error(struct config *config, const char *file, unsigned int line, char *reason)
{
	struct config_error *e;

	config->error = xrealloc(config->error, (config->errors + 1) * sizeof(*config->error));
	e = &config->error[config->errors++];
	e->file = xstrdup(file);
	e->line = line;
	e->reason = reason;
}

static bool has_prefix(const char *text, const char *prefix)
{
	return !strncmp(text, prefix, strlen(prefix));
}

/* DOMAIN:BUS:DEVICE.FUNCTION, all hexadecimal. */
static bool is_address(const char *text)
{
	static const char hex[] = "0123456789abcdefABCDEF";
	size_t domain = strspn(text, hex);

	return domain >= 4 && text[domain] == ':' && strspn(text + domain + 1, hex) == 2 &&
	       text[domain + 3] == ':' && (text[domain + 4] == '0' || text[domain + 4] == '1') &&
	       strspn(text + domain + 4, hex) == 2 && text[domain + 6] == '.' &&
	       text[domain + 7] >= '0' && text[domain + 7] <= '7' && !text[domain + 8];
}

/* Eight bytes, "48-b0-2d-ff-ff-12-34-56". */
static bool is_serial(const char *text)
{
	size_t i;

	for (i = 0; i < 23; i++)
		if (i % 3 == 2 ? text[i] != '-' : !isxdigit((unsigned char)text[i]))
			return false;
	return !text[i];
}

/* An id of NVIDIA, "10de:2342". */
static bool is_id(const char *text)
{
	return !strncasecmp(text, "10de:", 5) && strspn(text + 5, "0123456789abcdefABCDEF") == 4 &&
	       !text[9];
}

/* A printable copy of text from a file, for a message; to be freed. */
static char *printable(const char *text)
{
	char *copy = xasprintf("%.60s", text);

	make_printable(copy);
	return copy;
}

static void parse_line(struct config *config, const char *file, unsigned int number, char *text)
{
	char *save, *word, *value, *shown;
	struct config_line line = { .line = number };

	text[strcspn(text, "#")] = 0;
	word = strtok_r(text, " \t\r\v\f", &save);
	if (!word)
		return;
	value = strtok_r(NULL, " \t\r\v\f", &save);
	shown = printable(word);
	if (strcmp(word, "bind") && strcmp(word, "ignore") && strcmp(word, "id")) {
		add_error(config, file, number, xasprintf("unknown directive \"%s\"", shown));
		goto out;
	}
	line.ignore = !strcmp(word, "ignore");
	if (!strcmp(word, "id")) {
		if (!value || strtok_r(NULL, " \t\r\v\f", &save) || !is_id(value)) {
			add_error(config, file, number,
				  xstrdup("\"id\" needs exactly one id of NVIDIA, such as 10de:2342"));
			goto out;
		}
		line.match = CONFIG_ID;
		goto add;
	}
	if (!value || strtok_r(NULL, " \t\r\v\f", &save)) {
		add_error(config, file, number, xasprintf("\"%s\" needs exactly one word", shown));
		goto out;
	}
	free(shown);
	shown = printable(value);
	if (!strcmp(value, "all")) {
		line.match = CONFIG_ALL;
		value = NULL;
	} else if (has_prefix(value, "slot=") && value[5] && !strchr(value, '/')) {
		line.match = CONFIG_SLOT;
		value += 5;
	} else if (has_prefix(value, "serial=") && is_serial(value + 7)) {
		line.match = CONFIG_SERIAL;
		value += 7;
	} else if (is_address(value)) {
		line.match = CONFIG_ADDRESS;
	} else {
		add_error(
			config, file, number,
			xasprintf(
				"\"%s\" is not an address (0009:01:00.0), slot=NAME, serial=NUMBER%s",
				shown, line.ignore ? "" : " or \"all\""));
		goto out;
	}
	if (line.ignore && line.match == CONFIG_ALL) {
		add_error(config, file, number,
			  xstrdup("\"ignore all\" is not a directive; without \"bind\", no GPU is bound"));
		goto out;
	}
add:
	line.file = xstrdup(file);
	line.value = value ? xstrdup(value) : NULL;
	config->line = xrealloc(config->line, (config->count + 1) * sizeof(line));
	config->line[config->count++] = line;
out:
	free(shown);
}

void config_parse(struct config *config, const char *file, const char *text)
{
	char *copy = xstrdup(text), *at, *next;
	unsigned int number = 0;

	for (at = copy; at; at = next) {
		next = strchr(at, '\n');
		if (next)
			*next++ = 0;
		parse_line(config, file, ++number, at);
	}
	free(copy);
}

char *config_text(const struct config_line *line)
{
	static const char *const kinds[] = {
		[CONFIG_ADDRESS] = "", [CONFIG_ALL] = "all", [CONFIG_SLOT] = "slot=",
		[CONFIG_SERIAL] = "serial=", [CONFIG_ID] = "",
	};
	char *text = xasprintf("%s %s%s",
			       line->ignore ? "ignore" : line->match == CONFIG_ID ? "id" : "bind",
			       kinds[line->match],
			       line->value ? line->value : ""), *c;

	/* Only a slot's name is case-sensitive. */
	for (c = text; line->match != CONFIG_SLOT && *c; c++)
		*c = tolower((unsigned char)*c);
	return text;
}

static void read_file(struct host *h, struct config *config, const char *file)
{
	char *text;
	size_t len;

	text = host_read(h, &len, "%s", file);
	if (!text) {
		if (!host_absent())
			add_error(config, file, 0, xasprintf("can't be read: %s", strerror(errno)));
		return;
	}
	if (strlen(text) != len)
		add_error(config, file, 0, xstrdup("has a NUL byte; the rest of the file is ignored"));
	config_parse(config, file, text);
	free(text);
}

void config_read(struct host *h, struct config *config)
{
	char **names;
	size_t i, length;

	memset(config, 0, sizeof(*config));
	read_file(h, config, CONFIG_FILE);
	names = host_list(h, CONFIG_DIR);
	if (!names && !host_absent())
		add_error(config, CONFIG_DIR, 0, xasprintf("can't be read: %s", strerror(errno)));
	for (i = 0; names && names[i]; i++) {
		length = strlen(names[i]);
		/* Like *.conf in the shell. */
		if (names[i][0] == '.' || length < 5 || strcmp(names[i] + length - 5, ".conf"))
			continue;
		char *file = xasprintf("%s/%s", CONFIG_DIR, names[i]);

		read_file(h, config, file);
		free(file);
	}
	host_free_list(names);
}

void config_free(struct config *config)
{
	size_t i;

	for (i = 0; i < config->count; i++) {
		free(config->line[i].file);
		free(config->line[i].value);
	}
	for (i = 0; i < config->errors; i++) {
		free(config->error[i].file);
		free(config->error[i].reason);
	}
	free(config->line);
	free(config->error);
	memset(config, 0, sizeof(*config));
}

static const struct config_line *find(const struct config *config, const struct gpu *gpu,
				      bool ignore)
{
	const struct config_line *line;
	size_t i;

	for (i = 0; i < config->count; i++) {
		line = &config->line[i];
		if (line->ignore != ignore)
			continue;
		if (line->match == CONFIG_ALL ||
		    (line->match == CONFIG_ADDRESS && !strcasecmp(line->value, gpu->address)) ||
		    (line->match == CONFIG_SLOT && gpu->slot && !strcmp(line->value, gpu->slot)) ||
		    (line->match == CONFIG_SERIAL && gpu->serial &&
		     !strcasecmp(line->value, gpu->serial)))
			return line;
	}
	return NULL;
}

bool config_line_binds(const struct config_line *line)
{
	return !line->ignore && line->match != CONFIG_ID;
}

bool config_has_id(const struct config *config, uint16_t device)
{
	size_t i;

	for (i = 0; i < config->count; i++)
		if (config->line[i].match == CONFIG_ID &&
		    strtoul(config->line[i].value + strlen("10de:"), NULL, 16) == device)
			return true;
	return false;
}

bool config_adds_id(struct host *h, uint16_t device)
{
	struct config config;
	bool has;

	config_read(h, &config);
	has = config_has_id(&config, device);
	config_free(&config);
	return has;
}

const struct config_line *config_binds(const struct config *config, const struct gpu *gpu)
{
	return find(config, gpu, false);
}

const struct config_line *config_ignores(const struct config *config, const struct gpu *gpu)
{
	return find(config, gpu, true);
}

/* An empty rules file masks files of the same name in later directories. */
static bool is_empty_rule(struct host *h, const char *path)
{
	char *target = host_link(h, "%s", path), *text;
	bool null = target && !strcmp(target, "/dev/null");
	size_t len;

	free(target);
	if (null)
		return true;
	text = host_read(h, &len, "%s", path);
	free(text);
	return text && !len;
}

static bool is_rule(const char *name)
{
	size_t length = strlen(name);

	return length > 6 && !strcmp(name + length - 6, ".rules") && strstr(name, "nvgrace-gpu");
}

char *config_obstacle(struct host *h, char **rule)
{
	/* In the order of precedence; see udev(7). */
	static const char *const dirs[] = { "/etc/udev/rules.d", "/run/udev/rules.d",
					    "/usr/local/lib/udev/rules.d", "/usr/lib/udev/rules.d",
					    "/lib/udev/rules.d" };
	const size_t count = sizeof(dirs) / sizeof(*dirs);
	char *masked = NULL, *path, *why = NULL;
	size_t i, j, k;

	*rule = NULL;
	for (i = 0; i < count && !*rule; i++) {
		char **names = host_list(h, "%s", dirs[i]);

		for (j = 0; names && names[j] && !*rule; j++) {
			if (!is_rule(names[j]))
				continue;
			for (k = 0; k < i && !host_exists(h, "%s/%s", dirs[k], names[j]); k++)
				;
			/*
			 * In a recorded tree, a link to /dev/null has no
			 * target.
			 */
			if (k < i || (masked && !strcmp(strrchr(masked, '/') + 1, names[j])))
				continue;
			path = xasprintf("%s/%s", dirs[i], names[j]);
			if (is_empty_rule(h, path)) {
				free(masked);
				masked = path;
			} else {
				*rule = path;
			}
		}
		host_free_list(names);
	}
	if (!*rule && masked) {
		why = xasprintf("%s masks the udev rule", masked);
	} else if (!*rule) {
		why = xstrdup("the udev rule 60-nvgrace-gpu.rules is missing");
	} else if (!host_exists(h, "/usr/lib/udev/nvgrace-gpu") &&
		   !host_exists(h, "/lib/udev/nvgrace-gpu")) {
		why = xasprintf("the program /usr/lib/udev/nvgrace-gpu of %s is missing", *rule);
		free(*rule);
		*rule = NULL;
	}
	free(masked);
	return why;
}

char *config_own_file(const char *address)
{
	return xasprintf("%s/%s.conf", CONFIG_DIR, address);
}

struct replacement *config_prepare(struct host *h, const char *address)
{
	char *file, *text;
	struct replacement *r;

	if (h->recorded) {
		errno = EROFS;	/* LCOV_EXCL_LINE: a mistake in this program */
		return NULL;	/* LCOV_EXCL_LINE */
	}
	if (mkdir(CONFIG_DIR, 0755) && errno != EEXIST)
		return NULL;
	file = config_own_file(address);
	text = xasprintf(
		"# Written by \"nvgrace-gpu bind --persist\"; \"unbind --persist\" removes it.\n"
		"bind %s\n",
		address);
	r = replacement_begin(file, 0644, text, strlen(text));
	free(text);
	free(file);
	return r;
}
