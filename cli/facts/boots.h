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
	/* Of its initramfs; image is NULL if none is known. */
	char *image, *error;	/* error: why it can't be read; NULL: it was read */
	char *image_module;	/* as module */
	char *directives;	/* one on a line, sorted, each once */
	bool rule, helper, read;
};

struct boots {
	struct boot *boot;
	size_t count;
};

/*
 * All kernels. images: also read what their images contain, which takes seconds for
 * each.
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

/* The directives of the configuration in the same form. */
char *boot_directives(char **each, size_t count);

/* The answer "kernels": "RELEASE: PLACE SRCVERSION", or "builtin" or "none". */
char *kernels_read(struct host *h);

#endif
