// SPDX-License-Identifier: GPL-2.0-only
/*
 * Computes the guest, by the steps of steps.h and those for devices, programs and
 * DMA, which are here. Nothing here reads the host.
 */
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plan/steps.h"
#include "system/output.h"

/* ---- the devices ----------------------------------------------------------------------------- */

/* Why the guest can't have a device, which is named as a GPU or not. */
static enum exit_status check_device(struct guest_plan *plan, const struct gpu *pci,
				     const struct place *place, bool gpu)
{
	const char *bound = pci->driver ? "bound to " : "not bound", *driver = pci->driver ?: "";
	char size[SIZE_MAX_TEXT];

	if (!gpu && pci->product)
		return plan_refuse(plan, EXIT_USAGE_ERROR, pci,
				   "a GPU; give its address without --device");
	if (!gpu && !place->vfio)
		return plan_refuse(plan, EXIT_REFUSED, pci,
				   "%s%s, not to a driver of vfio; bind it to vfio-pci first",
				   bound, driver);
	if (gpu && !pci->ours)
		return plan_refuse(plan, EXIT_REFUSED, pci,
				   "%s%s; only " DRIVER_NAME " knows the size of its memory; run \"" PROGRAM " bind --persist %s\" first",
				   bound, driver, pci->address);
	if (gpu && (pci->mode == GPU_MODE_NONE || pci->mode == GPU_MODE_CORE_ONLY))
		return plan_refuse(plan, EXIT_REFUSED, pci,
				   "the driver reports no memory; see \"" PROGRAM " doctor %s\"",
				   pci->address);
	if ((gpu && !place->bars[4]) || !plan_are_bars(place->bars))
		return plan_refuse(plan, EXIT_REFUSED, pci,
				   "a BAR has an impossible size (BAR4: %s); check \"resource\" and nvgrace_gpu/*_bar_size in its sysfs folder",
				   size_text(place->bars[4], size));
	return EXIT_OK;
}

static void add_device(struct guest_plan *plan, const struct gpu *pci, const struct place *place)
{
	struct guest_device *g = &plan->device[plan->devices];

	if (plan->devices < plan->gpus)
		snprintf(g->id, sizeof(g->id), "gpu%zu", plan->devices);
	else
		snprintf(g->id, sizeof(g->id), "dev%zu", plan->devices - plan->gpus);
	g->pci = pci;
	g->place = place;
	/* The slower of port and device is what QEMU shows. Its ports have 16 GT/s. */
	if (vmm_has(plan->qemu, QEMU_SPEED))
		g->port_speed = place->link_speed >= 64 ? 64 : place->link_speed >= 32 ? 32 : 0;
	plan_add_bars(g, place->bars);
	plan->devices++;
}

static enum exit_status plan_devices(const struct guest_facts *facts, const struct gpu **gpu,
				     size_t count, struct guest_plan *plan)
{
	enum exit_status status = EXIT_OK;
	struct guest_device *g;
	size_t i;

	if (!count)
		return plan_refuse(plan, EXIT_NO_DEVICE, NULL,
				   "no GPU is bound to " DRIVER_NAME "; run \"" PROGRAM " bind --persist --all\" first");
	if (count > GUEST_GPUS_MAX || count + facts->others.count > GUEST_DEVICES_MAX)
		return plan_refuse(plan, EXIT_REFUSED, NULL,
				   "%zu GPUs and %zu other devices; name at most %d GPUs and %d devices",
				   count, facts->others.count, GUEST_GPUS_MAX, GUEST_DEVICES_MAX);
	plan->gpus = count;
	for (i = 0; i < count; i++)
		add_device(plan, gpu[i], plan_place(facts, gpu[i]));
	for (i = 0; i < facts->others.count; i++)
		add_device(plan, &facts->others.gpu[i], &facts->other_place[i]);
	for (i = 0; i < plan->devices && !status; i++) {
		g = &plan->device[i];
		status = check_device(plan, g->pci, g->place, i < count);
	}
	return status;
}

/* ---- programs -------------------------------------------------------------------------------- */

static const struct vmm *newest(const struct vmms *vmms)
{
	const struct vmm *found = NULL, *vmm;
	size_t i;

	for (i = 0; i < vmms->count; i++) {
		vmm = &vmms->vmm[i];
		if (!found || vmm->major > found->major ||
		    (vmm->major == found->major && vmm->minor > found->minor))
			found = vmm;
	}
	return found;
}

static const struct vmm *named(const struct vmms *vmms, const char *path)
{
	size_t i;

	for (i = 0; i < vmms->count; i++)
		if (!strcmp(vmms->vmm[i].path, path))
			return &vmms->vmm[i];
	return NULL;
}

