/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A plan as a script and as JSON; domain.h has a domain of libvirt. They read nothing,
 * and the stream reports a failed write.
 */
#ifndef NVGRACE_GPU_GUEST_FORMATS_H
#define NVGRACE_GPU_GUEST_FORMATS_H

#include <stdio.h>

#include "plan/plan.h"

/* A finding of the doctor that matters for the guest. */
struct guest_warning {
	const char *id, *device;	/* device: NULL: the host */
	const char *effect;		/* "slow" or "fails" */
	const char *text, *remedy;
};

struct guest_output {
	FILE *out;
	const struct guest_plan *plan;
	const struct guest_warning *warning;
	size_t warnings;
	char **command;		/* the command line that asks for it, then NULL */
};

void guest_print_qemu(const struct guest_output *o);
void guest_print_json(const struct guest_output *o);

/* "this guest is slow: kvm-usemem: ...", to be freed. */
char *guest_warning_text(const struct guest_warning *w);

/* The name of a reason: "window". It is in the schema. */
const char *guest_why_name(enum why why);

#endif
