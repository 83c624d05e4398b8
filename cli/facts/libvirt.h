/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What libvirt's own XML says that it has for guests with GPUs: its schema of
 * domains, and its answer to "virsh domcapabilities".
 */
#ifndef NVGRACE_GPU_FACTS_LIBVIRT_H
#define NVGRACE_GPU_FACTS_LIBVIRT_H

struct host;

/*
 * "schema nodeset smmu-bus smmu-accel iommufd ras": the words of what the schema
 * and the files that it includes have, to be freed; NULL: there is no schema.
 */
char *libvirt_schema_words(struct host *h);

/* "iommu: smmuv3\niommufd: yes\n" of domcapabilities, to be freed; NULL: nothing. */
char *libvirt_capability_lines(const char *xml);

#endif
