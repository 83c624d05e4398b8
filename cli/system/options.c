// SPDX-License-Identifier: GPL-2.0-only
/*
 * Options: see options.h.
 */
#include <glib.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "system/options.h"
#include "system/output.h"
#include "system/program.h"

static error_t parse_common(int key, char *arg, struct argp_state *state)
{
	if (key != 'h')
		return ARGP_ERR_UNKNOWN;
	/* Like --help: prints help and ends the program. */
	argp_state_help(state, state->out_stream, ARGP_HELP_STD_HELP);
	return 0;
}

static const struct argp_option common_options[] = {
	{ NULL, 'h', NULL, OPTION_HIDDEN, NULL, 0 },
	{ }
};

static const struct argp common = {
	common_options, parse_common, NULL, NULL, NULL, NULL, NULL
};

const struct argp_child common_children[] = { { &common, 0, NULL, 0 }, { } };

/* ---- completion --------------------------------------------------------- */

/* Those that argp adds itself. */
static const struct argp_option argps_options[] = {
	{ "help", '?', NULL, 0, "Print help", 0 },
	{ "usage", 0, NULL, 0, "Print the options, briefly", 0 },
	{ "version", 'V', NULL, 0, "Print the version", 0 },
	{ }
};

static bool ends_table(const struct argp_option *o)
{
	return !o->name && !o->key && !o->doc;
}

/* Calls found() for each option until it returns true; that option, or NULL. */
static const struct argp_option *each_option(const struct argp *argp,
					     bool (*found)(const struct argp_option *o, void *data),
					     void *data)
{
	const struct argp_option *o;
	const struct argp_child *child;

	for (o = argp->options; o && !ends_table(o); o++)
		if (found(o, data))
			return o;
	for (child = argp->children, o = NULL; child && child->argp && !o; child++)
		o = each_option(child->argp, found, data);
	return o;
}

static bool has_name(const struct argp_option *o, void *data)
{
	const char *name = data, *end = strchrnul(name, '=');

	return o->name && strlen(o->name) == (size_t)(end - name) &&
	       !strncmp(o->name, name, end - name);
}

static bool has_key(const struct argp_option *o, void *data)
{
	return o->key == *(char *)data;
}

/* The option whose argument is the word after this one, or NULL. */
static const struct argp_option *waits_for_argument(const struct argp *argp, char *word)
{
	const struct argp_option *o = NULL;

	if (word[0] != '-')
		return NULL;
	if (word[1] == '-')
		return strchr(word, '=') || !(o = each_option(argp, has_name, word + 2)) ||
		       !o->arg || o->flags & OPTION_ARG_OPTIONAL ? NULL : o;
	for (word++; *word; word++) {
		o = each_option(argp, has_key, word);
		if (o && o->arg)
			return o->flags & OPTION_ARG_OPTIONAL || word[1] ? NULL : o;
	}
	return NULL;
}

void candidate(const struct unfinished *u, const char *word, const char *what)
{
	if (!strncmp(word, u->start, strlen(u->start)))
		printf("%.*s%s%s%s\n", (int)u->before_length, u->before, word, what ? "\t" : "",
		       what ?: "");
}

static bool print_option(const struct argp_option *o, void *data)
{
	struct unfinished *u = data;

	if (o->name && !(o->flags & OPTION_HIDDEN))
		candidate(u, o->name, o->doc);
	return false;
}

/* The candidates for an argument of this name, such as "WHEN" or "on|off". */
static void print_values(struct unfinished *u, const char *name)
{
	g_auto(GStrv) words = NULL;
	char **word;

	if (!strchr(name, '|')) {
		u->values(u, name);
		return;
	}
	words = g_strsplit(name, "|", -1);
	for (word = words; *word; word++)
		candidate(u, *word, NULL);
}

/* The first argument of a command that isn't an option, or "". */
static char *argument_of(const struct argp *argp)
{
	const struct argp_child *child;
	const char *name = argp->args_doc;

	for (child = argp->children; !name && child && child->argp; child++)
		name = child->argp->args_doc;
	name = name ?: "";
	name += *name == '[';
	return g_strndup(name, strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"));
}

void complete_options(const struct argp *argp, struct unfinished *u)
{
	static const struct argp builtin = { .options = argps_options };
	const struct argp_option *option = NULL;
	g_autofree char *argument = NULL;
	bool only_arguments = false;
	const char *value;
	char **word;

	for (word = u->words; word[0] && word[1]; word++) {
		if (option || only_arguments) {
			option = NULL;
			continue;
		}
		only_arguments = !strcmp(*word, "--");
		option = waits_for_argument(argp, *word);
	}
	u->start = u->before = *word ?: "";
	value = strchr(u->start, '=');
	if (option) {
		print_values(u, option->arg);
	} else if (!only_arguments && !strncmp(u->start, "--", 2) && value) {
		option = each_option(argp, has_name, *word + 2);
		u->before_length = value + 1 - u->start;
		u->start = value + 1;
		if (option && option->arg)
			print_values(u, option->arg);
	} else if (!only_arguments && *u->start == '-') {
		u->before = "--";
		u->before_length = 2;
		u->start += strspn(u->start, "-");
		each_option(argp, print_option, u);
		each_option(&builtin, print_option, u);
	} else {
		argument = argument_of(argp);
		print_values(u, argument);
	}
}

static struct unfinished *unfinished;

void complete_instead(struct unfinished *u)
{
	unfinished = u;
}

/* ---- parsing ------------------------------------------------------------ */

enum { CHILDREN_MAX = 2 };

void parse_options(const struct argp *own, int argc, char **argv, void *input)
{
	struct argp_child children[CHILDREN_MAX + 2] = { };
	struct argp argp = *own;
	error_t rc;
	size_t n;

	/*
	 * The command's own children first: it knows their indexes in
	 * child_inputs.
	 */
	for (n = 0; n < CHILDREN_MAX && own->children && own->children[n].argp; n++)
		children[n] = own->children[n];
	children[n] = common_children[0];
	argp.children = children;
	if (unfinished) {
		complete_options(&argp, unfinished);
		exit(EXIT_OK);
	}
	rc = argp_parse(&argp, argc, argv, 0, NULL, input);
	if (rc) {
		complain(NULL, "%s", strerror(rc));
		exit(EXIT_USAGE_ERROR);
	}
}
