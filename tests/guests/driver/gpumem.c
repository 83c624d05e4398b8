// SPDX-License-Identifier: GPL-2.0-only
/*
 * A driver for the guests of tests/guests that uses a GPU's memory as NVIDIA's
 * does: it maps BAR4 (usemem) cacheable and BAR2 (resmem) write-combined, and
 * adds usemem to the guest's own memory in blocks of 512 MiB. It uses nothing
 * else of the GPU.
 *
 * For each GPU, with N counting from 0 in the order of PCI addresses:
 *
 *   /dev/gpumemN
 *	mmap() maps usemem, cacheable, up to the BAR's end
 *   /sys/bus/pci/devices/.../check
 *	reading makes the kernel access both parts, and gives "ok" or what went
 *	wrong; -EBUSY while blocks are System RAM
 *   /sys/bus/pci/devices/.../blocks
 *	writing a number makes so many blocks of usemem System RAM; -EBUSY if
 *	pages of a block can't be moved
 *   /sys/bus/pci/devices/.../touch
 *	writing "LENGTH STEP" makes the kernel read a word of usemem at each
 *	multiple of STEP below LENGTH, both in bytes
 *
 * Like NVIDIA's driver, it does not claim BAR4: memory can't be added in a busy
 * resource.
 */
#include <linux/atomic.h>
#include <linux/device.h>
#include <linux/io.h>
#include <linux/memory_hotplug.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/unaligned.h>

#define USEMEM_BAR	4
#define RESMEM_BAR	2

/* Fixed between the GPU's firmware and its drivers. */
#define BLOCK		SZ_512M

/* Bytes at a part's beginning that "check" accesses. */
#define CHECKED		SZ_64K

struct gpumem {
	struct pci_dev *pdev;
	struct miscdevice misc;
	char name[16];
	struct mutex lock;	/* protects blocks */
	unsigned int blocks;	/* of usemem that are System RAM */
};

static bool device_memory;
module_param(device_memory, bool, 0444);
MODULE_PARM_DESC(device_memory, "usemem is Device memory here: no unaligned accesses");

static unsigned int node;
module_param(node, uint, 0444);
MODULE_PARM_DESC(node, "NUMA node that usemem is added to");

static unsigned int gpus;

static int map_usemem(struct file *file, struct vm_area_struct *vma)
{
	struct gpumem *gpu = container_of(file->private_data, struct gpumem, misc);
	phys_addr_t start = pci_resource_start(gpu->pdev, USEMEM_BAR);

	/* Refuses ranges beyond the BAR. The protection stays cacheable. */
	return vm_iomap_memory(vma, start, pci_resource_len(gpu->pdev, USEMEM_BAR));
}

static const struct file_operations gpumem_fops = {
	.owner	= THIS_MODULE,
	.mmap	= map_usemem,
};

/* Every offset in a word, values that cross words and cache lines, memcpy. */
static const char *check_unaligned(void *memory)
{
	static const u64 value = 0x0123456789abcdefULL;
	unsigned int at;
	u8 *bytes;

	for (at = 0; at < 130; at++) {
		put_unaligned(value + at, (u64 *)(memory + at));
		if (get_unaligned((u64 *)(memory + at)) != value + at)
			return "an unaligned word isn't what was written";
	}
	bytes = kmalloc(CHECKED, GFP_KERNEL);
	if (!bytes)
		return "no memory for the check";
	for (at = 0; at < CHECKED; at++)
		bytes[at] = at * 7 + (at >> 8);
	memcpy(memory + 1, bytes, CHECKED - 1);
	at = memcmp(memory + 1, bytes, CHECKED - 1);
	kfree(bytes);
	return at ? "a copy isn't what was copied" : NULL;
}

static const char *check_atomic(void *memory)
{
	atomic64_t *counter = memory;
	atomic_t *small = memory + 8;

	atomic64_set(counter, 40);
	atomic_set(small, 1);
	if (atomic64_add_return(2, counter) != 42 ||
	    atomic64_cmpxchg(counter, 42, 43) != 42 ||
	    atomic64_xchg(counter, 44) != 43 || atomic64_read(counter) != 44 ||
	    atomic_dec_return(small) != 0)
		return "an atomic operation gives a wrong value";
	return NULL;
}

static const char *check_words(void *memory)
{
	u64 __iomem *words = (u64 __force __iomem *)memory;
	unsigned int i;

	for (i = 0; i < CHECKED / 8; i++)
		writeq(i * 0x9e3779b97f4a7c15ULL, words + i);
	for (i = 0; i < CHECKED / 8; i++)
		if (readq(words + i) != i * 0x9e3779b97f4a7c15ULL)
			return "a word isn't what was written";
	return NULL;
}

/* A missing part passes, and so does a small BAR of the GPU's own. */
static const char *check_part(struct pci_dev *pdev, unsigned int bar,
			      unsigned long cache)
{
	const char *trouble;
	void *memory;

	if (pci_resource_len(pdev, bar) < BLOCK)
		return NULL;
	memory = memremap(pci_resource_start(pdev, bar), CHECKED, cache);
	if (!memory)
		return "can't be mapped";
	trouble = check_words(memory);
	if (!trouble && !device_memory)
		trouble = check_unaligned(memory);
	if (!trouble && bar == USEMEM_BAR && !device_memory)
		trouble = check_atomic(memory);
	memunmap(memory);
	return trouble;
}

