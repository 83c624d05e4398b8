// SPDX-License-Identifier: GPL-2.0-only
/*
 * What libvirt says of itself: see libvirt.h.
 */
#include <glib.h>
#include <stdio.h>
#include <string.h>

#include "facts/libvirt.h"
#include "facts/vmm.h"
#include "system/util.h"
#include "system/xml.h"

/* Whether a libvirt that lists it has "yes" for iommufd. One before 12.1 lists none. */
static bool has_iommufd(const struct element *domain)
{
	const struct element *list = xml_find(domain, "devices/hostdev/enum"), *value;

	while (list && !xml_is(list, "name", "iommufd"))
		list = xml_next(list);
	for (value = xml_find(list, "value"); value; value = xml_next(value))
		if (!strcmp(value->text->str, "yes"))
			return true;
	return !list;
}

void libvirt_ask(const char *version, const char *capabilities, struct vmms *libvirts,
		 bool *iommufd)
{
	g_autofree char *daemon = field_value(version, "Running against daemon"), *error = NULL;
	struct element *root = capabilities ? xml_read(capabilities, &error) : NULL;
	int major, minor;
	size_t i;

	/* virsh knows one daemon. A program may be newer, until the daemon starts again. */
	for (i = 0; daemon && i < libvirts->count; i++)
		if (sscanf(daemon, "%d.%d", &major, &minor) == 2) {
			libvirts->vmm[i].known = true;
			libvirts->vmm[i].major = major;
			libvirts->vmm[i].minor = minor;
		}
	*iommufd = !root || has_iommufd(root);
	xml_free(root);
}
