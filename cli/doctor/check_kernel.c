// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the running kernel can do: vfio, iommufd, huge pfn maps, memory errors
 * and peer-to-peer. If the module is loaded, its features decide, because it
 * was compiled for this kernel. Otherwise the kernel's configuration decides,
 * and last its version.
 */
#include <stdlib.h>
#include <string.h>

#include "doctor/checks.h"
#include "system/program.h"

#define NO_CONFIG "there is no configuration of this kernel in /boot/config-%s, " \
	"/lib/modules/%s/config or /proc/config.gz"

static bool enabled(const struct doctor *d, const char *option)
{
	return kernel_option(d, option) != 'n';
}

static void no_config(const struct doctor *d, struct finding *f)
{
	because(f, NO_CONFIG, d->release, d->release);
	remedy(f, "copy it to /boot/config-%s, or bind a GPU, so that the module reports its features",
	       d->release);
}

/* Whether modprobe would load a module that was built for this kernel. */
static bool has_module(struct doctor *d)
{
	const char *module = answer(d->answers, "module");
	char *magic = module ? field_value(module, "vermagic") : NULL;
	size_t length = d->release ? strlen(d->release) : 0;
	bool found;

	found = magic && length && !strncmp(magic, d->release, length) && magic[length] == ' ';
	free(magic);
	return found;
}

/*
 * @kernel
 *
 * good: Linux 6.1 or later on aarch64; or an older one for which the module is
 *	built
 * warning: older, but with vfio-pci-core, as some vendor kernels
 *	remedy: if DKMS does not build for this kernel, run `make modules` in
 *	the module's source, which tests the kernel itself
 * warning: not aarch64, where the module is only for tests
 *	remedy: run the doctor on the Grace host
 * bad: older, and without vfio-pci-core
 *	remedy: install Linux 6.1 or later; with 6.17 or later, a guest gets the
 *	memory at full speed
 * unknown: `uname -r` has no number, as in an edited record
 *	remedy: record again
 */
static void check_release(struct doctor *d)
{
	struct finding *f;

	if (!d->major) {
		f = finding(d, "kernel", UNKNOWN, NULL, "the kernel's version is not known");
		because(f, "uname -r is \"%s\"", d->release ? d->release : "");
		remedy(f, "record again with --record");
	} else if (!kernel_from(d, 6, 1) && !enabled(d, "VFIO_PCI_CORE")) {
		f = finding(d, "kernel", BAD, NULL, "Linux %s is too old", d->release);
		because(f, "the module needs vfio-pci-core of Linux 6.1 or later");
		remedy(f,
		       "install Linux 6.1 or later; with 6.17 or later, a guest gets the memory at full speed");
	} else if (!kernel_from(d, 6, 1) && !has_module(d)) {
		f = finding(d, "kernel", WARNING, NULL, "Linux %s is older than 6.1", d->release);
		because(f,
			"DKMS builds for 6.1 or later and for Red Hat's 5.14 of release 9.5 or later; other vendor kernels may have what the module needs");
		remedy(f,
		       "run \"make modules\" in the module's source, which tests the kernel itself");
	} else if (!d->arm) {
		f = finding(d, "kernel", WARNING, NULL, "Linux %s on %s", d->release, d->machine);
		because(f,
			"Grace CPUs are aarch64; on other machines the module is only for tests, and DKMS does not build it");
		remedy(f, "run this on the Grace host");
	} else {
		finding(d, "kernel", GOOD, NULL, "Linux %s on %s", d->release, d->machine);
	}
}

/*
 * @vfio
 *
 * Whether the kernel has `CONFIG_VFIO_PCI_CORE`, which the module needs.
 *
 * good: it is set, or the module vfio_pci_core is loaded
 * bad: it isn't set
 *	remedy: boot another kernel
 * unknown: there is no configuration of the kernel in `/boot/config-RELEASE`,
 *	`/lib/modules/RELEASE/config` or `/proc/config.gz`
 *	remedy: copy it to `/boot/config-RELEASE`, or bind a GPU
 */
