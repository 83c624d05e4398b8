// SPDX-License-Identifier: GPL-2.0-only
/*
 * Fuzzes the fake BAR registers in the module's src/cfgemu.c, on a model of
 * vfio-pci-core's config space. One input is a sequence of reads, writes and
 * resets of any offset and width, with faults of user memory and errors of
 * vfio-pci-core.
 *
 * The oracle has a config space of its own, and handles each byte separately,
 * bit by bit. test_fuzz.py builds and runs this target.
 */
#include <string.h>

#include "fuzz.h"
#include "nvgrace_gpu.h"

#define CONFIG_MAX	4096
#define HEADER		64	/* contains the fake registers */
#define INDEX_BITS	((loff_t)VFIO_PCI_INDEX_TO_OFFSET(VFIO_PCI_CONFIG_REGION_INDEX))

/* The state of the code under test. */
static struct pci_dev pdev;
static struct nvgrace_gpu gpu;
static __u8 core_bytes[CONFIG_MAX];

/*
 * BAR sizes, as powers of two; a resmem_order of 0 means that resmem is absent.
 */
static unsigned int usemem_order, resmem_order;

/* Whether a reset came in the middle of this access. */
static bool was_reset;

/* Errors of this access: user memory ends here; vfio-pci-core refuses. */
static const char *user_end;
static bool core_refuses;

/*
 * The oracle's content of each byte of config space. For the fake registers,
 * that is the byte last written.
 */
static __u8 want[CONFIG_MAX];

/* The model of the kernel */

void spin_lock(spinlock_t *lock)
{
	oracle(!lock->held, "lock taken twice");
	lock->held = true;
}

void spin_unlock(spinlock_t *lock)
{
	oracle(lock->held, "lock was not taken");
	lock->held = false;
}

/* How many of @n bytes at @user are accessible. */
static unsigned long accessible(const char *user, unsigned long n)
{
	oracle(!gpu.bar_lock.held, "user memory touched under a spinlock");
	if (user + n <= user_end)
		return n;
	return user < user_end ? user_end - user : 0;
}

unsigned long copy_to_user(void *to, const void *from, unsigned long n)
{
	unsigned long done = accessible(to, n);

	memcpy(to, from, done);
	return n - done;
}

unsigned long copy_from_user(void *to, const void *from, unsigned long n)
{
	unsigned long done = accessible(from, n);

	memcpy(to, from, done);
	return n - done;
}

/*
 * The initial content of the device's own registers, including those under the
 * fake ones.
 */
static __u8 core_default(unsigned int offset)
{
	return 0x5a ^ (offset * 73);
}

/* Bits that a write changes: some of each byte, different in adjacent bytes. */
static __u8 core_writable(unsigned int offset)
{
	return 0xf7 ^ (offset * 29);
}

/*
 * Returns whether writing @val there resets the device, like the reset bits in
 * the device's capabilities. One such byte is before the fake registers, one
 * after.
 */
static bool core_resets(unsigned int offset, __u8 val)
{
	return (offset == 0x10 || offset == 0x30) && val & 0x80;
}

static ssize_t core_access(char *buf, size_t count, loff_t *ppos, bool write)
{
	__u64 offset = *ppos - INDEX_BITS;

	oracle(!gpu.bar_lock.held, "vfio-pci-core called under a spinlock");
	oracle(count, "vfio-pci-core called for nothing");
	if (core_refuses)
		return -EIO;
	if (offset >= CONFIG_MAX || offset + count > (__u64)pdev.cfg_size)
		return -EFAULT;

	for (size_t i = 0; i < count; i++, offset++) {
		__u8 *byte = &core_bytes[offset];
		__u8 val = *byte;

		if (!write) {
			if (copy_to_user(buf + i, &val, 1))
				return -EFAULT;
			continue;
		}
		if (copy_from_user(&val, buf + i, 1))
			return -EFAULT;
		*byte = (*byte & ~core_writable(offset)) | (val & core_writable(offset));
		if (core_resets(offset, val)) {
			nvgrace_gpu_cfgemu_reset(&gpu);
			was_reset = true;
		}
	}
	*ppos += count;
	return count;
}

