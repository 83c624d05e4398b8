// SPDX-License-Identifier: GPL-2.0-only
/*
 * Owns the description of the fake BARs to user space, and their mappings.
 *
 * mmap maps nothing. Faults insert the pages, so that a reset can remove them
 * until the next fault, and a VMM that maps 480 GB does not wait. gate.c
 * removes the pages and decides when they may return.
 */
#include <linux/file.h>
#include <linux/hash.h>
#include <linux/mm.h>
#include <linux/overflow.h>
#include <linux/slab.h>
#include <linux/vfio_pci_core.h>

#include "compat/compat.h"
#include "nvgrace_gpu.h"
#include "trace.h"

/* Most huge entries that one fault inserts: 1 GiB with 4K pages. */
#define HUGE_AROUND	512

/*
 * Pages that one fault inserts without huge entries; a whole page table if that
 * is more.
 */
#define PAGES_AROUND	2048

int nvgrace_gpu_region_info(struct vfio_device *core_vdev,
			    struct vfio_region_info *info,
			    struct vfio_info_cap *caps)
{
	struct nvgrace_gpu *gpu = to_nvgrace_gpu(core_vdev);
	struct nvgrace_gpu_region *region = nvgrace_gpu_region(gpu, info->index);
	struct vfio_region_info_cap_sparse_mmap *sparse;
	size_t size = struct_size(sparse, areas, 1);
	int ret;

	if (!region)
		return compat_core_region_info(core_vdev, info, caps);

	sparse = kzalloc(size, GFP_KERNEL);
	if (!sparse)
		return -ENOMEM;

	/* The BAR is a power of two. Only the memory in it can be mapped. */
	sparse->header.id = VFIO_REGION_INFO_CAP_SPARSE_MMAP;
	sparse->header.version = 1;
	sparse->nr_areas = 1;
	sparse->areas[0].offset = 0;
	sparse->areas[0].size = nvgrace_gpu_mappable(region);

	ret = vfio_info_add_capability(caps, &sparse->header, size);
	kfree(sparse);
	if (ret)
		return ret;

	info->offset = VFIO_PCI_INDEX_TO_OFFSET(info->index);
	info->size = region->bar_size;
	info->flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE |
		      VFIO_REGION_INFO_FLAG_MMAP;
	return 0;
}

long nvgrace_gpu_region_ioctl(struct vfio_device *core_vdev, unsigned int cmd,
			      unsigned long arg)
{
	/* Memory has no doorbells, and vfio-pci-core has no fake BARs. */
	if (cmd == VFIO_DEVICE_IOEVENTFD)
		return -ENOTTY;

	return compat_core_ioctl(core_vdev, cmd, arg,
				 nvgrace_gpu_region_info);
}

/* Page offset in the region of the VMA's first page. */
static unsigned long first_page(const struct vm_area_struct *vma)
{
	return vma->vm_pgoff & (VFIO_PCI_OFFSET_MASK >> PAGE_SHIFT);
}

/* The pfn for @addr of a VMA of this file. */
static unsigned long addr_to_pfn(const struct vm_area_struct *vma,
				 unsigned long addr)
{
	struct nvgrace_gpu_region *region = vma->vm_private_data;

	return PHYS_PFN(region->base) + first_page(vma) +
	       ((addr - vma->vm_start) >> PAGE_SHIFT);
}

/*
 * Inserts the pages of the page tables around the fault: one fault for 8 MiB
 * (4K pages), 32 MiB (16K) or 512 MiB (64K) instead of one for each page. Where
 * huge entries fit, only those of one table, because huge entries are better
 * for the others. The result is that of the faulting page. Other pages that
 * can't be inserted are left to later faults. Under the insert_lock of these
 * tables.
 */
