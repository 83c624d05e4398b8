// SPDX-License-Identifier: GPL-2.0-only
/*
 * The processors and the memory of the guest, and where in the host they are.
 */
#include <glib.h>
#include <stdlib.h>

#include "plan/steps.h"
#include "system/output.h"

/* QEMU aligns a guest's memory to this on Arm, whatever the host's pages are. */
#define QEMU_ALIGNMENT (2ULL << 20)

/* KVM's limit for GICv3. */
enum { CPUS_MAX = 512 };

enum { QEMU_NODES_MAX = 128 };

/* For each GPU, unless the command line says another number. */
#define MEMORY_OF_GPU (64 * GiB)
enum { CPUS_OF_GPU = 16 };

static void add_node(struct guest_plan *plan, int host)
{
	size_t i, at;

	for (i = 0; i < plan->nodes; i++)
		if (plan->node[i].host == host)
			return;
	for (at = plan->nodes; at && plan->node[at - 1].host > host; at--)
		plan->node[at] = plan->node[at - 1];
	plan->node[at] = (struct guest_node){ .host = host };
	plan->nodes++;
}

enum exit_status plan_cpu_nodes(const struct guest_facts *facts, struct guest_plan *plan)
{
	const struct gpu *gpu;
	size_t i;

	if (!facts->numa.count)
		return plan_refuse(plan, EXIT_REFUSED, NULL,
				   "no NUMA node in /sys/devices/system/node: the kernel lacks CONFIG_NUMA, or the record is not complete");
	for (i = 0; i < plan->gpus; i++) {
		gpu = plan->device[i].pci;
		if (plan->device[i].place->node < 0)
			return plan_refuse(plan, EXIT_REFUSED, gpu,
					   "not known which processors are near it: its numa_node is %d, and no or several NUMA nodes have processors; update the system firmware",
					   gpu->numa_node);
		add_node(plan, plan->device[i].place->node);
	}
	plan->cpu_nodes = plan->nodes;
	if (plan->cpu_nodes + NODES_OF_GPU * plan->gpus > QEMU_NODES_MAX)
		return plan_refuse(plan, EXIT_REFUSED, NULL,
				   "%zu GPUs and the processors near them need %zu NUMA nodes, and QEMU has %d; name fewer GPUs",
				   plan->gpus, plan->cpu_nodes + NODES_OF_GPU * plan->gpus,
				   QEMU_NODES_MAX);
	return EXIT_OK;
}

/* The size to which a block of the guest's memory is aligned. */
static uint64_t memory_unit(const struct guest_facts *facts, const struct guest_plan *plan)
{
	/* A whole table of entries of 8 bytes maps what one entry above it maps. */
	return plan->hugepages ? plan->hugepages : facts->page_size * (facts->page_size / 8);
}

