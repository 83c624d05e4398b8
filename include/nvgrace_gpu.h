/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The driver's own header: what one bound GPU is, and what each source file
 * offers the others.  Data flows one way: probe.c fills the regions before
 * anything else can run; region.c, cfgemu.c and rw.c read them, know nothing
 * of ACPI, and never call each other.  Whether the memory may be touched, they
 * ask gate.c.
 */
#ifndef NVGRACE_GPU_H
#define NVGRACE_GPU_H

#include <linux/atomic.h>
#include <linux/ktime.h>
#include <linux/mutex.h>
#include <linux/notifier.h>
#include <linux/ratelimit.h>
#include <linux/rwsem.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/vfio_pci_core.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "compat/mapping.h"

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
	 * window_lock of the GPU, read with its gate held for read, cleared with
	 * the gate held for write.
	 */
	void **window;
};

/* What is known of the memory's content. */
enum nvgrace_gpu_scrub_state {
	NVGRACE_GPU_SCRUB_UNKNOWN,	/* not scrubbed since it was bound */
	NVGRACE_GPU_SCRUB_RUNNING,	/* being overwritten now */
	NVGRACE_GPU_SCRUB_CLEAN,	/* all zeros, and not opened since */
	NVGRACE_GPU_SCRUB_DIRTY,	/* opened since it was last clean */
	NVGRACE_GPU_SCRUB_FAILED,	/* the last scrub failed */
};

/**
 * struct nvgrace_gpu_scrub - the clearing of one GPU's memory; owned by scrub.c
 * @lock: protects what follows up to @begun; taken with nothing of this
 *	driver's held, never for long
 * @state: what is known of the content; read without the lock, too
 * @open: somebody has the device open, or opens it now: no scrub may begin
 * @must_reset: the GPU itself may still write to its memory
 * @attempts: changes at the end of each attempt, and may wrap
 * @stopping: the GPU is being unbound or shut down: nobody opens it any more
 * @doubted: what is found clean now may be not, so that it takes another attempt
 * @begun: whoever unbinds the device has made it accessible for the attempt
 * @held: close_device() keeps the GPU awake for the scrub that follows
 * @ended: waits for @attempts to change
 * @work: the attempt
 * @error: what stops the attempt that runs; 0 if nothing does
 * @epoch: of the gate when the attempt began
 * @progress: bytes that the attempt that runs, or the last one, has overwritten
 * @next_usemem: offset of the next bytes that a worker takes
 * @next_resmem: the same of the other part
 * @flush_ns: time that all workers together took for caches
 * @report_limit: how often failures may write into the log
 */
struct nvgrace_gpu_scrub {
	struct mutex lock;		/* see above */
	enum nvgrace_gpu_scrub_state state;
	bool open;
	bool must_reset;
	unsigned int attempts;
	bool stopping;
	bool doubted;
	bool begun;
	bool held;
	wait_queue_head_t ended;
	struct work_struct work;
	int error;
	unsigned int epoch;
	atomic64_t progress;
	atomic64_t next_usemem;
	atomic64_t next_resmem;
	atomic64_t flush_ns;
	struct ratelimit_state report_limit;
};

/* Faults that may meet in one table of huge entries take the same of 2^4 locks. */
#define NVGRACE_GPU_INSERT_BITS	4

