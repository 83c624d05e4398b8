// SPDX-License-Identifier: GPL-2.0-only
/*
 * "nvgrace-gpu scrub": has the driver overwrite the memory of idle GPUs with
 * zeros, all at the same time, and with --verify reads it back. main.c calls
 * it.
 */
#include <glib.h>
#include <stdlib.h>

#include "commands.h"
#include "facts/selection.h"
#include "open_gpu/open_gpu.h"
#include "open_gpu/progress.h"
#include "scrub/scrub.h"
#include "system/options.h"
#include "system/output.h"

static const char doc[] =
	"Overwrite the memory of idle GPUs with zeros, all at the same time, and wait for the end.\v"
	"An ADDRESS may be short (01:00.0) if only one GPU matches it. A GPU must be bound to "
	DRIVER_NAME ", and no process may have it open. The content of the memory is lost: on a "
	"terminal, the command asks first. If a GPU can't be scrubbed, the others still are.\n"
	"\n"
	"Exit status: 0 all GPUs are clean, 1 a GPU is not, or --verify found words other than 0; "
	"2 to 5 and 130 as for the other commands. If the command is interrupted, the kernel "
	"continues the scrub.";

enum { KEY_VERIFY = 256 };

static const struct argp_option options[] = {
	{ "all", 'a', NULL, 0, "Scrub every GPU with memory that is bound to " DRIVER_NAME, 0 },
	{ "verify", KEY_VERIFY, NULL, 0, "Then open each GPU and read back all of its memory", 0 },
	{ "yes", 'y', NULL, 0, "Don't ask whether GPU memory may be overwritten", 0 },
	{ "json", 'j', NULL, 0, JSON_HELP, 0 },
	{ }
};

struct arguments {
	struct selection selected;
	bool verify, yes, json;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;

	switch (key) {
	case KEY_VERIFY:
		a->verify = true;
		return 0;
	case 'y':
		a->yes = true;
		return 0;
	case 'j':
		a->json = true;
		return 0;
	}
	return selection_parse(&a->selected, key, state);
}

/* ---- the command -------------------------------------------------------- */

/*
 * Whether --all includes this GPU. overwrite_all() refuses one whose driver does
 * not report memory.
 */
static bool belongs(const struct gpu *gpu, const void *data)
{
	return gpu->ours && gpu->mode != GPU_MODE_CORE_ONLY;
}

/* Finds the GPUs to scrub; EXIT_OK, or an exit status after a message. */
static enum exit_status choose(struct scrub *s, const struct selection *selected)
{
	g_autofree const struct gpu **found = g_new0(const struct gpu *, s->gpus.count);
	enum exit_status status;
	size_t i;

	status = selection_find(selected, s->host, &s->gpus, belongs, NULL, found, &s->count);
	s->targets = g_new0(struct target, s->count);
	for (i = 0; i < s->count; i++)
		s->targets[i] = (struct target){ .gpu = found[i], .file = -1 };
	return status;
}

/*
 * Asks a person at a terminal. Programs call this command without one, and mean
 * it.
 */
static bool agreed(const struct scrub *s, bool yes)
{
	g_autoptr(GString) list = g_string_new(NULL);
	size_t i;

	if (yes || !risk_can_ask())
		return true;
	for (i = 0; i < s->count; i++)
		g_string_append_printf(list, "%s%s", i ? ", " : "", s->targets[i].gpu->address);
	return risk_agreed(list->str, "scrub", s->count > 1 ? "overwrites the memory of these GPUs"
							    : "overwrites the memory of this GPU");
}

static enum exit_status run(struct host *h, const struct arguments *a)
{
	struct scrub s = { .host = h, .verify = a->verify, .json = a->json };
	enum exit_status status, worst;
	size_t i;

	gpus_find(h, &s.gpus);
	status = choose(&s, &a->selected);
	if (!status && !s.count)
		complain(NULL, "no GPU with memory is bound to " DRIVER_NAME);
	if (s.count && agreed(&s, a->yes)) {
		overwrite_all(&s);
		/* One after the other, because each uses all CPUs of its node. */
		for (i = 0; a->verify && i < s.count; i++)
			if (!s.targets[i].outcome.status)
				verify(h, &s.targets[i]);
		keep_results(&s);
		worst = print_results(&s);
	} else if (s.count) {
		worst = EXIT_REFUSED;
	} else {
		worst = print_results(&s);
	}
	for (i = 0; i < s.count; i++) {
		outcome_free(&s.targets[i].outcome);
		g_free(s.targets[i].log);
	}
	g_free(s.targets);
	gpus_free(&s.gpus);
	return status > worst ? status : worst;
}

int cmd_scrub(struct host *h, int argc, char **argv)
{
	static const struct argp argp = {
		options, parse, "ADDRESS...\n--all", doc, NULL, NULL, NULL
	};
	struct arguments a = { };

	parse_options(&argp, argc, argv, &a);
	if (h->recorded) {
		complain(NULL, "can't scrub a GPU of a recorded tree; run \"" PROGRAM " scrub\" "
			 "without --root");
		return EXIT_USAGE_ERROR;
	}
	if (!h->privileged) {
		complain(NULL, "only root may scrub GPUs; use sudo");
		return EXIT_NOT_ROOT;
	}
	return run(h, &a);
}
