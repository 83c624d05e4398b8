// SPDX-License-Identifier: GPL-2.0-only
/*
 * pread and pwrite on the fake BARs, and zeros for the next user, through the
 * kernel's own mappings.  Called by device.c and scrub.c; gate.c drops the
 * mappings.
 *
 * Data goes straight between GPU memory and the user's buffer, under the gate
 * with page faults disabled.  The buffer may be a mapping of this very device,
 * whose fault handler goes through the same gate while a reset waits for it: so
 * pages that are missing are brought in without the gate, before another try.
 */
#include <linux/io.h>
#include <linux/ktime.h>
#include <linux/pagemap.h>
#include <linux/sched/signal.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vfio_pci_core.h>

#include "compat/compat.h"
#include "nvgrace_gpu.h"

/*
 * Memory is mapped in windows of this size, each on first use.  It is what one
 * entry of the page tables maps at the most (a PUD's, with 4K pages), so that
 * larger windows would make no access cheaper, and peeking at 4 bytes of 480 GB is.
 */
#define RW_WINDOW	(COMPAT_MAPPINGS_TAKE_MEMORY ? SZ_64M : SZ_1G)

/*
 * Bytes moved between two looks at signals, the scheduler and who waits at the
 * gate, and so the most that a reset waits for: docs/performance.md has the times.
 */
#define RW_CHUNK	SZ_256K

/* Bytes of ones that are made for reads behind the memory. */
#define RW_ONES		SZ_64K

/*
 * Accesses up to this size touch the memory once, in one piece.  More goes this
 * way only where a user's page is gone again at each try.
 */
#define RW_SMALL	64

/* Tries in a row that may move nothing before a byte is moved another way. */
#define RW_TRIES	2

int nvgrace_gpu_rw_init(struct device *dev, struct nvgrace_gpu_region *region)
{
	region->window = devm_kcalloc(dev,
				      DIV_ROUND_UP_ULL(region->length, RW_WINDOW),
				      sizeof(*region->window), GFP_KERNEL);
	return region->window ? 0 : -ENOMEM;
}

static void unmap_region(struct nvgrace_gpu_region *region)
{
	u64 i, windows = DIV_ROUND_UP_ULL(region->length, RW_WINDOW);

	for (i = 0; i < windows; i++) {
		if (!region->window[i])
			continue;
		if (region->uncached)
			iounmap((void __force __iomem *)region->window[i]);
		else
			memunmap(region->window[i]);
		region->window[i] = NULL;
	}
}

void nvgrace_gpu_rw_unmap(struct nvgrace_gpu *gpu)
{
	unmap_region(&gpu->usemem);
	unmap_region(&gpu->resmem);
}

static void *map_window(struct nvgrace_gpu_region *region, u64 start)
{
	u64 len = min_t(u64, RW_WINDOW, region->length - start);

	/*
	 * Normal-NC is memory in all but caching: plain loads and stores of
	 * any size and alignment are fine, so the __iomem is dropped here and
	 * memcpy() used instead of the MMIO copies, which move 8 bytes a time.
	 */
	if (region->uncached)
		return (void __force *)ioremap_wc(region->base + start, len);
	return memremap(region->base + start, len, MEMREMAP_WB);
}

/*
 * The kernel's address of byte @offset of @region, or an ERR_PTR: -ENOMEM, or
 * -EINTR if the task is being killed.  Under the gate, since a cacheable
 * mapping alone lets the CPU read the memory.  Sleeps.
 */
static void *window_addr(struct nvgrace_gpu_region *region, u64 offset)
{
	void **window = &region->window[offset / RW_WINDOW];
	/* Pairs with the release below: whoever sees the pointer may use it. */
	void *map = smp_load_acquire(window);

	if (!map) {
		if (mutex_lock_killable(&region->gpu->window_lock))
			return ERR_PTR(-EINTR);
		map = *window;
		if (!map) {
			map = map_window(region, round_down(offset, RW_WINDOW));
			/* Pairs with the acquire above. */
			smp_store_release(window, map);
		}
		mutex_unlock(&region->gpu->window_lock);
	}

	return map ? map + offset % RW_WINDOW : ERR_PTR(-ENOMEM);
}

/*
 * Copies @len bytes, of which one side is GPU memory.  A naturally aligned
 * access of a register's width is one access of that width, as user space
 * that talks to a device through such words expects.
 */
