// SPDX-License-Identifier: GPL-2.0-only
/*
 * Shows what KVM does with the memory of a bound GPU. test_doctor_in_machine.py
 * runs it in the machine and compares the result with the doctor's findings. The
 * program opens the GPU as a VMM does, and gives a virtual machine a memory slot
 * of each part.
 *
 *	doctor_kvm NAME
 *
 * Prints "cap: N" (capability 243 of the VM), and for usemem and resmem "taken"
 * or the errno with which KVM refused the slot.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib.h"

#define CACHEABLE_PFNMAP	243
#define LENGTH			(2 * MiB)

static void offer(struct vfio *v, int vm, unsigned int slot, unsigned int index,
		  const char *name)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot,
		.guest_phys_addr = (slot + 1) * GiB,
		.memory_size = LENGTH,
	};
	void *memory;
	int err;

	memory = vfio_map(v, index, 0, LENGTH, PROT_READ | PROT_WRITE,
			  MAP_SHARED, &err);
	if (memory == MAP_FAILED || !memory)
		fail_msg("mmap of %s: %s", name, strerror(-err));
	region.userspace_addr = (uintptr_t)memory;
	if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region))
		printf("%s: %s\n", name, errno == EINVAL ? "EINVAL" : strerror(errno));
	else
		printf("%s: taken\n", name);
}

int main(int argc, char **argv)
{
	struct vfio v = { };
	int kvm, vm;

	if (argc != 2)
		return 2;
	vfio_open(&v, gpu_find(argv[1]));
	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0) {
		printf("/dev/kvm: %s\n", strerror(errno));
		return 1;
	}
	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	if (vm < 0) {
		printf("KVM_CREATE_VM: %s\n", strerror(errno));
		return 1;
	}
	printf("cap: %d\n", ioctl(vm, KVM_CHECK_EXTENSION, CACHEABLE_PFNMAP));
	offer(&v, vm, 0, USEMEM, "usemem");
	offer(&v, vm, 1, RESMEM, "resmem");
	close(vm);
	close(kvm);
	vfio_close(&v);
	return 0;
}
