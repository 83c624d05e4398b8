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

static bool is_named(const struct guest_plan *plan, const char *address)
{
	size_t i;

	for (i = 0; i < plan->devices; i++)
		if (!strcmp(plan->device[i].pci->address, address))
			return true;
	return false;
}

/* A device that is no GPU. */
static enum exit_status check_other(struct guest_plan *plan, const struct gpu *pci,
				    const struct place *place)
{
	if (pci->product)
		return plan_refuse(plan, EXIT_USAGE_ERROR, pci,
				   "a GPU; give its address without --device");
	if (!place->vfio)
		return plan_refuse(plan, EXIT_REFUSED, pci,
				   "%s%s, not to a driver of vfio; bind it to vfio-pci first",
				   pci->driver ? "bound to " : "not bound",
				   pci->driver ? pci->driver : "");
	if (!plan_are_bars(place->bars))
		return plan_refuse(plan, EXIT_REFUSED, pci,
				   "a BAR has an impossible size; check \"resource\" in its sysfs folder");
	return EXIT_OK;
}

static enum exit_status check_memory(struct guest_plan *plan, const struct gpu *gpu,
				     const struct place *place)
{
	char size[SIZE_MAX_TEXT];

	if (!gpu->ours)
		return plan_refuse(plan, EXIT_REFUSED, gpu,
				   "%s%s; only " DRIVER_NAME " knows the size of its memory; run \"" PROGRAM " bind --persist %s\" first",
				   gpu->driver ? "bound to " : "not bound",
				   gpu->driver ? gpu->driver : "", gpu->address);
	if (gpu->mode == GPU_MODE_NONE || gpu->mode == GPU_MODE_CORE_ONLY)
		return plan_refuse(plan, EXIT_REFUSED, gpu,
				   "the driver reports no memory; see \"" PROGRAM " doctor %s\"",
				   gpu->address);
	if (!place->bars[4] || !plan_are_bars(place->bars))
		return plan_refuse(plan, EXIT_REFUSED, gpu,
				   "a BAR has an impossible size (BAR4: %s); check nvgrace_gpu/usemem_bar_size, resmem_bar_size and \"resource\" in its sysfs folder",
				   size_text(place->bars[4], size));
	return EXIT_OK;
}

