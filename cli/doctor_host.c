// SPDX-License-Identifier: GPL-2.0-only
/*
 * The host beside its kernel: IOMMU, who holds GPU memory, the programs that start guests, and the
 * configuration for the boot. Called by doctor.c.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "doctor.h"

/* ---- IOMMU ---------------------------------------------------------------------------------- */

void check_iommu(struct doctor *d)
{
	char **units = host_list(d->h, "/sys/class/iommu");
	char **groups = host_list(d->h, "/sys/kernel/iommu_groups");
	const char *words = answer(d, "command-line");
	size_t n = 0;
	struct finding *f;
	char *line;

	while (units && units[n])
		n++;
	if (n) {
		finding(d, "iommu", GOOD, NULL, "%zu IOMMU%s (%s%s)", n, n > 1 ? "s" : "", units[0],
			n > 1 ? ", ..." : "");
	} else if (groups && groups[0]) {
		finding(d, "iommu", GOOD, NULL, "devices are in IOMMU groups");
	} else {
		f = finding(d, "iommu", BAD, NULL, "no IOMMU");
		because(f,
			"/sys/class/iommu and /sys/kernel/iommu_groups are empty: vfio takes no device");
		line = next_line(&words);
		remedy(f, "switch the %s on in the firmware's setup%s%s%s",
		       d->arm ? "SMMU" : "IOMMU (VT-d, AMD-Vi)", line ? ", and look at the kernel parameter " : "", line ? line : "",
		       line ? " (those for the IOMMU must not switch it off)" : "");
		free(line);
	}
	host_free_list(units);
	host_free_list(groups);
}

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
 * "2 ranges, GPU 0009:01:00.0 in NUMA node 2", as far as that is known. *nodes: whether a node is
 * among it, which then holds nothing but that GPU's memory.
 */
static char *online_where(struct doctor *d, size_t ranges, bool *nodes)
{
	struct survey survey = { .host = d->h, .gpus = d->gpus, .iomem = d->iomem };
	char *where, *longer, *node;
	bool first = true;
	size_t i;

	*nodes = false;
	where = xasprintf("%zu range%s", ranges, ranges > 1 ? "s" : "");
	for (i = 0; i < d->gpus.count; i++) {
		struct online online = survey_online(&survey, &d->gpus.gpu[i]);

		if (!online.online)
			continue;
		node = online.node < 0 ? xstrdup("") : xasprintf(" in NUMA node %d", online.node);
		*nodes |= online.node >= 0;
		longer = xasprintf("%s%s%s%s", where, first ? ", GPU " : ", ",
				   d->gpus.gpu[i].address, node);
		free(where);
		free(node);
		where = longer;
		first = false;
	}
	return where;
}

/* The names in /proc/iomem are for everybody, the addresses for root. */
static void check_online(struct doctor *d)
{
	struct finding *f;
	size_t i, ranges = 0;
	bool nodes;
	char *where;

	for (i = 0; i < d->iomem.count; i++)
		if (!strcmp(d->iomem.range[i].name, "System RAM (NVIDIA)"))
			ranges++;
	if (!d->iomem.count) {
		f = finding(d, "memory-online", UNKNOWN, NULL,
			    "not known whether GPU memory is online");
		because(f, "/proc/iomem can't be read");
		remedy(f, "run as root, outside of a container");
		return;
	}
	if (!ranges) {
		finding(d, "memory-online", GOOD, NULL, "no GPU memory is online as System RAM");
		return;
	}
	where = online_where(d, ranges, &nodes);
	if (driven_by(d, "nvidia")) {
		f = finding(d, "memory-online", WARNING, NULL,
			    "GPU memory is online as System RAM");
		because(f, "the nvidia driver has onlined it for this host (%s); such a GPU can't be bound",
			where);
		remedy(f,
		       "for a GPU that a guest shall have: stop what uses it, \"systemctl stop nvidia-persistenced\", \"modprobe -r nvidia_uvm nvidia\"; to keep it so, \"" PROGRAM " bind --persist ADDRESS\"");
	} else {
		f = finding(d, "memory-online", BAD, NULL,
			    "GPU memory is left online as System RAM");
		because(f,
			"a driver that is gone has onlined it (%s); binding such a GPU is refused, for host RAM must not reach a guest",
			where);
		remedy(f,
		       nodes ? "\"" PROGRAM " bind --dry-run ADDRESS\" prints how to take it offline; or reboot" :
		       "reboot: it is not known which memory blocks are the GPU's, and to take others offline takes RAM from the host");
	}
	free(where);
}

