/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The facts of a GPU, in JSON's order: what C calls it, its type, its name in JSON,
 * and its value, for which s is the struct overview. A WORD is one of few, so that a
 * metric can have a sample for each. JSON has "usemem.size" as a
 * member of the object "usemem", which is null if its first member isn't known, and
 * nothing without a name. docs/nvgrace-gpu.schema.json explains each. To be included
 * with FACT() defined.
 */
FACT(address, TEXT, "address", gpu->address)
FACT(vendor, ID, "vendor", gpu->vendor)
FACT(device, ID, "device", gpu->device)
FACT(product, TEXT, "product", gpu->product)
FACT(state, WORD, "state", overview_state(s, gpu))
FACT(bound, FLAG, NULL, gpu->ours)
FACT(driver, TEXT, "driver", gpu->driver)
FACT(driver_or_none, WORD, NULL, gpu->driver ? gpu->driver : "none")
FACT(driver_override, TEXT, "driver_override", gpu->override)
FACT(numa_node, NUMBER, "numa_node", gpu->numa_node < 0 ? GPU_UNKNOWN : (uint64_t)gpu->numa_node)
FACT(iommu_group, NUMBER, "iommu_group",
     gpu->iommu_group < 0 ? GPU_UNKNOWN : (uint64_t)gpu->iommu_group)
FACT(slot, TEXT, "slot", gpu->slot)
FACT(serial, TEXT, "serial", gpu->serial)
FACT(mode, WORD, "mode", gpu_mode_name(gpu->mode))
FACT(readiness, WORD, "readiness", gpu->readiness)
FACT(ready, FLAG, NULL, readiness_of(gpu->readiness) == GPU_READY)
FACT(scrub_state, WORD, "scrub_state", gpu->scrub_state)
FACT(scrub_progress, SIZE, "scrub_progress", gpu->scrub_progress)
FACT(scrub_count, NUMBER, "last_scrub.count", gpu->scrub_count)
FACT(scrub_result, TEXT, "last_scrub.result", gpu->scrub_result)
FACT(scrub_clean, NUMBER, NULL,
     gpu->scrub_result ? scrub_state_of(gpu->scrub_result) == GPU_SCRUB_CLEAN : GPU_UNKNOWN)
FACT(scrub_time, TIME, "last_scrub.time", gpu->scrub_time)
FACT(scrub_ms, MILLISECONDS, "last_scrub.milliseconds", gpu->scrub_ms)
FACT(verified_time, TIME, "last_scrub.verified_time", verified_time(s, gpu))
FACT(usemem_size, SIZE, "usemem.size", gpu->usemem_size)
FACT(usemem_bar_size, SIZE, "usemem.bar_size", gpu->usemem_bar_size)
FACT(usemem_base, ADDRESS, "usemem.base", gpu->usemem_base)
FACT(resmem_size, SIZE, "resmem.size", gpu->resmem_size)
FACT(resmem_bar_size, SIZE, "resmem.bar_size", gpu->resmem_bar_size)
FACT(resmem_base, ADDRESS, "resmem.base", gpu->resmem_base)
FACT(memory_online, FLAG, NULL, overview_online(s, gpu).online)
FACT(persisted_file, TEXT, "persisted.file", persisted_file(s, gpu))
FACT(persisted_line, NUMBER, "persisted.line", persisted_line(s, gpu))
FACT(at_boot, FLAG, "at_boot", overview_boots(s, gpu))
FACT(boot, TEXT, NULL,
     overview_boots(s, gpu) ? "yes" : overview_persisted(s, gpu) ? "blocked" : "no")
FACT(boot_obstacle, TEXT, "boot_obstacle", overview_persisted(s, gpu) ? overview_obstacle(s) : NULL)
FACT(in_use, NUMBER, NULL, in_use(s, gpu))
FACT(resets, NUMBER, NULL, count_of(s, gpu, "resets"))
FACT(waits, NUMBER, NULL, count_of(s, gpu, "waits"))
