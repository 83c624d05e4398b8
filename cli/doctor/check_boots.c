// SPDX-License-Identifier: GPL-2.0-only
/*
 * The next boot, by the table of installed kernels (facts/boots.h): whether each has
 * the module, and its initramfs the module, the rule and the configuration that are
 * installed.
 */
#include <glib.h>
#include <string.h>

#include "doctor/checks.h"
#include "facts/initramfs.h"

/* Words of table.h. */
#define NEXT ", which boots next,"
#define BUILD "have the module built for that kernel"

/* What the rows of all kernels are compared with. */
struct wish {
	bool binds;		/* the configuration binds a GPU */
	bool hooked;		/* the packages put their parts into images */
};

static struct wish wish_of(struct doctor *d)
{
	struct wish wish = { .hooked = initramfs_command(d->h) };
	size_t i;

	for (i = 0; i < d->wishes.count; i++)
		wish.binds |= config_line_binds(&d->wishes.line[i]);
	return wish;
}

/*
 * The kernel from which on faults count if the boot loader doesn't say which boots
 * next: the running one, or, where it isn't installed, as in a chroot, the newest.
 */
static const char *reference(const struct doctor *d)
{
	const char *newest = "";
	size_t i;

	for (i = 0; i < d->boots.count; i++) {
		if (d->release && !strcmp(d->boots.boot[i].release, d->release))
			return d->release;
		if (strverscmp(d->boots.boot[i].release, newest) > 0)
			newest = d->boots.boot[i].release;
	}
	return newest;
}

/* Whether a fault of this kernel is an alarm: it boots next, or may do so. */
static bool is_next(const struct doctor *d, const struct boot *b)
{
	return b->next == NEXT_YES || (b->next == NEXT_UNKNOWN && strverscmp(b->release, reference(d)) >= 0);
}

static const char *next_words(const struct boot *b)
{
	return b->next == NEXT_YES ? NEXT : NULL;
}

/* Why a kernel lacks the module, and what builds it, by who does so here. */
static void build_words(struct doctor *d, const struct boot *b, char **why, char **remedy)
{
	if (d->dkms && !b->headers) {
		*why = g_strdup("DKMS can't build it, because the headers of that kernel are missing");
		*remedy = g_strdup_printf("install the headers of Linux %s, and the package that brings them with each kernel (administration.md, \"Headers\"), then run \"dkms autoinstall -k %s\"",
					  b->release, b->release);
	} else if (d->dkms) {
		*why = g_strdup("DKMS has not built it for that kernel");
		*remedy = g_strdup_printf("run \"dkms autoinstall -k %s\", which names the log of a failed build", b->release);
	} else if (host_exists(d->h, "/usr/share/" MODULE_NAME) ||
		   module_owner(d->path) == OWNER_PACKAGES) {
		*why = g_strdup("there is no package of the built module for it, nor DKMS");
		*remedy = g_strdup_printf("install nvgrace-gpu-vfio-pci-modules-%s, which \"make module-packages\" builds",
					  b->release);
	} else {
		*why = g_strdup("neither DKMS nor that kernel has one");
		*remedy = g_strdup("install nvgrace-gpu-vfio-pci-dkms, or boot a kernel that has the driver");
	}
}

/* Checks which module the kernel would load; true: no finding. */
static bool check_module_of(struct doctor *d, const struct boot *b, const struct wish *wish)
{
	bool running = d->release && !strcmp(b->release, d->release);
	g_autofree char *why = NULL, *remedy = NULL;
	enum owner owner = module_owner(b->module);

	/* The finding module is about the running kernel. */
	if (!wish->binds || !b->module_known || (running && owner == OWNER_NONE))
		return true;
	build_words(d, b, &why, &remedy);
	if (owner == OWNER_NONE) {
		report(d, is_next(d, b) ? INITRAMFS_NO_MODULE : INITRAMFS_NO_MODULE_OLD, NULL,
		       "kernel", b->release, NEXT, next_words(b),
		       "place", b->next == NEXT_NO ? "does not boot next" : "is older than others",
		       "why", why, BUILD, remedy, NULL);
		return false;
	}
	if (owner != OWNER_KERNEL || running || !is_next(d, b) ||
	    (!d->dkms && !d->features && !d->scrub_wanted && module_owner(d->path) == OWNER_KERNEL))
		return true;
	report(d, INITRAMFS_OTHER_MODULE, NULL, "kernel", b->release, NEXT, next_words(b),
	       "place", b->module, "scrub", d->scrub_wanted ? ", and scrub=1 is lost" : NULL,
	       BUILD, remedy, NULL);
	return false;
}

/* Whether the image has the installed module, unless that is the kernel's own. */
static bool has_module(const struct boot *b)
{
	g_autofree char *place = g_strndup(b->module ?: "", strcspn(b->module ?: "", " "));
	enum owner owner = module_owner(b->module);
	size_t i;

	for (i = 0; b->files[i]; i++)
		if (strstr(b->files[i], place))
			return true;
	return owner == OWNER_NONE || owner == OWNER_KERNEL;
}

/* Checks one kernel's image; true: no finding. */
static bool check_image(struct doctor *d, const struct boot *b, const struct wish *wish)
{
	bool wants = wish->binds && wish->hooked;
	const char *next = next_words(b), *fault;
	struct image_owner owner;

	if (!b->image) {
		if (wants)
			report(d, INITRAMFS_NONE, NULL, "kernel", b->release, NEXT, next, NULL);
		return !wants;
	}
	if (b->error) {
		report(d, d->privileged ? INITRAMFS_UNKNOWN : INITRAMFS_UNREADABLE, NULL, "kernel", b->release,
		       NEXT, next, "image", b->image, "error", b->error, NULL);
		return false;
	}
	fault = wants || !wish->binds ? image_fault(d->h, b->files, wants) : NULL;
	if (!fault && wants && !has_module(b))
		fault = "does not have the module that is installed";
	if (!fault)
		return true;
	image_owner_find(d->h, b->image, b->release, &owner);
	report(d, INITRAMFS_OUTDATED, NULL, "kernel", b->release, NEXT, next, "what", fault, "image", b->image,
	       "have the image made again by its owner", owner.remedy, NULL);
	image_owner_free(&owner);
	return false;
}

void check_boots(struct doctor *d)
{
	struct wish wish = wish_of(d);
	g_autofree char *text = NULL;
	size_t kernels = 0, i;
	bool good = true;

	for (i = 0; i < d->boots.count; i++) {
		const struct boot *b = &d->boots.boot[i];

		if (!check_module_of(d, b, &wish)) {
			good = false;
			continue;
		}
		/*
		 * Where no tool puts this project's parts into images, their
		 * absence is right.
		 */
		if (!b->read || (!wish.hooked && !*b->files))
			continue;
		kernels++;
		good &= check_image(d, b, &wish) && (!wish.binds || b->module_known);
	}
	text = g_strdup_printf("%zu kernel%s", kernels, kernels == 1 ? "" : "s");
	if (kernels && good)
		report(d, INITRAMFS_GOOD, NULL, "kernels", text, "what",
		       wish.binds ? "each has the module, and its initramfs the files that are installed, by their names" :
				    "no initramfs binds a GPU", NULL);
}
