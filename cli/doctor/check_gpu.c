// SPDX-License-Identifier: GPL-2.0-only
/*
 * The GPUs, and each of them: the device, what firmware says about its memory,
 * its IOMMU group, its driver and override, readiness, the claim of its memory,
 * and alignment.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "doctor/checks.h"
#include "facts/config.h"
#include "facts/place.h"
#include "system/output.h"
#include "system/program.h"

/* ---- all GPUs ------------------------------------------------------------------------------- */

/* Whether this GPU is of Vera Rubin, whose memory is a CXL region. */
static bool is_rubin(uint16_t device)
{
	return device == 0x3041 || device == 0x307f;
}

/*
 * Reports NVIDIA's GPUs that are not supported but might be expected to be. Sets
 * *rubin if one is of Vera Rubin.
 */
static void check_other_gpus(struct doctor *d, bool *rubin)
{
	const char *tables = answer(d->answers, "acpi-tables");
	bool stated = tables && strstr(tables, "nvidia,gpu-mem-base-pa");
	char **names = host_list(d->h, PCI_DEVICES), *class;
	struct finding *f;
	uint16_t device;
	size_t i;

	for (i = 0; names && names[i]; i++) {
		if (names[i][strspn(names[i], "0123456789abcdefABCDEF:.")] ||
		    gpu_id(d->h, names[i], "vendor") != 0x10de)
			continue;
		device = gpu_id(d->h, names[i], "device");
		class = host_line(d->h, PCI_DEVICES "/%s/class", names[i]);
		if (!class || strncmp(class, "0x0302", 6) || gpu_product(d->h, 0x10de, device)) {
			/* Another device, or a supported GPU. */
		} else if (is_rubin(device)) {
			*rubin = true;
			f = finding(d, "gpus", NOTE, NULL,
				    "%s, 10de:%04x, is a GPU of Vera Rubin, which is not this driver's",
				    names[i], device);
			because(f, "its memory comes as a CXL region of vfio-pci-core");
			remedy(f, "assign it with vfio-pci");
		} else if (gpu_is_coherent(device) && stated) {
			f = finding(d, "gpus", WARNING, NULL,
				    "%s: 10de:%04x is not an id of the driver", names[i], device);
			because(f,
				"NVIDIA's firmware treats it as a GPU with coherent memory, and ACPI has the properties of such memory: tools that choose the driver by modules.alias bind vfio-pci, and the guest gets a GPU without memory");
			remedy(f,
			       "run \"echo 'id 10de:%04x' > " CONFIG_DIR "/ids.conf\" and \"" PROGRAM " bind --persist %s\", and report the id",
			       device, names[i]);
		}
		free(class);
	}
	host_free_list(names);
}

/*
 * @gpus
 *
 * GPUs with an id that the driver supports: @GPU_IDS@. Or with an id of a line
 * `id` of the configuration (nvgrace-gpu.conf(5)).
 *
 * good: there is at least one
 * note: a GPU is of Vera Rubin, which needs no variant driver
 *	remedy: assign it with vfio-pci
 * warning: a GPU has an id that NVIDIA's firmware treats as one with coherent
 *	memory, ACPI has the properties of such memory, and the driver lacks the
 *	id
 *	remedy: write `id 10de:XXXX` into a file of `/etc/nvgrace-gpu.conf.d`
 * bad: there is none
 *	remedy: run `lspci -nn -d 10de:`; if a GPU is missing, power-cycle the
 *	host
 */
void check_gpus(struct doctor *d)
{
	struct finding *f;
	bool rubin = false;
	char *ids;

	check_other_gpus(d, &rubin);
	if (d->gpus.count) {
		finding(d, "gpus", GOOD, NULL, "%zu supported GPU%s", d->gpus.count,
			d->gpus.count > 1 ? "s" : "");
		return;
	}
	f = finding(d, "gpus", BAD, NULL, "no supported GPU");
	ids = gpu_ids_text();
	because(f, "no PCI device has one of the ids %s", ids);
	free(ids);
	remedy(f, "%s",
	       rubin ? "remove this project's packages: the GPUs of this host are not this driver's" :
	       "run \"lspci -nn -d 10de:\"; if a GPU is missing, power-cycle the host");
}