ssize_t vfio_pci_core_read(struct vfio_device *vdev, char *buf, size_t count, loff_t *ppos)
{
	oracle(vdev == &gpu.core.vdev, "another device");
	return core_access(buf, count, ppos, false);
}

ssize_t vfio_pci_core_write(struct vfio_device *vdev, const char *buf, size_t count, loff_t *ppos)
{
	oracle(vdev == &gpu.core.vdev, "another device");
	return core_access((char *)buf, count, ppos, true);
}

/* The oracle */

static bool in_usemem_register(unsigned int offset)
{
	return offset >= 0x20 && offset <= 0x27;
}

static bool in_resmem_register(unsigned int offset)
{
	return resmem_order && offset >= 0x18 && offset <= 0x1f;
}

static bool is_fake(unsigned int offset)
{
	return in_usemem_register(offset) || in_resmem_register(offset);
}

static __u8 want_read(unsigned int offset)
{
	unsigned int order = in_usemem_register(offset) ? usemem_order : resmem_order;
	__u8 val = 0;

	if (!is_fake(offset))
		return want[offset];

	for (unsigned int bit = 0; bit < 8; bit++) {
		unsigned int place = offset % 8 * 8 + bit;
		bool set;

		/*
		 * Address bits as written; below them, "64-bit" and
		 * "prefetchable".
		 */
		if (place >= order)
			set = (want[offset] >> bit) & 1;
		else
			set = place == 2 || place == 3;
		val |= set << bit;
	}
	return val;
}

static void want_reset(void)
{
	for (unsigned int offset = 0; offset < HEADER; offset++)
		if (is_fake(offset))
			want[offset] = 0;
}

static void want_write(unsigned int offset, __u8 val)
{
	for (unsigned int bit = 0; bit < 8; bit++) {
		bool writable = is_fake(offset) || (core_writable(offset) >> bit & 1);

		if (writable)
			want[offset] = (want[offset] & ~(1 << bit)) | (val & 1 << bit);
	}
	if (core_resets(offset, val))
		want_reset();
}

/* The sequence */

struct access {
	unsigned int offset, count;
	unsigned int accessible;	/* bytes from the start */
	bool write;
	char *buf;
};

static ssize_t do_access(const struct access *access)
{
	loff_t before = INDEX_BITS + access->offset, pos = before;
	ssize_t ret;

	user_end = access->buf + access->accessible;
	if (access->write)
		ret = nvgrace_gpu_cfgemu_write(&gpu, access->buf, access->count, &pos);
	else
		ret = nvgrace_gpu_cfgemu_read(&gpu, access->buf, access->count, &pos);

	oracle(!gpu.bar_lock.held, "lock still held");
	oracle(ret < 0 || ret == access->count, "%#x + %u: returned %zd", access->offset,
	       access->count, ret);
	oracle(pos == (ret < 0 ? before : before + access->count),
	       "%#x + %u: position moved by %lld", access->offset, access->count,
	       (long long)(pos - before));
	return ret;
}

/*
 * What byte @offset reads now; bytes of the core come directly from the model.
 */
static __u8 shown(unsigned int offset)
{
	char byte;
	struct access access = { .offset = offset, .count = 1, .accessible = 1, .buf = &byte };
	bool refuses = core_refuses;

	if (!is_fake(offset))
		return core_bytes[offset];
	core_refuses = false;
	oracle(do_access(&access) == 1, "%#x: can't be read", offset);
	core_refuses = refuses;
	return byte;
}

static bool must_fail(const struct access *access)
{
	if (!access->count)
		return false;
	if (access->offset + access->count > (unsigned int)pdev.cfg_size)
		return true;
	if (access->accessible < access->count)
		return true;
	for (unsigned int i = 0; core_refuses && i < access->count; i++)
		if (!is_fake(access->offset + i))
			return true;
	return false;
}

/*
 * A failed write may have written some of the core's bytes, but only with its
 * data, and none outside config space. The fake registers are unchanged, or as
 * a reset during the write left them.
 */
