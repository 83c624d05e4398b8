/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One function for each format prints a plan. They read nothing, and the stream
 * reports a failed write.
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
	bool fragment;		/* libvirt: only what a domain needs in addition */
};

void guest_print_qemu(const struct guest_output *o);
void guest_print_libvirt(const struct guest_output *o);
void guest_print_kubevirt(const struct guest_output *o);
void guest_print_json(const struct guest_output *o);

/*
 * A comment in lines of at most 80 columns where words allow it, each after
 * prefix. The text must have no "--" if the comment is XML's.
 */
void guest_comment(FILE *out, const char *prefix, const char *text);

/* The head of all formats with comments: warnings and notes. */
void guest_head(const struct guest_output *o, const char *prefix, void (*comment)(FILE *out, const char *prefix, const char *text));

/* The name of a reason: "window". It is in the schema. */
const char *guest_why_name(enum why why);

#endif