/* ---- PCI ------------------------------------------------------------------------------------ */

/*
 * Reads only the first register of configuration space: some devices don't
 * take it well if all are read, as host_read() would.
 */
static bool is_gone(struct doctor *d, const struct gpu *gpu)
{
	unsigned char ids[4];
	ssize_t n = host_head(d->h, ids, sizeof(ids), PCI_DEVICES "/%s/config", gpu->address);

	return n == sizeof(ids) && ids[0] == 0xff && ids[1] == 0xff;
}

/*
 * @device
 *
 * good: it answers
 * bad: its configuration space reads as all ones: it is no longer on the bus
 *	remedy: power-cycle the host
 */
static void check_device(struct doctor *d, const struct gpu *gpu)
{
	struct finding *f;

	if (is_gone(d, gpu)) {
		f = finding(d, "device", BAD, gpu->address, "%s does not answer", gpu->product);
		because(f, "its configuration space reads as all ones: it is no longer on the bus");
		remedy(f, "power-cycle the host; if that does not help, the hardware is broken");
	} else {
		finding(d, "device", GOOD, gpu->address, "%s, %04x:%04x", gpu->product, gpu->vendor,
			gpu->device);
	}
}

/*
 * @pci-errors
 *
 * The kernel's counts of uncorrected PCIe errors (AER) since boot. Linux 7.3 or
 * later also counts advisory errors, which a device reports as corrected.
 *
 * good: none
 * warning: at least one
 *	remedy: run `dmesg | grep AER`
 */
static void check_errors(struct doctor *d, const struct gpu *gpu)
{
	uint64_t fatal = 0, nonfatal = 0;
	struct finding *f;

	/* A device without AER has no such files. */
	gpu_pci_errors(d->h, gpu->address, "fatal", &fatal);
	gpu_pci_errors(d->h, gpu->address, "nonfatal", &nonfatal);

	if (!fatal && !nonfatal) {
		finding(d, "pci-errors", GOOD, gpu->address,
			"no uncorrected PCIe errors since boot");
		return;
	}
	f = finding(d, "pci-errors", WARNING, gpu->address,
		    "%llu fatal, %llu other uncorrected PCIe errors since boot",
		    (unsigned long long)fatal, (unsigned long long)nonfatal);
	because(f, "the device's sysfs files aer_dev_fatal and aer_dev_nonfatal count them by kind");
	remedy(f, "run \"dmesg | grep AER\"; if more errors come, have the hardware checked");
}

/* ---- firmware ------------------------------------------------------------------------------- */

/*
 * @firmware
 *
 * Whether firmware reports where the GPU's memory is. For a bound GPU, the
 * driver's `mode` says so. For other GPUs, the doctor checks that there is
 * ACPI, that the device has an ACPI object, and that the DSDT or an SSDT has
 * the properties `nvidia,gpu-mem-base-pa` and `nvidia,gpu-mem-size`. Only the
 * driver checks that they belong to this device.
 *
 * good: it does
 * warning: the GPU is bound as a plain PCI device (`core-only`), which is
 *	correct in a guest only
 *	remedy: on a host, update the system firmware
 * bad: the kernel runs without ACPI
 *	remedy: boot with UEFI and without `acpi=off`
 * bad: the device has no ACPI object, or no table has both properties
 *	remedy: on a host, update the system firmware
 * unknown: only root can read ACPI tables
 *	remedy: run as root
 */
