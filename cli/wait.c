// SPDX-License-Identifier: GPL-2.0-only
/*
 * "nvgrace-gpu wait": returns when GPUs are bound and their memory is ready, for what must not
 * start before: guests at boot. nvgrace-gpu-ready.service and main.c call it.
 */
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "config.h"
#include "named.h"

/* A wait for the memory's training ends after 30 s; a boot has more to do meanwhile. */
enum { TIMEOUT_S = 120, TIMEOUT_MAX_S = 86400, POLL_MS = 250 };

static const char doc[] =
	"Wait until GPUs are bound to " DRIVER_NAME " and their memory is ready.\v"
	"An ADDRESS may be short (01:00.0) where only one GPU fits. With --all it waits for the GPUs "
	"that the configuration binds at boot, and for none if there is none.\n"
	"\n"
	"Exit status: 0 all of them are, 1 one of them wasn't in time; 2 and 3 as of the other "
	"commands.";

static const struct argp_option options[] = {
	{ "all", 'a', NULL, 0, "Every GPU that the configuration binds at boot", 0 },
	{ "timeout", 't', "SECONDS", 0,
	  "Give up after SECONDS (0 to 86400, 120 by default; 0: check once)", 0 },
	{ }
};

struct arguments {
	struct named named;
	uint64_t timeout;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;

	switch (key) {
	case 't':
		if (!parse_u64(arg, &a->timeout) || a->timeout > TIMEOUT_MAX_S)
			argp_error(state, "--timeout=%s: seconds are a whole number from 0 to %d",
				   arg, TIMEOUT_MAX_S);
		return 0;
	}
	return named_parse(&a->named, key, state);
}

/*
 * Why it isn't bound and ready, to be freed; NULL: it is. The link to the driver is there from the
 * begin of a bind on, our driver's files only after its end.
 */
static char *why_not(struct host *h, const struct gpu *gpu)
{
	if (!gpu->driver)
		return xstrdup("not bound to a driver");
	if (!gpu->ours)
		return xasprintf("bound to %s", gpu->driver);
	if (gpu->mode == GPU_MODE_NONE &&
	    host_exists(h, "/sys/bus/pci/drivers/" DRIVER_NAME "/features"))
		return xstrdup("its binding has not ended");
	if (gpu->readiness && !strcmp(gpu->readiness, "failed"))
		return xstrdup("its memory is not ready");
	return NULL;
}

/* How many aren't; if say is set, with a complaint for each. */
static size_t count_missing(struct host *h, char (*addresses)[ADDRESS_MAX], size_t count, bool say)
{
	size_t missing = 0, i;
	struct gpu gpu;
	char *why;

	for (i = 0; i < count; i++) {
		if (gpu_read(h, addresses[i], &gpu))
			why = xstrdup("the device is gone");
		else
			why = why_not(h, &gpu);
		if (why && say)
			complain(addresses[i], "%s; see \"" PROGRAM " doctor %s\"", why,
				 addresses[i]);
		missing += why != NULL;
		free(why);
		gpu_free(&gpu);
	}
	return missing;
}

/* Those that the configuration binds; returns how many. */
static size_t configured(struct host *h, char (**addresses)[ADDRESS_MAX])
{
	struct config config;
	struct gpus gpus;
	size_t i, count = 0;

	gpus_find(h, &gpus);
	config_read(h, &config);
	*addresses = xcalloc(gpus.count, sizeof(**addresses));
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
	char (*addresses)[ADDRESS_MAX] = NULL;
	size_t count, i, missing = 0;
	int rc = EXIT_OK;
	long long end;

	parse_options(&argp, argc, argv, &a);
	if (a.named.all) {
		count = configured(h, &addresses);
	} else {
		count = a.named.count;
		addresses = xcalloc(count, sizeof(*addresses));
		for (i = 0; i < count && !rc; i++)
			rc = gpu_resolve(h, a.named.typed[i], addresses[i]);
	}
	end = now_ms() + a.timeout * 1000LL;
	while (!rc) {
		bool last = now_ms() >= end;

		missing = count_missing(h, addresses, count, last);
		if (!missing || last)
			break;
		poll(NULL, 0, POLL_MS);
	}
	if (!rc && missing)
		rc = EXIT_FAILED;
	if (!rc && !count)
		puts("the configuration binds no GPU that is there");
	for (i = 0; !rc && i < count; i++)
		printf("%s: bound and ready\n", addresses[i]);
	free(addresses);
	return rc;
}
