// SPDX-License-Identifier: GPL-2.0-only
/* See online.h. */
#include <glib.h>
#include <stdio.h>
#include <string.h>

#include "facts/location.h"
#include "facts/online.h"
#include "system/output.h"

void iomem_read(struct host *h, struct iomem *iomem)
{
	g_autofree char *text = host_read(h, NULL, "/proc/iomem");
	char *line, *save;

	memset(iomem, 0, sizeof(*iomem));
	if (!text)
		return;
	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		size_t indent = strspn(line, " ");
		struct iomem_range range = { .depth = indent / 2 };
		unsigned long long start, end;
		int name = 0;

		if (sscanf(line + indent, "%llx-%llx : %n", &start, &end, &name) < 2 || !name ||
		    end < start)
			continue;
		range.start = start;
		range.end = end;
		range.name = g_strdup(line + indent + name);
		make_printable(range.name);
		iomem->range = g_renew(struct iomem_range, iomem->range, iomem->count + 1);
		iomem->range[iomem->count++] = range;
	}
}

void iomem_free(struct iomem *iomem)
{
	size_t i;

	for (i = 0; i < iomem->count; i++)
		g_free(iomem->range[i].name);
	g_free(iomem->range);
	memset(iomem, 0, sizeof(*iomem));
}

/* The name in /proc/iomem of memory that NVIDIA's driver adds. */
#define NVIDIA_RAM "System RAM (NVIDIA)"

/*
 * The node to which NVIDIA's driver reports it has added a GPU's memory; -1:
 * none.
 */
static int nvidia_node(struct host *h, const char *address, bool *online)
{
	g_autofree char *text = host_read(h, NULL, "/proc/driver/nvidia/gpus/%s/numa_status",
					  address);
	g_autofree char *status = text ? field_value(text, "Status") : NULL;
	g_autofree char *number = text ? field_value(text, "Node") : NULL;
	uint64_t id;
	int node = -1;

	/* "online" or "online_in_progress". */
	*online = status && !strncasecmp(status, "online", 6);
	if (*online && number && parse_u64(number, &id) && id <= INT32_MAX)
		node = id;
	return node;
}

enum answer { NO, YES, NOT_KNOWN };

/* Whether NVIDIA's driver added all memory of a node. */
static enum answer all_nvidia(struct host *h, const struct iomem *iomem, int node)
{
	g_autofree char *text = host_line(h, "/sys/devices/system/memory/block_size_bytes");
	g_autofree char *size_text = text ? g_strdup_printf("0x%s", text) : NULL;
	g_auto(GStrv) names = host_list(h, "/sys/devices/system/node/node%d", node);
	enum answer answer = NOT_KNOWN;
	uint64_t size = 0, id;
	size_t i, j;

	if (size_text && !parse_u64(size_text, &size))
		size = 0;
	for (i = 0; size && names && names[i]; i++) {
		if (!g_str_has_prefix(names[i], "memory") || !parse_u64(names[i] + 6, &id) ||
		    id >= UINT64_MAX / size)
			continue;
		for (j = 0; j < iomem->count; j++) {
			const struct iomem_range *range = &iomem->range[j];

			if (g_str_has_prefix(range->name, NVIDIA_RAM) && range->start <= id * size &&
			    range->end >= id * size + size - 1)
				break;
		}
		if (j == iomem->count) {
			answer = NO;
			break;
		}
		answer = YES;
	}
	return answer;
}

/* Whether the node has no CPU: its cpulist exists and is empty. */
static bool is_memory_only(struct host *h, int node)
{
	g_autofree char *cpus = host_line(h, "/sys/devices/system/node/node%d/cpulist", node);

	return cpus && !*cpus;
}

/*
 * Whether this is the only device whose memory NVIDIA's driver can have added.
 */
static bool is_alone(struct host *h, const char *address)
{
	g_auto(GStrv) names = host_list(h, DEVICES);
	bool alone = true;
	uint64_t value;
	size_t i;

	for (i = 0; names && names[i]; i++)
		if (strcmp(names[i], address) &&
		    !host_u64(h, &value, DEVICES "/%s/vendor", names[i]) &&
		    value == 0x10de &&
		    !host_u64(h, &value, DEVICES "/%s/class", names[i]) &&
		    value >> 16 == 3)
			alone = false;
	return alone;
}

/*
 * The node that holds this GPU's memory and nothing else, or -1. The caller
 * prints a command that takes all of it offline, so it must not have memory of
 * the host or of another device.
 */
static int certain_node(struct host *h, const struct iomem *iomem, const struct gpus *gpus,
			const struct gpu *gpu, int told)
{
	int found = -1;
	struct numa numa;
	size_t i;
	bool online;

	if (told >= 0) {
		for (i = 0; i < gpus->count; i++)
			if (strcmp(gpus->gpu[i].address, gpu->address) &&
			    nvidia_node(h, gpus->gpu[i].address, &online) == told)
				return -1;
		return is_memory_only(h, told) && all_nvidia(h, iomem, told) != NO ? told : -1;
	}
	if (!is_alone(h, gpu->address))
		return -1;
	numa_read(h, &numa);
	for (i = 0; i < numa.count; i++) {
		if (numa.node[i].cpus || !is_memory_only(h, numa.node[i].id) ||
		    all_nvidia(h, iomem, numa.node[i].id) != YES)
			continue;
		/* With two such nodes, either may be another device's. */
		found = found == -1 ? numa.node[i].id : -2;
	}
	numa_free(&numa);
	return found < 0 ? -1 : found;
}

struct online gpu_online(struct host *h, const struct iomem *iomem, const struct gpus *gpus,
			 const struct gpu *gpu)
{
	struct online online = { .node = -1 };
	int told = nvidia_node(h, gpu->address, &online.online);
	size_t i;

	for (i = 0; i < iomem->count; i++) {
		const struct iomem_range *range = &iomem->range[i];

		if (!g_str_has_prefix(range->name, "System RAM"))
			continue;
		if (gpu->usemem_base != GPU_UNKNOWN && gpu->usemem_size != GPU_UNKNOWN &&
		    range->end) {
			uint64_t end = gpu->usemem_base + gpu->usemem_size +
				       (gpu->resmem_size == GPU_UNKNOWN ? 0 : gpu->resmem_size);

			if (range->start >= end || range->end < gpu->usemem_base)
				continue;
			online.online = true;
		} else if (!g_str_has_prefix(range->name, NVIDIA_RAM)) {
			continue;
		} else if (!gpu->ours && gpus->count == 1) {
			online.online = true;
		} else if (!online.online || gpus->count > 1) {
			continue;
		}
		online.range = range;
		break;
	}
	if (online.online)
		online.node = certain_node(h, iomem, gpus, gpu, told);
	return online;
}
