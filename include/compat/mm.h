/* SPDX-License-Identifier: GPL-2.0-only */
/* Memory: VMA flags, insertion of pfns, memory errors. See compat.h. */
#ifndef NVGRACE_GPU_COMPAT_MM_H
#define NVGRACE_GPU_COMPAT_MM_H

#include <linux/mm.h>

#include <generated/nvgrace_gpu_features.h>

#ifndef HAVE_VM_FLAGS_SET
static inline void vm_flags_set(struct vm_area_struct *vma, vm_flags_t flags)
{
	vma->vm_flags |= flags;
}

static inline void vm_flags_clear(struct vm_area_struct *vma, vm_flags_t flags)
{
	vma->vm_flags &= ~flags;
}
#endif

/* Without it, KVM maps the memory as Device memory in the guest. */
#ifdef HAVE_VM_ALLOW_ANY_UNCACHED
#define COMPAT_HAS_UNCACHED_GUEST	true
#else
#define VM_ALLOW_ANY_UNCACHED		VM_NONE
#define COMPAT_HAS_UNCACHED_GUEST	false
#endif

/* Before faults had a lock of their own, they held the address space's. */
#ifndef HAVE_RELEASE_FAULT_LOCK
static inline void release_fault_lock(struct vm_fault *vmf)
{
	mmap_read_unlock(vmf->vma->vm_mm);
}
#endif

/* Whether kernel mappings need memory of their own: with KASAN, an eighth. */
#define COMPAT_MAPPINGS_TAKE_MEMORY	IS_ENABLED(CONFIG_KASAN_VMALLOC)

#ifndef PMD_ORDER
#define PMD_ORDER	(PMD_SHIFT - PAGE_SHIFT)
#endif
#ifndef PUD_ORDER
#define PUD_ORDER	(PUD_SHIFT - PAGE_SHIFT)
#endif

/* Whether a huge entry stands where a page table could. */
static inline bool compat_pmd_is_huge(const struct vm_fault *vmf)
{
	pmd_t pmd = READ_ONCE(*vmf->pmd);

	return pmd_present(pmd) && pmd_leaf(pmd);
}

/* Huge entries need the fault operation and the architecture's support. */
#if defined(HAVE_HUGE_FAULT_ORDER) && defined(CONFIG_ARCH_SUPPORTS_PMD_PFNMAP)
#define COMPAT_PMD_PFNMAP
#define COMPAT_HAS_PMD_PFNMAP	true
#else
#define COMPAT_HAS_PMD_PFNMAP	false
#endif
#if defined(HAVE_HUGE_FAULT_ORDER) && defined(CONFIG_ARCH_SUPPORTS_PUD_PFNMAP)
#define COMPAT_PUD_PFNMAP
#define COMPAT_HAS_PUD_PFNMAP	true
#else
#define COMPAT_HAS_PUD_PFNMAP	false
#endif

#ifdef HAVE_VMF_INSERT_PFN_PMD_PLAIN
#define compat_huge_pfn(pfn)	(pfn)
#elif defined(COMPAT_PMD_PFNMAP)
#include <linux/pfn_t.h>
#define compat_huge_pfn(pfn)	__pfn_to_pfn_t(pfn, PFN_DEV)
#endif

/*
 * Inserts one entry of 2^@order pages, order at least 1, around the fault's
 * address. @pfn is its first page. Leaves a page table that is there already.
 * Returns VM_FAULT_FALLBACK if this kernel has no pfn entries of that size, or
 * if such an entry is there, so that the kernel splits one that is read-only.
 * Needs the locks of a fault handler.
 *
 * Inserts as for a read even if the fault is a write: the kernel warns if a
 * write finds another entry, and a page table may have been first.
 */
static inline vm_fault_t compat_insert_huge_pfn(struct vm_fault *vmf,
						unsigned long pfn,
						unsigned int order)
{
#ifdef COMPAT_PMD_PFNMAP
	if (order == PMD_ORDER && !compat_pmd_is_huge(vmf))
		return vmf_insert_pfn_pmd(vmf, compat_huge_pfn(pfn), false);
#endif
#ifdef COMPAT_PUD_PFNMAP
	pud_t pud = READ_ONCE(*vmf->pud);

	if (order == PUD_ORDER && !(pud_present(pud) && pud_leaf(pud)))
		return vmf_insert_pfn_pud(vmf, compat_huge_pfn(pfn), false);
#endif
	return VM_FAULT_FALLBACK;
}

/* The huge_fault member of vm_operations_struct, if the kernel can use it. */
#if defined(COMPAT_PMD_PFNMAP) || defined(COMPAT_PUD_PFNMAP)
#define COMPAT_HUGE_FAULT(fn)	.huge_fault = (fn),
#else
#define COMPAT_HUGE_FAULT(fn)
#endif

/*
 * Finds the page offset of a pfn in a VMA, for memory errors in memory that has
 * no struct pages.
 */
typedef int (*compat_pfn_to_pgoff_t)(struct vm_area_struct *vma,
				     unsigned long pfn, pgoff_t *pgoff);

#ifdef HAVE_REGISTER_PFN_ADDRESS_SPACE

#include <linux/memory-failure.h>

#define COMPAT_HAS_POISON	IS_ENABLED(CONFIG_MEMORY_FAILURE)

struct compat_pfn_space {
	struct pfn_address_space space;
	bool registered;
};

/*
 * Registers @pages pages from @pfn, which VMAs of @mapping map, for memory
 * errors. @pgoff returns the offset of a pfn in such a VMA, or an error. It is
 * called under locks and must not sleep. Returns 0, -EOPNOTSUPP (the kernel
 * handles no memory errors) or -EBUSY (these pages are registered already).
 * Sleeps.
 */
static inline int compat_register_pfn_space(struct compat_pfn_space *space,
					    struct address_space *mapping,
					    unsigned long pfn,
					    unsigned long pages,
					    compat_pfn_to_pgoff_t pgoff)
{
	int ret;

	space->space.node.start = pfn;
	space->space.node.last = pfn + pages - 1;
	space->space.mapping = mapping;
	space->space.pfn_to_vma_pgoff = pgoff;
	ret = register_pfn_address_space(&space->space);
	space->registered = !ret;
	return ret;
}

/* Unregistering what isn't registered would remove another device's entry. */
static inline void compat_unregister_pfn_space(struct compat_pfn_space *space)
{
	if (space->registered)
		unregister_pfn_address_space(&space->space);
	space->registered = false;
}

#else /* !HAVE_REGISTER_PFN_ADDRESS_SPACE */

#define COMPAT_HAS_POISON	false

struct compat_pfn_space {
};

static inline int compat_register_pfn_space(struct compat_pfn_space *space,
					    struct address_space *mapping,
					    unsigned long pfn,
					    unsigned long pages,
					    compat_pfn_to_pgoff_t pgoff)
{
	return -EOPNOTSUPP;
}

static inline void compat_unregister_pfn_space(struct compat_pfn_space *space)
{
}

#endif /* HAVE_REGISTER_PFN_ADDRESS_SPACE */

#endif /* NVGRACE_GPU_COMPAT_MM_H */
