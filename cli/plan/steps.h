/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The steps of which guest_plan() makes a plan, in the files of this folder. They
 * come in the order of guest_plan(), and read nothing but facts, wish and what
 * earlier steps have written.
 */
#ifndef NVGRACE_GPU_PLAN_STEPS_H
#define NVGRACE_GPU_PLAN_STEPS_H

#include <glib.h>

#include "plan/plan.h"

#define GiB (1ULL << 30)

/* A BAR or a guest's memory of this size is a mistake. */
#define SIZE_LIMIT (1ULL << 44)

/* Sets why there is no such guest, and the GPU that it is about, if any. Returns status. */
G_GNUC_PRINTF(4, 5) enum exit_status plan_refuse(struct guest_plan *plan, enum exit_status status,
					       const struct gpu *gpu, const char *fmt, ...);
/* Adds a note. */
G_GNUC_PRINTF(2, 3) void plan_note(struct guest_plan *plan, const char *fmt, ...);

/* Of a GPU of facts->gpus. */
const struct place *plan_place(const struct guest_facts *facts, const struct gpu *gpu);
/*
 * The SMMU of the host that a device can have in the guest; NULL: none. Devices that share
 * their IOMMU group need the same address space in the host, which two functions of a NIC
 * with SMMUs would not have.
 */
const char *plan_smmu(const struct place *place);
/* NULL: the host has no such node. */
const struct numa_node *plan_host_node(const struct guest_facts *facts, int id);

/* Whether a guest can have BARs of these sizes, of which 0 is none. */
bool plan_are_bars(const uint64_t bars[BARS]);
/* Sets bars, largest and span of a device. */
void plan_add_bars(struct guest_device *g, const uint64_t bars[BARS]);
/* Whether the guest has root complexes besides pcie.0, where one is enough otherwise. */
bool plan_has_expanders(const struct guest_plan *plan);

enum exit_status plan_cpu_nodes(const struct guest_facts *facts, const struct guest_wish *wish,
				struct guest_plan *plan);
enum exit_status plan_memory(const struct guest_facts *facts, const struct guest_wish *wish,
			     struct guest_plan *plan);
enum exit_status plan_window(const struct guest_facts *facts, const struct guest_wish *wish,
			     struct guest_plan *plan);
enum exit_status plan_pinning(const struct guest_facts *facts, const struct guest_wish *wish,
			      struct guest_plan *plan);
enum exit_status plan_backend(const struct guest_facts *facts, struct guest_plan *plan);
void plan_buses(const struct guest_facts *facts, const struct guest_wish *wish,
		struct guest_plan *plan);
void plan_nodes(const struct guest_facts *facts, struct guest_plan *plan);
void plan_distances(const struct guest_facts *facts, struct guest_plan *plan);

#endif
