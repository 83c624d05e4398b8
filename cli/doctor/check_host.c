// SPDX-License-Identifier: GPL-2.0-only
/*
 * The host, apart from its kernel: online GPU memory, the programs that start
 * guests, and the configuration for boot.
 */
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "doctor/checks.h"
#include "facts/egm.h"
#include "system/output.h"
#include "system/program.h"

/* ---- GPU memory ----------------------------------------------------------------------------- */

static bool driven_by(const struct doctor *d, const char *driver)
{
	size_t i;

	for (i = 0; i < d->gpus.count; i++)
		if (d->gpus.gpu[i].driver && !strcmp(d->gpus.gpu[i].driver, driver))
			return true;
	return false;
}

/* "2 ranges, GPU 0009:01:00.0, 0019:01:00.0", as far as that is known; to be freed. */
static char *online_where(struct doctor *d, size_t ranges)
{
	GString *where = g_string_new(NULL);
	const char *between = ", GPU ";
	size_t i;

	g_string_printf(where, "%zu range%s", ranges, ranges > 1 ? "s" : "");
	for (i = 0; i < d->gpus.count; i++)
		if (gpu_online(d->h, &d->iomem, &d->gpus, &d->gpus.gpu[i]).online) {
			g_string_append_printf(where, "%s%s", between, d->gpus.gpu[i].address);
			between = ", ";
		}
	return g_string_free(where, FALSE);
}

/*
 * Adds a module after those that hold it, as modprobe -r wants them. seen: those
 * that were begun, since a record can have a circle.
 */
static void add_with_holders(struct doctor *d, const char *module, GHashTable *seen, GString *order)
{
	g_auto(GStrv) holders = host_list(d->h, "/sys/module/%s/holders", module);
	size_t i;

	if (!g_hash_table_add(seen, g_strdup(module)))
		return;
	for (i = 0; holders && holders[i]; i++)
		add_with_holders(d, holders[i], seen, order);
	g_string_append_printf(order, "%s%s", order->len ? " " : "", module);
}

/* All users can read the names in /proc/iomem, only root the addresses. */
void check_memory(struct doctor *d)
{
	g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	g_autoptr(GString) modules = g_string_new(NULL);
	g_autofree char *where = NULL;
	size_t i, ranges = 0;

	for (i = 0; i < d->iomem.count; i++)
		if (!strcmp(d->iomem.range[i].name, "System RAM (NVIDIA)"))
			ranges++;
	where = online_where(d, ranges);
	add_with_holders(d, "nvidia", seen, modules);
	report(d, !d->iomem.count ? MEMORY_ONLINE_UNKNOWN : !ranges ? MEMORY_ONLINE_GOOD :
	       driven_by(d, "nvidia") ? MEMORY_ONLINE_USED : MEMORY_ONLINE_LEFT, NULL,
	       "where", where, "modules", modules->str, NULL);
}

void check_egm(struct doctor *d)
{
	static const enum finding_case cases[] = {
		[EGM_OFF] = EGMEMORY_GOOD, [EGM_GUESTS] = EGMEMORY_GUESTS,
		[EGM_UNKNOWN] = EGMEMORY_UNKNOWN, [EGM_HOST] = EGMEMORY_HOST,
	};
	struct egm egm = egm_read(d->answers, &d->iomem);
	char size[SIZE_MAX_TEXT];

	if (egm.kind != EGM_UNSTATED)
		report(d, egm.kind == EGM_GUESTS && d->egm_driver ? EGMEMORY_GIVEN : cases[egm.kind], NULL,
		       "size", size_text(egm.size, size), "what", egm_meaning(egm.kind, d->egm_driver), NULL);
}

/* ---- programs ------------------------------------------------------------------------------- */

/*
 * What this QEMU lacks for a guest with all bound GPUs, to be freed; NULL:
 * nothing. *usable: whether its guests can use GPU memory.
 */
static char *qemu_lack(const struct guest_plan *plan, const struct vmm *qemu, bool *usable)
{
	char size[SIZE_MAX_TEXT];

	*usable = vmm_has(qemu, QEMU_INITIATOR);
	if (!*usable)
		return g_strdup_printf("it has no -object acpi-generic-initiator (%s or later): a Linux guest can't add the GPU's memory as NUMA nodes",
				       vmm_since(QEMU_INITIATOR));
	if (!vmm_has(qemu, QEMU_ALIGNS))
		return g_strdup("before 9.2 it does not align its mappings of BARs, unless the vendor has a backport: the host maps GPU memory page by page");
	if (!vmm_has(qemu, QEMU_WINDOW) && plan->window_min > 512ULL << 30)
		return g_strdup_printf("it has no -machine highmem-mmio-size (%s or later): the BARs of all bound GPUs need a window of %s, and have 512 GiB",
				       vmm_since(QEMU_WINDOW), size_text(plan->window_min, size));
	return NULL;
}

