// SPDX-License-Identifier: GPL-2.0-only
/*
 * A guest for KubeVirt: the settings of its operator, and a virtual machine.
 * With KubeVirt's enhancement VEP 199, virt-launcher itself makes the window,
 * the nodes, the distances and the SMMUs on the node where the machine starts.
 * These are in comments, to compare with.
 */
#include <glib.h>
#include <string.h>

#include "guest/formats.h"

/*
 * Names are in quotes: without them, YAML reads 123 as a number and null as
 * nothing.
 */

/*
 * "nvidia.com/GH200_120GB"; to be freed. NVIDIA's plugin makes the name from the
 * pci.ids in its image, which this host can't know.
 */
static char *resource(const struct gpu *gpu)
{
	char *name = g_strdup_printf("nvidia.com/%s", gpu->product), *c;

	for (c = name; *c; c++)
		if (*c == ' ')
			*c = '_';
	return name;
}

/* Whether KubeVirt 1.9 has this GPU in its list of those that VEP 199 is for. */
static bool is_listed(const struct gpu *gpu)
{
	return gpu->device == 0x2342 || gpu->device == 0x2348 || gpu->device == 0x2941;
}

/* Whether an earlier GPU has the same id. */
static bool is_repeated(const struct guest_plan *p, size_t i)
{
	size_t k;

	for (k = 0; k < i; k++)
		if (p->device[k].pci->device == p->device[i].pci->device)
			return true;
	return false;
}

static void print_operator(const struct guest_output *o)
{
	const struct guest_plan *p = o->plan;
	size_t i;

	fputs("apiVersion: kubevirt.io/v1\n"
	      "kind: KubeVirt\n"
	      "metadata:\n"
	      "  name: kubevirt\n"
	      "  namespace: kubevirt\n"
	      "spec:\n"
	      "  configuration:\n"
	      "    developerConfiguration:\n"
	      "      featureGates:\n"
	      "      - HostDevices\n"
	      "      # Which root complex is near which NUMA node (VEP 115).\n"
	      "      - PCINUMAAwareTopology\n"
	      "      # DMA through iommufd, with the device plugin for it (VEP 266). KubeVirt then\n"
	      "      # starts machines only on nodes that have /dev/iommu.\n"
	      "      - IOMMUFD\n"
	      "      # The window, nodes and SMMUs of these GPUs (VEP 199, KubeVirt 1.9). It\n"
	      "      # admits no machine without the two gates above.\n"
	      "      - GraceIOVirtualization\n"
	      "    permittedHostDevices:\n"
	      "      pciHostDevices:\n", o->out);
	for (i = 0; i < p->gpus; i++) {
		if (is_repeated(p, i))
			continue;
		g_autofree char *name = resource(p->device[i].pci);

		if (!is_listed(p->device[i].pci))
			fputs("      # KubeVirt 1.9 does not have this id in its list of these GPUs, and makes\n"
			      "      # no window, nodes and SMMU for it. Later versions may: see\n"
			      "      # additionalPCIDeviceIDs in VEP 199.\n", o->out);
		fprintf(o->out,
			"      - pciVendorSelector: \"%04X:%04X\"\n"
			"        # The name that NVIDIA's kubevirt-gpu-device-plugin gives it: see\n"
			"        # \"kubectl describe node\".\n"
			"        resourceName: \"%s\"\n"
			"        # KubeVirt's own device plugin takes only GPUs whose driver is vfio-pci.\n"
			"        # NVIDIA's takes those of " DRIVER_NAME ", too.\n"
			"        externalResourceProvider: true\n",
			p->device[i].pci->vendor, p->device[i].pci->device, name);
	}
}

static void reason(const struct guest_output *o, const char *prefix, enum why why)
{
	if (o->plan->why[why])
		guest_comment(o->out, prefix, o->plan->why[why]);
}

