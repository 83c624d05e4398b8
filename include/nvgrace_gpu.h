/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The driver's own header: the state of one bound GPU, and what each source
 * file offers the others.
 *
 * Data flows one way. probe.c fills the regions before anything else can run.
 * region.c, cfgemu.c and rw.c read them, know nothing of ACPI, and never call
 * each other. gate.c decides whether they may access the memory.
 * docs/architecture.md has the terms and the order of the locks.
 *
 * "Without locks" means that the caller holds none of this driver's locks, no
 * memory_lock and no mmap_lock. "Sleeps" means that the caller must be able to.
 */
#ifndef NVGRACE_GPU_H
#define NVGRACE_GPU_H

#include <linux/atomic.h>
#include <linux/ktime.h>
#include <linux/mutex.h>
#include <linux/ratelimit.h>
#include <linux/rwsem.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/vfio_pci_core.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "compat/mapping.h"
#include "compat/mm.h"

struct nvgrace_gpu;

/* Most bad pages of a part that the driver can tell apart. */
#define NVGRACE_GPU_POISON_PAGES	64

/**
 * struct nvgrace_gpu_poison - bad pages of one part; owned by poison.c
 * @lock: protects the other members; nests in locks of mm and of this driver
 * @count: how many pages; also read without the lock, as a hint
 * @overflow: there were too many, so each page counts as bad
 * @pfn: the pages, in no order
 */
struct nvgrace_gpu_poison {
	spinlock_t lock;		/* see above */
	unsigned int count;
	bool overflow;
	unsigned long pfn[NVGRACE_GPU_POISON_PAGES];
};

/*
 * One part of the GPU's memory and the fake BAR that shows it. bar_written,
 * pfn_space, poison and window change. Everything else is constant from probe to
 * release.
 */
struct nvgrace_gpu_region {
	struct nvgrace_gpu *gpu;

	/* Physical address of the first byte, page aligned. */
	phys_addr_t base;

	/* Bytes of memory; 0 if the device has no such region. */
	u64 length;

	/* Bytes of the BAR: @length rounded up to a power of two. */
	u64 bar_size;

	/* Mapped as Normal non-cacheable (write-combine), not write-back. */
	bool uncached;

	/* What user space wrote to the BAR register. Under bar_lock. */
	u64 bar_written;

	/*
	 * How the kernel finds the mappings of a page with a memory error,
	 * while the device is open. Owned by region.c.
	 */
	struct compat_pfn_space pfn_space;

	/* Pages that the kernel has reported as bad. Owned by poison.c. */
	struct nvgrace_gpu_poison poison;

	/*
	 * Kernel mappings for read and write: one pointer for each window,
	 * NULL until first used. Owned by window.c. Set under the GPU's
	 * window_lock, read with its gate held for read, cleared with the gate
	 * held for write.
	 */
	void **window;
};

/* Content of the memory, as far as it is known. */
enum nvgrace_gpu_scrub_state {
	NVGRACE_GPU_SCRUB_UNKNOWN,	/* not scrubbed since it was bound */
	NVGRACE_GPU_SCRUB_RUNNING,	/* being overwritten now */
	NVGRACE_GPU_SCRUB_CLEAN,	/* all zeros, and not opened since */
	NVGRACE_GPU_SCRUB_DIRTY,	/* opened since it was last clean */
	NVGRACE_GPU_SCRUB_FAILED,	/* the last scrub failed */
};

/**
 * struct nvgrace_gpu_scrub_record - how the last scrub ended
 * @count: scrubs that have ended since the bind, clean or failed; 0: none
 * @clean: all of the memory was overwritten
 * @time: seconds since 1970 when it ended
 * @ms: milliseconds that it took, with the GPU's reset and waits
 * @bytes: bytes that it has overwritten for good
 */
struct nvgrace_gpu_scrub_record {
	u64 count;
	bool clean;
	s64 time;
	u64 ms;
	u64 bytes;
};

