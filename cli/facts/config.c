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
#include "facts/selection.h"

#define NEEDS_ID "\"id\" needs exactly one id of NVIDIA, such as 10de:2342"

static void add_error(struct config *config, const char *file, unsigned int line, char *reason,
		      char *may_ignore)
{
	struct config_error *e;

	config->error = g_renew(struct config_error, config->error, config->errors + 1);
	e = &config->error[config->errors++];
	e->file = g_strdup(file);
	e->line = line;
	e->reason = reason;
	e->may_ignore = may_ignore;
}

/* Whether the whole word has this form, in capitals or not. */
static bool has_form(const char *word, const char *form)
{
	g_autofree char *whole = g_strdup_printf("^(?:%s)\\z", form);

	return g_regex_match_simple(whole, word, G_REGEX_CASELESS | G_REGEX_RAW, 0);
}

#define ADDRESS "[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\\.[0-7]"
#define ID "10de:[0-9a-f]{4}"
#define SERIAL "[0-9a-f]{2}(?:-[0-9a-f]{2}){7}"

/* As sysfs has it: nvidia-smi prints eight digits of the domain. */
static const char *shortest(const char *address)
{
	while (*address == '0' && strcspn(address, ":") > 4)
		address++;
	return address;
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
	bool good = true;

	line->match = CONFIG_ADDRESS;
	if (!strcmp(verb, "id")) {
		line->match = CONFIG_ID;
		if (!has_form(word, ID))
			return g_strdup(NEEDS_ID);
	} else if (!strcmp(word, "all")) {
		line->match = CONFIG_ALL;
		if (line->ignore)
			return g_strdup("\"ignore all\" is not a directive; without \"bind\", no GPU is bound");
	} else if (g_str_has_prefix(word, "slot=")) {
		line->match = CONFIG_SLOT;
		word += strlen("slot=");
		good = *word && !strchr(word, '/');
	} else if (g_str_has_prefix(word, "serial=")) {
		line->match = CONFIG_SERIAL;
		word += strlen("serial=");
		good = has_form(word, SERIAL);
	} else {
		good = has_form(word, ADDRESS);
		word = shortest(word);
	}
	if (!good)
		return g_strdup_printf("\"%s\" is not an address (0009:01:00.0)%s", shown,
				       line->ignore ? "" : " or \"all\"");
	line->value = line->match == CONFIG_ALL ? NULL : g_strdup(word);
	return NULL;
}

static void parse_line(struct config *config, const char *file, unsigned int number, char *text)
{
	struct config_line line = { .line = number };
	g_autofree char *shown = NULL;
	char *save = NULL, *verb, *word, *wrong, *c;
	size_t length = strlen(text);
	bool may_ignore = true;

	/* As of editors for Windows. */
	if (length && text[length - 1] == '\r')
		text[--length] = 0;
	shown = g_strdup(text);
	make_printable(shown);
	for (c = text; *c; c++)
		if (g_ascii_iscntrl(*c) && *c != '\t') {
			add_error(config, file, number, g_strdup("has a control character"),
				  g_steal_pointer(&shown));
			return;
		}
	text[strcspn(text, "#")] = 0;
	verb = strtok_r(text, " \t", &save);
	if (!verb)
		return;
	word = strtok_r(NULL, " \t", &save);
	line.ignore = !strcmp(verb, "ignore");
	if (strcmp(verb, "bind") && strcmp(verb, "id") && !line.ignore) {
		g_autofree char *unknown = printable(verb);

		wrong = g_strdup_printf("unknown directive \"%s\"", unknown);
	} else {
		/* "bind all ignore 0009:01:00.0" */
		may_ignore = strstr(shown, "ignore");
		if (!word || strtok_r(NULL, " \t", &save))
			wrong = strcmp(verb, "id") ? g_strdup_printf("\"%s\" needs exactly one word", verb) :
						     g_strdup(NEEDS_ID);
		else
			wrong = read_word(&line, verb, word);
	}
	if (wrong) {
		add_error(config, file, number, wrong, may_ignore ? g_steal_pointer(&shown) : NULL);
		return;
	}
	line.file = g_strdup(file);
	config->line = g_renew(struct config_line, config->line, config->count + 1);
	config->line[config->count++] = line;
}

char *config_error_text(const struct config_error *error)
{
	g_autofree char *at = error->line ? g_strdup_printf("%s:%u", error->file, error->line) :
					    g_strdup(error->file);

	return g_strdup_printf("%s: %s; %s; see nvgrace-gpu.conf(5)", at, error->reason,
			       error->may_ignore ? "because it may be an \"ignore\", \"bind all\" binds no GPU until "
						   "it is corrected" : "the line is ignored");
}

/* Adds the directives and errors of a file's text. */
static void parse(struct config *config, const char *file, const char *text)
{
	g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
	unsigned int i;

	for (i = 0; lines[i]; i++)
		parse_line(config, file, i + 1, lines[i]);
}

/*
 * After something could not be read: an error, unless it is not there. A link that leads
 * nowhere is there, and may do so only early in the boot.
 */
