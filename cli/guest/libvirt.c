// SPDX-License-Identifier: GPL-2.0-only
/*
 * A guest as a domain of libvirt, or as the elements that a domain needs in
 * addition. qemu:commandline has only what this libvirt has no element for.
 */
#include <glib.h>
#include <stdlib.h>

#include "guest/formats.h"

/* Without it in <domain>, <qemu:commandline> is no XML. */
#define QEMU_NAMESPACE "xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'"

/* ---- text of XML ---------------------------------------------------------------------------- */

/* XML forbids "--" in a comment. */
static void comment(FILE *out, const char *prefix, const char *text)
{
	g_autofree char *words = replaced(text, "--", "option ");
	g_autofree char *all = g_strdup_printf("<!-- %s -->", words);

	guest_comment(out, prefix, all);
}

static void why(const struct guest_output *o, const char *prefix, enum why which)
{
	if (o->plan->why[which])
		comment(o->out, prefix, o->plan->why[which]);
}

/* Every text that is not a part of fmt is escaped. */
static void G_GNUC_PRINTF(2, 3) print(const struct guest_output *o, const char *fmt, ...)
{
	g_autofree char *text = NULL;
	va_list args;

	va_start(args, fmt);
	text = g_markup_vprintf_escaped(fmt, args);
	va_end(args);
	fputs(text, o->out);
}

/* ---- parts ---------------------------------------------------------------------------------- */

/* The index of a device's root port: pcie-root, the expanders, then the ports. */
static size_t port_index(const struct guest_plan *p, size_t device)
{
	return 1 + p->buses + device;
}

static bool has_nodes(const struct guest_plan *p)
{
	return vmm_has(p->libvirt, LIBVIRT_NODESET);
}

/* Whether QEMU's properties differ from what libvirt sets. */
static bool needs_override(const struct guest_plan *p)
{
	bool needed = p->hide_ats;
	size_t i;

	for (i = 0; i < p->devices; i++)
		needed = needed || p->device[i].port_speed;
	return needed;
}

/* Whether there are elements of qemu:. */
static bool needs_namespace(const struct guest_plan *p)
{
	return !has_nodes(p) || needs_override(p);
}

static void print_backing(const struct guest_output *o)
{
	const struct guest_plan *p = o->plan;
	size_t i;

	if (p->hugepages) {
		why(o, "  ", WHY_BACKEND);
		print(o, "  <memoryBacking>\n    <hugepages>\n      <page size='%llu' unit='KiB'/>\n    </hugepages>\n  </memoryBacking>\n",
		      (unsigned long long)(p->hugepages >> 10));
	}
	if (p->node[0].host < 0)
		return;
	if (!p->hugepages)
		why(o, "  ", WHY_BACKEND);
	fputs("  <numatune>\n", o->out);
	for (i = 0; i < p->cpu_nodes; i++)
		print(o, "    <memnode cellid='%zu' mode='%s' nodeset='%d'/>\n", i,
		      p->pin ? "strict" : "preferred", p->node[i].host);
	fputs("  </numatune>\n", o->out);
}

static void print_pinning(const struct guest_output *o)
{
	const struct guest_plan *p = o->plan;
	const struct guest_node *n;
	unsigned int cpu;

	if (!p->pin)
		return;
	why(o, "  ", WHY_PIN);
	fputs("  <cputune>\n", o->out);
	for (n = p->node; n < p->node + p->cpu_nodes; n++)
		for (cpu = n->first_cpu; cpu < n->first_cpu + n->cpus; cpu++)
			print(o, "    <vcpupin vcpu='%u' cpuset='%s'/>\n", cpu, n->host_cpus);
	print(o, "    <emulatorpin cpuset='%s'/>\n  </cputune>\n", p->host_cpus);
}

static void print_distances(const struct guest_output *o, size_t a)
{
	const struct guest_plan *p = o->plan;
	size_t b;

	if (!p->distance || !has_nodes(p)) {
		fputs("/>\n", o->out);
		return;
	}
	fputs(">\n        <distances>\n", o->out);
	for (b = 0; b < p->nodes; b++)
		print(o, "          <sibling id='%zu' value='%u'/>\n", b,
		      p->distance[a * p->nodes + b]);
	fputs("        </distances>\n      </cell>\n", o->out);
}

