/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The questions behind answer(): each returns a text that is to be freed, or NULL if
 * the system has no answer.
 */
#ifndef NVGRACE_GPU_FACTS_ASK_H
#define NVGRACE_GPU_FACTS_ASK_H

#include <stdbool.h>

#include "system/host.h"
#include "system/program.h"
#include "system/spawn.h"

/* Milliseconds for a program that prints its version or unpacks a small file. */
#define PROGRAM_MS 10000

struct answers;
struct recorder;

/*
 * from_files: made from files alone, which a record has as they are. A tree that was
 * made by hand or from a sosreport has no answers of the others. A record of an earlier
 * version has them all, and its answer counts.
 */
struct question {
	const char *name;
	char *(*ask)(struct answers *a);
	bool from_files;
};

struct answers {
	struct host *h;
	struct recorder *recorder;
	const struct question *questions;
	size_t count;
	struct {
		bool asked;
		char *text;
	} of[];	/* one for each question */
};

/* Whether the machine is arm64. */
bool is_arm(struct answers *a);

char *ask_euid(struct answers *a);
char *ask_machine(struct answers *a);
char *ask_release(struct answers *a);
char *ask_page_size(struct answers *a);
char *ask_kernel_log(struct answers *a);
char *ask_kernel_config(struct answers *a);
char *ask_packed_config(struct answers *a);
char *ask_command_line(struct answers *a);
char *ask_acpi_tables(struct answers *a);
char *ask_kvm(struct answers *a);
char *ask_module(struct answers *a);
char *ask_trusted_keys(struct answers *a);
char *ask_mok(struct answers *a);
char *ask_qemu(struct answers *a);
char *ask_libvirt(struct answers *a);
char *ask_qemu_options(struct answers *a);
char *ask_libvirt_version(struct answers *a);
char *ask_libvirt_capabilities(struct answers *a);

#endif
