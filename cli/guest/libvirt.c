// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a domain of libvirt gets for its GPUs. qemu:commandline has only what this
 * libvirt has no element for. Texts are indented as libvirt does it.
 */
#include <stdlib.h>
#include <string.h>

#include "guest/domain.h"
#include "system/output.h"

/* A domain that is being written. */
struct addition {
	struct domain now;
	const struct guest_plan *plan;
	GString *words;		/* for <metadata>, such as paths of elements: see domain_mark() */
};

static void G_GNUC_PRINTF(2, 3) add(GString *text, const char *fmt, ...)
{
	g_autofree char *line = NULL;
	va_list args;

	va_start(args, fmt);
	line = g_markup_vprintf_escaped(fmt, args);
	va_end(args);
	g_string_append(text, line);
}

/* Takes the text of a domain. What is added is well-formed, so it stays one. */
static void begin(struct addition *a, char *text)
{
	if (domain_begin(&a->now, text))
		abort();	/* LCOV_EXCL_LINE: a mistake in this program */
}

/* Replaces a part of the text. */
static void replace(struct addition *a, size_t at, size_t length, const char *by)
{
	char *text = g_strdup_printf("%.*s%s%s", (int)at, a->now.text, by, a->now.text + at + length);

	domain_end(&a->now);
	begin(a, text);
}

/* Adds lines, each after a newline, at an element's end. */
static void append(struct addition *a, const struct element *e, const char *lines)
{
	const struct element *parent;
	g_autofree char *text = NULL;
	size_t at = e->close;
	int indent = 0;

	if (e->inner < e->end) {
		while (g_ascii_isspace(a->now.text[at - 1]))
			at--;
		replace(a, at, 0, lines);
		return;
	}
	for (parent = e->parent; parent; parent = parent->parent)
		indent += 2;
	/* <name/> */
	text = g_strdup_printf(">%s\n%*s</%s>", lines, indent, "", e->name);
	replace(a, e->end - 2, 2, text);
}

static void add_word(struct addition *a, const char *word)
{
	g_string_append_printf(a->words, "%s%s", a->words->len ? " " : "", word);
}

/* Makes an element of the domain, with these attributes, if there is none. */
static void provide(struct addition *a, const char *name, const char *attributes)
{
	g_autofree char *text = NULL;

	if (xml_find(a->now.root, name))
		return;
	text = g_strdup_printf("\n  <%s%s/>", name, attributes);
	append(a, a->now.root, text);
	add_word(a, name);
}

/* Adds lines to an element of the domain, which is made if there is none. */
static void append_to(struct addition *a, const char *name, const char *lines)
{
	if (!*lines)
		return;
	provide(a, name, "");
	append(a, xml_find(a->now.root, name), lines);
}

/* ---- nodes ---------------------------------------------------------------------------------- */

static bool has_nodes(const struct guest_plan *p)
{
	return vmm_has(p->libvirt, LIBVIRT_NODESET);
}

static void add_cells(GString *text, const struct guest_plan *p, size_t first)
{
	size_t i, k;

	for (i = first; i < (has_nodes(p) ? p->nodes : p->cpu_nodes); i++) {
		add(text, "\n      <cell id='%zu'", i);
		if (p->node[i].cpus)
			add(text, " cpus='%s'", p->node[i].cpus);
		add(text, " memory='%llu' unit='KiB'", (unsigned long long)(p->node[i].memory >> 10));
		if (!p->distance || !has_nodes(p)) {
			add(text, "/>");
			continue;
		}
		add(text, ">\n        <distances>");
		for (k = 0; k < p->nodes; k++)
			add(text, "\n          <sibling id='%zu' value='%u'/>", k,
			    p->distance[i * p->nodes + k]);
		add(text, "\n        </distances>\n      </cell>");
	}
}

static void add_nodes(struct addition *a)
{
	g_autoptr(GString) text = g_string_new(NULL);
	const struct element *numa = xml_find(a->now.root, "cpu/numa");

	/* libvirt takes the distances to the domain's own cells for those from there, too. */
	if (numa) {
		add_cells(text, a->plan, a->plan->cpu_nodes);
		append(a, numa, text->str);
		return;
	}
	add(text, "\n    <numa>");
	add_cells(text, a->plan, 0);
	add(text, "\n    </numa>");
	provide(a, "cpu", " mode='host-passthrough'");
	add_word(a, "cpu/numa");
	append_to(a, "cpu", text->str);
}

