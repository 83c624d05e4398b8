/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A plan as a script and as JSON; domain.h has a domain of libvirt. They read nothing,
 * and the stream reports a failed write.
 */
#ifndef NVGRACE_GPU_GUEST_FORMATS_H
#define NVGRACE_GPU_GUEST_FORMATS_H

#include <stdio.h>

#include "doctor/findings.h"
#include "plan/plan.h"

/* A finding of the doctor that matters for the guest. */
struct guest_warning {
	const struct finding *finding;
	const char *effect;	/* "slow" or "fails" */
};

struct guest_output {
	const struct guest_plan *plan;
	const struct guest_warning *warning;
	size_t warnings;
	char **command;		/* the command line that asks for it, then NULL */
};

/* output: a struct guest_output. */
void guest_print_qemu(FILE *out, void *output);
void guest_print_json(FILE *out, void *output);

/* "this guest is slow: kvm-usemem: ...", to be freed. */
char *guest_warning_text(const struct guest_warning *w);

#endif