/**
 * struct nvgrace_gpu - one bound GPU
 * @core: what vfio-pci-core knows of it; first, as vfio_alloc_device() demands.
 *	Its memory_lock keeps vfio-pci-core's resets and power changes away.
 * @usemem: the cacheable memory, shown as BAR4
 * @resmem: the non-cacheable memory, shown as BAR2; absent on GPUs without the
 *	MIG defect
 * @link_entry: this GPU in the list of bound GPUs; protected by probe.c's lock
 * @range_start: first physical address that firmware gave the GPU
 * @range_last: last physical address that firmware gave the GPU
 * @bar_lock: protects bar_written of both regions, and writes to @resets
 * @resets: changes with each reset, and may wrap; for cfgemu.c
 * @gate: nests in memory_lock.  Held for read around every access to GPU memory
 *	and every insertion of a pfn, never while a fault on user memory is handled;
 *	for write to
 *	change what gate.c owns.  Protects @epoch, @closed, @link, @recovery_end
 *	and the kernel mappings of both regions.
 * @epoch: changes when what was known of readiness is void, and may wrap
 * @closed: why nobody may enter now, bits of gate.c; 0 if the gate is open
 * @opened: waits for @closed to become 0, or @config_writer NULL
 * @config_writer: the task that is changing power or decoding in config space;
 *	NULL if there is none
 * @link: what the AER core says of the link
 * @recovery_end: when error recovery counts as failed
 * @last_wait: until when anybody waits for the gate; KTIME_MAX before the end
 * @ready_for: @epoch as it was when the memory was last found ready
 * @failed_for: @epoch as it was when a wait ended without success
 * @report_limit: how often failed waits may write into the log
 * @ready_lock: one wait for readiness at a time; may be held for long, taken
 *	without other locks, and killable
 * @insert_lock: protect tables of huge entries, and page tables below them,
 *	against two sizes of entries; nest in @gate
 * @cxl_dvsec: config offset of the CXL Device DVSEC; 0 on legacy GPUs
 * @bar0: registers of legacy GPUs, mapped at probe and while the device is open
 * @window_lock: protects the making of kernel mappings by rw.c, which sleeps;
 *	nests in @gate
 * @saved_state: config space as it was at the end of probe, for after a reset
 *	that restores nothing; NULL if there was no memory for it
 * @suspend: the host's suspend and resume
 * @mapping: how to find what user space has mapped
 * @scrub: the clearing of its memory between users
 */
