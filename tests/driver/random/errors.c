// SPDX-License-Identifier: GPL-2.0-only
/* Errors on the PCIe link, injected by the kernel's aer_inject. */
#define _GNU_SOURCE
#include <linux/pci_regs.h>

#include "random.h"

#define RECOVERY_MS	600000

static bool can_inject(void)
{
	return load_helper("aer_inject");
}

static void inject(uint32_t uncorrected)
{
	gpu_inject_error(s.gpu, uncorrected, 0);
	if (!klog_wait("device recovery successful", RECOVERY_MS))
		wrong("recovery has not succeeded");
}

static void error_op(void)
{
	bool fatal = chance(30);
	uint8_t command;

	say(fatal ? " fatal" : " not fatal");
	if (!s.fd_count || !in_reach() || s.low != AWAKE)
		return not_now("out of reach");
	inject(fatal ? ERR_DATA_LINK : ERR_COMPLETION_TIMEOUT);
	if (!fatal) {
		/*
		 * The driver has no reason to check readiness again, but may.
		 */
		s.ready = s.ready == READY ? EITHER : s.ready;
		return;
	}
	model_reset();
	/* The registers are as when the driver was bound. */
	expect("config read", dev_read(CONFIG + PCI_COMMAND, &command, 1), 1);
	if (!(command & PCI_COMMAND_MEMORY))
		wrong("recovery leaves memory decoding off");
	s.config[PCI_COMMAND] = command;
}

const struct op error_ops[] = {
	OP_IF("link-error", 6, error_op, can_inject),
	{ }
};