/**
 * struct nvgrace_gpu_scrub - scrubs of one GPU's memory; owned by scrub.c
 * @lock: protects the members up to @begun; taken without other locks of this
 *	driver, held only briefly
 * @state: what is known of the content; also read without the lock
 * @open: the device is open or being opened, so no scrub may begin
 * @must_reset: the GPU itself may still write to its memory
 * @attempts: changes at the end of each attempt; may wrap
 * @stopping: the GPU is being unbound or shut down, so it can't be opened
 * @doubted: the content may have changed since the attempt began; repeat it
 * @last: how the last scrub ended
 * @begun: begin_access() was called for the attempt, by the unbinding task
 * @held: close_device() keeps the GPU awake for the scrub that follows
 * @ended: waits for @attempts to change, or @stopping
 * @work: the attempt
 * @error: first error of the attempt that runs; 0 if there is none
 * @epoch: epoch of the gate when the attempt began
 * @pass: the pass of the attempt, of scrub.c
 * @stalled: the attempt must end, because unbinding or shutdown waits and no
 *	step has ended for long
 * @written: bytes that both passes of the attempt that runs, or else of the last
 *	one, have written
 * @next_usemem: the next step of the pass in usemem for a worker
 * @next_resmem: the same in resmem
 * @ahead: the host shuts down, and an attempt has begun for that
 * @report_limit: rate limit of log lines about failures
 * @clear_limit: rate limit of log lines about attempts
 */
struct nvgrace_gpu_scrub {
	struct mutex lock;		/* see above */
	enum nvgrace_gpu_scrub_state state;
	bool open;
	bool must_reset;
	unsigned int attempts;
	bool stopping;
	bool doubted;
	struct nvgrace_gpu_scrub_record last;
	bool begun;
	bool held;
	wait_queue_head_t ended;
	struct work_struct work;
	int error;
	unsigned int epoch;
	unsigned int pass;
	bool stalled;
	atomic64_t written;
	atomic64_t next_usemem;
	atomic64_t next_resmem;
	bool ahead;
	struct ratelimit_state report_limit;
	struct ratelimit_state clear_limit;
};

/* Faults that use the same table of huge entries share one of 2^4 locks. */
#define NVGRACE_GPU_INSERT_BITS	4

/**
 * struct nvgrace_gpu - one bound GPU
 * @core: vfio-pci-core's device. First, as vfio_alloc_device() requires. Its
 *	memory_lock excludes vfio-pci-core's resets and power changes.
 * @usemem: the cacheable part, shown as BAR4
 * @resmem: the non-cacheable part, shown as BAR2; none on GPUs without the MIG
 *	defect
 * @listed: entry in the list of bound GPUs with memory, under bound_gpus_lock of
 *	probe.c; not in it: empty
 * @registered: registered with vfio, under the same lock
 * @range_start: first physical address that firmware gives the GPU
 * @range_last: last physical address that firmware gives the GPU
 * @bar_lock: protects bar_written of both regions, and @resets
 * @resets: changes with each reset; may wrap. Owned by cfgemu.c.
 * @gate: held for read around every access to GPU memory and every insertion of
 *	a pfn, but never while a fault on user memory is handled; for write to
 *	change what gate.c owns. Protects @epoch to @link_frozen and the kernel
 *	mappings of both regions. Nests in memory_lock.
 * @epoch: changes when readiness must be found out again; may wrap
 * @epoch_start: when it last changed
 * @ready: the memory was found ready in this epoch
 * @late: it was found unready for too long in this epoch, or gone
 * @unready_since: time of the first look of this epoch that found it unready, as
 *	ktime_get() returns it; 0: none has
 * @closed: why the gate is closed, bits of gate.c; 0 if it is open
 * @opened: waits for @closed to become 0, or @opening to become NULL
 * @leaving: the GPU is being unbound or shut down, so that the host's sleep does
 *	not close the gate
 * @link_frozen: an error has frozen the link, and since then, recovery has not
 *	succeeded, and no reset or open has found the GPU
 * @report_limit: rate limit of log lines about late GPUs
 * @insert_lock: serialize insertions of pages and of huge entries below one
 *	table of huge entries; nest in @gate
 * @cxl_dvsec: config offset of the CXL Device DVSEC; 0 on legacy GPUs
 * @bar0: readiness registers of legacy GPUs, mapped from probe to remove; they
 *	can be read while the device is enabled
 * @window_lock: protects the creation of kernel mappings by window.c; nests in
 *	@gate
 * @opening: the task that opens the device, for whose end resets wait; or NULL
 * @saved_state: config space when the GPU was first used; NULL before, or if
 *	there was no memory for it. Owned by saved.c, like the next one.
 * @bar0_readable: config space shows where BAR0 is
 * @no_idle_d3: the GPU stays in D0 while it is not open; owned by device.c
 * @mapping: finds the mappings of user space
 * @scrub: scrubs of the memory between users
 */
