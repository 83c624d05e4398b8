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
#include "system/output.h"

/* ---- GPU memory ----------------------------------------------------------------------------- */

static bool driven_by(const struct doctor *d, const char *driver)
{
	size_t i;

	for (i = 0; i < d->gpus.count; i++)
		if (d->gpus.gpu[i].driver && !strcmp(d->gpus.gpu[i].driver, driver))
			return true;
	return false;
}

/*
 * "2 ranges, GPU 0009:01:00.0 in NUMA node 2", as far as that is known; the
 * caller frees it. *nodes: whether it names a node, which then holds only that
 * GPU's memory.
 */
static char *online_where(struct doctor *d, size_t ranges, bool *nodes)
{
	GString *where = g_string_new(NULL);
	bool first = true;
	size_t i;

	*nodes = false;
	g_string_printf(where, "%zu range%s", ranges, ranges > 1 ? "s" : "");
	for (i = 0; i < d->gpus.count; i++) {
		struct online online = gpu_online(d->h, &d->iomem, &d->gpus, &d->gpus.gpu[i]);

		if (!online.online)
			continue;
		g_string_append_printf(where, "%s%s", first ? ", GPU " : ", ", d->gpus.gpu[i].address);
		if (online.node >= 0)
			g_string_append_printf(where, " in NUMA node %d", online.node);
		*nodes |= online.node >= 0;
		first = false;
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
static void check_online(struct doctor *d)
{
	g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	g_autoptr(GString) modules = g_string_new(NULL);
	struct finding *f;
	size_t i, ranges = 0;
	bool nodes;
	g_autofree char *where = NULL;

	for (i = 0; i < d->iomem.count; i++)
		if (!strcmp(d->iomem.range[i].name, "System RAM (NVIDIA)"))
			ranges++;
	if (!d->iomem.count) {
		f = finding(d, MEMORY_ONLINE_UNKNOWN, NULL,
			    "not known whether GPU memory is online");
		because(f, "/proc/iomem can't be read");
		return;
	}
	if (!ranges) {
		finding(d, MEMORY_ONLINE_GOOD, NULL, "no GPU memory is online as System RAM");
		return;
	}
	where = online_where(d, ranges, &nodes);
	if (driven_by(d, "nvidia")) {
		f = finding(d, MEMORY_ONLINE_USED, NULL,
			    "GPU memory is online as System RAM");
		because(f, "the nvidia driver has onlined it for this host (%s); such a GPU can't be bound",
			where);
		add_with_holders(d, "nvidia", seen, modules);
		fill(f, "MODULES", modules->str);
	} else {
		f = finding(d, nodes ? MEMORY_ONLINE_LEFT_IN_NODE : MEMORY_ONLINE_LEFT, NULL,
			    "GPU memory is left online as System RAM");
		because(f,
			"a driver that is no longer loaded has onlined it (%s); such a GPU can't be bound, because host RAM must not reach a guest",
			where);
	}
}

/*
 * The unit of a process: as systemd has put it into a control group, or the one
 * that runs this program of NVIDIA's packages; to be freed.
 */
static char *unit_of(struct doctor *d, int pid, const char *name)
{
	static const char *const units[][2] = {
		{ "nv-fabricmanager", "nvidia-fabricmanager" }, { "nv-hostengine", "nvidia-dcgm" },
		{ "nvsm_core", "nvsm" },
	};
	g_autofree char *groups = host_read(d->h, NULL, "/proc/%d/cgroup", pid);
	g_auto(GStrv) lines = g_strsplit(groups ? groups : "", "\n", -1);
	size_t i;

	/* With version 1 of control groups, one of several lines is systemd's. */
	for (i = 0; lines[i]; i++) {
		const char *last = strrchr(lines[i], '/');

		if (last && g_str_has_suffix(last, ".service"))
			return g_strndup(last + 1, strlen(last + 1) - strlen(".service"));
	}
	for (i = 0; i < G_N_ELEMENTS(units); i++)
		if (!strcmp(name, units[i][0]))
			return g_strdup(units[i][1]);
	return g_strdup(name);
}

/* Adds a text unless it is there; takes it over. */
static void add_once(GPtrArray *texts, char *text)
{
	if (g_ptr_array_find_with_equal_func(texts, text, g_str_equal, NULL))
		g_free(text);
	else
		g_ptr_array_add(texts, text);
}

/* The texts in one; to be freed. */
static char *joined(GPtrArray *texts, const char *between)
{
	g_autoptr(GStrvBuilder) builder = g_strv_builder_new();
	g_auto(GStrv) all = NULL;
	guint i;

	for (i = 0; i < texts->len; i++)
		g_strv_builder_add(builder, g_ptr_array_index(texts, i));
	all = g_strv_builder_end(builder);
	return g_strjoinv(between, all);
}

static void check_services(struct doctor *d)
{
	g_autoptr(GPtrArray) units = g_ptr_array_new_with_free_func(g_free);
	g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
	const char *processes = answer(d->answers, "processes");
	g_auto(GStrv) lines = g_strsplit(processes ? processes : "", "\n", -1);
	g_autofree char *services = NULL, *commands = NULL;
	struct finding *f;
	size_t i;

	for (i = 0; lines[i]; i++) {
		const char *name = strchr(lines[i], ' ');

		if (!name)
			continue;
		add_once(units, unit_of(d, atoi(lines[i]), name + 1));
		add_once(names, g_strdup(name + 1));
	}
	if (!names->len || !driven_by(d, "nvidia")) {
		finding(d, SERVICES_GOOD, NULL, "no NVIDIA service has a GPU open");
		return;
	}
	services = joined(names, ", ");
	commands = joined(units, " ");
	f = finding(d, SERVICES_RUN, NULL, "running: %s", services);
	because(f,
		"they keep GPUs of the nvidia driver open; such a GPU can't be unbound from it");
	fill(f, "UNITS", commands);
}

void check_memory(struct doctor *d)
{
	check_online(d);
	check_services(d);
}

/* ---- programs ------------------------------------------------------------------------------- */

/* Completes a finding about a program that prints no version. */
static void no_number(struct finding *f)
{
	because(f, "it prints no number with --version");
}

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
	struct finding *f;
	bool usable;

	if (!qemus->count) {
		f = finding(d, QEMU_NONE, NULL, "no QEMU in the usual places");
		because(f,
			"/usr/bin, /usr/libexec and /usr/local/bin have none; it may be in a container");
		return;
	}
	guest_plan_all(&d->facts, &plan);
	for (qemu = qemus->vmm; qemu < qemus->vmm + qemus->count; qemu++) {
		g_autofree char *lack = NULL;

		if (!qemu->known) {
			no_number(finding(d, QEMU_UNKNOWN, NULL,
					  "the version of %s is not known", qemu->path));
			continue;
		}
		lack = qemu_lack(&plan, qemu, &usable);
		f = finding(d, !lack ? QEMU_GOOD : usable ? QEMU_OLD : QEMU_TOO_OLD, NULL,
			    "%s is %d.%d", qemu->path, qemu->major, qemu->minor);
		if (lack)
			because(f, "%s", lack);
	}
}

static void check_libvirt(struct doctor *d)
{
	const struct vmms *libvirts = &d->facts.libvirt;
	const struct vmm *libvirt;
	const char *lack;
	struct finding *f;

	/* Not every host needs libvirt: without it there is no finding. */
	for (libvirt = libvirts->vmm; libvirt < libvirts->vmm + libvirts->count; libvirt++) {
		if (!libvirt->known) {
			no_number(finding(d, LIBVIRT_UNKNOWN, NULL,
					  "the version of %s is not known", libvirt->path));
			continue;
		}
		lack = vmm_has(libvirt, LIBVIRT_VARIANT) ? NULL :
		       "before 10.0 it does not find variant drivers: with managed='yes' it binds vfio-pci, and the guest gets a GPU without memory";
		f = finding(d, lack ? LIBVIRT_OLD : LIBVIRT_GOOD, NULL, "%s is %d.%d", libvirt->path,
			    libvirt->major, libvirt->minor);
		if (lack)
			because(f, "%s", lack);
	}
}

static void check_memlock(struct doctor *d)
{
	const char *limit = answer(d->answers, "memlock");
	char size[SIZE_MAX_TEXT];
	struct finding *f;
	uint64_t bytes;

	if (d->privileged || !limit)
		return;
	if (!strcmp(limit, "unlimited")) {
		finding(d, MEMLOCK_GOOD, NULL, "this user may lock any amount of memory");
		return;
	}
	if (!parse_u64(limit, &bytes))
		bytes = GPU_UNKNOWN;
	f = finding(d, MEMLOCK_LIMITED, NULL, "this user may lock %s of memory",
		    size_text(bytes, size));
	because(f,
		"a VMM locks all RAM of its guest, and fails if that is more (libvirt sets the limit itself)");
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
	size_t i, bad = d->wishes.errors;
	const struct config_error *e;
	const struct config_line *line;
	struct finding *f;
	g_auto(GStrv) names = NULL;

	for (i = 0; i < d->wishes.errors; i++) {
		e = &d->wishes.error[i];
		if (e->line)
			f = finding(d, CONFIGURATION_IGNORED, NULL, "%s:%u is ignored", e->file,
				    e->line);
		else
			f = finding(d, CONFIGURATION_IGNORED, NULL, "%s can't be read as it is", e->file);
		because(f, "%s", e->reason);
	}
	for (i = 0; i < d->wishes.count; i++) {
		line = &d->wishes.line[i];
		/* "all" may be for GPUs to come. */
		if (line->match == CONFIG_ALL || matches_something(d, line))
			continue;
		bad++;
		f = finding(d, CONFIGURATION_NO_MATCH, NULL,
			    "%s:%u matches no GPU: %s%s", line->file, line->line,
			    line->match == CONFIG_ID ? "id " : "", line->value);
		because(f, "no supported GPU has this %s now",
			line->match == CONFIG_ID ? "id" : "address");
	}
	names = host_list(d->h, CONFIG_DIR);
	for (i = 0; names && names[i]; i++) {
		if (names[i][0] != '.' && strlen(names[i]) > 5 && g_str_has_suffix(names[i], ".conf"))
			continue;
		bad++;
		f = finding(d, CONFIGURATION_BAD_NAME, NULL, CONFIG_DIR "/%s is not read",
			    names[i]);
		because(f,
			"a file's name must end in .conf and not begin with a dot; this one may be left over from an editor or a killed bind");
	}
	if (!bad)
		finding(d, CONFIGURATION_GOOD, NULL, "%zu line%s for boot", d->wishes.count,
			d->wishes.count == 1 ? "" : "s");
}

static void check_rule(struct doctor *d)
{
	struct finding *f;

	if (!d->obstacle) {
		finding(d, BOOT_RULE_GOOD, NULL, "%s binds the configured GPUs",
			d->rule);
		return;
	}
	f = finding(d, strstr(d->obstacle, " masks ") ? BOOT_RULE_MASKED : BOOT_RULE_MISSING, NULL,
		    "no GPU is bound at boot");
	because(f, "the configuration binds GPUs, but %s", d->obstacle);
}

void check_configuration(struct doctor *d)
{
	size_t i;

	check_lines(d);
	for (i = 0; i < d->wishes.count; i++) {
		if (config_line_binds(&d->wishes.line[i])) {
			check_rule(d);
			return;
		}
	}
}
