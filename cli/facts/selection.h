/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The GPUs that a command line names: an address, or "ADDRESS...|--all".
 */
#ifndef NVGRACE_GPU_FACTS_SELECTION_H
#define NVGRACE_GPU_FACTS_SELECTION_H

#include <argp.h>

#include "facts/gpu.h"
#include "system/program.h"

/*
 * Completes a typed address: "9:1:0.0" and "01:00.0" are enough if only one
 * device matches. Looks among the supported GPUs, then among all PCI devices.
 * EXIT_OK, or an exit status after a message.
 */
int gpu_resolve(struct host *h, const char *typed, char address[ADDRESS_MAX]);

/* The same for any PCI device, which need not be a GPU. */
int pci_resolve(struct host *h, const char *typed, char address[ADDRESS_MAX]);

/*
 * Whether a typed address can mean this device: 1 or 0; -1: it is no address, not
 * even a short one.
 */
int address_means(const char *typed, const char *address);

/* The caller sets it to zeros. */
struct selection {
	bool all;
	char **typed;	/* points into argv */
	size_t count;
};

/*
 * A command's parser calls this for 'a' (--all), the arguments and the end. If
 * neither --all nor an address was given, or both, the program ends with a
 * usage error. ARGP_ERR_UNKNOWN for any other key.
 */
error_t selection_parse(struct selection *selected, int key, struct argp_state *state);

/*
 * Writes the named GPUs of a host, each once, to found, which has room for all,
 * and their number to *count. --all names those for which belongs() is true.
 * EXIT_OK; or, after messages, the largest status of the addresses that can't
 * be resolved, and then *count is 0, because the command line is wrong.
 */
enum exit_status selection_find(const struct selection *selected, struct host *h, const struct gpus *gpus,
			    bool (*belongs)(const struct gpu *gpu, const void *data),
			    const void *data, const struct gpu **found, size_t *count);

#endif
