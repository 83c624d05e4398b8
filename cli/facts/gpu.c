// SPDX-License-Identifier: GPL-2.0-only
/*
 * The GPUs of a host: see gpu.h.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "facts/gpu.h"
#include "nvgrace_gpu_ids.h"
#include "system/program.h"

#define VENDOR_NVIDIA 0x10de

#define GPU(device, name) { device, name },

static const struct {
	uint16_t device;
	const char *name;
} products[] = { NVGRACE_GPU_IDS(GPU) };

const char *const gpu_mode_words[] = { "carve-out", "no-carve-out", "core-only", NULL };
const char *const gpu_readiness_words[] = { "ready", "unknown", "failed", NULL };
const char *const gpu_scrub_words[] = {
	"off", "unknown", "scrubbing", "clean", "dirty", "failed", NULL
};

/* The word's place among words; that of their end for another one, and the next for NULL. */
static unsigned int place_of(const char *word, const char *const words[])
{
	unsigned int i;

	for (i = 0; words[i] && (!word || strcmp(word, words[i])); i++)
		;
	return word ? i : i + 1;
}

enum readiness readiness_of(const char *word)
{
	return place_of(word, gpu_readiness_words);
}

enum scrub_state scrub_state_of(const char *word)
{
	return place_of(word, gpu_scrub_words);
}

static const char *known_product(uint16_t device)
{
	size_t i;

	for (i = 0; i < G_N_ELEMENTS(products); i++)
		if (products[i].device == device)
			return products[i].name;
	return NULL;
}

bool gpu_is_function(struct host *h, const char *address)
{
	g_autofree char *link = host_link(h, DEVICES "/%s/physfn", address);

	return link;
}

const char *gpu_product(struct host *h, const char *address)
{
	uint16_t device = gpu_id(h, address, "device");
	const char *name = known_product(device);

	/* A virtual function can have its GPU's id. */
	if (gpu_id(h, address, "vendor") != VENDOR_NVIDIA || gpu_is_function(h, address))
		return NULL;
	if (!name && h->adds_id && h->adds_id(h, device))
		name = "GPU of an added id";
	return name;
}

bool gpu_is_coherent(uint16_t device)
{
	/* As in edk2-nvidia, TH500GpuDxe/core/GPUSupport.c. */
	static const struct {
		uint16_t first, last;
	} ranges[] = {
		{ 0x2341, 0x237f }, { 0x2941, 0x297f }, { 0x29c1, 0x29ff }, { 0x31a1, 0x31a1 },
		{ 0x31c1, 0x31ff }, { 0x3341, 0x337f },
	};
	size_t i;

	for (i = 0; i < G_N_ELEMENTS(ranges); i++)
		if (device >= ranges[i].first && device <= ranges[i].last)
			return true;
	return false;
}

bool gpu_has_alias(const struct gpu *gpu)
{
	return known_product(gpu->device);
}

char *gpu_ids_text(void)
{
	GString *text = g_string_new(NULL);
	size_t i;

	for (i = 0; i < G_N_ELEMENTS(products); i++)
		g_string_append_printf(text, "%s%04x:%04x (%s)", i ? ", " : "", VENDOR_NVIDIA,
				       products[i].device, products[i].name);
	return g_string_free(text, FALSE);
}

const char *gpu_mode_name(enum gpu_mode mode)
{
	return mode ? gpu_mode_words[mode - GPU_MODE_CARVE_OUT] : NULL;
}

int gpu_lock(const char *address, bool wait)
{
	/* Only root can open it, and locking it replaces a lock file. */
	g_autofree char *path = g_strdup_printf(DEVICES "/%s/rescan", address);
	int fd = open(path, O_WRONLY | O_CLOEXEC), error = errno;

	if (fd >= 0 && flock(fd, wait ? LOCK_EX : LOCK_EX | LOCK_NB)) {
		error = errno;
		close(fd);
		fd = -1;
	}
	errno = error;
	return fd;
}