enum exit_status plan_memory(const struct guest_facts *facts,
			     const struct guest_wish *wish, struct guest_plan *plan)
{
	char size[SIZE_MAX_TEXT], unit_text[SIZE_MAX_TEXT];
	unsigned int cpus = 0, left, first = 0;
	const struct numa_node *near;
	uint64_t bytes = 0, unit, blocks;
	size_t i, n = plan->cpu_nodes;

	for (i = 0; i < n; i++) {
		near = plan_host_node(facts, plan->node[i].host);
		cpus += near ? near->cpus : 0;
		bytes += near ? near->bytes : 0;
	}
	plan->hugepages = wish->hugepages;
	unit = memory_unit(facts, plan);
	/* Its guestMappingPassthrough needs huge pages. */
	if (plan->format == FORMAT_KUBEVIRT)
		plan->hugepages = unit;
	size_text(unit, unit_text);

	plan->cpus = wish->cpus ? wish->cpus : CPUS_OF_GPU * plan->gpus;
	if (!wish->cpus && cpus < plan->cpus)
		plan->cpus = cpus;
	if (plan->cpus < n || plan->cpus > CPUS_MAX)
		return plan_refuse(plan, EXIT_USAGE_ERROR, NULL,
				   "%u processors for %zu NUMA nodes; set --cpus to a number from %zu to %d",
				   plan->cpus, n, n, CPUS_MAX);
	/* Nodes may differ by one processor, which has no other divisor. */
	plan->sockets = n && !(plan->cpus % n) ? n : plan->cpus;
	if (plan->cpus > cpus)
		plan_note(plan, "the guest has %u processors, and the host has %u near these GPUs: they share them",
			  plan->cpus, cpus);

	plan->memory = wish->memory ? wish->memory : MEMORY_OF_GPU * plan->gpus;
	if (!wish->memory && bytes && bytes / 2 < plan->memory)
		plan->memory = bytes / 2 / unit * unit;
	if (bytes && plan->memory > bytes)
		return plan_refuse(plan, EXIT_REFUSED, NULL,
				   "--memory: the NUMA nodes near these GPUs have only %s, and vfio locks all of a guest's memory",
				   size_text(bytes, size));
	if (bytes && plan->memory > bytes - bytes / 16)
		plan_note(plan, "the guest gets nearly all memory of the NUMA nodes near these GPUs: the host has other processes and page tables to keep there");
	blocks = plan->memory / unit;
	if (plan->memory % unit || blocks < n || plan->memory > SIZE_LIMIT)
		return plan_refuse(plan, EXIT_USAGE_ERROR, NULL,
				   "%s of memory for %zu NUMA node%s; set --memory to a suitable multiple of %s",
				   size_text(plan->memory, size), n, n > 1 ? "s" : "", unit_text);

	for (i = 0; i < n; i++) {
		left = n - i;
		plan->node[i].first_cpu = first;
		plan->node[i].cpus = (plan->cpus - first + left - 1) / left;
		first += plan->node[i].cpus;
		plan->node[i].memory = (blocks + left - 1) / left * unit;
		blocks -= (blocks + left - 1) / left;
	}
	plan_because(plan, WHY_CPU,
		     "KVM has no other on Arm: the guest sees the host's processor, with FEAT_S2FWB and CACHE_DIC, which make usemem cacheable");
	plan_because(plan, WHY_CPUS, "%s%s",
		     wish->cpus ? "as --cpus says" :
		     "16 for each GPU, or all processors of the NUMA nodes near these GPUs; --cpus changes it",
		     n > 1 ? "; each socket is in one NUMA node, as Linux expects" : "");
	plan_because(plan, WHY_MEMORY,
		     "%s; a multiple of %s, %s; vfio locks all of it",
		     wish->memory ? "as --memory says" :
		     "64 GiB for each GPU, or half of the host's near these GPUs; --memory changes it",
		     unit_text, plan->hugepages ? "a huge page" : "which one page-table entry of the host maps");
	return EXIT_OK;
}

/* "0-71,144"; to be freed. */
static char *cpu_list(const struct numa_node *node)
{
	GString *text = g_string_new(NULL);
	unsigned int i, first;

	for (i = 0; i < node->cpus; i++) {
		first = node->cpu[i];
		g_string_append_printf(text, "%s%u", text->len ? "," : "", first);
		while (i + 1 < node->cpus && node->cpu[i + 1] == node->cpu[i] + 1)
			i++;
		if (node->cpu[i] != first)
			g_string_append_printf(text, "-%u", node->cpu[i]);
	}
	return g_string_free(text, FALSE);
}

