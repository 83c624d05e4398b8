// SPDX-License-Identifier: GPL-2.0-only
/*
 * The GPUs that a command line names: see selection.h.
 */
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "facts/selection.h"
#include "system/output.h"

/* ---- addresses that people type ----------------------------------------- */

struct pci_address {
	long domain;	/* -1: not typed */
	unsigned long bus, device, function;
};

/* [[DOMAIN:]BUS:]DEVICE.FUNCTION with at least the bus. */
static bool parse_address(const char *text, struct pci_address *a)
{
	static const char form[] = "^(?:[0-9a-f]{1,8}:)?[0-9a-f]{1,8}:[0-9a-f]{1,8}\\.[0-9a-f]{1,8}\\z";
	const char *bus = strchr(text, ':');

	if (!g_regex_match_simple(form, text, G_REGEX_CASELESS | G_REGEX_RAW, 0))
		return false;
	bus = strchr(bus + 1, ':') ? bus + 1 : text;
	a->domain = bus == text ? -1 : strtol(text, NULL, 16);
	return sscanf(bus, "%lx:%lx.%lx", &a->bus, &a->device, &a->function) == 3 &&
	       a->domain <= INT32_MAX && a->bus <= 0xff && a->device <= 0x1f && a->function <= 7;
}

static bool address_fits(const struct pci_address *typed, const char *address)
{
	struct pci_address a;

	return parse_address(address, &a) && (typed->domain < 0 || typed->domain == a.domain) &&
	       typed->bus == a.bus && typed->device == a.device && typed->function == a.function;
}

int address_means(const char *typed, const char *address)
{
	struct pci_address a;

	return parse_address(typed, &a) ? address_fits(&a, address) : -1;
}

/*
 * The number of matching devices. address: the first one; all: all, with commas.
 */
static size_t find_fitting(struct host *h, const struct pci_address *typed, bool supported,
			   char address[ADDRESS_MAX], GString *all)
{
	g_auto(GStrv) names = host_list(h, DEVICES);
	size_t i, count = 0;

	for (i = 0; names && names[i]; i++) {
		if (strlen(names[i]) >= ADDRESS_MAX || !address_fits(typed, names[i]))
			continue;
		if (supported && !gpu_product(h, names[i]))
			continue;
		if (!count++)
			strcpy(address, names[i]);
		g_string_append_printf(all, "%s%s", all->len ? ", " : "", names[i]);
	}
	return count;
}

/*
 * Completes an address, of a supported GPU or of any device. EXIT_NO_DEVICE comes
 * without a message.
 */
static int resolve(struct host *h, const char *typed, const struct pci_address *a, bool supported,
		   char address[ADDRESS_MAX])
{
	g_autoptr(GString) all = g_string_new(NULL);
	size_t count = find_fitting(h, a, supported, address, all);

	if (count > 1) {
		complain(typed, "matches %s; add the domain", all->str);
		return EXIT_USAGE_ERROR;
	}
	return count ? EXIT_OK : EXIT_NO_DEVICE;
}

static bool parse_typed(const char *typed, struct pci_address *a)
{
	if (parse_address(typed, a))
		return true;
	if (!strcmp(typed, "all")) {
		complain(typed, "not a PCI address; use --all for every GPU");
		return false;
	}
	complain(typed,
		 "not a PCI address; use the form 0009:01:00.0, as in \"" PROGRAM " list\"");
	return false;
}

int pci_resolve(struct host *h, const char *typed, char address[ADDRESS_MAX])
{
	struct pci_address a;
	int status;

	if (!parse_typed(typed, &a))
		return EXIT_USAGE_ERROR;
	status = resolve(h, typed, &a, false, address);
	if (status == EXIT_NO_DEVICE)
		complain(typed, "no such PCI device");
	return status;
}

int gpu_resolve(struct host *h, const char *typed, char address[ADDRESS_MAX])
{
	g_autoptr(GString) all = g_string_new(NULL);
	struct pci_address a;
	size_t count;
	int status;

	if (!parse_typed(typed, &a))
		return EXIT_USAGE_ERROR;
	status = resolve(h, typed, &a, true, address);
	if (status != EXIT_NO_DEVICE)
		return status;
	count = find_fitting(h, &a, false, address, all);
	if (count && gpu_is_function(h, address))
		complain(address, "a virtual function (SR-IOV) has no memory of its own and is not a "
			 "GPU that this driver supports");
	else if (count)
		complain(address,
			 "%04x:%04x is not a GPU that this driver supports; \"" PROGRAM
			 " list\" shows those",
			 gpu_id(h, address, "vendor"), gpu_id(h, address, "device"));
	else
		complain(typed, "no such PCI device; \"" PROGRAM " list\" shows the GPUs");
	return EXIT_NO_DEVICE;
}

/* ---- a command line ------------------------------------------------------ */

error_t selection_parse(struct selection *selected, int key, struct argp_state *state)
{
	switch (key) {
	case 'a':
		selected->all = true;
		return 0;
	case ARGP_KEY_ARGS:
		selected->typed = state->argv + state->next;
		selected->count = state->argc - state->next;
		return 0;
	case ARGP_KEY_END:
		if (selected->all && selected->count)
			argp_error(state, "both --all and addresses given");
		if (!selected->all && !selected->count)
			argp_error(state, "no GPU given; give an ADDRESS or --all; \"" PROGRAM
					  " list\" shows the GPUs");
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

enum exit_status selection_find(const struct selection *selected, struct host *h, const struct gpus *gpus,
			    bool (*belongs)(const struct gpu *gpu, const void *data),
			    const void *data, const struct gpu **found, size_t *count)
{
	enum exit_status status = EXIT_OK;
	char address[ADDRESS_MAX];
	size_t i, j;
	bool gone;
	int rc;

	*count = 0;
	for (i = 0; selected->all && i < gpus->count; i++)
		if (belongs(&gpus->gpu[i], data))
			add(found, count, &gpus->gpu[i]);
	for (i = 0; i < selected->count; i++) {
		rc = gpu_resolve(h, selected->typed[i], address);
		if (rc > (int)status)
			status = rc;
		gone = !rc;
		for (j = 0; !rc && j < gpus->count; j++)
			if (!strcmp(gpus->gpu[j].address, address)) {
				add(found, count, &gpus->gpu[j]);
				gone = false;
			}
		if (gone) {
			/*
			 * It was unplugged or plugged in since gpus was read.
			 */
			complain(address, "the device is gone");
			status = EXIT_NO_DEVICE;
		}
	}
	if (status)
		*count = 0;
	return status;
}