struct nvgrace_gpu {
	struct vfio_pci_core_device core;
	struct nvgrace_gpu_region usemem;
	struct nvgrace_gpu_region resmem;
	struct list_head link_entry;
	phys_addr_t range_start;
	phys_addr_t range_last;
	spinlock_t bar_lock;		/* protects bar_written, resets */
	unsigned int resets;
	struct rw_semaphore gate;	/* protects what gate.c owns */
	unsigned int epoch;
	unsigned int closed;
	wait_queue_head_t opened;
	struct task_struct *config_writer;
	enum nvgrace_gpu_link {
		NVGRACE_GPU_LINK_OK,
		NVGRACE_GPU_LINK_ERROR,		/* an error; recovery goes on */
		NVGRACE_GPU_LINK_FROZEN,	/* the same, with a link reset */
		NVGRACE_GPU_LINK_FAILED,	/* recovery of that has failed */
	} link;
	ktime_t recovery_end;
	ktime_t last_wait;
	unsigned int ready_for;
	unsigned int failed_for;
	struct ratelimit_state report_limit;
	struct mutex ready_lock;	/* one wait at a time */
	struct mutex insert_lock[1 << NVGRACE_GPU_INSERT_BITS]; /* page tables */
	u16 cxl_dvsec;
	void __iomem *bar0;
	struct mutex window_lock;	/* protects window[] while it is filled */
	struct pci_saved_state *saved_state;
	struct notifier_block suspend;
	struct compat_mapping mapping;
	struct nvgrace_gpu_scrub scrub;
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

/* ---- gate.c: may the memory be touched now? ------------------------------ */

/*
 * Everything that touches GPU memory or maps it does so between one of these
 * two and nvgrace_gpu_leave().  In between no reset begins, the memory is ready
 * and the GPU awake.  Both take memory_lock and the gate for read.
 *
 * nvgrace_gpu_enter() waits for the end of a reset and for readiness.  Called
 * without locks; sleeps.  Returns 0; -EINTR (the task is being killed); -EIO: in
 * D3, not decoding, not ready in time, or lost; or, unless the caller keeps the
 * GPU @awake, -EBUSY: it may be asleep, so try again with that.  A GPU is awake
 * but for user space's wish, and keeping it so costs as much as a small access.
 *
 * nvgrace_gpu_enter_fault() does not wait.  Called with the lock of the address
 * space.  Returns the same, and -EAGAIN where a wait may help; -EIO also while
 * user space wants low power, since no fault can keep the GPU awake.
 */
int nvgrace_gpu_enter(struct nvgrace_gpu *gpu, bool awake);
int nvgrace_gpu_enter_fault(struct nvgrace_gpu *gpu);
void nvgrace_gpu_leave(struct nvgrace_gpu *gpu);

/*
 * Whether somebody waits for the caller to leave, such as a reset.  Between enter
 * and leave.
 */
bool nvgrace_gpu_gate_wanted(struct nvgrace_gpu *gpu);

/*
 * A number that changes when whatever may cost the memory its training or its
 * content begins: a reset, an error on the link, a loss of power.  It may wrap.
 * Between enter and leave.
 */
unsigned int nvgrace_gpu_epoch(struct nvgrace_gpu *gpu);

/*
 * Waits until nvgrace_gpu_enter_fault() may succeed.  Called without any lock:
 * the wait may be long, and holds nothing that a reset, a close or a fatal
 * signal needs.  Returns 0, -EINTR or -EIO.
 */
int nvgrace_gpu_wait(struct nvgrace_gpu *gpu);

/*
 * Waits until the memory may be exported, since a peer can't wait later.  While
 * the GPU does not decode memory there is nothing to wait for: vfio-pci-core
 * revokes such an export at once.  Called without any lock.  Returns as
 * nvgrace_gpu_enter() does.
 */
int nvgrace_gpu_wait_export(struct nvgrace_gpu *gpu);

/*
 * Between these two the GPU is awake, whatever user space wants.  The first
 * returns 0 or -EIO (it does not wake up).  Called without locks; sleep.
 */
int nvgrace_gpu_keep_awake(struct nvgrace_gpu *gpu);
void nvgrace_gpu_let_sleep(struct nvgrace_gpu *gpu);

/*
 * Around every write of user space to @count bytes at @offset of config space,
 * which may change power or decoding.  In between, the memory may be out of
 * reach for the calling task.  The first returns 0, or -EINTR (the task is being
 * killed), and then the second must not be called.  Called without locks; sleep.
 */
int nvgrace_gpu_config_write_begin(struct nvgrace_gpu *gpu, u64 offset,
				   size_t count);
void nvgrace_gpu_config_write_end(struct nvgrace_gpu *gpu, u64 offset,
				  size_t count);

/*
 * The GPU may lose power from now on, and its memory with it: removes all
 * mappings and forgets readiness.  Called without locks; sleeps.
 */
void nvgrace_gpu_asleep(struct nvgrace_gpu *gpu);

/* What is known of the memory since the last reset; a glance without locks. */
enum nvgrace_gpu_readiness {
	NVGRACE_GPU_UNKNOWN,
	NVGRACE_GPU_READY,
	NVGRACE_GPU_FAILED,
};

enum nvgrace_gpu_readiness nvgrace_gpu_readiness(struct nvgrace_gpu *gpu);

/*
 * From probe to remove: init first.  wait_probe waits until the memory is
 * ready: legacy GPUs for at most 30 s, others as long as their CXL DVSEC says.
 * It is called with the GPU in D0 and disabled, and returns 0, -ETIME (never
 * ready, one line in the log), -EINTR (the task is being killed), -ENODEV (gone,
 * or no GPU), -EIO (it does not decode memory) or what enabling the GPU and
 * mapping BAR0 returned.  start comes last before the device is registered, and
 * returns 0 or -ENOMEM; stop after it is unregistered.  open comes after
 * vfio_pci_core_enable(), close before vfio_pci_core_close_device(), and after a
 * scrub, for which there is no open.  Called without locks; sleep.
 */
void nvgrace_gpu_gate_init(struct nvgrace_gpu *gpu);
int nvgrace_gpu_wait_probe(struct nvgrace_gpu *gpu);
int nvgrace_gpu_gate_start(struct nvgrace_gpu *gpu);
void nvgrace_gpu_gate_open(struct nvgrace_gpu *gpu);
void nvgrace_gpu_gate_close(struct nvgrace_gpu *gpu);
void nvgrace_gpu_gate_stop(struct nvgrace_gpu *gpu);

/*
 * For scrub.c.  finish: the GPU is being unbound or shut down, so that waits for
 * the gate end after @ms at the most, with -EIO, and a host that was about to
 * sleep holds nobody off any more.  is_late: whether that time is over.
 * suspended: whether the host is about to sleep, or asleep; with the device lock
 * held, that does not begin.  Without locks but that one; finish sleeps.
 */
void nvgrace_gpu_gate_finish(struct nvgrace_gpu *gpu, unsigned int ms);
bool nvgrace_gpu_gate_is_late(struct nvgrace_gpu *gpu);
bool nvgrace_gpu_gate_suspended(struct nvgrace_gpu *gpu);

/* For the PCI core: resets and errors. */
extern const struct pci_error_handlers nvgrace_gpu_error_handlers;

/* ---- ready.c: is the memory trained? ------------------------------------- */

/* What was read since a wait began, for its end and for the log. */
struct nvgrace_gpu_training {
	ktime_t start;
	ktime_t deadline;
	bool valid;		/* CXL: Memory_Info_Valid was seen */
	u32 c2c;
	u32 hbm;
	u32 range;
};

/* Starts the clock. */
void nvgrace_gpu_training_start(struct nvgrace_gpu *gpu,
				struct nvgrace_gpu_training *training);

/* Whether the time is over that the GPU has; what was read may extend it. */
bool nvgrace_gpu_training_late(const struct nvgrace_gpu_training *training);

/*
 * Reads the registers once.  0 (trained), -EAGAIN (not yet) or -ENODEV (gone).
 * For gate.c, which has made sure that they can be read.
 */
int nvgrace_gpu_training_look(struct nvgrace_gpu *gpu,
			      struct nvgrace_gpu_training *training);

/* Logs why a wait ended with @err, -ETIME or -ENODEV. */
void nvgrace_gpu_training_report(struct nvgrace_gpu *gpu,
				 const struct nvgrace_gpu_training *training,
				 int err);

/*
 * find comes first, at probe: which of the two kinds this GPU has.  The registers
 * can be read between map and unmap, with the device enabled, and between begin
 * and end, which enable it themselves: while nobody has it open.  Sleep.
 * Return 0, -ENODEV (no such registers, one line in the log), -ENOMEM, or what
 * enabling the device returned.
 */
void nvgrace_gpu_registers_find(struct nvgrace_gpu *gpu);
int nvgrace_gpu_registers_map(struct nvgrace_gpu *gpu);
void nvgrace_gpu_registers_unmap(struct nvgrace_gpu *gpu);
int nvgrace_gpu_registers_begin(struct nvgrace_gpu *gpu);
void nvgrace_gpu_registers_end(struct nvgrace_gpu *gpu);

/* ---- device.c ------------------------------------------------------------ */

/*
 * The operations of a GPU with memory, and of one without, which is a plain PCI
 * device to this driver.
 */
extern const struct vfio_device_ops nvgrace_gpu_memory_ops;
extern const struct vfio_device_ops nvgrace_gpu_core_only_ops;

/* ---- region.c ------------------------------------------------------------ */

/* At probe. */
void nvgrace_gpu_region_init(struct nvgrace_gpu *gpu);

/* The get_region_info_caps, ioctl and mmap operations of vfio_device_ops. */
int nvgrace_gpu_get_region_info(struct vfio_device *core_vdev,
				struct vfio_region_info *info,
				struct vfio_info_cap *caps);
long nvgrace_gpu_ioctl(struct vfio_device *core_vdev, unsigned int cmd,
		       unsigned long arg);
int nvgrace_gpu_mmap(struct vfio_device *core_vdev,
		     struct vm_area_struct *vma);

/*
 * Between these two, memory errors of the region's pages reach who has mapped
 * them, where the kernel can.  With the device open and before anybody can map
 * it, and when nobody has it mapped any more.  Sleep; close after close does
 * nothing.
 */
void nvgrace_gpu_region_open(struct nvgrace_gpu_region *region);
void nvgrace_gpu_region_close(struct nvgrace_gpu_region *region);

/* ---- dmabuf.c ------------------------------------------------------------ */

/* Lets vfio-pci-core export dma-bufs; before the device is registered. */
void nvgrace_gpu_dmabuf_init(struct nvgrace_gpu *gpu);

/*
 * Between these two, the fake BARs can be exported.  Called right after
 * vfio_pci_core_enable() and, with no user left, before
 * vfio_pci_core_close_device() or vfio_pci_core_disable().
 */
void nvgrace_gpu_dmabuf_open(struct nvgrace_gpu *gpu);
void nvgrace_gpu_dmabuf_close(struct nvgrace_gpu *gpu);

/* ---- sysfs.c ------------------------------------------------------------- */

/* Attributes of a bound device, and of the driver. */
extern const struct attribute_group *nvgrace_gpu_dev_groups[];
extern const struct attribute_group *nvgrace_gpu_driver_groups[];

/* ---- cfgemu.c ------------------------------------------------------------ */

/*
 * Sets all fake registers to 0 and counts a reset.  Process context; does not
 * sleep.
 */
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

/* ---- rw.c ---------------------------------------------------------------- */

/*
 * Makes room for the kernel mappings of @region, which must have its length.
 * Freed with the device @dev.  Returns 0 or -ENOMEM.
 */
int nvgrace_gpu_rw_init(struct device *dev, struct nvgrace_gpu_region *region);

/*
 * Drops the kernel mappings of both parts; the next access makes them anew.
 * With the gate held for write.  Sleeps.
 */
void nvgrace_gpu_rw_unmap(struct nvgrace_gpu *gpu);

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

/*
 * Overwrites @len bytes at @offset of @region with zeros, all inside one window
 * of 1 GiB, and sees to it that they have left the CPUs' caches.  Adds the
 * nanoseconds that the caches took to *@flush_ns.  0; -EAGAIN: nothing was done,
 * since nvgrace_gpu_epoch() is not @epoch; -EIO or -ENOMEM.  Called without
 * locks, with the GPU kept awake; sleeps.
 */
int nvgrace_gpu_region_zero(struct nvgrace_gpu_region *region, u64 offset,
			    u64 len, unsigned int epoch, u64 *flush_ns);

/* ---- scrub.c ------------------------------------------------------------- */

/* What is known of the memory's content; a glance without locks. */
enum nvgrace_gpu_scrub_state nvgrace_gpu_scrub_state(struct nvgrace_gpu *gpu);

/* Whether the parameter wants memory to be clean for each user. */
bool nvgrace_gpu_scrub_wanted(void);

/* Bytes that the scrub that runs, or the last one, has overwritten. */
u64 nvgrace_gpu_scrub_progress(struct nvgrace_gpu *gpu);

/*
 * Begins a scrub, which goes on in the background; does nothing if one runs.  0,
 * or -EBUSY: the device is open, or about to be gone.  For administrators; called
 * without locks.
 */
int nvgrace_gpu_scrub_start(struct nvgrace_gpu *gpu);

/*
 * Around each use of the device.  begin comes before vfio_pci_core_enable() and,
 * if that is wanted, waits until the memory is clean: 0, -EINTR (the task is
 * being killed), -ERESTARTNOINTR (a signal, or the host's suspend), -EIO (it could
 * not be cleaned, one line in the log) or -ENODEV (about to be gone).  After it
 * comes either cancel, if the device could not be opened; or used, before anybody
 * can touch the memory, and then closing and end, around
 * vfio_pci_core_close_device().  Called without locks of this driver, with that of
 * vfio's device set; sleep.
 */
int nvgrace_gpu_scrub_begin(struct nvgrace_gpu *gpu);
void nvgrace_gpu_scrub_cancel(struct nvgrace_gpu *gpu);
void nvgrace_gpu_scrub_used(struct nvgrace_gpu *gpu);
void nvgrace_gpu_scrub_closing(struct nvgrace_gpu *gpu);
void nvgrace_gpu_scrub_end(struct nvgrace_gpu *gpu);

/*
 * init comes at probe.  binding comes before the device is registered, with the
 * device lock held, and bound after that; they begin the first scrub if that is
 * wanted.  stop comes when unbinding begins to wait for users, with the device
 * lock held: opens that wait fail, since what they wait for may want that lock.
 * finish comes at shutdown and after the device was unregistered, with the device
 * lock held: waits for a scrub, and does one that is wanted and still missing,
 * unless the device is open.  It takes no longer than a minute, a second for each
 * GiB, a reset, and two waits for readiness.  doubt: what is known of the content
 * is void.
 */
void nvgrace_gpu_scrub_init(struct nvgrace_gpu *gpu);
void nvgrace_gpu_scrub_binding(struct nvgrace_gpu *gpu);
void nvgrace_gpu_scrub_bound(struct nvgrace_gpu *gpu);
void nvgrace_gpu_scrub_doubt(struct nvgrace_gpu *gpu);
void nvgrace_gpu_scrub_stop(struct nvgrace_gpu *gpu);
void nvgrace_gpu_scrub_finish(struct nvgrace_gpu *gpu);

/* The workers, from module init to exit.  0 or -ENOMEM. */
int nvgrace_gpu_scrub_load(void);
void nvgrace_gpu_scrub_unload(void);

#endif /* NVGRACE_GPU_H */
