// SPDX-License-Identifier: GPL-2.0-only
/*
 * One GPU: the device, what firmware tells of its memory, its IOMMU group, its driver and override,
 * readiness, the claim of its memory, and alignment. Called by doctor.c for each.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "doctor.h"

/* ---- PCI ------------------------------------------------------------------------------------ */

/*
 * Whether the device answers, by the first register of its configuration space: host_read() would
 * read all of them, which some devices don't take well.
 */
static bool is_gone(struct doctor *d, const struct gpu *gpu)
{
	unsigned char ids[4];
	ssize_t n = host_head(d->h, ids, sizeof(ids), PCI_DEVICES "/%s/config", gpu->address);

	return n == sizeof(ids) && ids[0] == 0xff && ids[1] == 0xff;
}

static void check_device(struct doctor *d, const struct gpu *gpu)
{
	struct finding *f;

	if (is_gone(d, gpu)) {
		f = finding(d, "device", BAD, gpu->address, "%s does not answer", gpu->product);
		because(f, "its configuration space reads as all ones: it has fallen off the bus");
		remedy(f, "power-cycle the host; if it stays so, the hardware is broken");
	} else {
		finding(d, "device", GOOD, gpu->address, "%s, %04x:%04x", gpu->product, gpu->vendor,
			gpu->device);
	}
}

static void check_errors(struct doctor *d, const struct gpu *gpu)
{
	uint64_t fatal = 0, nonfatal = 0;
	struct finding *f;

	/* A device without AER has no such files, and counts nothing. */
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
	because(f, "the files aer_dev_fatal and aer_dev_nonfatal of the device count them by kind");
	remedy(f, "see \"dmesg | grep AER\"; if they go on, have the hardware looked at");
}

/* ---- firmware ------------------------------------------------------------------------------- */