enum exit_status plan_pinning(const struct guest_facts *facts,
			      const struct guest_wish *wish, struct guest_plan *plan)
{
	g_autoptr(GString) all = g_string_new(NULL);
	char needed[SIZE_MAX_TEXT], there[SIZE_MAX_TEXT];
	const struct numa_node *near;
	struct guest_node *n;

	/* KubeVirt pins its guests, by dedicatedCpuPlacement. */
	plan->pin = wish->pin && plan->format != FORMAT_KUBEVIRT;
	for (n = plan->node; plan->pin && n < plan->node + plan->cpu_nodes; n++) {
		near = plan_host_node(facts, n->host);
		if (!near)
			continue;
		if (near->bytes && n->memory > near->bytes)
			return plan_refuse(plan, EXIT_REFUSED, NULL,
					   "--pin: a node of the guest has %s, and node %d of the host has only %s; give less --memory",
					   size_text(n->memory, needed), near->id,
					   size_text(near->bytes, there));
		if (n->cpus > near->cpus)
			plan_note(plan, "a node of the guest has %u processors, and node %d of the host, which it is pinned to, has %u",
				  n->cpus, near->id, near->cpus);
		n->host_cpus = cpu_list(near);
		g_string_append_printf(all, "%s%s", all->len ? "," : "", n->host_cpus);
	}
	if (!plan->pin)
		return EXIT_OK;
	plan->host_cpus = g_strdup(all->str);
	if (plan->format == FORMAT_QEMU && plan->cpu_nodes > 1)
		plan_note(plan, "each processor of the guest runs on those of all %zu nodes: QEMU has no option to pin one to its own; libvirt does that",
			  plan->cpu_nodes);
	plan_because(plan, WHY_PIN,
		     "as --pin says, the guest runs on the processors of the host's NUMA nodes that its own stand for (cpulist in /sys/devices/system/node/node*), and has memory of no other node; other guests and processes may run there, too");
	return EXIT_OK;
}

enum exit_status plan_backend(const struct guest_facts *facts,
			      const struct guest_wish *wish, struct guest_plan *plan)
{
	size_t i, with_cpus = 0;
	g_autoptr(GString) sizes = g_string_new(NULL);
	g_autofree char *kind = NULL;
	char size[SIZE_MAX_TEXT];
	bool found = false;

	for (i = 0; i < facts->numa.count; i++)
		with_cpus += !!facts->numa.node[i].cpus;
	/* There is nothing to choose on a host with one such node. */
	if (with_cpus == 1 && !plan->pin)
		plan->node[0].host = -1;
	for (i = 0; plan->hugepages && i < facts->hugepage_sizes; i++) {
		g_string_append_printf(sizes, "%s%s", i ? ", " : "",
				       size_text(facts->hugepages[i].size, size));
		if (facts->hugepages[i].size != plan->hugepages)
			continue;
		found = true;
		if (facts->hugepages[i].free < plan->memory / plan->hugepages)
			plan_note(plan, "the host has %llu free huge pages of this size, and the guest needs %llu: write that to nr_hugepages first",
				  (unsigned long long)facts->hugepages[i].free,
				  (unsigned long long)(plan->memory / plan->hugepages));
	}
	/* Of KubeVirt's, only a size that was asked for must be there already. */
	if (plan->hugepages && !found && (wish->hugepages || plan->format != FORMAT_KUBEVIRT))
		return plan_refuse(plan, EXIT_REFUSED, NULL,
				   "--hugepages=%s: the host has no pages of this size, only: %s",
				   size_text(plan->hugepages, size),
				   *sizes->str ? sizes->str : "none");
	if (plan->hugepages)
		kind = g_strdup("huge pages of the kernel, for which no file system needs to be mounted");
	else if (memory_unit(facts, plan) <= QEMU_ALIGNMENT)
		kind = g_strdup("memory of this node; QEMU aligns it to huge pages");
	else
		kind = g_strdup_printf("memory of this node; QEMU aligns it to 2 MiB, so that this host maps it with small pages: --hugepages=%lluM maps it with large ones",
				       (unsigned long long)(memory_unit(facts, plan) >> 20));
	plan_because(plan, WHY_BACKEND, "%s%s", kind,
		     plan->node[0].host < 0 ? "" :
		     plan->pin ? ", only of the host's node near the GPU (numa_node in its sysfs folder)" :
		     ", preferably of the host's node near the GPU (numa_node in its sysfs folder)");
	return EXIT_OK;
}
