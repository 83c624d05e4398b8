// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the running kernel gives: vfio, iommufd, huge pfn maps, memory errors, peer-to-peer, and
 * what KVM will make of both memories. Called by doctor.c. Where our module is loaded, its own
 * word counts, for it was compiled against this very kernel; else the configuration, and last the
 * number.
 */
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "doctor.h"

#define NO_CONFIG "the configuration of this kernel is in none of /boot/config-%s, " \
	"/lib/modules/%s/config and /proc/config.gz"

static bool enabled(const struct doctor *d, const char *option)
{
	return kernel_option(d, option) != 'n';
}

static void no_config(const struct doctor *d, struct finding *f)
{
	because(f, NO_CONFIG, d->release, d->release);
	remedy(f, "copy it to /boot/config-%s, or bind a GPU: the module then says what it found",
	       d->release);
}

static void check_release(struct doctor *d)
{
	struct finding *f;

	if (!d->major) {
		f = finding(d, "kernel", UNKNOWN, NULL, "the kernel does not say which it is");
		because(f, "uname -r is \"%s\"", d->release ? d->release : "");
		remedy(f, "record again with this program's own --record");
	} else if (!kernel_from(d, 6, 1) && !enabled(d, "VFIO_PCI_CORE")) {
		f = finding(d, "kernel", BAD, NULL, "Linux %s is too old", d->release);
		because(f, "vfio-pci-core, on which the module builds, came with Linux 6.1");
		remedy(f,
		       "install a kernel from 6.1 on; 6.17 and later give a guest the memory at full speed");
	} else if (!kernel_from(d, 6, 1)) {
		f = finding(d, "kernel", WARNING, NULL, "Linux %s is older than 6.1", d->release);
		because(f,
			"DKMS builds for 6.1 and later; a vendor's kernel may have what is needed nevertheless");
		remedy(f,
		       "try \"make modules\" in the module's source, which looks at the kernel itself");
	} else if (!d->arm) {
		f = finding(d, "kernel", WARNING, NULL, "Linux %s on %s", d->release, d->machine);
		because(f,
			"Grace CPUs are aarch64; on other machines the module is for trying it out only, and DKMS leaves it alone");
		remedy(f, "look at the GPUs on the host that they are built into");
	} else {
		finding(d, "kernel", GOOD, NULL, "Linux %s on %s", d->release, d->machine);
	}
}

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
		       "boot a kernel with CONFIG_VFIO_PCI_CORE, as all Debian and RHEL kernels for servers have it");
	} else {
		f = finding(d, "vfio", UNKNOWN, NULL,
			    "not known whether the kernel has vfio-pci-core");
		no_config(d, f);
	}
}

