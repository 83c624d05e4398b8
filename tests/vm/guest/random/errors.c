// SPDX-License-Identifier: GPL-2.0-only
/* Errors on the PCIe link, injected by the kernel's aer_inject. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/pci_regs.h>

#include "random.h"

#define MODULE		"/tests/aer_inject.ko"
#define INJECTOR	"/dev/aer_inject"

/* Bits of AER's status registers: by default fatal, and not fatal. */
#define ERR_DATA_LINK		0x00000010
#define ERR_COMPLETION_TIMEOUT	0x00004000

#define RECOVERY_MS	30000

/* What /dev/aer_inject takes. */
struct error {
	uint8_t bus;
	uint8_t dev;
	uint8_t fn;
	uint32_t uncorrected;
	uint32_t corrected;
	uint32_t header[4];
	uint32_t domain;
};

static bool can_inject(void)
{
	struct stat st;
	int ret;

	if (stat(MODULE, &st) || !s.gpu->is_model ||
	    strcmp(s.gpu->name, "random"))
		return false;
	ret = load_file(MODULE);
	if (ret && ret != -EEXIST)
		fail_msg(MODULE ": %s", strerror(-ret));
	return true;
}

static void inject(uint32_t uncorrected)
{
	struct error e = { .uncorrected = uncorrected };
	unsigned int domain, bus, dev, fn;
	int fd = open(INJECTOR, O_WRONLY | O_CLOEXEC);

	if (sscanf(s.gpu->addr, "%x:%x:%x.%x", &domain, &bus, &dev, &fn) != 4)
		fail_msg("%s is no PCI address", s.gpu->addr);
	e.domain = domain;
	e.bus = bus;
	e.dev = dev;
	e.fn = fn;
	klog_mark();
	if (write(fd, &e, sizeof(e)) != sizeof(e))
		fail_msg("injecting into %s: %s", s.gpu->addr, strerror(errno));
	close(fd);
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
		/* Nobody has a reason to ask again, nor must know that. */
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
