// SPDX-License-Identifier: GPL-2.0-only
/*
 * Makes functions of the kernel fail when the driver under test calls them, or
 * vfio for it. For tests only: tests/driver/failures.c uses it. Debian's kernels
 * have no fault injection.
 *
 * Root writes "VALUE NAME..." to the parameter "calls". From then on, the
 * functions of these names return VALUE to the driver at once. Names that this
 * kernel doesn't have are skipped, because functions have other names in other
 * versions. If none is left, the write fails with -ENOENT. An empty line ends
 * it. The parameter "failed" counts such calls, since the last write. While the
 * parameter "hold" is 1, they don't return.
 *
 * A probe at a function's first instruction can return to the caller, whose
 * address is still in the link register then. So this works on arm64 only.
 */
#include <linux/atomic.h>
#include <linux/errno.h>
#include <linux/kallsyms.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/ptrace.h>
#include <linux/string.h>
#include <linux/wait.h>

#define DRIVER	"[nvgrace_gpu_vfio_pci]"
#define VFIO	"[vfio]"
#define NAMES	4

static struct kprobe probes[NAMES];
static char names[NAMES][64];
static unsigned int count;	/* of registered probes */
static long value;
static atomic_t failed;
static bool hold;
static DECLARE_WAIT_QUEUE_HEAD(released);

/* Runs instead of a function, in its caller's context. */
static long return_late(void)
{
	/* Idle, so that the kernel doesn't report a hung task. */
	wait_event_idle(released, !READ_ONCE(hold));
	return value;
}

/* Runs in atomic context. Non-zero: the function does not run. */
static int before_function(struct kprobe *p, struct pt_regs *regs)
{
	char caller[KSYM_SYMBOL_LEN];

	sprint_symbol(caller, procedure_link_pointer(regs));
	if (!strstr(caller, DRIVER) && !strstr(caller, VFIO))
		return 0;
	atomic_inc(&failed);
	if (READ_ONCE(hold)) {
		instruction_pointer_set(regs, (unsigned long)return_late);
		return 1;
	}
	regs_set_return_value(regs, value);
	instruction_pointer_set(regs, procedure_link_pointer(regs));
	return 1;
}

static void end_all(void)
{
	while (count)
		unregister_kprobe(&probes[--count]);
}

/* Called with the lock of this module's parameters held. */
static int set_calls(const char *text, const struct kernel_param *kp)
{
	int fields, ret, i;

	end_all();
	fields = sscanf(text, "%ld %63s %63s %63s %63s", &value, names[0],
			names[1], names[2], names[3]);
	atomic_set(&failed, 0);
	if (fields <= 0)
		return 0;
	for (i = 0; i < fields - 1; i++) {
		probes[count] = (struct kprobe){
			.symbol_name = names[i],
			.pre_handler = before_function,
		};
		ret = register_kprobe(&probes[count]);
		if (!ret) {
			count++;
		} else if (ret != -ENOENT) {
			end_all();
			return ret;
		}
	}
	return count ? 0 : -ENOENT;
}

static int get_failed(char *text, const struct kernel_param *kp)
{
	return sprintf(text, "%d\n", atomic_read(&failed));
}

static int set_hold(const char *text, const struct kernel_param *kp)
{
	int ret = param_set_bool(text, kp);

	wake_up_all(&released);
	return ret;
}

static const struct kernel_param_ops calls_ops = { .set = set_calls };
static const struct kernel_param_ops hold_ops = { .set = set_hold };
static const struct kernel_param_ops failed_ops = { .get = get_failed };

module_param_cb(calls, &calls_ops, NULL, 0200);
MODULE_PARM_DESC(calls, "\"VALUE NAME...\": these functions return VALUE to the driver");
module_param_cb(hold, &hold_ops, &hold, 0200);
MODULE_PARM_DESC(hold, "these functions wait until this is 0");
module_param_cb(failed, &failed_ops, NULL, 0400);
MODULE_PARM_DESC(failed, "how many calls have failed so");

static void __exit failing_exit(void)
{
	end_all();
}
module_exit(failing_exit);

MODULE_DESCRIPTION("Failing calls for tests of the driver");
MODULE_LICENSE("GPL");