static void check_qemu(struct doctor *d)
{
	const struct vmms *qemus = &d->facts.qemu;
	const struct vmm *qemu;
	struct guest_plan plan;
	bool usable = true;

	if (!qemus->count)
		report(d, QEMU_NONE, NULL, NULL);
	guest_plan_all(&d->facts, &plan);
	for (qemu = qemus->vmm; qemu < qemus->vmm + qemus->count; qemu++) {
		g_autofree char *lack = qemu->known ? qemu_lack(&plan, qemu, &usable) : NULL;
		g_autofree char *version = g_strdup_printf("%d.%d", qemu->major, qemu->minor);

		report(d, !qemu->known ? QEMU_UNKNOWN : !lack ? QEMU_GOOD : usable ? QEMU_OLD : QEMU_TOO_OLD,
		       NULL, "path", qemu->path, "version", version, "lack", lack, NULL);
	}
}

static void check_libvirt(struct doctor *d)
{
	const struct vmms *libvirts = &d->facts.libvirt;
	const struct vmm *libvirt;

	/* Not every host needs libvirt: without it there is no finding. */
	for (libvirt = libvirts->vmm; libvirt < libvirts->vmm + libvirts->count; libvirt++) {
		g_autofree char *version = g_strdup_printf("%d.%d", libvirt->major, libvirt->minor);

		report(d, !libvirt->known ? LIBVIRT_UNKNOWN :
		       vmm_has(libvirt, LIBVIRT_VARIANT) ? LIBVIRT_GOOD : LIBVIRT_OLD, NULL,
		       "path", libvirt->path, "version", version, NULL);
	}
}

static void check_memlock(struct doctor *d)
{
	const char *limit = answer(d->answers, "memlock");
	char size[SIZE_MAX_TEXT];
	uint64_t bytes;

	if (d->privileged || !limit)
		return;
	if (!parse_u64(limit, &bytes))
		bytes = GPU_UNKNOWN;
	report(d, strcmp(limit, "unlimited") ? MEMLOCK_LIMITED : MEMLOCK_GOOD, NULL,
	       "size", size_text(bytes, size), NULL);
}

void check_programs(struct doctor *d)
{
	check_qemu(d);
	check_libvirt(d);
	check_memlock(d);
}

/* ---- configuration -------------------------------------------------------------------------- */

static bool matches_something(const struct doctor *d, const struct config_line *line)
{
	struct config one = { .line = (struct config_line *)line, .count = 1 };
	size_t i;

	for (i = 0; i < d->gpus.count; i++)
		if (line->match == CONFIG_ID ? config_has_id(&one, d->gpus.gpu[i].device) :
		    line->ignore ? !!config_ignores(&one, &d->gpus.gpu[i]) :
				   !!config_binds(&one, &d->gpus.gpu[i]))
			return true;
	return false;
}

static void check_lines(struct doctor *d)
{
	g_auto(GStrv) names = host_list(d->h, CONFIG_DIR);
	g_autofree char *count = g_strdup_printf("%zu", d->wishes.count);
	size_t i, before = d->count;

	for (i = 0; i < d->wishes.errors; i++) {
		const struct config_error *e = &d->wishes.error[i];
		g_autofree char *where = e->line ? g_strdup_printf("%s:%u", e->file, e->line) :
						   g_strdup(e->file);

		report(d, CONFIGURATION_IGNORED, NULL, "where", where, "why", e->reason, NULL);
	}
	for (i = 0; i < d->wishes.count; i++) {
		const struct config_line *line = &d->wishes.line[i];
		g_autofree char *where = g_strdup_printf("%s:%u", line->file, line->line);
		bool id = line->match == CONFIG_ID;
		g_autofree char *value = g_strdup_printf("%s%s", id ? "id " : "", line->value ?: "");

		/* "all" may be for GPUs to come. */
		if (line->match != CONFIG_ALL && !matches_something(d, line))
			report(d, CONFIGURATION_NO_MATCH, NULL, "where", where, "value", value,
			       "kind", id ? "id" : "address", NULL);
	}
	for (i = 0; names && names[i]; i++) {
		g_autofree char *where = g_strdup_printf(CONFIG_DIR "/%s", names[i]);

		if (names[i][0] == '.' || strlen(names[i]) <= 5 || !g_str_has_suffix(names[i], ".conf"))
			report(d, CONFIGURATION_BAD_NAME, NULL, "where", where, NULL);
	}
	if (d->count == before)
		report(d, CONFIGURATION_GOOD, NULL, "count", count, NULL);
}

void check_configuration(struct doctor *d)
{
	check_lines(d);
	if (d->binds)
		report(d, !d->obstacle ? BOOT_RULE_GOOD : strstr(d->obstacle, " masks ") ? BOOT_RULE_MASKED :
		       BOOT_RULE_MISSING, NULL, "rule", d->rule, "obstacle", d->obstacle,
		       "package", PROGRAM, NULL);
}
