// SPDX-License-Identifier: GPL-2.0-only
/*
 * The BARs of the devices, and the window that has room for them.
 */
#include <stdlib.h>
#include <string.h>

#include "plan/steps.h"
#include "system/output.h"

/*
 * QEMU's window for 64-bit BARs has this size without highmem-mmio-size, and
 * never less. NVIDIA's guide to Grace and KubeVirt reserve as much for each
 * GPU.
 */
#define WINDOW_DEFAULT (512 * GiB)

/* In NVIDIA's published command line for one GH200. */
#define WINDOW_PUBLISHED (4096 * GiB)

static bool is_power_of_two(uint64_t value)
{
	return value && !(value & (value - 1));
}

/* unit: a power of two, as all sizes of BARs and windows are. */
static uint64_t round_up(uint64_t value, uint64_t unit)
{
	return (value + unit - 1) & ~(unit - 1);
}

/*
 * A bridge's window is as aligned as its largest BAR, so that of the next port
 * begins at a multiple of that.
 */
void plan_add_bars(struct guest_device *g, const uint64_t bars[BARS])
{
	uint64_t largest = 1;
	size_t i;

	g->bars = 0;
	for (i = 0; i < BARS; i++) {
		g->bars += bars[i];
		if (bars[i] > largest)
			largest = bars[i];
	}
	g->largest = largest;
	g->span = round_up(g->bars, largest);
}

static uint64_t window_for(uint64_t bytes)
{
	uint64_t window = WINDOW_DEFAULT;

	/* More than a processor can address is refused elsewhere. */
	while (window < bytes && window < 1ULL << 62)
		window <<= 1;
	return window;
}

/*
 * QEMU puts the window above 256 GiB and above the guest's memory, at a
 * multiple of the window's size.
 */
static unsigned int bits_for(uint64_t window, uint64_t memory)
{
	uint64_t below = memory + 2 * GiB < 257 * GiB ? 257 * GiB : memory + 2 * GiB;
	uint64_t end = round_up(below, window) + window;
	unsigned int bits = 40;

	while (1ULL << bits < end)
		bits++;
	return bits;
}

bool plan_has_expanders(const struct guest_plan *plan)
{
	return plan->accel ||
	       (!plan->flat && (plan->cpu_nodes > 1 || plan->devices > plan->gpus));
}

static void plan_least(struct guest_plan *plan)
{
	const struct guest_device *g;
	uint64_t end = 0;

	/*
	 * Firmware gives each root complex a range, one after the other. The small
	 * BARs of bus 0 come first and take a unit of the largest.
	 */
	for (g = plan->device; plan_has_expanders(plan) && g < plan->device + plan->devices; g++)
		if (g->largest > end)
			end = g->largest;
	/* Devices with small BARs come last, behind those of the last GPU. */
	for (g = plan->device; g < plan->device + plan->devices; g++)
		end = round_up(end, g->largest) + g->bars;
	plan->window_min = window_for(end);
	plan->address_bits = bits_for(plan->window_min, plan->memory);
}

bool plan_are_bars(const uint64_t bars[BARS])
{
	size_t i;

	for (i = 0; i < BARS; i++)
		if (bars[i] && (!is_power_of_two(bars[i]) || bars[i] > SIZE_LIMIT))
			return false;
	return true;
}

/*
 * A window with room to spare: no smaller than NVIDIA's published command lines
 * and KubeVirt have it, for any number of GPUs.
 */
static uint64_t ample_window(const struct guest_plan *plan)
{
	uint64_t ample = GiB;
	size_t i;

	for (i = 0; i < plan->devices; i++)
		ample += i < plan->gpus && plan->device[i].span < WINDOW_DEFAULT ?
			 WINDOW_DEFAULT : plan->device[i].span;
	return window_for(ample < WINDOW_PUBLISHED ? WINDOW_PUBLISHED : ample);
}

/* Whether the least window is possible with this QEMU and this KVM. */
static bool fits(const struct guest_facts *facts, const struct guest_plan *plan)
{
	if (plan->qemu && !vmm_has(plan->qemu, QEMU_WINDOW) && plan->window_min > WINDOW_DEFAULT)
		return false;
	return !facts->address_bits || plan->address_bits <= facts->address_bits;
}

enum exit_status plan_window(const struct guest_facts *facts, const struct guest_wish *wish,
			     struct guest_plan *plan)
{
	uint64_t all = 0, own = wish->domain ? wish->domain->window : 0;
	char bars[SIZE_MAX_TEXT], size[SIZE_MAX_TEXT];
	size_t i;

	for (i = 0; i < plan->devices; i++)
		all += plan->device[i].bars;
	size_text(all, bars);
	plan_least(plan);
	if (!plan->accel && plan_has_expanders(plan) && !fits(facts, plan)) {
		plan->flat = true;
		plan_least(plan);
		if (fits(facts, plan))
			plan_note(plan, "all devices are on pcie.0, so that the guest does not see which NUMA node each is near: the window for the BARs has no room for more root complexes");
	}
	plan->window_set = vmm_has(plan->qemu, QEMU_WINDOW);
	plan->window = own ? own : plan->window_set ? ample_window(plan) : WINDOW_DEFAULT;
	if (!own && plan->window_set && facts->address_bits &&
	    bits_for(plan->window, plan->memory) > facts->address_bits)
		plan->window = plan->window_min;
	/* The firmware would leave out BARs without a word. */
	if (own && own < plan->window_min)
		return plan_refuse(plan, EXIT_REFUSED, NULL,
				   "the domain's <pcihole64> has %s, and these GPUs need %s; remove it from the domain",
				   size_text(own, bars), size_text(plan->window_min, size));
	if (plan->window < plan->window_min)
		return plan_refuse(plan, EXIT_REFUSED, NULL,
				   "the BARs have %s and need a window of %s, but %s has no -machine highmem-mmio-size; install %s or later, or assign fewer GPUs",
				   bars, size_text(plan->window_min, size), plan->qemu->path,
				   vmm_since(QEMU_WINDOW));
	plan->address_bits = bits_for(plan->window, plan->memory);
	if (facts->address_bits && plan->address_bits > facts->address_bits)
		return plan_refuse(plan, EXIT_REFUSED, NULL,
				   "the BARs have %s; the guest's addresses need %u bits, and KVM gives it %u; assign fewer GPUs to each guest",
				   bars, plan->address_bits, facts->address_bits);
	return EXIT_OK;
}