static void check_vfio(struct doctor *d)
{
	bool core = host_exists(d->h, "/sys/module/vfio_pci_core");
	struct finding *f;

	if (enabled(d, "VFIO_PCI_CORE") || core) {
		finding(d, "vfio", GOOD, NULL, "the kernel has vfio-pci-core");
	} else if (d->config) {
		f = finding(d, "vfio", BAD, NULL, "the kernel has no vfio-pci-core");
		because(f,
			"CONFIG_VFIO_PCI_CORE is not set: the module can't be built for this kernel");
		remedy(f,
		       "boot a kernel with CONFIG_VFIO_PCI_CORE, such as a server kernel of Debian or RHEL");
	} else {
		f = finding(d, "vfio", UNKNOWN, NULL,
			    "not known whether the kernel has vfio-pci-core");
		no_config(d, f);
	}
}

/*
 * @dma-backend
 *
 * Whether the kernel has type1 (`/dev/vfio/vfio`) or iommufd (`/dev/iommu`), by
 * which a VMM maps the guest's memory for DMA. Some vendor kernels have only
 * iommufd. Without vfio's dma-buf export (Linux 6.19 or later), iommufd can't
 * map GPU memory (EFAULT).
 *
 * good: the kernel has type1; or it has iommufd and dma-buf export
 * note: it has only iommufd, without dma-buf export: other devices of a guest
 *	can't do DMA to GPU memory
 *	remedy: accept that, or boot a kernel with `CONFIG_VFIO_IOMMU_TYPE1` or
 *	`CONFIG_VFIO_PCI_DMABUF`
 * bad: it has neither
 *	remedy: boot another kernel
 * bad: guests with the bound GPUs get an accelerated SMMUv3 with ATS (finding
 *	`guest-smmu`), and the kernel has no dma-buf export: the GPU's accesses
 *	to its own memory by a guest's addresses fail
 *	remedy: boot a kernel with `CONFIG_VFIO_PCI_DMABUF`, or make guests with
 *	`nvgrace-gpu guest --accel-smmu=off`
 * unknown: there is no configuration of the kernel
 *	remedy: as for vfio
 */
static void check_dma(struct doctor *d)
{
	bool type1 = enabled(d, "VFIO_IOMMU_TYPE1") ||
		     host_exists(d->h, "/sys/module/vfio_iommu_type1");
	bool iommufd = (enabled(d, "IOMMUFD") && enabled(d, "VFIO_DEVICE_CDEV")) ||
		       host_exists(d->h, "/dev/iommu");
	bool dmabuf = exports_dmabufs(d);
	struct finding *f;
	size_t gpus;
	char *no_ats = accel_obstacle(d, &gpus);

	if (gpus && !no_ats && !dmabuf) {
		f = finding(d, "dma-backend", BAD, NULL,
			    "guests with an accelerated SMMUv3 can't use GPU memory by ATS");
		f->accel_only = true;
		because(f,
			"their SMMU needs GPU memory in iommufd's mappings, for which vfio must export it as a dma-buf: Linux 6.19 or later with CONFIG_VFIO_PCI_DMABUF");
		remedy(f,
		       "boot such a kernel, or make guests with \"" PROGRAM " guest --accel-smmu=off\"");
	} else if (type1) {
		finding(d, "dma-backend", GOOD, NULL, "DMA by type1%s",
			iommufd ? " or iommufd" : "");
	} else if (iommufd && dmabuf) {
		finding(d, "dma-backend", GOOD, NULL, "DMA by iommufd, GPU memory by dma-buf");
	} else if (iommufd) {
		f = finding(d, "dma-backend", NOTE, NULL,
			    "only iommufd, which can't map GPU memory for DMA on this kernel");
		because(f,
			"without type1 and without vfio's dma-buf export (Linux 6.19 or later), IOMMU_IOAS_MAP of GPU memory fails with EFAULT; QEMU warns and works without DMA between devices");
		remedy(f,
		       "use QEMU with -object iommufd and accept that, or boot a kernel with CONFIG_VFIO_IOMMU_TYPE1 or CONFIG_VFIO_PCI_DMABUF");
	} else if (d->config) {
		f = finding(d, "dma-backend", BAD, NULL, "neither type1 nor iommufd");
		because(f,
			"neither CONFIG_VFIO_IOMMU_TYPE1 nor CONFIG_IOMMUFD with CONFIG_VFIO_DEVICE_CDEV is set: no VMM can open a device");
		remedy(f, "boot a kernel with one of them");
	} else {
		f = finding(d, "dma-backend", UNKNOWN, NULL,
			    "not known whether the kernel has type1 or iommufd");
		no_config(d, f);
	}
	free(no_ats);
}