static enum exit_status check_shared(struct guest_plan *plan, const struct gpu *gpu,
				     const struct place *place)
{
	const struct gpu *other;
	size_t i;

	if (gpu->iommu_group < 0)
		return plan_refuse(plan, EXIT_REFUSED, gpu,
				   "in no IOMMU group, which vfio needs; see \"" PROGRAM " doctor\"");
	for (i = 0; place->group[i]; i++)
		if (!is_named(plan, place->group[i]))
			return plan_refuse(plan, EXIT_REFUSED, gpu,
					   "shares IOMMU group %d with %s: only one guest can have both; name both, with --device what is no GPU, or turn on ACS in the firmware's setup",
					   gpu->iommu_group, place->group[i]);
	for (i = 0; i < plan->gpus; i++) {
		other = plan->device[i].pci;
		if (other != gpu && gpu->usemem_base != GPU_UNKNOWN &&
		    other->usemem_base != GPU_UNKNOWN &&
		    gpu->usemem_base < other->usemem_base + gpu_memory_size(other) &&
		    other->usemem_base < gpu->usemem_base + gpu_memory_size(gpu))
			return plan_refuse(plan, EXIT_REFUSED, gpu,
					   "its memory is also that of %s; check firmware's tables",
					   other->address);
	}
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
	if (count > GUEST_GPUS_MAX)
		return plan_refuse(plan, EXIT_REFUSED, NULL,
				   "%zu GPUs need %zu NUMA nodes, and QEMU has 128; name at most %d",
				   count, count * NODES_OF_GPU, GUEST_GPUS_MAX);
	if (facts->others.count > GUEST_OTHERS_MAX)
		return plan_refuse(plan, EXIT_REFUSED, NULL, "%zu times --device; give at most %d",
				   facts->others.count, GUEST_OTHERS_MAX);
	if (facts->others.count && plan->format == FORMAT_KUBEVIRT)
		return plan_refuse(plan, EXIT_USAGE_ERROR, NULL,
				   "--device is not for KubeVirt, which assigns devices by the names of resources; add yours to permittedHostDevices and hostDevices");
	plan->gpus = count;
	for (i = 0; i < count; i++)
		add_device(plan, gpu[i], plan_place(facts, gpu[i]));
	for (i = 0; i < facts->others.count; i++)
		add_device(plan, &facts->others.gpu[i], &facts->other_place[i]);
	for (i = 0; i < plan->devices && !status; i++) {
		g = &plan->device[i];
		status = (i < count ? check_memory : check_other)(plan, g->pci, g->place);
		if (!status)
			status = check_shared(plan, g->pci, g->place);
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

static enum exit_status plan_programs(const struct guest_facts *facts,
				      const struct guest_wish *wish, struct guest_plan *plan)
{
	const struct vmm *qemu = newest(&facts->qemu), *libvirt = newest(&facts->libvirt);

	if (facts->machine && strcmp(facts->machine, "aarch64"))
		return plan_refuse(plan, EXIT_REFUSED, NULL,
				   "this host is a %s machine; these GPUs belong to aarch64 processors",
				   facts->machine);
	plan->format = wish->format;
	if (plan->format == FORMAT_AUTO)
		plan->format = libvirt ? FORMAT_LIBVIRT : FORMAT_QEMU;
	/* KubeVirt has both in its containers. */
	if (plan->format == FORMAT_KUBEVIRT)
		return EXIT_OK;
	if (!qemu)
		return plan_refuse(plan, EXIT_REFUSED, NULL,
				   "no QEMU in /usr/bin, /usr/libexec and /usr/local/bin; install %s or later, or use --format=kubevirt",
				   vmm_since(QEMU_WINDOW));
	if (!libvirt && plan->format == FORMAT_LIBVIRT)
		return plan_refuse(plan, EXIT_REFUSED, NULL,
				   "no libvirt in /usr/sbin; install %s or later, or use --format=qemu",
				   vmm_since(LIBVIRT_VARIANT));
	plan->qemu = qemu;
	plan->libvirt = plan->format == FORMAT_LIBVIRT ? libvirt : NULL;
	if (!vmm_has(qemu, QEMU_INITIATOR))
		return plan_refuse(plan, EXIT_REFUSED, NULL,
				   "%s has no -object acpi-generic-initiator, without which the guest can't add GPU memory as NUMA nodes; install %s or later",
				   qemu->path, vmm_since(QEMU_INITIATOR));
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

char *guest_accel_obstacle(const struct guest_facts *facts, const struct guest_plan *plan)
{
	const struct place *place;
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
	for (i = 0; i < plan->devices; i++) {
		place = plan->device[i].place;
		if (!place->iommu)
			return g_strdup_printf("not known which SMMU %s has",
					       plan->device[i].pci->address);
		if (strncmp(place->iommu, "smmu3.", 6))
			return g_strdup_printf("the IOMMU of %s is %s, not an SMMUv3",
					       plan->device[i].pci->address, place->iommu);
		if (place->group[0])
			return g_strdup_printf("%s is not alone in its IOMMU group",
					       plan->device[i].pci->address);
	}
	return NULL;
}

static enum exit_status plan_dma(const struct guest_facts *facts, const struct guest_wish *wish,
				 struct guest_plan *plan)
{
	g_autofree char *no_iommufd = iommufd_obstacle(facts, plan);
	g_autofree char *no_accel = guest_accel_obstacle(facts, plan);
	enum choice accel = plan->format == FORMAT_KUBEVIRT ? CHOICE_ON : wish->accel;
	bool only_iommufd = facts->config_known && !facts->type1;
	enum exit_status status = EXIT_OK;

	/* KubeVirt has no choice, and a wish is granted: the doctor's finding says what fails. */
	if (!no_accel && !facts->dmabuf && accel == CHOICE_AUTO)
		no_accel = g_strdup("the GPU could not access its own memory through the guest's addresses, for which vfio must export that memory as a dma-buf: Linux 6.19 or later with CONFIG_VFIO_PCI_DMABUF");
	if (accel == CHOICE_ON && no_accel)
		status = plan_refuse(plan, EXIT_REFUSED, NULL, "no accelerated SMMUv3: %s", no_accel);
	else if (accel == CHOICE_ON && wish->iommufd == CHOICE_OFF)
		status = plan_refuse(plan, EXIT_USAGE_ERROR, NULL,
				     "an accelerated SMMUv3 needs iommufd; leave out --iommufd=off");
	else if (wish->iommufd == CHOICE_ON && no_iommufd)
		status = plan_refuse(plan, EXIT_REFUSED, NULL, "no iommufd: %s", no_iommufd);
	else if (only_iommufd && (no_iommufd || wish->iommufd == CHOICE_OFF))
		status = plan_refuse(plan, EXIT_REFUSED, NULL,
				     "the kernel has no type1 (CONFIG_VFIO_IOMMU_TYPE1), and no iommufd: %s",
				     no_iommufd ? no_iommufd : "--iommufd=off");
	plan->accel = !status && accel != CHOICE_OFF && !no_accel && wish->iommufd != CHOICE_OFF;
	plan->iommufd = !status && (plan->accel || wish->iommufd == CHOICE_ON || only_iommufd);
	if (!status && !plan->accel && accel != CHOICE_OFF)
		plan_note(plan, "no accelerated SMMUv3, so the guest has no IOMMU and no shared virtual addressing: %s",
			  no_accel ? no_accel : "--iommufd=off");
	if (plan->accel)
		plan_note(plan, "the guest's kernel needs CONFIG_ARM_SMMU_V3_SVA and CONFIG_DEVICE_PRIVATE, or CUDA does not start: if it lacks them, as Debian 12 and 13 do, use %s",
			  plan->format == FORMAT_KUBEVIRT ? "another kernel" : "--accel-smmu=off");
	/* KubeVirt's guests always have an SMMU. */
	plan->hide_ats = !plan->accel && plan->qemu && vmm_has(plan->qemu, QEMU_ATS);
	if (plan->hide_ats)
		plan_because(plan, WHY_ATS,
			     "ats=off: the guest has no SMMU, so the GPU's ATS is of no use, and NVIDIA's driver would take it for shared virtual addresses; users report that CUDA then does not start");
	if (plan->iommufd)
		plan_because(plan, WHY_IOMMUFD, "%s",
			     plan->accel ? "an accelerated SMMUv3 needs iommufd (CONFIG_IOMMUFD and CONFIG_VFIO_DEVICE_CDEV of the kernel)" :
			     only_iommufd ? "the kernel has no type1 (CONFIG_VFIO_IOMMU_TYPE1)" :
			     "as --iommufd=on says; without it, vfio would use type1");
	return status;
}

/* ---- the rest -------------------------------------------------------------------------------- */

static void plan_rest(const struct guest_facts *facts, const struct guest_wish *wish,
		      struct guest_plan *plan)
{
	char size[SIZE_MAX_TEXT];

	if (facts->egm)
		plan_note(plan, "firmware has set aside up to %s of each socket's memory (EGM), which this guest does not use",
			  size_text(facts->egm, size));
	plan->disk = wish->disk ? g_strdup(wish->disk) :
		     g_strdup_printf("%s%s%s", plan->format == FORMAT_LIBVIRT ?
				     "/var/lib/libvirt/images/" : "", plan->name,
				     plan->format == FORMAT_KUBEVIRT ? "-root" : ".qcow2");
	plan->disk_device = wish->disk_device;
	plan->disk_format = g_str_has_suffix(plan->disk, ".qcow2") ? "qcow2" : "raw";
	plan->ras = !plan->qemu || vmm_has(plan->qemu, QEMU_RAS);
	if (plan->libvirt && !vmm_has(plan->libvirt, LIBVIRT_RAS))
		plan->ras = false;
	plan_because(plan, WHY_MACHINE, "KVM, and GICv3 for more than 8 processors and for MSIs");
	if (plan->ras)
		plan_because(plan, WHY_RAS, "errors of the GPU's memory reach the guest as memory errors");
	else
		plan_note(plan, "no ras: errors of the GPU's memory end the guest; %s or later, and %s, have it",
			  vmm_since(QEMU_RAS), vmm_since(LIBVIRT_RAS));
	plan_because(plan, WHY_GPU,
		     "the GPU, as \"" PROGRAM " list\" names it; rombar=0: the guest does not see its option ROM");
	plan_because(plan, WHY_DISK, "%s; %s", wish->disk ? "as --disk says" : "a placeholder: --disk names yours",
		     g_str_has_suffix(plan->disk, ".qcow2") ? "qcow2, because its name ends in .qcow2" :
		     "raw, because its name does not end in .qcow2");
	plan->seed = wish->seed;
	plan->seed_folder = wish->seed_folder;
	plan->ssh_port = wish->ssh_port;
	if (plan->seed)
		plan_because(plan, WHY_SEED, "as --cloud-init says; cloud-init in the guest finds user-data and meta-data by the label CIDATA, %s",
			     plan->seed_folder ? "which QEMU gives to the file system that it makes of the folder" :
			     "which this image must have");
	plan_because(plan, WHY_NETWORK, "a network that needs no root%s; change it as for any guest",
		     plan->ssh_port ? ", with the port of this host's loopback address that --ssh-port says as the guest's port 22" : "");
	plan_because(plan, WHY_CONSOLE, "the console is this terminal; nothing that the guest does not need");
}

enum exit_status guest_plan(const struct guest_facts *facts, const struct guest_wish *wish,
			    const struct gpu **gpu, size_t count, struct guest_plan *plan)
{
	enum exit_status status;

	memset(plan, 0, sizeof(*plan));
	plan->name = wish->name ? wish->name : "gh200";
	status = plan_programs(facts, wish, plan);
	if (!status)
		status = plan_devices(facts, gpu, count, plan);
	if (!status)
		status = plan_cpu_nodes(facts, plan);
	if (!status)
		status = plan_memory(facts, wish, plan);
	if (!status)
		status = plan_dma(facts, wish, plan);
	if (!status)
		status = plan_window(facts, plan);
	if (!status)
		status = plan_pinning(facts, wish, plan);
	if (!status)
		status = plan_backend(facts, wish, plan);
	if (!status)
		status = plan_buses(facts, plan);
	if (!status)
		status = plan_boot(facts, wish, plan);
	if (status)
		return status;
	plan_nodes(facts, plan);
	plan_distances(facts, plan);
	plan_rest(facts, wish, plan);
	return EXIT_OK;
}

void guest_plan_free(struct guest_plan *plan)
{
	size_t i;

	for (i = 0; i < WHYS; i++)
		g_free(plan->why[i]);
	for (i = 0; i < plan->cpu_nodes; i++)
		g_free(plan->node[i].host_cpus);
	g_free(plan->host_cpus);
	g_free(plan->distance);
	g_free(plan->disk);
	g_free(plan->vars);
	g_clear_pointer(&plan->notes, g_ptr_array_unref);
	g_free(plan->refused);
}
