/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One row for each installed kernel: what its next boot would do. The doctor, list,
 * metrics, bind and the packages' scripts speak by it.
 */
#ifndef NVGRACE_GPU_FACTS_BOOTS_H
#define NVGRACE_GPU_FACTS_BOOTS_H

#include "facts/answers.h"

/* Who has made a file of the module, by its place below /lib/modules/RELEASE. */
enum owner { OWNER_NONE, OWNER_KERNEL, OWNER_DKMS, OWNER_PACKAGES, OWNER_OTHER };

struct boot {
	char *release;
	enum { NEXT_UNKNOWN, NEXT_NO, NEXT_YES } next;	/* whether this kernel boots next */
	char *module;		/* what it would load: "PLACE SRCVERSION", "builtin"; NULL: none */
	bool module_known;
	bool headers;		/* DKMS can build for it */
	bool read;		/* what follows is known */
	char *image;		/* its initramfs; NULL: none is known */
	char *error;		/* why that can't be listed; NULL: it was */
	char **files;		/* image_files() */
};

struct boots {
	struct boot *boot;
	size_t count;
};

/*
 * All kernels. images: also list their images, which takes seconds for each.
 */
void boots_read(struct host *h, struct answers *a, bool images, struct boots *boots);
void boots_free(struct boots *boots);

/*
 * Why no configuration has an effect at the next boot, to be freed: the kernel that
 * boots next has no module. NULL: it has one, or that isn't known.
 */
char *boots_obstacle(struct host *h);

/* path: a whole one, or a place; NULL: none. */
enum owner module_owner(const char *path);

/* The answer "kernels": "RELEASE: PLACE SRCVERSION", or "builtin" or "none". */
char *kernels_read(struct host *h);

/*
 * The answer "initramfs": lines for each kernel that has an image or is installed, to be
 * freed; NULL: there is none.
 *
 *	kernel: RELEASE
 *	image: PATH		or "none"
 *	file: NAME		for each of image_files()
 *	error: TEXT		if it could not be listed
 */
char *images_read(struct host *h);

#endif
