// SPDX-License-Identifier: GPL-2.0-only
/*
 * The steps of "nvgrace-gpu test" that access no memory: "look" reads what the
 * kernel knows about the GPU, and "open" opens it and compares. See test.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "facts/location.h"
#include "facts/overview.h"
#include "system/output.h"
#include "test/test.h"

/* ---- look --------------------------------------------------------------- */

/* Whether /proc/iomem has this range, by whatever name. */
static bool is_claimed(const struct iomem *iomem, uint64_t base, uint64_t size)
{
	size_t i;

	for (i = 0; i < iomem->count; i++)
		if (iomem->range[i].start == base && iomem->range[i].end == base + size - 1 &&
		    strstr(iomem->range[i].name, "nvgrace"))
			return true;
	return false;
}

static void check_claims(struct test *t)
{
	const struct gpu *gpu = &t->e.gpu;
	const struct {
		const char *name;
		uint64_t base, size;
	} parts[] = { { "usemem", gpu->usemem_base, gpu->usemem_size },
		      { "resmem", gpu->resmem_base, gpu->resmem_size } };
	struct iomem iomem;
	size_t i, known = 0;

	iomem_read(t->e.host, &iomem);
	for (i = 0; i < 2; i++) {
		if (parts[i].base == GPU_UNKNOWN || parts[i].size == GPU_UNKNOWN || !parts[i].size)
			continue;
		known++;
		/*
		 * The driver binds without a claim if a bridge's window or
		 * another driver is in its way, and says so in the log.
		 */
		if (!is_claimed(&iomem, parts[i].base, parts[i].size))
			result(t, "claims", NOTED, "/proc/iomem does not have %s as claimed by the "
			       "driver", parts[i].name);
		else
			result(t, "claims", PASSED, "/proc/iomem has %s", parts[i].name);
	}
	if (!known)
		result(t, "claims", SKIPPED, "sysfs reports no addresses to this user, or this driver "
		       "has none there");
	iomem_free(&iomem);
}

static void check_registers(struct test *t)
{
	struct resource bars[BARS];

	gpu_resources(t->e.host, t->e.gpu.address, bars);
	if (bars[0].size)
		result(t, "registers", PASSED, "BAR0 of the GPU has an address");
	else
		result(t, "registers", FAILED, "BAR0 of the GPU has no address: firmware or kernel did "
		       "not assign it; see \"dmesg\"");
}

static void check_readiness(struct test *t)
{
	const char *readiness = t->e.gpu.readiness;

	if (!readiness)
		result(t, "readiness", SKIPPED, "this driver does not report it");
	else if (readiness_of(readiness) == GPU_READY_FAILED)
		result(t, "readiness", FAILED, "the memory did not become ready while the driver waited; "
		       "power-cycle the host");
	else
		result(t, "readiness", readiness_of(readiness) == GPU_READY ? PASSED : NOTED,
		       "the driver reports: %s", readiness);
}

static void check_methods(struct test *t)
{
	g_autofree char *methods = host_line(t->e.host, DEVICES "/%s/reset_method", t->e.gpu.address);

	if (methods && *methods)
		result(t, "reset-methods", NOTED, "in the kernel's order: %s", methods);
	else
		result(t, "reset-methods", NOTED, methods ? "none" : "this kernel does not report them");
}

static void check_link(struct test *t)
{
	static const char *const names[] = { "current_link_speed", "max_link_speed",
					     "current_link_width", "max_link_width" };
	char *text[4];
	size_t i;

	for (i = 0; i < 4; i++)
		text[i] = host_line(t->e.host, DEVICES "/%s/%s", t->e.gpu.address,
				    names[i]);
	if (!text[0] || !text[1] || !text[2] || !text[3])
		result(t, "pcie-link", SKIPPED, "sysfs does not report the PCIe link");
	else if (strcmp(text[0], text[1]) || strcmp(text[2], text[3]))
		result(t, "pcie-link", NOTED, "the PCIe link is %s x%s; the GPU supports %s "
		       "x%s", text[0], text[2], text[1], text[3]);
	else
		result(t, "pcie-link", PASSED, "the PCIe link is %s x%s, the GPU's maximum",
		       text[0], text[2]);
	for (i = 0; i < 4; i++)
		g_free(text[i]);
}

void step_look(struct test *t)
{
	check_claims(t);
	check_registers(t);
	check_readiness(t);
	check_methods(t);
	check_link(t);
	if (t->kmsg < 0)
		result(t, "log-of-kernel", NOTED, "it can't be read by this user: complaints of the "
		       "kernel are not seen");
}

/* ---- open --------------------------------------------------------------- */

bool open_memory(struct test *t)
{
	t->status = open_gpu_open(&t->e);
	if (t->status)
		return false;
	if (pattern_map(&t->pattern))
		return true;
	complain(t->e.gpu.address, "can't map the memory of the GPU: %s", strerror(errno));
	t->status = EXIT_FAILED;
	return false;
}

