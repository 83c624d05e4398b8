// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reads a domain of libvirt, and takes out what this program has added: see domain.h.
 */
#include <stdlib.h>
#include <string.h>

#include "guest/domain.h"
#include "plan/steps.h"
#include "system/output.h"

enum { CELLS_MAX = 1024 };

char *domain_begin(struct domain *d, char *text)
{
	char *error = NULL;

	*d = (struct domain){ .text = text, .root = xml_read(text, &error) };
	if (d->root && strcmp(d->root->name, "domain")) {
		error = g_strdup_printf("its root element is <%s>, and that of a domain is <domain>",
					d->root->name);
		xml_free(d->root);
		d->root = NULL;
	}
	if (!d->root)
		g_clear_pointer(&d->text, g_free);
	return error;
}

void domain_end(struct domain *d)
{
	xml_free(d->root);
	g_free(d->text);
}

/* ---- what was added ------------------------------------------------------------------------- */

/* Numbers of cells or buses. */
struct numbers {
	bool has[CELLS_MAX];
};

static void add_number(unsigned long number, void *data)
{
	struct numbers *n = data;

	if (number < CELLS_MAX)
		n->has[number] = true;
}

static bool has_number(const struct numbers *n, const char *text)
{
	uint64_t number;

	return text && parse_u64(text, &number) && number < CELLS_MAX && n->has[number];
}

/* Marks an element that goes; how many these are. */
static size_t mark(struct element *e, bool goes)
{
	if (e)
		e->mark = goes ? XML_GOES : XML_STAYS;
	return e && goes;
}

static bool is_ours(const char *alias)
{
	return alias && g_str_has_prefix(alias, ALIAS);
}

static size_t mark_devices(struct element *devices, struct numbers *cells)
{
	struct numbers buses = { };
	size_t count = 0;
	struct element *e;

	for (e = devices ? devices->child : NULL; e; e = e->next) {
		if (!mark(e, is_ours(xml_get(xml_find(e, "alias"), "name"))))
			continue;
		count++;
		each_number(xml_get(xml_find(e, "acpi"), "nodeset"), add_number, cells);
		each_number(xml_get(e, "index"), add_number, &buses);
	}
	for (e = xml_find(devices, "iommu"); e; e = xml_next(e))
		count += mark(e, has_number(&buses, xml_get(xml_find(e, "driver"), "pciBus")));
	return count;
}

/* Of a cell of the domain's own, libvirt lists the distances to those that were added. */
static void mark_siblings(struct element *cell, const struct numbers *added)
{
	struct element *distances = xml_find(cell, "distances"), *s;
	size_t left = 0, marked = 0;

	for (s = xml_find(distances, "sibling"); s; s = xml_next(s)) {
		marked += mark(s, has_number(added, xml_get(s, "id")));
		left += !s->mark && g_strcmp0(xml_get(s, "id"), xml_get(cell, "id"));
	}
	mark(distances, marked && !left);
}

static size_t mark_cells(struct element *numa, const struct numbers *added)
{
	struct element *cell;
	size_t count = 0;

	for (cell = xml_find(numa, "cell"); cell; cell = xml_next(cell)) {
		count += mark(cell, has_number(added, xml_get(cell, "id")));
		if (!cell->mark)
			mark_siblings(cell, added);
	}
	return count;
}

/*
 * Marks the pairs of QEMU's arguments that this program adds; how many there are. It
 * does not add to a domain that has such arguments of its own.
 */
static size_t mark_arguments(struct element *commandline)
{
	static const char *const begins[][2] = {
		{ "-machine", "highmem-mmio-size=" }, { "-numa", "node,nodeid=" }, { "-numa", "dist," },
		{ "-object", "acpi-generic-initiator," },
	};
	struct element *a, *b;
	const char *value;
	size_t count = 0, i;

	for (a = xml_find(commandline, "qemu:arg"); a && (b = xml_next(a)); a = b) {
		value = xml_get(b, "value");
		for (i = 0; value && i < G_N_ELEMENTS(begins); i++)
			if (xml_is(a, "value", begins[i][0]) && g_str_has_prefix(value, begins[i][1]))
				count += mark(a, true) && mark(b, true);
	}
	return count;
}

