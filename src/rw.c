// SPDX-License-Identifier: GPL-2.0-only
/*
 * pread and pwrite on the fake BARs, and the writing of zeros for the next
 * user, through the kernel mappings of window.c.
 *
 * Data moves directly between GPU memory and the user's buffer, under the gate,
 * with page faults disabled. The buffer may be a mapping of the same device,
 * whose fault handler enters the gate while a reset waits for it. So missing
 * pages are faulted in without the gate before the next try.
 */
#include <linux/pagemap.h>
#include <linux/sched/signal.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vfio_pci_core.h>

#include "compat/compat.h"
#include "nvgrace_gpu.h"

/*
 * Bytes moved between two checks for signals, the scheduler and tasks that wait
 * at the gate. A reset waits for at most one chunk; docs/performance.md has the
 * times.
 */
#define RW_CHUNK	SZ_256K

/* Bytes of ones prepared for reads beyond the memory. */
#define RW_ONES		SZ_64K

/*
 * Bytes of the largest access that always goes through a buffer of the kernel,
 * which makes aligned accesses of a word single ones. Larger accesses move this
 * much at a time if the user's pages vanish at each try.
 */
#define RW_SMALL	64

/* Tries without progress before data moves through a buffer of the kernel. */
#define RW_TRIES	2

/*
 * Copies @len bytes to or from GPU memory. A naturally aligned access of 1, 2,
 * 4 or 8 bytes is a single access of that size, as user space expects of a
 * device.
 */
static inline void copy_words(void *dst, const void *src, size_t len)
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
 * Enters the gate for byte @offset of @region, up to the end of its window, with
 * @awake as for nvgrace_gpu_gate_enter(). Returns the kernel address, and the caller must
 * call nvgrace_gpu_gate_leave(). Or returns an ERR_PTR outside the gate: -EINTR,
 * -EIO or -ENOMEM. Called without locks; sleeps.
 */
static void *enter_window(struct nvgrace_gpu_region *region, u64 offset,
			  bool *awake)
{
	int ret = nvgrace_gpu_gate_enter(region->gpu, awake);
	void *mem;

	if (ret)
		return ERR_PTR(ret);
	mem = nvgrace_gpu_window_addr(region, offset);
	if (IS_ERR(mem))
		nvgrace_gpu_gate_leave(region->gpu);
	return mem;
}

/*
 * The same for *@len bytes, which ends before the first bad page. -EIO if
 * @offset is in one.
 */
static void *enter_good(struct nvgrace_gpu_region *region, u64 offset,
			size_t *len, bool *awake)
{
	void *mem = enter_window(region, offset, awake);

	if (IS_ERR(mem))
		return mem;
	/* Nearly always, so without the lock. */
	if (!READ_ONCE(region->poison.count))
		return mem;
	*len = nvgrace_gpu_poison_before(region, offset, *len);
	if (*len)
		return mem;
	nvgrace_gpu_gate_leave(region->gpu);
	return ERR_PTR(-EIO);
}

/*
 * Moves up to @len bytes, all inside one window. Stops at a missing page of the
 * user, because faulting it in could need the locks held here. Leaves the gate
 * when another task waits for that, but not after each chunk, because entering
 * costs as much as moving some KiB. Returns the number of bytes moved, perhaps
 * 0, or an error of enter_good().
 */
static ssize_t move_direct(struct nvgrace_gpu_region *region, char __user *buf,
			   size_t len, u64 offset, bool write, bool *awake)
{
	void *mem = enter_good(region, offset, &len, awake);
	size_t piece, missed, done = 0;

	if (IS_ERR(mem))
		return PTR_ERR(mem);
	do {
		piece = min_t(size_t, len - done, RW_CHUNK);
		pagefault_disable();
		/*
		 * The other variants zero the rest of the destination after a
		 * fault.
		 */
		missed = write ?
			__copy_from_user_inatomic(mem + done, buf + done, piece) :
			__copy_to_user_inatomic(buf + done, mem + done, piece);
		pagefault_enable();
		done += piece - missed;
	} while (!missed && done < len && !need_resched() &&
		 !fatal_signal_pending(current) &&
		 !nvgrace_gpu_gate_wanted(region->gpu));
	nvgrace_gpu_gate_leave(region->gpu);

	return done;
}

/*
 * Copies @len bytes to user space, or from there for a write. Returns how many
 * were not copied. May sleep. The usual sizes are constants here, which spares
 * them the checks of hardened usercopy.
 */
static size_t copy_user(u8 *bounce, char __user *buf, size_t len, bool write)
{
	if (write)
		return len == 8 ? copy_from_user(bounce, buf, 8) :
		       len == 4 ? copy_from_user(bounce, buf, 4) :
				  copy_from_user(bounce, buf, len);
	return len == 8 ? copy_to_user(buf, bounce, 8) :
	       len == 4 ? copy_to_user(buf, bounce, 4) :
			  copy_to_user(buf, bounce, len);
}

