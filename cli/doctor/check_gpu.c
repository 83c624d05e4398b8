// SPDX-License-Identifier: GPL-2.0-only
/*
 * Checks each GPU: the device, what firmware says about its memory, its IOMMU
 * group, its driver and override, readiness, and scrubs.
 */
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "doctor/checks.h"
#include "facts/config.h"
#include "facts/elsewhere.h"
#include "facts/location.h"
#include "system/output.h"
#include "system/program.h"

/* ---- all GPUs ------------------------------------------------------------------------------- */

/* Of GPUs that might be expected to be supported. */
static const struct {
	uint16_t device;
	const char *what;
} others[] = {
	{ 0x3041, ", of Vera Rubin, whose memory comes as a CXL region of vfio-pci-core: assign it with vfio-pci" },
	{ 0x307f, ", of Vera Rubin, whose memory comes as a CXL region of vfio-pci-core: assign it with vfio-pci" },
	{ 0x2e12, ", the GB10 of DGX Spark, which has its memory in the CPU's memory and can't be assigned" },
};

/*
 * Reports NVIDIA's GPUs that are not supported but might be expected to be, and, if
 * there is no supported one, one that is there.
 */
static void check_other_gpus(struct doctor *d)
{
	const char *tables = answer(d->answers, "acpi-tables");
	bool stated = tables && strstr(tables, "nvidia,gpu-mem-base-pa"), named = d->gpus.count;
	g_auto(GStrv) names = host_list(d->h, DEVICES);
	size_t i, k;

	for (i = 0; names && names[i]; i++) {
		g_autofree char *class = NULL, *id = NULL;
		uint16_t device;

		if (names[i][strspn(names[i], "0123456789abcdefABCDEF:.")] ||
		    gpu_id(d->h, names[i], "vendor") != 0x10de)
			continue;
		device = gpu_id(d->h, names[i], "device");
		id = g_strdup_printf("%04x", device);
		class = host_line(d->h, DEVICES "/%s/class", names[i]);
		/* Another device, or a supported GPU. */
		if (!class || strncmp(class, "0x03", 4) || gpu_is_function(d->h, names[i]) ||
		    gpu_product(d->h, names[i]))
			continue;
		for (k = 0; k < G_N_ELEMENTS(others) && others[k].device != device; k++)
			;
		if (gpu_is_coherent(device) && stated)
			report(d, GPUS_NEW_ID, NULL, "gpu", names[i], "id", id, NULL);
		if (!named)
			report(d, GPUS_OTHERS, NULL, "gpu", names[i], "id", id, "what",
			       k < G_N_ELEMENTS(others) ? others[k].what : NULL, NULL);
		named = true;
	}
	if (!named) {
		g_autofree char *ids = gpu_ids_text();

		report(d, GPUS_NONE, NULL, "ids", ids, NULL);
	}
}

void check_gpus(struct doctor *d)
{
	g_autofree char *count = g_strdup_printf("%zu", d->gpus.count);

	check_other_gpus(d);
	if (d->gpus.count)
		report(d, GPUS_GOOD, NULL, "count", count, NULL);
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
	g_autofree char *id = g_strdup_printf("%04x:%04x", gpu->vendor, gpu->device);

	report(d, is_gone(d, gpu) ? DEVICE_GONE : DEVICE_GOOD, gpu->address, "product", gpu->product,
	       "id", id, NULL);
}

/* ---- firmware ------------------------------------------------------------------------------- */

