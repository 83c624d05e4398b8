// SPDX-License-Identifier: GPL-2.0-only
/*
 * The IOMMU, and how KVM maps both parts of GPU memory. If the module is
 * loaded, its features decide, because it was compiled for this kernel.
 */
#include <glib.h>
#include <stdlib.h>
#include <string.h>

#include "doctor/checks.h"
#include "system/output.h"
/* ---- IOMMU ---------------------------------------------------------------------------------- */

static void check_units(struct doctor *d)
{
	g_auto(GStrv) units = host_list(d->h, "/sys/class/iommu");
	g_auto(GStrv) groups = host_list(d->h, "/sys/kernel/iommu_groups");
	const char *words = answer(d->answers, "command-line");
	size_t n = 0;
	struct finding *f;
	g_autofree char *line = NULL;

	while (units && units[n])
		n++;
	if (n) {
		finding(d, IOMMU_GOOD, NULL, "%zu IOMMU%s (%s%s)", n, n > 1 ? "s" : "", units[0],
			n > 1 ? ", ..." : "");
	} else if (groups && groups[0]) {
		finding(d, IOMMU_GOOD, NULL, "devices are in IOMMU groups");
	} else {
		f = finding(d, IOMMU_NONE, NULL, "no IOMMU");
		line = words ? g_strndup(words, strcspn(words, "\n")) : NULL;
		because(f,
			"/sys/class/iommu and /sys/kernel/iommu_groups are empty: vfio can't use any device%s%s%s",
			line ? "; the kernel parameter " : "", line ? line : "",
			line ? " may turn it off" : "");
	}
}

static void check_guest_smmu(struct doctor *d)
{
	bool cmdq = kernel_option(d, "TEGRA241_CMDQV") != 'n', dmabuf = exports_dmabufs(d);
	struct finding *f;
	size_t gpus;
	g_autofree char *why = accel_obstacle(d, &gpus);

	if (!d->arm || !gpus)
		return;
	if (why) {
		f = finding(d, GUEST_SMMU_NONE, NULL,
			    "guests can't have an accelerated SMMUv3");
		because(f, "%s", why);
	} else if (!cmdq || !dmabuf) {
		f = finding(d, GUEST_SMMU_SLOW, NULL,
			    "guests can have an accelerated SMMUv3, without %s",
			    cmdq ? "dma-buf export" : dmabuf ? "vCMDQ" :
			    "vCMDQ and dma-buf export");
		because(f, "the kernel lacks%s%s%s", cmdq ? "" : " CONFIG_TEGRA241_CMDQV",
			!cmdq && !dmabuf ? " and" : "", dmabuf ? "" : " CONFIG_VFIO_PCI_DMABUF");
	} else {
		finding(d, GUEST_SMMU_GOOD, NULL,
			"guests can have an accelerated SMMUv3: iommufd, nesting, dma-buf export, and a driver of vCMDQ");
	}
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
	g_autofree char *cap = kvm ? field_value(kvm, "cap-243") : NULL;
	int can = cap ? !strcmp(cap, "1") : -1;

	if (dic && !strcmp(dic, "0")) {
		*why = g_strdup("the CPU lacks CACHE_DIC (CTR_EL0.DIC)");
		return can < 0 ? 0 : can;
	}
	if (!fwb) {
		*why = g_strdup("the CPU lacks FEAT_S2FWB");
		return can < 0 ? 0 : can;
	}
	*why = g_strdup("KVM_CAP_ARM_CACHEABLE_PFNMAP_SUPPORTED is 0");
	return can < 0 && dic && fwb == 1 ? 1 : can;
}

static void check_usemem(struct doctor *d, const char *kvm)
{
	struct finding *f;
	g_autofree char *why = NULL;
	/* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker): a KVM answers */
	bool asked = strstr(kvm, "cap-243:");
	int can = cacheable(d, kvm, &why);

	/* The capability first: older vendor kernels may have it. */
	if (can == 1 && (kernel_from(d, 6, 17) || asked)) {
		finding(d, KVM_USEMEM_GOOD, NULL, "KVM maps usemem write-back");
	} else if (can < 0 || (!asked && !kernel_from(d, 6, 17))) {
		f = finding(d, KVM_USEMEM_UNKNOWN, NULL, "not known how KVM maps usemem");
		because(f, "KVM can't be opened, and the version of Linux %s does not show it",
			d->release);
	} else if (!kernel_from(d, 6, 17)) {
		f = finding(d, KVM_USEMEM_DEVICE, NULL,
			    "KVM maps usemem as Device memory: slow, and unaligned accesses fault");
		because(f,
			"Linux %s maps only RAM cacheable: other memory needs 6.17, and KVM_CAP_ARM_CACHEABLE_PFNMAP_SUPPORTED is 0",
			d->release);
	} else {
		f = finding(d, KVM_USEMEM_REFUSED, NULL,
			    "KVM refuses usemem");
		because(f,
			"%s; on Linux 6.17 or later, KVM_SET_USER_MEMORY_REGION of usemem then fails with EINVAL, and the VMM ends",
			why);
	}
}

static void check_resmem(struct doctor *d)
{
	struct finding *f;

	if (d->features ? has_feature(d, "uncached_guest") : kernel_from(d, 6, 9)) {
		finding(d, KVM_RESMEM_GOOD, NULL, "KVM maps resmem as Normal-NC");
		return;
	}
	f = finding(d, KVM_RESMEM_DEVICE, NULL, "KVM maps resmem as Device memory");
	because(f, "%s: MIG in the guest is slow, and unaligned accesses fault",
		d->features ? "this kernel has no VM_ALLOW_ANY_UNCACHED" :
		"VM_ALLOW_ANY_UNCACHED needs Linux 6.9");
}

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
		bars += plan.device[i].bars;
	if (plan.address_bits <= bits) {
		finding(d, KVM_ADDRESSES_GOOD, NULL, "guests have %u address bits", bits);
		return;
	}
	f = finding(d, KVM_ADDRESSES_TOO_FEW, NULL, "guests have %u address bits", bits);
	because(f,
		"the BARs of all bound GPUs have %s together; a guest with all of them needs %u bits",
		size_text(bars, size), plan.address_bits);
}

void check_kvm(struct doctor *d)
{
	const char *kvm = answer(d->answers, "kvm");
	g_autofree char *state = kvm ? field_value(kvm, "state") : g_strdup("absent");
	bool resmem = false;
	struct finding *f;
	size_t i;

	if (state && !strcmp(state, "open")) {
		finding(d, KVM_GOOD, NULL, "KVM is available");
	} else if (state && !strcmp(state, "denied")) {
		f = finding(d, KVM_UNKNOWN, NULL, "this user can't open KVM");
		because(f, "/dev/kvm can't be opened");
	} else {
		f = finding(d, KVM_NONE, NULL, "no KVM");
		because(f,
			"/dev/kvm: %s; the kernel was not booted at EL2, has no CONFIG_KVM, or has the parameter kvm-arm.mode=none",
			state ? state : "no answer");
		return;
	}
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