struct nvgrace_gpu {
	struct vfio_pci_core_device core;
	struct nvgrace_gpu_region usemem;
	struct nvgrace_gpu_region resmem;
	struct list_head listed;
	bool registered;
	phys_addr_t range_start;
	phys_addr_t range_last;
	spinlock_t bar_lock;		/* protects bar_written, resets */
	unsigned int resets;
	struct rw_semaphore gate;	/* protects what gate.c owns */
	unsigned int epoch;
	ktime_t epoch_start;
	bool ready;
	bool late;
	atomic64_t unready_since;
	unsigned int closed;
	wait_queue_head_t opened;
	bool leaving;
	bool link_frozen;
	struct ratelimit_state report_limit;
	struct mutex insert_lock[1 << NVGRACE_GPU_INSERT_BITS]; /* page tables */
	u16 cxl_dvsec;
	void __iomem *bar0;
	struct mutex window_lock;	/* protects setting window[] */
	struct task_struct *opening;
	struct pci_saved_state *saved_state;
	bool bar0_readable;
	bool no_idle_d3;
	struct compat_mapping mapping;
	struct nvgrace_gpu_scrub scrub;
};

static inline struct nvgrace_gpu *to_nvgrace_gpu(struct vfio_device *core_vdev)
{
	return container_of(core_vdev, struct nvgrace_gpu, core.vdev);
}

/* The GPU of a bound device, whose driver data is vfio-pci-core's. */
static inline struct nvgrace_gpu *dev_to_nvgrace_gpu(struct device *dev)
{
	struct vfio_pci_core_device *core = dev_get_drvdata(dev);

	return to_nvgrace_gpu(&core->vdev);
}

/* Bytes that can be mapped: whole pages only. */
static inline u64
nvgrace_gpu_mappable(const struct nvgrace_gpu_region *region)
{
	return round_down(region->length, PAGE_SIZE);
}

/*
 * The region of vfio region @index (VFIO_PCI_BAR0_REGION_INDEX and so on), or
 * NULL if vfio-pci-core handles that index.
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

/* ---- gate.c: whether the memory may be accessed -------------------------- */

/*
 * Every access to GPU memory and every insertion of its pages stands between
 * one of these three and nvgrace_gpu_gate_leave(). In between, no reset begins,
 * the memory is ready and the GPU is awake. All take memory_lock and the gate
 * for read.
 *
 * nvgrace_gpu_gate_enter() waits for the end of a reset and for readiness. If
 * *@awake is false and user space wants low power, it wakes the GPU and sets
 * *@awake: then nvgrace_gpu_gate_let_sleep() follows the last leave. Called
 * without locks; sleeps. Returns 0, -EINTR (the task is being killed),
 * -ERESTARTNOINTR (the host goes to sleep) or -EIO (in D3, does not wake up, not
 * decoding, not ready in time, or link frozen).
 *
 * nvgrace_gpu_gate_enter_again() also reads readiness again. The caller keeps
 * the GPU awake. Returns the same, and -EAGAIN if the GPU is no longer ready or
 * the epoch is not @epoch.
 *
 * nvgrace_gpu_gate_enter_fault() does not wait. Called with the fault's lock of
 * the address space. Returns the same as the first, and -EAGAIN if a wait may
 * help. While user space wants low power it returns -EIO, because a fault can't
 * keep the GPU awake. Other errors are as good as -EIO.
 */
