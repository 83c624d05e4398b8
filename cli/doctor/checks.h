/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The checks, in doctor.c's order. Each reports findings, which table.h explains.
 */
#ifndef NVGRACE_GPU_DOCTOR_CHECKS_H
#define NVGRACE_GPU_DOCTOR_CHECKS_H

#include "doctor/findings.h"

/* The name of IOMMU groups that vfio makes for devices without an IOMMU, if it is told to. */
#define NOIOMMU "vfio-noiommu"

/* Whether this is a guest with GPUs, for which the other checks don't apply. */
bool check_guest(struct doctor *d);			/* check_guest.c */
void check_gpus(struct doctor *d);			/* check_gpu.c */
void check_kernel(struct doctor *d);			/* check_kernel.c */
void check_module(struct doctor *d);			/* check_module.c */
void check_signature(struct doctor *d);			/* check_signature.c */

/*
 * What makes the kernel refuse modules without a trusted signature; NULL: nothing does.
 * *known: whether that can be said: lockdown's file may be missing, as in a chroot.
 */
const char *enforced_by(struct doctor *d, bool *known);

/* What will, besides, by the command line of the next boot; NULL: nothing, or not known. */
const char *enforced_next(struct doctor *d);

/*
 * The case of module-signature for a module that is signed, by a certificate with this
 * plain number. signer: NULL: not known.
 */
enum finding_case signature_case(struct doctor *d, enum owner owner, const char *signer, const char *serial);

void check_iommu(struct doctor *d);			/* check_kvm.c */
void check_kvm(struct doctor *d);
void check_memory(struct doctor *d);			/* check_host.c */
void check_programs(struct doctor *d);
void check_configuration(struct doctor *d);
void check_egm(struct doctor *d);
void check_boots(struct doctor *d);			/* check_boots.c */
void check_gpu(struct doctor *d, const struct gpu *gpu);	/* check_gpu.c */

/*
 * What the kernel does by itself or by its module: rows of check_kernel.c. no: why it
 * can't.
 */
enum ability { ABILITY_HUGE, ABILITY_ERRORS, ABILITY_PEERS, ABILITY_RESMEM };
void check_ability(struct doctor *d, enum ability ability);

/*
 * Whether a module that maps memory for DMA can be loaded, if the kernel has it as a
 * file, as far as libkmod and the kernel's command line say.
 */
bool is_loadable(struct doctor *d, const char *name);

/*
 * The first of the module and what it depends on that module_blacklist= of a kernel
 * command line names, as the kernel compares it: with underscores; to be freed. NULL:
 * none.
 */
char *blacklisted(struct doctor *d, const char *line);

#endif