static void add_places(struct addition *a)
{
	g_autoptr(GString) memory = g_string_new(NULL), pins = g_string_new(NULL);
	const struct guest_plan *p = a->plan;
	size_t i;

	for (i = 0; p->placed && i < p->cpu_nodes; i++)
		add(memory, "\n    <memnode cellid='%zu' mode='%s' nodeset='%d'/>", i,
		    p->pin ? "strict" : "preferred", p->node[i].host);
	if (memory->len && !xml_find(a->now.root, "numatune")) {
		append_to(a, "numatune", memory->str);
		add_word(a, "numatune/memnode");
	}
	if (!p->pin)
		return;
	for (i = 0; i < p->cpu_pins->len; i++)
		add(pins, "\n    <vcpupin vcpu='%zu' cpuset='%s'/>", i, (char *)p->cpu_pins->pdata[i]);
	if (!xml_find(a->now.root, "cputune/emulatorpin")) {
		add(pins, "\n    <emulatorpin cpuset='%s'/>", p->host_cpus);
		add_word(a, "cputune/emulatorpin");
	}
	append_to(a, "cputune", pins->str);
	add_word(a, "cputune/vcpupin");
}

/* ---- devices -------------------------------------------------------------------------------- */

static void add_window(struct addition *a)
{
	const struct guest_plan *p = a->plan;
	g_autofree char *text = NULL;

	if (!p->window_set || !has_nodes(p) || xml_find(domain_pcie_root(&a->now), "pcihole64"))
		return;
	if (!domain_pcie_root(&a->now)) {
		append_to(a, "devices", "\n    <controller type='pci' index='0' model='pcie-root'/>");
		add_word(a, "root");
	}
	text = g_strdup_printf("\n      <pcihole64 unit='KiB'>%llu</pcihole64>",
			       (unsigned long long)(p->window >> 10));
	append(a, domain_pcie_root(&a->now), text);
	add_word(a, "window");
}

/*
 * The next number that no controller for PCI has. libvirt's own, which it adds to what
 * this program prints, have other numbers, so a second time gives the same.
 */
static unsigned int free_number(const struct addition *a, unsigned int number)
{
	g_autofree char *text = g_strdup_printf("%u", ++number);
	const struct element *e = xml_find(a->now.root, "devices/controller");

	while (e && !(xml_is(e, "type", "pci") && xml_is(e, "index", text)))
		e = xml_next(e);
	return e ? free_number(a, number) : number;
}

static void add_smmu(GString *text, const struct guest_plan *p, unsigned int bus)
{
	add(text, "\n    <iommu model='smmuv3'>\n      <driver pciBus='%u' accel='on'", bus);
	if (!vmm_has(p->qemu, QEMU_SMMU_DERIVES))
		add(text, " ats='on' ril='off' ssidsize='20' oas='48'");
	add(text, "/>\n    </iommu>");
}

static void add_hostdev(GString *text, const struct guest_plan *p, size_t i, unsigned int port)
{
	const struct guest_device *g = &p->device[i];
	unsigned int domain = 0, bus = 0, slot = 0, function = 0;

	sscanf(g->pci->address, "%x:%x:%x.%x", &domain, &bus, &slot, &function);
	/* The GPU stays bound to the driver. */
	add(text, "\n    <hostdev mode='subsystem' type='pci' managed='no'>");
	if (p->iommufd)
		add(text, "\n      <driver iommufd='yes'/>");
	add(text, "\n      <source>\n        <address domain='0x%04x' bus='0x%02x' slot='0x%02x' function='0x%x'/>\n      </source>\n      <alias name='" ALIAS "%s'/>\n      <rom bar='off'/>",
	    domain, bus, slot, function, g->id);
	if (has_nodes(p) && i < p->gpus)
		add(text, "\n      <acpi nodeset='%zu-%zu'/>", g->first_node,
		    g->first_node + NODES_OF_GPU - 1);
	add(text, "\n      <address type='pci' domain='0x0000' bus='0x%02x' slot='0x00' function='0x0'/>\n    </hostdev>",
	    port);
}

static void add_devices(struct addition *a)
{
	g_autoptr(GString) text = g_string_new(NULL), rest = g_string_new(NULL);
	unsigned int bus[GUEST_DEVICES_MAX], slot[GUEST_DEVICES_MAX] = { }, number = 0;
	const struct guest_plan *p = a->plan;
	size_t i;

	for (i = 0; i < p->buses; i++) {
		bus[i] = number = free_number(a, number);
		add(text, "\n    <controller type='pci' index='%u' model='pcie-expander-bus'>\n      <target busNr='%u'>\n        <node>%zu</node>\n      </target>\n      <alias name='" ALIAS "bus%zu'/>\n    </controller>",
		    bus[i], p->bus[i].number, p->bus[i].node, i);
		if (p->bus[i].smmu)
			add_smmu(rest, p, bus[i]);
	}
	for (i = 0; i < p->devices; i++) {
		number = free_number(a, number);
		add(text, "\n    <controller type='pci' index='%u' model='pcie-root-port'>\n      <alias name='" ALIAS "port%zu'/>",
		    number, i);
		if (p->buses)
			add(text, "\n      <address type='pci' domain='0x0000' bus='0x%02x' slot='0x%02x' function='0x0'/>",
			    bus[p->device[i].bus], slot[p->device[i].bus]++);
		add(text, "\n    </controller>");
		add_hostdev(rest, p, i, number);
	}
	g_string_append(text, rest->str);
	append_to(a, "devices", text->str);
}

