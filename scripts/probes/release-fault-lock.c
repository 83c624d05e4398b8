// SPDX-License-Identifier: GPL-2.0-only
/*
 * release_fault_lock(), for faults that hold only the lock of their VMA.
 * Since Linux 6.6, 29a22b9e08d7 ("mm: handle userfaults under VMA lock").
 * Before, a fault held the lock of the address space.
 *
 * absent-if: (implicit declaration of|undeclared) function 'release_fault_lock'
 */
#include <linux/mm.h>

static void __maybe_unused probe_release_fault_lock(struct vm_fault *vmf)
{
	release_fault_lock(vmf);
}
