// SPDX-License-Identifier: GPL-2.0-only
/*
 * The host, apart from its kernel: online GPU memory, the programs that start
 * guests, and the configuration for boot.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "doctor/checks.h"
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

/*
 * "2 ranges, GPU 0009:01:00.0 in NUMA node 2", as far as that is known; the
 * caller frees it. *nodes: whether it names a node, which then holds only that
 * GPU's memory.
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

/*
 * @memory-online
 *
 * Whether GPU memory is online as System RAM of this host: "System RAM
 * (NVIDIA)" in /proc/iomem. The driver refuses such a GPU, because host RAM
 * must never reach a guest. The finding names a NUMA node only if the nvidia
 * driver, or the addresses of the node's memory blocks, show that it holds only
 * this GPU's memory.
 *
 * good: no GPU memory is online
 * warning: some is online, and a GPU is bound to the nvidia driver: the host
 *	may use it
 *	remedy: for a GPU that you want to assign to a guest: stop what uses it,
 *	run `modprobe -r nvidia_uvm nvidia`, then `nvgrace-gpu bind --persist`
 * bad: some is online, and no GPU is bound to the nvidia driver: it is left
 *	over
 *	remedy: reboot; or, if a NUMA node holds only this GPU's memory, run the
 *	command that `nvgrace-gpu bind --dry-run` prints
 * unknown: /proc/iomem can't be read
 *	remedy: run as root, outside of a container
 */

/* All users can read the names in /proc/iomem, only root the addresses. */
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
		       "for a GPU that you want to assign to a guest: stop what uses it, run \"systemctl stop nvidia-persistenced\" and \"modprobe -r nvidia_uvm nvidia\", then \"" PROGRAM " bind --persist ADDRESS\"");
	} else {
		f = finding(d, "memory-online", BAD, NULL,
			    "GPU memory is left online as System RAM");
		because(f,
			"a driver that is no longer loaded has onlined it (%s); such a GPU can't be bound, because host RAM must not reach a guest",
			where);
		remedy(f,
		       nodes ? "run \"" PROGRAM " bind --dry-run ADDRESS\", which prints how to take it offline; or reboot" :
		       "reboot: it is not known which memory blocks are the GPU's, and taking others offline takes RAM from the host");
	}
	free(where);
}

/*
 * @services
 *
 * NVIDIA's services nvidia-persistenced, nv-fabricmanager, nv-hostengine (DCGM)
 * and nvidia-imex keep open the GPUs that are bound to the nvidia driver.
 *
 * good: none runs, or no GPU is bound to the nvidia driver
 * warning: one runs, and a GPU is bound to the nvidia driver
 *	remedy: run `systemctl stop` for that service before you bind
 */
static void check_services(struct doctor *d)
{
	const char *rest = answer(d->answers, "processes");
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
			"they keep GPUs of the nvidia driver open; such a GPU can't be unbound from it");
		remedy(f,
		       "before you bind, stop those that run: \"systemctl stop nvidia-persistenced nvidia-fabricmanager nvidia-dcgm\"");
	} else {
		finding(d, "services", GOOD, NULL, "no NVIDIA service has a GPU open");
	}
	free(names);
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
	remedy(f, "use 10.0 or later");
}

/* Completes a finding about a version, unless it lacks nothing: lack is NULL. */
static void too_old(struct finding *f, const char *lack, const char *text)
{
	if (!lack)
		return;
	because(f, "%s", lack);
	remedy(f, "%s", text);
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
		return xasprintf("it has no -object acpi-generic-initiator (%s or later): a Linux guest can't add the GPU's memory as NUMA nodes",
				 vmm_since(QEMU_INITIATOR));
	if (!vmm_has(qemu, QEMU_ALIGNS))
		return xstrdup("before 9.2 it does not align its mappings of BARs, unless the vendor has a backport: the host maps GPU memory page by page");
	if (!vmm_has(qemu, QEMU_WINDOW) && plan->window_min > 512ULL << 30)
		return xasprintf("it has no -machine highmem-mmio-size (%s or later): the BARs of all bound GPUs need a window of %s, and have 512 GiB",
				 vmm_since(QEMU_WINDOW), size_text(plan->window_min, size));
	return NULL;
}

