/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The driver's own header: what one bound GPU is, and what each source file
 * offers the others.  Data flows one way: probe.c fills the regions before
 * anything else can run; region.c, cfgemu.c and rw.c read them, know nothing
 * of ACPI, and never call each other.
 */
#ifndef NVGRACE_GPU_H
#define NVGRACE_GPU_H

#include <linux/mutex.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/vfio_pci_core.h>

struct compat_pfn_space;
struct nvgrace_gpu;

/*
 * One part of the GPU's memory and the fake BAR that shows it.  Everything but
 * bar_written, pfn_space and window is constant from probe to release.
 */
struct nvgrace_gpu_region {
	struct nvgrace_gpu *gpu;

	/* Physical address of the first byte, page aligned. */
	phys_addr_t base;

	/* Bytes of memory; 0 says that this device has no such region. */
	u64 length;

	/* Bytes of the BAR, a power of two: @length rounded up. */
	u64 bar_size;

	/* Map as Normal non-cacheable (write-combine) instead of write-back. */
	bool uncached;

	/* What user space wrote to the BAR register; bar_lock of the GPU. */
	u64 bar_written;

	/*
	 * How the kernel finds who has mapped a page that turns out bad, while
	 * the device is open.  Owned by region.c.
	 */
	struct compat_pfn_space *pfn_space;

	/*
	 * Kernel mappings for read and write, one pointer for each window of
	 * RW_WINDOW bytes, NULL until first used.  Owned by rw.c; set under
	 * window_lock of the GPU, read without, cleared when the device is
	 * closed and nobody can read them.
	 */
	void **window;
};

/**
 * struct nvgrace_gpu - one bound GPU
 * @core: what vfio-pci-core knows of it; first, as vfio_alloc_device() demands.
 *	Its memory_lock is taken for read around every access to GPU memory
 *	and every insertion of a pfn, and never around user memory.
 * @usemem: the cacheable memory, shown as BAR4
 * @resmem: the non-cacheable memory, shown as BAR2; absent on parts without
 *	the MIG defect
 * @link: this GPU in the list of bound GPUs; protected by probe.c's lock
 * @range_start: first physical address that firmware gave the GPU
 * @range_last: last physical address that firmware gave the GPU
 * @bar_lock: protects bar_written of both regions, and writes to resets
 * @resets: counts the resets, whoever made them; may wrap; read anywhere
 * @ready_lock: serialises the waits for readiness, so that one task asks the
 *	device for all; taken without other locks, may be held for long, and
 *	killable
 * @ready_for: @resets as it was before the memory was found ready; any task
 *	that has looked writes it, under memory_lock
 * @failed_for: @resets as it was before a wait ended without success; written
 *	under ready_lock, read anywhere
 * @cxl_dvsec: config offset of the CXL Device DVSEC; 0 on legacy parts
 * @bar0: registers of legacy parts, mapped at probe and while the device is open
 * @window_lock: protects the making of kernel mappings by rw.c, which sleeps;
 *	never taken under memory_lock
 * @saved_state: config space as it was at the end of probe, for after a reset
 *	that restores nothing; NULL if there was no memory for it
 * @link_state: what AER makes of the link; written by the error handlers, which the
 *	AER core serialises, under memory_lock
 */
struct nvgrace_gpu {
	struct vfio_pci_core_device core;
	struct nvgrace_gpu_region usemem;
	struct nvgrace_gpu_region resmem;
	struct list_head link;
	phys_addr_t range_start;
	phys_addr_t range_last;
	spinlock_t bar_lock;		/* protects bar_written, resets */
	unsigned int resets;
	struct mutex ready_lock;	/* one wait at a time; failed_for */
	unsigned int ready_for;
	unsigned int failed_for;
	u16 cxl_dvsec;
	void __iomem *bar0;
	struct mutex window_lock;	/* protects window[] while it is filled */
	struct pci_saved_state *saved_state;
	enum nvgrace_gpu_link {
		NVGRACE_GPU_LINK_UP,
		NVGRACE_GPU_LINK_RESET,	/* being reset, and to come back */
		NVGRACE_GPU_LINK_LOST,	/* could not be reset */
	} link_state;
};

static inline struct nvgrace_gpu *to_nvgrace_gpu(struct vfio_device *core_vdev)
{
	return container_of(core_vdev, struct nvgrace_gpu, core.vdev);
}

/* Bytes that can be mapped: a page that is not all memory is left out. */
static inline u64
nvgrace_gpu_mappable(const struct nvgrace_gpu_region *region)
{
	return round_down(region->length, PAGE_SIZE);
}

/*
 * The region behind vfio region @index (VFIO_PCI_BAR0_REGION_INDEX, ...), or
 * NULL if that index is vfio-pci-core's to answer.
 */
static inline struct nvgrace_gpu_region *
nvgrace_gpu_region(struct nvgrace_gpu *gpu, unsigned int index)
{
	struct nvgrace_gpu_region *region = NULL;

	if (index == VFIO_PCI_BAR4_REGION_INDEX)
		region = &gpu->usemem;
	else if (index == VFIO_PCI_BAR2_REGION_INDEX)
		region = &gpu->resmem;

	return region && region->length ? region : NULL;
}

/* ready.c */

/*
 * Waits until the memory may be touched: legacy parts for at most 30 s, others
 * as long as their CXL DVSEC says.  Called from probe with the device in D0 and
 * disabled.  Sleeps.  Returns 0, -ETIME (never ready, one line in the log),
 * -EINTR (the waiting task is being killed), -ENODEV (gone, or no GPU) or what
 * enabling the device and mapping BAR0 returned.
 */
int nvgrace_gpu_ready_probe(struct nvgrace_gpu *gpu);

