// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reads and writes the configuration: see config.h.
 */
#include <errno.h>
#include <glib.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "facts/config.h"

#define NEEDS_ID "\"id\" needs exactly one id of NVIDIA, such as 10de:2342"

static void add_error(struct config *config, const char *file, unsigned int line, char *reason)
{
	struct config_error *e;

	config->error = g_renew(struct config_error, config->error, config->errors + 1);
	e = &config->error[config->errors++];
	e->file = g_strdup(file);
	e->line = line;
	e->reason = reason;
}

/* DOMAIN:BUS:DEVICE.FUNCTION, all hexadecimal. */
static bool is_address(const char *text)
{
	return g_regex_match_simple("^(?i)[0-9a-f]{4,}:[0-9a-f]{2}:[01][0-9a-f]\\.[0-7]\\z", text, 0,
				    0);
}

/* An id of NVIDIA, "10de:2342". */
static bool is_id(const char *text)
{
	return g_regex_match_simple("^(?i)10de:[0-9a-f]{4}\\z", text, 0, 0);
}

/* A printable copy of text from a file, for a message. */
static char *printable(const char *text)
{
	char *copy = g_strdup_printf("%.60s", text);

	make_printable(copy);
	return copy;
}

/*
 * What is wrong with the one word of "bind", "ignore" or "id", or NULL; sets
 * line->match and, if it isn't "all", line->value.
 */
static char *read_word(struct config_line *line, const char *verb, const char *word)
{
	g_autofree char *shown = printable(word);
	bool all = !strcmp(word, "all");

	line->match = all ? CONFIG_ALL : CONFIG_ADDRESS;
	if (!strcmp(verb, "id")) {
		line->match = CONFIG_ID;
		if (!is_id(word))
			return g_strdup(NEEDS_ID);
	} else if (g_str_has_prefix(word, "slot=") || g_str_has_prefix(word, "serial=")) {
		return g_strdup_printf("\"%s\": slots and serial numbers are no longer read; "
				       "name the GPU's address", shown);
	} else if (all && line->ignore) {
		return g_strdup("\"ignore all\" is not a directive; without \"bind\", no GPU is bound");
	} else if (!all && !is_address(word)) {
		return g_strdup_printf("\"%s\" is not an address (0009:01:00.0)%s", shown,
				       line->ignore ? "" : " or \"all\"");
	}
	line->value = all ? NULL : g_strdup(word);
	return NULL;
}

static void parse_line(struct config *config, const char *file, unsigned int number, char *text)
{
	struct config_line line = { .line = number };
	char *save = NULL, *verb, *word, *wrong, *c;
	size_t length = strlen(text);

	/* As of editors for Windows. */
	if (length && text[length - 1] == '\r')
		text[--length] = 0;
	for (c = text; *c; c++)
		if (g_ascii_iscntrl(*c) && *c != '\t') {
			add_error(config, file, number, g_strdup("has a control character"));
			return;
		}
	text[strcspn(text, "#")] = 0;
	verb = strtok_r(text, " \t", &save);
	if (!verb)
		return;
	word = strtok_r(NULL, " \t", &save);
	line.ignore = !strcmp(verb, "ignore");
	if (strcmp(verb, "bind") && strcmp(verb, "id") && !line.ignore) {
		g_autofree char *shown = printable(verb);

		wrong = g_strdup_printf("unknown directive \"%s\"", shown);
	} else if (!word || strtok_r(NULL, " \t", &save)) {
		wrong = strcmp(verb, "id") ? g_strdup_printf("\"%s\" needs exactly one word", verb) :
					     g_strdup(NEEDS_ID);
	} else {
		wrong = read_word(&line, verb, word);
	}
	if (wrong) {
		add_error(config, file, number, wrong);
		return;
	}
	line.file = g_strdup(file);
	config->line = g_renew(struct config_line, config->line, config->count + 1);
	config->line[config->count++] = line;
}

void config_parse(struct config *config, const char *file, const char *text)
{
	g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
	unsigned int i;

	for (i = 0; lines[i]; i++)
		parse_line(config, file, i + 1, lines[i]);
}

char *config_text(const struct config_line *line)
{
	g_autofree char *value = g_ascii_strdown(line->value ? line->value : "all", -1);

	return g_strdup_printf("%s %s", line->ignore ? "ignore" : line->match == CONFIG_ID ? "id" : "bind",
			       value);
}

