// SPDX-License-Identifier: GPL-2.0-only
/*
 * Checks each GPU: the device, what firmware says about its memory, its IOMMU
 * group, its driver and override, readiness, the claim of its memory, and
 * alignment.
 */
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "doctor/checks.h"
#include "facts/config.h"
#include "facts/location.h"
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
	g_auto(GStrv) names = host_list(d->h, DEVICES);
	struct finding *f;
	uint16_t device;
	char id[8];
	size_t i;

	for (i = 0; names && names[i]; i++) {
		g_autofree char *class = NULL;

		if (names[i][strspn(names[i], "0123456789abcdefABCDEF:.")] ||
		    gpu_id(d->h, names[i], "vendor") != 0x10de)
			continue;
		device = gpu_id(d->h, names[i], "device");
		class = host_line(d->h, DEVICES "/%s/class", names[i]);
		if (!class || strncmp(class, "0x0302", 6) || gpu_is_function(d->h, names[i]) ||
		    gpu_product(d->h, names[i])) {
			/* Another device, or a supported GPU. */
		} else if (is_rubin(device)) {
			*rubin = true;
			f = finding(d, GPUS_RUBIN, NULL,
				    "%s, 10de:%04x, is a GPU of Vera Rubin, which this driver does not support",
				    names[i], device);
			because(f, "its memory comes as a CXL region of vfio-pci-core");
		} else if (gpu_is_coherent(device) && stated) {
			f = finding(d, GPUS_NEW_ID, NULL,
				    "%s: 10de:%04x is not an id of the driver", names[i], device);
			because(f,
				"NVIDIA's firmware treats it as a GPU with coherent memory, and ACPI has the properties of such memory: tools that choose the driver by modules.alias bind vfio-pci, and the guest gets a GPU without memory");
			fill(f, "ADDRESS", names[i]);
			snprintf(id, sizeof(id), "%04x", device);
			fill(f, "XXXX", id);
		}
	}
}

void check_gpus(struct doctor *d)
{
	struct finding *f;
	bool rubin = false;
	g_autofree char *ids = NULL;

	check_other_gpus(d, &rubin);
	if (d->gpus.count) {
		finding(d, GPUS_GOOD, NULL, "%zu supported GPU%s", d->gpus.count,
			d->gpus.count > 1 ? "s" : "");
		return;
	}
	f = finding(d, rubin ? GPUS_ONLY_RUBIN : GPUS_NONE, NULL, "no supported GPU");
	ids = gpu_ids_text();
	because(f, "no PCI device has one of the ids %s", ids);
}

/* ---- PCI ------------------------------------------------------------------------------------ */

/*
 * Reads only the first register of configuration space: some devices don't
 * take it well if all are read, as host_read() would.
 */
static bool is_gone(struct doctor *d, const struct gpu *gpu)
{
	unsigned char ids[4];
	ssize_t n = host_head(d->h, ids, sizeof(ids), DEVICES "/%s/config", gpu->address);

	return n == sizeof(ids) && ids[0] == 0xff && ids[1] == 0xff;
}

static void check_device(struct doctor *d, const struct gpu *gpu)
{
	struct finding *f;

	if (is_gone(d, gpu)) {
		f = finding(d, DEVICE_GONE, gpu->address, "%s does not answer", gpu->product);
		because(f, "its configuration space reads as all ones: it is no longer on the bus");
	} else {
		finding(d, DEVICE_GOOD, gpu->address, "%s, %04x:%04x", gpu->product, gpu->vendor,
			gpu->device);
	}
}