/* ---- elements of qemu: ---------------------------------------------------------------------- */

static void G_GNUC_PRINTF(3, 4) add_argument(GString *text, const char *option, const char *fmt, ...)
{
	g_autofree char *value = NULL;
	va_list args;

	va_start(args, fmt);
	value = g_strdup_vprintf(fmt, args);
	va_end(args);
	add(text, "\n    <qemu:arg value='%s'/>\n    <qemu:arg value='%s'/>", option, value);
}

/* What this libvirt has no elements for. */
static void add_arguments(GString *text, const struct guest_plan *p)
{
	g_autofree char *size = guest_size(p->window);
	size_t i, k;

	if (has_nodes(p))
		return;
	if (p->window_set)
		add_argument(text, "-machine", "highmem-mmio-size=%s", size);
	for (i = p->cpu_nodes; i < p->nodes; i++)
		add_argument(text, "-numa", "node,nodeid=%zu", i);
	for (i = 0; p->distance && i < p->nodes; i++)
		for (k = i + 1; k < p->nodes; k++)
			add_argument(text, "-numa", "dist,src=%zu,dst=%zu,val=%u", i, k,
				     p->distance[i * p->nodes + k]);
	for (i = p->cpu_nodes; i < p->nodes; i++)
		add_argument(text, "-object", "acpi-generic-initiator,id=" ALIAS "gi%zu,pci-dev=" ALIAS "%s,node=%zu",
			     i - p->cpu_nodes, p->node[i].gpu->id, i);
}

static void add_property(GString *text, const char *alias, size_t i, const char *name,
			 const char *value)
{
	add(text, "\n    <qemu:device alias='" ALIAS "%s%zu'>\n      <qemu:frontend>\n        <qemu:property name='%s' type='string' value='%s'/>\n      </qemu:frontend>\n    </qemu:device>",
	    alias, i, name, value);
}

/* What libvirt sets otherwise. */
static void add_overrides(GString *text, const struct guest_plan *p)
{
	char speed[16];
	size_t i;

	for (i = 0; i < p->devices; i++) {
		if (p->hide_ats && i < p->gpus)
			add_property(text, "gpu", i, "ats", "off");
		snprintf(speed, sizeof(speed), "%u", p->device[i].port_speed);
		if (p->device[i].port_speed)
			add_property(text, "port", i, "x-speed", speed);
	}
}

static void add_qemu(struct addition *a)
{
	g_autoptr(GString) arguments = g_string_new(NULL), overrides = g_string_new(NULL);

	add_arguments(arguments, a->plan);
	add_overrides(overrides, a->plan);
	if ((arguments->len || overrides->len) && !xml_get(a->now.root, "xmlns:qemu")) {
		replace(a, a->now.root->inner - 1, 0, QEMU_NAMESPACE);
		add_word(a, "xmlns");
	}
	if (arguments->len)
		add_word(a, "arguments");
	append_to(a, "qemu:commandline", arguments->str);
	append_to(a, "qemu:override", overrides->str);
}

/* ---- the whole ------------------------------------------------------------------------------ */

char *domain_with(const struct domain *bare, struct domain *was, const struct guest_plan *plan)
{
	struct addition a = { .plan = plan, .words = g_string_new(NULL) };
	g_autofree char *metadata = NULL;
	char *text;

	begin(&a, g_strdup(bare->text));
	if (plan->ras && !xml_find(a.now.root, "features/ras")) {
		append_to(&a, "features", "\n    <ras state='on'/>");
		add_word(&a, "features/ras");
	}
	add_nodes(&a);
	add_places(&a);
	add_window(&a);
	add_devices(&a);
	add_qemu(&a);
	provide(&a, "metadata", "");
	metadata = g_strdup_printf("\n    <" METADATA " xmlns:nvgrace-gpu='" METADATA_NAMESPACE "' added='%s'/>",
				   a.words->str);
	append_to(&a, "metadata", metadata);
	if (domain_mark(&a.now) == domain_mark(was) && xml_covers(a.now.root, was->root))
		text = g_strdup(was->text);
	else
		text = g_strdup(a.now.text);
	domain_end(&a.now);
	g_string_free(a.words, TRUE);
	return text;
}
