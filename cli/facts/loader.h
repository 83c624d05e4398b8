/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the boot loader's own entries say: which kernel boots next, and with which
 * initramfs. GRUB's menu and its environment, the Boot Loader Specification's entries,
 * which systemd-boot and Fedora's GRUB read, and unified kernel images.
 */
#ifndef NVGRACE_GPU_FACTS_LOADER_H
#define NVGRACE_GPU_FACTS_LOADER_H

#include "system/host.h"

struct loader_entry {
	char *path;	/* GRUB's number of it, such as "1>0"; NULL: not of its menu */
	char *id, *title;
	char *sort_key, *machine, *version;	/* by which systemd-boot orders; NULL: not stated */
	char *release;	/* of the kernel that it boots; NULL: of none that is installed */
	bool foreign;	/* its path has a version, of none that is installed */
	bool failed;	/* its boots are counted, and all have failed */
	char *line;	/* the kernel command line, with GRUB's variables; NULL: not stated */
	char *image;	/* the initramfs, or the unified kernel image; NULL: not stated */
};

struct loader {
	struct loader_entry *entry;
	size_t count;
	char *next;	/* the release that boots next; NULL: not known */
	const struct loader_entry *chosen;	/* what boots next; NULL: not known */
	char *line;	/* the kernel command line that it gets; NULL: not known */
	char *const *releases;	/* those that are installed, then NULL; NULL: none */
};

/* The releases are used until the end. */
void loader_read(struct host *h, char *const *releases, struct loader *loader);
void loader_free(struct loader *loader);

/* The image of the entry that boots next, or of the release's first one, or NULL. */
const char *loader_image(const struct loader *loader, const char *release);

#endif
