// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the running kernel can do: vfio, iommufd, huge pfn maps, memory errors
 * and peer-to-peer. If the module is loaded, its features decide, because it
 * was compiled for this kernel. Otherwise the kernel's configuration decides,
 * and without one, its version.
 */
#include <glib.h>
#include <string.h>

#include "doctor/checks.h"

static bool enabled(const struct doctor *d, const char *option)
{
	return kernel_option(d, option) != 'n';
}

/* Whether modprobe would load a module that was built for this kernel. */
static bool has_module(struct doctor *d)
{
	const char *module = answer(d->answers, "module");
	g_autofree char *magic = module ? field_value(module, "vermagic") : NULL;
	size_t length = d->release ? strlen(d->release) : 0;
	bool found;

	found = magic && length && !strncmp(magic, d->release, length) && magic[length] == ' ';
	return found;
}

static void check_release(struct doctor *d)
{
	struct finding *f;

	if (!d->major) {
		f = finding(d, KERNEL_UNKNOWN, NULL, "the kernel's version is not known");
		because(f, "uname -r is \"%s\"", d->release ? d->release : "");
	} else if (!kernel_from(d, 6, 1) && !enabled(d, "VFIO_PCI_CORE")) {
		f = finding(d, KERNEL_TOO_OLD, NULL, "Linux %s is too old", d->release);
		because(f, "the module needs vfio-pci-core of Linux 6.1 or later");
	} else if (!kernel_from(d, 6, 1) && !has_module(d)) {
		f = finding(d, KERNEL_OLDER, NULL, "Linux %s is older than 6.1", d->release);
		because(f,
			"DKMS builds for 6.1 or later and for Red Hat's 5.14 of release 9.5 or later; other vendor kernels may have what the module needs");
	} else if (!d->arm) {
		f = finding(d, KERNEL_NOT_ARM, NULL, "Linux %s on %s", d->release, d->machine);
		because(f,
			"Grace CPUs are aarch64; on other machines the module is only for tests, and DKMS does not build it");
	} else {
		finding(d, KERNEL_GOOD, NULL, "Linux %s on %s", d->release, d->machine);
	}
}

static void check_vfio(struct doctor *d)
{
	bool core = host_exists(d->h, "/sys/module/vfio_pci_core");
	struct finding *f;

	if (enabled(d, "VFIO_PCI_CORE") || core) {
		finding(d, VFIO_GOOD, NULL, "the kernel has vfio-pci-core");
	} else if (d->config) {
		f = finding(d, VFIO_NONE, NULL, "the kernel has no vfio-pci-core");
		because(f,
			"CONFIG_VFIO_PCI_CORE is not set: the module can't be built for this kernel");
	} else {
		f = finding(d, VFIO_UNKNOWN, NULL,
			    "not known whether the kernel has vfio-pci-core");
		no_config(d, f);
	}
}

static void check_dma(struct doctor *d)
{
	bool type1 = enabled(d, "VFIO_IOMMU_TYPE1") ||
		     host_exists(d->h, "/sys/module/vfio_iommu_type1");
	bool iommufd = (enabled(d, "IOMMUFD") && enabled(d, "VFIO_DEVICE_CDEV")) ||
		       host_exists(d->h, "/dev/iommu");
	bool dmabuf = exports_dmabufs(d);
	struct finding *f;
	size_t gpus;
	g_autofree char *no_ats = accel_obstacle(d, &gpus);

	if (((gpus && !no_ats) || (!type1 && iommufd)) && !dmabuf && d->release &&
	    strstr(d->release, "-nvidia") && kernel_from(d, 6, 11)) {
		f = finding(d, DMA_BACKEND_PATCHED, NULL,
			    "DMA through iommufd, GPU memory by NVIDIA's patch");
		because(f,
			"kernels of this flavour map GPU memory without dma-buf export (\"iommufd/pages: Bypass PFNMAP\"), which can't be seen from outside");
	} else if (gpus && !no_ats && !dmabuf) {
		f = finding(d, DMA_BACKEND_NO_ATS, NULL,
			    "guests with an accelerated SMMUv3 can't use GPU memory through ATS");
		f->accel_only = true;
		because(f,
			"their SMMU needs GPU memory in iommufd's mappings, for which vfio must export it as a dma-buf: Linux 6.19 or later with CONFIG_VFIO_PCI_DMABUF");
	} else if (type1) {
		finding(d, DMA_BACKEND_GOOD, NULL, "DMA through type1%s",
			iommufd ? " or iommufd" : "");
	} else if (iommufd && dmabuf) {
		finding(d, DMA_BACKEND_GOOD, NULL, "DMA through iommufd, GPU memory through dma-buf");
	} else if (iommufd) {
		f = finding(d, DMA_BACKEND_NO_PEERS, NULL,
			    "only iommufd, which can't map GPU memory for DMA on this kernel");
		because(f,
			"without type1 and without vfio's dma-buf export (Linux 6.19 or later), IOMMU_IOAS_MAP of GPU memory fails with EFAULT; QEMU warns and works without DMA between devices");
	} else if (d->config) {
		f = finding(d, DMA_BACKEND_NONE, NULL, "neither type1 nor iommufd");
		because(f,
			"neither CONFIG_VFIO_IOMMU_TYPE1 nor CONFIG_IOMMUFD with CONFIG_VFIO_DEVICE_CDEV is set: no VMM can open a device");
	} else {
		f = finding(d, DMA_BACKEND_UNKNOWN, NULL,
			    "not known whether the kernel has type1 or iommufd");
		no_config(d, f);
	}
}