static void check_firmware(struct doctor *d, const struct gpu *gpu)
{
	const char *tables = answer(d->answers, "acpi-tables");
	bool base = tables && strstr(tables, "nvidia,gpu-mem-base-pa");
	bool size = tables && strstr(tables, "nvidia,gpu-mem-size");
	struct finding *f;
	char *path;

	if (gpu->mode == GPU_MODE_CARVE_OUT || gpu->mode == GPU_MODE_NO_CARVE_OUT) {
		finding(d, "firmware", GOOD, gpu->address,
			"firmware reports where its memory is (mode %s)", gpu_mode_name(gpu->mode));
		return;
	}
	if (gpu->mode == GPU_MODE_CORE_ONLY) {
		f = finding(d, "firmware", WARNING, gpu->address,
			    "bound without memory (mode core-only)");
		because(f,
			"firmware does not report where its memory is, as in a guest, where the memory is in BARs 2 and 4");
		remedy(f,
		       "on a host, update the system firmware; in a guest, this is correct");
		return;
	}
	path = host_line(d->h, PCI_DEVICES "/%s/firmware_node/path", gpu->address);
	if (!tables) {
		f = finding(d, "firmware", BAD, gpu->address, "the kernel runs without ACPI");
		because(f,
			"there is no /sys/firmware/acpi/tables: only ACPI reports where GPU memory is");
		remedy(f, "boot with UEFI and without acpi=off");
	} else if (!path) {
		f = finding(d, "firmware", BAD, gpu->address, "the device has no ACPI object");
		because(f, "it has no firmware_node in sysfs, so the driver can't find its memory");
		remedy(f, "update the system firmware");
	} else if (!strncmp(tables, "denied", 6)) {
		f = finding(d, "firmware", UNKNOWN, gpu->address,
			    "not known whether firmware reports where its memory is");
		because(f, "only root can read ACPI tables");
		remedy(f, "run as root");
	} else if (!base || !size) {
		f = finding(d, "firmware", BAD, gpu->address,
			    "firmware does not report where its memory is");
		because(f, "no DSDT or SSDT has the property %s",
			base ? "nvidia,gpu-mem-size" :
			size ? "nvidia,gpu-mem-base-pa" :
			"nvidia,gpu-mem-base-pa or nvidia,gpu-mem-size");
		remedy(f,
		       "on a host, update the system firmware; in a guest, this is correct");
	} else {
		finding(d, "firmware", GOOD, gpu->address, "ACPI has %s and the properties of its memory",
			path);
	}
	free(path);
}

/* ---- IOMMU group ---------------------------------------------------------------------------- */

static bool harmless(const char *driver)
{
	static const char *const drivers[] = {
		DRIVER_NAME, "vfio-pci", "pcieport", "pci-stub",
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(drivers); i++)
		if (!strcmp(driver, drivers[i]))
			return true;
	return false;
}

/*
 * @iommu-group
 *
 * good: the GPU is alone in its group, or only with bridges
 * warning: other devices share the group: only the same guest can have them
 *	remedy: turn on ACS in the firmware's setup
 * bad: a device in the group is bound to a host driver, so vfio refuses the
 *	group
 *	remedy: unbind that device, or move it to another slot
 * bad: the GPU is bound and in no group
 *	remedy: see the finding `iommu`
 * unknown: the GPU is in no group yet: some kernels create the group when a
 *	driver is bound
 *	remedy: bind the GPU
 */
static void check_group(struct doctor *d, const struct gpu *gpu)
{
	char **devices, *driver, *others = NULL, *host_driver = NULL, *more;
	struct finding *f;
	size_t i;

	/*
	 * Before Linux 7.2, some IOMMUs create the group when a driver is
	 * bound.
	 */
	if (gpu->iommu_group < 0) {
		f = finding(d, "iommu-group", gpu->ours ? BAD : UNKNOWN, gpu->address,
			    "in no IOMMU group");
		because(f,
			"vfio needs a group; some kernels create it when a driver is bound");
		remedy(f,
		       gpu->ours ? "see the finding \"iommu\"" :
		       "run \"" PROGRAM " bind %s\", then check again",
		       gpu->address);
		return;
	}
	devices = gpu_group(d->h, gpu);
	for (i = 0; devices[i]; i++) {
		more = xasprintf("%s%s%s", others ? others : "", others ? ", " : "", devices[i]);
		free(others);
		others = more;
		driver = host_link_name(d->h, PCI_DEVICES "/%s/driver", devices[i]);
		if (driver && !harmless(driver) && !host_driver)
			host_driver = xasprintf("%s (%s)", devices[i], driver);
		free(driver);
	}
	if (host_driver) {
		f = finding(d, "iommu-group", BAD, gpu->address,
			    "shares IOMMU group %d with a device that the host uses", gpu->iommu_group);
		because(f,
			"%s could access a guest's memory, so vfio refuses the group",
			host_driver);
		remedy(f, "unbind that device from its driver, or move it to another slot");
	} else if (others) {
		f = finding(d, "iommu-group", WARNING, gpu->address, "shares IOMMU group %d",
			    gpu->iommu_group);
		because(f, "%s in the same group can be assigned only to the same guest",
			others);
		remedy(f,
		       "turn on ACS in the firmware's setup if other guests need these devices");
	} else {
		finding(d, "iommu-group", GOOD, gpu->address, "alone in IOMMU group %d",
			gpu->iommu_group);
	}
	free(others);
	free(host_driver);
	host_free_list(devices);
}