static size_t mark_overrides(struct element *override)
{
	struct element *e;
	size_t count = 0;

	for (e = xml_find(override, "qemu:device"); e; e = xml_next(e))
		count += mark(e, is_ours(xml_get(e, "alias")));
	return count;
}

struct element *domain_pcie_root(const struct domain *d)
{
	struct element *e = xml_find(d->root, "devices/controller");

	while (e && !xml_is(e, "model", "pcie-root"))
		e = xml_next(e);
	return e;
}

static const char *added_words(const struct domain *d)
{
	const char *words = xml_get(xml_find(d->root, "metadata/" METADATA), "added");

	return words ? words : "";
}

size_t domain_mark(struct domain *d)
{
	const char *added = added_words(d);
	g_auto(GStrv) words = g_strsplit(added, " ", -1);
	struct element *root = d->root, *e;
	struct numbers cells = { };
	size_t count, i;

	count = mark_devices(xml_find(root, "devices"), &cells) +
		mark_cells(xml_find(root, "cpu/numa"), &cells) +
		mark_overrides(xml_find(root, "qemu:override"));
	if (has_word(added, "arguments"))
		count += mark_arguments(xml_find(root, "qemu:commandline"));
	if (has_word(added, "root"))
		mark(domain_pcie_root(d), true);
	if (has_word(added, "window"))
		mark(xml_find(domain_pcie_root(d), "pcihole64"), true);
	/* The others are paths. Others may have added to an element of the domain itself. */
	for (i = 0; words[i]; i++)
		for (e = *words[i] ? xml_find(root, words[i]) : NULL; e; e = xml_next(e))
			e->mark = strchr(words[i], '/') ? XML_GOES : XML_GOES_IF_EMPTY;
	mark(xml_find(root, "metadata/" METADATA), true);
	return count;
}

char *domain_without(struct domain *d)
{
	bool namespace = has_word(added_words(d), "xmlns");
	g_autofree char *text = NULL;
	char *at;

	domain_mark(d);
	text = xml_without_marked(d->text, d->root);
	/* In the tag of the root, after which no mark is. */
	at = namespace ? strstr(text, QEMU_NAMESPACE) : NULL;
	if (at && at < text + d->root->inner)
		memmove(at, at + strlen(QEMU_NAMESPACE), strlen(at + strlen(QEMU_NAMESPACE)) + 1);
	return g_steal_pointer(&text);
}

/* ---- what the domain has -------------------------------------------------------------------- */

/*
 * The bytes of an element such as <memory unit='GiB'>64</memory>; 0: none, or no size.
 * libvirt has "bytes", "KiB" or "k" and so on, and "KB" for powers of 1000. It rounds up
 * to KiB.
 */
static uint64_t bytes_of(const struct element *e, const char *text)
{
	static const char letters[] = "bkmgt";
	const char *unit = xml_get(e, "unit") ?: "KiB", *letter;
	uint64_t number, scale = 1;

	letter = *unit ? strchr(letters, g_ascii_tolower(*unit)) : NULL;
	if (!letter || !text || !parse_u64(text, &number))
		return 0;
	for (; letter > letters; letter--)
		scale *= !g_ascii_strcasecmp(unit + 1, "B") ? 1000 : 1024;
	return number <= UINT64_MAX / scale ? (number * scale + 1023) / 1024 * 1024 : 0;
}

static uint64_t size_of(const struct element *e)
{
	g_autofree char *text = e ? g_strstrip(g_strdup(e->text->str)) : NULL;

	return bytes_of(e, text);
}

static unsigned int number_of(const char *text)
{
	g_autofree char *digits = text ? g_strstrip(g_strdup(text)) : NULL;
	uint64_t number;

	return digits && parse_u64(digits, &number) && number <= 1U << 20 ? number : 0;
}

static void count_cpu(unsigned long number, void *data)
{
	(*(unsigned int *)data)++;
}

/* The node of the host that a cell's memory comes from; -1: not only one. */
static int host_node(const struct domain *d, const char *id)
{
	const struct element *e = xml_find(d->root, "numatune/memnode");
	const char *set;
	uint64_t node;

	while (e && !xml_is(e, "cellid", id))
		e = xml_next(e);
	set = xml_get(e, "nodeset");
	return set && parse_u64(set, &node) && node <= INT16_MAX ? (int)node : -1;
}

