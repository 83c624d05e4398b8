// SPDX-License-Identifier: GPL-2.0-only
/*
 * Options: see options.h.
 */
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
	rc = argp_parse(&argp, argc, argv, 0, NULL, input);

	if (rc) {
		complain(NULL, "%s", strerror(rc));
		exit(EXIT_USAGE_ERROR);
	}
}
