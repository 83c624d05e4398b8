/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The images from which kernels boot: where they are, what they have of this
 * project, and what makes them.
 */
#ifndef NVGRACE_GPU_FACTS_INITRAMFS_H
#define NVGRACE_GPU_FACTS_INITRAMFS_H

#include "facts/loader.h"

/*
 * The path of a kernel's image, to be freed: that of the boot loader's entry, or in one
 * of the usual places; NULL: none is known.
 */
char *image_path(struct host *h, const struct loader *loader, const char *release);

/*
 * This project's files in an image, as lsinitramfs or lsinitrd list them: the rule, its
 * program, the configuration, the module's parameters, and a module that isn't the
 * kernel's own: "NAME", or "NAME SIZE" for files of text, without the first slash, then NULL;
 * g_strfreev() frees them. NULL: neither can list it, or the host is a record.
 */
char **image_files(struct host *h, const char *image);

#define IMAGE_RULE "usr/lib/udev/rules.d/60-nvgrace-gpu.rules"
#define IMAGE_PROGRAM "usr/lib/udev/nvgrace-gpu"

/*
 * What is wrong with an image that has these files, by their names and sizes: an end of
 * the sentence "the image ...", static; NULL: nothing. wants: it should have the files,
 * else none but modules.
 */
const char *image_fault(struct host *h, char *const *files, bool wants);

/* What makes an image. */
struct image_owner {
	char **command;	/* makes it again; NULL: nothing that may run here does */
	char *remedy;	/* what the administrator has to do, as in "run \"...\"" */
	bool hooked;	/* it takes this project's files in */
};

/* release: of the image's kernel. The caller calls image_owner_free(). */
void image_owner_find(struct host *h, const char *image, const char *release,
		      struct image_owner *owner);
void image_owner_free(struct image_owner *owner);

/* An image of the kernel of crash dumps, which must have none of the files. */
struct dump_image {
	char *path;
	char **command;	/* makes it again */
};

/* Those in the distributions' places; the caller frees the list. */
GPtrArray *dump_images(struct host *h);

/*
 * The command that updates every kernel's image, static; NULL: no hook of this
 * project is installed.
 */
const char *const *initramfs_command(struct host *h);

#endif
