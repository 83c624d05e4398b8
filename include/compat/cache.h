/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Cache maintenance by address, for which arm64 exports no function. See
 * compat.h.
 */
#ifndef NVGRACE_GPU_COMPAT_CACHE_H
#define NVGRACE_GPU_COMPAT_CACHE_H

#include <linux/math.h>
#include <linux/types.h>
#include <asm/barrier.h>

#if defined(CONFIG_ARM64)
#include <asm/cpufeature.h>
#elif defined(CONFIG_X86)
#include <asm/cacheflush.h>
#endif

/*
 * Writes all cache lines that hold any of @len bytes at @addr back to memory
 * and drops them, on all CPUs. Done when compat_flush_end() returns. Does not
 * sleep.
 *
 * It works by physical address. So it finds lines that were cached through a
 * cacheable mapping even if @addr is a non-cacheable one (Arm ARM, "Effects of
 * instructions that operate by VA to the PoC").
 */
static inline void compat_flush(void *addr, size_t len)
{
#if defined(CONFIG_ARM64)
	/* DminLine: log2 of the 4-byte words in any CPU's smallest line. */
	u64 ctr = read_sanitised_ftr_reg(SYS_CTR_EL0);
	size_t line = 4UL << (ctr >> 16 & 0xf);
	unsigned long at = round_down((unsigned long)addr, line);
	unsigned long end = (unsigned long)addr + len;

	for (; at < end; at += line)
		asm volatile("dc civac, %0" : : "r" (at) : "memory");
#elif defined(CONFIG_X86)
	clflush_cache_range(addr, len);
#endif
}

/* Waits for the cache maintenance that this CPU has begun. */
static inline void compat_flush_end(void)
{
	/* A barrier for stores alone does not wait for it. */
	mb();
}

#endif /* NVGRACE_GPU_COMPAT_CACHE_H */
