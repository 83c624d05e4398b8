// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the guest boots with: the firmware, its variables, secure boot and the TPM.
 */
#include <glib.h>

#include "plan/steps.h"

static enum exit_status plan_tpm(const struct guest_facts *facts, struct guest_plan *plan)
{
	if (!facts->swtpm)
		return plan_refuse(plan, EXIT_REFUSED, NULL,
				   "--tpm: no swtpm in /usr/bin; install the package swtpm");
	/* libvirt looks for it when a domain is defined. */
	if (plan->format == FORMAT_LIBVIRT && !facts->swtpm_setup)
		return plan_refuse(plan, EXIT_REFUSED, NULL,
				   "--tpm: no swtpm_setup in /usr/bin, which libvirt needs; install the package swtpm-tools");
	plan->tpm = true;
	if (plan->format == FORMAT_LIBVIRT)
		plan_because(plan, WHY_TPM, "as --tpm says; libvirt starts swtpm and keeps its state");
	else
		plan_because(plan, WHY_TPM,
			     "as --tpm says; swtpm keeps its state in the folder %s-tpm, and ends with QEMU",
			     plan->name);
	return EXIT_OK;
}

enum exit_status plan_boot(const struct guest_facts *facts, const struct guest_wish *wish,
			   struct guest_plan *plan)
{
	const struct firmware *uefi = &facts->uefi[wish->secure_boot ? FIRMWARE_SECURE : FIRMWARE_PLAIN];

	if (plan->format == FORMAT_KUBEVIRT && (wish->secure_boot || wish->vars || wish->tpm))
		return plan_refuse(plan, EXIT_USAGE_ERROR, NULL,
				   "--uefi-vars, --secure-boot and --tpm are not for KubeVirt, whose machines have firmware.bootloader.efi and devices.tpm for that");
	if (!uefi->code && (wish->secure_boot || wish->vars))
		return plan_refuse(plan, EXIT_REFUSED, NULL,
				   "no file in /usr/share/qemu/firmware describes UEFI for aarch64 in flash%s; on Debian, install qemu-efi-aarch64",
				   wish->secure_boot ? " with secure boot and its keys" : "");
	plan->firmware = uefi->code ? uefi->code : "/usr/share/AAVMF/AAVMF_CODE.fd";
	plan->firmware_format = uefi->code ? uefi->code_format : "raw";
	plan_because(plan, WHY_FIRMWARE, "UEFI, without which the guest has no ACPI%s",
		     uefi->code ? "" : "; nothing in /usr/share/qemu/firmware describes it: on Debian, install qemu-efi-aarch64");
	plan->secure_boot = wish->secure_boot;
	plan->vars = g_strdup(wish->vars);
	if (!wish->vars && wish->secure_boot && plan->format != FORMAT_LIBVIRT)
		plan->vars = g_strdup_printf("%s-vars.fd", plan->name);
	plan->vars_template = uefi->vars;
	plan->vars_format = uefi->vars_format;
	if (plan->vars)
		plan_because(plan, WHY_VARS,
			     "%s; if the file does not exist, it becomes a copy of the firmware's template%s",
			     wish->vars ? "as --uefi-vars says" : "UEFI's variables, in which secure boot has its keys; --uefi-vars names another file",
			     wish->secure_boot ? ", which has keys and switches secure boot on" : "");
	if (wish->secure_boot)
		plan_note(plan, "with secure boot, the guest's kernel loads only signed modules: NVIDIA's driver needs a signature by a key that the guest trusts, such as one that mokutil enrolls in it");
	return wish->tpm ? plan_tpm(facts, plan) : EXIT_OK;
}
