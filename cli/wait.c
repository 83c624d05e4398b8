// SPDX-License-Identifier: GPL-2.0-only
/*
 * "nvgrace-gpu wait": returns when GPUs are bound and their memory is ready, so
 * that guests don't start before that at boot. nvgrace-gpu-ready.service and
 * main.c call it.
 */
#include <glib.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "facts/config.h"
#include "facts/selection.h"
#include "system/options.h"
#include "system/output.h"

/* A GH200's memory is ready within 30 s; the rest is for the boot. */
enum { TIMEOUT_S = 120, TIMEOUT_MAX_S = 86400, POLL_MS = 250 };

static const char doc[] =
	"Wait until GPUs are bound to " DRIVER_NAME " and their memory is ready.\v"
	"An ADDRESS may be short (01:00.0) if only one GPU matches it. --all waits for the GPUs that "
	"the configuration binds at boot; without any, the command returns at once.\n"
	"\n"
	"Exit status: 0 all GPUs are bound and ready, 1 a GPU was not in time; 2 and 3 as for the "
	"other commands.";

static const struct argp_option options[] = {
	{ "all", 'a', NULL, 0, "Wait for every GPU that the configuration binds at boot", 0 },
	{ "timeout", 't', "SECONDS", 0,
	  "Wait for at most SECONDS (0 to 86400, default 120; 0 checks once)", 0 },
	{ }
};

struct arguments {
	struct selection selected;
	uint64_t timeout;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;

	switch (key) {
	case 't':
		if (!parse_u64(arg, &a->timeout) || a->timeout > TIMEOUT_MAX_S)
			argp_error(state, "--timeout=%s: not a whole number from 0 to %d",
				   arg, TIMEOUT_MAX_S);
		return 0;
	}
	return selection_parse(&a->selected, key, state);
}

/*
 * Why the GPU isn't bound and ready, to be freed; NULL: it is. The link to the
 * driver exists from the start of a bind, the driver's files only after its
 * end.
 */
static char *why_not(struct host *h, const struct gpu *gpu)
{
	if (!gpu->driver)
		return g_strdup("not bound to a driver");
	if (!gpu->ours)
		return g_strdup_printf("bound to %s", gpu->driver);
	if (gpu->mode == GPU_MODE_NONE &&
	    host_exists(h, "/sys/bus/pci/drivers/" DRIVER_NAME "/features"))
		return g_strdup("still being bound");
	if (readiness_of(gpu->readiness) == GPU_READY_FAILED)
		return g_strdup("its memory is not ready");
	return NULL;
}

/*
 * Returns how many GPUs aren't bound and ready; say: with a message for each.
 */
static size_t count_missing(struct host *h, char (*addresses)[ADDRESS_MAX], size_t count, bool say)
{
	size_t missing = 0, i;
	struct gpu gpu;

	for (i = 0; i < count; i++) {
		g_autofree char *why = NULL;

		if (gpu_read(h, addresses[i], &gpu))
			why = g_strdup("the device is gone");
		else
			why = why_not(h, &gpu);
		if (why && say)
			complain(addresses[i], "%s; see \"" PROGRAM " doctor %s\"", why,
				 addresses[i]);
		missing += why != NULL;
		gpu_free(&gpu);
	}
	return missing;
}

/*
 * Finds the GPUs that the configuration binds; returns how many. *addresses is
 * to be freed.
 */
static size_t configured(struct host *h, char (**addresses)[ADDRESS_MAX])
{
	struct config config;
	struct gpus gpus;
	size_t i, count = 0;

	gpus_find(h, &gpus);
	config_read(h, &config);
	*addresses = g_malloc0_n(gpus.count, sizeof(**addresses));
	for (i = 0; i < gpus.count; i++)
		if (config_binds(&config, &gpus.gpu[i]) && !config_ignores(&config, &gpus.gpu[i]))
			strcpy((*addresses)[count++], gpus.gpu[i].address);
	config_free(&config);
	gpus_free(&gpus);
	return count;
}

int cmd_wait(struct host *h, int argc, char **argv)
{
	static const struct argp argp = {
		options, parse, "ADDRESS...\n--all", doc, NULL, NULL, NULL
	};
	struct arguments a = { .timeout = TIMEOUT_S };
	g_autofree char (*addresses)[ADDRESS_MAX] = NULL;
	size_t count, i, missing = 0;
	int rc = EXIT_OK;
	gint64 end;

	parse_options(&argp, argc, argv, &a);
	if (a.selected.all) {
		count = configured(h, &addresses);
	} else {
		count = a.selected.count;
		addresses = g_malloc0_n(count, sizeof(*addresses));
		for (i = 0; i < count && !rc; i++)
			rc = gpu_resolve(h, a.selected.typed[i], addresses[i]);
	}
	end = g_get_monotonic_time() + (gint64)a.timeout * G_USEC_PER_SEC;
	while (!rc) {
		bool last = g_get_monotonic_time() >= end;

		missing = count_missing(h, addresses, count, last);
		if (!missing || last)
			break;
		poll(NULL, 0, POLL_MS);
	}
	if (!rc && missing)
		rc = EXIT_FAILED;
	if (!rc && !count)
		puts("the configuration binds no present GPU");
	for (i = 0; !rc && i < count; i++)
		printf("%s: bound and ready\n", addresses[i]);
	return rc;
}