/* ---- driver --------------------------------------------------------------------------------- */

/*
 * The last line of the kernel's log that this driver wrote about the GPU; the
 * caller frees it. *error: its level is error or worse.
 */
static char *last_word(struct doctor *d, const struct gpu *gpu, bool *error)
{
	char *head = xasprintf(" " DRIVER_NAME " %s: ", gpu->address), *line, *last = NULL, *at;
	const char *rest = d->log;

	*error = false;
	while ((line = next_line(&rest))) {
		at = strstr(line, head);
		/*
		 * The driver core's line after a refused bind has only a
		 * number.
		 */
		if (at && strncmp(at + strlen(head), "probe with driver", 17)) {
			free(last);
			last = xstrdup(at + strlen(head));
			*error = line[0] >= '0' && line[0] <= '3';
		}
		free(line);
	}
	free(head);
	return last;
}

/*
 * @binding
 *
 * good: it is bound to nvgrace_gpu_vfio_pci; or the configuration does not bind
 *	it
 * warning: it is bound to vfio-pci: a guest gets it without memory
 *	remedy: run `nvgrace-gpu bind ADDRESS`
 * warning: it is bound to another driver or none, although the configuration
 *	binds it at boot
 *	remedy: run `nvgrace-gpu bind ADDRESS`; see the findings `boot-rule` and
 *	`module`
 * bad: the driver refused it; the reason is the driver's line in the kernel's
 *	log
 *	remedy: do what that line says
 */
static void check_binding(struct doctor *d, const struct gpu *gpu)
{
	const struct config_line *wish = config_binds(&d->wishes, gpu);
	struct finding *f;
	bool refused;
	char *said;

	if (config_ignores(&d->wishes, gpu))
		wish = NULL;
	if (gpu->ours) {
		finding(d, "binding", GOOD, gpu->address, "bound to " DRIVER_NAME "%s",
			wish && !d->obstacle ? ", and at every boot" :
			wish ? "; configured for every boot, but see the finding boot-rule" :
			"; not configured for boot");
		return;
	}
	said = last_word(d, gpu, &refused);
	if (said && refused && !gpu->driver) {
		f = finding(d, "binding", BAD, gpu->address, "the driver refused it");
		because(f, "%s", said);
		remedy(f, "fix this, then run \"" PROGRAM " bind %s\"", gpu->address);
	} else if (gpu->driver && !strcmp(gpu->driver, "vfio-pci")) {
		f = finding(d, "binding", WARNING, gpu->address, "bound to vfio-pci");
		because(f,
			"vfio-pci does not find memory outside BARs, so a guest gets a GPU without memory");
		remedy(f, "run \"" PROGRAM " bind %s\"", gpu->address);
	} else if (wish) {
		f = finding(d, "binding", WARNING, gpu->address,
			    "%s%s, although the configuration binds it at boot",
			    gpu->driver ? "bound to " : "not bound",
			    gpu->driver ? gpu->driver : "");
		because(f, "%s:%u binds it", wish->file, wish->line);
		remedy(f,
		       "run \"" PROGRAM " bind %s\"; if it was not bound at boot, see the findings boot-rule and module, and \"journalctl -b | grep nvgrace\"",
		       gpu->address);
	} else {
		finding(d, "binding", GOOD, gpu->address, "%s%s; not configured for boot",
			gpu->driver ? "bound to " : "not bound", gpu->driver ? gpu->driver : "");
	}
	free(said);
}