int nvgrace_gpu_gate_enter(struct nvgrace_gpu *gpu, bool *awake);
int nvgrace_gpu_gate_enter_again(struct nvgrace_gpu *gpu, unsigned int epoch);
int nvgrace_gpu_gate_enter_fault(struct nvgrace_gpu *gpu);
void nvgrace_gpu_gate_leave(struct nvgrace_gpu *gpu);

/* Drops what nvgrace_gpu_gate_enter() took to wake the GPU. Sleeps. */
void nvgrace_gpu_gate_let_sleep(struct nvgrace_gpu *gpu);

/*
 * Whether a task, such as a reset, waits for the caller to leave. Called
 * between enter and leave.
 */
bool nvgrace_gpu_gate_wanted(struct nvgrace_gpu *gpu);

/*
 * A number that changes whenever the memory may have lost its training or
 * content: at a reset, an error on the link, a loss of power, an open or a
 * close. It may wrap. Called between enter and leave.
 */
unsigned int nvgrace_gpu_gate_epoch(struct nvgrace_gpu *gpu);

/* Whether the GPU was found unready, and its time is not over yet. */
bool nvgrace_gpu_gate_trains(struct nvgrace_gpu *gpu);

/*
 * Sleeps until nvgrace_gpu_gate_enter_fault() is worth another try: to the end of
 * a reset, or for at most 50 ms. Holds nothing that a reset, a close or a fatal
 * signal needs. Called without locks. Returns 0 or -EINTR.
 */
int nvgrace_gpu_gate_wait(struct nvgrace_gpu *gpu);

/*
 * Whether a write of user space to @count bytes at @offset of config space may
 * change power, or decoding on kernels that leave this driver's mappings in
 * place then. If so, nvgrace_gpu_gate_asleep() stands before and after it.
 */
bool nvgrace_gpu_gate_config_hides(struct nvgrace_gpu *gpu, u64 offset,
				   size_t count);

/*
 * The GPU may lose power from now on, and its memory the training and the
 * content. Removes all mappings and forgets readiness. Called without locks;
 * sleeps.
 */
void nvgrace_gpu_gate_asleep(struct nvgrace_gpu *gpu);

/* Readiness in this epoch, read without locks. */
enum nvgrace_gpu_readiness {
	NVGRACE_GPU_UNKNOWN,
	NVGRACE_GPU_READY,
	NVGRACE_GPU_FAILED,
};

enum nvgrace_gpu_readiness nvgrace_gpu_gate_readiness(struct nvgrace_gpu *gpu);

/*
 * The life of the gate.
 *
 * init comes first, at probe.
 *
 * wait_probe comes at probe, with the GPU in D0 and enabled. It waits until the
 * memory is ready: at most 30 s on legacy GPUs, or as long as the CXL DVSEC
 * states. Returns 0, -ETIME (not ready, one line in the log), -EINTR (the task
 * is being killed), -ENODEV (gone, one line) or -EIO (memory not decoded).
 *
 * device_opened comes after vfio_pci_core_enable(). device_closing comes before
 * vfio_pci_core_close_device(), and after each scrub, which opens nothing.
 *
 * Called without locks; sleep.
 */
void nvgrace_gpu_gate_init(struct nvgrace_gpu *gpu);
int nvgrace_gpu_gate_wait_probe(struct nvgrace_gpu *gpu);
void nvgrace_gpu_gate_device_opened(struct nvgrace_gpu *gpu);
void nvgrace_gpu_gate_device_closing(struct nvgrace_gpu *gpu);