static void copy_words(void *dst, const void *src, size_t len)
{
	if (!is_power_of_2(len) || len > 8 ||
	    !IS_ALIGNED((unsigned long)dst | (unsigned long)src, len)) {
		memcpy(dst, src, len);
		return;
	}

	switch (len) {
	case 1:
		WRITE_ONCE(*(u8 *)dst, READ_ONCE(*(const u8 *)src));
		break;
	case 2:
		WRITE_ONCE(*(u16 *)dst, READ_ONCE(*(const u16 *)src));
		break;
	case 4:
		WRITE_ONCE(*(u32 *)dst, READ_ONCE(*(const u32 *)src));
		break;
	case 8:
		WRITE_ONCE(*(u64 *)dst, READ_ONCE(*(const u64 *)src));
		break;
	}
}

/*
 * Lets the memory be touched at offset @offset of @region, up to the end of its
 * window, and nvgrace_gpu_leave() ends that.  @awake: the caller keeps the GPU
 * awake.  The kernel's address of it, or an ERR_PTR after which nothing is to be
 * ended: -EINTR, -EIO, -ENOMEM, or -EBUSY (it may be asleep).
 */
static void *enter_window(struct nvgrace_gpu_region *region, u64 offset,
			  bool awake)
{
	int ret = nvgrace_gpu_enter(region->gpu, awake);
	void *mem;

	if (ret)
		return ERR_PTR(ret);
	mem = window_addr(region, offset);
	if (IS_ERR(mem))
		nvgrace_gpu_leave(region->gpu);
	return mem;
}

/*
 * Moves up to @len bytes, all inside one window, and stops where a page of the
 * user's is missing: bringing it in could need what is held here.  Leaves the gate
 * as soon as somebody wants it shut, but not for each chunk: entering costs as
 * much as moving some KiB.  Returns the bytes moved, perhaps none, or an error of
 * enter_window().
 */
static ssize_t move_direct(struct nvgrace_gpu_region *region, char __user *buf,
			   size_t len, u64 offset, bool write, bool awake)
{
	void *mem = enter_window(region, offset, awake);
	size_t piece, missed, done = 0;

	if (IS_ERR(mem))
		return PTR_ERR(mem);
	do {
		piece = min_t(size_t, len - done, RW_CHUNK);
		pagefault_disable();
		/* Others would clear in GPU memory what they could not copy there. */
		missed = write ?
			__copy_from_user_inatomic(mem + done, buf + done, piece) :
			__copy_to_user_inatomic(buf + done, mem + done, piece);
		pagefault_enable();
		done += piece - missed;
	} while (!missed && done < len && !need_resched() &&
		 !fatal_signal_pending(current) &&
		 !nvgrace_gpu_gate_wanted(region->gpu));
	nvgrace_gpu_leave(region->gpu);

	return done;
}

/*
 * Moves up to @len bytes, RW_SMALL at the most and all inside one window, by way
 * of a buffer of the kernel's: whatever user space has there may be waited for,
 * and GPU memory is touched once, as a whole.  Returns the bytes moved, or
 * -EFAULT if none could be, or an error of enter_window().
 */
static ssize_t move_bounced(struct nvgrace_gpu_region *region, char __user *buf,
			    size_t len, u64 offset, bool write, bool awake)
{
	u8 bounce[RW_SMALL] __aligned(8);
	void *mem;

	if (write) {
		len -= copy_from_user(bounce, buf, len);
		if (!len)
			return -EFAULT;
	}

	mem = enter_window(region, offset, awake);
	if (IS_ERR(mem))
		return PTR_ERR(mem);
	if (write)
		copy_words(mem, bounce, len);
	else
		copy_words(bounce, mem, len);
	nvgrace_gpu_leave(region->gpu);

	if (!write)
		len -= copy_to_user(buf, bounce, len);
	return len ?: -EFAULT;
}

/* Brings in the user's pages as far as that can be done; only a hint. */
static void fault_in(char __user *buf, size_t len, bool write)
{
	/* Of two functions for reads the one that writes nothing to the pages. */
	if (write)
		fault_in_readable(buf, len);
	else
		fault_in_safe_writeable(buf, len);
}

/*
 * Moves up to @count bytes between user space and offset @offset, all of them
 * memory.  Returns the bytes done, or an error if there are none.
 */
static ssize_t rw_memory(struct nvgrace_gpu_region *region, char __user *buf,
			 size_t count, u64 offset, bool write)
{
	unsigned int fruitless = 0;
	size_t done = 0, len;
	bool awake = false;
	ssize_t ret = 0;

	/* For move_direct(): the others look themselves. */
	if (!access_ok(buf, count))
		return -EFAULT;

	while (done < count) {
		if (fatal_signal_pending(current)) {
			ret = -EINTR;
			break;
		}

		len = min_t(u64, count - done,
			    RW_WINDOW - (offset + done) % RW_WINDOW);
		if (count <= RW_SMALL || fruitless == RW_TRIES) {
			len = min_t(size_t, len, RW_SMALL);
			ret = move_bounced(region, buf + done, len,
					   offset + done, write, awake);
		} else {
			ret = move_direct(region, buf + done, len,
					  offset + done, write, awake);
		}
		if (ret == -EBUSY) {
			ret = nvgrace_gpu_keep_awake(region->gpu);
			if (ret)
				break;
			/* From here to the end of the whole access. */
			awake = true;
			continue;
		}
		if (ret < 0)
			break;

		done += ret;
		fruitless = ret ? 0 : fruitless + 1;
		/* What stopped a try that got somewhere, stops the next at once. */
		if (!ret && fruitless < RW_TRIES)
			fault_in(buf + done, min_t(size_t, len, RW_CHUNK), write);
		cond_resched();
	}

	if (awake)
		nvgrace_gpu_let_sleep(region->gpu);
	return done ?: ret;
}