/* A VMM maps the guest's RAM for DMA by type1 or by iommufd. */
static void check_dma(struct doctor *d)
{
	bool type1 = enabled(d, "VFIO_IOMMU_TYPE1") ||
		     host_exists(d->h, "/sys/module/vfio_iommu_type1");
	bool iommufd = (enabled(d, "IOMMUFD") && enabled(d, "VFIO_DEVICE_CDEV")) ||
		       host_exists(d->h, "/dev/iommu");
	bool dmabuf = d->features ? has_feature(d, "dmabuf") : enabled(d, "VFIO_PCI_DMABUF");
	struct finding *f;

	if (type1) {
		finding(d, "dma-backend", GOOD, NULL, "DMA by type1%s",
			iommufd ? " or iommufd" : "");
	} else if (iommufd && dmabuf) {
		finding(d, "dma-backend", GOOD, NULL, "DMA by iommufd, GPU memory by dma-buf");
	} else if (iommufd) {
		f = finding(d, "dma-backend", NOTE, NULL,
			    "only iommufd, which can't map GPU memory for DMA on this kernel");
		because(f,
			"without type1 and without VFIO's dma-buf export (Linux 6.19), IOMMU_IOAS_MAP of GPU memory fails with EFAULT; QEMU warns and goes on without DMA between devices");
		remedy(f,
		       "give GPUs to QEMU with -object iommufd and accept that, or boot a kernel with CONFIG_VFIO_IOMMU_TYPE1 or CONFIG_VFIO_PCI_DMABUF");
	} else if (d->config) {
		f = finding(d, "dma-backend", BAD, NULL, "neither type1 nor iommufd");
		because(f,
			"neither CONFIG_VFIO_IOMMU_TYPE1 nor CONFIG_IOMMUFD with CONFIG_VFIO_DEVICE_CDEV is set: no VMM can open a device");
		remedy(f, "boot a kernel with one of them");
	} else {
		f = finding(d, "dma-backend", UNKNOWN, NULL,
			    "not known whether there is type1 or iommufd");
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
		finding(d, "huge-mappings", GOOD, NULL, "GPU memory is mapped by %s entries",
			pmd && pud ? "PMD and PUD" : pmd ? "PMD" : "PUD");
	} else if (d->features || d->config) {
		f = finding(d, "huge-mappings", NOTE, NULL, "GPU memory is mapped page by page");
		because(f, "%s: the first touch of all memory takes long, and TLB misses cost more",
			d->features ? "the module found no huge pfn maps in this kernel" :
			"CONFIG_ARCH_SUPPORTS_PMD_PFNMAP is not set");
		remedy(f, "boot a kernel from 6.12 on, or one with 64K pages");
	} else {
		f = finding(d, "huge-mappings", UNKNOWN, NULL,
			    "not known with which page sizes GPU memory is mapped");
		no_config(d, f);
	}
}

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
			"before Linux 6.10 vfio-pci-core does not remove them; whether the module does, it says once it is loaded");
		remedy(f, "bind a GPU, then run this again");
		return;
	}
	f = finding(d, "resets", WARNING, NULL, "mappings of GPU memory survive a reset");
	because(f,
		"the module can't remove them on this kernel: after a reset, a guest that does not wait reads all ones and loses writes");
	remedy(f, "update " MODULE_NAME "-dkms, or boot Linux 6.10 or later");
}

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
		because(f, "%s: an uncorrected error is in the host's log only",
			d->features ? "the module can't register its memory in this kernel" :
			"it takes CONFIG_MEMORY_FAILURE and Linux 6.19");
		remedy(f,
		       "boot a kernel from 6.19 on with CONFIG_MEMORY_FAILURE, or watch the host's log for \"Memory failure\"");
	}
}

static void check_peers(struct doctor *d)
{
	struct finding *f;

	if (d->features ? has_feature(d, "dmabuf") : enabled(d, "VFIO_PCI_DMABUF")) {
		finding(d, "peer-to-peer", GOOD, NULL, "GPU memory can be exported as dma-buf");
	} else if (d->features || d->config) {
		f = finding(d, "peer-to-peer", NOTE, NULL,
			    "GPU memory can't be exported as dma-buf");
		because(f, "%s: other devices of a guest with iommufd can't do DMA to GPU memory",
			d->features ? "the module found no dma-buf export in this kernel" :
			"CONFIG_VFIO_PCI_DMABUF is not set");
		remedy(f,
		       "boot a kernel from 6.19 on with CONFIG_VFIO_PCI_DMABUF, or use type1 if a guest needs it");
	} else {
		f = finding(d, "peer-to-peer", UNKNOWN, NULL,
			    "not known whether GPU memory can be exported as dma-buf");
		no_config(d, f);
	}
}

