/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Pure arithmetic of the driver: the carve-out of GPU memory into usemem and
 * resmem, the split of an access around a window, the values of the fake BAR
 * registers, and what a code of CXL's stands for.
 *
 * No function here sleeps, locks, allocates or calls the kernel; all state is
 * the caller's.  The same source is compiled into the module, into the unit
 * tests and into the fuzzers, so it may use nothing but the integer types of
 * <linux/types.h>, which exist on both sides.  Sizes and offsets are bytes.
 */
#ifndef NVGRACE_GPU_ARITH_H
#define NVGRACE_GPU_ARITH_H

#include <linux/types.h>

/*
 * Granule of usemem: the memory block that GPU firmware, the guest's driver
 * and Linux' memory hotplug agree on.  Fixed ABI, not a tunable.
 */
#define NVGRACE_GPU_MEMBLK		(512ULL << 20)

/* What the MIG hardware defect needs uncached, at the least. */
#define NVGRACE_GPU_RESMEM_MIN		(1024ULL << 20)

/*
 * Largest BAR that can be shown: vfio-pci's file offsets leave 40 bits to
 * each region (VFIO_PCI_OFFSET_SHIFT), a larger one would reach into the next.
 */
#define NVGRACE_GPU_BAR_SIZE_MAX	(1024ULL << 30)

/* Low bits of a memory BAR: 64-bit (0x4) and prefetchable (0x8), PCI 3.0 6.2.5.1. */
#define NVGRACE_GPU_BAR_FLAGS		0xcULL

/**
 * struct nvgrace_gpu_carve - how one GPU's memory is divided
 * @usemem: bytes of cacheable memory, from the start of the GPU's memory
 * @resmem: bytes of non-cacheable memory behind it; 0 if there is none
 * @usemem_bar: BAR size that shows usemem, a power of two
 * @resmem_bar: BAR size that shows resmem, a power of two; 0 if there is none
 */
struct nvgrace_gpu_carve {
	__u64 usemem;
	__u64 resmem;
	__u64 usemem_bar;
	__u64 resmem_bar;
};

/*
 * Divides @size bytes of GPU memory; @mig_defect says whether the part needs
 * resmem.  Fills *@out and returns 0, or leaves it alone and returns -EINVAL
 * (too little memory for both parts) or -EOVERFLOW (a BAR would be larger than
 * NVGRACE_GPU_BAR_SIZE_MAX).  Less than a page is the caller's to refuse: no BAR
 * is smaller than 16 bytes.
 */
int nvgrace_gpu_carve(__u64 size, bool mig_defect,
		      struct nvgrace_gpu_carve *out);

/**
 * struct nvgrace_gpu_split - an access, cut at the edges of a window
 * @before: bytes of the access in front of the window
 * @inside: bytes of the access in the window
 * @after: bytes of the access behind the window
 * @first: offset within the window of the first byte inside; meaningful only
 *	   if @inside is not 0
 *
 * The three counts add up to that of the access, whose bytes they describe in
 * this order.
 */
struct nvgrace_gpu_split {
	__u64 before;
	__u64 inside;
	__u64 after;
	__u64 first;
};

/*
 * Cuts the access [@pos, @pos + @count) at the window [@start, @end).  Neither
 * sum may exceed 2^64 - 1 and @start may not exceed @end; an empty window is
 * fine, its access is all "before" or "after".
 */
struct nvgrace_gpu_split nvgrace_gpu_split(__u64 pos, __u64 count, __u64 start,
					   __u64 end);

/*
 * What a 64-bit BAR register of @bar_size (a power of two, at least 16) reads
 * after @written was written to it.
 */
__u64 nvgrace_gpu_bar_value(__u64 written, __u64 bar_size);

/*
 * Byte @byte (0..7) of the register above, as it stands in config space, which
 * is little-endian on every machine.
 */
__u8 nvgrace_gpu_bar_read_byte(__u64 written, __u64 bar_size,
			       unsigned int byte);

/* What has been written to the register once byte @byte (0..7) becomes @val. */
__u64 nvgrace_gpu_bar_write_byte(__u64 written, unsigned int byte, __u8 val);

/*
 * Milliseconds that @code stands for in Memory_Active_Timeout of a CXL Device
 * DVSEC: 1 s, 4 s, 16 s, 64 s or 256 s.  Codes above 4 are reserved and count as
 * the last of these.
 */
__u32 nvgrace_gpu_cxl_timeout_ms(unsigned int code);

#endif /* NVGRACE_GPU_ARITH_H */