/* Between these two, nvgrace_gpu_wait_ready() may be called.  0 or -ENOMEM. */
int nvgrace_gpu_ready_open(struct nvgrace_gpu *gpu);
void nvgrace_gpu_ready_close(struct nvgrace_gpu *gpu);

/*
 * Whether the memory was found ready since the last reset.  To touch it, ask
 * under memory_lock, since a reset may come at any time without.
 */
static inline bool nvgrace_gpu_is_ready(struct nvgrace_gpu *gpu)
{
	/* Pairs with the release in ready.c: ready first, then touched. */
	return smp_load_acquire(&gpu->ready_for) == READ_ONCE(gpu->resets);
}

/* Whether a wait has ended without success since the last reset. */
static inline bool nvgrace_gpu_has_failed(struct nvgrace_gpu *gpu)
{
	return READ_ONCE(gpu->failed_for) == READ_ONCE(gpu->resets);
}

/*
 * Called when the device may have fallen asleep, with its memory: whoever
 * touches that next looks again.  Any context.
 */
void nvgrace_gpu_forget_ready(struct nvgrace_gpu *gpu);

/*
 * Looks once, without a wait, and remembers what it has seen.  Called under
 * memory_lock with the device awake.  Returns 0 (ready), -EAGAIN (a wait may
 * help) or -EIO (it won't: it has failed since the last reset, or the device
 * can't be asked).
 */
int nvgrace_gpu_look_ready(struct nvgrace_gpu *gpu);

/*
 * Waits as above, after a reset.  Called without memory_lock and, in a fault,
 * without the lock of the address space: the wait may take long, and holds
 * nothing that a reset, a close or a fatal signal needs.  Returns 0, -EINTR
 * (the task is being killed) or -EIO: not ready in time, gone, or not to be
 * asked while memory is disabled in PCI_COMMAND.
 */
int nvgrace_gpu_wait_ready(struct nvgrace_gpu *gpu);

/* region.c */

/* The get_region_info_caps, ioctl and mmap operations of vfio_device_ops. */
int nvgrace_gpu_get_region_info(struct vfio_device *core_vdev,
				struct vfio_region_info *info,
				struct vfio_info_cap *caps);
long nvgrace_gpu_ioctl(struct vfio_device *core_vdev, unsigned int cmd,
		       unsigned long arg);
int nvgrace_gpu_mmap(struct vfio_device *core_vdev,
		     struct vm_area_struct *vma);

/*
 * Takes all mappings of both parts away, to come back by faults, where the
 * kernel knows them.  Under memory_lock, taken for write.
 */
void nvgrace_gpu_zap(struct nvgrace_gpu *gpu);

/*
 * Between these two, memory errors of the region's pages reach who has mapped
 * them, where the kernel can.  With the device open and before anybody can map
 * it, and when nobody has it mapped any more.  Sleep; close after close does
 * nothing.
 */
void nvgrace_gpu_region_open(struct nvgrace_gpu_region *region);
void nvgrace_gpu_region_close(struct nvgrace_gpu_region *region);

/* dmabuf.c */

/* Lets vfio-pci-core export dma-bufs; before the device is registered. */
void nvgrace_gpu_dmabuf_init(struct nvgrace_gpu *gpu);

/*
 * Between these two, the fake BARs can be exported.  Called right after
 * vfio_pci_core_enable() and, with no user left, before
 * vfio_pci_core_close_device() or vfio_pci_core_disable().
 */
void nvgrace_gpu_dmabuf_open(struct nvgrace_gpu *gpu);
void nvgrace_gpu_dmabuf_close(struct nvgrace_gpu *gpu);

/* sysfs.c */

/* Attributes of a bound device, and of the driver. */
extern const struct attribute_group *nvgrace_gpu_dev_groups[];
extern const struct attribute_group *nvgrace_gpu_driver_groups[];

/* cfgemu.c */

/* Sets all fake registers to 0, as a reset does.  Process context; does not sleep. */
void nvgrace_gpu_config_reset(struct nvgrace_gpu *gpu);

/*
 * Read and write config space at *@ppos (the region's index in the high bits,
 * as everywhere in vfio-pci).  Return the full count and advance *@ppos, or
 * return -EFAULT or vfio-pci-core's error and leave *@ppos alone.  Called
 * without locks; sleep.
 */
ssize_t nvgrace_gpu_config_read(struct nvgrace_gpu *gpu, char __user *buf,
				size_t count, loff_t *ppos);
ssize_t nvgrace_gpu_config_write(struct nvgrace_gpu *gpu,
				 const char __user *buf, size_t count,
				 loff_t *ppos);

/* rw.c */

/*
 * Makes room for the kernel mappings of @region, which must have its length.
 * Freed with the device @dev.  Returns 0 or -ENOMEM.
 */
int nvgrace_gpu_rw_init(struct device *dev, struct nvgrace_gpu_region *region);

/* Drops the kernel mappings of @region; nobody may be in the two below. */
void nvgrace_gpu_rw_unmap(struct nvgrace_gpu_region *region);

/*
 * Read and write GPU memory through the fake BAR at *@ppos.  Return the bytes
 * done, at least one, and advance *@ppos by them; or return -EINVAL (beyond
 * the BAR), -EFAULT, -EINTR (the task is being killed), -EIO (the device does
 * not wake up, or its memory not become ready) or -ENOMEM.  Called without
 * locks; sleep.
 */
ssize_t nvgrace_gpu_region_read(struct nvgrace_gpu_region *region,
				char __user *buf, size_t count, loff_t *ppos);
ssize_t nvgrace_gpu_region_write(struct nvgrace_gpu_region *region,
				 const char __user *buf, size_t count,
				 loff_t *ppos);

#endif /* NVGRACE_GPU_H */