/*
 * @override
 *
 * good: driver_override is empty, or names the driver to which the GPU is bound
 * warning: it names another driver: only that driver can bind the GPU
 *	remedy: run `nvgrace-gpu bind ADDRESS` or `nvgrace-gpu unbind ADDRESS`
 * bad: it is `nvgrace-gpu-vfio-pci`, with hyphens: that is the name of the
 *	module; the driver's name has underscores
 *	remedy: run `nvgrace-gpu bind ADDRESS`
 */
static void check_override(struct doctor *d, const struct gpu *gpu)
{
	struct finding *f;

	if (!gpu->override) {
		finding(d, "override", GOOD, gpu->address, "no driver_override");
	} else if (!strcmp(gpu->override, MODULE_NAME)) {
		f = finding(d, "override", BAD, gpu->address,
			    "driver_override is " MODULE_NAME ", with hyphens");
		because(f,
			"that is the module's name; no driver has this name, so none can bind the device");
		remedy(f,
		       "run \"" PROGRAM " bind %s\", or \"echo " DRIVER_NAME " > " PCI_DEVICES "/%s/driver_override\"",
		       gpu->address, gpu->address);
	} else if (gpu->driver && !strcmp(gpu->override, gpu->driver)) {
		finding(d, "override", GOOD, gpu->address, "driver_override is that of its driver");
	} else {
		f = finding(d, "override", WARNING, gpu->address,
			    "driver_override is %s, but it is %s%s", gpu->override,
			    gpu->driver ? "bound to " : "not bound",
			    gpu->driver ? gpu->driver : "");
		because(f,
			"it is left over, or its driver refused the device: while it is set, no other driver can bind the device");
		remedy(f,
		       "run \"" PROGRAM " bind %s\" to bind it, or \"" PROGRAM " unbind %s\" to clear the override",
		       gpu->address, gpu->address);
	}
}

/*
 * @readiness
 *
 * Whether the memory is ready. Only the driver reads that from the device. For
 * a GPU that is not bound, the doctor reads the driver's last line in the
 * kernel's log. Not for a GPU that is bound as a plain PCI device.
 *
 * good: the memory is ready; or the GPU was reset, and the next access waits
 *	until it is
 * bad: a wait for the memory, or recovery from a PCIe error, failed
 *	remedy: run `echo 1 > /sys/bus/pci/devices/ADDRESS/reset`; if that does
 *	not help, power-cycle the host
 * bad: the driver refused the GPU, because the memory was not ready or the C2C
 *	link failed to train
 *	remedy: power-cycle the host
 * unknown: the GPU is not bound, or the loaded module does not report it
 *	remedy: bind the GPU
 */
static void check_readiness(struct doctor *d, const struct gpu *gpu)
{
	struct finding *f;
	bool error;
	char *said;

	if (gpu->ours && gpu->mode == GPU_MODE_CORE_ONLY)
		return;
	if (gpu->readiness && !strcmp(gpu->readiness, "ready")) {
		finding(d, "readiness", GOOD, gpu->address, "the C2C link and the memory are trained");
		return;
	}
	if (gpu->readiness && !strcmp(gpu->readiness, "unknown")) {
		finding(d, "readiness", GOOD, gpu->address,
			"it was reset; the next access waits until the memory is ready");
		return;
	}
	said = last_word(d, gpu, &error);
	if (gpu->readiness && !strcmp(gpu->readiness, "failed")) {
		f = finding(d, "readiness", BAD, gpu->address,
			    "the memory did not become ready after a reset");
		because(f, "%s",
			said && error ? said :
			"a wait for the C2C link and the HBM failed: accesses get SIGBUS or EIO");
		remedy(f,
		       "run \"echo 1 > " PCI_DEVICES "/%s/reset\"; if that does not help, power-cycle the host",
		       gpu->address);
	} else if (!gpu->ours && said && error &&
		   (strstr(said, "not ready") || strstr(said, "failed to train"))) {
		f = finding(d, "readiness", BAD, gpu->address, "the memory did not become ready");
		because(f, "%s", said);
		remedy(f,
		       "power-cycle the host: a C2C link that was not trained at boot is never trained later");
	} else {
		f = finding(d, "readiness", UNKNOWN, gpu->address,
			    "not known whether the memory is ready");
		because(f,
			gpu->ours ? "the loaded module does not report it" :
			"only the driver can read it, and the GPU is not bound");
		remedy(f,
		       gpu->ours ? "see the finding module-loaded" :
		       "run \"" PROGRAM " bind %s\", which waits until the memory is ready",
		       gpu->address);
	}
	free(said);
}

