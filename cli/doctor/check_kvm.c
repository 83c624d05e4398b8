// SPDX-License-Identifier: GPL-2.0-only
/*
 * The IOMMU, and how KVM maps both parts of GPU memory. If the module is
 * loaded, its features decide, because it was compiled for this kernel.
 */
#include <stdlib.h>
#include <string.h>

#include "doctor/checks.h"
#include "system/output.h"
/* ---- IOMMU ---------------------------------------------------------------------------------- */

/*
 * @iommu
 *
 * good: there is an IOMMU, or there are IOMMU groups
 * bad: there is none: vfio can't use any device
 *	remedy: turn on the SMMU (on x86, the IOMMU) in the firmware's setup;
 *	remove kernel parameters that turn it off
 */
static void check_units(struct doctor *d)
{
	char **units = host_list(d->h, "/sys/class/iommu");
	char **groups = host_list(d->h, "/sys/kernel/iommu_groups");
	const char *words = answer(d->answers, "command-line");
	size_t n = 0;
	struct finding *f;
	char *line;

	while (units && units[n])
		n++;
	if (n) {
		finding(d, "iommu", GOOD, NULL, "%zu IOMMU%s (%s%s)", n, n > 1 ? "s" : "", units[0],
			n > 1 ? ", ..." : "");
	} else if (groups && groups[0]) {
		finding(d, "iommu", GOOD, NULL, "devices are in IOMMU groups");
	} else {
		f = finding(d, "iommu", BAD, NULL, "no IOMMU");
		because(f,
			"/sys/class/iommu and /sys/kernel/iommu_groups are empty: vfio can't use any device");
		line = next_line(&words);
		remedy(f, "turn on the %s in the firmware's setup%s%s%s",
		       d->arm ? "SMMU" : "IOMMU (VT-d, AMD-Vi)", line ? "; check that the kernel parameter " : "", line ? line : "",
		       line ? " does not turn it off" : "");
		free(line);
	}
	host_free_list(units);
	host_free_list(groups);
}

/*
 * @guest-smmu
 *
 * Whether guests can have an accelerated SMMUv3, which uses the host's in
 * hardware, for the GPUs that are bound with memory. It needs QEMU 11.0,
 * iommufd, `CONFIG_ARM_SMMU_V3_IOMMUFD` (Linux 6.13 or later), and GPUs that are
 * behind an SMMUv3 and alone in their IOMMU groups. Only on Arm.
 *
 * good: they can, with vCMDQ (`CONFIG_TEGRA241_CMDQV`) and dma-buf export
 * note: they can, but the kernel has no driver of vCMDQ: each invalidation of a
 *	guest's SMMU leaves the guest; or it has no dma-buf export
 *	remedy: boot a kernel with them
 * note: they can't: the GPU has no ATS and no shared virtual addressing there.
 *	KubeVirt needs such an SMMU for these GPUs
 *	remedy: the reason names what is missing
 */
static void check_guest_smmu(struct doctor *d)
{
	bool cmdq = kernel_option(d, "TEGRA241_CMDQV") != 'n', dmabuf = exports_dmabufs(d);
	struct finding *f;
	size_t gpus;
	char *why = accel_obstacle(d, &gpus);

	if (!d->arm || !gpus) {
		free(why);
		return;
	}
	if (why) {
		f = finding(d, "guest-smmu", NOTE, NULL,
			    "guests can't have an accelerated SMMUv3");
		because(f, "%s", why);
		remedy(f,
		       "none is needed without ATS, shared virtual addressing and KubeVirt; for these, use QEMU 11.0 and Linux 6.19 or later with CONFIG_ARM_SMMU_V3_IOMMUFD, CONFIG_TEGRA241_CMDQV and CONFIG_VFIO_PCI_DMABUF");
	} else if (!cmdq || !dmabuf) {
		f = finding(d, "guest-smmu", NOTE, NULL,
			    "guests can have an accelerated SMMUv3, without %s",
			    cmdq ? "dma-buf export" : dmabuf ? "vCMDQ" :
			    "vCMDQ and dma-buf export");
		because(f, "the kernel lacks%s%s%s", cmdq ? "" : " CONFIG_TEGRA241_CMDQV",
			!cmdq && !dmabuf ? " and" : "", dmabuf ? "" : " CONFIG_VFIO_PCI_DMABUF");
		remedy(f, "boot a kernel with %s",
		       !cmdq && !dmabuf ? "both" : cmdq ? "it (Linux 6.19 or later)" : "it");
	} else {
		finding(d, "guest-smmu", GOOD, NULL,
			"guests can have an accelerated SMMUv3: iommufd, nesting, vCMDQ, dma-buf export");
	}
	free(why);
}

