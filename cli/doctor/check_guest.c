// SPDX-License-Identifier: GPL-2.0-only
/*
 * In a guest that has GPUs: what NVIDIA's driver needs there. The checks of a host
 * don't apply.
 */
#include <glib.h>
#include <string.h>

#include "doctor/checks.h"
#include "system/output.h"

#define NODES "/sys/devices/system/node"

/* Smaller than any GPU's memory. A host's BAR4 has 32 MiB. */
#define MEMORY_MIN (128ULL << 20)

static const struct place *place_of(const struct doctor *d, const struct gpu *gpu)
{
	return &d->facts.place[gpu - d->gpus.gpu];
}

/*
 * A guest's GPU has its memory in BAR4. On a host, only this driver shows it there,
 * and sysfs does not.
 */
static bool is_guests(const struct doctor *d, const struct gpu *gpu)
{
	return gpu->mode != GPU_MODE_CARVE_OUT && gpu->mode != GPU_MODE_NO_CARVE_OUT &&
	       place_of(d, gpu)->bars[4] >= MEMORY_MIN;
}

/*
 * Whether this is a virtual machine in which ACPI does not say where GPU memory is:
 * none that has GPUs as a host has them.
 */
static bool is_virtual(struct doctor *d)
{
	static const char *const vendors[] = { "QEMU", "KubeVirt", "OpenStack Foundation", "Red Hat" };
	g_autofree char *vendor = host_line(d->h, "/sys/class/dmi/id/sys_vendor");
	const char *tables = answer(d->answers, "acpi-tables");
	size_t i;

	if (!vendor || !tables || g_str_has_prefix(tables, "denied") ||
	    strstr(tables, "nvidia,gpu-mem-"))
		return false;
	for (i = 0; i < G_N_ELEMENTS(vendors); i++)
		if (!strcmp(vendor, vendors[i]))
			return true;
	return false;
}

static void count_number(unsigned long number, void *data)
{
	(*(unsigned int *)data)++;
}

/* How many numbers a list such as "0-1,4" has; 0 if there is no such file. */
static unsigned int count_listed(struct doctor *d, const char *name)
{
	g_autofree char *text = host_line(d->h, NODES "/%s", name);
	unsigned int count = 0;

	each_number(text, count_number, &count);
	return count;
}

static void check_guest_kernel(struct doctor *d, bool smmu)
{
	/* By NVIDIA's list for Grace; the last ones for shared virtual addresses. */
	static const char *const options[] = {
		"MEMORY_HOTPLUG", "ARM_SMMU_V3_SVA", "DEVICE_PRIVATE", "DEVICE_MIGRATION"
	};
	g_autofree char *missing = missing_options(d, options, smmu ? G_N_ELEMENTS(options) : 1);
	struct finding *f;

	if (!d->config) {
		f = finding(d, GUEST_KERNEL_UNKNOWN, NULL, "not known whether the guest's kernel has what CUDA needs");
		no_config(d, f);
		return;
	}
	if (!*missing) {
		finding(d, GUEST_KERNEL_GOOD, NULL, "the guest's kernel has what CUDA needs");
		return;
	}
	f = finding(d, GUEST_KERNEL_LACKS, NULL, "the guest's kernel lacks what CUDA needs");
	because(f, "without %s, %s", missing,
		smmu ? "NVIDIA's driver can't share addresses through this guest's SMMU, and CUDA may not start" :
		       "the driver can't add GPU memory to that of the guest");
}

static void check_guest_nodes(struct doctor *d, size_t gpus)
{
	unsigned int possible = count_listed(d, "possible"), cpus = count_listed(d, "has_cpu");
	unsigned int free_nodes = possible > cpus ? possible - cpus : 0;
	struct finding *f;

	if (!possible || free_nodes >= NODES_OF_GPU * gpus) {
		if (possible)
			finding(d, GUEST_NODES_GOOD, NULL, "%u NUMA nodes for GPU memory", free_nodes);
		return;
	}
	f = finding(d, GUEST_NODES_FEW, NULL, "%u NUMA node%s for the memory of %zu GPU%s",
		    free_nodes, free_nodes == 1 ? "" : "s", gpus, gpus == 1 ? "" : "s");
	because(f,
		"each GPU needs a node for its memory, and %d for MIG; without any, only a driver that manages the memory itself works",
		NODES_OF_GPU);
}