static void check_errors(struct doctor *d, const struct gpu *gpu)
{
	uint64_t fatal = 0, nonfatal = 0;
	struct finding *f;

	/* A device without AER has no such files. */
	gpu_pci_errors(d->h, gpu->address, "fatal", &fatal);
	gpu_pci_errors(d->h, gpu->address, "nonfatal", &nonfatal);

	if (!fatal && !nonfatal) {
		finding(d, PCI_ERRORS_GOOD, gpu->address,
			"no uncorrected PCIe errors since boot");
		return;
	}
	f = finding(d, PCI_ERRORS_COUNTED, gpu->address,
		    "%llu fatal, %llu other uncorrected PCIe errors since boot",
		    (unsigned long long)fatal, (unsigned long long)nonfatal);
	because(f, "the device's sysfs files aer_dev_fatal and aer_dev_nonfatal count them by kind");
}

/* ---- firmware ------------------------------------------------------------------------------- */

static void check_firmware(struct doctor *d, const struct gpu *gpu)
{
	const char *tables = answer(d->answers, "acpi-tables");
	bool base = tables && strstr(tables, "nvidia,gpu-mem-base-pa");
	bool size = tables && strstr(tables, "nvidia,gpu-mem-size");
	struct finding *f;
	g_autofree char *path = NULL;

	if (gpu->mode == GPU_MODE_CARVE_OUT || gpu->mode == GPU_MODE_NO_CARVE_OUT) {
		finding(d, FIRMWARE_GOOD, gpu->address,
			"firmware reports where its memory is (mode %s)", gpu_mode_name(gpu->mode));
		return;
	}
	if (gpu->mode == GPU_MODE_CORE_ONLY) {
		f = finding(d, FIRMWARE_CORE_ONLY, gpu->address,
			    "bound without memory (mode core-only)");
		because(f,
			"firmware does not report where its memory is, as in a guest, where the memory is in BARs 2 and 4");
		return;
	}
	path = host_line(d->h, DEVICES "/%s/firmware_node/path", gpu->address);
	if (!tables) {
		f = finding(d, FIRMWARE_NO_ACPI, gpu->address, "the kernel runs without ACPI");
		because(f,
			"there is no /sys/firmware/acpi/tables: only ACPI reports where GPU memory is");
	} else if (!path) {
		f = finding(d, FIRMWARE_NO_OBJECT, gpu->address, "the device has no ACPI object");
		because(f, "it has no firmware_node in sysfs, so the driver can't find its memory");
	} else if (!strncmp(tables, "denied", 6)) {
		f = finding(d, FIRMWARE_UNKNOWN, gpu->address,
			    "not known whether firmware reports where its memory is");
		because(f, "only root can read ACPI tables");
	} else if (!base || !size) {
		f = finding(d, FIRMWARE_NO_PROPERTIES, gpu->address,
			    "firmware does not report where its memory is");
		because(f, "no DSDT or SSDT has the property %s",
			base ? "nvidia,gpu-mem-size" :
			size ? "nvidia,gpu-mem-base-pa" :
			"nvidia,gpu-mem-base-pa or nvidia,gpu-mem-size");
	} else {
		finding(d, FIRMWARE_GOOD, gpu->address, "ACPI has %s and the properties of its memory",
			path);
	}
}

/* ---- IOMMU group ---------------------------------------------------------------------------- */

static bool harmless(const char *driver)
{
	static const char *const drivers[] = {
		DRIVER_NAME, "vfio-pci", "pcieport", "pci-stub",
	};
	size_t i;

	for (i = 0; i < G_N_ELEMENTS(drivers); i++)
		if (!strcmp(driver, drivers[i]))
			return true;
	return false;
}