/*
 * Moves up to @len bytes, at most RW_SMALL and all inside one window, through a
 * buffer of the kernel. So it may wait for the user's pages, and accesses GPU
 * memory once. Returns the number of bytes moved, -EFAULT if that is 0, or an
 * error of enter_good().
 */
static ssize_t move_bounced(struct nvgrace_gpu_region *region, char __user *buf,
			    size_t len, u64 offset, bool write, bool *awake)
{
	u8 bounce[RW_SMALL] __aligned(8);
	void *mem;

	if (write) {
		len -= copy_user(bounce, buf, len, true);
		if (!len)
			return -EFAULT;
	}

	mem = enter_good(region, offset, &len, awake);
	if (IS_ERR(mem))
		return PTR_ERR(mem);
	if (write)
		copy_words(mem, bounce, len);
	else
		copy_words(bounce, mem, len);
	nvgrace_gpu_gate_leave(region->gpu);

	if (!write)
		len -= copy_user(bounce, buf, len, false);
	return len ?: -EFAULT;
}

/* Faults in the user's pages, as far as possible. The result is a hint. */
static void fault_in(char __user *buf, size_t len, bool write)
{
	/* For reads, the variant that does not write to the pages. */
	if (write)
		fault_in_readable(buf, len);
	else
		fault_in_safe_writeable(buf, len);
}

/* Flushes @len bytes, and waits for that. */
static void flush(void *mem, size_t len)
{
	compat_flush(mem, len);
	compat_flush_end();
}

/*
 * Overwrites @len bytes with zeros that leave the caches. No byte of a line
 * stays, though not every line is written by one store.
 */
static void zero(const struct nvgrace_gpu_region *region, void *mem, size_t len,
		 bool again)
{
	/*
	 * An earlier owner may have mapped resmem cacheable. Its dirty lines
	 * must not be written over the zeros later. The first pass has flushed
	 * them, and nobody makes new ones.
	 */
	if (region->uncached && !again)
		flush(mem, len);
	memset(mem, 0, len);
	/*
	 * Zeros in a cache would be written back later, perhaps over a link
	 * that a reset has taken down.
	 */
	if (!region->uncached)
		flush(mem, len);
}

/*
 * Moves up to @count bytes between user space and the memory at @offset.
 * Returns the number of bytes moved, or an error if that is 0. Called without
 * locks; sleeps.
 */
static ssize_t rw_memory(struct nvgrace_gpu_region *region, char __user *buf,
			 size_t count, u64 offset, bool write)
{
	unsigned int fruitless = 0;
	bool awake = false;	/* until the whole access ends */
	size_t done = 0, len;
	ssize_t ret = 0;

	/* move_direct() does not check this. */
	if (!access_ok(buf, count))
		return -EFAULT;

	while (done < count) {
		if (fatal_signal_pending(current)) {
			ret = -EINTR;
			break;
		}

		len = min_t(u64, count - done,
			    nvgrace_gpu_window_left(offset + done));
		if (count <= RW_SMALL || fruitless == RW_TRIES)
			ret = move_bounced(region, buf + done,
					   min_t(size_t, len, RW_SMALL),
					   offset + done, write, &awake);
		else
			ret = move_direct(region, buf + done, len,
					  offset + done, write, &awake);
		if (ret < 0)
			break;

		done += ret;
		fruitless = ret ? 0 : fruitless + 1;
		/*
		 * Fault in only after no progress: what ended a try would end
		 * the next at once.
		 */
		if (!ret && fruitless < RW_TRIES)
			fault_in(buf + done, min_t(size_t, len, RW_CHUNK), write);
		cond_resched();
	}

	if (awake)
		nvgrace_gpu_gate_let_sleep(region->gpu);
	return done ?: ret;
}

/*
 * Fills @count bytes of user space with ones, as reads beyond the memory
 * return. Returns the number of bytes done, or an error if that is 0.
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
		/* A copy may stop a few bytes early. Give up only at 0. */
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

ssize_t nvgrace_gpu_rw(struct nvgrace_gpu_region *region, char __user *buf,
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

int nvgrace_gpu_rw_zero(struct nvgrace_gpu_region *region, u64 offset,
			u64 len, unsigned int epoch, bool again)
{
	bool awake = true;	/* by the caller */
	void *mem = enter_window(region, offset, &awake);
	u64 done, piece;
	int ret = 0;

	if (IS_ERR(mem))
		return PTR_ERR(mem);
	if (nvgrace_gpu_gate_epoch(region->gpu) != epoch)
		ret = -EAGAIN;

	for (done = 0; !ret && done < len; done += piece) {
		piece = min_t(u64, len - done, RW_CHUNK);
		zero(region, mem + done, piece, again);
		cond_resched();
	}
	/* Uncached zeros must have arrived, too. */
	wmb();
	nvgrace_gpu_gate_leave(region->gpu);
	return ret;
}
