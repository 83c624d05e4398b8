// SPDX-License-Identifier: GPL-2.0-only
/*
 * Whether this is a guest that has GPUs: the checks of a host don't apply.
 */
#include <glib.h>
#include <string.h>

#include "doctor/checks.h"
#include "system/output.h"

/* Smaller than any GPU's memory. A host's BAR4 has 32 MiB. */
#define MEMORY_MIN (128ULL << 20)

static uint64_t bar4_of(const struct doctor *d, const struct gpu *gpu)
{
	return d->facts.place[gpu - d->gpus.gpu].bars[4];
}

/*
 * A guest's GPU has its memory in BAR4. On a host, only this driver shows it there,
 * and sysfs does not.
 */
static bool is_guests(const struct doctor *d, const struct gpu *gpu)
{
	return gpu->mode != GPU_MODE_CARVE_OUT && gpu->mode != GPU_MODE_NO_CARVE_OUT &&
	       bar4_of(d, gpu) >= MEMORY_MIN;
}

/*
 * Whether this is a virtual machine in which ACPI does not say where GPU memory is:
 * none that has GPUs as a host has them. VMMs without SMBIOS have their mark in the
 * tables that they make, or in the device tree.
 */
static bool is_virtual(struct doctor *d)
{
	static const char *const vendors[] = {
		"QEMU", "KubeVirt", "OpenStack Foundation", "Red Hat", "Cloud Hypervisor",
	};
	/* Of QEMU, cloud-hypervisor, Firecracker, OpenVMM and Hyper-V. */
	static const char *const makers[] = { "BOCHS", "CLOUDH", "FIRECK", "HVLITE", "VRTUAL" };
	g_autofree char *vendor = host_line(d->h, "/sys/class/dmi/id/sys_vendor");
	g_autofree char *tree = host_read(d->h, NULL, "/proc/device-tree/compatible");
	const char *tables = answer(d->answers, "acpi-tables");
	g_autofree char *maker = field_value(tables, "oem");
	bool found = tree && strstr(tree, "dummy-virt");
	size_t i;

	if (tables && (g_str_has_prefix(tables, "denied") || strstr(tables, "nvidia,gpu-mem-")))
		return false;
	for (i = 0; vendor && i < G_N_ELEMENTS(vendors); i++)
		found |= !strcmp(vendor, vendors[i]);
	for (i = 0; maker && i < G_N_ELEMENTS(makers); i++)
		found |= !strcmp(maker, makers[i]);
	return found;
}

bool check_guest(struct doctor *d)
{
	g_autofree char *count = NULL;
	char size[SIZE_MAX_TEXT];
	size_t gpus = 0, i;

	for (i = 0; i < d->gpus.count; i++)
		gpus += is_guests(d, &d->gpus.gpu[i]);
	if (!gpus && !(d->gpus.count && is_virtual(d)))
		return false;
	for (i = 0; i < d->gpus.count; i++)
		if (!is_guests(d, &d->gpus.gpu[i]))
			report(d, GUEST_NO_MEMORY, d->gpus.gpu[i].address, "size",
			       size_text(bar4_of(d, &d->gpus.gpu[i]), size), NULL);
	count = g_strdup_printf("%zu GPU%s", gpus, gpus == 1 ? "" : "s");
	if (gpus)
		report(d, GUEST_GOOD, NULL, "count", count, NULL);
	return true;
}
