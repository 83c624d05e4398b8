/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The checks, in doctor.c's order. Each adds findings, which table.h explains.
 */
#ifndef NVGRACE_GPU_DOCTOR_CHECKS_H
#define NVGRACE_GPU_DOCTOR_CHECKS_H

#include "doctor/findings.h"

/* Whether this is a guest with GPUs, for which the other checks don't apply. */
bool check_guest(struct doctor *d);			/* check_guest.c */
void check_kernel(struct doctor *d);			/* check_kernel.c */
void check_module(struct doctor *d);			/* check_module.c */
void check_iommu(struct doctor *d);			/* check_kvm.c */
void check_kvm(struct doctor *d);
void check_memory(struct doctor *d);			/* check_host.c */
void check_programs(struct doctor *d);
void check_configuration(struct doctor *d);
void check_initramfs(struct doctor *d);			/* check_initramfs.c */
void check_gpus(struct doctor *d);			/* check_gpu.c */
void check_egm(struct doctor *d);
void check_gpu(struct doctor *d, const struct gpu *gpu);

/*
 * Parts of check_module(), with the answer "module", and the path of the module that
 * modprobe would load; NULL: none.
 */
void check_headers(struct doctor *d, const char *path);		/* check_headers.c */
void check_scrubbing(struct doctor *d, const char *module);	/* check_scrubbing.c */

/* Whether DKMS has the module's source. */
bool has_dkms_source(struct doctor *d);				/* check_headers.c */

/* Complete remedies that name DKMS's key or tree, and that install headers. */
void fill_dkms(struct doctor *d, struct finding *f);
void fill_headers(struct doctor *d, struct finding *f);

/*
 * The last one: marks the accepted findings. addresses and count as for
 * doctor_look().
 */
void check_accepted(struct doctor *d, char (*addresses)[ADDRESS_MAX], size_t count);

#endif