static void check_services(struct doctor *d)
{
	const char *rest = answer(d, "processes");
	struct finding *f;
	char *line, *name, *names = NULL;

	while ((line = next_line(&rest))) {
		name = strchr(line, ' ');
		if (name && !(names && strstr(names, name + 1))) {
			char *more = xasprintf(
				"%s%s%s",
				names ? names : "", names ? ", " : "", name + 1);

			free(names);
			names = more;
		}
		free(line);
	}
	if (names && driven_by(d, "nvidia")) {
		f = finding(d, "services", WARNING, NULL, "running: %s", names);
		because(f,
			"they keep the GPUs of the nvidia driver open: such a GPU can't be unbound from it");
		remedy(f,
		       "before binding: \"systemctl stop nvidia-persistenced nvidia-fabricmanager nvidia-dcgm\", whichever runs");
	} else {
		finding(d, "services", GOOD, NULL, "no service of NVIDIA's holds a GPU");
	}
	free(names);
}

void check_memory(struct doctor *d)
{
	check_online(d);
	check_services(d);
}

/* ---- programs ------------------------------------------------------------------------------- */

/* "PATH: words 9.2.1 (more)": the path and the number; false if there is none. */
static bool parse_version(char *line, int *major, int *minor)
{
	char *at = strstr(line, ": ");

	if (!at)
		return false;
	*at = 0;
	for (at += 2; *at; at++)
		if (at[-1] == ' ' && sscanf(at, "%d.%d", major, minor) == 2)
			return true;
	return false;
}

static bool at_least(int major, int minor, int major2, int minor2)
{
	return major > major2 || (major == major2 && minor >= minor2);
}

static uint64_t all_bars(const struct doctor *d)
{
	uint64_t sum = 0;
	size_t i;

	for (i = 0; i < d->gpus.count; i++)
		if (d->gpus.gpu[i].usemem_bar_size < 1ULL << 56)
			sum += d->gpus.gpu[i].usemem_bar_size;
	return sum;
}

static void check_qemu(struct doctor *d)
{
	const char *rest = answer(d, "qemu");
	int major, minor;
	struct finding *f;
	char *line;

	if (!rest) {
		f = finding(d, "qemu", UNKNOWN, NULL, "no QEMU in the usual places");
		because(f,
			"there is none in /usr/bin, /usr/libexec and /usr/local/bin; it may be in a container");
		remedy(f, "wherever it is, it should be 10.0 or later: see its --version");
		return;
	}
	while ((line = next_line(&rest))) {
		if (!parse_version(line, &major, &minor)) {
			f = finding(d, "qemu", UNKNOWN, NULL, "%s does not say its version", line);
			because(f, "its --version has no number");
			remedy(f, "it should be 10.0 or later");
		} else if (!at_least(major, minor, 9, 0)) {
			f = finding(d, "qemu", BAD, NULL, "%s is %d.%d", line, major, minor);
			because(f,
				"it has no -object acpi-generic-initiator (9.0): a Linux guest can't add the GPU's memory as NUMA nodes");
			remedy(f, "install QEMU 10.0 or later");
		} else if (!at_least(major, minor, 9, 2)) {
			f = finding(d, "qemu", WARNING, NULL, "%s is %d.%d", line, major, minor);
			because(f,
				"before 9.2 it does not align its mmaps of device memory (unless the vendor has that backport): GPU memory is mapped by small pages");
			remedy(f, "install QEMU 10.0 or later");
		} else if (!at_least(major, minor, 10, 0) && all_bars(d) > 256ULL << 30) {
			f = finding(d, "qemu", WARNING, NULL, "%s is %d.%d", line, major, minor);
			because(f,
				"before 10.0 it has no -machine highmem-mmio-size: BARs of several GPUs don't fit into a guest's 512 GiB");
			remedy(f, "install QEMU 10.0 or later");
		} else {
			finding(d, "qemu", GOOD, NULL, "%s is %d.%d", line, major, minor);
		}
		free(line);
	}
}

static void check_libvirt(struct doctor *d)
{
	const char *rest = answer(d, "libvirt");
	int major, minor;
	struct finding *f;
	char *line;

	/* Who has none needs none. */
	while ((line = next_line(&rest))) {
		if (!parse_version(line, &major, &minor)) {
			f = finding(d, "libvirt", UNKNOWN, NULL, "%s does not say its version",
				    line);
			because(f, "its --version has no number");
			remedy(f, "it should be 10.0 or later");
		} else if (!at_least(major, minor, 10, 0)) {
			f = finding(d, "libvirt", WARNING, NULL, "%s is %d.%d", line, major, minor);
			because(f,
				"before 10.0 it does not look for variant drivers: with managed='yes' it binds vfio-pci, and the guest gets a GPU without memory");
			remedy(f,
			       "install libvirt 10.0 or later, or use managed='no' and \"" PROGRAM " bind --persist\"");
		} else {
			finding(d, "libvirt", GOOD, NULL, "%s is %d.%d", line, major, minor);
		}
		free(line);
	}
}

