// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the running kernel can do: vfio, iommufd, huge pfn maps, memory errors
 * and peer-to-peer. If the module is loaded, its features decide, because it
 * was compiled for this kernel. Otherwise the kernel's configuration decides,
 * and without one, its version.
 */
#include <glib.h>
#include <stdlib.h>
#include <string.h>

#include "doctor/checks.h"

static bool enabled(const struct doctor *d, const char *option)
{
	return kernel_option(d, option) != 'n';
}

static void check_release(struct doctor *d)
{
	report(d, !d->major ? KERNEL_UNKNOWN :
	       !kernel_from(d, 6, 1, 0) && !enabled(d, "VFIO_PCI_CORE") ? KERNEL_TOO_OLD :
	       !d->arm ? KERNEL_NOT_ARM : KERNEL_GOOD, NULL, "machine", d->machine, NULL);
}

static void check_vfio(struct doctor *d)
{
	char option = kernel_option(d, "VFIO_PCI_CORE");
	const char head[] = "needs: vfio_pci_core ", *file = strstr(d->module, head);

	if (file)
		file += strlen(head);
	if (host_exists(d->h, "/sys/module/vfio_pci_core"))
		report(d, VFIO_GOOD, NULL, "how", "which is loaded", NULL);
	else if (option == 'y' || (file && g_str_has_prefix(file, "builtin")))
		report(d, VFIO_GOOD, NULL, "how", "built in", NULL);
	else if (file && *file == '/')
		report(d, VFIO_GOOD, NULL, "how", "as a module that is installed", NULL);
	else if (option == 'm' && file)
		report(d, VFIO_NO_FILE, NULL, NULL);
	else if (option == 'n' && d->config)
		report(d, VFIO_NONE, NULL, NULL);
	else
		report(d, VFIO_UNKNOWN, NULL, "why", d->config ?
		       "CONFIG_VFIO_PCI_CORE=m, and it is not known whether the module is installed" :
		       "there is no configuration of this kernel, and the module is not loaded", NULL);
}

/* Whether the kernel has this, by its option, also as a module that can be loaded. */
static bool has_backend(struct doctor *d, const char *option, const char *name)
{
	char value = kernel_option(d, option);

	return value == 'y' || host_exists(d->h, "/sys/module/%s", name) || (value == 'm' && is_loadable(d, name));
}

static void check_dma(struct doctor *d)
{
	bool type1 = has_backend(d, "VFIO_IOMMU_TYPE1", "vfio_iommu_type1");
	bool iommufd = (has_backend(d, "IOMMUFD", "iommufd") && enabled(d, "VFIO_DEVICE_CDEV")) ||
		       host_exists(d->h, "/dev/iommu");
	bool dmabuf = exports_dmabufs(d);

	if (type1 || (iommufd && dmabuf))
		report(d, DMA_BACKEND_GOOD, NULL, "what", !type1 ? "iommufd, GPU memory through dma-buf" :
		       iommufd ? "type1 or iommufd" : "type1", NULL);
	else
		report(d, iommufd ? DMA_BACKEND_NO_PEERS : d->config ? DMA_BACKEND_NONE :
		       DMA_BACKEND_UNKNOWN, NULL, NULL);
}

/*
 * A module's feature decides. Without one, the first of these that a row has: an
 * option of the kernel that is set, and its version. unloaded: what is reported of a
 * kernel without them.
 */
static const struct row {
	const char *feature, *option;
	bool both;		/* the version matters, too */
	int major, minor;	/* 0: no version has it by itself */
	enum finding_case good, none, unloaded, unknown;
} abilities[] = {
	[ABILITY_HUGE] = {
		"pmd_pfnmap", "ARCH_SUPPORTS_PMD_PFNMAP", false, 0, 0,
		HUGE_MAPPINGS_GOOD, HUGE_MAPPINGS_NONE, HUGE_MAPPINGS_NONE, HUGE_MAPPINGS_UNKNOWN },
	[ABILITY_ERRORS] = {
		"poison", "MEMORY_FAILURE", true, 6, 19,
		MEMORY_ERRORS_GOOD, MEMORY_ERRORS_ONLY_LOGGED, MEMORY_ERRORS_ONLY_LOGGED,
		MEMORY_ERRORS_UNKNOWN },
	[ABILITY_PEERS] = {
		"dmabuf", "VFIO_PCI_DMABUF", false, 0, 0,
		PEER_TO_PEER_GOOD, PEER_TO_PEER_NONE, PEER_TO_PEER_NONE, PEER_TO_PEER_UNKNOWN },
	/* A kernel with the driver has what it needs, also as a vendor's backport. */
	[ABILITY_RESMEM] = {
		"uncached_guest", "NVGRACE_GPU_VFIO_PCI", false, 6, 9,
		KVM_RESMEM_GOOD, KVM_RESMEM_DEVICE, KVM_RESMEM_UNKNOWN, KVM_RESMEM_UNKNOWN },
};