static void print_cpu(const struct guest_output *o)
{
	const struct guest_plan *p = o->plan;
	const struct guest_node *n;
	size_t i;

	why(o, "  ", WHY_CPU);
	fputs("  <cpu mode='host-passthrough'>\n", o->out);
	/* libvirt's default is a socket for each processor. */
	print(o, "    <topology sockets='%u' cores='%u' threads='1'/>\n",
	      p->sockets, p->cpus / p->sockets);
	why(o, "    ", WHY_NODES);
	if (has_nodes(p))
		why(o, "    ", WHY_DISTANCES);
	fputs("    <numa>\n", o->out);
	for (i = 0; i < (has_nodes(p) ? p->nodes : p->cpu_nodes); i++) {
		n = &p->node[i];
		print(o, "      <cell id='%zu'", i);
		if (!n->gpu)
			print(o, " cpus='%u-%u'", n->first_cpu, n->first_cpu + n->cpus - 1);
		print(o, " memory='%llu' unit='KiB'", (unsigned long long)(n->memory >> 10));
		print_distances(o, i);
	}
	fputs("    </numa>\n  </cpu>\n", o->out);
}

static void print_buses(const struct guest_output *o)
{
	const struct guest_plan *p = o->plan;
	size_t i;

	if (p->window_set && has_nodes(p)) {
		why(o, "    ", WHY_WINDOW);
		print(o, "    <controller type='pci' index='0' model='pcie-root'>\n      <pcihole64 unit='KiB'>%llu</pcihole64>\n    </controller>\n",
		      (unsigned long long)(p->window >> 10));
	} else {
		fputs("    <controller type='pci' index='0' model='pcie-root'/>\n", o->out);
	}
	why(o, "    ", WHY_BUS);
	for (i = 0; i < p->buses; i++)
		print(o, "    <controller type='pci' index='%zu' model='pcie-expander-bus'>\n      <target busNr='%u'>\n        <node>%zu</node>\n      </target>\n    </controller>\n",
		      i + 1, p->bus[i].number, p->bus[i].node);
	why(o, "    ", WHY_SMMU);
	for (i = 0; i < p->buses; i++)
		if (p->bus[i].smmu)
			print(o, "    <iommu model='smmuv3'>\n      <driver pciBus='%zu' accel='on' ats='on' ril='off' ssidsize='20' oas='48'/>\n    </iommu>\n",
			      i + 1);
}

static void print_device(const struct guest_output *o, size_t i)
{
	const struct guest_plan *p = o->plan;
	const struct guest_device *g = &p->device[i];
	unsigned int domain = 0, bus = 0, slot = 0, function = 0;

	sscanf(g->pci->address, "%x:%x:%x.%x", &domain, &bus, &slot, &function);
	if (!i)
		why(o, "    ", WHY_PORT);
	print(o, "    <controller type='pci' index='%zu' model='pcie-root-port'", port_index(p, i));
	if (p->buses)
		print(o, ">\n      <address type='pci' domain='0x0000' bus='0x%02zx' slot='0x%02zx' function='0x0'/>\n    </controller>\n",
		      g->bus + 1, i);
	else
		fputs("/>\n", o->out);
	if (!i) {
		why(o, "    ", WHY_GPU);
		comment(o->out, "    ",
			"managed='no': the GPU stays bound to the driver, as bind persist has it");
		why(o, "    ", WHY_IOMMUFD);
	} else if (i == p->gpus) {
		why(o, "    ", WHY_DEVICE);
	}
	fputs("    <hostdev mode='subsystem' type='pci' managed='no'>\n", o->out);
	if (p->iommufd)
		fputs("      <driver iommufd='yes'/>\n", o->out);
	print(o, "      <source>\n        <address domain='0x%04x' bus='0x%02x' slot='0x%02x' function='0x%x'/>\n      </source>\n      <alias name='ua-%s'/>\n      <rom bar='off'/>\n",
	      domain, bus, slot, function, g->id);
	if (has_nodes(p) && i < p->gpus)
		print(o, "      <acpi nodeset='%zu-%zu'/>\n", g->first_node,
		      g->first_node + NODES_OF_GPU - 1);
	print(o, "      <address type='pci' domain='0x0000' bus='0x%02zx' slot='0x00' function='0x0'/>\n    </hostdev>\n",
	      port_index(p, i));
}