/*
 * The host's sleep.
 *
 * suspend, resume: between these two the host sleeps, user space is frozen for
 * most of the time, and the gate is closed.
 *
 * leaves: the GPU is being unbound or shut down, so that nothing would open the
 * gate again.
 *
 * suspended: whether the host sleeps or is about to.
 *
 * Called without locks, except for the device lock and that of the list of
 * GPUs; all but the last sleep.
 */
void nvgrace_gpu_gate_suspend(struct nvgrace_gpu *gpu);
void nvgrace_gpu_gate_resume(struct nvgrace_gpu *gpu);
void nvgrace_gpu_gate_leaves(struct nvgrace_gpu *gpu);
bool nvgrace_gpu_gate_suspended(struct nvgrace_gpu *gpu);

/*
 * Resets, and errors on the link. Sleep; called without the gate.
 *
 * reset_begin, reset_end: stand around a reset. Accesses wait in between. Each
 * begins a new epoch, with fake registers of 0. If the GPU answers at the end, a
 * frozen link works again.
 *
 * link_freeze: an error has frozen the link. Takes the memory out of reach until
 * link_works, or until a reset or an open finds the GPU. Accesses fail instead
 * of waiting, because a vCPU that waits in a fault could not be stopped, and
 * recovery may take long. Nor does every kernel report that it has failed.
 *
 * link_reset: the link was reset, which begins a new epoch. Under memory_lock,
 * held for write.
 *
 * link_works: recovery has succeeded, or has failed although the GPU is there;
 * then training may be @lost, which begins a new epoch.
 */
void nvgrace_gpu_gate_reset_begin(struct nvgrace_gpu *gpu);
void nvgrace_gpu_gate_reset_end(struct nvgrace_gpu *gpu);
void nvgrace_gpu_gate_link_freeze(struct nvgrace_gpu *gpu);
void nvgrace_gpu_gate_link_reset(struct nvgrace_gpu *gpu);
void nvgrace_gpu_gate_link_works(struct nvgrace_gpu *gpu, bool lost);

/* ---- reset.c: resets and errors ----------------------------------------- */

/* For the PCI core, which holds the device lock. */
extern const struct pci_error_handlers nvgrace_gpu_reset_handlers;

/*
 * Stand around vfio_pci_core_enable() and what reads config space after it.
 * Resets by other tasks wait in between. One task at a time; called without
 * locks of this driver.
 */
void nvgrace_gpu_reset_open_begins(struct nvgrace_gpu *gpu);
void nvgrace_gpu_reset_open_ends(struct nvgrace_gpu *gpu);

/* ---- saved.c: a copy of config space -------------------------------------- */

/*
 * init comes before the device is registered, with the GPU awake; exit after it
 * is unregistered.
 *
 * make comes each time that the GPU has begun to be used, awake and by one task,
 * and makes the copy unless there is one. @read: read config space; otherwise,
 * vfio-pci-core has just saved it. Makes none without BARs.
 *
 * lost_bars: whether a reset that restored nothing has cleared the BARs. Also
 * true if config space can't be read.
 *
 * restore: restores config space from the copy, if there is one.
 *
 * Called without locks of this driver, lost_bars and restore perhaps with
 * memory_lock; sleep.
 */
void nvgrace_gpu_saved_init(struct nvgrace_gpu *gpu);
void nvgrace_gpu_saved_exit(struct nvgrace_gpu *gpu);
void nvgrace_gpu_saved_make(struct nvgrace_gpu *gpu, bool read);
bool nvgrace_gpu_saved_lost_bars(struct nvgrace_gpu *gpu);
void nvgrace_gpu_saved_restore(struct nvgrace_gpu *gpu);

/* ---- ready.c: whether the memory is trained ------------------------------ */

