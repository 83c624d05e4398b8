// SPDX-License-Identifier: GPL-2.0-only
/*
 * What user space is told of the fake BARs, and their mappings.  device.c makes
 * these its operations; the fault path calls the handlers.
 *
 * Nothing is mapped at mmap time: pages go in when they are touched, so that a
 * reset can take them away and they come back by themselves, and a VMM that
 * maps 480 GB doesn't wait for it.  gate.c takes them away and says when they
 * may come back.
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

/* Huge entries that one fault inserts at the most: 1 GiB with 4K pages. */
#define HUGE_AROUND	512

/* Pages that one fault inserts where huge entries do not fit; at least a table. */
#define PAGES_AROUND	2048

int nvgrace_gpu_get_region_info(struct vfio_device *core_vdev,
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

	/* The BAR is a power of two, the memory is not: only it can be mapped. */
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

long nvgrace_gpu_ioctl(struct vfio_device *core_vdev, unsigned int cmd,
		       unsigned long arg)
{
	/* Memory has no doorbells, and the core knows nothing of these BARs. */
	if (cmd == VFIO_DEVICE_IOEVENTFD)
		return -ENOTTY;

	return compat_core_ioctl(core_vdev, cmd, arg);
}

/* Of the region's pages, the one that a VMA begins with. */
static unsigned long first_page(const struct vm_area_struct *vma)
{
	return vma->vm_pgoff & (VFIO_PCI_OFFSET_MASK >> PAGE_SHIFT);
}

/* The pfn that belongs to @addr of a VMA of ours. */
static unsigned long addr_to_pfn(const struct vm_area_struct *vma,
				 unsigned long addr)
{
	struct nvgrace_gpu_region *region = vma->vm_private_data;

	return PHYS_PFN(region->base) + first_page(vma) +
	       ((addr - vma->vm_start) >> PAGE_SHIFT);
}

/*
 * Inserts the pages of the page tables around the fault, so that memory which
 * can't have huge entries costs a fault for each 8 MiB (4K pages), 32 MiB (16K)
 * or 512 MiB (64K) rather than one a page.  Where huge entries fit, only those of
 * one table, as the others are better left to them.  The faulting page decides
 * the result; the others are a courtesy, and are left to a later fault where
 * they can't be had.  Under the insert_lock of these tables.
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

	/* Another thread was faster, with a huge entry: that will do. */
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
 * Inserts one huge entry, of PMD_ORDER, and up to HUGE_AROUND of them around it
 * in the same table: a VMM touches all of the memory, and faults of its own for
 * each 2 MiB (4K pages) would cost more than the entries.  The fault's own entry
 * decides the result.  An entry or a page table that is there already, stays.
 * Under the table's insert_lock.
 */
static vm_fault_t insert_huge_around(struct vm_fault *vmf, unsigned long pfn)
{
	/* With larger pages, a table is larger than one fault should fill. */
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
 * Inserts 2^@order pages.  Under the gate.
 *
 * A page and a huge entry may be inserted at the same place at the same time,
 * where threads fault before and after huge pages are switched off for their
 * process.  The kernel can't insert a page where a huge entry is, so insertions
 * below one table of huge entries take turns.
 */
static vm_fault_t insert(struct nvgrace_gpu *gpu, struct vm_fault *vmf,
			 unsigned long pfn, unsigned int order)
{
	unsigned long table = (unsigned long)vmf->pmd & PAGE_MASK;
	vm_fault_t ret;

	/* Above, the kernel sees to it that no table below is in the way. */
	if (order > PMD_ORDER)
		return compat_insert_huge_pfn(vmf, pfn, order);

	table = hash_long(table, NVGRACE_GPU_INSERT_BITS);
	mutex_lock(&gpu->insert_lock[table]);
	ret = order ? insert_huge_around(vmf, pfn) : insert_around(vmf);
	mutex_unlock(&gpu->insert_lock[table]);
	return ret;
}

/*
 * Waits for the gate in a fault.  The wait may be long, and a reset, a close or
 * another thread's mmap may want the lock that the fault came with: so it is
 * dropped, and the fault tried again.  Where the kernel doesn't allow that, the
 * fault must not wait.
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
	/* The fault comes again, and finds out whether this has succeeded. */
	nvgrace_gpu_wait(gpu);
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
	 * mmap checked this and the mapping can't grow.  Check again: an error
	 * here would expose other memory.
	 */
	if ((u64)first_page(vma) + vma_pages(vma) >
	    PHYS_PFN(nvgrace_gpu_mappable(region)))
		return VM_FAULT_SIGBUS;

	pfn = addr_to_pfn(vma, addr);
	if (order && (addr < vma->vm_start || addr + size > vma->vm_end ||
		      !IS_ALIGNED(pfn, 1UL << order)))
		return VM_FAULT_FALLBACK;

	err = nvgrace_gpu_enter_fault(gpu);
	if (err == -EAGAIN)
		return fault_wait(vmf, gpu);
	if (err)
		return VM_FAULT_SIGBUS;
	ret = insert(gpu, vmf, pfn, order);
	nvgrace_gpu_leave(gpu);
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
	/* Without @vmf: a fault that is to come again has lost its VMA. */
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

	/* A private mapping would make the kernel copy pages that it has not. */
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

int nvgrace_gpu_mmap(struct vfio_device *core_vdev, struct vm_area_struct *vma)
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
 * Where a VMA of the device has @pfn: as a page offset like vm_pgoff.  Called
 * for every mapping of the device, vfio-pci-core's too, when @pfn turns out bad;
 * under locks, so it must not sleep.  Returns 0, or -ENOENT if it isn't there.
 */
static int pfn_to_pgoff(struct vm_area_struct *vma, unsigned long pfn,
			pgoff_t *pgoff)
{
	unsigned long first;

	if (vma->vm_ops != &region_vm_ops)
		return -ENOENT;
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

void nvgrace_gpu_region_open(struct nvgrace_gpu_region *region)
{
	struct vfio_pci_core_device *core;
	int ret;

	if (!region->length)
		return;

	core = &region->gpu->core;
	region->pfn_space = kzalloc(sizeof(*region->pfn_space), GFP_KERNEL);
	if (!region->pfn_space)
		ret = -ENOMEM;
	else
		ret = compat_register_pfn_space(region->pfn_space,
						compat_mapping_space(&region->gpu->mapping,
								     &core->vdev),
						PHYS_PFN(region->base),
						PHYS_PFN(nvgrace_gpu_mappable(region)),
						pfn_to_pgoff);
	/* The device is of use without. */
	if (ret && ret != -EOPNOTSUPP)
		dev_warn_ratelimited(&core->pdev->dev,
				     "memory errors of %s won't reach its user (error %d)\n",
				     region->uncached ? "resmem" : "usemem",
				     ret);
}

void nvgrace_gpu_region_close(struct nvgrace_gpu_region *region)
{
	if (region->pfn_space)
		compat_unregister_pfn_space(region->pfn_space);
	kfree(region->pfn_space);
	region->pfn_space = NULL;
}
