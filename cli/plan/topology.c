// SPDX-License-Identifier: GPL-2.0-only
/*
 * The nodes of the GPUs, the distances between nodes, and the PCIe buses.
 */
#include <glib.h>
#include <stdlib.h>

#include "plan/steps.h"

/* The host's distance between two of its nodes; 0: not known. */
static uint64_t host_distance(const struct guest_facts *facts, int a, int b)
{
	const struct numa_node *from = plan_host_node(facts, a), *to = plan_host_node(facts, b);

	return from && to && from->distance ? from->distance[to - facts->numa.node] : 0;
}

/*
 * The guest's node of processors that is nearest to a device. A GPU has its own,
 * and another device may be near a socket that the guest has nothing of.
 */
static size_t cpu_node_of(const struct guest_facts *facts, const struct guest_plan *plan,
			  const struct guest_device *g)
{
	uint64_t least = UINT64_MAX, d;
	size_t i, best = 0;

	for (i = 0; i < plan->cpu_nodes; i++) {
		/* The host's only node. */
		if (plan->node[i].host < 0 || plan->node[i].host == g->place->node)
			return i;
		d = host_distance(facts, g->place->node, plan->node[i].host);
		if (d && d < least) {
			least = d;
			best = i;
		}
	}
	return best;
}

/*
 * The next of the host's nodes that firmware made for this GPU: of those not
 * taken, the nearest to its processors. -1: there is none, or no distance.
 */
static int take_initiator(const struct guest_facts *facts, const struct gpu *gpu, bool *taken)
{
	const struct numa_node *near = plan_host_node(facts, plan_place(facts, gpu)->node);
	const struct numa *numa = &facts->numa;
	size_t i, best = numa->count;

	for (i = 0; near && near->distance && i < numa->count; i++)
		if (numa->node[i].initiator && !numa->node[i].cpus && !taken[i] &&
		    (best == numa->count || near->distance[i] < near->distance[best]))
			best = i;
	if (best == numa->count)
		return -1;
	taken[best] = true;
	return numa->node[best].id;
}

void plan_nodes(const struct guest_facts *facts, struct guest_plan *plan)
{
	g_autofree bool *taken = g_new0(bool, facts->numa.count);
	size_t i, k, n;
	int host;

	for (i = 0; i < plan->gpus; i++)
		plan->device[i].first_node = plan->cpu_nodes + i * NODES_OF_GPU;
	plan->nodes = plan->cpu_nodes + plan->gpus * NODES_OF_GPU;
	/* All GPUs of the host, so that each gets its own. */
	for (k = 0; k < facts->gpus->count; k++) {
		for (i = 0; i < plan->gpus && plan->device[i].pci != &facts->gpus->gpu[k]; i++)
			;
		for (n = 0; n < NODES_OF_GPU; n++) {
			host = take_initiator(facts, &facts->gpus->gpu[k], taken);
			if (i < plan->gpus)
				plan->node[plan->device[i].first_node + n] =
					(struct guest_node){ .host = host, .gpu = &plan->device[i] };
		}
	}
}

/* The host's distance between two nodes of the guest; 0: not known. */
static uint64_t distance(const struct guest_facts *facts, const struct guest_plan *plan, size_t a,
			 size_t b)
{
	int from = plan->node[a].host, to = plan->node[b].host;

	/* Of a host with one node of processors, the plan does not have it. */
	if (from < 0 && a < plan->cpu_nodes)
		from = plan->device[0].place->node;
	if (to < 0 && b < plan->cpu_nodes)
		to = plan->device[0].place->node;
	return host_distance(facts, from, to);
}

void plan_distances(const struct guest_facts *facts, struct guest_plan *plan)
{
	g_autofree unsigned char *all = g_malloc0(plan->nodes * plan->nodes);
	size_t a, b;
	uint64_t d;

	for (a = 0; a < plan->nodes; a++) {
		for (b = 0; b < plan->nodes; b++) {
			d = a == b ? 10 : distance(facts, plan, a, b);
			/*
			 * Linux ignores the whole table if two nodes are as near
			 * as one is to itself, which nodes of one GPU can be.
			 */
			if (a != b && d == 10)
				d++;
			/* ACPI: 10 is local, and 255 means out of reach. */
			if (d < 10 || d > 254) {
				plan_note(plan, "no distances between the nodes, so that QEMU makes all of them 20: the host reports none for %d nodes of each GPU (/sys/devices/system/node/has_generic_initiator)",
					  NODES_OF_GPU);
				return;
			}
			all[a * plan->nodes + b] = d;
		}
	}
	plan->distance = g_steal_pointer(&all);
}

const char *plan_smmu(const struct place *place)
{
	return place->iommu && g_str_has_prefix(place->iommu, "smmu3.") && !place->group[0] ?
	       place->iommu : NULL;
}

void plan_buses(const struct guest_facts *facts, const struct guest_wish *wish,
		struct guest_plan *plan)
{
	unsigned int next = wish->domain ? BUS_OF_DOMAIN : BUS_OF_QEMU;
	struct guest_device *g;
	const char *smmu;
	size_t i, b, node;

	/* pcie.0 is enough if there is nothing to tell apart. */
	for (i = 0; plan_has_expanders(plan) && i < plan->devices; i++) {
		g = &plan->device[i];
		node = cpu_node_of(facts, plan, g);
		smmu = plan->accel ? plan_smmu(g->place) : NULL;
		if (plan->accel && !smmu)
			plan_note(plan, "%s has no SMMU in the guest, because the host has none for it alone: it reaches all of the guest's memory",
				  g->pci->address);
		for (b = i < plan->gpus ? 0 : plan->buses; b < plan->buses; b++)
			if (plan->bus[b].node == node &&
			    !g_strcmp0(plan->bus[b].smmu, smmu))
				break;
		g->bus = b;
		if (b < plan->buses)
			continue;
		plan->bus[b] = (struct guest_bus){ .node = node, .smmu = smmu };
		plan->buses++;
	}
	/* Each has its own number and one for each of its ports. */
	for (b = 0; b < plan->buses; b++) {
		plan->bus[b].number = next++;
		for (i = 0; i < plan->devices; i++)
			next += plan->device[i].bus == b;
	}
}