static vm_fault_t insert_around(struct vm_fault *vmf)
{
	struct vm_area_struct *vma = vmf->vma;
	unsigned long fault = vmf->address & PAGE_MASK;
	unsigned long pfn = addr_to_pfn(vma, fault);
	bool huge = COMPAT_HAS_PMD_PFNMAP &&
		    IS_ALIGNED(pfn - PHYS_PFN(fault), PMD_SIZE / PAGE_SIZE);
	unsigned long around = huge ? PMD_SIZE :
				      max(PMD_SIZE, PAGES_AROUND * PAGE_SIZE);
	unsigned long block = round_down(fault, around);
	unsigned long addr = max(block, vma->vm_start);
	unsigned long end = min(block + around, vma->vm_end);
	vm_fault_t ret;

	/* Another thread has inserted a huge entry, which serves this fault. */
	if (compat_pmd_is_huge(vmf))
		return VM_FAULT_NOPAGE;

	ret = vmf_insert_pfn(vma, fault, pfn);
	if (ret != VM_FAULT_NOPAGE)
		return ret;

	for (; addr < end; addr += PAGE_SIZE) {
		if (addr != fault &&
		    vmf_insert_pfn(vma, addr, addr_to_pfn(vma, addr)) !=
			    VM_FAULT_NOPAGE)
			break;
	}
	return VM_FAULT_NOPAGE;
}

/*
 * Inserts a huge entry of PMD_ORDER, and up to HUGE_AROUND around it in the
 * same table. A VMM touches all memory, and one fault for each 2 MiB (4K pages)
 * would cost more than the entries. The result is that of the fault's own
 * entry. Leaves entries and page tables that are there already. Under the
 * table's insert_lock.
 */
static vm_fault_t insert_huge_around(struct vm_fault *vmf, unsigned long pfn)
{
	/* With larger pages, one fault should not fill a whole table. */
	const unsigned long around = min(PUD_SIZE, HUGE_AROUND * PMD_SIZE);
	struct vm_area_struct *vma = vmf->vma;
	unsigned long fault = vmf->address & PMD_MASK;
	unsigned long block = round_down(fault, around);
	unsigned long addr = max(block, round_up(vma->vm_start, PMD_SIZE));
	unsigned long end = min(block + around, vma->vm_end & PMD_MASK);
	pmd_t *pmd = vmf->pmd - (fault - addr) / PMD_SIZE;
	vm_fault_t ret;

	ret = compat_insert_huge_pfn(vmf, pfn, PMD_ORDER);
	if (ret != VM_FAULT_NOPAGE)
		return ret;

	for (; addr < end; addr += PMD_SIZE, pmd++) {
		struct vm_fault near = {
			.vma = vma,
			.gfp_mask = vmf->gfp_mask,
			.address = addr,
			.flags = vmf->flags,
			.pmd = pmd,
			.pud = vmf->pud,
		};

		if (addr != fault)
			compat_insert_huge_pfn(&near, addr_to_pfn(vma, addr),
					       PMD_ORDER);
	}
	return VM_FAULT_NOPAGE;
}

/*
 * Inserts 2^@order pages. Under the gate.
 *
 * When huge pages are switched off for a process, two of its threads may insert
 * a page and a huge entry at the same place. The kernel can't insert a page
 * into a huge entry, so insertions below one table of huge entries take turns.
 */
static vm_fault_t insert(struct nvgrace_gpu *gpu, struct vm_fault *vmf,
			 unsigned long pfn, unsigned int order)
{
	unsigned long table = (unsigned long)vmf->pmd & PAGE_MASK;
	vm_fault_t ret;

	/* The kernel makes sure that no table is in the way of a PUD entry. */
	if (order == PUD_ORDER)
		return compat_insert_huge_pfn(vmf, pfn, order); /* LCOV_EXCL_LINE: x86-64 only */

	table = hash_long(table, NVGRACE_GPU_INSERT_BITS);
	mutex_lock(&gpu->insert_lock[table]);
	ret = order ? insert_huge_around(vmf, pfn) : insert_around(vmf);
	mutex_unlock(&gpu->insert_lock[table]);
	return ret;
}