/* The size of the huge pages of a cell; 0: none. */
static uint64_t hugepages_of(const struct domain *d, size_t cell)
{
	const struct element *all = xml_find(d->root, "memoryBacking/hugepages"), *e;
	uint64_t size = 0;

	e = xml_find(all, "page");
	if (all && !e)
		return HUGEPAGES_DEFAULT;
	for (; e; e = xml_next(e)) {
		struct numbers cells = { };

		each_number(xml_get(e, "nodeset"), add_number, &cells);
		if (cells.has[cell])
			return bytes_of(e, xml_get(e, "size"));
		if (!xml_get(e, "nodeset"))
			size = bytes_of(e, xml_get(e, "size"));
	}
	return size;
}

/* NULL, or why its cells can't be read. */
static char *read_cells(const struct domain *d, struct guest_domain *facts)
{
	const struct element *e;
	struct guest_cell *cell;
	const char *cpus;
	char id[24];

	for (e = xml_find(d->root, "cpu/numa/cell"); e; e = xml_next(e)) {
		snprintf(id, sizeof(id), "%zu", facts->cells);
		cpus = xml_get(e, "cpus");
		if (!cpus || (xml_get(e, "id") && !xml_is(e, "id", id)) || facts->cells == GUEST_GPUS_MAX)
			return g_strdup_printf("a <cell> of <numa> has no cpus, or an id that is not the next number, %s of at most %d; GPUs' cells come after those of processors",
					       id, GUEST_GPUS_MAX - 1);
		cell = &facts->cell[facts->cells];
		*cell = (struct guest_cell){
			.cpus = cpus, .memory = bytes_of(e, xml_get(e, "memory")),
			.hugepages = hugepages_of(d, facts->cells++), .host = host_node(d, id),
		};
		each_number(cpus, count_cpu, &cell->count);
	}
	return NULL;
}

/*
 * Why the domain can't have GPUs, whatever they need, to be freed; NULL: it can. libvirt
 * refuses the rest by itself: ACPI without UEFI, a device or a <vcpupin> twice.
 */
static char *obstacle(const struct domain *d)
{
	const struct element *type = xml_find(d->root, "os/type"), *e;
	const char *arch = xml_get(type, "arch"), *machine = xml_get(type, "machine");
	unsigned int number;

	if ((arch && strcmp(arch, "aarch64")) ||
	    (machine && strcmp(machine, "virt") && !g_str_has_prefix(machine, "virt-")))
		return g_strdup("its <type> is not the machine virt of aarch64");
	if (!xml_find(d->root, "features/acpi"))
		return g_strdup("its <features> have no <acpi/>, without which the guest sees no NUMA nodes");
	if (mark_arguments(xml_find(d->root, "qemu:commandline")))
		return g_strdup("its <qemu:commandline> has nodes, initiators or a window of its own; remove these");
	for (e = xml_find(d->root, "devices/controller"); e; e = xml_next(e)) {
		number = number_of(xml_get(xml_find(e, "target"), "busNr"));
		if (number >= BUS_OF_DOMAIN && number <= BUS_OF_DOMAIN_MAX)
			return g_strdup_printf("a <controller> has the busNr %u, and the GPUs need those from %d to %d; give it another",
					       number, BUS_OF_DOMAIN, BUS_OF_DOMAIN_MAX);
	}
	return NULL;
}

char *domain_facts(const struct domain *d, struct guest_wish *wish, struct guest_domain *facts)
{
	const struct element *root = d->root, *e, *vcpu = xml_find(root, "vcpu");
	char *why = obstacle(d);

	*facts = (struct guest_domain){ };
	if (why)
		return why;
	wish->domain = facts;
	wish->memory = size_of(xml_find(root, "memory"));
	wish->cpus = vcpu ? number_of(vcpu->text->str) : 1;
	if (!wish->memory || !wish->cpus)
		return g_strdup("its <memory> or <vcpu> is missing, or no size or number");
	wish->hugepages = hugepages_of(d, 0);
	e = xml_find(root, "devices/emulator");
	facts->emulator = e ? g_strstrip(e->text->str) : NULL;
	facts->window = size_of(xml_find(domain_pcie_root(d), "pcihole64"));
	facts->numatune = xml_find(root, "numatune");
	return read_cells(d, facts);
}