/* What one look has read, and how long the GPU may be unready. */
struct nvgrace_gpu_training {
	u32 c2c;
	u32 hbm;
	u32 range;
	unsigned int limit_ms;
};

/*
 * Reads the registers once. Returns 0 (trained), -EAGAIN (not yet) or -ENODEV
 * (gone). The caller makes sure that they can be read.
 */
int nvgrace_gpu_ready_look(struct nvgrace_gpu *gpu,
			   struct nvgrace_gpu_training *training);

/* Logs that the GPU is late after @ms milliseconds: @err, -ETIME or -ENODEV. */
void nvgrace_gpu_ready_report(struct nvgrace_gpu *gpu,
			      const struct nvgrace_gpu_training *training,
			      s64 ms, int err);

/*
 * The readiness registers, from probe to remove. init finds out which kind of
 * registers the GPU has. Returns 0, -ENODEV (none, one line in the log) or
 * -ENOMEM. exit may come after a failed init, or a second time. Sleep.
 */
int nvgrace_gpu_ready_init(struct nvgrace_gpu *gpu);
void nvgrace_gpu_ready_exit(struct nvgrace_gpu *gpu);

/* ---- device.c ------------------------------------------------------------ */

/*
 * The operations of a GPU with memory, and of one without, which is handled as
 * a plain PCI device.
 */
extern const struct vfio_device_ops nvgrace_gpu_device_memory_ops;
extern const struct vfio_device_ops nvgrace_gpu_device_core_ops;

/*
 * While a GPU is not open, it goes to D3, unless the module parameter
 * disable_idle_d3 has forbidden that at init, which comes first. keep_awake comes
 * before it is registered or closed, may_sleep when it is open, and at its
 * removal.
 */
void nvgrace_gpu_device_init(struct nvgrace_gpu *gpu);
void nvgrace_gpu_device_keep_awake(struct nvgrace_gpu *gpu);
void nvgrace_gpu_device_may_sleep(struct nvgrace_gpu *gpu);

/* ---- region.c ------------------------------------------------------------ */

/* At probe, without locks. */
void nvgrace_gpu_region_init(struct nvgrace_gpu *gpu);

/*
 * For vfio: operations of vfio_device_ops. Called without locks, mmap with the
 * mmap_lock held for write; sleep.
 *
 * get_region_info: 0 or -ENOMEM; fills @info and @caps. Other regions go to
 * vfio-pci-core.
 *
 * ioctl: -ENOTTY for VFIO_DEVICE_IOEVENTFD. Others go to vfio-pci-core.
 *
 * mmap: 0; -EINVAL (private, or beyond the memory); -EPERM (executable);
 * -EOVERFLOW; or -ENOMEM.
 */
int nvgrace_gpu_region_info(struct vfio_device *core_vdev,
			    struct vfio_region_info *info,
			    struct vfio_info_cap *caps);
long nvgrace_gpu_region_ioctl(struct vfio_device *core_vdev, unsigned int cmd,
			      unsigned long arg);
int nvgrace_gpu_region_mmap(struct vfio_device *core_vdev,
			    struct vm_area_struct *vma);

/*
 * Between these two, memory errors in the region's pages reach the tasks that
 * have mapped them, and the fake BAR can be exported, if the kernel can do
 * that. open comes with the device enabled, before user space can map it. close
 * comes when no mapping is left; again does nothing. Sleep.
 */
void nvgrace_gpu_region_open(struct nvgrace_gpu_region *region);
void nvgrace_gpu_region_close(struct nvgrace_gpu_region *region);

/* ---- sysfs.c ------------------------------------------------------------- */

/* Attributes of a bound device, and of the driver. */
extern const struct attribute_group *nvgrace_gpu_sysfs_dev_groups[];
extern const struct attribute_group *nvgrace_gpu_sysfs_driver_groups[];

/* ---- cfgemu.c ------------------------------------------------------------ */

/*
 * Sets all fake registers to 0 and counts a reset. Process context; does not
 * sleep.
 */