/*
 * @scrub-state
 *
 * Whether the memory holds data of its last user. Only if the driver reports a
 * state other than `off`.
 *
 * good: the memory is all zeros, and was not opened since; or it is being
 *	scrubbed; or the next open waits until it is scrubbed
 * warning: the last scrub failed
 *	remedy: run `echo 1 > /sys/bus/pci/devices/ADDRESS/reset`, then
 *	`nvgrace-gpu scrub ADDRESS`; if that does not help, power-cycle the host
 * bad: the last scrub failed and the parameter is on: opening the GPU fails
 *	until a scrub succeeds
 *	remedy: as for warning
 */
static void check_scrub_state(struct doctor *d, const struct gpu *gpu)
{
	static const struct {
		const char *state, *text;
	} good[] = {
		{ "unknown", "not scrubbed since it was bound; the next open waits until it is" },
		{ "scrubbing", "its memory is being scrubbed" },
		{ "clean", "its memory is all zeros, and it was not opened since" },
		{ "dirty", "it is or was open; the next open waits until it is scrubbed" },
	};
	char *parameter, *said;
	struct finding *f;
	bool error, wanted;
	size_t i;

	for (i = 0; gpu->scrub_state && i < ARRAY_SIZE(good); i++)
		if (!strcmp(gpu->scrub_state, good[i].state))
			finding(d, "scrub-state", GOOD, gpu->address, "%s", good[i].text);
	/* "off" is what the finding scrubbing is about. */
	if (!gpu->scrub_state || strcmp(gpu->scrub_state, "failed"))
		return;
	parameter = host_line(d->h, "/sys/module/" DRIVER_NAME "/parameters/scrub");
	wanted = parameter && *parameter == 'Y';
	said = last_word(d, gpu, &error);
	f = finding(d, "scrub-state", wanted ? BAD : WARNING, gpu->address,
		    "its memory was not cleared");
	because(f, "%s%s", said && error ? said : "the last scrub failed; see the kernel's log",
		wanted ? "; opening the GPU fails until a scrub succeeds" : "");
	remedy(f,
	       "run \"echo 1 > " PCI_DEVICES "/%s/reset\", then \"" PROGRAM " scrub %s\"; if that does not help, power-cycle the host",
	       gpu->address, gpu->address);
	free(parameter);
	free(said);
}

/* ---- memory --------------------------------------------------------------------------------- */

static bool claimed(struct doctor *d, const struct gpu *gpu, const char *part)
{
	char *name = xasprintf(DRIVER_NAME " %s %s", gpu->address, part);
	bool found = false;
	size_t i;

	for (i = 0; i < d->iomem.count; i++)
		found |= !strcmp(d->iomem.range[i].name, name);
	free(name);
	return found;
}

/*
 * @memory-claim
 *
 * Only for a GPU that is bound with memory: whether the driver has claimed the
 * memory in /proc/iomem.
 *
 * good: both parts are claimed
 * warning: a part is not claimed, because something else has claimed the range
 *	remedy: read /proc/iomem as root, and report it
 */