static void G_GNUC_PRINTF(3, 4) print_argument(const struct guest_output *o, const char *option,
					     const char *fmt, ...)
{
	g_autofree char *text = NULL;
	va_list args;

	va_start(args, fmt);
	text = g_strdup_vprintf(fmt, args);
	va_end(args);
	print(o, "    <qemu:arg value='%s'/>\n    <qemu:arg value='%s'/>\n", option, text);
}

/* What this libvirt has no elements for. */
static void print_commandline(const struct guest_output *o)
{
	const struct guest_plan *p = o->plan;
	g_autofree char *text = NULL, *size = guest_size(p->window);
	size_t i, a, b;

	if (has_nodes(p))
		return;
	text = g_strdup_printf("What follows has no elements in %s; %s has them: cells without memory, <acpi nodeset>, <pcihole64>",
			       p->libvirt->path, vmm_since(LIBVIRT_NODESET));
	comment(o->out, "  ", text);
	fputs("  <qemu:commandline>\n", o->out);
	if (p->window_set) {
		why(o, "    ", WHY_WINDOW);
		print_argument(o, "-machine", "highmem-mmio-size=%s", size);
	}
	for (i = p->cpu_nodes; i < p->nodes; i++)
		print_argument(o, "-numa", "node,nodeid=%zu", i);
	if (p->distance)
		why(o, "    ", WHY_DISTANCES);
	for (a = 0; p->distance && a < p->nodes; a++)
		for (b = a + 1; b < p->nodes; b++)
			print_argument(o, "-numa", "dist,src=%zu,dst=%zu,val=%u", a, b,
				       p->distance[a * p->nodes + b]);
	why(o, "    ", WHY_INITIATOR);
	for (i = p->cpu_nodes; i < p->nodes; i++)
		print_argument(o, "-object", "acpi-generic-initiator,id=gi%zu,pci-dev=ua-gpu%zu,node=%zu",
			       i - p->cpu_nodes, (i - p->cpu_nodes) / NODES_OF_GPU, i);
	fputs("  </qemu:commandline>\n", o->out);
}

static void G_GNUC_PRINTF(4, 5) print_property(const struct guest_output *o, const char *name,
					     const char *value, const char *alias, ...)
{
	va_list args;
	g_autofree char *text = NULL;

	va_start(args, alias);
	text = g_strdup_vprintf(alias, args);
	va_end(args);
	print(o, "    <qemu:device alias='%s'>\n      <qemu:frontend>\n        <qemu:property name='%s' type='string' value='%s'/>\n      </qemu:frontend>\n    </qemu:device>\n",
	      text, name, value);
}

static void print_override(const struct guest_output *o)
{
	const struct guest_plan *p = o->plan;
	const struct guest_device *g;
	char speed[16];
	size_t i;

	if (!needs_override(p))
		return;
	why(o, "  ", WHY_ATS);
	fputs("  <qemu:override>\n", o->out);
	for (i = 0; i < p->devices; i++) {
		g = &p->device[i];
		if (p->hide_ats && i < p->gpus)
			print_property(o, "ats", "off", "ua-%s", g->id);
		if (g->port_speed) {
			snprintf(speed, sizeof(speed), "%u", g->port_speed);
			/* libvirt's own name of the controller. */
			print_property(o, "x-speed", speed, "pci.%zu", port_index(p, i));
		}
	}
	fputs("  </qemu:override>\n", o->out);
}

/* ---- the whole ------------------------------------------------------------------------------ */

static void print_begin(const struct guest_output *o)
{
	const struct guest_plan *p = o->plan;

	fputs(needs_namespace(p) ? "<domain type='kvm' " QEMU_NAMESPACE ">\n" : "<domain type='kvm'>\n",
	      o->out);
	print(o, "  <name>%s</name>\n", p->name);
	why(o, "  ", WHY_MEMORY);
	print(o, "  <memory unit='KiB'>%llu</memory>\n", (unsigned long long)(p->memory >> 10));
	why(o, "  ", WHY_CPUS);
	print(o, "  <vcpu>%u</vcpu>\n", p->cpus);
	fputs("  <!-- UEFI, without which the guest has no ACPI. -->\n"
	      "  <os firmware='efi'>\n"
	      "    <type arch='aarch64' machine='virt'>hvm</type>\n"
	      "    <firmware>\n", o->out);
	if (p->secure_boot)
		fputs("      <feature enabled='yes' name='enrolled-keys'/>\n", o->out);
	print(o, "      <feature enabled='%s' name='secure-boot'/>\n    </firmware>\n",
	      p->secure_boot ? "yes" : "no");
	why(o, "    ", WHY_VARS);
	if (p->vars)
		print(o, "    <nvram>%s</nvram>\n", p->vars);
	fputs("    <boot dev='hd'/>\n"
	      "  </os>\n"
	      "  <features>\n"
	      "    <acpi/>\n"
	      "    <gic version='3'/>\n", o->out);
}