/*
 * @qemu
 *
 * The version of each of `/usr/bin/qemu-system-aarch64`,
 * `/usr/libexec/qemu-kvm` and `/usr/local/bin/qemu-system-aarch64`. For the
 * reasons, see [guests.md](guests.md#what-the-host-needs).
 *
 * good: it has all that these GPUs need
 * warning: older than 9.2 (RHEL has a backport); or without highmem-mmio-size,
 *	which 10.0 brought, and the BARs of all bound GPUs need a window of more
 *	than 512 GiB
 *	remedy: install 10.0 or later
 * bad: without acpi-generic-initiator, which 9.0 brought
 *	remedy: install 10.0 or later
 * unknown: there is no QEMU in these places, as with VMMs in containers; or its
 *	version is not known
 *	remedy: run it with `--version`
 */
static void check_qemu(struct doctor *d)
{
	const struct vmms *qemus = &d->facts.qemu;
	const struct vmm *qemu;
	struct guest_plan plan;
	struct finding *f;
	bool usable;
	char *lack;

	if (!qemus->count) {
		f = finding(d, "qemu", UNKNOWN, NULL, "no QEMU in the usual places");
		because(f,
			"/usr/bin, /usr/libexec and /usr/local/bin have none; it may be in a container");
		remedy(f, "run it with --version; use 10.0 or later");
		return;
	}
	guest_plan_all(&d->facts, &plan);
	for (qemu = qemus->vmm; qemu < qemus->vmm + qemus->count; qemu++) {
		if (!qemu->known) {
			no_number(finding(d, "qemu", UNKNOWN, NULL,
					  "the version of %s is not known", qemu->path));
			continue;
		}
		lack = qemu_lack(&plan, qemu, &usable);
		f = finding(d, "qemu", !lack ? GOOD : usable ? WARNING : BAD, NULL,
			    "%s is %d.%d", qemu->path, qemu->major, qemu->minor);
		too_old(f, lack, "install QEMU 10.0 or later");
		free(lack);
	}
}

/*
 * @libvirt
 *
 * The version of `/usr/sbin/virtqemud` and `/usr/sbin/libvirtd`. No finding if
 * neither exists.
 *
 * good: 10.0 or later: with `managed='yes'` it finds the variant driver in
 *	modules.alias
 * warning: older than 10.0: with `managed='yes'` it binds vfio-pci, and the
 *	guest gets a GPU without memory
 *	remedy: install 10.0 or later, or use `managed='no'` and
 *	`nvgrace-gpu bind --persist`
 * unknown: its version is not known
 *	remedy: run it with `--version`
 */
static void check_libvirt(struct doctor *d)
{
	const struct vmms *libvirts = &d->facts.libvirt;
	const struct vmm *libvirt;
	const char *lack;
	struct finding *f;

	/* Not every host needs libvirt: without it there is no finding. */
	for (libvirt = libvirts->vmm; libvirt < libvirts->vmm + libvirts->count; libvirt++) {
		if (!libvirt->known) {
			no_number(finding(d, "libvirt", UNKNOWN, NULL,
					  "the version of %s is not known", libvirt->path));
			continue;
		}
		lack = vmm_has(libvirt, LIBVIRT_VARIANT) ? NULL :
		       "before 10.0 it does not find variant drivers: with managed='yes' it binds vfio-pci, and the guest gets a GPU without memory";
		f = finding(d, "libvirt", lack ? WARNING : GOOD, NULL, "%s is %d.%d", libvirt->path,
			    libvirt->major, libvirt->minor);
		too_old(f, lack,
			"install libvirt 10.0 or later, or use managed='no' and \"" PROGRAM " bind --persist\"");
	}
}