static void check_group(struct doctor *d, const struct gpu *gpu)
{
	g_autofree char *host_driver = NULL, *others = NULL;
	g_auto(GStrv) devices = NULL;
	struct finding *f;
	size_t i;

	/*
	 * Before Linux 7.2, some IOMMUs create the group when a driver is
	 * bound.
	 */
	if (gpu->iommu_group < 0) {
		f = finding(d, gpu->ours ? IOMMU_GROUP_NONE : IOMMU_GROUP_NONE_YET, gpu->address,
			    "in no IOMMU group");
		because(f,
			"vfio needs a group; some kernels create it when a driver is bound");
		return;
	}
	devices = gpu_group(d->h, gpu);
	for (i = 0; devices[i]; i++) {
		g_autofree char *driver = host_link_name(d->h, DEVICES "/%s/driver", devices[i]);

		if (driver && !harmless(driver) && !host_driver)
			host_driver = g_strdup_printf("%s (%s)", devices[i], driver);
	}
	others = g_strjoinv(", ", devices);
	if (host_driver) {
		f = finding(d, IOMMU_GROUP_USED, gpu->address,
			    "shares IOMMU group %d with a device that the host uses", gpu->iommu_group);
		because(f,
			"%s could access a guest's memory, so vfio refuses the group",
			host_driver);
	} else if (*others) {
		f = finding(d, IOMMU_GROUP_SHARED, gpu->address, "shares IOMMU group %d",
			    gpu->iommu_group);
		because(f, "%s in the same group can be assigned only to the same guest",
			others);
	} else {
		finding(d, IOMMU_GROUP_GOOD, gpu->address, "alone in IOMMU group %d",
			gpu->iommu_group);
	}
}

/* ---- driver --------------------------------------------------------------------------------- */

/*
 * The last line of the kernel's log that this driver wrote about the GPU; the
 * caller frees it. *error: its level is error or worse.
 */
static char *last_word(struct doctor *d, const struct gpu *gpu, bool *error)
{
	g_autofree char *head = g_strdup_printf(" " DRIVER_NAME " %s: ", gpu->address);
	g_auto(GStrv) lines = text_lines(d->log);
	const char *at, *last = NULL;
	size_t i;

	*error = false;
	for (i = 0; lines[i]; i++) {
		at = strstr(lines[i], head);
		/*
		 * The driver core's line after a refused bind has only a
		 * number.
		 */
		if (at && strncmp(at + strlen(head), "probe with driver", 17)) {
			last = at + strlen(head);
			*error = lines[i][0] >= '0' && lines[i][0] <= '3';
		}
	}
	return g_strdup(last);
}

/* Whether vfio-pci was loaded with this GPU's id. */
static bool is_id_of_vfio(struct doctor *d, const struct gpu *gpu)
{
	g_autofree char *ids = host_line(d->h, "/sys/module/vfio_pci/parameters/ids");
	g_autofree char *id = g_strdup_printf("%04x:%04x", gpu->vendor, gpu->device);
	const char *words = answer(d->answers, "command-line");
	/* The kernel takes either spelling, and numbers in either case. */
	g_autofree char *line = g_ascii_strdown(words ? words : "", -1);
	const char *given;

	g_strdelimit(line, "_", '-');
	given = strstr(line, "vfio-pci.ids=");
	return (ids && strstr(ids, id)) ||
	       (given && g_strstr_len(given, strcspn(given, " \n"), id));
}