void nvgrace_gpu_cfgemu_reset(struct nvgrace_gpu *gpu);

/*
 * Read and write config space at *@ppos, which has the region's index in its
 * high bits, as everywhere in vfio-pci. Return the full count and advance
 * *@ppos, or return -EFAULT or the error of vfio-pci-core and leave *@ppos
 * alone. Called without locks; sleep.
 */
ssize_t nvgrace_gpu_cfgemu_read(struct nvgrace_gpu *gpu, char __user *buf,
				size_t count, loff_t *ppos);
ssize_t nvgrace_gpu_cfgemu_write(struct nvgrace_gpu *gpu,
				 const char __user *buf, size_t count,
				 loff_t *ppos);

/* ---- window.c ------------------------------------------------------------ */

/*
 * Allocates the pointers to the kernel mappings of @region, whose length must
 * be set. Freed with the device @dev. Returns 0 or -ENOMEM. Sleeps.
 */
int nvgrace_gpu_window_init(struct device *dev,
			    struct nvgrace_gpu_region *region);

/*
 * Kernel address of byte @offset of @region, valid up to the end of its window,
 * nvgrace_gpu_window_left() bytes. Or an ERR_PTR: -ENOMEM, or -EINTR (the task
 * is being killed). Called between enter and leave, because a cacheable mapping
 * alone lets the CPU read the memory. Sleeps.
 */
void *nvgrace_gpu_window_addr(struct nvgrace_gpu_region *region, u64 offset);
u64 nvgrace_gpu_window_left(u64 offset);

/*
 * Removes the kernel mappings of both parts. The next access makes new ones.
 * Called with the gate held for write; sleeps.
 */
void nvgrace_gpu_window_unmap(struct nvgrace_gpu *gpu);

/* ---- rw.c ---------------------------------------------------------------- */

/*
 * Reads GPU memory through the fake BAR at *@ppos, or writes it, and then only
 * reads @buf. Returns the number of bytes done, at least one, and advances
 * *@ppos by it. Or returns -EINVAL (beyond the BAR), -EFAULT, -EINTR (the task
 * is being killed), -EIO (the device does not wake up, its memory can't be
 * accessed, or the page is bad) or -ENOMEM. Called without locks; sleeps.
 */
ssize_t nvgrace_gpu_rw(struct nvgrace_gpu_region *region, char __user *buf,
		       size_t count, loff_t *ppos, bool write);

/*
 * Overwrites @len bytes at @offset of @region, all inside one window, with
 * zeros that have left the CPUs' caches on return. Returns 0, -EAGAIN (nothing
 * was done, because nvgrace_gpu_gate_epoch() is not @epoch), -EINTR, -EIO or
 * -ENOMEM. Called without locks, with the GPU kept awake; sleeps. @again: this
 * epoch's zeros are there already.
 */
int nvgrace_gpu_rw_zero(struct nvgrace_gpu_region *region, u64 offset,
			u64 len, unsigned int epoch, bool again);

/* ---- poison.c: pages that are bad ---------------------------------------- */

/*
 * The kernel reports @pfn, of either part or none, as bad. Called under locks;
 * does not sleep. Logs a line if a part has too many.
 */
void nvgrace_gpu_poison_report(struct nvgrace_gpu *gpu, unsigned long pfn);

/*
 * How many of @len bytes at @offset are before the first bad page; 0 if @offset
 * is in one. Does not sleep.
 */
u64 nvgrace_gpu_poison_before(struct nvgrace_gpu_region *region, u64 offset,
			      u64 len);

/*
 * Every byte of the part was overwritten, and nothing could be reported
 * meanwhile. Does not sleep.
 */
void nvgrace_gpu_poison_forget_all(struct nvgrace_gpu_region *region);

/* ---- scrub.c ------------------------------------------------------------- */

