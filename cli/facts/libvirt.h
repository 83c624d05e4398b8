/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What libvirt says that it can do for guests with GPUs.
 */
#ifndef NVGRACE_GPU_FACTS_LIBVIRT_H
#define NVGRACE_GPU_FACTS_LIBVIRT_H

#include <stdbool.h>

struct vmms;

/*
 * Takes the version of the running daemon from "virsh version --daemon", and from
 * "virsh domcapabilities" whether its QEMU has iommufd, which stays true if that is
 * not known. NULL: nothing was said.
 */
void libvirt_ask(const char *version, const char *capabilities, struct vmms *libvirts,
		 bool *iommufd);

#endif