static void check_firmware(struct doctor *d, const struct gpu *gpu)
{
	const char *tables = answer(d, "acpi-tables");
	bool base = tables && strstr(tables, "nvidia,gpu-mem-base-pa");
	bool size = tables && strstr(tables, "nvidia,gpu-mem-size");
	struct finding *f;
	char *path;

	if (gpu->mode == GPU_MODE_CARVE_OUT || gpu->mode == GPU_MODE_NO_CARVE_OUT) {
		finding(d, "firmware", GOOD, gpu->address,
			"firmware tells the memory's place (mode %s)", gpu_mode_name(gpu->mode));
		return;
	}
	if (gpu->mode == GPU_MODE_CORE_ONLY) {
		f = finding(d, "firmware", WARNING, gpu->address,
			    "bound without memory (mode core-only)");
		because(f,
			"firmware tells no place of the memory: as inside of a guest, where the memory is in BARs 2 and 4");
		remedy(f,
		       "on a host: update the system firmware; in a guest, where a VMM gives the GPU on, nothing");
		return;
	}
	path = host_line(d->h, PCI_DEVICES "/%s/firmware_node/path", gpu->address);
	if (!tables) {
		f = finding(d, "firmware", BAD, gpu->address, "the kernel runs without ACPI");
		because(f,
			"there is no /sys/firmware/acpi/tables: only ACPI tells where GPU memory is");
		remedy(f, "start the kernel by UEFI and without acpi=off");
	} else if (!path) {
		f = finding(d, "firmware", BAD, gpu->address, "ACPI does not know the device");
		because(f, "the device has no firmware_node: nothing can tell where its memory is");
		remedy(f, "update the system firmware");
	} else if (!strncmp(tables, "denied", 6)) {
		f = finding(d, "firmware", UNKNOWN, gpu->address,
			    "not known whether firmware tells the memory's place");
		because(f, "only root reads ACPI tables");
		remedy(f, "run as root");
	} else if (!base || !size) {
		f = finding(d, "firmware", BAD, gpu->address,
			    "firmware does not tell the memory's place");
		because(f, "no DSDT or SSDT has the property %s",
			base ? "nvidia,gpu-mem-size" :
			size ? "nvidia,gpu-mem-base-pa" :
			"nvidia,gpu-mem-base-pa or nvidia,gpu-mem-size");
		remedy(f,
		       "update the system firmware; inside of a guest there is none, and none is needed");
	} else {
		finding(d, "firmware", GOOD, gpu->address, "ACPI has %s and the properties", path);
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

static void check_group(struct doctor *d, const struct gpu *gpu)
{
	char **devices, *driver, *others = NULL, *host_driver = NULL, *more;
	struct finding *f;
	uint64_t class;
	size_t i;

	/* Before Linux 7.2 some IOMMUs make the group when a driver is bound. */
	if (gpu->iommu_group < 0) {
		f = finding(d, "iommu-group", gpu->ours ? BAD : UNKNOWN, gpu->address,
			    "in no IOMMU group");
		because(f,
			"without one vfio gives the device to nobody; the kernel may make it when a driver is bound");
		remedy(f,
		       gpu->ours ? "see the finding \"iommu\"" :
		       "\"" PROGRAM " bind %s\", then look again",
		       gpu->address);
		return;
	}
	devices = host_list(d->h, "/sys/kernel/iommu_groups/%d/devices", gpu->iommu_group);
	for (i = 0; devices && devices[i]; i++) {
		if (!strcmp(devices[i], gpu->address) ||
		    host_u64(d->h, &class, PCI_DEVICES "/%s/class", devices[i]) ||
		    class >> 8 == 0x0604)
			continue;
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
			    "shares IOMMU group %d with a device of the host", gpu->iommu_group);
		because(f,
			"%s can reach a guest's memory through it: vfio does not give the group away",
			host_driver);
		remedy(f, "unbind that device from its driver, or put it into another slot");
	} else if (others) {
		f = finding(d, "iommu-group", WARNING, gpu->address, "shares IOMMU group %d",
			    gpu->iommu_group);
		because(f, "%s in the same group can only go to the same guest, or to none",
			others);
		remedy(f,
		       "nothing, if that is wanted; else see whether the firmware's setup has ACS to switch on");
	} else {
		finding(d, "iommu-group", GOOD, gpu->address, "alone in IOMMU group %d",
			gpu->iommu_group);
	}
	free(others);
	free(host_driver);
	host_free_list(devices);
}

/* ---- driver --------------------------------------------------------------------------------- */

/* The last line of the kernel's log that our driver wrote about it; *error: as an error. */
static char *last_word(struct doctor *d, const struct gpu *gpu, bool *error)
{
	char *head = xasprintf(" " DRIVER_NAME " %s: ", gpu->address), *line, *last = NULL, *at;
	const char *rest = d->log;

	*error = false;
	while ((line = next_line(&rest))) {
		at = strstr(line, head);
		/* The driver core's line after a refusal has a number only. */
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
			wish && !d->obstacle ? ", and will be at every boot" :
			wish ? "; configured for every boot, see boot-rule" :
			"; not configured for the boot");
		return;
	}
	said = last_word(d, gpu, &refused);
	if (said && refused && !gpu->driver) {
		f = finding(d, "binding", BAD, gpu->address, "the driver has refused it");
		because(f, "%s", said);
		remedy(f, "do what that says, then \"" PROGRAM " bind %s\"", gpu->address);
	} else if (gpu->driver && !strcmp(gpu->driver, "vfio-pci")) {
		f = finding(d, "binding", WARNING, gpu->address, "bound to vfio-pci");
		because(f,
			"it knows nothing of the memory outside of BARs: a guest gets a GPU without memory");
		remedy(f, "\"" PROGRAM " bind %s\"", gpu->address);
	} else if (wish) {
		f = finding(d, "binding", WARNING, gpu->address,
			    "%s%s, though it shall be bound at boot",
			    gpu->driver ? "bound to " : "not bound",
			    gpu->driver ? gpu->driver : "");
		because(f, "%s:%u wants it", wish->file, wish->line);
		remedy(f,
		       "\"" PROGRAM " bind %s\" now; if it is so after a boot, see the findings boot-rule and module, and \"journalctl -b | grep nvgrace\"",
		       gpu->address);
	} else {
		finding(d, "binding", GOOD, gpu->address, "%s%s; nothing wants it bound",
			gpu->driver ? "bound to " : "not bound", gpu->driver ? gpu->driver : "");
	}
	free(said);
}

static void check_override(struct doctor *d, const struct gpu *gpu)
{
	struct finding *f;

	if (!gpu->override) {
		finding(d, "override", GOOD, gpu->address, "no driver_override");
	} else if (!strcmp(gpu->override, MODULE_NAME)) {
		f = finding(d, "override", BAD, gpu->address,
			    "driver_override is " MODULE_NAME ", with hyphens");
		because(f,
			"that is the module's file; no driver has this name, so none will ever take the device");
		remedy(f,
		       "\"" PROGRAM " bind %s\", or echo " DRIVER_NAME " > " PCI_DEVICES "/%s/driver_override",
		       gpu->address, gpu->address);
	} else if (gpu->driver && !strcmp(gpu->override, gpu->driver)) {
		finding(d, "override", GOOD, gpu->address, "driver_override is that of its driver");
	} else {
		f = finding(d, "override", WARNING, gpu->address,
			    "driver_override is %s, but it is %s%s", gpu->override,
			    gpu->driver ? "bound to " : "not bound",
			    gpu->driver ? gpu->driver : "");
		because(f,
			"it is left over, or its driver refused: no other driver takes the device while it is set");
		remedy(f,
		       "\"" PROGRAM " bind %s\" to use it, or \"" PROGRAM " unbind %s\" to clear it",
		       gpu->address, gpu->address);
	}
}

