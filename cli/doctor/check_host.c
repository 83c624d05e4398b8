// SPDX-License-Identifier: GPL-2.0-only
/*
 * The host, apart from its kernel: online GPU memory, the programs that start
 * guests, and the configuration for boot.
 */
#include <glib.h>
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

/* All users can read the names in /proc/iomem, only root the addresses. */
void check_memory(struct doctor *d)
{
	bool online = false;
	size_t i;

	for (i = 0; i < d->iomem.count; i++)
		online |= !strcmp(d->iomem.range[i].name, "System RAM (NVIDIA)");
	report(d, !d->iomem.count ? MEMORY_ONLINE_UNKNOWN : !online ? MEMORY_ONLINE_GOOD :
	       driven_by(d, "nvidia") ? MEMORY_ONLINE_USED : MEMORY_ONLINE_LEFT, NULL, NULL);
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

/* What this QEMU lacks for guests, to be freed; NULL: nothing. *usable: they can use GPU memory. */
static char *qemu_lack(const struct vmm *qemu, bool *usable)
{
	*usable = vmm_has(qemu, QEMU_INITIATOR);
	if (!*usable)
		return g_strdup_printf("it has no -object acpi-generic-initiator (%s or later): a Linux guest can't add the GPU's memory as NUMA nodes",
				       vmm_since(QEMU_INITIATOR));
	if (!vmm_has(qemu, QEMU_ALIGNS))
		return g_strdup("before 9.2 it does not align its mappings of BARs, unless the vendor has a backport: the host maps GPU memory page by page");
	if (!vmm_has(qemu, QEMU_WINDOW))
		return g_strdup_printf("it has no -machine highmem-mmio-size (%s or later): the BARs of several GPUs may not fit into its window of 512 GiB",
				       vmm_since(QEMU_WINDOW));
	return NULL;
}

static void check_qemu(struct doctor *d)
{
	const struct vmms *qemus = &d->facts.qemu;
	const struct vmm *qemu;
	bool usable = true;

	if (!qemus->count)
		report(d, QEMU_NONE, NULL, NULL);
	for (qemu = qemus->vmm; qemu < qemus->vmm + qemus->count; qemu++) {
		g_autofree char *lack = qemu->known ? qemu_lack(qemu, &usable) : NULL;
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

void check_programs(struct doctor *d)
{
	check_qemu(d);
	check_libvirt(d);
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