/*
 * @huge-mappings
 *
 * Which page-table entries map GPU memory. The loaded module's features say so,
 * or else `CONFIG_ARCH_SUPPORTS_PMD_PFNMAP` and
 * `CONFIG_ARCH_SUPPORTS_PUD_PFNMAP`.
 *
 * good: PMD or PUD entries map it
 * note: it is mapped page by page: the first touch of all memory takes long,
 *	and TLB misses cost more
 *	remedy: boot Linux 6.12 or later, or a kernel with 64K pages
 * unknown: the module is not loaded, and there is no configuration of the
 *	kernel
 *	remedy: bind a GPU
 */
static void check_huge(struct doctor *d)
{
	bool pmd = d->features ? has_feature(d,
		"pmd_pfnmap") : enabled(d, "ARCH_SUPPORTS_PMD_PFNMAP");
	bool pud = d->features ? has_feature(d,
		"pud_pfnmap") : enabled(d, "ARCH_SUPPORTS_PUD_PFNMAP");
	struct finding *f;

	if (pmd || pud) {
		finding(d, "huge-mappings", GOOD, NULL, "GPU memory is mapped by %s entries",
			pmd && pud ? "PMD and PUD" : pmd ? "PMD" : "PUD");
	} else if (d->features || d->config) {
		f = finding(d, "huge-mappings", NOTE, NULL, "GPU memory is mapped page by page");
		because(f, "%s: the first touch of all memory takes long, and TLB misses cost more",
			d->features ? "this kernel has no huge pfn maps" :
			"CONFIG_ARCH_SUPPORTS_PMD_PFNMAP is not set");
		remedy(f, "boot Linux 6.12 or later, or a kernel with 64K pages");
	} else {
		f = finding(d, "huge-mappings", UNKNOWN, NULL,
			    "not known which page sizes map GPU memory");
		no_config(d, f);
	}
}

/*
 * @resets
 *
 * Whether a reset removes the mappings of GPU memory, so that the next access
 * waits until the memory is ready. vfio-pci-core does so in Linux 6.10 or
 * later. On older kernels the module does it, and its `features` have the word
 * `zap`; see [kernels.md](kernels.md#resets-before-linux-610).
 *
 * good: it does
 * warning: the loaded module can't: a guest that does not wait reads all ones
 *	and loses writes
 *	remedy: update nvgrace-gpu-vfio-pci-dkms, or boot Linux 6.10 or later
 * unknown: the kernel is older than 6.10, and no module is loaded
 *	remedy: bind a GPU
 */
static void check_resets(struct doctor *d)
{
	struct finding *f;

	if (d->features ? has_feature(d, "zap") : kernel_from(d, 6, 10)) {
		finding(d, "resets", GOOD, NULL,
			"a reset removes the mappings of GPU memory until it is ready");
		return;
	}
	if (!d->features) {
		f = finding(d, "resets", UNKNOWN, NULL,
			    "not known whether a reset removes the mappings of GPU memory");
		because(f,
			"before Linux 6.10 vfio-pci-core does not remove them, and no module is loaded that reports whether it does");
		remedy(f, "bind a GPU, then check again");
		return;
	}
	f = finding(d, "resets", WARNING, NULL, "mappings of GPU memory survive a reset");
	because(f,
		"the module can't remove them on this kernel: after a reset, a guest that does not wait reads all ones and loses writes");
	remedy(f, "update " MODULE_NAME "-dkms, or boot Linux 6.10 or later");
}

/*
 * @memory-errors
 *
 * Whether the kernel reports an uncorrected error in GPU memory to the guest
 * (Linux 6.19 or later with `CONFIG_MEMORY_FAILURE`).
 *
 * good: it does
 * note: only the host's log shows it
 *	remedy: boot Linux 6.19 or later, or watch the log
 * unknown: the kernel is 6.19 or later, the module is not loaded, and there is
 *	no configuration of the kernel
 *	remedy: bind a GPU
 */