/* A VMM locks all of the guest's RAM; who isn't root may do so up to a limit. */
static void check_memlock(struct doctor *d)
{
	const char *limit = answer(d, "memlock");
	char size[SIZE_MAX_TEXT];
	struct finding *f;
	uint64_t bytes;

	if (d->privileged || !limit)
		return;
	if (!strcmp(limit, "unlimited")) {
		finding(d, "memlock", GOOD, NULL, "this user may lock any amount of memory");
		return;
	}
	if (!parse_u64(limit, &bytes))
		bytes = GPU_UNKNOWN;
	f = finding(d, "memlock", WARNING, NULL, "this user may lock %s of memory",
		    size_text(bytes, size));
	because(f,
		"a VMM that this user starts locks all of its guest's RAM, and fails where that is more (libvirt sets the limit itself)");
	remedy(f, "raise \"memlock\" for this user in /etc/security/limits.d, and log in again");
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
		if (line->ignore ? config_ignores(&one, &d->gpus.gpu[i]) :
		    config_binds(&one, &d->gpus.gpu[i]))
			return true;
	return false;
}

static void check_lines(struct doctor *d)
{
	static const char *const kinds[] = {
		[CONFIG_ADDRESS] = "", [CONFIG_SLOT] = "slot=", [CONFIG_SERIAL] = "serial=",
	};
	size_t i, length, bad = d->wishes.errors;
	const struct config_error *e;
	const struct config_line *line;
	struct finding *f;
	char **names;

	for (i = 0; i < d->wishes.errors; i++) {
		e = &d->wishes.error[i];
		if (e->line)
			f = finding(d, "configuration", WARNING, NULL, "%s:%u is ignored", e->file,
				    e->line);
		else
			f = finding(d, "configuration", WARNING, NULL, "%s is ignored", e->file);
		because(f, "%s", e->reason);
		remedy(f, "correct or remove it; nvgrace-gpu.conf(5) has the forms");
	}
	for (i = 0; i < d->wishes.count; i++) {
		line = &d->wishes.line[i];
		/* "all" is for whatever there will be. */
		if (line->match == CONFIG_ALL || matches_something(d, line))
			continue;
		bad++;
		f = finding(d, "configuration", WARNING, NULL,
			    "%s:%u is for a GPU that is not there: %s%s", line->file, line->line,
			    kinds[line->match], line->value);
		because(f, "no supported GPU has this %s now",
			line->match == CONFIG_SLOT ? "slot" :
			line->match == CONFIG_SERIAL ? "serial number" : "address");
		remedy(f,
		       "remove the line if the GPU is gone for good; \"" PROGRAM " list\" shows those that are there");
	}
	names = host_list(d->h, CONFIG_DIR);
	for (i = 0; names && names[i]; i++) {
		length = strlen(names[i]);
		if (names[i][0] != '.' && length > 5 && !strcmp(names[i] + length - 5, ".conf"))
			continue;
		bad++;
		f = finding(d, "configuration", WARNING, NULL, CONFIG_DIR "/%s is not read",
			    names[i]);
		because(f,
			"only files whose names end in .conf and don't begin with a dot are; it may be left over from an editor or from a bind that was killed");
		remedy(f, "remove or rename it");
	}
	host_free_list(names);
	if (!bad)
		finding(d, "configuration", GOOD, NULL, "%zu line%s for the boot", d->wishes.count,
			d->wishes.count == 1 ? "" : "s");
}

/* What of the package must be there for the lines to have an effect. */
static void check_rule(struct doctor *d)
{
	struct finding *f;

	if (!d->obstacle) {
		finding(d, "boot-rule", GOOD, NULL, "%s binds what the configuration wants",
			d->rule);
		return;
	}
	f = finding(d, "boot-rule", BAD, NULL, "nothing will be bound at boot");
	because(f, "the configuration wants it, but %s", d->obstacle);
	if (strstr(d->obstacle, " masks "))
		remedy(f, "remove that file");
	else
		remedy(f,
		       "\"apt install --reinstall " MODULE_NAME "-dkms\" or \"dnf reinstall " MODULE_NAME "-dkms\"");
}

void check_configuration(struct doctor *d)
{
	size_t i;

	check_lines(d);
	for (i = 0; i < d->wishes.count; i++) {
		if (!d->wishes.line[i].ignore) {
			check_rule(d);
			return;
		}
	}
}
