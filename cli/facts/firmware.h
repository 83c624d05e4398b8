/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The UEFI firmware for guests that is installed, by the descriptors that packages
 * of firmware have for QEMU and libvirt.
 */
#ifndef NVGRACE_GPU_FACTS_FIRMWARE_H
#define NVGRACE_GPU_FACTS_FIRMWARE_H

#include <stdbool.h>

struct host;

/* The program, and what a guest's variables are copied from; NULL: not installed. */
struct firmware {
	char *code, *code_format;
	char *vars, *vars_format;
};

/* With FIRMWARE_SECURE, secure boot is on, with keys that distributions' shims have. */
enum firmware_kind { FIRMWARE_PLAIN, FIRMWARE_SECURE, FIRMWARE_KINDS };

/* The first of each kind, in the order that libvirt takes them. */
void firmware_read(struct host *h, struct firmware found[FIRMWARE_KINDS]);
void firmware_free(struct firmware found[FIRMWARE_KINDS]);

#endif
