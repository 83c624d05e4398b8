// SPDX-License-Identifier: GPL-2.0-only
/* See online.h. */
#include <glib.h>
#include <stdio.h>
#include <string.h>

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

/* Whether NVIDIA's driver reports that it has added this GPU's memory. */
static bool nvidia_says(struct host *h, const char *address)
{
	g_autofree char *text = host_read(h, NULL, "/proc/driver/nvidia/gpus/%s/numa_status", address);
	g_autofree char *status = field_value(text, "Status");

	/* "online" or "online_in_progress". */
	return status && g_str_has_prefix(status, "online");
}

struct online gpu_online(struct host *h, const struct iomem *iomem, const struct gpus *gpus,
			 const struct gpu *gpu)
{
	struct online online = { .online = nvidia_says(h, gpu->address) };
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
	return online;
}
