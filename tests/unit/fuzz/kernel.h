/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The kernel interfaces that src/cfgemu.c and include/nvgrace_gpu.h need in
 * user space. test_fuzz.py includes this file before both, and makes empty
 * headers with the names of the kernel's. The functions are in fuzz_bar.c.
 */
#ifndef FUZZ_KERNEL_H
#define FUZZ_KERNEL_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include <linux/types.h>
#include <linux/vfio.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s64 s64;
typedef __s64 ktime_t;
typedef __u64 phys_addr_t;

#define __user
#define __iomem
/* There is one thread, so plain accesses suffice. */
#define READ_ONCE(x)		(x)
#define WRITE_ONCE(x, val)	((x) = (val))
#define PAGE_SIZE		4096
#define round_down(x, y)	((x) & ~((y) - 1ULL))
#define container_of(ptr, type, member) \
	((type *)((char *)(ptr) - offsetof(type, member)))

/* As in vfio-pci-core: the region's index is above the offset in it. */
#define VFIO_PCI_OFFSET_SHIFT	40
#define VFIO_PCI_OFFSET_MASK	((1ULL << VFIO_PCI_OFFSET_SHIFT) - 1)
#define VFIO_PCI_INDEX_TO_OFFSET(index) \
	((u64)(index) << VFIO_PCI_OFFSET_SHIFT)

struct device;
struct vm_area_struct;
struct vfio_info_cap;

/* Of a header's function that no fuzzer calls. */
void *dev_get_drvdata(const struct device *dev);

struct list_head {
	struct list_head *next, *prev;
};

struct mutex {
	int unused;
};

struct rw_semaphore {
	int unused;
};

struct ratelimit_state {
	int unused;
};

struct work_struct {
	int unused;
};

typedef struct {
	__s64 counter;
} atomic64_t;

struct notifier_block {
	int unused;
};

typedef struct {
	int unused;
} wait_queue_head_t;

struct inode {
	struct address_space *i_mapping;
};

typedef struct {
	bool held;
} spinlock_t;

struct pci_dev {
	int cfg_size;
};

struct vfio_device {
	struct inode *inode;
};

struct vfio_pci_core_device {
	struct vfio_device vdev;
	struct pci_dev *pdev;
};

void spin_lock(spinlock_t *lock);
void spin_unlock(spinlock_t *lock);
unsigned long copy_to_user(void __user *to, const void *from, unsigned long n);
unsigned long copy_from_user(void *to, const void __user *from, unsigned long n);
ssize_t vfio_pci_core_read(struct vfio_device *vdev, char __user *buf, size_t count, loff_t *ppos);
ssize_t vfio_pci_core_write(struct vfio_device *vdev, const char __user *buf, size_t count,
			    loff_t *ppos);

#endif /* FUZZ_KERNEL_H */
