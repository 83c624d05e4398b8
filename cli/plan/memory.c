// SPDX-License-Identifier: GPL-2.0-only
/*
 * The processors and the memory of the guest, and where in the host they are.
 */
#include <glib.h>
#include <stdlib.h>

#include "plan/steps.h"
#include "system/output.h"

/* QEMU aligns a guest's memory to this on Arm, whatever the host's pages are. */
#define QEMU_ALIGNMENT (2ULL << 20)

/* For each GPU, unless the command line says another number. */
#define MEMORY_OF_GPU (64 * GiB)
enum { CPUS_OF_GPU = 16 };

static void add_node(struct guest_plan *plan, int host)
{
	size_t i, at;

	for (i = 0; i < plan->nodes; i++)
		if (plan->node[i].host == host)
			return;
	for (at = plan->nodes; at && plan->node[at - 1].host > host; at--)
		plan->node[at] = plan->node[at - 1];
	plan->node[at] = (struct guest_node){ .host = host };
	plan->nodes++;
}

/* Replaces the nodes, which are those of the host near the GPUs, by the domain's own. */
static enum exit_status take_cells(const struct guest_domain *domain, struct guest_plan *plan)
{
	const struct guest_cell *cell;
	size_t i, said = 0, near = plan->nodes;

	for (i = 0; i < domain->cells; i++)
		said += domain->cell[i].host >= 0;
	/* If there are as many, they are in the same order. */
	if (domain->cells != near && domain->cells > 1 && said < domain->cells)
		return plan_refuse(plan, EXIT_REFUSED, NULL,
				   "the domain has %zu NUMA cells, and these GPUs are near %zu of the host's nodes; say by <memnode> in <numatune> which of the host's nodes each cell stands for",
				   domain->cells, near);
	for (i = 0; i < domain->cells; i++) {
		cell = &domain->cell[i];
		plan->node[i] = (struct guest_node){
			.host = cell->host >= 0 ? cell->host :
				domain->cells == near ? plan->node[i].host : -1,
			.cpus = g_strdup(cell->cpus), .count = cell->count, .memory = cell->memory,
			.hugepages = cell->hugepages,
		};
	}
	plan->nodes = domain->cells;
	return EXIT_OK;
}

enum exit_status plan_cpu_nodes(const struct guest_facts *facts, const struct guest_wish *wish,
				struct guest_plan *plan)
{
	enum exit_status status = EXIT_OK;
	const struct gpu *gpu;
	size_t i;

	if (!facts->numa.count)
		return plan_refuse(plan, EXIT_REFUSED, NULL,
				   "no NUMA node in /sys/devices/system/node: the kernel lacks CONFIG_NUMA, or the record is not complete");
	for (i = 0; i < plan->gpus; i++) {
		gpu = plan->device[i].pci;
		if (plan->device[i].place->node < 0)
			return plan_refuse(plan, EXIT_REFUSED, gpu,
					   "not known which processors are near it: its numa_node is %d, and no or several NUMA nodes have processors; update the system firmware",
					   gpu->numa_node);
		add_node(plan, plan->device[i].place->node);
	}
	if (wish->domain && wish->domain->cells)
		status = take_cells(wish->domain, plan);
	plan->cpu_nodes = plan->nodes;
	return status;
}

/* "0-15" */
static char *cpu_range(unsigned int first, unsigned int count)
{
	return count > 1 ? g_strdup_printf("%u-%u", first, first + count - 1) :
			   g_strdup_printf("%u", first);
}

/* Divides processors and memory, of which the first node gets what is left over. */
static void divide(struct guest_plan *plan, uint64_t hugepages)
{
	uint64_t unit = hugepages > QEMU_ALIGNMENT ? hugepages : QEMU_ALIGNMENT;
	size_t n = plan->cpu_nodes, i, left;
	unsigned int first = 0;
	uint64_t memory = plan->memory, part;

	for (i = 0; i < n; i++) {
		left = n - i;
		plan->node[i].count = (plan->cpus - first + left - 1) / left;
		plan->node[i].cpus = cpu_range(first, plan->node[i].count);
		first += plan->node[i].count;
		part = left == 1 ? memory : (memory / unit + left - 1) / left * unit;
		/* What is no multiple of the unit goes to the last one. */
		plan->node[i].memory = part < memory ? part : memory;
		plan->node[i].hugepages = hugepages;
		memory -= plan->node[i].memory;
	}
}