static void check_binding(struct doctor *d, const struct gpu *gpu)
{
	g_autofree char *by_driverctl = host_line(d->h, "/etc/driverctl.d/pci-%s", gpu->address);
	const struct config_line *wish = config_binds(&d->wishes, gpu);
	struct finding *f;
	bool refused;
	g_autofree char *said = NULL;

	if (config_ignores(&d->wishes, gpu))
		wish = NULL;
	if (by_driverctl && strcmp(by_driverctl, DRIVER_NAME) &&
	    (gpu->ours || wish || (gpu->driver && !strcmp(gpu->driver, by_driverctl)))) {
		f = finding(d, BINDING_DRIVERCTL, gpu->address, "driverctl binds it to %s at every boot",
			    by_driverctl);
		because(f, "/etc/driverctl.d/pci-%s has that, which undoes a bind to another driver",
			gpu->address);
		return;
	}
	if (gpu->ours) {
		finding(d, BINDING_GOOD, gpu->address, "bound to " DRIVER_NAME "%s",
			wish && !d->obstacle ? ", and at every boot" :
			wish ? "; configured for every boot, but see the finding boot-rule" :
			"; not configured for boot");
		return;
	}
	said = last_word(d, gpu, &refused);
	if (said && refused && !gpu->driver) {
		f = finding(d, BINDING_REFUSED, gpu->address, "the driver refused it");
		because(f, "%s", said);
	} else if (gpu->driver && !strcmp(gpu->driver, "vfio-pci") && is_id_of_vfio(d, gpu)) {
		f = finding(d, BINDING_VFIO_PCI_IDS, gpu->address, "bound to vfio-pci by its parameter ids");
		because(f, "each boot undoes a bind to another driver that is not configured for boot");
	} else if (gpu->driver && !strcmp(gpu->driver, "vfio-pci")) {
		f = finding(d, BINDING_VFIO_PCI, gpu->address, "bound to vfio-pci");
		because(f,
			"vfio-pci does not find memory outside BARs, so a guest gets a GPU without memory");
	} else if (wish) {
		f = finding(d, BINDING_OTHER, gpu->address,
			    "%s%s, although the configuration binds it at boot",
			    gpu->driver ? "bound to " : "not bound",
			    gpu->driver ? gpu->driver : "");
		because(f, "%s:%u binds it", wish->file, wish->line);
	} else {
		finding(d, BINDING_GOOD, gpu->address, "%s%s; not configured for boot",
			gpu->driver ? "bound to " : "not bound", gpu->driver ? gpu->driver : "");
	}
}

static void check_override(struct doctor *d, const struct gpu *gpu)
{
	struct finding *f;

	if (!gpu->override) {
		finding(d, OVERRIDE_GOOD, gpu->address, "no driver_override");
	} else if (!strcmp(gpu->override, MODULE_NAME)) {
		f = finding(d, OVERRIDE_HYPHENS, gpu->address,
			    "driver_override is " MODULE_NAME ", with hyphens");
		because(f,
			"that is the module's name; no driver has this name, so none can bind the device");
	} else if (gpu->driver && !strcmp(gpu->override, gpu->driver)) {
		finding(d, OVERRIDE_GOOD, gpu->address, "driver_override is that of its driver");
	} else {
		f = finding(d, OVERRIDE_OTHER, gpu->address,
			    "driver_override is %s, but it is %s%s", gpu->override,
			    gpu->driver ? "bound to " : "not bound",
			    gpu->driver ? gpu->driver : "");
		because(f,
			"it is left over, or its driver refused the device: while it is set, no other driver can bind the device");
	}
}

static void check_readiness(struct doctor *d, const struct gpu *gpu)
{
	enum readiness readiness = readiness_of(gpu->readiness);
	struct finding *f;
	bool error;
	g_autofree char *said = NULL;

	if (gpu->ours && gpu->mode == GPU_MODE_CORE_ONLY)
		return;
	if (readiness == GPU_READY) {
		finding(d, READINESS_GOOD, gpu->address, "the C2C link and the memory are trained");
		return;
	}
	if (readiness == GPU_READY_UNKNOWN) {
		finding(d, READINESS_GOOD, gpu->address,
			"it was reset; the next access waits until the memory is ready");
		return;
	}
	said = last_word(d, gpu, &error);
	if (readiness == GPU_READY_FAILED) {
		f = finding(d, READINESS_FAILED, gpu->address,
			    "the memory did not become ready after a reset");
		because(f, "%s",
			said && error ? said :
			"a wait for the C2C link and the HBM failed: accesses get SIGBUS or EIO");
	} else if (!gpu->ours && said && error &&
		   (strstr(said, "not ready") || strstr(said, "failed to train"))) {
		f = finding(d, READINESS_REFUSED, gpu->address, "the memory did not become ready");
		because(f, "%s", said);
	} else {
		f = finding(d, gpu->ours ? READINESS_UNKNOWN : READINESS_UNBOUND, gpu->address,
			    "not known whether the memory is ready");
		because(f,
			gpu->ours ? "the loaded module does not report it" :
			"only the driver can read it, and the GPU is not bound");
	}
}