/*
 * Waits for the gate in a fault. The wait may be long, and a reset, a close or
 * another thread's mmap may need the fault's lock. So it is dropped, and the
 * fault is retried. If the kernel does not allow that, the fault fails without
 * a wait.
 */
static vm_fault_t fault_wait(struct vm_fault *vmf, struct nvgrace_gpu *gpu)
{
	struct file *file;

	if (!(vmf->flags & FAULT_FLAG_ALLOW_RETRY))
		return VM_FAULT_SIGBUS;
	if (vmf->flags & FAULT_FLAG_RETRY_NOWAIT)
		return VM_FAULT_RETRY;

	/* Without the lock, only the file keeps the device open. */
	file = get_file(vmf->vma->vm_file);
	release_fault_lock(vmf);
	/*
	 * A fault without its lock can only be retried. After a failed wait,
	 * that ends at once.
	 */
	nvgrace_gpu_gate_wait(gpu);
	fput(file);

	return VM_FAULT_RETRY;
}

static vm_fault_t handle_fault(struct vm_fault *vmf, unsigned int order)
{
	struct vm_area_struct *vma = vmf->vma;
	struct nvgrace_gpu_region *region = vma->vm_private_data;
	struct nvgrace_gpu *gpu = region->gpu;
	unsigned long size = PAGE_SIZE << order;
	unsigned long addr = vmf->address & ~(size - 1);
	unsigned long pfn;
	vm_fault_t ret;
	int err;

	/*
	 * mmap checked this and the mapping can't grow. Check again: an error
	 * here would expose other memory.
	 */
	if ((u64)first_page(vma) + vma_pages(vma) >
	    PHYS_PFN(nvgrace_gpu_mappable(region)))
		return VM_FAULT_SIGBUS;

	pfn = addr_to_pfn(vma, addr);
	/* A kernel that asks for another size would get the wrong memory. */
	if (order && ((order != PMD_ORDER && order != PUD_ORDER) ||
		      addr < vma->vm_start || addr + size > vma->vm_end ||
		      !IS_ALIGNED(pfn, 1UL << order)))
		return VM_FAULT_FALLBACK;

	err = nvgrace_gpu_gate_enter_fault(gpu);
	if (err == -EAGAIN)
		return fault_wait(vmf, gpu);
	if (err)
		return VM_FAULT_SIGBUS;
	ret = insert(gpu, vmf, pfn, order);
	nvgrace_gpu_gate_leave(gpu);
	return ret;
}

static vm_fault_t fault_order(struct vm_fault *vmf, unsigned int order)
{
	struct nvgrace_gpu_region *region = vmf->vma->vm_private_data;
	struct pci_dev *pdev = region->gpu->core.pdev;
	unsigned long pfn = addr_to_pfn(vmf->vma, vmf->address & PAGE_MASK);
	unsigned long address = vmf->address;
	u64 start = nvgrace_gpu_trace_start(fault);
	vm_fault_t ret;

	ret = handle_fault(vmf, order);
	/* Without @vmf: a fault that is to be retried has lost its VMA. */
	trace_nvgrace_gpu_fault(pdev, address, pfn, order, (__force u32)ret,
				start);
	return ret;
}

static vm_fault_t fault_page(struct vm_fault *vmf)
{
	return fault_order(vmf, 0);
}

static const struct vm_operations_struct region_vm_ops = {
	.fault = fault_page,
	COMPAT_HUGE_FAULT(fault_order)
};

static int map_region(struct nvgrace_gpu_region *region,
		      struct vm_area_struct *vma)
{
	u64 start, end;

	/* The kernel would copy pages, for which it has no struct page. */
	if (!(vma->vm_flags & VM_SHARED))
		return -EINVAL;

	if (vma->vm_flags & VM_EXEC)
		return -EPERM;

	start = (vma->vm_pgoff << PAGE_SHIFT) & VFIO_PCI_OFFSET_MASK;
	if (check_add_overflow(start, (u64)(vma->vm_end - vma->vm_start), &end))
		return -EOVERFLOW;
	if (end > nvgrace_gpu_mappable(region))
		return -EINVAL;

