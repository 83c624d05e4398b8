// SPDX-License-Identifier: GPL-2.0-only
/*
 * In a guest that has GPUs: what NVIDIA's driver needs there. The checks of a host
 * don't apply.
 */
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "doctor/checks.h"

#define NODES "/sys/devices/system/node"
#define NODES_OF_GPU 8		/* one for each instance of MIG, and one for the memory without */

/* Smaller than any GPU's memory. A host's BAR4 has 32 MiB. */
#define MEMORY_MIN (128ULL << 20)

/* A guest's GPU has its memory in BAR4, line 5 of the PCI device's file "resource". */
static bool is_guests(struct doctor *d, const struct gpu *gpu)
{
	g_autofree char *text = host_read(d->h, NULL, PCI_DEVICES "/%s/resource", gpu->address);
	g_auto(GStrv) lines = g_strsplit(text ? text : "", "\n", -1);
	unsigned long long start, end;

	return g_strv_length(lines) > 4 && sscanf(lines[4], "%llx %llx", &start, &end) == 2 &&
	       end > start && end - start >= MEMORY_MIN;
}

/* How many numbers a list such as "0-1,4" has; 0 if there is no such file. */
static unsigned int count_listed(struct doctor *d, const char *name)
{
	g_autofree char *text = host_line(d->h, NODES "/%s", name);
	g_auto(GStrv) parts = g_strsplit(text ? text : "", ",", -1);
	unsigned int first, last, count = 0;
	size_t i;
	int n;

	for (i = 0; parts[i]; i++) {
		n = sscanf(parts[i], "%u-%u", &first, &last);
		if (n == 2 && last >= first && last - first < 4096)
			count += last - first + 1;
		else if (n == 1)
			count++;
	}
	return count;
}

static void check_guest_kernel(struct doctor *d, bool smmu)
{
	/* By NVIDIA's list for Grace; the last ones for shared virtual addresses. */
	static const char *const options[] = {
		"MEMORY_HOTPLUG", "ARM_SMMU_V3_SVA", "DEVICE_PRIVATE", "DEVICE_MIGRATION"
	};
	g_autoptr(GString) missing = g_string_new(NULL);
	struct finding *f;
	size_t i;

	if (!d->config) {
		f = finding(d, GUEST_KERNEL_UNKNOWN, NULL, "not known whether the guest's kernel has what CUDA needs");
		because(f, "there is no configuration of this kernel in /boot or /lib/modules");
		fill(f, "RELEASE", d->release);
		return;
	}
	for (i = 0; i < (smmu ? ARRAY_SIZE(options) : 1); i++)
		if (kernel_option(d, options[i]) == 'n')
			g_string_append_printf(missing, " CONFIG_%s", options[i]);
	if (!missing->len) {
		finding(d, GUEST_KERNEL_GOOD, NULL, "the guest's kernel has what CUDA needs");
		return;
	}
	f = finding(d, GUEST_KERNEL_LACKS, NULL, "the guest's kernel lacks what CUDA needs");
	because(f, "without%s, %s", missing->str,
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
	struct finding *f;

	if (gpu->driver && !strcmp(gpu->driver, "nvidia")) {
		finding(d, GUEST_DRIVER_GOOD, gpu->address, "bound to nvidia");
		return;
	}
	f = finding(d, GUEST_DRIVER_OTHER, gpu->address, "%s%s", gpu->driver ? "bound to " : "no driver",
		    gpu->driver ? gpu->driver : "");
	because(f, "CUDA needs NVIDIA's driver, with its open kernel modules");
}

bool check_guest(struct doctor *d)
{
	bool smmu = false;
	size_t gpus = 0, i;

	for (i = 0; i < d->gpus.count; i++) {
		if (!is_guests(d, &d->gpus.gpu[i]))
			continue;
		gpus++;
		smmu |= d->gpus.gpu[i].iommu_group >= 0;
	}
	if (!gpus)
		return false;
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
