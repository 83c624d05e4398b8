// SPDX-License-Identifier: GPL-2.0-only
/*
 * The next boot, by the table of installed kernels (facts/boots.h): whether each has
 * the module, and its initramfs the module, the rule and the configuration that are
 * installed.
 */
#include <glib.h>
#include <string.h>

#include "doctor/checks.h"
#include "facts/elsewhere.h"
#include "facts/initramfs.h"

/* Words of table.h. */
#define NEXT ", which boots next,"
#define BUILD "have the module built for that kernel"

static const char *next_words(const struct boot *b)
{
	return b->next == NEXT_YES ? NEXT : NULL;
}

/* Checks which module the kernel would load; true: no finding. */
static bool check_module_of(struct doctor *d, const struct boot *b)
{
	bool running = d->release && !strcmp(b->release, d->release);
	g_autofree char *why = NULL, *remedy = NULL;
	enum owner owner = module_owner(b->module);
	const char *lack = boot_lack(b);

	/* The finding module is about the running kernel. */
	if (!d->binds || !b->module_known || (running && owner == OWNER_NONE))
		return true;
	module_lack(d->h, b->release, &why, &remedy);
	if (owner == OWNER_NONE) {
		report(d, b->counts ? INITRAMFS_NO_MODULE : INITRAMFS_NO_MODULE_OLD, NULL,
		       "kernel", b->release, NEXT, next_words(b),
		       "place", b->next == NEXT_NO ? "does not boot next" : "is older than others",
		       "why", why, BUILD, remedy, NULL);
		return false;
	}
	if (lack && b->counts && !running) {
		report(d, INITRAMFS_NEEDS, NULL, "kernel", b->release, NEXT, next_words(b), "name", lack, NULL);
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

/* Checks whether the kernel would take the module's signature; true: no finding. */
static bool check_key(struct doctor *d, const struct boot *b)
{
	g_auto(GStrv) words = g_strsplit(b->module ?: "", " ", -1);
	const char *serial = g_strv_length(words) >= 3 ? words[2] : "-", *by, *next;
	g_autofree char *own = field_value(d->module, "sig_key"), *same = plain_number(own), *signature = NULL;
	g_autofree char *key = NULL;
	bool known, unsigned_one = !strcmp(serial, "unsigned");
	enum finding_case which;

	by = enforced_by(d, &known);
	next = !by && b->next == NEXT_YES ? enforced_next(d) : NULL;
	if (!d->binds || !b->counts || (!by && !next) || !strcmp(serial, "-") || module_owner(b->module) == OWNER_KERNEL ||
	    /* The finding module-signature is about these. */
	    (by && (!strcmp(serial, same) || !g_strcmp0(b->release, d->release))))
		return true;
	by = by ?: next;
	which = unsigned_one ? MODULE_SIGNATURE_NONE : signature_case(d, module_owner(b->module), NULL, serial);
	if (which == MODULE_SIGNATURE_GOOD)
		return true;
	key = module_owner(b->module) == OWNER_PACKAGES ? NULL : dkms_certificate(d->h);
	signature = unsigned_one ? g_strdup("is not signed") :
		    g_strdup_printf("is signed by the certificate %s, which is not trusted", serial);
	report(d, meanings[which].verdict == BAD ? INITRAMFS_REJECTED : INITRAMFS_KEY_UNKNOWN, NULL,
	       "kernel", b->release, NEXT, next_words(b), "place", words[0],
	       "is signed by a key that is not trusted", signature, "number", serial, "by", by, "key", key ?: "CERTIFICATE", NULL);
	return false;
}

/* Whether the image has the installed module, unless that is the kernel's own. */
static bool has_module(const struct boot *b)
{
	g_autofree char *place = g_strdup_printf("lib/modules/%s/%.*s", b->release,
						 (int)strcspn(b->module ?: "", " "), b->module ?: "");
	enum owner owner = module_owner(b->module);
	size_t i;

	for (i = 0; b->files[i]; i++)
		if (strstr(b->files[i], place))
			return true;
	return owner == OWNER_NONE || owner == OWNER_KERNEL;
}

/* Checks one kernel's image, which wants the files or not; true: no finding. */
static bool check_image(struct doctor *d, const struct boot *b, bool wants)
{
	const char *next = next_words(b), *fault;
	struct image_owner owner;

	if (!b->image) {
		if (wants)
			report(d, INITRAMFS_NONE, NULL, "kernel", b->release, NEXT, next, NULL);
		return !wants;
	}
	if (b->error) {
		report(d, INITRAMFS_UNKNOWN, NULL, "kernel", b->release, NEXT, next, "image", b->image, "error", b->error, NULL);
		return false;
	}
	fault = wants || !d->binds ? image_fault(d->h, b->files, wants) : NULL;
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

/* Checks the boot loader's entry for the next boot, whatever its kernel; true: no finding. */
static bool check_entry(struct doctor *d)
{
	g_autofree char *rescue = line_is_elsewhere(d->boots.line), *name = blacklisted(d, d->boots.line);
	g_autofree char *what = rescue ? g_strdup_printf("boots %s", rescue) :
				name ? g_strdup_printf("has module_blacklist= with %s", name) : NULL;

	if (d->binds && what)
		report(d, INITRAMFS_LINE, NULL, "boots a rescue system", what, NULL);
	if (d->binds && d->boots.unread)
		report(d, INITRAMFS_LINE_UNKNOWN, NULL, "image", d->boots.unread, NULL);
	if (d->binds && d->boots.foreign)
		report(d, INITRAMFS_FOREIGN, NULL, "entry", d->boots.foreign, NULL);
	return !d->binds || (!what && !d->boots.foreign);
}

void check_boots(struct doctor *d)
{
	bool hooked = initramfs_command(d->h), good = check_entry(d);
	g_autofree char *text = NULL;
	size_t kernels = 0, i;

	for (i = 0; i < d->boots.count; i++) {
		const struct boot *b = &d->boots.boot[i];

		if (!check_module_of(d, b) || !check_key(d, b)) {
			good = false;
			continue;
		}
		/* Where no tool puts the files into images, their absence is right. */
		if (!b->read || (!hooked && !*b->files))
			continue;
		kernels++;
		good &= check_image(d, b, d->binds && hooked) && (!d->binds || b->module_known);
	}
	text = g_strdup_printf("%zu kernel%s", kernels, kernels == 1 ? "" : "s");
	if (kernels && good)
		report(d, INITRAMFS_GOOD, NULL, "kernels", text, "what",
		       d->binds ? "each has the module, and its initramfs the files that are installed, by names and sizes" :
				  "no initramfs binds a GPU", NULL);
}