static void read_file(struct host *h, struct config *config, const char *file)
{
	size_t length, i, kept = 0;
	g_autofree char *text = host_read(h, &length, "%s", file);

	if (!text) {
		if (!host_absent())
			add_error(config, file, 0, g_strdup_printf("can't be read: %s", strerror(errno)));
		return;
	}
	/* As the shell's read does, by which the udev helper reads this file. */
	for (i = 0; i < length; i++)
		if (text[i])
			text[kept++] = text[i];
	text[kept] = 0;
	if (kept < length)
		add_error(config, file, 0, g_strdup("has NUL bytes, which are left out"));
	config_parse(config, file, text);
}

void config_read(struct host *h, struct config *config)
{
	g_auto(GStrv) names = NULL;
	size_t i;

	memset(config, 0, sizeof(*config));
	read_file(h, config, CONFIG_FILE);
	names = host_list(h, CONFIG_DIR);
	if (!names && !host_absent())
		add_error(config, CONFIG_DIR, 0, g_strdup_printf("can't be read: %s", strerror(errno)));
	for (i = 0; names && names[i]; i++) {
		g_autofree char *file = g_strdup_printf("%s/%s", CONFIG_DIR, names[i]);

		/* Like *.conf in the shell. */
		if (names[i][0] != '.' && strlen(names[i]) > 4 && g_str_has_suffix(names[i], ".conf"))
			read_file(h, config, file);
	}
}

void config_free(struct config *config)
{
	size_t i;

	for (i = 0; i < config->count; i++) {
		g_free(config->line[i].file);
		g_free(config->line[i].value);
	}
	for (i = 0; i < config->errors; i++) {
		g_free(config->error[i].file);
		g_free(config->error[i].reason);
	}
	g_free(config->line);
	g_free(config->error);
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
		    (line->match == CONFIG_ADDRESS && !strcasecmp(line->value, gpu->address)))
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
	g_autofree char *target = host_link(h, "%s", path), *text = NULL;
	size_t length;

	if (target && !strcmp(target, "/dev/null"))
		return true;
	text = host_read(h, &length, "%s", path);
	return text && !length;
}

static bool is_rule(const char *name)
{
	return g_str_has_suffix(name, ".rules") && strstr(name, "nvgrace-gpu");
}

char *config_obstacle(struct host *h, char **rule)
{
	/* In the order of precedence; see udev(7). */
	static const char *const dirs[] = { "/etc/udev/rules.d", "/run/udev/rules.d",
					    "/usr/local/lib/udev/rules.d", "/usr/lib/udev/rules.d",
					    "/lib/udev/rules.d" };
	g_autofree char *masked = NULL;
	size_t i, j, k;

	*rule = NULL;
	for (i = 0; i < G_N_ELEMENTS(dirs) && !*rule; i++) {
		g_auto(GStrv) names = host_list(h, "%s", dirs[i]);

		for (j = 0; names && names[j] && !*rule; j++) {
			g_autofree char *path = g_strdup_printf("%s/%s", dirs[i], names[j]);

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
			if (is_empty_rule(h, path)) {
				g_free(masked);
				masked = g_steal_pointer(&path);
			} else {
				*rule = g_steal_pointer(&path);
			}
		}
	}
	if (!*rule && masked)
		return g_strdup_printf("%s masks the udev rule", masked);
	if (!*rule)
		return g_strdup("the udev rule 60-nvgrace-gpu.rules is missing");
	if (!host_exists(h, "/usr/lib/udev/nvgrace-gpu") && !host_exists(h, "/lib/udev/nvgrace-gpu")) {
		g_autofree char *found = g_steal_pointer(rule);

		return g_strdup_printf("the program /usr/lib/udev/nvgrace-gpu of %s is missing", found);
	}
	return NULL;
}

char *config_own_file(const char *address)
{
	return g_strdup_printf("%s/%s.conf", CONFIG_DIR, address);
}

struct replacement *config_prepare(struct host *h, const char *address)
{
	g_autofree char *file = config_own_file(address), *text = NULL;

	if (h->recorded) {
		errno = EROFS;	/* LCOV_EXCL_LINE: a mistake in this program */
		return NULL;	/* LCOV_EXCL_LINE */
	}
	if (mkdir(CONFIG_DIR, 0755) && errno != EEXIST)
		return NULL;
	text = g_strdup_printf(
		"# Written by \"nvgrace-gpu bind --persist\"; \"unbind --persist\" removes it.\n"
		"bind %s\n",
		address);
	return replacement_begin(file, 0644, text, strlen(text));
}
