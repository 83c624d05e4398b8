// SPDX-License-Identifier: GPL-2.0-only
/* See egm.h. */
#include <glib.h>
#include <stdlib.h>
#include <string.h>

#include "facts/egm.h"
#include "system/program.h"

/*
 * Linux numbers the proximity domains of a Grace host's own memory from 0, one for each
 * socket; those that firmware makes for hypervisors follow those of all GPUs.
 */
enum { SOCKETS_MAX = 4, PARTS_MAX = 16 };

/* The numbers of a property in a line of the answer "acpi-tables"; how many. */
static size_t numbers(const char *line, const char *property, uint64_t found[PARTS_MAX])
{
	g_autofree char *head = g_strdup_printf(" %s=", property);
	const char *at = line;
	size_t count = 0;

	while (count < PARTS_MAX && (at = strstr(at, head))) {
		at += strlen(head);
		found[count++] = strtoull(at, NULL, 10);
	}
	return count;
}

static bool is_ram(const struct iomem *iomem, uint64_t base, uint64_t size)
{
	size_t i;

	for (i = 0; i < iomem->count; i++)
		/* "System RAM (kmem)", too, which the host has added later. */
		if (iomem->range[i].end && g_str_has_prefix(iomem->range[i].name, "System RAM") &&
		    iomem->range[i].start <= base + (size - 1) && iomem->range[i].end >= base)
			return true;
	return false;
}

/* Whether a user sees where RAM is: others than root see zeros. */
static bool shows_ram(const struct iomem *iomem)
{
	size_t i;

	for (i = 0; iomem && i < iomem->count; i++)
		if (iomem->range[i].end)
			return true;
	return false;
}

struct egm egm_read(struct answers *a, const struct iomem *iomem)
{
	g_auto(GStrv) lines = text_lines(answer(a, "acpi-tables"));
	struct egm egm = { };
	size_t i, k;

	for (i = 0; lines[i]; i++) {
		uint64_t size[PARTS_MAX], base[PARTS_MAX], pxm[PARTS_MAX];
		size_t sizes = numbers(lines[i], EGM_SIZE, size);
		bool placed = numbers(lines[i], EGM_BASE, base) == sizes && shows_ram(iomem);
		bool numbered = numbers(lines[i], EGM_PXM, pxm) == sizes;

		for (k = 0; k < sizes; k++) {
			enum egm_kind kind = !size[k] ? EGM_OFF :
				(placed && is_ram(iomem, base[k], size[k])) ||
				(numbered && pxm[k] < SOCKETS_MAX) ? EGM_HOST :
				placed || numbered ? EGM_GUESTS : EGM_UNKNOWN;

			egm.size += size[k];
			egm.largest = MAX(egm.largest, size[k]);
			egm.kind = MAX(egm.kind, kind);
		}
	}
	return egm;
}

const char *egm_meaning(enum egm_kind kind, bool given)
{
	switch (kind) {
	case EGM_HOST:
		return "of this host's own RAM, which GPUs can reach";
	case EGM_GUESTS:
		return given ? "set aside by firmware, which NVIDIA's driver gives to guests" :
			       "set aside by firmware, which this driver gives to no guest";
	case EGM_UNKNOWN:
		return "by firmware, and it is not known whether that is RAM of this host";
	default:
		return "none";
	}
}

bool egm_driver_loaded(struct host *h, struct answers *a)
{
	return host_exists(h, "/sys/module/" DRIVER_NAME) &&
	       !host_exists(h, "/sys/bus/pci/drivers/" DRIVER_NAME "/features") &&
	       config_option(answer(a, "kernel-config"), "NVGRACE_EGM") != 'n';
}