static void check_guest_memory(struct doctor *d)
{
	g_autofree char *policy = host_line(d->h, "/sys/devices/system/memory/auto_online_blocks");
	unsigned int memory = count_listed(d, "has_memory"), cpus = count_listed(d, "has_cpu");
	struct finding *f;

	if (policy && (!strcmp(policy, "online") || !strcmp(policy, "online_kernel"))) {
		f = finding(d, GUEST_ONLINING_WRONG, NULL, "the guest's kernel onlines GPU memory as its own");
		because(f,
			"/sys/devices/system/memory/auto_online_blocks is \"%s\": the kernel may use GPU memory for itself, and then can't take it offline",
			policy);
	} else if (policy) {
		finding(d, GUEST_ONLINING_GOOD, NULL, "new memory is onlined as \"%s\"", policy);
	}
	if (memory > cpus) {
		finding(d, GUEST_MEMORY_GOOD, NULL, "memory of %u GPU node%s is online",
			memory - cpus, memory - cpus == 1 ? "" : "s");
		return;
	}
	f = finding(d, GUEST_MEMORY_NONE, NULL, "no GPU memory is online");
	because(f, "no NUMA node without processors has memory");
}

static void check_guest_driver(struct doctor *d, const struct gpu *gpu)
{
	g_autofree char *version = NULL;
	struct finding *f;

	if (gpu->driver && !strcmp(gpu->driver, "nvidia")) {
		version = host_line(d->h, "/proc/driver/nvidia/version");
		if (version && !strstr(version, "Open Kernel Module")) {
			f = finding(d, GUEST_DRIVER_CLOSED, gpu->address, "bound to nvidia, of the closed kernel modules");
			because(f, "/proc/driver/nvidia/version has no \"Open Kernel Module\"");
			return;
		}
		finding(d, GUEST_DRIVER_GOOD, gpu->address, "bound to nvidia");
		return;
	}
	f = finding(d, GUEST_DRIVER_OTHER, gpu->address, "%s%s", gpu->driver ? "bound to " : "no driver",
		    gpu->driver ? gpu->driver : "");
	because(f, "CUDA needs NVIDIA's driver, with its open kernel modules");
}

static void check_without_memory(struct doctor *d, const struct gpu *gpu)
{
	char size[SIZE_MAX_TEXT];
	struct finding *f;

	f = finding(d, GUEST_NO_MEMORY, gpu->address, "this guest has the GPU without its memory");
	because(f,
		"BAR4 has %s: the host has assigned the GPU by vfio-pci, or the guest's window for 64-bit BARs is too small",
		size_text(place_of(d, gpu)->bars[4], size));
}

bool check_guest(struct doctor *d)
{
	size_t gpus = 0, i;
	const char *iommu;
	bool smmu = false;

	for (i = 0; i < d->gpus.count; i++) {
		if (!is_guests(d, &d->gpus.gpu[i]))
			continue;
		gpus++;
		iommu = place_of(d, &d->gpus.gpu[i])->iommu;
		smmu |= iommu && g_str_has_prefix(iommu, "smmu3.");
	}
	if (!gpus && !(d->gpus.count && is_virtual(d)))
		return false;
	for (i = 0; i < d->gpus.count; i++)
		if (!is_guests(d, &d->gpus.gpu[i]))
			check_without_memory(d, &d->gpus.gpu[i]);
	if (!gpus)
		return true;
	finding(d, GUEST_GOOD, NULL, "this is a guest with %zu GPU%s%s", gpus, gpus == 1 ? "" : "s",
		smmu ? ", behind an SMMU" : "");
	check_guest_kernel(d, smmu);
	check_guest_nodes(d, gpus);
	check_guest_memory(d);
	for (i = 0; i < d->gpus.count; i++)
		if (is_guests(d, &d->gpus.gpu[i]))
			check_guest_driver(d, &d->gpus.gpu[i]);
	return true;
}