uint16_t gpu_id(struct host *h, const char *address, const char *name)
{
	uint64_t value;

	if (host_u64(h, &value, DEVICES "/%s/%s", address, name) || value > UINT16_MAX)
		return UINT16_MAX;
	return value;
}

static uint64_t read_group(struct host *h, const char *address, const char *name)
{
	uint64_t value;

	return host_u64(h, &value, DEVICES "/%s/nvgrace_gpu/%s", address, name) ? GPU_UNKNOWN
										: value;
}

/* Frees an empty string and returns NULL. */
static char *null_if_empty(char *text)
{
	if (text && !*text)
		g_clear_pointer(&text, g_free);
	return text;
}

/* A slot's address file has no function: "0009:01:00". */
static char *find_slot(struct host *h, const char *address)
{
	g_auto(GStrv) slots = host_list(h, "/sys/bus/pci/slots");
	char *found = NULL;
	size_t i, length = strcspn(address, ".");

	for (i = 0; slots && slots[i] && !found; i++) {
		g_autofree char *at = host_line(h, "/sys/bus/pci/slots/%s/address", slots[i]);

		if (at && strlen(at) == length && !strncasecmp(at, address, length))
			found = g_strdup(slots[i]);
	}
	if (found)
		make_printable(found);
	return found;
}

char *gpu_override(struct host *h, const char *address)
{
	char *override = host_line(h, DEVICES "/%s/driver_override", address);

	/* The kernel prints "(null)" if there is none. */
	if (override && (!*override || !strcmp(override, "(null)"))) {
		g_clear_pointer(&override, g_free);
		errno = ENOENT;
	}
	return override;
}

char *gpu_verified_file(const char *address)
{
	return g_strdup_printf(RUN_DIR "/%s.json", address);
}

static void read_last_scrub(struct host *h, struct gpu *gpu)
{
	gpu->scrub_count = read_group(h, gpu->address, "scrub_count");
	gpu->scrub_time = GPU_UNKNOWN;
	gpu->scrub_ms = GPU_UNKNOWN;
	if (!gpu->scrub_count || gpu->scrub_count == GPU_UNKNOWN)
		return;
	gpu->scrub_result = null_if_empty(
		host_line(h, DEVICES "/%s/nvgrace_gpu/scrub_result", gpu->address));
	gpu->scrub_time = read_group(h, gpu->address, "scrub_time");
	gpu->scrub_ms = read_group(h, gpu->address, "scrub_ms");
}

