/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Reads the initramfs of each kernel; answers.c calls it. The distribution's own
 * unmkinitramfs or lsinitrd unpacks an image to a folder in /var/tmp, which is
 * removed afterwards.
 */
#ifndef NVGRACE_GPU_FACTS_IMAGES_H
#define NVGRACE_GPU_FACTS_IMAGES_H

struct host;

/*
 * Lines for each kernel that has an image, which is that of the boot loader's entry if
 * there is one:
 *
 *	kernel: RELEASE
 *	image: PATH
 *	installed: PLACE SRCVERSION	of the module in /lib/modules ("-": none), or "none"
 *	module: PLACE SRCVERSION	of the image's module, or "none"
 *	parts: rule helper		those that the image has
 *	directive: bind all		for each directive in the image
 *	error: TEXT			if it could not be read to its end
 *
 * To be freed; NULL: no kernel has an image.
 */
char *images_read(struct host *h);

/*
 * The module that modprobe would load for that kernel: "PLACE SRCVERSION" or
 * "builtin", to be freed; NULL: none.
 */
char *images_installed(const char *release);

#endif
