// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tells the kernel's subscribers that the host is about to sleep or is awake, as
 * the kernel does, but with user space running: a sleep of the whole machine
 * would cut the test's connection to the host. A number written to the parameter
 * "event", such as PM_SUSPEND_PREPARE, is what they get.
 */
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/suspend.h>

/* The kernel's function, which it does not export. A probe finds its address. */
static int (*call_chain)(unsigned long event);

static int tell(const char *text, const struct kernel_param *param)
{
	unsigned long event;
	int ret = kstrtoul(text, 0, &event);

	if (ret)
		return ret;
	return call_chain(event);
}

static const struct kernel_param_ops tell_ops = {
	.set	= tell,
};

module_param_cb(event, &tell_ops, NULL, 0200);
MODULE_PARM_DESC(event, "an event of linux/suspend.h");

static int __init load(void)
{
	struct kprobe probe = { .symbol_name = "pm_notifier_call_chain" };
	int ret = register_kprobe(&probe);

	if (ret)
		return ret;
	call_chain = (void *)probe.addr;
	unregister_kprobe(&probe);
	return 0;
}
module_init(load);

static void __exit unload(void)
{
}
module_exit(unload);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Tells the kernel's subscribers of the host's sleep");