static void check_memory_errors(struct doctor *d)
{
	struct finding *f;

	if (d->features ? has_feature(d, "poison") :
	    kernel_from(d, 6, 19) && enabled(d, "MEMORY_FAILURE")) {
		finding(d, "memory-errors", GOOD, NULL, "errors in GPU memory reach the guest");
	} else if (!d->features && kernel_from(d, 6, 19) && !d->config) {
		f = finding(d, "memory-errors", UNKNOWN, NULL,
			    "not known whether errors in GPU memory reach the guest");
		no_config(d, f);
	} else {
		f = finding(d, "memory-errors", NOTE, NULL,
			    "errors in GPU memory don't reach the guest");
		because(f, "%s: only the host's log shows an uncorrected error",
			d->features ? "the module can't register the memory on this kernel" :
			"that needs Linux 6.19 or later with CONFIG_MEMORY_FAILURE");
		remedy(f,
		       "boot Linux 6.19 or later with CONFIG_MEMORY_FAILURE, or watch the host's log for \"Memory failure\"");
	}
}

/*
 * @peer-to-peer
 *
 * Whether GPU memory can be exported as dma-buf, so that other devices can do
 * DMA to it with iommufd (Linux 6.19 or later with `CONFIG_VFIO_PCI_DMABUF`,
 * and QEMU 11.0 or later).
 *
 * good: it can
 * note: it can't
 *	remedy: boot such a kernel; or use type1, which does not need it
 * unknown: the module is not loaded, and there is no configuration of the
 *	kernel
 *	remedy: bind a GPU
 */
static void check_peers(struct doctor *d)
{
	struct finding *f;

	if (d->features ? has_feature(d, "dmabuf") : enabled(d, "VFIO_PCI_DMABUF")) {
		finding(d, "peer-to-peer", GOOD, NULL, "GPU memory can be exported as dma-buf");
	} else if (d->features || d->config) {
		f = finding(d, "peer-to-peer", NOTE, NULL,
			    "GPU memory can't be exported as dma-buf");
		because(f, "%s: other devices of a guest with iommufd can't do DMA to GPU memory",
			d->features ? "this kernel has no dma-buf export of vfio" :
			"CONFIG_VFIO_PCI_DMABUF is not set");
		remedy(f,
		       "boot Linux 6.19 or later with CONFIG_VFIO_PCI_DMABUF, or use type1 if a guest needs it");
	} else {
		f = finding(d, "peer-to-peer", UNKNOWN, NULL,
			    "not known whether GPU memory can be exported as dma-buf");
		no_config(d, f);
	}
}

/*
 * @in-tree-driver
 *
 * Whether the kernel has a driver of the same name. Without a configuration of
 * the kernel, there is no such finding.
 *
 * good: it has none; or its driver is a module, and modprobe prefers DKMS's
 * warning: it has NVIDIA's extended GPU memory (`CONFIG_NVGRACE_EGM`), which
 *	this module lacks: DKMS does not build for that kernel
 *	remedy: use the kernel's own module; or write
 *	`BUILD_EXCLUSIVE_CONFIG="CONFIG_VFIO_PCI_CORE"` into
 *	`/etc/dkms/nvgrace-gpu-vfio-pci.conf` and run `dkms autoinstall`
 * bad: it is built in: no module can replace it
 *	remedy: use it, or boot another kernel
 */
static void check_in_tree(struct doctor *d)
{
	char driver = kernel_option(d, "NVGRACE_GPU_VFIO_PCI");
	struct finding *f;

	if (!d->config)
		return;	/* the finding vfio reports that */
	if (enabled(d, "NVGRACE_EGM")) {
		f = finding(d, "in-tree-driver", WARNING, NULL,
			    "the kernel has NVIDIA's driver with extended GPU memory");
		because(f,
			"CONFIG_NVGRACE_EGM is set: this module has no EGM, so DKMS does not build for this kernel");
		remedy(f,
		       "use the kernel's own module; or, if you don't need EGM, write BUILD_EXCLUSIVE_CONFIG=\"CONFIG_VFIO_PCI_CORE\" into /etc/dkms/" MODULE_NAME ".conf and run \"dkms autoinstall\"");
	} else if (driver == 'y') {
		f = finding(d, "in-tree-driver", BAD, NULL,
			    "the kernel has a built-in driver of this name");
		because(f,
			"CONFIG_NVGRACE_GPU_VFIO_PCI=y: a module of the same name can't be loaded");
		remedy(f,
		       "use the built-in driver, or boot a kernel that has it as a module or lacks it");
	} else if (driver == 'm') {
		finding(d, "in-tree-driver", GOOD, NULL,
			"the kernel has a module of this name; modprobe prefers DKMS's");
	} else {
		finding(d, "in-tree-driver", GOOD, NULL, "the kernel has no driver of this name");
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
	check_in_tree(d);
}