static void check_scrub_state(struct doctor *d, const struct gpu *gpu)
{
	/* "off" is what the finding scrubbing is about. */
	static const char *const good[] = {
		[GPU_SCRUB_UNKNOWN] = "not scrubbed since it was bound; the next open waits until it is",
		[GPU_SCRUB_RUNNING] = "its memory is being scrubbed",
		[GPU_SCRUB_CLEAN] = "its memory is all zeros, and it was not opened since",
		[GPU_SCRUB_DIRTY] = "it is or was open; the next open waits until it is scrubbed",
		[GPU_SCRUB_NONE] = NULL,
	};
	enum scrub_state state = scrub_state_of(gpu->scrub_state);
	g_autofree char *parameter = NULL, *said = NULL;
	struct finding *f;
	bool error, wanted;

	if (good[state])
		finding(d, SCRUB_STATE_GOOD, gpu->address, "%s", good[state]);
	if (state != GPU_SCRUB_FAILED)
		return;
	parameter = host_line(d->h, "/sys/module/" DRIVER_NAME "/parameters/scrub");
	wanted = parameter && *parameter == 'Y';
	said = last_word(d, gpu, &error);
	f = finding(d, wanted ? SCRUB_STATE_CLOSED : SCRUB_STATE_FAILED, gpu->address,
		    "its memory was not cleared");
	because(f, "%s%s", said && error ? said : "the last scrub failed; see the kernel's log",
		wanted ? "; opening the GPU fails until a scrub succeeds" : "");
}

/* ---- memory --------------------------------------------------------------------------------- */

static bool claimed(struct doctor *d, const struct gpu *gpu, const char *part)
{
	g_autofree char *name = g_strdup_printf(DRIVER_NAME " %s %s", gpu->address, part);
	bool found = false;
	size_t i;

	for (i = 0; i < d->iomem.count; i++)
		found |= !strcmp(d->iomem.range[i].name, name);
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
		finding(d, MEMORY_CLAIM_GOOD, gpu->address,
			"its memory is claimed in /proc/iomem");
		return;
	}
	f = finding(d, MEMORY_CLAIM_NONE, gpu->address, "%s not claimed in /proc/iomem",
		    usemem ? "resmem is" : resmem ? "usemem is" : "neither part is");
	because(f,
		"something else, such as a window of the host bridge, has claimed the range; the driver works, but another driver could use the same memory");
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
		f = finding(d, ALIGNMENT_UNKNOWN, gpu->address,
			    "not known whether its memory is aligned");
		because(f, "only root can see physical addresses");
		return;
	}
	size_text(pmd, size);
	size_text(d->h->page_size, page);
	if (gpu->usemem_base % pmd == 0) {
		finding(d, ALIGNMENT_GOOD, gpu->address,
			"its memory is aligned to %s, the size of a PMD entry with %s pages", size, page);
		return;
	}
	f = finding(d, ALIGNMENT_NONE, gpu->address, "its memory is not aligned to %s", size);
	because(f, "with %s pages, a PMD entry maps that much: all of it is mapped page by page",
		page);
}

void check_egm(struct doctor *d)
{
	char size[SIZE_MAX_TEXT];
	struct finding *f;
	uint64_t bytes;

	if (!answer_egm(d->answers, &bytes))
		return;
	if (!bytes) {
		finding(d, EGM_GOOD, NULL, "firmware sets aside no extended GPU memory");
		return;
	}
	/* DKMS leaves such a kernel alone, so its own driver has the GPUs. */
	if (other_driver_gives_egm(d)) {
		finding(d, EGM_GIVEN, NULL,
			"firmware sets aside %s of extended GPU memory, which this kernel's own driver gives to guests",
			size_text(bytes, size));
		return;
	}
	f = finding(d, EGM_UNUSED, NULL, "firmware sets aside %s of extended GPU memory",
		    size_text(bytes, size));
	because(f,
		"it is a part of the CPU's memory: this driver gives it to no guest, and the host does not use it");
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