static void check_firmware(struct doctor *d, const struct gpu *gpu)
{
	const char *tables = answer(d->answers, "acpi-tables");
	bool base = tables && strstr(tables, "nvidia,gpu-mem-base-pa");
	bool size = tables && strstr(tables, "nvidia,gpu-mem-size");
	g_autofree char *path = host_line(d->h, DEVICES "/%s/firmware_node/path", gpu->address);
	bool memory = gpu->mode == GPU_MODE_CARVE_OUT || gpu->mode == GPU_MODE_NO_CARVE_OUT;

	report(d, memory ? FIRMWARE_GOOD : gpu->mode == GPU_MODE_CORE_ONLY ? FIRMWARE_CORE_ONLY :
	       !tables ? FIRMWARE_NO_ACPI : !path ? FIRMWARE_NO_OBJECT :
	       !strncmp(tables, "denied", 6) ? FIRMWARE_UNKNOWN :
	       !base || !size ? FIRMWARE_NO_PROPERTIES : FIRMWARE_STATED, gpu->address,
	       "mode", gpu_mode_name(gpu->mode), "path", path,
	       "property", base ? "nvidia,gpu-mem-size" : size ? "nvidia,gpu-mem-base-pa" :
	       "nvidia,gpu-mem-base-pa or nvidia,gpu-mem-size", NULL);
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
	g_autofree char *given = boot_parameter(d->line, "vfio_pci.ids");
	g_autofree char *small = g_ascii_strdown(given ?: "", -1);

	return (ids && strstr(ids, id)) || strstr(small, id);
}

/* "bound to nvidia" or "not bound"; to be freed. */
static char *state_of(const struct gpu *gpu)
{
	return gpu->driver ? g_strdup_printf("bound to %s", gpu->driver) : g_strdup("not bound");
}

static void check_binding(struct doctor *d, const struct gpu *gpu)
{
	g_autofree char *by_driverctl = host_line(d->h, "/etc/driverctl.d/pci-%s", gpu->address);
	const struct config_line *wish = config_ignores(&d->wishes, gpu) ? NULL :
					 config_binds(&d->wishes, gpu);
	bool refused, vfio = gpu->driver && !strcmp(gpu->driver, "vfio-pci");
	g_autofree char *said = last_word(d, gpu, &refused), *state = state_of(gpu);
	g_autofree char *rescue = boot_is_elsewhere(d->h);
	g_autofree char *where = wish ? g_strdup_printf("%s:%u", wish->file, wish->line) : NULL;
	enum finding_case which;

	if (by_driverctl && strcmp(by_driverctl, DRIVER_NAME) &&
	    (gpu->ours || wish || (gpu->driver && !strcmp(gpu->driver, by_driverctl))))
		which = BINDING_DRIVERCTL;
	else if (gpu->ours)
		which = BINDING_GOOD;
	else if (said && refused && !gpu->driver)
		which = BINDING_REFUSED;
	else if (vfio)
		which = is_id_of_vfio(d, gpu) ? BINDING_VFIO_PCI_IDS : BINDING_VFIO_PCI;
	else if (wish)
		which = rescue ? BINDING_RESCUE : BINDING_OTHER;
	else
		which = BINDING_GOOD;
	report(d, which, gpu->address, "driver", by_driverctl, "state", state, "said", said,
	       "where", where, "rescue", rescue,
	       "boot", !wish ? "not configured for boot" : d->obstacle ?
	       "configured for every boot, but see the finding boot-rule" : "configured for every boot", NULL);
}

static void check_override(struct doctor *d, const struct gpu *gpu)
{
	g_autofree char *state = state_of(gpu);
	bool same = gpu->override && gpu->driver && !strcmp(gpu->override, gpu->driver);

	report(d, !gpu->override || same ? OVERRIDE_GOOD :
	       !strcmp(gpu->override, MODULE_NAME) ? OVERRIDE_HYPHENS : OVERRIDE_OTHER, gpu->address,
	       "what", same ? "driver_override is that of its driver" : "no driver_override",
	       "override", gpu->override, "state", state, NULL);
}

/* ---- IOMMU group ---------------------------------------------------------------------------- */

/* Whether a driver is vfio's, or does no DMA. */
static bool is_harmless(struct doctor *d, const char *address, const char *driver)
{
	/* Before Linux 6.1, vfio has no such folder. */
	return host_exists(d->h, DEVICES "/%s/vfio-dev", address) || strstr(driver, "vfio") ||
	       !strcmp(driver, "pcieport") || !strcmp(driver, "pci-stub");
}

