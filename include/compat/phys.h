/* SPDX-License-Identifier: GPL-2.0-only */
/* Width of physical addresses on this CPU. See compat.h. */
#ifndef NVGRACE_GPU_COMPAT_PHYS_H
#define NVGRACE_GPU_COMPAT_PHYS_H

#include <linux/limits.h>
#include <linux/minmax.h>
#include <linux/types.h>

#if defined(CONFIG_ARM64)
#include <asm/cpufeature.h>
#include <asm/pgtable.h>
#elif defined(CONFIG_X86)
#include <asm/processor.h>
#endif

/*
 * Highest physical address that this kernel's page tables and all CPUs of the
 * machine can express.
 */
static inline phys_addr_t compat_phys_last(void)
{
#if defined(CONFIG_ARM64)
	u64 mmfr0 = read_sanitised_ftr_reg(SYS_ID_AA64MMFR0_EL1);
	u32 cpu = id_aa64mmfr0_parange_to_phys_shift(mmfr0 & 0xf);

	return (1ULL << min_t(u32, cpu, PHYS_MASK_SHIFT)) - 1;
#elif defined(CONFIG_X86)
	return (1ULL << boot_cpu_data.x86_phys_bits) - 1;
#else
	return (phys_addr_t)ULLONG_MAX;
#endif
}

#endif /* NVGRACE_GPU_COMPAT_PHYS_H */
