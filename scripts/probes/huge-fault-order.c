// SPDX-License-Identifier: GPL-2.0-only
/*
 * The operation huge_fault with an order. Before, it had an enum, which a
 * compiler accepts as the same type. So the probe checks that the enum is
 * absent.
 * Since Linux 6.6, 1d024e7a8dab ("mm: remove enum page_entry_size").
 *
 * absent-if: (redeclaration|redefinition) of enumerator 'PE_SIZE_PTE'
 * absent-if: incompatible(-| )(function )?pointer type
 */
#include <linux/mm.h>

enum probe_size {
	PE_SIZE_PTE
};

static vm_fault_t probe_fault(struct vm_fault *vmf, unsigned int order)
{
	return VM_FAULT_FALLBACK;
}

static const struct vm_operations_struct probe_ops __maybe_unused = {
	.huge_fault = probe_fault,
};
