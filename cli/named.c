// SPDX-License-Identifier: GPL-2.0-only
/*
 * The GPUs that a command line names: see named.h.
 */
#include <string.h>

#include "named.h"

error_t named_parse(struct named *named, int key, struct argp_state *state)
{
	switch (key) {
	case 'a':
		named->all = true;
		return 0;
	case ARGP_KEY_ARGS:
		named->typed = state->argv + state->next;
		named->count = state->argc - state->next;
		return 0;
	case ARGP_KEY_END:
		if (named->all && named->count)
			argp_error(state, "both --all and addresses given");
		if (!named->all && !named->count)
			argp_error(state, "no GPU given: give an ADDRESS or --all; \"" PROGRAM
					  " list\" shows them");
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

static void add(const struct gpu **found, size_t *count, const struct gpu *gpu)
{
	size_t i;

	for (i = 0; i < *count; i++)
		if (found[i] == gpu)
			return;
	found[(*count)++] = gpu;
}

enum exit_status named_find(const struct named *named, struct host *h, const struct gpus *gpus,
			    bool (*belongs)(const struct gpu *gpu, const void *data),
			    const void *data, const struct gpu **found, size_t *count)
{
	enum exit_status status = EXIT_OK;
	char address[ADDRESS_MAX];
	size_t i, j;
	bool gone;
	int rc;

	*count = 0;
	for (i = 0; named->all && i < gpus->count; i++)
		if (belongs(&gpus->gpu[i], data))
			add(found, count, &gpus->gpu[i]);
	for (i = 0; i < named->count; i++) {
		rc = gpu_resolve(h, named->typed[i], address);
		if (rc > (int)status)
			status = rc;
		gone = !rc;
		for (j = 0; !rc && j < gpus->count; j++)
			if (!strcmp(gpus->gpu[j].address, address)) {
				add(found, count, &gpus->gpu[j]);
				gone = false;
			}
		if (gone) {
			/* It was read a moment ago or a moment later. */
			complain(address, "the device is gone");
			status = EXIT_NO_DEVICE;
		}
	}
	if (status)
		*count = 0;
	return status;
}