static void check_huge(struct doctor *d)
{
	bool pmd = d->features ? has_feature(d,
		"pmd_pfnmap") : enabled(d, "ARCH_SUPPORTS_PMD_PFNMAP");
	bool pud = d->features ? has_feature(d,
		"pud_pfnmap") : enabled(d, "ARCH_SUPPORTS_PUD_PFNMAP");
	struct finding *f;

	if (pmd || pud) {
		finding(d, HUGE_MAPPINGS_GOOD, NULL, "GPU memory is mapped by %s entries",
			pmd && pud ? "PMD and PUD" : pmd ? "PMD" : "PUD");
	} else if (d->features || d->config) {
		f = finding(d, HUGE_MAPPINGS_NONE, NULL, "GPU memory is mapped page by page");
		because(f, "%s: the first touch of all memory takes long, and TLB misses cost more",
			d->features ? "this kernel has no huge pfn maps" :
			"CONFIG_ARCH_SUPPORTS_PMD_PFNMAP is not set");
	} else {
		f = finding(d, HUGE_MAPPINGS_UNKNOWN, NULL,
			    "not known which page sizes map GPU memory");
		no_config(d, f);
	}
}

static void check_resets(struct doctor *d)
{
	struct finding *f;

	if (d->features ? has_feature(d, "zap") : kernel_from(d, 6, 10)) {
		finding(d, RESETS_GOOD, NULL,
			"a reset removes the mappings of GPU memory until it is ready");
		return;
	}
	if (!d->features) {
		f = finding(d, RESETS_UNKNOWN, NULL,
			    "not known whether a reset removes the mappings of GPU memory");
		because(f,
			"before Linux 6.10 vfio-pci-core does not remove them, and no module is loaded that reports whether it does");
		return;
	}
	f = finding(d, RESETS_MAPPINGS_SURVIVE, NULL, "mappings of GPU memory survive a reset");
	because(f,
		"the module can't remove them on this kernel: after a reset, a guest that does not wait reads all ones and loses writes");
}

static void check_memory_errors(struct doctor *d)
{
	struct finding *f;

	if (d->features ? has_feature(d, "poison") :
	    kernel_from(d, 6, 19) && enabled(d, "MEMORY_FAILURE")) {
		finding(d, MEMORY_ERRORS_GOOD, NULL, "errors in GPU memory reach the guest");
	} else if (!d->features && kernel_from(d, 6, 19) && !d->config) {
		f = finding(d, MEMORY_ERRORS_UNKNOWN, NULL,
			    "not known whether errors in GPU memory reach the guest");
		no_config(d, f);
	} else {
		f = finding(d, MEMORY_ERRORS_ONLY_LOGGED, NULL,
			    "errors in GPU memory don't reach the guest");
		because(f, "%s: only the host's log shows an uncorrected error",
			d->features ? "the module can't register the memory on this kernel" :
			"that needs Linux 6.19 or later with CONFIG_MEMORY_FAILURE");
	}
}