static void check_in_tree(struct doctor *d)
{
	char driver = kernel_option(d, "NVGRACE_GPU_VFIO_PCI");
	struct finding *f;

	if (!d->config)
		return;	/* "vfio" has said so */
	if (enabled(d, "NVGRACE_EGM")) {
		f = finding(d, "in-tree-driver", WARNING, NULL,
			    "the kernel has NVIDIA's driver with extended GPU memory");
		because(f,
			"CONFIG_NVGRACE_EGM is set: with another module of the name EGM would be gone, so DKMS leaves this kernel alone");
		remedy(f,
		       "use the kernel's own module; or, to do without EGM, write BUILD_EXCLUSIVE_CONFIG=\"CONFIG_VFIO_PCI_CORE\" into /etc/dkms/" MODULE_NAME ".conf and run \"dkms autoinstall\"");
	} else if (driver == 'y') {
		f = finding(d, "in-tree-driver", BAD, NULL,
			    "the kernel has a driver of the name built in");
		because(f,
			"CONFIG_NVGRACE_GPU_VFIO_PCI=y: a module of the same name can't be loaded beside it");
		remedy(f,
		       "use the built-in one, or boot a kernel that has it as a module or not at all");
	} else if (driver == 'm') {
		finding(d, "in-tree-driver", GOOD, NULL,
			"the kernel ships a module of the name; DKMS's has precedence");
	} else {
		finding(d, "in-tree-driver", GOOD, NULL, "the kernel ships no driver of the name");
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

/* ---- KVM ------------------------------------------------------------------------------------ */

/* 1 or 0 if the log tells whether all CPUs have FEAT_S2FWB, -1 if it doesn't. */
static int log_says_fwb(const struct doctor *d)
{
	if (!d->log)
		return -1;
	if (strstr(d->log, "Stage-2 Force Write-Back"))
		return 1;
	return strstr(d->log, "log complete") ? 0 : -1;
}

/*
 * KVM takes a slot of cacheable memory that isn't RAM only if no cache maintenance is ever needed.
 * It says so by capability 243 of a VM. Where it can't be asked, its two conditions may be known.
 */
static int cacheable(struct doctor *d, const char *kvm, char **why)
{
	const char *dic = answer(d, "cpu-dic");
	int fwb = log_says_fwb(d);
	char *cap = kvm ? answer_value(kvm, "cap-243") : NULL;
	int can = cap ? !strcmp(cap, "1") : -1;

	free(cap);
	if (dic && !strcmp(dic, "0")) {
		*why = xstrdup("the CPU lacks CACHE_DIC (CTR_EL0.DIC)");
		return can < 0 ? 0 : can;
	}
	if (!fwb) {
		*why = xstrdup("the CPU lacks FEAT_S2FWB");
		return can < 0 ? 0 : can;
	}
	*why = xstrdup("KVM_CAP_ARM_CACHEABLE_PFNMAP_SUPPORTED is 0");
	return can < 0 && dic && fwb == 1 ? 1 : can;
}

static void check_usemem(struct doctor *d, const char *kvm)
{
	struct finding *f;
	char *why;
	bool asked = strstr(kvm, "cap-243:");
	int can = cacheable(d, kvm, &why);

	/* The capability first: vendors have it in kernels of older numbers. */
	if (can == 1 && (kernel_from(d, 6, 17) || asked)) {
		finding(d, "kvm-usemem", GOOD, NULL, "KVM maps usemem write-back");
	} else if (can < 0 || (!asked && !kernel_from(d, 6, 17))) {
		f = finding(d, "kvm-usemem", UNKNOWN, NULL, "not known how KVM maps usemem");
		because(f, "KVM can't be asked, and the number of Linux %s does not tell",
			d->release);
		remedy(f, "run as root, or as a member of the group kvm");
	} else if (!kernel_from(d, 6, 17)) {
		f = finding(d, "kvm-usemem", NOTE, NULL,
			    "KVM maps usemem as Device memory: slow, and unaligned accesses fault");
		because(f,
			"Linux %s has no cacheable mappings of memory that isn't RAM: they came with 6.17, and KVM_CAP_ARM_CACHEABLE_PFNMAP_SUPPORTED is 0",
			d->release);
		remedy(f, "boot a host kernel from 6.17 on, or a vendor's with that backport");
	} else {
		f = finding(d, "kvm-usemem", BAD, NULL,
			    "refused: KVM will not take the memory slot");
		because(f,
			"%s; from 6.17 on KVM_SET_USER_MEMORY_REGION of usemem is then EINVAL, and the VMM ends",
			why);
		remedy(f,
		       "run guests on a CPU that has both FEAT_S2FWB and CACHE_DIC, as Grace has, and not inside another guest");
	}
	free(why);
}

static void check_resmem(struct doctor *d)
{
	struct finding *f;

	if (d->features ? has_feature(d, "uncached_guest") : kernel_from(d, 6, 9)) {
		finding(d, "kvm-resmem", GOOD, NULL, "KVM maps resmem Normal-NC");
		return;
	}
	f = finding(d, "kvm-resmem", NOTE, NULL, "KVM maps resmem as Device memory");
	because(f, "%s: MIG in the guest is slow, and unaligned accesses fault",
		d->features ? "the module found no VM_ALLOW_ANY_UNCACHED in this kernel" :
		"VM_ALLOW_ANY_UNCACHED came with Linux 6.9");
	remedy(f, "boot a host kernel from 6.9 on");
}

/*
 * QEMU puts the window for 64-bit BARs above 256 GiB, at a multiple of its own size, which is a
 * power of two from 512 GiB on.
 */
static void check_addresses(struct doctor *d, const char *kvm)
{
	char *text = answer_value(kvm, "address-bits"), size[SIZE_MAX_TEXT];
	uint64_t bits = 0, bars = 0, window = 512ULL << 30;
	const struct gpu *gpu;
	struct finding *f;
	int needed = 40;
	size_t i;

	if (!text || !parse_u64(text, &bits)) {
		free(text);
		return;
	}
	free(text);
	for (i = 0; i < d->gpus.count; i++) {
		gpu = &d->gpus.gpu[i];
		if (gpu->usemem_bar_size < 1ULL << 56)
			bars += gpu->usemem_bar_size;
		if (gpu->resmem_bar_size < 1ULL << 56)
			bars += gpu->resmem_bar_size;
	}
	for (; window < bars && needed < 62; needed++)
		window <<= 1;
	if ((uint64_t)needed <= bits) {
		finding(d, "kvm-addresses", GOOD, NULL, "guests have %d address bits", (int)bits);
		return;
	}
	f = finding(d, "kvm-addresses", WARNING, NULL, "guests have %d address bits", (int)bits);
	because(f,
		"the BARs of all bound GPUs have %s together; a guest with all of them needs %d bits",
		size_text(bars, size), needed);
	remedy(f, "give each guest fewer GPUs");
}

void check_kvm(struct doctor *d)
{
	const char *kvm = answer(d, "kvm");
	char *state = kvm ? answer_value(kvm, "state") : xstrdup("absent");
	bool resmem = false;
	struct finding *f;
	size_t i;

	if (state && !strcmp(state, "open")) {
		finding(d, "kvm", GOOD, NULL, "KVM is there");
	} else if (state && !strcmp(state, "denied")) {
		f = finding(d, "kvm", UNKNOWN, NULL, "KVM is there, but not for this user");
		because(f, "/dev/kvm can't be opened");
		remedy(f, "run as root, or as a member of the group kvm");
	} else {
		f = finding(d, "kvm", BAD, NULL, "no KVM");
		because(f,
			"/dev/kvm: %s; the kernel was not started at EL2, has no CONFIG_KVM, or was told kvm-arm.mode=none",
			state ? state : "no answer");
		remedy(f,
		       "see \"dmesg | grep -i kvm\"; start the kernel at EL2, outside of a guest, and without that parameter");
		free(state);
		return;
	}
	free(state);
	if (!d->arm)
		return;
	check_usemem(d, kvm);
	/* Parts without the MIG defect have no resmem. */
	for (i = 0; i < d->gpus.count; i++)
		resmem |= d->gpus.gpu[i].mode != GPU_MODE_NO_CARVE_OUT;
	if (resmem)
		check_resmem(d);
	check_addresses(d, kvm);
}