static void add_unread(struct host *h, struct config *config, const char *path)
{
	g_autofree char *reason = g_strdup_printf("can't be read: %s", strerror(errno));
	bool absent = host_absent();
	g_autofree char *target = host_link(h, "%s", path);

	if (target || !absent)
		add_error(config, path, 0, g_steal_pointer(&reason), g_strdup(""));
}

static void read_file(struct host *h, struct config *config, const char *file)
{
	g_autofree char *text = NULL;
	size_t length, i;

	text = host_read(h, &length, "%s", file);
	if (!text) {
		add_unread(h, config, file);
		return;
	}
	/* A file that a power cut has filled with zeros is malformed, too. */
	for (i = 0; i < length; i++)
		if (!text[i])
			text[i] = '\1';
	parse(config, file, text);
}

void config_read(struct host *h, struct config *config)
{
	g_auto(GStrv) names = NULL;
	size_t i;

	memset(config, 0, sizeof(*config));
	read_file(h, config, CONFIG_FILE);
	names = host_list(h, CONFIG_DIR);
	if (!names)
		add_unread(h, config, CONFIG_DIR);
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
		g_free(config->error[i].may_ignore);
	}
	g_free(config->line);
	g_free(config->error);
	memset(config, 0, sizeof(*config));
}

/* Whether a directive means the GPU. */
static bool means(const struct config_line *line, const struct gpu *gpu)
{
	switch (line->match) {
	case CONFIG_ALL:
		return true;
	case CONFIG_ADDRESS:
		return !strcasecmp(line->value, gpu->address);
	case CONFIG_SLOT:
		/* A GPU of which the kernel does not say it may be the one to ignore. */
		return gpu->slot ? !strcmp(line->value, gpu->slot) : line->ignore;
	case CONFIG_SERIAL:
		return gpu->serial ? !strcasecmp(line->value, gpu->serial) : line->ignore;
	case CONFIG_ID:
		break;
	}
	return false;
}

/* Whether a word of the malformed line is an address, in any form, and the GPU's. */
static bool may_name(const struct config_error *error, const struct gpu *gpu)
{
	g_auto(GStrv) words = g_strsplit_set(error->may_ignore, " \t=#?", -1);
	size_t i;

	for (i = 0; words[i]; i++)
		if (address_means(words[i], gpu->address) > 0)
			return true;
	return false;
}

/* The malformed line for which this one must not bind the GPU, or NULL. */
static const struct config_error *obstacle_of(const struct config *config,
					      const struct config_line *line, const struct gpu *gpu)
{
	size_t i;

	for (i = 0; i < config->errors; i++)
		if (config->error[i].may_ignore &&
		    (line->match == CONFIG_ALL || may_name(&config->error[i], gpu)))
			return &config->error[i];
	return NULL;
}

static const struct config_line *find(const struct config *config, const struct gpu *gpu,
				      bool ignore, const struct config_error **unclear)
{
	const struct config_line *line;
	size_t i;

	*unclear = NULL;
	for (i = 0; i < config->count; i++) {
		const struct config_error *obstacle = NULL;

		line = &config->line[i];
		if (line->ignore != ignore || !means(line, gpu))
			continue;
		if (!ignore)
			obstacle = obstacle_of(config, line, gpu);
		if (!obstacle)
			return line;
		*unclear = obstacle;
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
	const struct config_error *unclear;

	return find(config, gpu, false, &unclear);
}

const struct config_line *config_ignores(const struct config *config, const struct gpu *gpu)
{
	const struct config_error *unclear;

	return find(config, gpu, true, &unclear);
}

const struct config_error *config_unclear(const struct config *config, const struct gpu *gpu)
{
	const struct config_error *unclear;

	return find(config, gpu, false, &unclear) ? NULL : unclear;
}

bool config_binds_any(struct host *h)
{
	struct config config;
	bool any = false;
	size_t i;

	config_read(h, &config);
	for (i = 0; i < config.count; i++)
		any |= config_line_binds(&config.line[i]);
	config_free(&config);
	return any;
}

char *config_obstacle(struct host *h, char **rule)
{
	/* In the order of precedence; see udev(7), also for what masks a rule. */
	static const char *const dirs[] = { "/etc/udev/rules.d", "/run/udev/rules.d",
					    "/usr/local/lib/udev/rules.d", "/usr/lib/udev/rules.d",
					    "/lib/udev/rules.d" };
	size_t i, length;

	*rule = NULL;
	for (i = 0; i < G_N_ELEMENTS(dirs) && !*rule; i++) {
		g_autofree char *path = g_strdup_printf("%s/60-nvgrace-gpu.rules", dirs[i]);
		g_autofree char *target = host_link(h, "%s", path), *text = host_read(h, &length, "%s", path);

		/* In a recorded tree, /dev/null is missing. */
		if (!g_strcmp0(target, "/dev/null") || (text && !length))
			return g_strdup_printf("%s masks the udev rule", path);
		if (text)
			*rule = g_steal_pointer(&path);
	}
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