static void check_peers(struct doctor *d)
{
	struct finding *f;

	if (d->features ? has_feature(d, "dmabuf") : enabled(d, "VFIO_PCI_DMABUF")) {
		finding(d, PEER_TO_PEER_GOOD, NULL, "GPU memory can be exported as dma-buf");
	} else if (d->features || d->config) {
		f = finding(d, PEER_TO_PEER_NONE, NULL,
			    "GPU memory can't be exported as dma-buf");
		because(f, "%s: other devices of a guest with iommufd can't do DMA to GPU memory",
			d->features ? "this kernel has no dma-buf export of vfio" :
			"CONFIG_VFIO_PCI_DMABUF is not set");
	} else {
		f = finding(d, PEER_TO_PEER_UNKNOWN, NULL,
			    "not known whether GPU memory can be exported as dma-buf");
		no_config(d, f);
	}
}

static void check_dmabuf_fixes(struct doctor *d)
{
	struct finding *f;

	if (!exports_dmabufs(d) || !kernel_from(d, 6, 19) || kernel_from(d, 7, 2))
		return;
	f = finding(d, DMABUF_FIXES_UNSEEN, NULL,
		    "Linux %s may lack fixes of vfio's and iommufd's dma-bufs", d->release);
	because(f,
		"Linux 7.2 has them: vfio waits until importers have let go, a reference too few after a revocation, BARs that can't be mapped, and access to dma-bufs that iommufd must refuse");
}

/*
 * Those of the changes in NVIDIA's list that are for hosts, by its groups: GPU
 * passthrough, core SMMU and vCMDQ. What the kernel selects itself isn't here.
 */
static void check_options(struct doctor *d)
{
	static const char *const options[] = {
		"MEMORY_FAILURE", "IOMMUFD", "VFIO_DEVICE_CDEV", "ARM_SMMU_V3_IOMMUFD",
		"PCI_P2PDMA", "VFIO_PCI_DMABUF", "TEGRA241_CMDQV"
	};
	g_autofree char *missing = missing_options(d, options, G_N_ELEMENTS(options));
	struct finding *f;

	if (!d->config || !d->arm)
		return;
	if (!*missing) {
		finding(d, KERNEL_OPTIONS_GOOD, NULL,
			"the kernel has the options of NVIDIA's list for hosts of guests");
		return;
	}
	f = finding(d, KERNEL_OPTIONS_MISSING, NULL,
		    "the kernel lacks options of NVIDIA's list for hosts of guests");
	because(f, "%s: not set, or newer than this kernel", missing);
}

static void check_in_tree(struct doctor *d)
{
	char driver = kernel_option(d, "NVGRACE_GPU_VFIO_PCI");
	struct finding *f;

	if (!d->config)
		return;	/* the finding vfio reports that */
	if (other_driver_gives_egm(d)) {
		f = finding(d, IN_TREE_DRIVER_EGM_LOADED, NULL,
			    "NVIDIA's driver with extended GPU memory is loaded");
		because(f,
			"it gives guests EGM, which this module lacks; \"nvgrace-gpu guest\" and what the doctor says of readiness and scrubs need this module");
	} else if (enabled(d, "NVGRACE_EGM")) {
		f = finding(d, IN_TREE_DRIVER_EGM, NULL,
			    "the kernel has NVIDIA's driver with extended GPU memory");
		because(f,
			"CONFIG_NVGRACE_EGM is set: this module has no EGM, so DKMS does not build for this kernel");
	} else if (driver == 'y') {
		f = finding(d, IN_TREE_DRIVER_BUILT_IN, NULL,
			    "the kernel has a built-in driver of this name");
		because(f,
			"CONFIG_NVGRACE_GPU_VFIO_PCI=y: a module of the same name can't be loaded");
	} else if (driver == 'm') {
		finding(d, IN_TREE_DRIVER_GOOD, NULL,
			"the kernel has a module of this name; modprobe prefers DKMS's");
	} else {
		finding(d, IN_TREE_DRIVER_GOOD, NULL, "the kernel has no driver of this name");
	}
}

void check_kernel(struct doctor *d)
{
	check_release(d);
	check_vfio(d);
	check_dma(d);
	check_huge(d);
	check_resets(d);
	check_memory_errors(d);
	check_peers(d);
	check_dmabuf_fixes(d);
	check_options(d);
	check_in_tree(d);
}
