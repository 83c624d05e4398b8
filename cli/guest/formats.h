/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A plan as a script and as JSON; domain.h has a domain of libvirt. They read nothing,
 * and the stream reports a failed write.
 */
#ifndef NVGRACE_GPU_GUEST_FORMATS_H
#define NVGRACE_GPU_GUEST_FORMATS_H

#include <stdio.h>

#include "plan/plan.h"

struct guest_output {
	const struct guest_plan *plan;
	char **command;		/* the command line that asks for it, then NULL */
};

/* output: a struct guest_output; plan: a struct guest_plan. */
void guest_print_qemu(FILE *out, void *output);
void guest_print_json(FILE *out, void *plan);

#endif
