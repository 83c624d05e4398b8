/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The QEMUs and libvirts of a host, and which features for guests with GPUs each
 * has: those that QEMU itself lists, or, if a record has no list, and for libvirt,
 * those of its version.
 */
#ifndef NVGRACE_GPU_FACTS_VMM_H
#define NVGRACE_GPU_FACTS_VMM_H

#include <stdbool.h>
#include <stddef.h>

enum vmm_feature {
	QEMU_INITIATOR,		/* -object acpi-generic-initiator */
	QEMU_ALIGNS,		/* BARs' mappings are aligned; only its version shows it */
	QEMU_WINDOW,		/* -machine highmem-mmio-size */
	QEMU_RAS,		/* -machine ras */
	QEMU_IOMMUFD,		/* -object iommufd, -device vfio-pci,iommufd */
	QEMU_ATS,		/* -device vfio-pci,ats */
	QEMU_ACCEL,		/* -device arm-smmuv3,accel */
	QEMU_SMMU_DERIVES,	/* it takes the accelerated SMMU's properties from the host */
	QEMU_SMMU_SSIDSIZE,	/* -device arm-smmuv3,ssidsize */
	QEMU_SMMU_PASID,	/* -device arm-smmuv3,pasid, in QEMUs of NVIDIA */
	QEMU_SPEED,		/* -device pcie-root-port,x-speed */
	LIBVIRT_VARIANT,	/* managed='yes' finds the driver; only its version shows it */
	LIBVIRT_RAS,		/* <ras> */
	LIBVIRT_NODESET,	/* <acpi nodeset>, cells without memory, <pcihole64> */
	LIBVIRT_ACCEL,		/* <iommu model='smmuv3'> with pciBus, accel, ssidsize */
	LIBVIRT_IOMMUFD,	/* <driver iommufd='yes'> */
};

struct vmm {
	char *path;
	bool known;		/* its version is known */
	int major, minor;
	char *words;		/* what it lists, "machine.ras arm-smmuv3.ats=auto"; NULL: not known */
	char *machine;		/* its newest "virt-10.0"; NULL: not known */
};

struct vmms {
	struct vmm *vmm;
	size_t count;
};

struct answers;

void qemus_read(struct answers *a, struct vmms *vmms);
void libvirts_read(struct answers *a, struct vmms *vmms);
void vmms_free(struct vmms *vmms);

/*
 * Takes the version of the running daemon from "virsh version --daemon", and from
 * "virsh domcapabilities" whether its QEMU has iommufd, which stays true if that is
 * not known. NULL: nothing was said.
 */
void libvirt_ask(const char *version, const char *capabilities, struct vmms *libvirts,
		 bool *iommufd);

bool vmm_has(const struct vmm *vmm, enum vmm_feature feature);

/* "QEMU 10.0": the first version that has it; static. */
const char *vmm_since(enum vmm_feature feature);

#endif
