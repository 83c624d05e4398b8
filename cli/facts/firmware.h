/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The UEFI firmware for guests that is installed, by the descriptors that packages
 * of firmware have for QEMU and libvirt.
 */
#ifndef NVGRACE_GPU_FACTS_FIRMWARE_H
#define NVGRACE_GPU_FACTS_FIRMWARE_H

#include <stdbool.h>

struct host;

/* NULL: not installed. */
struct firmware {
	char *code, *code_format;
};

/* The first one without secure boot, in the order that libvirt takes them. */
void firmware_read(struct host *h, struct firmware *found);
void firmware_free(struct firmware *f);

#endif