static ssize_t check_show(struct device *dev, struct device_attribute *attr,
			  char *buf)
{
	struct gpumem *gpu = dev_get_drvdata(dev);
	const char *trouble;

	guard(mutex)(&gpu->lock);
	if (gpu->blocks)
		return -EBUSY;
	trouble = check_part(gpu->pdev, USEMEM_BAR, MEMREMAP_WB);
	if (trouble)
		return sysfs_emit(buf, "usemem: %s\n", trouble);
	trouble = check_part(gpu->pdev, RESMEM_BAR, MEMREMAP_WC);
	if (trouble)
		return sysfs_emit(buf, "resmem: %s\n", trouble);
	return sysfs_emit(buf, "ok\n");
}
static DEVICE_ATTR_RO(check);

static int set_blocks(struct gpumem *gpu, unsigned int wanted)
{
	u64 start = pci_resource_start(gpu->pdev, USEMEM_BAR);
	int ret;

	while (gpu->blocks < wanted) {
		ret = add_memory_driver_managed(node, start + (u64)gpu->blocks * BLOCK,
						BLOCK, "System RAM (gpumem)", MHP_NONE);
		if (ret)
			return ret;
		gpu->blocks++;
	}
	while (gpu->blocks > wanted) {
		ret = offline_and_remove_memory(start + (u64)(gpu->blocks - 1) * BLOCK,
						BLOCK);
		if (ret)
			return ret;
		gpu->blocks--;
	}
	return 0;
}

static ssize_t blocks_store(struct device *dev, struct device_attribute *attr,
			    const char *buf, size_t count)
{
	struct gpumem *gpu = dev_get_drvdata(dev);
	unsigned int wanted;
	int ret;

	ret = kstrtouint(buf, 0, &wanted);
	if (ret)
		return ret;
	if (wanted > pci_resource_len(gpu->pdev, USEMEM_BAR) / BLOCK)
		return -EINVAL;
	guard(mutex)(&gpu->lock);
	ret = set_blocks(gpu, wanted);
	return ret ?: count;
}
static DEVICE_ATTR_WO(blocks);

static ssize_t touch_store(struct device *dev, struct device_attribute *attr,
			   const char *buf, size_t count)
{
	struct gpumem *gpu = dev_get_drvdata(dev);
	u64 length, step, at;
	void *memory;

	if (sscanf(buf, "%llu %llu", &length, &step) != 2 || !step ||
	    length > pci_resource_len(gpu->pdev, USEMEM_BAR))
		return -EINVAL;
	memory = memremap(pci_resource_start(gpu->pdev, USEMEM_BAR), length,
			  MEMREMAP_WB);
	if (!memory)
		return -ENOMEM;
	for (at = 0; at < length; at += step) {
		READ_ONCE(*(u64 *)(memory + at));
		cond_resched();
	}
	memunmap(memory);
	return count;
}
static DEVICE_ATTR_WO(touch);

static struct attribute *gpumem_attrs[] = {
	&dev_attr_check.attr,
	&dev_attr_blocks.attr,
	&dev_attr_touch.attr,
	NULL
};
ATTRIBUTE_GROUPS(gpumem);

static int gpumem_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct gpumem *gpu;
	int ret;

	gpu = devm_kzalloc(&pdev->dev, sizeof(*gpu), GFP_KERNEL);
	if (!gpu)
		return -ENOMEM;
	ret = pcim_enable_device(pdev);
	if (ret)
		return ret;
	gpu->pdev = pdev;
	mutex_init(&gpu->lock);
	pci_set_master(pdev);
	pci_set_drvdata(pdev, gpu);
	snprintf(gpu->name, sizeof(gpu->name), "gpumem%u", gpus++);
	gpu->misc.minor = MISC_DYNAMIC_MINOR;
	gpu->misc.name = gpu->name;
	gpu->misc.fops = &gpumem_fops;
	return misc_register(&gpu->misc);
}

static void gpumem_remove(struct pci_dev *pdev)
{
	struct gpumem *gpu = pci_get_drvdata(pdev);

	misc_deregister(&gpu->misc);
	/* Remove can't fail, so blocks in use stay System RAM. */
	guard(mutex)(&gpu->lock);
	if (set_blocks(gpu, 0))
		dev_err(&pdev->dev, "%u memory blocks are still in use\n", gpu->blocks);
}

static const struct pci_device_id gpumem_ids[] = {
	{ PCI_DEVICE(PCI_VENDOR_ID_NVIDIA, 0x2342) },
	{ PCI_DEVICE(PCI_VENDOR_ID_NVIDIA, 0x2941) },
	{ }
};
MODULE_DEVICE_TABLE(pci, gpumem_ids);

static struct pci_driver gpumem_driver = {
	.name		= "gpumem",
	.id_table	= gpumem_ids,
	.probe		= gpumem_probe,
	.remove		= gpumem_remove,
	.dev_groups	= gpumem_groups,
};
module_pci_driver(gpumem_driver);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A guest's use of GPU memory, for tests");