static void check_sizes(struct test *t)
{
	const struct gpu *gpu = &t->e.gpu;
	const struct parts *parts = &t->e.parts;
	size_t i, before = t->count;
	bool told = false;

	for (i = 0; i < parts->count; i++) {
		const struct part *part = &parts->part[i];
		uint64_t size = part->bar == 4 ? gpu->usemem_size : gpu->resmem_size;
		uint64_t bar = part->bar == 4 ? gpu->usemem_bar_size : gpu->resmem_bar_size;

		if (part->bar_size & (part->bar_size - 1))
			result(t, "sizes", FAILED, "BAR%u of %s has %llu bytes, not a power of two",
			       part->bar, part->name, (unsigned long long)part->bar_size);
		if (bar != GPU_UNKNOWN && bar != part->bar_size)
			result(t, "sizes", FAILED, "BAR%u has %llu bytes, but %llu in sysfs",
			       part->bar, (unsigned long long)part->bar_size,
			       (unsigned long long)bar);
		if (size == GPU_UNKNOWN)
			continue;
		told = true;
		if (size > part->bar_size ||
		    size / t->e.host->page_size * t->e.host->page_size != part->mappable)
			result(t, "sizes", FAILED, "%llu bytes of %s can be mapped, but it has %llu in "
			       "sysfs", (unsigned long long)part->mappable, part->name,
			       (unsigned long long)size);
	}
	if (gpu->usemem_size != GPU_UNKNOWN && !part_named(parts, "usemem"))
		result(t, "sizes", FAILED, "vfio shows no usemem, but sysfs does");
	if (gpu->resmem_size != GPU_UNKNOWN && !part_named(parts, "resmem"))
		result(t, "sizes", FAILED, "vfio shows no resmem, but sysfs does");
	if (t->count == before)
		result(t, "sizes", PASSED, told ? "vfio and sysfs agree on memory and BARs"
						: "BARs are powers of two; this driver has no "
						  "sizes in sysfs");
}

enum { BAR_FLAGS = 0xc, BAR_FLAG_MASK = 0xf };

/* A 64-bit BAR is two registers, accessed as the 32 bits that they are. */
static int bar_access(struct test *t, uint64_t at, uint64_t *value, bool write)
{
	uint32_t half[2] = { (uint32_t)*value, (uint32_t)(*value >> 32) };
	int i, error = 0;

	for (i = 0; i < 2 && !error; i++)
		error = write ? vfio_write_all(&t->e.vfio, at + 4 * i, &half[i], 4)
			      : vfio_read_all(&t->e.vfio, at + 4 * i, &half[i], 4);
	*value = half[0] | (uint64_t)half[1] << 32;
	return error;
}

static void check_bars(struct test *t)
{
	uint64_t config, length, at, was, value, ones = ~0ULL;
	size_t i, before = t->count;
	int error;

	error = vfio_config(&t->e.vfio, &config, &length);
	for (i = 0; i < t->e.parts.count && !error; i++) {
		const struct part *part = &t->e.parts.part[i];

		at = config + 0x10 + 4 * part->bar;
		was = value = 0;
		/*
		 * As firmware sizes a BAR. Only the driver's emulation is
		 * involved.
		 */
		error = bar_access(t, at, &was, false);
		if (!error)
			error = bar_access(t, at, &ones, true);
		if (!error)
			error = bar_access(t, at, &value, false);
		if (!error)
			error = bar_access(t, at, &was, true);
		if (!error && ((value & BAR_FLAG_MASK) != BAR_FLAGS ||
			       -(value & ~(uint64_t)BAR_FLAG_MASK) != part->bar_size))
			result(t, "bars", FAILED, "BAR%u's register reads 0x%016llx after a write of all "
			       "ones, which is not a 64-bit prefetchable BAR of %llu bytes",
			       part->bar, (unsigned long long)value,
			       (unsigned long long)part->bar_size);
		ones = ~0ULL;
	}
	if (error)
		result_error(t, "bars", "config space", -error);
	else if (t->count == before)
		result(t, "bars", PASSED, "the BAR registers have the sizes of the BARs");
}

static void check_limits(struct test *t)
{
	size_t i, before = t->count;
	void *map;

	for (i = 0; i < t->e.parts.count; i++) {
		const struct part *part = &t->e.parts.part[i];

		if (part->mappable == part->bar_size)
			continue;
		map = mmap(NULL, t->e.host->page_size, PROT_READ, MAP_SHARED, t->e.vfio.device,
			   part->offset + part->mappable);
		if (map == MAP_FAILED)
			continue;
		munmap(map, t->e.host->page_size);
		result(t, "limits", FAILED, "the page after %s can be mapped", part->name);
	}
	if (t->count == before)
		result(t, "limits", PASSED, "the pages after the memory can't be mapped");
}

void step_open(struct test *t)
{
	if (!open_memory(t))
		return;
	check_sizes(t);
	check_bars(t);
	check_limits(t);
}