/* What is known of the memory's content, read without locks. */
enum nvgrace_gpu_scrub_state nvgrace_gpu_scrub_state(struct nvgrace_gpu *gpu);

/* Whether the parameter demands clean memory for each user. */
bool nvgrace_gpu_scrub_wanted(void);

/*
 * Bytes that the scrub that runs, or else the last one, has overwritten for
 * good: all but those that a cache of the GPU may still have to write.
 */
u64 nvgrace_gpu_scrub_progress(struct nvgrace_gpu *gpu);

/* How the last scrub ended. Called without locks; sleeps. */
struct nvgrace_gpu_scrub_record nvgrace_gpu_scrub_last(struct nvgrace_gpu *gpu);

/* Each of the following has the name of the event at which it is called. */

/*
 * on_demand: sysfs demands a scrub. Begins one in the background, unless one
 * runs. Returns 0 or -EBUSY (the device is open or being unbound, or this is the
 * kernel of a crash dump).
 *
 * ahead: the host shuts down, and this GPU's turn will come. Begins a scrub if
 * one is due then.
 *
 * Called without locks of this driver but that of the list; sleep.
 */
int nvgrace_gpu_scrub_on_demand(struct nvgrace_gpu *gpu);
void nvgrace_gpu_scrub_ahead(struct nvgrace_gpu *gpu);

/*
 * Stand around each use of the device.
 *
 * before_open comes before vfio_pci_core_enable() and, if the parameter is on,
 * waits until the memory is clean. Returns 0, -EINTR (the task is being
 * killed), -ERESTARTNOINTR (a signal, or host suspend), -EIO (the scrub failed,
 * one line in the log) or -ENODEV (being unbound).
 *
 * opened comes before user space can access the memory. Returns 0, or -EAGAIN if
 * the memory should still be clean and is no longer known to be.
 *
 * open_failed comes if the device could not be opened after before_open, or opened
 * has failed. Otherwise before_close comes before and closed after
 * vfio_pci_core_close_device().
 *
 * Called without locks of this driver, with vfio's lock of the device set;
 * sleep.
 */
int nvgrace_gpu_scrub_before_open(struct nvgrace_gpu *gpu);
void nvgrace_gpu_scrub_open_failed(struct nvgrace_gpu *gpu);
int nvgrace_gpu_scrub_opened(struct nvgrace_gpu *gpu);
void nvgrace_gpu_scrub_before_close(struct nvgrace_gpu *gpu);
void nvgrace_gpu_scrub_closed(struct nvgrace_gpu *gpu);

/*
 * From probe to remove. Called without locks of this driver; sleep.
 *
 * init: at probe.
 *
 * registered: the registration of the device with vfio, with the device lock
 * held. Resets the GPU and begins the first scrub if the parameter is on.
 *
 * doubt: a reset may have overtaken what was written, or another kernel may use
 * the GPU, so what is known of the content is no longer true.
 *
 * requested: an unbind begins to wait for users, with the device lock held.
 * Opens that wait for a scrub fail, because the scrub may need that lock.
 *
 * removing: at shutdown, and after the device was unregistered, with the device
 * lock held. Waits for a scrub, and runs one that is due, unless the device is
 * open. Ends when no step of it has ended for 60 s, not counting the time in
 * which it waits for its turn or for a GPU that is not late yet.
 */
void nvgrace_gpu_scrub_init(struct nvgrace_gpu *gpu);
void nvgrace_gpu_scrub_registered(struct nvgrace_gpu *gpu);
void nvgrace_gpu_scrub_doubt(struct nvgrace_gpu *gpu);
void nvgrace_gpu_scrub_requested(struct nvgrace_gpu *gpu);
void nvgrace_gpu_scrub_removing(struct nvgrace_gpu *gpu);

/* The workqueue, from module load to unload. load returns 0 or -ENOMEM. */
int nvgrace_gpu_scrub_load(void);
void nvgrace_gpu_scrub_unload(void);

#endif /* NVGRACE_GPU_H */