static enum exit_status plan_programs(const struct guest_facts *facts,
				      const struct guest_wish *wish, struct guest_plan *plan)
{
	const char *emulator = wish->domain ? wish->domain->emulator : NULL;

	plan->qemu = emulator ? named(&facts->qemu, emulator) : newest(&facts->qemu);
	if (!plan->qemu)
		return plan_refuse(plan, EXIT_REFUSED, NULL,
				   "%s: no QEMU in /usr/bin, /usr/libexec and /usr/local/bin; install %s or later",
				   emulator ?: "qemu-system-aarch64", vmm_since(QEMU_WINDOW));
	if (wish->domain) {
		plan->libvirt = newest(&facts->libvirt);
		if (!plan->libvirt)
			return plan_refuse(plan, EXIT_REFUSED, NULL,
					   "no libvirt in /usr/sbin; install %s or later",
					   vmm_since(LIBVIRT_VARIANT));
	}
	if (!vmm_has(plan->qemu, QEMU_INITIATOR))
		return plan_refuse(plan, EXIT_REFUSED, NULL,
				   "%s has no -object acpi-generic-initiator, without which the guest can't add GPU memory as NUMA nodes; install %s or later",
				   plan->qemu->path, vmm_since(QEMU_INITIATOR));
	return EXIT_OK;
}

/* ---- DMA ------------------------------------------------------------------------------------- */

/* Why there can be no iommufd, to be freed; NULL: there can. */
static char *iommufd_obstacle(const struct guest_facts *facts, const struct guest_plan *plan)
{
	if (!facts->iommufd)
		return g_strdup(facts->config_known ?
				"the kernel lacks CONFIG_IOMMUFD or CONFIG_VFIO_DEVICE_CDEV" :
				"not known whether the kernel has CONFIG_IOMMUFD and CONFIG_VFIO_DEVICE_CDEV");
	if (plan->qemu && !vmm_has(plan->qemu, QEMU_IOMMUFD))
		return g_strdup_printf("%s has no -object iommufd; %s or later has it", plan->qemu->path,
				       vmm_since(QEMU_IOMMUFD));
	if (plan->libvirt && !vmm_has(plan->libvirt, LIBVIRT_IOMMUFD))
		return g_strdup_printf("%s has no <driver iommufd>; %s or later has it",
				       plan->libvirt->path, vmm_since(LIBVIRT_IOMMUFD));
	if (plan->libvirt && !facts->libvirt_iommufd)
		return g_strdup("libvirt's domcapabilities say that its QEMU has no iommufd");
	return NULL;
}

/* Why the guest can have no accelerated SMMUs, to be freed; NULL: it can. */
static char *accel_obstacle(const struct guest_facts *facts, const struct guest_plan *plan)
{
	char *why;
	size_t i;

	if (plan->qemu && !vmm_has(plan->qemu, QEMU_ACCEL))
		return g_strdup_printf("%s has no -device arm-smmuv3,accel=on; %s or later has it",
				       plan->qemu->path, vmm_since(QEMU_ACCEL));
	if (plan->libvirt && !vmm_has(plan->libvirt, LIBVIRT_ACCEL))
		return g_strdup_printf("%s has no <iommu model='smmuv3'> with accel; %s or later has it",
				       plan->libvirt->path, vmm_since(LIBVIRT_ACCEL));
	why = iommufd_obstacle(facts, plan);
	if (why)
		return why;
	if (!facts->nesting)
		return g_strdup("the kernel lacks CONFIG_ARM_SMMU_V3_IOMMUFD, which Linux 6.13 added");
	/* Another device can do without: see plan_buses(). */
	for (i = 0; i < plan->gpus; i++)
		if (!plan_smmu(plan->device[i].place))
			return g_strdup_printf("%s has no SMMUv3, by the link \"iommu\" in its sysfs folder, or is not alone in its IOMMU group",
					       plan->device[i].pci->address);
	return NULL;
}

#define NO_DMABUF "vfio does not export GPU memory as dma-bufs, without which no DMA reaches it through iommufd, not even the GPU's own by the guest's addresses; boot Linux 6.19 or later with CONFIG_VFIO_PCI_DMABUF"

static enum exit_status plan_dma(const struct guest_facts *facts, const struct guest_wish *wish,
				 struct guest_plan *plan)
{
	bool only_iommufd = facts->config_known && !facts->type1, hides = vmm_has(plan->qemu, QEMU_ATS);
	g_autofree char *no_iommufd = NULL, *no_accel = NULL;

