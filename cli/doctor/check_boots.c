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

static const char *next_words(const struct boot *b)
{
	return b->next == NEXT_YES ? NEXT : NULL;
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
	module_lack(d->h, b->release, &why, &remedy);
	if (owner == OWNER_NONE) {
		report(d, b->counts ? INITRAMFS_NO_MODULE : INITRAMFS_NO_MODULE_OLD, NULL,
		       "kernel", b->release, NEXT, next_words(b),
		       "place", b->next == NEXT_NO ? "does not boot next" : "is older than others",
		       "why", why, BUILD, remedy, NULL);
		return false;
	}
	if (owner != OWNER_KERNEL || running || !b->counts ||
	    (d->builder != OWNER_DKMS && !d->features && !d->scrub_wanted && module_owner(d->path) == OWNER_KERNEL))
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