int gpu_read(struct host *h, const char *address, struct gpu *gpu)
{
	g_autofree char *group = NULL, *mode = NULL;
	uint64_t number;
	size_t i;

	memset(gpu, 0, sizeof(*gpu));
	snprintf(gpu->address, sizeof(gpu->address), "%s", address);
	if (strlen(address) >= sizeof(gpu->address) || strchr(address, '/') ||
	    !host_exists(h, DEVICES "/%s", address)) {
		errno = ENOENT;
		return -1;
	}
	gpu->vendor = gpu_id(h, address, "vendor");
	gpu->device = gpu_id(h, address, "device");
	gpu->product = gpu_product(h, address);
	if (host_u64(h, &gpu->functions, DEVICES "/%s/sriov_numvfs", address))
		gpu->functions = 0;
	if (host_int(h, &gpu->numa_node, DEVICES "/%s/numa_node", address) || gpu->numa_node < 0)
		gpu->numa_node = -1;

	gpu->iommu_group = -1;
	group = host_link_name(h, DEVICES "/%s/iommu_group", address);
	if (group && parse_u64(group, &number) && number <= INT32_MAX)
		gpu->iommu_group = number;
	gpu->driver = null_if_empty(host_link_name(h, DEVICES "/%s/driver", address));
	gpu->ours = gpu->driver && !strcmp(gpu->driver, DRIVER_NAME);
	gpu->override = gpu_override(h, address);
	gpu->serial = null_if_empty(host_line(h, DEVICES "/%s/serial_number", address));
	for (i = 0; gpu->serial && gpu->serial[i]; i++)
		gpu->serial[i] = tolower((unsigned char)gpu->serial[i]);
	gpu->slot = find_slot(h, address);

	/*
	 * If another driver has the device, these files are missing: all is
	 * unknown.
	 */
	mode = host_line(h, DEVICES "/%s/nvgrace_gpu/mode", address);
	i = place_of(mode, gpu_mode_words) + GPU_MODE_CARVE_OUT;
	if (i <= GPU_MODE_CORE_ONLY)
		gpu->mode = i;
	gpu->readiness = null_if_empty(host_line(h, DEVICES "/%s/nvgrace_gpu/readiness", address));
	gpu->scrub_state =
		null_if_empty(host_line(h, DEVICES "/%s/nvgrace_gpu/scrub_state", address));
	gpu->scrub_progress = read_group(h, address, "scrub_progress");
	read_last_scrub(h, gpu);
	gpu->usemem_size = read_group(h, address, "usemem_size");
	gpu->usemem_bar_size = read_group(h, address, "usemem_bar_size");
	gpu->usemem_base = read_group(h, address, "usemem_base");
	gpu->resmem_size = read_group(h, address, "resmem_size");
	gpu->resmem_bar_size = read_group(h, address, "resmem_bar_size");
	gpu->resmem_base = read_group(h, address, "resmem_base");
	return 0;
}

void gpu_free(struct gpu *gpu)
{
	g_free(gpu->driver);
	g_free(gpu->override);
	g_free(gpu->slot);
	g_free(gpu->serial);
	g_free(gpu->readiness);
	g_free(gpu->scrub_state);
	g_free(gpu->scrub_result);
	memset(gpu, 0, sizeof(*gpu));
}

uint64_t gpu_memory_size(const struct gpu *gpu)
{
	if (gpu->usemem_size == GPU_UNKNOWN)
		return GPU_UNKNOWN;
	return gpu->usemem_size + (gpu->resmem_size == GPU_UNKNOWN ? 0 : gpu->resmem_size);
}

void gpus_find(struct host *h, struct gpus *gpus)
{
	g_auto(GStrv) names = host_list(h, DEVICES);
	size_t i;

	memset(gpus, 0, sizeof(*gpus));
	for (i = 0; names && names[i]; i++) {
		/* A record can have a folder of any name, which would be printed. */
		if (names[i][strspn(names[i], "0123456789abcdefABCDEF:.")])
			continue;
		/* Read two files first: most devices are not supported. */
		if (!gpu_product(h, names[i]))
			continue;
		gpus->gpu = g_renew(struct gpu, gpus->gpu, gpus->count + 1);
		if (gpu_read(h, names[i], &gpus->gpu[gpus->count]) ||
		    !gpus->gpu[gpus->count].product)
			gpu_free(&gpus->gpu[gpus->count]); /* unplugged meanwhile */
		else
			gpus->count++;
	}
}

void gpus_free(struct gpus *gpus)
{
	size_t i;

	for (i = 0; i < gpus->count; i++)
		gpu_free(&gpus->gpu[i]);
	g_free(gpus->gpu);
	memset(gpus, 0, sizeof(*gpus));
}

int gpu_pci_errors(struct host *h, const char *address, const char *severity, uint64_t *count)
{
	g_autofree char *text = host_read(h, NULL, DEVICES "/%s/aer_dev_%s", address, severity);
	const char *at = text ? strstr(text, "TOTAL_ERR_") : NULL;
	unsigned long long sum;
	int rc = -1;

	if (at && sscanf(at, "%*s %llu", &sum) == 1) {
		*count = sum;
		rc = 0;
	} else if (text) {
		errno = EINVAL;
	}
	return rc;
}