enum exit_status plan_memory(const struct guest_facts *facts,
			     const struct guest_wish *wish, struct guest_plan *plan)
{
	size_t i, n = plan->cpu_nodes;
	const struct numa_node *near;
	char size[SIZE_MAX_TEXT];
	uint64_t bytes = 0;

	plan->cpus = wish->cpus ? wish->cpus : CPUS_OF_GPU * plan->gpus;
	if (plan->cpus < n)
		return plan_refuse(plan, EXIT_REFUSED, NULL,
				   "%u processors for %zu NUMA nodes; give the guest %zu or more",
				   plan->cpus, n, n);
	plan->memory = wish->memory ? wish->memory : MEMORY_OF_GPU * plan->gpus;
	for (i = 0; i < n; i++) {
		near = plan_host_node(facts, plan->node[i].host);
		bytes += near ? near->bytes : 0;
	}
	if (plan->memory > (bytes ?: SIZE_LIMIT))
		return plan_refuse(plan, EXIT_REFUSED, NULL,
				   "the guest's memory: the NUMA nodes near these GPUs have only %s, and vfio locks all of it",
				   size_text(bytes ?: SIZE_LIMIT, size));
	if (!(wish->domain && wish->domain->cells))
		divide(plan, wish->hugepages);
	return EXIT_OK;
}

/* "0-71,144", as libvirt prints it, to be freed. cpu: ascending. */
static char *cpu_list(const GArray *cpus)
{
	GString *text = g_string_new(NULL);
	unsigned int i, first, last;

	for (i = 0; i < cpus->len; i++) {
		first = g_array_index(cpus, unsigned short, i);
		g_string_append_printf(text, "%s%u", text->len ? "," : "", first);
		for (last = first; i + 1 < cpus->len &&
		     g_array_index(cpus, unsigned short, i + 1) == last + 1; i++)
			last++;
		if (last != first)
			g_string_append_printf(text, "-%u", last);
	}
	return g_string_free(text, FALSE);
}

static int by_number(gconstpointer a, gconstpointer b)
{
	return *(const unsigned short *)a - *(const unsigned short *)b;
}

/* Appends a node's processors that are not isolated, or all if there are none. */
static void add_rest(GArray *rest, const struct numa_node *node)
{
	unsigned int i, k, before = rest->len;

	for (i = 0; i < node->cpus; i++) {
		for (k = 0; k < node->isolated_cpus && node->isolated[k] != node->cpu[i]; k++)
			;
		if (k == node->isolated_cpus)
			g_array_append_val(rest, node->cpu[i]);
	}
	if (rest->len == before)
		g_array_append_vals(rest, node->cpu, node->cpus);
}

struct pinning {
	struct guest_plan *plan;
	const struct guest_node *node;
	const struct numa_node *near;
	unsigned int done;	/* of this node's */
};

/* Nothing moves a thread away from an isolated processor, so each has one of its own. */
static void pin_cpu(unsigned long cpu, void *data)
{
	struct pinning *p = data;
	char *where = p->near->isolated_cpus ?
		      g_strdup_printf("%u", p->near->isolated[p->done % p->near->isolated_cpus]) :
		      g_strdup(p->node->host_cpus);

	p->done++;
	if (cpu < p->plan->cpus) {
		g_free(p->plan->cpu_pins->pdata[cpu]);
		p->plan->cpu_pins->pdata[cpu] = where;
	} else {
		g_free(where);
	}
}

enum exit_status plan_pinning(const struct guest_facts *facts,
			      const struct guest_wish *wish, struct guest_plan *plan)
{
	g_autoptr(GArray) rest = g_array_new(FALSE, FALSE, sizeof(unsigned short));
	const struct numa_node *near;
	struct pinning pinning;
	struct guest_node *n;
	unsigned int count, cpu;

	plan->pin = wish->pin;
	if (!plan->pin)
		return EXIT_OK;
	if (wish->domain && wish->domain->numatune)
		plan_note(plan, "the domain's own <numatune> says where its memory comes from, and not --pin");
	plan->cpu_pins = g_ptr_array_new_with_free_func(g_free);
	g_ptr_array_set_size(plan->cpu_pins, plan->cpus);
	for (n = plan->node; n < plan->node + plan->cpu_nodes; n++) {
		g_autoptr(GArray) cpus = g_array_new(FALSE, FALSE, sizeof(unsigned short));

		near = plan_host_node(facts, n->host);
		if (!near || !near->cpus)
			return plan_refuse(plan, EXIT_REFUSED, NULL,
					   "--pin: not known which processors of the host cell %zu of the domain stands for; say so by <memnode> in <numatune>",
					   (size_t)(n - plan->node));
		count = near->isolated_cpus ? near->isolated_cpus : near->cpus;
		if (n->count > count)
			plan_note(plan, "a node of the guest has %u processors, and node %d of the host, which it is pinned to, has %u%s: they share them",
				  n->count, near->id, count, near->isolated_cpus ? " that are isolated" : "");
		g_array_append_vals(cpus, near->cpu, near->cpus);
		n->host_cpus = cpu_list(cpus);
		add_rest(rest, near);
		pinning = (struct pinning){ .plan = plan, .node = n, .near = near };
		each_number(n->cpus, pin_cpu, &pinning);
	}
	g_array_sort(rest, by_number);
	plan->host_cpus = cpu_list(rest);
	/* In no cell of the domain. */
	for (cpu = 0; cpu < plan->cpus; cpu++)
		if (!plan->cpu_pins->pdata[cpu])
			plan->cpu_pins->pdata[cpu] = g_strdup(plan->host_cpus);
	return EXIT_OK;
}