void check_iommu(struct doctor *d)
{
	check_units(d);
	check_guest_smmu(d);
}

/* ---- KVM ------------------------------------------------------------------------------------ */

/*
 * Whether all CPUs have FEAT_S2FWB, by the kernel's log: 1, 0, or -1 for not
 * known.
 */
static int log_says_fwb(const struct doctor *d)
{
	if (!d->log)
		return -1;
	if (strstr(d->log, "Stage-2 Force Write-Back"))
		return 1;
	return strstr(d->log, "log complete") ? 0 : -1;
}

/*
 * Whether KVM maps memory that isn't RAM cacheable, which it does only if no
 * cache maintenance is ever needed: capability 243 of a VM reports it. Without
 * access to KVM, its two conditions decide. 1, 0, or -1 for not known; *why, to
 * be freed, is the reason for 0.
 */
static int cacheable(struct doctor *d, const char *kvm, char **why)
{
	const char *dic = answer(d->answers, "cpu-dic");
	int fwb = log_says_fwb(d);
	char *cap = kvm ? field_value(kvm, "cap-243") : NULL;
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

/*
 * @kvm-usemem
 *
 * How KVM maps usemem (BAR4) in a guest. For the kinds of memory and the
 * capability by which the doctor checks KVM, see
 * [guests.md](guests.md#what-a-guest-gets-on-which-host). Without access to
 * KVM, the doctor reads from the kernel's log and CTR_EL0 whether the CPU has
 * FEAT_S2FWB and CACHE_DIC. Only on Arm.
 *
 * good: write-back
 * note: as Device memory: the kernel is older than 6.17
 *	remedy: boot Linux 6.17 or later on the host
 * bad: not at all: the CPU lacks FEAT_S2FWB or CACHE_DIC
 *	remedy: use a CPU that has them, such as Grace, and not inside a guest
 * unknown: KVM can't be opened
 *	remedy: run as root or as a member of the group kvm
 *
 * A vendor kernel older than 6.17 with the backport, on a CPU that lacks one of
 * the two features, refuses the memory. Its version does not show the backport,
 * so the finding is then a note. Grace has both features.
 */
static void check_usemem(struct doctor *d, const char *kvm)
{
	struct finding *f;
	char *why;
	/* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker): a KVM answers */
	bool asked = strstr(kvm, "cap-243:");
	int can = cacheable(d, kvm, &why);

	/* The capability first: older vendor kernels may have it. */
	if (can == 1 && (kernel_from(d, 6, 17) || asked)) {
		finding(d, "kvm-usemem", GOOD, NULL, "KVM maps usemem write-back");
	} else if (can < 0 || (!asked && !kernel_from(d, 6, 17))) {
		f = finding(d, "kvm-usemem", UNKNOWN, NULL, "not known how KVM maps usemem");
		because(f, "KVM can't be opened, and the version of Linux %s does not show it",
			d->release);
		remedy(f, "run as root, or as a member of the group kvm");
	} else if (!kernel_from(d, 6, 17)) {
		f = finding(d, "kvm-usemem", NOTE, NULL,
			    "KVM maps usemem as Device memory: slow, and unaligned accesses fault");
		because(f,
			"Linux %s maps only RAM cacheable: other memory needs 6.17, and KVM_CAP_ARM_CACHEABLE_PFNMAP_SUPPORTED is 0",
			d->release);
		remedy(f, "boot Linux 6.17 or later on the host, or a vendor kernel with the backport");
	} else {
		f = finding(d, "kvm-usemem", BAD, NULL,
			    "KVM refuses usemem");
		because(f,
			"%s; on Linux 6.17 or later, KVM_SET_USER_MEMORY_REGION of usemem then fails with EINVAL, and the VMM ends",
			why);
		remedy(f,
		       "run guests on a CPU that has FEAT_S2FWB and CACHE_DIC, such as Grace, and not inside another guest");
	}
	free(why);
}

/*
 * @kvm-resmem
 *
 * How KVM maps resmem (BAR2) in a guest, if a GPU has one: by the loaded
 * module's features, or else by the kernel's version
 * ([guests.md](guests.md#what-a-guest-gets-on-which-host)). Only on Arm.
 *
 * good: Normal, non-cacheable (Normal-NC)
 * note: as Device memory
 *	remedy: boot Linux 6.9 or later on the host
 */
static void check_resmem(struct doctor *d)
{
	struct finding *f;

	if (d->features ? has_feature(d, "uncached_guest") : kernel_from(d, 6, 9)) {
		finding(d, "kvm-resmem", GOOD, NULL, "KVM maps resmem as Normal-NC");
		return;
	}
	f = finding(d, "kvm-resmem", NOTE, NULL, "KVM maps resmem as Device memory");
	because(f, "%s: MIG in the guest is slow, and unaligned accesses fault",
		d->features ? "this kernel has no VM_ALLOW_ANY_UNCACHED" :
		"VM_ALLOW_ANY_UNCACHED needs Linux 6.9");
	remedy(f, "boot Linux 6.9 or later on the host");
}

/*
 * @kvm-addresses
 *
 * Whether guest-physical addresses have enough bits (KVM_CAP_ARM_VM_IPA_SIZE)
 * for the BARs of all bound GPUs in one guest. QEMU needs 40 bits for up to 512
 * GiB, and one more for each doubling. Only on Arm, if KVM can be opened.
 *
 * good: they have enough
 * warning: they have too few: one guest can't have all of these GPUs
 *	remedy: assign fewer GPUs to each guest
 */

static void check_addresses(struct doctor *d)
{
	unsigned int bits = d->facts.address_bits;
	char size[SIZE_MAX_TEXT];
	struct guest_plan plan;
	struct finding *f;
	uint64_t bars = 0;
	size_t i;

	if (!bits)
		return;
	guest_plan_all(&d->facts, &plan);
	for (i = 0; i < plan.gpus; i++)
		bars += plan.gpu[i].bars;
	if (plan.address_bits <= bits) {
		finding(d, "kvm-addresses", GOOD, NULL, "guests have %u address bits", bits);
		return;
	}
	f = finding(d, "kvm-addresses", WARNING, NULL, "guests have %u address bits", bits);
	because(f,
		"the BARs of all bound GPUs have %s together; a guest with all of them needs %u bits",
		size_text(bars, size), plan.address_bits);
	remedy(f, "assign fewer GPUs to each guest");
}

/*
 * @kvm
 *
 * good: KVM can create a VM
 * bad: there is no /dev/kvm, or it can't create a VM: the kernel was not booted
 *	at EL2, has no `CONFIG_KVM`, or has the parameter `kvm-arm.mode=none`
 *	remedy: run `dmesg | grep -i kvm`
 * unknown: this user may not open /dev/kvm
 *	remedy: run as root or as a member of the group kvm
 */
void check_kvm(struct doctor *d)
{
	const char *kvm = answer(d->answers, "kvm");
	char *state = kvm ? field_value(kvm, "state") : xstrdup("absent");
	bool resmem = false;
	struct finding *f;
	size_t i;

	if (state && !strcmp(state, "open")) {
		finding(d, "kvm", GOOD, NULL, "KVM is available");
	} else if (state && !strcmp(state, "denied")) {
		f = finding(d, "kvm", UNKNOWN, NULL, "this user can't open KVM");
		because(f, "/dev/kvm can't be opened");
		remedy(f, "run as root, or as a member of the group kvm");
	} else {
		f = finding(d, "kvm", BAD, NULL, "no KVM");
		because(f,
			"/dev/kvm: %s; the kernel was not booted at EL2, has no CONFIG_KVM, or has the parameter kvm-arm.mode=none",
			state ? state : "no answer");
		remedy(f,
		       "run \"dmesg | grep -i kvm\"; boot the kernel at EL2, outside of a guest, and without that parameter");
		free(state);
		return;
	}
	free(state);
	if (!d->arm)
		return;
	check_usemem(d, kvm);
	/* GPUs without the MIG defect have no resmem. */
	for (i = 0; i < d->gpus.count; i++)
		resmem |= d->gpus.gpu[i].mode != GPU_MODE_NO_CARVE_OUT;
	if (resmem)
		check_resmem(d);
	check_addresses(d);
}
