// SPDX-License-Identifier: GPL-2.0-only
/*
 * vm_flags_set() and vm_flags_clear(). Without them, the driver assigns to
 * vm_flags.
 * Since Linux 6.3, bc292ab00f6c ("mm: introduce vma->vm_flags wrapper
 * functions").
 *
 * absent-if: (implicit declaration of|undeclared) function 'vm_flags_(set|clear)'
 */
#include <linux/mm.h>

static void __maybe_unused probe_vm_flags_set(struct vm_area_struct *vma)
{
	vm_flags_set(vma, VM_IO);
	vm_flags_clear(vma, VM_MAYEXEC);
}
