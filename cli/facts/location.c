// SPDX-License-Identifier: GPL-2.0-only
/*
 * Where GPUs are in the host: see location.h.
 */
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "facts/location.h"

#define NODES "/sys/devices/system/node"

/* Flags in the kernel's file "resource". */
#define RESOURCE_MEM 0x200
#define RESOURCE_MEM_64 0x100000

enum { NODES_MAX = 1024 };

void gpu_resources(struct host *h, const char *address, struct resource bars[BARS])
{
	g_autofree char *text = host_read(h, NULL, DEVICES "/%s/resource", address);
	g_auto(GStrv) lines = g_strsplit(text ? text : "", "\n", -1);
	unsigned long long first, last, flags;
	size_t i;

	memset(bars, 0, BARS * sizeof(*bars));
	for (i = 0; i < BARS && lines[i]; i++)
		if (sscanf(lines[i], "%llx %llx %llx", &first, &last, &flags) == 3 && last > first)
			bars[i] = (struct resource){ first, last - first + 1, flags & RESOURCE_MEM,
						     flags & RESOURCE_MEM_64 };
}

void gpu_bars(struct host *h, const struct gpu *gpu, uint64_t bars[BARS])
{
	struct resource found[BARS];
	size_t i;

	gpu_resources(h, gpu->address, found);
	for (i = 0; i < BARS; i++)
		bars[i] = found[i].memory && found[i].wide ? found[i].size : 0;
	if (gpu->mode == GPU_MODE_CARVE_OUT)
		bars[2] = gpu->resmem_bar_size;
	if (gpu->mode == GPU_MODE_CARVE_OUT || gpu->mode == GPU_MODE_NO_CARVE_OUT)
		bars[4] = gpu->usemem_bar_size;
}

char *gpu_iommu(struct host *h, const struct gpu *gpu)
{
	return host_link_name(h, DEVICES "/%s/iommu", gpu->address);
}

char **gpu_group(struct host *h, const struct gpu *gpu)
{
	char **devices = host_list(h, "/sys/kernel/iommu_groups/%d/devices", gpu->iommu_group);
	size_t i, n = 0;
	uint64_t class;

	if (!devices)
		return g_new0(char *, 1);
	for (i = 0; devices[i]; i++) {
		if (!strcmp(devices[i], gpu->address) ||
		    host_u64(h, &class, DEVICES "/%s/class", devices[i]) || class >> 8 == 0x0604)
			g_free(devices[i]);
		else
			devices[n++] = devices[i];
	}
	devices[n] = NULL;
	return devices;
}

void each_number(const char *list, void (*use)(unsigned long number, void *data), void *data)
{
	unsigned long first, last;
	char *end;

	for (; list && *list; list = *end == ',' ? end + 1 : "") {
		first = strtoul(list, &end, 10);
		if (end == list)
			return;
		last = first;
		if (*end == '-')
			last = strtoul(end + 1, &end, 10);
		for (; first <= last && last <= UINT16_MAX; first++)
			use(first, data);
	}
}

static void add_cpu(unsigned long number, void *data)
{
	struct numa_node *node = data;

	/* A list that repeats itself is no kernel's. */
	if (node->cpus > UINT16_MAX)
		return;
	node->cpu = g_renew(unsigned short, node->cpu, node->cpus + 1);
	node->cpu[node->cpus++] = number;
}

static void mark_isolated(unsigned long number, void *data)
{
	struct numa *numa = data;
	struct numa_node *node;
	unsigned int i;

	for (node = numa->node; node < numa->node + numa->count; node++)
		for (i = 0; i < node->cpus && node->isolated_cpus < node->cpus; i++) {
			if (node->cpu[i] != number)
				continue;
			node->isolated = g_renew(unsigned short, node->isolated,
						 node->isolated_cpus + 1);
			node->isolated[node->isolated_cpus++] = number;
			break;
		}
}

static void mark_initiator(unsigned long number, void *data)
{
	struct numa *numa = data;
	size_t i;

	for (i = 0; i < numa->count; i++)
		if ((unsigned long)numa->node[i].id == number)
			numa->node[i].initiator = true;
}

static void read_node(struct host *h, struct numa_node *node)
{
	g_autofree char *cpus = host_line(h, NODES "/node%d/cpulist", node->id);
	g_autofree char *text = host_read(h, NULL, NODES "/node%d/meminfo", node->id);
	const char *at;

	each_number(cpus, add_cpu, node);
	at = text ? strstr(text, "MemTotal:") : NULL;
	if (at)
		node->bytes = strtoull(at + strlen("MemTotal:"), NULL, 10) << 10;
	at = text ? strstr(text, "MemFree:") : NULL;
	node->free = at ? strtoull(at + strlen("MemFree:"), NULL, 10) << 10 : node->bytes;
}

/* The kernel prints as many numbers as there are nodes; else none are known. */
static uint64_t *read_distances(struct host *h, const struct numa *numa, int id)
{
	g_autofree char *text = host_line(h, NODES "/node%d/distance", id);
	uint64_t *distance = g_new0(uint64_t, numa->count);
	char *word, *rest = NULL;
	size_t n = 0;

	for (word = text ? strtok_r(text, " ", &rest) : NULL; word; word = strtok_r(NULL, " ", &rest)) {
		if (n == numa->count || !parse_u64(word, &distance[n])) {
			n = 0;
			break;
		}
		n++;
	}
	if (n < numa->count)
		g_clear_pointer(&distance, g_free);
	return distance;
}

void numa_read(struct host *h, struct numa *numa)
{
	g_autofree char *initiators = host_line(h, NODES "/has_generic_initiator");
	g_autofree char *isolated = host_line(h, "/sys/devices/system/cpu/isolated");
	g_auto(GStrv) names = host_list(h, NODES);
	uint64_t id;
	size_t i;

	memset(numa, 0, sizeof(*numa));
	for (i = 0; names && names[i]; i++) {
		if (strncmp(names[i], "node", 4) || !parse_u64(names[i] + 4, &id) || id >= NODES_MAX)
			continue;
		numa->node = g_renew(struct numa_node, numa->node, numa->count + 1);
		numa->node[numa->count] = (struct numa_node){ .id = id };
		read_node(h, &numa->node[numa->count++]);
	}
	for (i = 0; i < numa->count; i++)
		numa->node[i].distance = read_distances(h, numa, numa->node[i].id);
	each_number(initiators, mark_initiator, numa);
	each_number(isolated, mark_isolated, numa);
}

void numa_free(struct numa *numa)
{
	size_t i;

	for (i = 0; i < numa->count; i++) {
		g_free(numa->node[i].distance);
		g_free(numa->node[i].cpu);
		g_free(numa->node[i].isolated);
	}
	g_free(numa->node);
	memset(numa, 0, sizeof(*numa));
}
