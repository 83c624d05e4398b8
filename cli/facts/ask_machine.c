// SPDX-License-Identifier: GPL-2.0-only
/*
 * Questions to the machine: this process, the processor and KVM.
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "facts/answers.h"
#include "facts/ask.h"

/* Headers before Linux 6.17 lack it. */
#ifndef KVM_CAP_ARM_CACHEABLE_PFNMAP_SUPPORTED
#define KVM_CAP_ARM_CACHEABLE_PFNMAP_SUPPORTED 243
#endif

char *ask_euid(struct answers *a)
{
	return g_strdup_printf("%u", (unsigned int)geteuid());
}

char *ask_machine(struct answers *a)
{
	struct utsname uts;

	/* Its only error is a bad address. */
	uname(&uts);
	return g_strdup(uts.machine);
}

char *ask_release(struct answers *a)
{
	struct utsname uts;

	/* See above. */
	uname(&uts);
	return g_strdup(uts.release);
}

char *ask_page_size(struct answers *a)
{
	return g_strdup_printf("%llu", (unsigned long long)a->h->page_size);
}

bool is_arm(struct answers *a)
{
	const char *machine = answer(a, "machine");

	return machine && !strcmp(machine, "aarch64");
}

char *ask_kvm(struct answers *a)
{
	bool arm = is_arm(a);
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm, bits = 0;
	GString *t = g_string_new(NULL);

	if (kvm < 0) {
		g_string_append_printf(t, "state: %s\n",
				       errno == EACCES || errno == EPERM ? "denied" :
				       host_absent() ? "absent" : strerror(errno));
		return g_string_free(t, FALSE);
	}
#ifdef KVM_CAP_ARM_VM_IPA_SIZE
	if (arm)
		bits = ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_ARM_VM_IPA_SIZE);
#endif
	/*
	 * On Arm the type is the width of guest-physical addresses; 0 means 40.
	 */
	vm = ioctl(kvm, KVM_CREATE_VM, arm && bits > 0 ? (unsigned long)bits : 0);
	if (vm < 0) {
		g_string_append_printf(t, "state: no VM: %s\n", strerror(errno));
		close(kvm);
		return g_string_free(t, FALSE);
	}
	g_string_append(t, "state: open\n");
	if (bits > 0)
		g_string_append_printf(t, "address-bits: %d\n", bits);
	/* Ask the VM, because /dev/kvm always answers 0. */
	g_string_append_printf(t, "cap-243: %d\n",
			       ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_ARM_CACHEABLE_PFNMAP_SUPPORTED));
	close(vm);
	close(kvm);
	return g_string_free(t, FALSE);
}
