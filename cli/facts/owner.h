/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Who has made a file of the module, and who builds it on this host.
 */
#ifndef NVGRACE_GPU_FACTS_OWNER_H
#define NVGRACE_GPU_FACTS_OWNER_H

#include "system/host.h"

/* By its place below /lib/modules/RELEASE. */
enum owner { OWNER_NONE, OWNER_KERNEL, OWNER_DKMS, OWNER_PACKAGES, OWNER_OTHER };

/* path: a whole one, or a place; NULL: none. */
enum owner module_owner(const char *path);

/*
 * Who would build the module for a kernel that lacks it: OWNER_DKMS, which has its
 * source, OWNER_PACKAGES, which other kernels have, or OWNER_NONE.
 */
enum owner module_builder(struct host *h);

/* Why a kernel lacks the module, and what gives it one, by that; both to be freed. */
void module_lack(struct host *h, const char *release, char **why, char **remedy);

/* What replaces the system's files: packages, or only an image or a snapshot as a whole. */
enum system_kind { SYSTEM_ORDINARY, SYSTEM_OSTREE, SYSTEM_SNAPSHOT };
enum system_kind system_kind(struct host *h);

/* The remedy, to be freed, as it works where only a new snapshot has other files. It takes over remedy. */
char *in_snapshot(struct host *h, char *remedy);

/* The certificate of the key by which DKMS signs; to be freed. */
char *dkms_certificate(struct host *h);

#endif
