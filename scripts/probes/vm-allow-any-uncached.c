// SPDX-License-Identifier: GPL-2.0-only
/*
 * VM_ALLOW_ANY_UNCACHED, which lets KVM map a device's memory as Normal-NC.
 * Since Linux 6.9, 5c656fcdd6c6 ("mm: Introduce new flag to indicate wc safe").
 *
 * absent-if: 'VM_ALLOW_ANY_UNCACHED' undeclared
 * absent-if: undeclared identifier 'VM_ALLOW_ANY_UNCACHED'
 */
#include <linux/mm.h>

static void __maybe_unused probe_vm_allow_any_uncached(vm_flags_t *flags)
{
	*flags = VM_ALLOW_ANY_UNCACHED;
}