static void check_claim(struct doctor *d, const struct gpu *gpu)
{
	bool usemem, resmem;
	struct finding *f;

	if (!d->iomem.count || gpu->usemem_size == GPU_UNKNOWN)
		return;
	usemem = claimed(d, gpu, "usemem");
	resmem = gpu->resmem_size == GPU_UNKNOWN || claimed(d, gpu, "resmem");
	if (usemem && resmem) {
		finding(d, "memory-claim", GOOD, gpu->address,
			"its memory is claimed in /proc/iomem");
		return;
	}
	f = finding(d, "memory-claim", WARNING, gpu->address, "%s not claimed in /proc/iomem",
		    usemem ? "resmem is" : resmem ? "usemem is" : "neither part is");
	because(f,
		"something else, such as a window of the host bridge, has claimed the range; the driver works, but another driver could use the same memory");
	remedy(f,
	       "read /proc/iomem as root, and report it with the output of \"" PROGRAM " doctor --record DIR\"");
}

/*
 * @alignment
 *
 * Only for a GPU that is bound with memory: whether the memory's address is
 * aligned to the size of a PMD entry (2 MiB with 4K pages, 32 MiB with 16K, 512
 * MiB with 64K).
 *
 * good: it is
 * warning: it is not: the memory is mapped page by page
 *	remedy: boot a kernel with another page size; update the system firmware
 * unknown: only root can see the address
 *	remedy: run as root
 */
static void check_alignment(struct doctor *d, const struct gpu *gpu)
{
	/* What one page-table page of PTEs maps. */
	uint64_t pmd = d->h->page_size / 8 * d->h->page_size;
	char size[SIZE_MAX_TEXT], page[SIZE_MAX_TEXT];
	struct finding *f;

	if (gpu->usemem_size == GPU_UNKNOWN)
		return;
	if (gpu->usemem_base == GPU_UNKNOWN) {
		f = finding(d, "alignment", UNKNOWN, gpu->address,
			    "not known whether its memory is aligned");
		because(f, "only root can see physical addresses");
		remedy(f, "run as root");
		return;
	}
	size_text(pmd, size);
	size_text(d->h->page_size, page);
	if (gpu->usemem_base % pmd == 0) {
		finding(d, "alignment", GOOD, gpu->address,
			"its memory is aligned to %s, the size of a PMD entry with %s pages", size, page);
		return;
	}
	f = finding(d, "alignment", WARNING, gpu->address, "its memory is not aligned to %s", size);
	because(f, "with %s pages, a PMD entry maps that much: all of it is mapped page by page",
		page);
	remedy(f,
	       "boot a kernel with another page size (4K pages need 2 MiB), or update the system firmware");
}

/*
 * @egm
 *
 * Whether firmware sets a part of the CPU's memory aside for guests, extended GPU
 * memory (EGM), by the property `nvidia,egm-size` in the DSDT or an SSDT. Only if
 * a table has that property.
 *
 * good: it sets none aside
 * note: it does: this driver gives guests no EGM, and the host does not use it
 *	remedy: turn EGM off in the firmware's setup, or use a kernel with
 *	`CONFIG_NVGRACE_EGM` and its own driver
 */
void check_egm(struct doctor *d)
{
	char size[SIZE_MAX_TEXT];
	struct finding *f;
	uint64_t bytes;

	if (!answer_egm(d->answers, &bytes))
		return;
	if (!bytes) {
		finding(d, "egm", GOOD, NULL, "firmware sets no extended GPU memory aside");
		return;
	}
	f = finding(d, "egm", NOTE, NULL, "firmware sets %s of extended GPU memory aside",
		    size_text(bytes, size));
	because(f,
		"it is a part of the CPU's memory: this driver gives it to no guest, and the host does not use it");
	remedy(f,
	       "turn EGM off in the firmware's setup, or use a kernel with CONFIG_NVGRACE_EGM and its own driver");
}

void check_gpu(struct doctor *d, const struct gpu *gpu)
{
	check_device(d, gpu);
	check_errors(d, gpu);
	check_firmware(d, gpu);
	check_group(d, gpu);
	check_binding(d, gpu);
	check_override(d, gpu);
	check_readiness(d, gpu);
	check_scrub_state(d, gpu);
	check_claim(d, gpu);
	check_alignment(d, gpu);
}
