// SPDX-License-Identifier: GPL-2.0-only
/* See memory.h. */
#include <glib.h>
#include <stdio.h>
#include <string.h>

#include "status/memory.h"
#include "system/output.h"

/* ---- parts and BARs ----------------------------------------------------- */

static size_t add_part(const struct host *h, struct part *parts, size_t count, struct part part)
{
	uint64_t tail = part.size % h->page_size;

	if (part.size == GPU_UNKNOWN)
		return count;
	part.mappable = true;
	part.size -= tail;
	if (part.size)
		parts[count++] = part;
	/* Less than a page can't be mapped; read and write access it. */
	if (tail) {
		part.mappable = false;
		part.base = part.base == GPU_UNKNOWN ? GPU_UNKNOWN : part.base + part.size;
		part.size = tail;
		parts[count++] = part;
	}
	return count;
}

size_t find_parts(const struct host *h, const struct gpu *gpu, struct part parts[PARTS_MAX])
{
	size_t count = 0;

	count = add_part(h, parts, count,
			 (struct part){
				 .name = "usemem",
				 .cache = "write-back",
				 .bar = 4,
				 .base = gpu->usemem_base,
				 .size = gpu->usemem_size,
				 .bar_size = gpu->usemem_bar_size,
			 });
	return add_part(h, parts, count,
			(struct part){
				.name = "resmem",
				.cache = "non-cacheable",
				.bar = 2,
				.base = gpu->resmem_base,
				.size = gpu->resmem_size,
				.bar_size = gpu->resmem_bar_size,
			});
}

/*
 * Whether the driver shows a part of the memory in place of this BAR of the
 * device.
 */
static bool is_hidden(const struct gpu *gpu, int number)
{
	if (gpu->resmem_size != GPU_UNKNOWN && (number == 2 || number == 3))
		return true;
	return gpu->usemem_size != GPU_UNKNOWN && number >= 4;
}

size_t find_bars(struct host *h, const struct gpu *gpu, struct bar bars[BARS])
{
	struct resource found[BARS];
	size_t count = 0;
	int i;

	gpu_resources(h, gpu->address, found);
	for (i = 0; i < BARS; i++)
		if (found[i].memory)
			bars[count++] = (struct bar){ i, is_hidden(gpu, i), found[i].start, found[i].size };
	return count;
}

bool in_memory(const struct gpu *gpu, const struct iomem_range *range)
{
	uint64_t size = gpu->usemem_size;

	if (gpu->usemem_base == GPU_UNKNOWN || size == GPU_UNKNOWN || !range->end)
		return false;
	if (gpu->resmem_size != GPU_UNKNOWN)
		size += gpu->resmem_size;
	return range->end >= gpu->usemem_base &&
	       (range->start < gpu->usemem_base || range->start - gpu->usemem_base < size);
}

/* ---- the drawing -------------------------------------------------------- */

enum { FIELD_INDENT = 13 };

void field(const char *name, const char *fmt, ...)
{
	g_autofree char *text = NULL;
	va_list args;

	va_start(args, fmt);
	text = g_strdup_vprintf(fmt, args);
	va_end(args);
	printf("  %s%-11s%s", colour(COLOUR_DIM), name, colour(COLOUR_NONE));
	print_wrapped(text, FIELD_INDENT, FIELD_INDENT);
}

/* BAR_TEXT_WIDTH: columns before and after the cells of a BAR. */
enum { ADDRESS_WIDTH = 18, BOX_MIN = 20, BAR_TEXT_WIDTH = 66 };

static void draw_edge(uint64_t address, int width)
{
	char text[ADDRESS_WIDTH + 1] = "";
	int i;

	if (address != GPU_UNKNOWN)
		snprintf(text, sizeof(text), "0x%llx", (unsigned long long)address);
	printf("  %*s +", ADDRESS_WIDTH, text);
	for (i = 0; i < width; i++)
		putchar('-');
	puts("+");
}

static void draw_line(const char *inside, const char *beside, int width)
{
	printf("  %*s | %-*s|  %s\n", ADDRESS_WIDTH, "", width - 1, inside, beside);
}

/* In lines: the part's share of ten, so that the larger part looks larger. */
static int part_height(const struct part *part, uint64_t all)
{
	int height = part->size * 10.0 / all + 0.5;

	return !part->mappable ? 1 : height < 2 ? 2 : height;
}

void draw_parts(const struct part *parts, size_t count)
{
	int width = terminal_width() - ADDRESS_WIDTH - 40;
	char size[SIZE_MAX_TEXT], bar[SIZE_MAX_TEXT], inside[64], beside[64];
	uint64_t all = 0;
	size_t i;
	int line;

	width = width < BOX_MIN ? BOX_MIN : width > 48 ? 48 : width;
	for (i = 0; i < count; i++)
		all += parts[i].size;
	for (i = 0; i < count; i++) {
		const struct part *part = &parts[i];

		draw_edge(part->base, width);
		size_text(part->size, size);
		for (line = 0; line < part_height(part, all); line++) {
			*inside = *beside = 0;
			if (!part->mappable) {
				snprintf(inside, sizeof(inside), "%s, last %s", part->name, size);
				snprintf(beside, sizeof(beside), "less than a page: not mappable");
			} else if (line == 0) {
				snprintf(inside, sizeof(inside), "%s", part->name);
				snprintf(beside, sizeof(beside), "BAR%d, %s", part->bar,
					 size_text(part->bar_size, bar));
			} else if (line == 1) {
				snprintf(inside, sizeof(inside), "%s", size);
				snprintf(beside, sizeof(beside), "mappable, %s", part->cache);
			}
			draw_line(inside, beside, width);
		}
	}
	draw_edge(parts[count - 1].base == GPU_UNKNOWN
			  ? GPU_UNKNOWN
			  : parts[count - 1].base + parts[count - 1].size,
		  width);
}

void draw_bar(int number, uint64_t used, uint64_t size)
{
	char used_text[SIZE_MAX_TEXT], bar_text[SIZE_MAX_TEXT], name[16];
	g_autofree char *fill = NULL;
	int cells = terminal_width() - BAR_TEXT_WIDTH, filled, i;

	if (used == GPU_UNKNOWN || size == GPU_UNKNOWN || !size)
		return;
	cells = cells < 8 ? 8 : cells > 48 ? 48 : cells;
	filled = used >= size ? cells : (int)((double)used / size * cells);
	fill = g_malloc0(cells + 1);
	for (i = 0; i < cells; i++)
		fill[i] = i < filled ? '#' : '.';
	snprintf(name, sizeof(name), "BAR%d", number);
	field(name, "[%s] %s of %s%s", fill, size_text(used, used_text), size_text(size, bar_text),
	      used < size ? "; the rest reads as ones" : "");
}
