// SPDX-License-Identifier: GPL-2.0-only
/*
 * vmf_insert_pfn_pmd() and vmf_insert_pfn_pud() with a plain pfn. Before, they
 * took a pfn_t.
 * Since Linux 6.17, 21aa65bf82a7 ("mm: remove callers of pfn_t functionality").
 *
 * absent-if: incompatible(-| )(function )?pointer type
 */
#include <linux/mm.h>

struct probe_ops {
	vm_fault_t (*pmd)(struct vm_fault *vmf, unsigned long pfn, bool write);
	vm_fault_t (*pud)(struct vm_fault *vmf, unsigned long pfn, bool write);
};

static void __maybe_unused probe_vmf_insert_pfn_pmd_plain(struct probe_ops *ops)
{
	ops->pmd = vmf_insert_pfn_pmd;
	ops->pud = vmf_insert_pfn_pud;
}
