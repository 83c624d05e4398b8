// SPDX-License-Identifier: GPL-2.0-only
/*
 * The IOMMU, and how KVM maps both parts of GPU memory.
 */
#include <glib.h>
#include <string.h>

#include "doctor/checks.h"

/* ---- IOMMU ---------------------------------------------------------------------------------- */

/* Words of the command line without which there would be an IOMMU. */
static const char *const turn_off[] = {
	"iommu=off", "iommu=0", "intel_iommu=off", "amd_iommu=off", "acpi=off",
};

void check_iommu(struct doctor *d)
{
	g_auto(GStrv) units = host_list(d->h, "/sys/class/iommu");
	g_auto(GStrv) groups = host_list(d->h, "/sys/kernel/iommu_groups");
	g_autofree char *what = NULL, *why = NULL;
	size_t n = units ? g_strv_length(units) : 0, real = 0, i;

	for (i = 0; groups && groups[i]; i++) {
		g_autofree char *name = host_line(d->h, "/sys/kernel/iommu_groups/%s/name", groups[i]);

		real += g_strcmp0(name, NOIOMMU) != 0;
	}
	for (i = 0; i < G_N_ELEMENTS(turn_off) && !why; i++)
		if (has_word(d->line, turn_off[i]))
			why = g_strdup_printf("; the kernel parameter %s turns it off", turn_off[i]);
	if (n) {
		what = g_strdup_printf("%zu IOMMU%s (%s%s)", n, n > 1 ? "s" : "", units[0],
				       n > 1 ? ", ..." : "");
		report(d, IOMMU_GOOD, NULL, "what", what, NULL);
	} else if (real) {
		report(d, IOMMU_GOOD, NULL, "what", "devices are in IOMMU groups", NULL);
	} else {
		report(d, groups && groups[0] ? IOMMU_UNSAFE : IOMMU_NONE, NULL, "why", why, NULL);
	}
}

/* ---- KVM ------------------------------------------------------------------------------------ */

/*
 * Whether KVM maps memory that isn't RAM cacheable: a VM's capability 243 says so, also
 * of an older kernel that has the backport.
 */
static void check_usemem(struct doctor *d, const char *kvm)
{
	g_autofree char *cap = field_value(kvm, "cap-243");

	report(d, !g_strcmp0(cap, "1") ? KVM_USEMEM_GOOD : g_strcmp0(cap, "0") ? KVM_USEMEM_UNKNOWN :
	       kernel_from(d, 6, 17, 0) ? KVM_USEMEM_REFUSED : KVM_USEMEM_DEVICE, NULL, NULL);
}

void check_kvm(struct doctor *d)
{
	const char *kvm = answer(d->answers, "kvm");
	g_autofree char *state = kvm ? field_value(kvm, "state") : g_strdup("absent");
	bool open = !g_strcmp0(state, "open"), resmem = false;
	size_t i;

	report(d, open ? KVM_GOOD : !g_strcmp0(state, "denied") ? KVM_UNKNOWN : KVM_NONE, NULL,
	       "state", state ?: "no answer", NULL);
	if (!d->arm || !state || (!open && strcmp(state, "denied")))
		return;
	check_usemem(d, kvm);
	/* GPUs without the MIG defect have no resmem. */
	for (i = 0; i < d->gpus.count; i++)
		resmem |= d->gpus.gpu[i].mode != GPU_MODE_NO_CARVE_OUT;
	if (resmem)
		check_ability(d, ABILITY_RESMEM);
}