/*
 * Notes how many huge pages a node of the host lacks for one of the guest, and refuses a
 * size that it does not have.
 */
static enum exit_status check_hugepages(const struct guest_facts *facts, struct guest_plan *plan,
					const struct guest_node *n, const struct numa_node *near)
{
	const struct hugepages *pages = facts->hugepages;
	unsigned long long free, needed;
	char size[SIZE_MAX_TEXT];

	size_text(n->hugepages, size);
	while (pages < facts->hugepages + facts->hugepage_sizes && pages->size != n->hugepages)
		pages++;
	if (pages == facts->hugepages + facts->hugepage_sizes)
		return plan_refuse(plan, EXIT_REFUSED, NULL,
				   "huge pages of %s: the host has none of this size; see /sys/kernel/mm/hugepages",
				   size);
	free = pages->free[near - facts->numa.node];
	needed = n->memory / pages->size;
	if (free < needed)
		plan_note(plan, "node %d of the host has %llu free huge pages of %s, and the guest needs %llu there: write their number to /sys/devices/system/node/node%d/hugepages/hugepages-%llukB/nr_hugepages first",
			  near->id, free, size, needed, near->id,
			  (unsigned long long)(pages->size >> 10));
	return EXIT_OK;
}

/* Refuses or notes what the host's node for one of the guest lacks. */
static enum exit_status check_node(const struct guest_facts *facts, struct guest_plan *plan,
				   const struct guest_node *n, const struct numa_node *near)
{
	uint64_t bytes = near->bytes ? near->bytes : UINT64_MAX;
	char needed[SIZE_MAX_TEXT], there[SIZE_MAX_TEXT];

	size_text(n->memory, needed);
	size_text(bytes, there);
	if (plan->pin && n->memory > bytes)
		return plan_refuse(plan, EXIT_REFUSED, NULL,
				   "--pin: a node of the guest has %s, and node %d of the host has only %s; give less memory",
				   needed, near->id, there);
	if (n->hugepages == HUGEPAGES_DEFAULT)
		return EXIT_OK;
	if (n->hugepages)
		return check_hugepages(facts, plan, n, near);
	if (n->memory > bytes)
		plan_note(plan, "a node of the guest has %s, and node %d of the host has only %s: the rest comes from other nodes, far from the GPU",
			  needed, near->id, there);
	else if (near->bytes && n->memory > near->free)
		plan_note(plan, "a node of the guest has %s, and of the memory of the host's node %d, %s are free now",
			  needed, near->id, size_text(near->free, there));
	return EXIT_OK;
}

enum exit_status plan_backend(const struct guest_facts *facts, struct guest_plan *plan)
{
	enum exit_status status = EXIT_OK;
	const struct numa_node *near;
	size_t i, with_cpus = 0;

	for (i = 0; i < facts->numa.count; i++)
		with_cpus += !!facts->numa.node[i].cpus;
	/* There is nothing to choose on a host with one such node. */
	plan->placed = (with_cpus > 1 || plan->pin) && plan->node[0].host >= 0;
	for (i = 0; i < plan->cpu_nodes && !status; i++) {
		near = plan_host_node(facts, plan->node[i].host);
		/* Also where there is nothing to choose. */
		near = near ? near : plan_host_node(facts, plan->device[0].place->node);
		if (near)
			status = check_node(facts, plan, &plan->node[i], near);
	}
	return status;
}