static void print_emulator(const struct guest_output *o)
{
	fputs("    <!-- the QEMU that this is made for; a host may have several -->\n", o->out);
	print(o, "    <emulator>%s</emulator>\n", o->plan->qemu->path);
}

static void print_end(const struct guest_output *o)
{
	const struct guest_plan *p = o->plan;
	bool device = p->disk_device;

	why(o, "    ", WHY_DISK);
	print(o, "    <disk type='%s' device='disk'>\n      <driver name='qemu' type='%s'/>\n      <source %s='%s'/>\n      <target dev='vda' bus='virtio'/>\n    </disk>\n",
	      device ? "block" : "file", p->disk_format, device ? "dev" : "file", p->disk);
	if (p->seed) {
		why(o, "    ", WHY_SEED);
		print(o, "    <disk type='file' device='disk'>\n      <driver name='qemu' type='raw'/>\n      <source file='%s'/>\n      <target dev='vdb' bus='virtio'/>\n      <readonly/>\n    </disk>\n",
		      p->seed);
	}
	if (p->ssh_port) {
		why(o, "    ", WHY_NETWORK);
		print(o, "    <interface type='user'>\n      <backend type='passt'/>\n      <portForward proto='tcp' address='127.0.0.1'>\n        <range start='%u' to='22'/>\n      </portForward>\n      <model type='virtio'/>\n    </interface>\n",
		      p->ssh_port);
	} else {
		fputs("    <!-- The network, as for any guest; for example\n"
		      "    <interface type='network'>\n"
		      "      <source network='default'/>\n"
		      "      <model type='virtio'/>\n"
		      "    </interface>\n"
		      "    -->\n", o->out);
	}
	why(o, "    ", WHY_TPM);
	if (p->tpm)
		fputs("    <tpm model='tpm-tis'>\n"
		      "      <backend type='emulator' version='2.0'/>\n"
		      "    </tpm>\n", o->out);
	fputs("    <console type='pty'/>\n"
	      "    <rng model='virtio'>\n"
	      "      <backend model='random'>/dev/urandom</backend>\n"
	      "    </rng>\n"
	      "    <!-- vfio locks all of the guest's memory, so a balloon can't return\n"
	      "         any. -->\n"
	      "    <memballoon model='none'/>\n", o->out);
}

void guest_print_libvirt(const struct guest_output *o)
{
	const struct guest_plan *p = o->plan;
	size_t i;

	fputs("<!-- Made by \"" PROGRAM " guest\", version " VERSION ". -->\n", o->out);
	guest_head(o, "", comment);
	if (o->fragment) {
		g_autofree char *text = g_strdup_printf("Elements to add to a domain of your own, each to its parent. They are for %u processors (<vcpu>). Change the indexes of the controllers if yours has others.%s",
				 p->cpus, !needs_namespace(p) ? "" :
				 " The elements of qemu: need the attribute " QEMU_NAMESPACE " of <domain>.");

		comment(o->out, "", text);
	} else {
		print_begin(o);
	}
	if (p->ras) {
		why(o, "    ", WHY_RAS);
		fputs(o->fragment ? "  <features>\n    <ras state='on'/>\n  </features>\n" :
				    "    <ras state='on'/>\n", o->out);
	}
	if (!o->fragment)
		fputs("  </features>\n", o->out);
	print_backing(o);
	print_pinning(o);
	print_cpu(o);
	fputs("  <devices>\n", o->out);
	if (!o->fragment && p->qemu)
		print_emulator(o);
	print_buses(o);
	for (i = 0; i < p->devices; i++)
		print_device(o, i);
	if (!o->fragment)
		print_end(o);
	fputs("  </devices>\n", o->out);
	print_commandline(o);
	print_override(o);
	if (!o->fragment)
		fputs("</domain>\n", o->out);
}
