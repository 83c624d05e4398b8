/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A domain of libvirt that gets GPUs, or loses them.
 *
 * What this program adds can be found again after libvirt has read the domain and
 * printed it: devices by their aliases, NUMA cells by <acpi nodeset> of such devices,
 * and the rest by a list of words in <metadata>.
 */
#ifndef NVGRACE_GPU_GUEST_DOMAIN_H
#define NVGRACE_GPU_GUEST_DOMAIN_H

#include <glib.h>

#include "plan/plan.h"
#include "system/xml.h"

/* Begins the alias of each device that is added; libvirt keeps those with "ua-". */
#define ALIAS "ua-nvgrace-"
#define METADATA "nvgrace-gpu:guest"
#define METADATA_NAMESPACE "urn:nvgrace-gpu:guest"
#define QEMU_NAMESPACE " xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'"

struct domain {
	char *text;
	struct element *root;
};

/* Takes the text. NULL, or why it is no domain, to be freed; then there is nothing to end. */
char *domain_begin(struct domain *d, char *text);
void domain_end(struct domain *d);

/* The domain without what this program has added; its text, to be freed. */
char *domain_without(struct domain *d);

/*
 * Reads what a plan needs to know, of a domain without additions, which must live as long
 * as the facts. NULL, or why the domain can't have GPUs, to be freed.
 */
char *domain_facts(const struct domain *d, struct guest_wish *wish, struct guest_domain *facts);

/* Its controller for pcie.0; NULL: none yet. */
struct element *domain_pcie_root(const struct domain *d);

/*
 * The domain (bare: without additions) with the plan's additions; its text, to be freed.
 * was: as it came. If that has all of it and nothing more, its own text.
 */
char *domain_with(const struct domain *bare, struct domain *was, const struct guest_plan *plan);

/* How many devices, cells and so on in it are additions; marks them. */
size_t domain_mark(struct domain *d);

#endif