	vm_flags_clear(vma, VM_MAYEXEC);
	vm_flags_set(vma, VM_IO | VM_PFNMAP | VM_DONTEXPAND | VM_DONTDUMP);
	if (region->uncached) {
		vm_flags_set(vma, VM_ALLOW_ANY_UNCACHED);
		vma->vm_page_prot = pgprot_writecombine(vma->vm_page_prot);
	}
	vma->vm_private_data = region;
	vma->vm_ops = &region_vm_ops;
	return compat_mapping_add(&region->gpu->mapping, vma);
}

int nvgrace_gpu_region_mmap(struct vfio_device *core_vdev,
			    struct vm_area_struct *vma)
{
	struct nvgrace_gpu *gpu = to_nvgrace_gpu(core_vdev);
	unsigned int index = vma->vm_pgoff >> (VFIO_PCI_OFFSET_SHIFT - PAGE_SHIFT);
	struct nvgrace_gpu_region *region = nvgrace_gpu_region(gpu, index);
	int ret;

	if (!region)
		return vfio_pci_core_mmap(core_vdev, vma);

	ret = map_region(region, vma);
	trace_nvgrace_gpu_mmap(gpu->core.pdev, index,
			       (u64)first_page(vma) << PAGE_SHIFT,
			       vma->vm_end - vma->vm_start, ret);
	return ret;
}

/*
 * Finds @pfn, which has a memory error, in a VMA of the device, as a page
 * offset like vm_pgoff. The kernel calls it for every mapping of the device,
 * vfio-pci-core's too, under locks; must not sleep. Returns 0, or -ENOENT if
 * the VMA does not have it.
 */
static int pfn_to_pgoff(struct vm_area_struct *vma, unsigned long pfn,
			pgoff_t *pgoff)
{
	const struct nvgrace_gpu_region *region = vma->vm_private_data;
	unsigned long first;

	if (vma->vm_ops != &region_vm_ops)
		return -ENOENT;
	nvgrace_gpu_poison_report(region->gpu, pfn);
	first = addr_to_pfn(vma, vma->vm_start);
	if (pfn < first || pfn - first >= vma_pages(vma))
		return -ENOENT;

	*pgoff = vma->vm_pgoff + (pfn - first);
	return 0;
}

void nvgrace_gpu_region_init(struct nvgrace_gpu *gpu)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(gpu->insert_lock); i++)
		mutex_init(&gpu->insert_lock[i]);
}

/* vfio's index of the fake BAR that shows @region. */
static unsigned int bar_of(const struct nvgrace_gpu_region *region)
{
	return region->uncached ? VFIO_PCI_BAR2_REGION_INDEX :
				  VFIO_PCI_BAR4_REGION_INDEX;
}

void nvgrace_gpu_region_open(struct nvgrace_gpu_region *region)
{
	struct vfio_pci_core_device *core;
	int ret;

	if (!region->length)
		return;

	core = &region->gpu->core;
	compat_show_bar(core, bar_of(region), true);
	ret = compat_register_pfn_space(&region->pfn_space,
					compat_mapping_space(&region->gpu->mapping,
							     &core->vdev),
					PHYS_PFN(region->base),
					PHYS_PFN(nvgrace_gpu_mappable(region)),
					pfn_to_pgoff);
	/* Not fatal: the device can be used without. */
	if (ret && ret != -EOPNOTSUPP)
		dev_warn_ratelimited(&core->pdev->dev,
				     "can't register %s for memory errors (error %d); only the host log will show them\n",
				     region->uncached ? "resmem" : "usemem",
				     ret);
}

void nvgrace_gpu_region_close(struct nvgrace_gpu_region *region)
{
	if (!region->length)
		return;
	compat_unregister_pfn_space(&region->pfn_space);
	compat_show_bar(&region->gpu->core, bar_of(region), false);
}
