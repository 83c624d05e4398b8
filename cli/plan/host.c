// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reads what a guest is computed from: see plan.h.
 */
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "facts/answers.h"
#include "plan/steps.h"

/* The node with processors that is nearest to a GPU; -1: not known. */
static int nearest_node(const struct numa *numa, int wanted)
{
	const struct numa_node *from = NULL;
	size_t i, best = numa->count, cpus = 0;

	for (i = 0; i < numa->count; i++) {
		if (numa->node[i].id == wanted)
			from = &numa->node[i];
		cpus += !!numa->node[i].cpus;
	}
	if (from && from->cpus)
		return wanted;
	for (i = 0; i < numa->count; i++) {
		if (!numa->node[i].cpus || (cpus > 1 && !(from && from->distance)))
			continue;
		if (best == numa->count ||
		    (from && from->distance && from->distance[i] < from->distance[best]))
			best = i;
	}
	return best < numa->count ? numa->node[best].id : -1;
}

static void read_hugepages(struct host *h, struct guest_facts *facts)
{
	g_auto(GStrv) names = host_list(h, "/sys/kernel/mm/hugepages");
	struct hugepages *pages;
	unsigned long long kib;
	size_t i, n;

	for (i = 0; names && names[i]; i++) {
		if (sscanf(names[i], "hugepages-%llukB", &kib) != 1 || !kib || kib >= SIZE_LIMIT >> 10)
			continue;
		facts->hugepages = g_renew(struct hugepages, facts->hugepages,
					   facts->hugepage_sizes + 1);
		pages = &facts->hugepages[facts->hugepage_sizes++];
		*pages = (struct hugepages){ .size = kib << 10 };
		pages->free = g_new0(uint64_t, facts->numa.count);
		for (n = 0; n < facts->numa.count; n++)
			if (host_u64(h, &pages->free[n],
				     "/sys/devices/system/node/node%d/hugepages/%s/free_hugepages",
				     facts->numa.node[n].id, names[i]))
				pages->free[n] = 0;
	}
}

static void read_kernel(struct host *h, struct answers *a, struct guest_facts *facts)
{
	const char *config = answer(a, "kernel-config"), *kvm = answer(a, "kvm");
	g_autofree char *features = host_line(h, "/sys/bus/pci/drivers/" DRIVER_NAME "/features");
	const char *shift = config ? strstr(config, "CONFIG_NODES_SHIFT=") : NULL;
	g_autofree char *bits = kvm ? field_value(kvm, "address-bits") : NULL;
	unsigned int nodes;
	uint64_t number;

	facts->config_known = config;
	facts->type1 = config_option(config, "VFIO_IOMMU_TYPE1") != 'n' ||
		       host_exists(h, "/sys/module/vfio_iommu_type1");
	facts->iommufd = config_option(config, "IOMMUFD") != 'n' &&
			 config_option(config, "VFIO_DEVICE_CDEV") != 'n';
	facts->dmabuf = features ? has_word(features, "dmabuf") :
			config_option(config, "VFIO_PCI_DMABUF") != 'n';
	facts->nesting = config_option(config, "ARM_SMMU_V3_IOMMUFD") != 'n';
	/* The kernel's largest is 10. */
	if (shift && sscanf(shift, "CONFIG_NODES_SHIFT=%u", &nodes) == 1 && nodes <= 10)
		facts->node_limit = 1U << nodes;
	if (bits && parse_u64(bits, &number) && number <= 64)
		facts->address_bits = number;
}

static void read_place(struct host *h, const struct numa *numa, const struct gpu *gpu,
		       struct place *place)
{
	g_autofree char *speed = host_line(h, DEVICES "/%s/max_link_speed", gpu->address);

	gpu_bars(h, gpu, place->bars);
	place->iommu = gpu_iommu(h, gpu);
	place->group = gpu_group(h, gpu);
	place->node = nearest_node(numa, gpu->numa_node);
	place->vfio = host_exists(h, DEVICES "/%s/vfio-dev", gpu->address);
	/* "32.0 GT/s PCIe", or "Unknown" */
	place->link_speed = speed ? strtoul(speed, NULL, 10) : 0;
}

void guest_facts_add(struct host *h, struct guest_facts *facts, const char *address)
{
	struct gpus *others = &facts->others;
	size_t i;

	for (i = 0; i < others->count; i++)
		if (!strcmp(others->gpu[i].address, address))
			return;
	others->gpu = g_renew(struct gpu, others->gpu, i + 1);
	/* If it is gone, it has no driver, which the plan refuses. */
	gpu_read(h, address, &others->gpu[i]);
	facts->other_place = g_renew(struct place, facts->other_place, i + 1);
	read_place(h, &facts->numa, &others->gpu[i], &facts->other_place[i]);
	others->count++;
}

void guest_facts_read(struct host *h, struct answers *a, const struct gpus *gpus,
		      struct guest_facts *facts)
{
	size_t i;

	memset(facts, 0, sizeof(*facts));
	facts->gpus = gpus;
	numa_read(h, &facts->numa);
	facts->place = g_new0(struct place, gpus->count);
	for (i = 0; i < gpus->count; i++)
		read_place(h, &facts->numa, &gpus->gpu[i], &facts->place[i]);
	qemus_read(a, &facts->qemu);
	libvirts_read(a, &facts->libvirt);
	read_hugepages(h, facts);
	firmware_read(h, &facts->uefi);
	read_kernel(h, a, facts);
	facts->libvirt_iommufd = true;
}

void guest_facts_ask(struct answers *a, struct guest_facts *facts)
{
	libvirt_ask(answer(a, "libvirt-version"), answer(a, "libvirt-capabilities"),
		    &facts->libvirt, &facts->libvirt_iommufd);
}

static void free_places(struct place *place, size_t count)
{
	size_t i;

	for (i = 0; place && i < count; i++) {
		g_free(place[i].iommu);
		g_strfreev(place[i].group);
	}
	g_free(place);
}

void guest_facts_free(struct guest_facts *facts)
{
	size_t i;

	free_places(facts->place, facts->gpus ? facts->gpus->count : 0);
	free_places(facts->other_place, facts->others.count);
	gpus_free(&facts->others);
	numa_free(&facts->numa);
	firmware_free(&facts->uefi);
	vmms_free(&facts->qemu);
	vmms_free(&facts->libvirt);
	for (i = 0; i < facts->hugepage_sizes; i++)
		g_free(facts->hugepages[i].free);
	g_free(facts->hugepages);
}

const struct place *plan_place(const struct guest_facts *facts, const struct gpu *gpu)
{
	return &facts->place[gpu - facts->gpus->gpu];
}

const struct numa_node *plan_host_node(const struct guest_facts *facts, int id)
{
	size_t i;

	for (i = 0; i < facts->numa.count; i++)
		if (facts->numa.node[i].id == id)
			return &facts->numa.node[i];
	return NULL;
}
