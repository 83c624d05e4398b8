/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One row for each installed kernel: what its next boot would do. The doctor, list,
 * metrics, bind and the packages' scripts speak by it.
 */
#ifndef NVGRACE_GPU_FACTS_BOOTS_H
#define NVGRACE_GPU_FACTS_BOOTS_H

#include "system/host.h"

struct boot {
	char *release;
	enum { NEXT_UNKNOWN, NEXT_NO, NEXT_YES } next;	/* whether this kernel boots next */
	bool counts;		/* it does, or may do so */
	char *module;		/* what it would load, as in kernels_read(); NULL: none */
	bool module_known;
	bool read;		/* what follows is known */
	char *image;		/* its initramfs; NULL: none is known */
	char *error;		/* why that can't be listed; NULL: it was */
	char **files;		/* image_files() */
};

struct boots {
	struct boot *boot;
	size_t count;
	char *line;		/* the kernel command line of the next boot; NULL: not known */
	char *unread;		/* the unified image of the next boot, if that has a line, which can't be read */
	char *foreign;		/* the entry that boots next, if its kernel isn't installed here */
};

/*
 * All kernels, by the answers "kernels" and "initramfs", of which the second may be NULL.
 * running: the running kernel, which decides what counts if the boot loader doesn't say
 * which boots next.
 */
void boots_read(struct host *h, const char *kernels, const char *images, const char *running,
		struct boots *boots);
void boots_free(struct boots *boots);

/* What the kernel lacks for its module; NULL: nothing, or not known. */
const char *boot_lack(const struct boot *b);

/*
 * Why no configuration has an effect at the next boot, to be freed: the kernel that
 * boots next has no module, or boots a rescue system. NULL: neither is known.
 */
char *boots_obstacle(struct host *h);

/*
 * The answer "kernels": "RELEASE: PLACE SRCVERSION KEY", or "builtin" or "none". KEY is
 * the plain number of the certificate that signed the module, "unsigned", or "-". A
 * fourth word is a module that it needs and the kernel lacks.
 */
char *kernels_read(struct host *h);

/* Where modules are that fit this kernel by their symbols, and were built for another. */
#define WEAK_UPDATES "/weak-updates/"

/* The path of a module, if the file is there: an index can be old. */
struct kmod_module;
const char *module_file(struct kmod_module *mod);

/* The same, or "builtin"; NULL: the kernel has no such module. */
const char *module_place(struct kmod_module *mod);

/*
 * The answer "initramfs": lines for each kernel that has an image or is installed, to be
 * freed; NULL: there is none.
 *
 *	kernel: RELEASE
 *	image: PATH		or "none"
 *	file: NAME SIZE		for each of image_files(), some without the size
 *	error: TEXT		if it could not be listed
 */
char *images_read(struct host *h);

#endif