static void after_failed_write(const struct access *access)
{
	if (access->offset + access->count > (unsigned int)pdev.cfg_size)
		return;

	if (was_reset)
		want_reset();
	for (unsigned int i = 0; i < access->accessible && i < access->count; i++) {
		unsigned int offset = access->offset + i;
		__u8 now = shown(offset), old = want[offset];

		if (now == want_read(offset))
			continue;
		oracle(!is_fake(offset), "%#x: changed by a write that failed", offset);
		want_write(offset, access->buf[i]);
		oracle(now == want_read(offset), "%#x: %#x became %#x when %#x was written", offset,
		       old, now, (__u8)access->buf[i]);
	}
}

static void run_access(struct access *access, struct input *in)
{
	ssize_t ret;

	access->buf = malloc(access->count + 1);
	for (unsigned int i = 0; i < access->count; i++)
		access->buf[i] = access->write ? take(in, 1) : 0xee;

	was_reset = false;
	ret = do_access(access);
	oracle((ret < 0) == must_fail(access), "%s of %#x + %u (%u there, core %d): %zd",
	       access->write ? "write" : "read", access->offset, access->count,
	       access->accessible, core_refuses, ret);

	if (access->write && ret < 0)
		after_failed_write(access);
	else
		for (unsigned int i = 0; ret > 0 && i < access->count; i++) {
			unsigned int offset = access->offset + i;

			if (access->write)
				want_write(offset, access->buf[i]);
			else
				oracle((__u8)access->buf[i] == want_read(offset),
				       "%#x of %#x + %u: %#x instead of %#x", offset,
				       access->offset, access->count, (__u8)access->buf[i],
				       want_read(offset));
		}
	free(access->buf);
}

static void check_all(void)
{
	core_refuses = false;
	for (unsigned int offset = 0; offset < HEADER; offset++) {
		oracle(shown(offset) == want_read(offset), "%#x: %#x instead of %#x", offset,
		       shown(offset), want_read(offset));
		/*
		 * The device's own registers under the fake ones must not have
		 * changed.
		 */
		oracle(!is_fake(offset) || core_bytes[offset] == core_default(offset),
		       "%#x: the device's own register was written", offset);
	}
	oracle(!memcmp(core_bytes + HEADER, want + HEADER, CONFIG_MAX - HEADER),
	       "a register behind the header is not what was written");
}

static void start(struct input *in)
{
	unsigned int setup = take(in, 1);

	memset(&gpu, 0, sizeof(gpu));
	gpu.core.pdev = &pdev;
	pdev.cfg_size = setup & 2 ? 256 : CONFIG_MAX;

	/* BAR sizes of 16 bytes to 2^63; an order of 0: resmem is absent. */
	usemem_order = 4 + take(in, 1) % 60;
	gpu.usemem.length = 1ULL << usemem_order;
	gpu.usemem.bar_size = 1ULL << usemem_order;
	resmem_order = 4 + take(in, 1) % 60;
	if (setup & 1)
		resmem_order = 0;
	else
		gpu.resmem.length = 1ULL << resmem_order;
	gpu.resmem.bar_size = gpu.resmem.length;

	for (unsigned int offset = 0; offset < CONFIG_MAX; offset++)
		core_bytes[offset] = core_default(offset);
	memcpy(want, core_bytes, sizeof(want));
	want_reset();
}

int LLVMFuzzerTestOneInput(const __u8 *data, size_t size)
{
	struct input in = { data, size };

	start(&in);
	while (in.left) {
		unsigned int op = take(&in, 1);
		bool far = op & 4;
		struct access access = {
			.write = op & 1,
			.offset = far ? take(&in, 2) % (CONFIG_MAX + 64) : take(&in, 1) % 64,
			.count = far ? take(&in, 2) % (CONFIG_MAX + 64) : take(&in, 1) % 65,
			.accessible = ~0U / 2,
		};

		if ((op & 0xc0) == 0xc0) {
			nvgrace_gpu_cfgemu_reset(&gpu);
			want_reset();
			continue;
		}
		if (op & 8)
			access.accessible = take(&in, 1) % 65;
		core_refuses = (op & 0x30) == 0x30;
		run_access(&access, &in);
	}
	check_all();
	return 0;
}
