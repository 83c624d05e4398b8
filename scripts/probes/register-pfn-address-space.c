// SPDX-License-Identifier: GPL-2.0-only
/*
 * register_pfn_address_space(), with which memory errors reach the tasks that
 * have mapped memory without struct pages.
 * Since Linux 6.19, 2ec41967189c ("mm: handle poisoning of pfn without struct
 * pages"). NVIDIA's kernels have another struct of the same name, without
 * pfn_to_vma_pgoff, which is not this interface.
 *
 * absent-if: fatal error: linux/memory-failure.h: No such file or directory
 * absent-if: fatal error: 'linux/memory-failure.h' file not found
 * absent-if: 'struct pfn_address_space' has no member named '(mapping|pfn_to_vma_pgoff)'
 * absent-if: no member named '(mapping|pfn_to_vma_pgoff)' in 'struct pfn_address_space'
 */
#include <linux/memory-failure.h>
#include <linux/mm.h>

typedef int (*pgoff_fn)(struct vm_area_struct *vma, unsigned long pfn,
			pgoff_t *pgoff);

static int __maybe_unused
probe_register_pfn_address_space(struct pfn_address_space *space,
				 struct address_space *mapping, pgoff_fn fn)
{
	space->node.start = 0;
	space->node.last = 1;
	space->mapping = mapping;
	space->pfn_to_vma_pgoff = fn;
	return register_pfn_address_space(space);
}