/*
 * Fills @count bytes of user space with what a read beyond the memory gives.
 * Returns the bytes done, or an error if there are none.
 */
static ssize_t read_tail(char __user *buf, size_t count)
{
	size_t size = min_t(size_t, count, RW_ONES);
	size_t done = 0, len, moved;
	u8 small[RW_SMALL];
	void *ones = small;
	int ret = 0;

	if (size > sizeof(small)) {
		ones = kvmalloc(size, GFP_KERNEL);
		if (!ones)
			return -ENOMEM;
	}
	memset(ones, 0xff, size);

	while (done < count) {
		if (fatal_signal_pending(current)) {
			ret = -EINTR;
			break;
		}
		len = min_t(size_t, count - done, size);
		/* A copy may stop some bytes early: the end is one of none. */
		moved = len - copy_to_user(buf + done, ones, len);
		if (!moved) {
			ret = -EFAULT;
			break;
		}
		done += moved;
		cond_resched();
	}

	if (ones != small)
		kvfree(ones);
	return done ?: ret;
}

/*
 * The part of both directions that is the same: the ends of the region, and the
 * split into memory and tail.
 */
static ssize_t region_rw(struct nvgrace_gpu_region *region, char __user *buf,
			 size_t count, loff_t *ppos, bool write)
{
	u64 offset = *ppos & VFIO_PCI_OFFSET_MASK;
	size_t memory = 0;
	ssize_t done = 0, ret;

	if (offset >= region->bar_size)
		return -EINVAL;
	count = min_t(u64, count, region->bar_size - offset);
	if (offset < region->length)
		memory = min_t(u64, count, region->length - offset);

	if (memory) {
		done = rw_memory(region, buf, memory, offset, write);
		if (done < 0)
			return done;
	}

	if (done == memory && done < count) {
		ret = write ? count - done : read_tail(buf + done, count - done);
		if (ret < 0 && !done)
			return ret;
		if (ret > 0)
			done += ret;
	}

	*ppos += done;
	return done;
}

ssize_t nvgrace_gpu_region_read(struct nvgrace_gpu_region *region,
				char __user *buf, size_t count, loff_t *ppos)
{
	return region_rw(region, buf, count, ppos, false);
}

ssize_t nvgrace_gpu_region_write(struct nvgrace_gpu_region *region,
				 const char __user *buf, size_t count,
				 loff_t *ppos)
{
	/* Not written to: region_rw() only copies from it. */
	return region_rw(region, (char __user *)buf, count, ppos, true);
}

/*
 * Flushes @len bytes and waits for it; adds its time to *@ns.
 */
static void flush(void *mem, size_t len, u64 *ns)
{
	u64 start = ktime_get_ns();

	compat_flush(mem, len);
	compat_flush_end();
	*ns += ktime_get_ns() - start;
}

int nvgrace_gpu_region_zero(struct nvgrace_gpu_region *region, u64 offset,
			    u64 len, unsigned int epoch, u64 *flush_ns)
{
	void *mem = enter_window(region, offset, true);
	u64 done, piece;
	int ret = 0;

	if (IS_ERR(mem))
		return PTR_ERR(mem);
	if (nvgrace_gpu_epoch(region->gpu) != epoch)
		ret = -EAGAIN;

	for (done = 0; !ret && done < len; done += piece) {
		piece = min_t(u64, len - done, RW_CHUNK);
		/*
		 * An earlier owner may have had this part cacheable.  Its lines
		 * must not be written back over the zeros later.
		 */
		if (region->uncached)
			flush(mem + done, piece, flush_ns);
		memset(mem + done, 0, piece);
		/*
		 * Zeros that stay in a cache would be written back some time,
		 * perhaps to a link that a reset has taken down.
		 */
		if (!region->uncached)
			flush(mem + done, piece, flush_ns);
		cond_resched();
	}
	/* Zeros that don't go through a cache have to arrive as well. */
	wmb();
	nvgrace_gpu_leave(region->gpu);
	return ret;
}