/*
 * @memlock
 *
 * Only for users other than root: how much memory their programs may lock. A
 * VMM locks all of the guest's RAM.
 *
 * good: any amount
 * warning: a limited amount
 *	remedy: raise `memlock` in /etc/security/limits.d
 */
static void check_memlock(struct doctor *d)
{
	const char *limit = answer(d->answers, "memlock");
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
		"a VMM locks all RAM of its guest, and fails if that is more (libvirt sets the limit itself)");
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
		if (line->match == CONFIG_ID ? config_has_id(&one, d->gpus.gpu[i].device) :
		    line->ignore ? !!config_ignores(&one, &d->gpus.gpu[i]) :
				   !!config_binds(&one, &d->gpus.gpu[i]))
			return true;
	return false;
}

/*
 * @configuration
 *
 * The lines of `/etc/nvgrace-gpu.conf` and of `*.conf` in
 * `/etc/nvgrace-gpu.conf.d`: see nvgrace-gpu.conf(5). There is a finding for
 * each line that isn't good.
 *
 * good: all lines are well-formed, and each matches a present GPU
 * warning: a line is malformed, and ignored; or it matches no present GPU; or a
 *	file can't be read; or a file is ignored because of its name
 *	remedy: correct or remove it
 */
static void check_lines(struct doctor *d)
{
	static const char *const kinds[] = {
		[CONFIG_ADDRESS] = "", [CONFIG_SLOT] = "slot=", [CONFIG_SERIAL] = "serial=",
		[CONFIG_ID] = "id ",
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
		remedy(f, "correct or remove it; see nvgrace-gpu.conf(5)");
	}
	for (i = 0; i < d->wishes.count; i++) {
		line = &d->wishes.line[i];
		/* "all" may be for GPUs to come. */
		if (line->match == CONFIG_ALL || matches_something(d, line))
			continue;
		bad++;
		f = finding(d, "configuration", WARNING, NULL,
			    "%s:%u matches no GPU: %s%s", line->file, line->line,
			    kinds[line->match], line->value);
		because(f, "no supported GPU has this %s now",
			line->match == CONFIG_SLOT ? "slot" :
			line->match == CONFIG_SERIAL ? "serial number" :
			line->match == CONFIG_ID ? "id" : "address");
		remedy(f,
		       "remove the line if the GPU does not come back; \"" PROGRAM " list\" shows the present GPUs");
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
			"a file's name must end in .conf and not begin with a dot; this one may be left over from an editor or a killed bind");
		remedy(f, "rename or remove it");
	}
	host_free_list(names);
	if (!bad)
		finding(d, "configuration", GOOD, NULL, "%zu line%s for boot", d->wishes.count,
			d->wishes.count == 1 ? "" : "s");
}

/*
 * @boot-rule
 *
 * Only if the configuration binds a GPU: whether the udev rule and its program
 * are installed.
 *
 * good: both are installed
 * bad: one is missing: no GPU is bound at boot
 *	remedy: reinstall the dkms package
 * bad: a file, such as one in `/etc/udev/rules.d`, masks the rule: no GPU is
 *	bound at boot
 *	remedy: remove that file
 */
static void check_rule(struct doctor *d)
{
	struct finding *f;

	if (!d->obstacle) {
		finding(d, "boot-rule", GOOD, NULL, "%s binds the configured GPUs",
			d->rule);
		return;
	}
	f = finding(d, "boot-rule", BAD, NULL, "no GPU is bound at boot");
	because(f, "the configuration binds GPUs, but %s", d->obstacle);
	if (strstr(d->obstacle, " masks "))
		remedy(f, "remove that file");
	else
		remedy(f,
		       "run \"apt install --reinstall " MODULE_NAME "-dkms\" or \"dnf reinstall " MODULE_NAME "-dkms\"");
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