void check_ability(struct doctor *d, enum ability ability)
{
	const struct row *row = &abilities[ability];
	bool option = enabled(d, row->option), version = row->major && kernel_from(d, row->major, row->minor, 0);
	bool has = d->features ? has_word(d->features, row->feature) :
		   row->both ? option && version : option || version;
	g_autofree char *how = d->features ?
		g_strdup_printf("the module has %s feature %s", has ? "the" : "no", row->feature) :
		has && option ? g_strdup_printf("CONFIG_%s", row->option) :
		d->config && !option ? g_strdup_printf("without CONFIG_%s", row->option) :
				       g_strdup_printf("Linux %s", d->release ?: "");

	report(d, has ? row->good : d->features ? row->none :
	       /* What the missing configuration can't change is known. */
	       d->config || (row->both && !version) ? row->unloaded : row->unknown, NULL, "how", how, NULL);
}

/*
 * Fixes of dma-bufs, by the first version of Linux that has them. Sources:
 * https://github.com/NVIDIA/NV-Kernels/pull/584 (September 2026), and the changelog of
 * Linux 7.3.4 (November 2026).
 */
static const struct {
	int major, minor, patch;
	const char *what;
} fixes[] = {
	{ 7, 2, 0, "Linux 7.2: vfio waits until importers have let go, a reference too few after a revocation, BARs that can't be mapped, and access to dma-bufs that iommufd must refuse" },
	{ 7, 3, 4, "Linux 7.3.4: \"iommufd: Keep dmabuf PFNs MMIO when filling another domain\", for guests with several SMMUs" },
};

static void check_dmabuf_fixes(struct doctor *d)
{
	g_autoptr(GString) what = g_string_new(NULL);
	size_t i;

	if (!exports_dmabufs(d) || !kernel_from(d, 6, 19, 0))
		return;
	for (i = 0; i < G_N_ELEMENTS(fixes); i++)
		if (!kernel_from(d, fixes[i].major, fixes[i].minor, fixes[i].patch))
			g_string_append_printf(what, "%s%s", what->len ? "; " : "", fixes[i].what);
	if (what->len)
		report(d, DMABUF_FIXES_UNSEEN, NULL, "what", what->str, NULL);
}

/* Options of NVIDIA's lists; table.h has the sources. What the kernel selects isn't here. */
static void check_options(struct doctor *d)
{
	static const char *const options[] = {
		"MEMORY_FAILURE", "IOMMUFD", "VFIO_DEVICE_CDEV", "ARM_SMMU_V3_IOMMUFD",
		"PCI_P2PDMA", "VFIO_PCI_DMABUF", "TEGRA241_CMDQV", "PCIE_DPC", "PCIE_EDR",
		"ARM64_ERRATUM_4118414",
	};
	enum { NODES_SHIFT_MIN = 6 };
	g_autoptr(GString) missing = g_string_new(NULL);
	g_autofree char *count = g_strdup_printf("%zu", G_N_ELEMENTS(options) + 1);
	const char *shift = config_value(d->config, "NODES_SHIFT");
	size_t i;

	if (!d->config || !d->arm)
		return;
	for (i = 0; i < G_N_ELEMENTS(options); i++)
		if (!enabled(d, options[i]))
			g_string_append_printf(missing, "%sCONFIG_%s", missing->len ? ", " : "", options[i]);
	if (!shift || atoi(shift) < NODES_SHIFT_MIN)
		g_string_append_printf(missing, "%sCONFIG_NODES_SHIFT=%d", missing->len ? ", " : "",
				       NODES_SHIFT_MIN);
	report(d, missing->len ? KERNEL_OPTIONS_MISSING : KERNEL_OPTIONS_GOOD, NULL,
	       "missing", missing->str, "count", count, NULL);
}

void check_kernel(struct doctor *d)
{
	check_release(d);
	check_vfio(d);
	check_dma(d);
	check_ability(d, ABILITY_HUGE);
	check_ability(d, ABILITY_ERRORS);
	check_ability(d, ABILITY_PEERS);
	check_dmabuf_fixes(d);
	check_options(d);
}
