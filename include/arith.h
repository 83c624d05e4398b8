/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Pure arithmetic of the driver: the carve-out of GPU memory into usemem and
 * resmem, the split of an access at a window, the values of the fake BAR
 * registers, the timeouts of a CXL Device DVSEC, and steps that are spread over
 * memory. probe.c, cfgemu.c, ready.c and scrub.c call it.
 *
 * No function here sleeps, locks, allocates or calls the kernel. The caller
 * owns all state. The module and the unit tests compile the same source, so it
 * uses only the integer types of <linux/types.h>, which kernel and user space
 * both have. Sizes and offsets are bytes.
 */
#ifndef NVGRACE_GPU_ARITH_H
#define NVGRACE_GPU_ARITH_H

#include <linux/types.h>

/*
 * Granule of usemem: the memory block that GPU firmware, the guest's driver and
 * Linux memory hotplug agree on. Fixed ABI, not a tunable.
 */
#define NVGRACE_GPU_MEMBLK		(512ULL << 20)

/* Bytes of uncached memory that the MIG hardware defect requires, at least. */
#define NVGRACE_GPU_RESMEM_MIN		(1024ULL << 20)

/*
 * Largest BAR that fits: vfio-pci's file offsets give each region 40 bits
 * (VFIO_PCI_OFFSET_SHIFT), and a larger BAR would reach into the next region.
 */
#define NVGRACE_GPU_BAR_SIZE_MAX	(1024ULL << 30)

/*
 * Low bits of a memory BAR, 64-bit (4) and prefetchable (8): PCI 3.0 6.2.5.1.
 */
#define NVGRACE_GPU_BAR_FLAGS		0xcULL

/**
 * struct nvgrace_gpu_carve - the two parts of one GPU's memory
 * @usemem: bytes of cacheable memory, at the start of the GPU's memory
 * @resmem: bytes of non-cacheable memory, after usemem; 0 if there is none
 * @usemem_bar: size of the BAR that shows usemem, a power of two
 * @resmem_bar: size of the BAR that shows resmem, a power of two; 0 if none
 */
struct nvgrace_gpu_carve {
	__u64 usemem;
	__u64 resmem;
	__u64 usemem_bar;
	__u64 resmem_bar;
};

/*
 * Carves out @size bytes of GPU memory. @mig_defect: the GPU needs resmem.
 * Fills *@out and returns 0. On an error leaves *@out alone and returns -EINVAL
 * (too little memory for both parts) or -EOVERFLOW (a BAR would exceed
 * NVGRACE_GPU_BAR_SIZE_MAX). The caller must refuse less than a page, because
 * no BAR is smaller than 16 bytes.
 */
int nvgrace_gpu_carve(__u64 size, bool mig_defect,
		      struct nvgrace_gpu_carve *out);

/**
 * struct nvgrace_gpu_split - an access, cut at the edges of a window
 * @before: bytes of the access before the window
 * @inside: bytes of the access in the window
 * @after: bytes of the access after the window
 * @first: offset in the window of the first byte inside; valid only if @inside
 *	is not 0
 *
 * The three counts add up to the bytes of the access, in this order.
 */
struct nvgrace_gpu_split {
	__u64 before;
	__u64 inside;
	__u64 after;
	__u64 first;
};

/*
 * Cuts the access [@pos, @pos + @count) at the window [@start, @end). @pos +
 * @count must not exceed 2^64 - 1, nor @start exceed @end. An access to an
 * empty window is all "before" or "after".
 */
struct nvgrace_gpu_split nvgrace_gpu_split(__u64 pos, __u64 count, __u64 start,
					   __u64 end);

/*
 * Value that a 64-bit BAR register of @bar_size bytes (a power of two, at least
 * 16) reads after @written was written to it.
 */
__u64 nvgrace_gpu_bar_value(__u64 written, __u64 bar_size);

/*
 * Byte @byte (0 to 7) of that value in config space, which is little-endian on
 * every machine.
 */
__u8 nvgrace_gpu_bar_read_byte(__u64 written, __u64 bar_size,
			       unsigned int byte);

/* Returns @written with byte @byte (0 to 7) replaced by @val. */
__u64 nvgrace_gpu_bar_write_byte(__u64 written, unsigned int byte, __u8 val);

/*
 * Milliseconds for @code of Memory_Active_Timeout in a CXL Device DVSEC: 1 s, 4
 * s, 16 s, 64 s or 256 s for 0 to 4. Larger codes are reserved and count as 4.
 */
__u32 nvgrace_gpu_cxl_timeout_ms(unsigned int code);

/*
 * Of @count numbers that are spread evenly over those below @total, number
 * @index: increasing, and each once. @index is below @count, @count at least 1
 * and at most @total, and @count * @total below 2^64.
 */
__u64 nvgrace_gpu_spread(__u64 index, __u64 count, __u64 total);

#endif /* NVGRACE_GPU_ARITH_H */
