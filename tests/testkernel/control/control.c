// SPDX-License-Identifier: GPL-2.0-only
/*
 * Makes one mistake, by the name in its parameter, to show that the debug
 * kernel would find it in a driver. tests/testkernel/controls loads this
 * module, and knows the log line that each mistake must cause.
 *
 * Loading always fails, so that one machine can make all mistakes.
 */
#include <linux/delay.h>
#include <linux/dma-mapping.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/refcount.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/timer.h>
#include <linux/vmalloc.h>

static char *mistake;
module_param(mistake, charp, 0444);
MODULE_PARM_DESC(mistake, "which one to make");

/* Set when the test has seen a mistake that goes on until then. */
static bool seen;
module_param(seen, bool, 0644);
MODULE_PARM_DESC(seen, "ends a mistake that goes on");

#define BYTES	100

static DEFINE_MUTEX(first);
static DEFINE_MUTEX(second);
static DEFINE_SPINLOCK(lock);

/* Hides a value from the optimizer. */
static unsigned int hidden(unsigned int value)
{
	OPTIMIZER_HIDE_VAR(value);
	return value;
}

static void heap_overflow(void)
{
	u8 *buf = kmalloc(BYTES, GFP_KERNEL);

	if (buf)
		WRITE_ONCE(buf[hidden(BYTES)], 1);
	kfree(buf);
}

static void use_after_free(void)
{
	u8 *buf = kmalloc(BYTES, GFP_KERNEL), *stale = buf;

	OPTIMIZER_HIDE_VAR(stale);
	kfree(buf);
	if (buf)
		WRITE_ONCE(stale[0], 1);
}

static void vmalloc_overflow(void)
{
	u8 *buf = vmalloc(BYTES);

	if (buf)
		WRITE_ONCE(buf[hidden(BYTES)], 1);
	vfree(buf);
}

static void stack_overflow(void)
{
	u8 buf[BYTES];

	WRITE_ONCE(buf[hidden(BYTES)], 1);
}

static void leak(void)
{
	void *buf;
	int i;

	/* Loses several, since a stale pointer may hide one. */
	for (i = 0; i < 16; i++) {
		buf = kmalloc(BYTES, GFP_KERNEL);
		OPTIMIZER_HIDE_VAR(buf);
	}
}

static void wide_shift(void)
{
	pr_info("control: %u\n", 1U << hidden(32));
}

static void lock_order(void)
{
	mutex_lock(&first);
	mutex_lock(&second);
	mutex_unlock(&second);
	mutex_unlock(&first);
	mutex_lock(&second);
	mutex_lock(&first);
	mutex_unlock(&first);
	mutex_unlock(&second);
}

static void sleep_in_atomic(void)
{
	spin_lock(&lock);
	might_sleep();
	spin_unlock(&lock);
}

static void list_corruption(void)
{
	LIST_HEAD(head);
	struct list_head one, two;

	list_add(&one, &head);
	one.prev = &two;
	list_del(&one);
}

static void refcount_underflow(void)
{
	refcount_t count = REFCOUNT_INIT(0);

	refcount_dec(&count);
}

static void no_timeout(struct timer_list *timer)
{
}

static void free_active_timer(void)
{
	struct timer_list *timer = kzalloc(sizeof(*timer), GFP_KERNEL);

	if (!timer)
		return;
	timer_setup(timer, no_timeout, 0);
	mod_timer(timer, jiffies + 1000 * HZ);
	/* The kernel's checker stops the timer before the memory is freed. */
	kfree(timer);
}

static void dma_unmap(void)
{
	struct pci_dev *pdev = pci_get_device(0x1af4, PCI_ANY_ID, NULL);

	if (pdev)
		dma_unmap_single(&pdev->dev, 0x1000, PAGE_SIZE,
				 DMA_TO_DEVICE);
	pci_dev_put(pdev);
}

static void hang(void)
{
	/* Each sleep is longer than the limit that the test has set. */
	while (!READ_ONCE(seen))
		schedule_timeout_uninterruptible(8 * HZ);
}

static unsigned long raced;

static void race_once(void)
{
	raced++;
	/*
	 * Without a barrier, the compiler counts in a register and writes the
	 * sum after the loop: cond_resched() is empty with CONFIG_PREEMPT.
	 */
	barrier();
	cond_resched();
}

static int race_along(void *unused)
{
	while (!kthread_should_stop())
		race_once();
	return 0;
}

static void two_writers(void)
{
	struct task_struct *other = kthread_run(race_along, NULL, "racer");

	if (IS_ERR(other))
		return;
	while (!READ_ONCE(seen))
		race_once();
	kthread_stop(other);
	/* Without a use, the compiler would remove the variable. */
	pr_info("control: counted to %lu\n", raced);
}

static const struct {
	const char *name;
	void (*make)(void);
} mistakes[] = {
	{ "heap-overflow", heap_overflow },
	{ "use-after-free", use_after_free },
	{ "vmalloc-overflow", vmalloc_overflow },
	{ "stack-overflow", stack_overflow },
	{ "leak", leak },
	{ "wide-shift", wide_shift },
	{ "lock-order", lock_order },
	{ "sleep-in-atomic", sleep_in_atomic },
	{ "list-corruption", list_corruption },
	{ "refcount-underflow", refcount_underflow },
	{ "free-active-timer", free_active_timer },
	{ "dma-unmap-unmapped", dma_unmap },
	{ "hang", hang },
	{ "data-race", two_writers },
};

static int __init control_init(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(mistakes); i++) {
		if (mistake && !strcmp(mistake, mistakes[i].name)) {
			mistakes[i].make();
			return -ECANCELED;
		}
	}
	return -ENOENT;
}
module_init(control_init);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("mistakes for the debug kernel to find");