static void check_readiness(struct doctor *d, const struct gpu *gpu)
{
	struct finding *f;
	bool error;
	char *said;

	if (gpu->ours && gpu->mode == GPU_MODE_CORE_ONLY)
		return;
	if (gpu->readiness && !strcmp(gpu->readiness, "ready")) {
		finding(d, "readiness", GOOD, gpu->address, "C2C link and memory are trained");
		return;
	}
	if (gpu->readiness && !strcmp(gpu->readiness, "unknown")) {
		finding(d, "readiness", GOOD, gpu->address,
			"was reset: the next touch waits until the memory is trained");
		return;
	}
	said = last_word(d, gpu, &error);
	if (gpu->readiness && !strcmp(gpu->readiness, "failed")) {
		f = finding(d, "readiness", BAD, gpu->address,
			    "the memory did not get ready after a reset");
		because(f, "%s",
			said && error ? said :
			"a wait for the C2C link and the HBM ended in vain: guests get SIGBUS and EIO");
		remedy(f,
		       "echo 1 > " PCI_DEVICES "/%s/reset; if that does not help, power-cycle the host",
		       gpu->address);
	} else if (!gpu->ours && said && error &&
		   (strstr(said, "not ready") || strstr(said, "failed to train"))) {
		f = finding(d, "readiness", BAD, gpu->address, "the memory did not get ready");
		because(f, "%s", said);
		remedy(f,
		       "power-cycle the host: a C2C link that has not trained at boot won't later");
	} else {
		f = finding(d, "readiness", UNKNOWN, gpu->address,
			    "not known whether the memory is ready");
		because(f,
			gpu->ours ? "the loaded module does not tell" :
			"its registers are the driver's to read, and it isn't bound");
		remedy(f,
		       gpu->ours ? "see the finding module-loaded" :
		       "\"" PROGRAM " bind %s\": binding waits for it",
		       gpu->address);
	}
	free(said);
}

static void check_scrub_state(struct doctor *d, const struct gpu *gpu)
{
	static const struct {
		const char *state, *text;
	} good[] = {
		{ "unknown", "not scrubbed since it was bound: the next open waits for that" },
		{ "scrubbing", "is being scrubbed" },
		{ "clean", "its memory is all zeros, and was not opened since" },
		{ "dirty", "is or was open: the next open waits until it is scrubbed" },
	};
	char *parameter, *said;
	struct finding *f;
	bool error, wanted;
	size_t i;

	for (i = 0; gpu->scrub_state && i < ARRAY_SIZE(good); i++)
		if (!strcmp(gpu->scrub_state, good[i].state))
			finding(d, "scrub-state", GOOD, gpu->address, "%s", good[i].text);
	/* On "off" the finding scrubbing says all. */
	if (!gpu->scrub_state || strcmp(gpu->scrub_state, "failed"))
		return;
	parameter = host_line(d->h, "/sys/module/" DRIVER_NAME "/parameters/scrub");
	wanted = parameter && *parameter == 'Y';
	said = last_word(d, gpu, &error);
	f = finding(d, "scrub-state", wanted ? BAD : WARNING, gpu->address,
		    "its memory could not be cleared");
	because(f, "%s%s", said && error ? said : "the last scrub failed; the kernel's log says why",
		wanted ? "; an open fails until a scrub succeeds" : "");
	remedy(f,
	       "echo 1 > " PCI_DEVICES "/%s/reset, then \"" PROGRAM " scrub %s\"; if that does not help, power-cycle the host",
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
		"something else is registered there, a window of the host bridge for instance; the driver goes on, but nothing keeps another driver away");
	remedy(f,
	       "see as root what /proc/iomem has there, and report it together with \"" PROGRAM " doctor --record DIR\"");
}

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
		because(f, "only root sees physical addresses");
		remedy(f, "run as root");
		return;
	}
	size_text(pmd, size);
	size_text(d->h->page_size, page);
	if (gpu->usemem_base % pmd == 0) {
		finding(d, "alignment", GOOD, gpu->address,
			"its memory is aligned to %s, a PMD entry with %s pages", size, page);
		return;
	}
	f = finding(d, "alignment", WARNING, gpu->address, "its memory is not aligned to %s", size);
	because(f, "that is what a PMD entry maps with %s pages: all of it is mapped page by page",
		page);
	remedy(f,
	       "boot a kernel with another page size (4K pages need 2 MiB), or update the system firmware");
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