static void print_machine(const struct guest_output *o)
{
	const struct guest_plan *p = o->plan;
	g_autofree char *memory = guest_size(p->memory), *page = guest_size(p->hugepages);
	size_t i;

	fprintf(o->out, "apiVersion: kubevirt.io/v1\n"
		"kind: VirtualMachine\n"
		"metadata:\n"
		"  name: \"%s\"\n"
		"spec:\n"
		"  runStrategy: Halted\n"
		"  template:\n"
		"    spec:\n"
		"      architecture: arm64\n"
		"      domain:\n"
		"        machine:\n"
		"          type: virt\n"
		"        firmware:\n"
		"          bootloader:\n"
		"            efi:\n"
		"              secureBoot: false\n"
		"        cpu:\n", p->name);
	reason(o, "          # ", WHY_CPU);
	fputs("          model: host-passthrough\n", o->out);
	reason(o, "          # ", WHY_CPUS);
	fprintf(o->out, "          sockets: %u\n"
		"          cores: %u\n"
		"          # VEP 199 admits no machine without these two.\n"
		"          dedicatedCpuPlacement: true\n"
		"          numa:\n"
		"            guestMappingPassthrough: {}\n"
		"        memory:\n", p->sockets, p->cpus / p->sockets);
	reason(o, "          # ", WHY_MEMORY);
	fprintf(o->out, "          guest: %si\n"
		"          # guestMappingPassthrough needs huge pages.\n"
		"          hugepages:\n"
		"            pageSize: %si\n"
		"        devices:\n"
		"          autoattachGraphicsDevice: false\n"
		"          # vfio locks all memory, so a balloon can't return any.\n"
		"          autoattachMemBalloon: false\n"
		"          hostDevices:\n", memory, page);
	for (i = 0; i < p->gpus; i++) {
		g_autofree char *name = resource(p->device[i].pci);

		fprintf(o->out, "          # %s on this node\n          - name: gpu%zu\n            deviceName: \"%s\"\n",
			p->device[i].pci->address, i, name);
	}
	fprintf(o->out, "          disks:\n"
		"          - name: root\n"
		"            disk:\n"
		"              bus: virtio\n"
		"          interfaces:\n"
		"          - name: default\n"
		"            masquerade: {}\n"
		"      networks:\n"
		"      - name: default\n"
		"        pod: {}\n"
		"      volumes:\n"
		"      - name: root\n"
		"        persistentVolumeClaim:\n"
		"          claimName: \"%s\"\n", p->disk);
}

/* What virt-launcher makes by itself. */
static void print_derived(const struct guest_output *o)
{
	const struct guest_plan *p = o->plan;
	g_autofree char *window = guest_size(p->window_min), *text = NULL;
	size_t i;

	text = g_strdup_printf("On this node, virt-launcher should make of it: a 64-bit PCI hole of %s or more; %zu NUMA cells, and %d without memory for each GPU; an accelerated SMMUv3 on each bus with a GPU.",
			       window, p->cpu_nodes, NODES_OF_GPU);
	guest_comment(o->out, "# ", text);
	for (i = 0; i < p->gpus; i++)
		fprintf(o->out, "#   %s: nodes %zu to %zu, SMMU %s\n", p->device[i].pci->address,
			p->device[i].first_node, p->device[i].first_node + NODES_OF_GPU - 1,
			p->bus[p->device[i].bus].smmu);
}

void guest_print_kubevirt(const struct guest_output *o)
{
	fputs("# Made by \"" PROGRAM " guest\", version " VERSION ". Merge the first document into your\n"
	      "# KubeVirt; the second is a virtual machine. Bind the GPUs of each node with\n"
	      "# \"" PROGRAM " bind --persist\": KubeVirt does not, and NVIDIA's GPU operator must not\n"
	      "# (its VFIO manager would undo it).\n", o->out);
	guest_head(o, "# ", guest_comment);
	print_operator(o);
	fputs("---\n", o->out);
	print_derived(o);
	print_machine(o);
}