static void check_group(struct doctor *d, const struct gpu *gpu)
{
	g_autofree char *host_driver = NULL, *shared = NULL, *said = NULL, *number = NULL, *name = NULL;
	g_autofree char *segment = g_strndup(gpu->address, strcspn(gpu->address, ":"));
	g_auto(GStrv) devices = NULL;
	bool refused;
	size_t i;

	name = host_line(d->h, "/sys/kernel/iommu_groups/%d/name", gpu->iommu_group);
	if (!g_strcmp0(name, NOIOMMU)) {
		report(d, IOMMU_GROUP_UNSAFE, gpu->address, "segment", segment, NULL);
		return;
	}
	if (gpu->iommu_group < 0) {
		said = last_word(d, gpu, &refused);
		/*
		 * Before Linux 7.2, some IOMMUs create the group when a driver is
		 * bound.
		 */
		refused &= said && strstr(said, "vfio refuses the device");
		report(d, gpu->ours || refused ? IOMMU_GROUP_NONE : IOMMU_GROUP_NONE_YET, gpu->address,
		       "why", gpu->ours ? "the GPU is bound without one" : "the bind was refused",
		       "segment", segment, NULL);
		return;
	}
	devices = gpu_group(d->h, gpu);
	for (i = 0; devices[i]; i++) {
		g_autofree char *driver = host_link_name(d->h, DEVICES "/%s/driver", devices[i]);

		if (driver && !host_driver && !is_harmless(d, devices[i], driver))
			host_driver = g_strdup_printf("%s (%s)", devices[i], driver);
	}
	shared = g_strjoinv(", ", devices);
	number = g_strdup_printf("%d", gpu->iommu_group);
	report(d, host_driver ? IOMMU_GROUP_USED : *shared ? IOMMU_GROUP_SHARED : IOMMU_GROUP_GOOD,
	       gpu->address, "group", number, "others", host_driver ?: shared, NULL);
}

/* ---- memory --------------------------------------------------------------------------------- */

static void check_readiness(struct doctor *d, const struct gpu *gpu)
{
	enum readiness readiness = readiness_of(gpu->readiness);
	bool error;
	g_autofree char *said = last_word(d, gpu, &error);

	if (!gpu->ours || gpu->mode == GPU_MODE_CORE_ONLY)
		return;
	report(d, readiness <= GPU_READY_UNKNOWN ? READINESS_GOOD :
	       readiness == GPU_READY_FAILED ? READINESS_FAILED : READINESS_UNKNOWN, gpu->address,
	       "what", readiness == GPU_READY ? "the C2C link and the memory are trained" :
	       "it was reset; the next access waits until the memory is ready",
	       "said", said && error ? said :
	       "a wait for the C2C link and the HBM failed: accesses get SIGBUS or EIO", NULL);
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
	g_autofree char *parameter = host_line(d->h, "/sys/module/" DRIVER_NAME "/parameters/scrub");
	bool error;
	g_autofree char *said = last_word(d, gpu, &error);

	if (good[state])
		report(d, SCRUB_STATE_GOOD, gpu->address, "what", good[state], NULL);
	else if (state == GPU_SCRUB_FAILED)
		report(d, parameter && *parameter == 'Y' ? SCRUB_STATE_CLOSED : SCRUB_STATE_FAILED,
		       gpu->address, "said", said && error ? said :
		       "the last scrub failed; see the kernel's log", NULL);
}

void check_gpu(struct doctor *d, const struct gpu *gpu)
{
	check_device(d, gpu);
	check_firmware(d, gpu);
	check_group(d, gpu);
	check_binding(d, gpu);
	check_override(d, gpu);
	check_readiness(d, gpu);
	check_scrub_state(d, gpu);
}