	no_iommufd = iommufd_obstacle(facts, plan);
	no_accel = accel_obstacle(facts, plan);
	/* A wish is granted. */
	if (!no_accel && !facts->dmabuf && wish->accel == CHOICE_AUTO)
		no_accel = g_strdup(NO_DMABUF);
	if (wish->accel == CHOICE_ON && no_accel)
		return plan_refuse(plan, EXIT_REFUSED, NULL, "no accelerated SMMUv3: %s", no_accel);
	if (only_iommufd && no_iommufd)
		return plan_refuse(plan, EXIT_REFUSED, NULL,
				   "no iommufd: %s; the kernel has no type1 (CONFIG_VFIO_IOMMU_TYPE1)",
				   no_iommufd);
	/*
	 * Every guest system works without an SMMU if ATS can be hidden, and not each with
	 * one.
	 */
	plan->accel = wish->accel == CHOICE_ON || (wish->accel == CHOICE_AUTO && !hides && !no_accel);
	plan->iommufd = plan->accel || only_iommufd;
	if (plan->accel)
		plan_note(plan, "the guest's kernel needs CONFIG_ARM_SMMU_V3_SVA and CONFIG_DEVICE_PRIVATE, or CUDA does not start: those of Debian 12 and 13 lack them, and need --accel-smmu=off");
	else if (wish->accel == CHOICE_AUTO && no_accel)
		plan_note(plan, "no accelerated SMMUv3, so the guest has no IOMMU and no shared virtual addresses: %s",
			  no_accel);
	else if (wish->accel == CHOICE_AUTO)
		plan_note(plan, "no accelerated SMMUv3, which not every guest system can use: --accel-smmu=on adds it, for shared virtual addresses in a guest whose kernel has CONFIG_ARM_SMMU_V3_SVA and CONFIG_DEVICE_PRIVATE");
	if (plan->iommufd && !facts->dmabuf && (plan->accel || plan->devices > plan->gpus))
		plan_note(plan, NO_DMABUF);
	plan->hide_ats = !plan->accel && hides;
	return EXIT_OK;
}

/* ---- the rest -------------------------------------------------------------------------------- */

/* What the guest's kernel, and the host's, must be able to have. */
static void note_nodes(const struct guest_facts *facts, struct guest_plan *plan)
{
	size_t i, needed = NODES_OF_GPU * facts->gpus->count;
	unsigned int shift;

	for (shift = 0; 1U << shift < plan->nodes; shift++)
		;
	/* Linux's default for arm64 is 4. */
	if (shift > 4)
		plan_note(plan, "this guest has %zu NUMA nodes, so its kernel needs CONFIG_NODES_SHIFT=%u or more: Linux's default for arm64, which Debian has, is 4, with which it drops nodes of the GPUs, and NVIDIA's driver then adds no memory for a GPU that lost one; see \"The guest's system\" in guests.md",
			  plan->nodes, shift);
	for (i = 0; i < facts->numa.count; i++)
		needed += !!facts->numa.node[i].cpus;
	if (facts->node_limit && facts->node_limit < needed)
		plan_note(plan, "this host needs %zu NUMA nodes for its processors and GPUs, and its kernel can have %u (CONFIG_NODES_SHIFT): it has dropped nodes of its GPUs, so that their distances are not known; boot a kernel with a larger one",
			  needed, facts->node_limit);
}

static void plan_rest(const struct guest_facts *facts, const struct guest_wish *wish,
		      struct guest_plan *plan)
{
	const struct firmware *uefi = &facts->uefi;

	note_nodes(facts, plan);
	plan->ras = vmm_has(plan->qemu, QEMU_RAS) &&
		    (!plan->libvirt || vmm_has(plan->libvirt, LIBVIRT_RAS));
	if (wish->domain)
		return;
	/* QEMU says so if there is none. */
	plan->firmware = uefi->code ? uefi->code : "/usr/share/AAVMF/AAVMF_CODE.fd";
	plan->firmware_format = uefi->code ? uefi->code_format : "raw";
}

enum exit_status guest_plan(const struct guest_facts *facts, const struct guest_wish *wish,
			    const struct gpu **gpu, size_t count, struct guest_plan *plan)
{
	enum exit_status status;

	memset(plan, 0, sizeof(*plan));
	plan->notes = g_ptr_array_new_with_free_func(g_free);
	status = plan_programs(facts, wish, plan);
	if (!status)
		status = plan_devices(facts, gpu, count, plan);
	if (!status)
		status = plan_cpu_nodes(facts, wish, plan);
	if (!status)
		status = plan_memory(facts, wish, plan);
	if (!status)
		status = plan_dma(facts, wish, plan);
	if (!status)
		status = plan_window(facts, wish, plan);
	if (!status)
		status = plan_pinning(facts, wish, plan);
	if (!status)
		status = plan_backend(facts, plan);
	if (status)
		return status;
	plan_buses(facts, wish, plan);
	plan_nodes(facts, plan);
	plan_distances(facts, plan);
	plan_rest(facts, wish, plan);
	return EXIT_OK;
}

void guest_plan_free(struct guest_plan *plan)
{
	size_t i;

	for (i = 0; i < GUEST_NODES_MAX; i++) {
		g_free(plan->node[i].cpus);
		g_free(plan->node[i].host_cpus);
	}
	g_clear_pointer(&plan->cpu_pins, g_ptr_array_unref);
	g_free(plan->host_cpus);
	g_free(plan->distance);
	g_ptr_array_unref(plan->notes);
	g_free(plan->disk);
	g_free(plan->refused);
}
