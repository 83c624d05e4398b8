// SPDX-License-Identifier: GPL-2.0-only
/*
 * Computes the guest: see plan.h. Only guest_facts_read() reads the host.
 */
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "facts/answers.h"
#include "guest/plan.h"
#include "system/output.h"

#define GiB (1ULL << 30)

/* A BAR or a guest's memory of this size is a mistake. */
#define SIZE_LIMIT (1ULL << 44)

/*
 * QEMU's window for 64-bit BARs has this size without highmem-mmio-size, and
 * never less. NVIDIA's guide to Grace and KubeVirt reserve as much for each
 * GPU.
 */
#define WINDOW_DEFAULT (512 * GiB)

/* In NVIDIA's published command line for one GH200. */
#define WINDOW_PUBLISHED (4096 * GiB)

/* QEMU aligns a guest's memory to this on Arm, whatever the host's pages are. */
#define QEMU_ALIGNMENT (2ULL << 20)

/* KVM's limit for GICv3. */
enum { CPUS_MAX = 512 };

enum { QEMU_NODES_MAX = 128 };

/* For each GPU, unless the command line says another number. */
#define MEMORY_OF_GPU (64 * GiB)
enum { CPUS_OF_GPU = 16 };

/* ---- facts ---------------------------------------------------------------------------------- */

/* The node with processors that is nearest to a GPU; -1: not known. */
static int nearest_node(const struct numa *numa, int wanted)
{
	const struct numa_node *from = NULL;
	size_t i, best = numa->count, cpus = 0;

	for (i = 0; i < numa->count; i++) {
		if (numa->node[i].id == wanted)
			from = &numa->node[i];
		cpus += !!numa->node[i].cpus;
	}
	if (from && from->cpus)
		return wanted;
	for (i = 0; i < numa->count; i++) {
		if (!numa->node[i].cpus || (cpus > 1 && !(from && from->distance)))
			continue;
		if (best == numa->count ||
		    (from && from->distance && from->distance[i] < from->distance[best]))
			best = i;
	}
	return best < numa->count ? numa->node[best].id : -1;
}

static void read_hugepages(struct host *h, struct guest_facts *facts)
{
	char **names = host_list(h, "/sys/kernel/mm/hugepages");
	struct hugepages *pages;
	unsigned long long kib;
	size_t i;

	for (i = 0; names && names[i]; i++) {
		if (sscanf(names[i], "hugepages-%llukB", &kib) != 1 || !kib || kib >= SIZE_LIMIT >> 10)
			continue;
		facts->hugepages = xrealloc(facts->hugepages,
					    (facts->hugepage_sizes + 1) * sizeof(*pages));
		pages = &facts->hugepages[facts->hugepage_sizes++];
		*pages = (struct hugepages){ .size = kib << 10 };
		if (host_u64(h, &pages->free, "/sys/kernel/mm/hugepages/%s/free_hugepages",
			     names[i]))
			pages->free = 0;
	}
	host_free_list(names);
}

static void read_kernel(struct host *h, struct answers *a, struct guest_facts *facts)
{
	const char *config = answer(a, "kernel-config"), *kvm = answer(a, "kvm");
	char *features = host_line(h, "/sys/bus/pci/drivers/" DRIVER_NAME "/features");
	char *bits = kvm ? field_value(kvm, "address-bits") : NULL;
	uint64_t number;

	facts->config_known = config;
	facts->type1 = config_option(config, "VFIO_IOMMU_TYPE1") != 'n' ||
		       host_exists(h, "/sys/module/vfio_iommu_type1");
	facts->iommufd = config_option(config, "IOMMUFD") != 'n' &&
			 config_option(config, "VFIO_DEVICE_CDEV") != 'n';
	facts->dmabuf = features ? has_word(features, "dmabuf") :
			config_option(config, "VFIO_PCI_DMABUF") != 'n';
	free(features);
	facts->nesting = config_option(config, "ARM_SMMU_V3_IOMMUFD") != 'n';
	if (bits && parse_u64(bits, &number) && number <= 64)
		facts->address_bits = number;
	free(bits);
}

static void read_place(struct host *h, const struct numa *numa, const struct gpu *gpu,
		       struct place *place)
{
	char *speed = host_line(h, "/sys/bus/pci/devices/%s/max_link_speed", gpu->address);

	gpu_bars(h, gpu, place->bars);
	place->iommu = gpu_iommu(h, gpu);
	place->group = gpu_group(h, gpu);
	place->node = nearest_node(numa, gpu->numa_node);
	place->vfio = host_exists(h, "/sys/bus/pci/devices/%s/vfio-dev", gpu->address);
	/* "32.0 GT/s PCIe", or "Unknown" */
	place->link_speed = speed ? strtoul(speed, NULL, 10) : 0;
	free(speed);
}

void guest_facts_add(struct host *h, struct guest_facts *facts, const char *address)
{
	struct gpus *others = &facts->others;
	size_t i;

	for (i = 0; i < others->count; i++)
		if (!strcmp(others->gpu[i].address, address))
			return;
	others->gpu = xrealloc(others->gpu, (i + 1) * sizeof(*others->gpu));
	/* If it is gone, it has no driver, which the plan refuses. */
	gpu_read(h, address, &others->gpu[i]);
	facts->other_place = xrealloc(facts->other_place, (i + 1) * sizeof(struct place));
	read_place(h, &facts->numa, &others->gpu[i], &facts->other_place[i]);
	others->count++;
}

void guest_facts_read(struct host *h, struct answers *a, const struct gpus *gpus,
		      struct guest_facts *facts)
{
	/* Debian, Ubuntu and RHEL; Fedora; SUSE. */
	static const char *const firmware[] = {
		"/usr/share/AAVMF/AAVMF_CODE.fd",
		"/usr/share/edk2/aarch64/QEMU_EFI-silent-pflash.raw",
		"/usr/share/qemu/aavmf-aarch64-code.bin",
	};
	size_t i;

	memset(facts, 0, sizeof(*facts));
	facts->gpus = gpus;
	numa_read(h, &facts->numa);
	facts->place = xcalloc(gpus->count, sizeof(*facts->place));
	for (i = 0; i < gpus->count; i++)
		read_place(h, &facts->numa, &gpus->gpu[i], &facts->place[i]);
	qemus_read(a, &facts->qemu);
	libvirts_read(a, &facts->libvirt);
	read_hugepages(h, facts);
	for (i = 0; i < ARRAY_SIZE(firmware); i++)
		if (!facts->firmware && host_exists(h, "%s", firmware[i]))
			facts->firmware = firmware[i];
	read_kernel(h, a, facts);
	facts->libvirt_iommufd = true;
	facts->machine = answer(a, "machine");
	facts->page_size = h->page_size;
}

void guest_facts_ask(struct answers *a, struct guest_facts *facts)
{
	const char *said = answer(a, "libvirt-capabilities");

	facts->libvirt_iommufd = !said || strstr(said, "iommufd: yes");
	if (!answer_egm(a, &facts->egm))
		facts->egm = 0;
}

static void free_places(struct place *place, size_t count)
{
	size_t i;

	for (i = 0; place && i < count; i++) {
		free(place[i].iommu);
		host_free_list(place[i].group);
	}
	free(place);
}

void guest_facts_free(struct guest_facts *facts)
{
	free_places(facts->place, facts->gpus ? facts->gpus->count : 0);
	free_places(facts->other_place, facts->others.count);
	gpus_free(&facts->others);
	numa_free(&facts->numa);
	vmms_free(&facts->qemu);
	vmms_free(&facts->libvirt);
	free(facts->hugepages);
}

static const struct place *place_of(const struct guest_facts *facts, const struct gpu *gpu)
{
	return &facts->place[gpu - facts->gpus->gpu];
}

static const struct numa_node *host_node(const struct guest_facts *facts, int id)
{
	size_t i;

	for (i = 0; i < facts->numa.count; i++)
		if (facts->numa.node[i].id == id)
			return &facts->numa.node[i];
	return NULL;
}

/* ---- the plan's texts ----------------------------------------------------------------------- */

static enum exit_status printf_like(4, 5) refuse(struct guest_plan *plan, enum exit_status status,
						 const struct gpu *gpu, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	plan->refused = xvasprintf(fmt, args);
	va_end(args);
	plan->about = gpu ? gpu->address : NULL;
	return status;
}

static void printf_like(3, 4) because(struct guest_plan *plan, enum why why, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	plan->why[why] = xvasprintf(fmt, args);
	va_end(args);
}

static void printf_like(2, 3) note(struct guest_plan *plan, const char *fmt, ...)
{
	char *text, *all;
	va_list args;

	va_start(args, fmt);
	text = xvasprintf(fmt, args);
	va_end(args);
	all = xasprintf("%s%s\n", plan->notes ? plan->notes : "", text);
	free(text);
	free(plan->notes);
	plan->notes = all;
}

char *guest_size(uint64_t bytes)
{
	static const char units[] = "KMGT";
	int i;

	for (i = sizeof(units) - 2; i > 0 && bytes % (1ULL << (10 * (i + 1))); i--)
		;
	return xasprintf("%llu%c", (unsigned long long)(bytes >> (10 * (i + 1))), units[i]);
}

/* ---- BARs and the window -------------------------------------------------------------------- */

static bool is_power_of_two(uint64_t value)
{
	return value && !(value & (value - 1));
}

static uint64_t round_up(uint64_t value, uint64_t unit)
{
	return (value + unit - 1) / unit * unit;
}

/*
 * A bridge's window is as aligned as its largest BAR, so that of the next port
 * begins at a multiple of that.
 */
static void add_bars(struct guest_device *g, const uint64_t bars[BARS])
{
	uint64_t largest = 1;
	size_t i;

	g->bars = 0;
	for (i = 0; i < BARS; i++) {
		g->bars += bars[i];
		if (bars[i] > largest)
			largest = bars[i];
	}
	g->largest = largest;
	g->span = round_up(g->bars, largest);
}

static uint64_t window_for(uint64_t bytes)
{
	uint64_t window = WINDOW_DEFAULT;

	while (window < bytes)
		window <<= 1;
	return window;
}

/*
 * QEMU puts the window above 256 GiB and above the guest's memory, at a
 * multiple of the window's size.
 */
static unsigned int bits_for(uint64_t window, uint64_t memory)
{
	uint64_t below = memory + 2 * GiB < 257 * GiB ? 257 * GiB : memory + 2 * GiB;
	uint64_t end = round_up(below, window) + window;
	unsigned int bits = 40;

	while (1ULL << bits < end)
		bits++;
	return bits;
}

/* Whether the guest has root complexes besides pcie.0, where one is enough otherwise. */
static bool has_expanders(const struct guest_plan *plan)
{
	return plan->accel ||
	       (!plan->flat && (plan->cpu_nodes > 1 || plan->devices > plan->gpus));
}

static void plan_least(struct guest_plan *plan)
{
	const struct guest_device *g;
	uint64_t end = 0;

	/*
	 * Firmware gives each root complex a range, one after the other. The small
	 * BARs of bus 0 come first and take a unit of the largest.
	 */
	for (g = plan->device; has_expanders(plan) && g < plan->device + plan->devices; g++)
		if (g->largest > end)
			end = g->largest;
	/* Devices with small BARs come last, behind those of the last GPU. */
	for (g = plan->device; g < plan->device + plan->devices; g++)
		end = round_up(end, g->largest) + g->bars;
	plan->window_min = window_for(end);
	plan->address_bits = bits_for(plan->window_min, plan->memory);
}

static bool are_bars(const uint64_t bars[BARS])
{
	size_t i;

	for (i = 0; i < BARS; i++)
		if (bars[i] && (!is_power_of_two(bars[i]) || bars[i] > SIZE_LIMIT))
			return false;
	return true;
}

void guest_plan_all(const struct guest_facts *facts, struct guest_plan *plan)
{
	const struct gpu *gpu;
	size_t i;

	memset(plan, 0, sizeof(*plan));
	for (i = 0; i < facts->gpus->count && plan->gpus < GUEST_GPUS_MAX; i++) {
		gpu = &facts->gpus->gpu[i];
		if ((gpu->mode != GPU_MODE_CARVE_OUT && gpu->mode != GPU_MODE_NO_CARVE_OUT) ||
		    !facts->place[i].bars[4] || !are_bars(facts->place[i].bars))
			continue;
		plan->device[plan->gpus].pci = gpu;
		plan->device[plan->gpus].place = &facts->place[i];
		add_bars(&plan->device[plan->gpus++], facts->place[i].bars);
	}
	plan->devices = plan->gpus;
	plan_least(plan);
}

/*
 * A window with room to spare: no smaller than NVIDIA's published command lines
 * and KubeVirt have it, for any number of GPUs.
 */
static uint64_t ample_window(const struct guest_plan *plan)
{
	uint64_t ample = GiB;
	size_t i;

	for (i = 0; i < plan->devices; i++)
		ample += i < plan->gpus && plan->device[i].span < WINDOW_DEFAULT ?
			 WINDOW_DEFAULT : plan->device[i].span;
	return window_for(ample < WINDOW_PUBLISHED ? WINDOW_PUBLISHED : ample);
}

/* Whether the least window is possible with this QEMU and this KVM. */
static bool fits(const struct guest_facts *facts, const struct guest_plan *plan)
{
	if (plan->qemu && !vmm_has(plan->qemu, QEMU_WINDOW) && plan->window_min > WINDOW_DEFAULT)
		return false;
	return !facts->address_bits || plan->address_bits <= facts->address_bits;
}

static enum exit_status plan_window(const struct guest_facts *facts, struct guest_plan *plan)
{
	char bars[SIZE_MAX_TEXT], size[SIZE_MAX_TEXT];
	uint64_t all = 0;
	bool ample;
	size_t i;

	for (i = 0; i < plan->devices; i++)
		all += plan->device[i].bars;
	size_text(all, bars);
	plan_least(plan);
	if (!plan->accel && has_expanders(plan) && !fits(facts, plan)) {
		plan->flat = true;
		plan_least(plan);
		if (fits(facts, plan))
			note(plan, "all devices are on pcie.0, so that the guest does not see which NUMA node each is near: the window for the BARs has no room for more root complexes");
	}
	if (plan->qemu && !vmm_has(plan->qemu, QEMU_WINDOW)) {
		if (plan->window_min > WINDOW_DEFAULT)
			return refuse(plan, EXIT_REFUSED, NULL,
				      "the BARs have %s and need a window of %s, but %s has no -machine highmem-mmio-size; install %s or later, or assign fewer GPUs",
				      bars, size_text(plan->window_min, size), plan->qemu->path,
				      vmm_since(QEMU_WINDOW));
		plan->window = WINDOW_DEFAULT;
		note(plan, "%s has no -machine highmem-mmio-size (%s or later): the window has %s, which is enough for these BARs",
		     plan->qemu->path, vmm_since(QEMU_WINDOW), size_text(plan->window, size));
	} else {
		plan->window = ample_window(plan);
		plan->window_set = true;
	}
	ample = !facts->address_bits ||
		bits_for(plan->window, plan->memory) <= facts->address_bits;
	if (!ample)
		plan->window = plan->window_min;
	plan->address_bits = bits_for(plan->window, plan->memory);
	if (facts->address_bits && plan->address_bits > facts->address_bits)
		return refuse(plan, EXIT_REFUSED, NULL,
			      "the BARs have %s; the guest's addresses need %u bits, and KVM gives it %u; assign fewer GPUs to each guest",
			      bars, plan->address_bits, facts->address_bits);
	if (plan->window_set)
		because(plan, WHY_WINDOW,
			"the 64-bit BARs have %s (BAR4 and BAR2 from the driver's sysfs files usemem_bar_size and resmem_bar_size, the others from \"resource\"), each device's aligned to its largest; QEMU's own window has 512 GiB; %s",
			bars, ample ? "each GPU gets at least that much, and there is room to spare, as in NVIDIA's guide to Grace" :
			"it is no larger than necessary, because KVM gives the guest few address bits");
	return EXIT_OK;
}

/* ---- the GPUs ------------------------------------------------------------------------------- */

static bool is_named(const struct guest_plan *plan, const char *address)
{
	size_t i;

	for (i = 0; i < plan->devices; i++)
		if (!strcmp(plan->device[i].pci->address, address))
			return true;
	return false;
}

/* A device that is no GPU. */
static enum exit_status check_other(struct guest_plan *plan, const struct gpu *pci,
				    const struct place *place)
{
	if (pci->product)
		return refuse(plan, EXIT_USAGE_ERROR, pci,
			      "a GPU; give its address without --device");
	if (!place->vfio)
		return refuse(plan, EXIT_REFUSED, pci,
			      "%s%s, not to a driver of vfio; bind it to vfio-pci first",
			      pci->driver ? "bound to " : "not bound",
			      pci->driver ? pci->driver : "");
	if (!are_bars(place->bars))
		return refuse(plan, EXIT_REFUSED, pci,
			      "a BAR has an impossible size; check \"resource\" in its sysfs folder");
	return EXIT_OK;
}

static enum exit_status check_memory(struct guest_plan *plan, const struct gpu *gpu,
				     const struct place *place)
{
	char size[SIZE_MAX_TEXT];

	if (!gpu->ours)
		return refuse(plan, EXIT_REFUSED, gpu,
			      "%s%s; only " DRIVER_NAME " knows the size of its memory; run \"" PROGRAM " bind --persist %s\" first",
			      gpu->driver ? "bound to " : "not bound",
			      gpu->driver ? gpu->driver : "", gpu->address);
	if (gpu->mode == GPU_MODE_NONE || gpu->mode == GPU_MODE_CORE_ONLY)
		return refuse(plan, EXIT_REFUSED, gpu,
			      "the driver reports no memory; see \"" PROGRAM " doctor %s\"",
			      gpu->address);
	if (!place->bars[4] || !are_bars(place->bars))
		return refuse(plan, EXIT_REFUSED, gpu,
			      "a BAR has an impossible size (BAR4: %s); check nvgrace_gpu/usemem_bar_size, resmem_bar_size and \"resource\" in its sysfs folder",
			      size_text(place->bars[4], size));
	return EXIT_OK;
}

static enum exit_status check_shared(struct guest_plan *plan, const struct gpu *gpu,
				     const struct place *place)
{
	const struct gpu *other;
	size_t i;

	if (gpu->iommu_group < 0)
		return refuse(plan, EXIT_REFUSED, gpu,
			      "in no IOMMU group, which vfio needs; see \"" PROGRAM " doctor\"");
	for (i = 0; place->group[i]; i++)
		if (!is_named(plan, place->group[i]))
			return refuse(plan, EXIT_REFUSED, gpu,
				      "shares IOMMU group %d with %s: only one guest can have both; name both, with --device what is no GPU, or turn on ACS in the firmware's setup",
				      gpu->iommu_group, place->group[i]);
	for (i = 0; i < plan->gpus; i++) {
		other = plan->device[i].pci;
		if (other != gpu && gpu->usemem_base != GPU_UNKNOWN &&
		    other->usemem_base != GPU_UNKNOWN &&
		    gpu->usemem_base < other->usemem_base + gpu_memory_size(other) &&
		    other->usemem_base < gpu->usemem_base + gpu_memory_size(gpu))
			return refuse(plan, EXIT_REFUSED, gpu,
				      "its memory is also that of %s; check firmware's tables",
				      other->address);
	}
	return EXIT_OK;
}

static void add_device(struct guest_plan *plan, const struct gpu *pci, const struct place *place)
{
	struct guest_device *g = &plan->device[plan->devices];

	if (plan->devices < plan->gpus)
		snprintf(g->id, sizeof(g->id), "gpu%zu", plan->devices);
	else
		snprintf(g->id, sizeof(g->id), "dev%zu", plan->devices - plan->gpus);
	g->pci = pci;
	g->place = place;
	/* The slower of port and device is what QEMU shows. Its ports have 16 GT/s. */
	g->port_speed = place->link_speed >= 64 ? 64 : place->link_speed >= 32 ? 32 : 0;
	add_bars(g, place->bars);
	plan->devices++;
}

static enum exit_status plan_devices(const struct guest_facts *facts, const struct gpu **gpu,
				     size_t count, struct guest_plan *plan)
{
	enum exit_status status = EXIT_OK;
	struct guest_device *g;
	size_t i;

	if (!count)
		return refuse(plan, EXIT_NO_DEVICE, NULL,
			      "no GPU is bound to " DRIVER_NAME "; run \"" PROGRAM " bind --persist --all\" first");
	if (count > GUEST_GPUS_MAX)
		return refuse(plan, EXIT_REFUSED, NULL,
			      "%zu GPUs need %zu NUMA nodes, and QEMU has 128; name at most %d",
			      count, count * NODES_OF_GPU, GUEST_GPUS_MAX);
	if (facts->others.count > GUEST_OTHERS_MAX)
		return refuse(plan, EXIT_REFUSED, NULL, "%zu times --device; give at most %d",
			      facts->others.count, GUEST_OTHERS_MAX);
	if (facts->others.count && plan->format == FORMAT_KUBEVIRT)
		return refuse(plan, EXIT_USAGE_ERROR, NULL,
			      "--device is not for KubeVirt, which assigns devices by the names of resources; add yours to permittedHostDevices and hostDevices");
	plan->gpus = count;
	for (i = 0; i < count; i++)
		add_device(plan, gpu[i], place_of(facts, gpu[i]));
	for (i = 0; i < facts->others.count; i++)
		add_device(plan, &facts->others.gpu[i], &facts->other_place[i]);
	for (i = 0; i < plan->devices && !status; i++) {
		g = &plan->device[i];
		status = (i < count ? check_memory : check_other)(plan, g->pci, g->place);
		if (!status)
			status = check_shared(plan, g->pci, g->place);
	}
	return status;
}

/* ---- programs ------------------------------------------------------------------------------- */

static const struct vmm *newest(const struct vmms *vmms)
{
	const struct vmm *found = NULL, *vmm;
	size_t i;

	for (i = 0; i < vmms->count; i++) {
		vmm = &vmms->vmm[i];
		if (!found || vmm->major > found->major ||
		    (vmm->major == found->major && vmm->minor > found->minor))
			found = vmm;
	}
	return found;
}

static enum exit_status plan_programs(const struct guest_facts *facts,
				      const struct guest_wish *wish, struct guest_plan *plan)
{
	const struct vmm *qemu = newest(&facts->qemu), *libvirt = newest(&facts->libvirt);

	if (facts->machine && strcmp(facts->machine, "aarch64"))
		return refuse(plan, EXIT_REFUSED, NULL,
			      "this host is a %s machine; these GPUs belong to aarch64 processors",
			      facts->machine);
	plan->format = wish->format;
	if (plan->format == FORMAT_AUTO)
		plan->format = libvirt ? FORMAT_LIBVIRT : FORMAT_QEMU;
	/* KubeVirt has both in its containers. */
	if (plan->format == FORMAT_KUBEVIRT)
		return EXIT_OK;
	if (!qemu)
		return refuse(plan, EXIT_REFUSED, NULL,
			      "no QEMU in /usr/bin, /usr/libexec and /usr/local/bin; install %s or later, or use --format=kubevirt",
			      vmm_since(QEMU_WINDOW));
	if (!libvirt && plan->format == FORMAT_LIBVIRT)
		return refuse(plan, EXIT_REFUSED, NULL,
			      "no libvirt in /usr/sbin; install %s or later, or use --format=qemu",
			      vmm_since(LIBVIRT_VARIANT));
	plan->qemu = qemu;
	plan->libvirt = plan->format == FORMAT_LIBVIRT ? libvirt : NULL;
	if (!vmm_has(qemu, QEMU_INITIATOR))
		return refuse(plan, EXIT_REFUSED, NULL,
			      "%s has no -object acpi-generic-initiator, without which the guest can't add GPU memory as NUMA nodes; install %s or later",
			      qemu->path, vmm_since(QEMU_INITIATOR));
	return EXIT_OK;
}

/* ---- DMA ------------------------------------------------------------------------------------ */

/* Why there can be no iommufd, to be freed; NULL: there can. */
static char *iommufd_obstacle(const struct guest_facts *facts, const struct guest_plan *plan)
{
	if (!facts->iommufd)
		return xstrdup(facts->config_known ?
			       "the kernel lacks CONFIG_IOMMUFD or CONFIG_VFIO_DEVICE_CDEV" :
			       "not known whether the kernel has CONFIG_IOMMUFD and CONFIG_VFIO_DEVICE_CDEV");
	if (plan->qemu && !vmm_has(plan->qemu, QEMU_IOMMUFD))
		return xasprintf("%s has no -object iommufd; %s or later has it", plan->qemu->path,
				 vmm_since(QEMU_IOMMUFD));
	if (plan->libvirt && !vmm_has(plan->libvirt, LIBVIRT_IOMMUFD))
		return xasprintf("%s has no <driver iommufd>; %s or later has it",
				 plan->libvirt->path, vmm_since(LIBVIRT_IOMMUFD));
	if (plan->libvirt && !facts->libvirt_iommufd)
		return xstrdup("libvirt's domcapabilities say that its QEMU has no iommufd");
	return NULL;
}

char *guest_accel_obstacle(const struct guest_facts *facts, const struct guest_plan *plan)
{
	const struct place *place;
	char *why;
	size_t i;

	if (plan->qemu && !vmm_has(plan->qemu, QEMU_ACCEL))
		return xasprintf("%s has no -device arm-smmuv3,accel=on; %s or later has it",
				 plan->qemu->path, vmm_since(QEMU_ACCEL));
	if (plan->libvirt && !vmm_has(plan->libvirt, LIBVIRT_ACCEL))
		return xasprintf("%s has no <iommu model='smmuv3'> with accel; %s or later has it",
				 plan->libvirt->path, vmm_since(LIBVIRT_ACCEL));
	why = iommufd_obstacle(facts, plan);
	if (why)
		return why;
	if (!facts->nesting)
		return xstrdup("the kernel lacks CONFIG_ARM_SMMU_V3_IOMMUFD, which Linux 6.13 added");
	for (i = 0; i < plan->devices; i++) {
		place = plan->device[i].place;
		if (!place->iommu)
			return xasprintf("not known which SMMU %s has",
					 plan->device[i].pci->address);
		if (strncmp(place->iommu, "smmu3.", 6))
			return xasprintf("the IOMMU of %s is %s, not an SMMUv3",
					 plan->device[i].pci->address, place->iommu);
		if (place->group[0])
			return xasprintf("%s is not alone in its IOMMU group",
					 plan->device[i].pci->address);
	}
	return NULL;
}

static enum exit_status plan_dma(const struct guest_facts *facts, const struct guest_wish *wish,
				 struct guest_plan *plan)
{
	char *no_iommufd = iommufd_obstacle(facts, plan), *no_accel;
	enum choice accel = plan->format == FORMAT_KUBEVIRT ? CHOICE_ON : wish->accel;
	bool only_iommufd = facts->config_known && !facts->type1;
	enum exit_status status = EXIT_OK;

	no_accel = guest_accel_obstacle(facts, plan);
	/* KubeVirt has no choice, and a wish is granted: the doctor's finding says what fails. */
	if (!no_accel && !facts->dmabuf && accel == CHOICE_AUTO)
		no_accel = xstrdup("the GPU could not access its own memory through the guest's addresses, for which vfio must export that memory as a dma-buf: Linux 6.19 or later with CONFIG_VFIO_PCI_DMABUF");
	if (accel == CHOICE_ON && no_accel)
		status = refuse(plan, EXIT_REFUSED, NULL, "no accelerated SMMUv3: %s", no_accel);
	else if (accel == CHOICE_ON && wish->iommufd == CHOICE_OFF)
		status = refuse(plan, EXIT_USAGE_ERROR, NULL,
				"an accelerated SMMUv3 needs iommufd; leave out --iommufd=off");
	else if (wish->iommufd == CHOICE_ON && no_iommufd)
		status = refuse(plan, EXIT_REFUSED, NULL, "no iommufd: %s", no_iommufd);
	else if (only_iommufd && (no_iommufd || wish->iommufd == CHOICE_OFF))
		status = refuse(plan, EXIT_REFUSED, NULL,
				"the kernel has no type1 (CONFIG_VFIO_IOMMU_TYPE1), and no iommufd: %s",
				no_iommufd ? no_iommufd : "--iommufd=off");
	plan->accel = !status && accel != CHOICE_OFF && !no_accel && wish->iommufd != CHOICE_OFF;
	plan->iommufd = !status && (plan->accel || wish->iommufd == CHOICE_ON || only_iommufd);
	if (!status && !plan->accel && accel != CHOICE_OFF)
		note(plan, "no accelerated SMMUv3, so the guest has no IOMMU and no shared virtual addressing: %s",
		     no_accel ? no_accel : "--iommufd=off");
	if (plan->accel)
		note(plan, "the guest's kernel needs CONFIG_ARM_SMMU_V3_SVA and CONFIG_DEVICE_PRIVATE, or CUDA does not start: if it lacks them, as Debian 12 and 13 do, use %s",
		     plan->format == FORMAT_KUBEVIRT ? "another kernel" : "--accel-smmu=off");
	/* KubeVirt's guests always have an SMMU. */
	plan->hide_ats = !plan->accel && plan->qemu && vmm_has(plan->qemu, QEMU_ATS);
	if (plan->hide_ats)
		because(plan, WHY_ATS,
			"ats=off: the guest has no SMMU, so the GPU's ATS is of no use, and NVIDIA's driver would take it for shared virtual addresses; users report that CUDA then does not start");
	if (plan->iommufd)
		because(plan, WHY_IOMMUFD, "%s",
			plan->accel ? "an accelerated SMMUv3 needs iommufd (CONFIG_IOMMUFD and CONFIG_VFIO_DEVICE_CDEV of the kernel)" :
			only_iommufd ? "the kernel has no type1 (CONFIG_VFIO_IOMMU_TYPE1)" :
			"as --iommufd=on says; without it, vfio would use type1");
	free(no_iommufd);
	free(no_accel);
	return status;
}

/* ---- processors and memory ------------------------------------------------------------------ */

static void add_node(struct guest_plan *plan, int host)
{
	size_t i, at;

	for (i = 0; i < plan->nodes; i++)
		if (plan->node[i].host == host)
			return;
	for (at = plan->nodes; at && plan->node[at - 1].host > host; at--)
		plan->node[at] = plan->node[at - 1];
	plan->node[at] = (struct guest_node){ .host = host };
	plan->nodes++;
}

static enum exit_status plan_cpu_nodes(const struct guest_facts *facts, struct guest_plan *plan)
{
	const struct gpu *gpu;
	size_t i;

	if (!facts->numa.count)
		return refuse(plan, EXIT_REFUSED, NULL,
			      "no NUMA node in /sys/devices/system/node: the kernel lacks CONFIG_NUMA, or the record is not complete");
	for (i = 0; i < plan->gpus; i++) {
		gpu = plan->device[i].pci;
		if (plan->device[i].place->node < 0)
			return refuse(plan, EXIT_REFUSED, gpu,
				      "not known which processors are near it: its numa_node is %d, and no or several NUMA nodes have processors; update the system firmware",
				      gpu->numa_node);
		add_node(plan, plan->device[i].place->node);
	}
	plan->cpu_nodes = plan->nodes;
	if (plan->cpu_nodes + NODES_OF_GPU * plan->gpus > QEMU_NODES_MAX)
		return refuse(plan, EXIT_REFUSED, NULL,
			      "%zu GPUs and the processors near them need %zu NUMA nodes, and QEMU has %d; name fewer GPUs",
			      plan->gpus, plan->cpu_nodes + NODES_OF_GPU * plan->gpus,
			      QEMU_NODES_MAX);
	return EXIT_OK;
}

/* The size to which a block of the guest's memory is aligned. */
static uint64_t memory_unit(const struct guest_facts *facts, const struct guest_plan *plan)
{
	/* A whole table of entries of 8 bytes maps what one entry above it maps. */
	return plan->hugepages ? plan->hugepages : facts->page_size * (facts->page_size / 8);
}

static enum exit_status plan_memory(const struct guest_facts *facts,
				    const struct guest_wish *wish, struct guest_plan *plan)
{
	char size[SIZE_MAX_TEXT], unit_text[SIZE_MAX_TEXT];
	unsigned int cpus = 0, left, first = 0;
	const struct numa_node *near;
	uint64_t bytes = 0, unit, blocks;
	size_t i, n = plan->cpu_nodes;

	for (i = 0; i < n; i++) {
		near = host_node(facts, plan->node[i].host);
		cpus += near ? near->cpus : 0;
		bytes += near ? near->bytes : 0;
	}
	plan->hugepages = wish->hugepages;
	unit = memory_unit(facts, plan);
	/* Its guestMappingPassthrough needs huge pages. */
	if (plan->format == FORMAT_KUBEVIRT)
		plan->hugepages = unit;
	size_text(unit, unit_text);

	plan->cpus = wish->cpus ? wish->cpus : CPUS_OF_GPU * plan->gpus;
	if (!wish->cpus && cpus < plan->cpus)
		plan->cpus = cpus;
	if (plan->cpus < n || plan->cpus > CPUS_MAX)
		return refuse(plan, EXIT_USAGE_ERROR, NULL,
			      "%u processors for %zu NUMA nodes; set --cpus to a number from %zu to %d",
			      plan->cpus, n, n, CPUS_MAX);
	/* Nodes may differ by one processor, which has no other divisor. */
	plan->sockets = n && !(plan->cpus % n) ? n : plan->cpus;
	if (plan->cpus > cpus)
		note(plan, "the guest has %u processors, and the host has %u near these GPUs: they share them",
		     plan->cpus, cpus);

	plan->memory = wish->memory ? wish->memory : MEMORY_OF_GPU * plan->gpus;
	if (!wish->memory && bytes && bytes / 2 < plan->memory)
		plan->memory = bytes / 2 / unit * unit;
	if (bytes && plan->memory > bytes)
		return refuse(plan, EXIT_REFUSED, NULL,
			      "--memory: the NUMA nodes near these GPUs have only %s, and vfio locks all of a guest's memory",
			      size_text(bytes, size));
	if (bytes && plan->memory > bytes - bytes / 16)
		note(plan, "the guest gets nearly all memory of the NUMA nodes near these GPUs: the host has other processes and page tables to keep there");
	blocks = plan->memory / unit;
	if (plan->memory % unit || blocks < n || plan->memory > SIZE_LIMIT)
		return refuse(plan, EXIT_USAGE_ERROR, NULL,
			      "%s of memory for %zu NUMA node%s; set --memory to a suitable multiple of %s",
			      size_text(plan->memory, size), n, n > 1 ? "s" : "", unit_text);

	for (i = 0; i < n; i++) {
		left = n - i;
		plan->node[i].first_cpu = first;
		plan->node[i].cpus = (plan->cpus - first + left - 1) / left;
		first += plan->node[i].cpus;
		plan->node[i].memory = (blocks + left - 1) / left * unit;
		blocks -= (blocks + left - 1) / left;
	}
	because(plan, WHY_CPU,
		"KVM has no other on Arm: the guest sees the host's processor, with FEAT_S2FWB and CACHE_DIC, which make usemem cacheable");
	because(plan, WHY_CPUS, "%s%s",
		wish->cpus ? "as --cpus says" :
		"16 for each GPU, or all processors of the NUMA nodes near these GPUs; --cpus changes it",
		n > 1 ? "; each socket is in one NUMA node, as Linux expects" : "");
	because(plan, WHY_MEMORY,
		"%s; a multiple of %s, %s; vfio locks all of it",
		wish->memory ? "as --memory says" :
		"64 GiB for each GPU, or half of the host's near these GPUs; --memory changes it",
		unit_text, plan->hugepages ? "a huge page" : "which one page-table entry of the host maps");
	return EXIT_OK;
}

/* "0-71,144"; to be freed. */
static char *cpu_list(const struct numa_node *node)
{
	GString *text = g_string_new(NULL);
	unsigned int i, first;

	for (i = 0; i < node->cpus; i++) {
		first = node->cpu[i];
		g_string_append_printf(text, "%s%u", text->len ? "," : "", first);
		while (i + 1 < node->cpus && node->cpu[i + 1] == node->cpu[i] + 1)
			i++;
		if (node->cpu[i] != first)
			g_string_append_printf(text, "-%u", node->cpu[i]);
	}
	return g_string_free(text, FALSE);
}

static enum exit_status plan_pinning(const struct guest_facts *facts,
				     const struct guest_wish *wish, struct guest_plan *plan)
{
	char needed[SIZE_MAX_TEXT], there[SIZE_MAX_TEXT];
	const struct numa_node *near;
	struct guest_node *n;
	char *all;

	/* KubeVirt pins its guests, by dedicatedCpuPlacement. */
	plan->pin = wish->pin && plan->format != FORMAT_KUBEVIRT;
	for (n = plan->node; plan->pin && n < plan->node + plan->cpu_nodes; n++) {
		near = host_node(facts, n->host);
		if (!near)
			continue;
		if (near->bytes && n->memory > near->bytes)
			return refuse(plan, EXIT_REFUSED, NULL,
				      "--pin: a node of the guest has %s, and node %d of the host has only %s; give less --memory",
				      size_text(n->memory, needed), near->id,
				      size_text(near->bytes, there));
		if (n->cpus > near->cpus)
			note(plan, "a node of the guest has %u processors, and node %d of the host, which it is pinned to, has %u",
			     n->cpus, near->id, near->cpus);
		n->host_cpus = cpu_list(near);
		all = xasprintf("%s%s%s", plan->host_cpus ? plan->host_cpus : "",
				plan->host_cpus ? "," : "", n->host_cpus);
		free(plan->host_cpus);
		plan->host_cpus = all;
	}
	if (!plan->pin)
		return EXIT_OK;
	if (plan->format == FORMAT_QEMU && plan->cpu_nodes > 1)
		note(plan, "each processor of the guest runs on those of all %zu nodes: QEMU has no option to pin one to its own; libvirt does that",
		     plan->cpu_nodes);
	because(plan, WHY_PIN,
		"as --pin says, the guest runs on the processors of the host's NUMA nodes that its own stand for (cpulist in /sys/devices/system/node/node*), and has memory of no other node; other guests and processes may run there, too");
	return EXIT_OK;
}

static enum exit_status plan_backend(const struct guest_facts *facts,
				     const struct guest_wish *wish, struct guest_plan *plan)
{
	size_t i, with_cpus = 0;
	char *sizes = xstrdup(""), *more, *kind, size[SIZE_MAX_TEXT];
	bool found = false;

	for (i = 0; i < facts->numa.count; i++)
		with_cpus += !!facts->numa.node[i].cpus;
	/* There is nothing to choose on a host with one such node. */
	if (with_cpus == 1 && !plan->pin)
		plan->node[0].host = -1;
	for (i = 0; plan->hugepages && i < facts->hugepage_sizes; i++) {
		more = xasprintf("%s%s%s", sizes, i ? ", " : "",
				 size_text(facts->hugepages[i].size, size));
		free(sizes);
		sizes = more;
		if (facts->hugepages[i].size != plan->hugepages)
			continue;
		found = true;
		if (facts->hugepages[i].free < plan->memory / plan->hugepages)
			note(plan, "the host has %llu free huge pages of this size, and the guest needs %llu: write that to nr_hugepages first",
			     (unsigned long long)facts->hugepages[i].free,
			     (unsigned long long)(plan->memory / plan->hugepages));
	}
	/* Of KubeVirt's, only a size that was asked for must be there already. */
	if (plan->hugepages && !found && (wish->hugepages || plan->format != FORMAT_KUBEVIRT)) {
		refuse(plan, EXIT_REFUSED, NULL,
		       "--hugepages=%s: the host has no pages of this size, only: %s",
		       size_text(plan->hugepages, size), *sizes ? sizes : "none");
		free(sizes);
		return EXIT_REFUSED;
	}
	free(sizes);
	if (plan->hugepages)
		kind = xstrdup("huge pages of the kernel, for which no file system needs to be mounted");
	else if (memory_unit(facts, plan) <= QEMU_ALIGNMENT)
		kind = xstrdup("memory of this node; QEMU aligns it to huge pages");
	else
		kind = xasprintf("memory of this node; QEMU aligns it to 2 MiB, so that this host maps it with small pages: --hugepages=%lluM maps it with large ones",
				 (unsigned long long)(memory_unit(facts, plan) >> 20));
	because(plan, WHY_BACKEND, "%s%s", kind,
		plan->node[0].host < 0 ? "" :
		plan->pin ? ", only of the host's node near the GPU (numa_node in its sysfs folder)" :
		", preferably of the host's node near the GPU (numa_node in its sysfs folder)");
	free(kind);
	return EXIT_OK;
}

/* ---- nodes, buses, distances ---------------------------------------------------------------- */

/*
 * The guest's node of processors that is nearest to a device. A GPU has its own,
 * and another device may be near a socket that the guest has nothing of.
 */
static size_t cpu_node_of(const struct guest_facts *facts, struct guest_plan *plan,
			  const struct guest_device *g)
{
	const struct numa_node *from = host_node(facts, g->place->node), *to;
	uint64_t least = UINT64_MAX;
	size_t i, best = 0;

	for (i = 0; i < plan->cpu_nodes; i++) {
		/* The host's only node. */
		if (plan->node[i].host < 0 || plan->node[i].host == g->place->node)
			return i;
		to = host_node(facts, plan->node[i].host);
		if (from && from->distance && to &&
		    from->distance[to - facts->numa.node] < least) {
			least = from->distance[to - facts->numa.node];
			best = i;
		}
	}
	if (from)
		note(plan, "%s is near node %d of the host, of which the guest has no processors and memory",
		     g->pci->address, from->id);
	return best;
}

/*
 * The next of the host's nodes that firmware made for this GPU: of those not
 * taken, the nearest to its processors. -1: there is none, or no distance.
 */
static int take_initiator(const struct guest_facts *facts, const struct gpu *gpu, bool *taken)
{
	const struct numa_node *near = host_node(facts, place_of(facts, gpu)->node);
	const struct numa *numa = &facts->numa;
	size_t i, best = numa->count;

	for (i = 0; near && near->distance && i < numa->count; i++)
		if (numa->node[i].initiator && !numa->node[i].cpus && !taken[i] &&
		    (best == numa->count || near->distance[i] < near->distance[best]))
			best = i;
	if (best == numa->count)
		return -1;
	taken[best] = true;
	return numa->node[best].id;
}

static void plan_nodes(const struct guest_facts *facts, struct guest_plan *plan)
{
	bool *taken = xcalloc(facts->numa.count, sizeof(*taken));
	size_t i, k, n;
	int host;

	for (i = 0; i < plan->gpus; i++)
		plan->device[i].first_node = plan->cpu_nodes + i * NODES_OF_GPU;
	plan->nodes = plan->cpu_nodes + plan->gpus * NODES_OF_GPU;
	/* All GPUs of the host, so that each gets its own. */
	for (k = 0; k < facts->gpus->count; k++) {
		for (i = 0; i < plan->gpus && plan->device[i].pci != &facts->gpus->gpu[k]; i++)
			;
		for (n = 0; n < NODES_OF_GPU; n++) {
			host = take_initiator(facts, &facts->gpus->gpu[k], taken);
			if (i < plan->gpus)
				plan->node[plan->device[i].first_node + n] =
					(struct guest_node){ .host = host, .gpu = &plan->device[i] };
		}
	}
	free(taken);
	because(plan, WHY_NODES,
		"%d nodes without processors and memory for each GPU: NVIDIA's driver adds the GPU's memory to the first, and that of MIG instances to the others",
		NODES_OF_GPU);
	because(plan, WHY_INITIATOR,
		"ACPI's SRAT then has a generic initiator for each of these nodes, which ties it to the GPU");
}

/* The host's distance between two nodes of the guest; 0: not known. */
static uint64_t distance(const struct guest_facts *facts, const struct guest_plan *plan, size_t a,
			 size_t b)
{
	/* Of a host with one node of processors, the plan does not have it. */
	int ids[2] = { plan->node[a].host, plan->node[b].host };
	const struct numa_node *from, *to;
	size_t i;

	for (i = 0; i < 2; i++)
		if (ids[i] < 0 && (i ? b : a) < plan->cpu_nodes)
			ids[i] = plan->device[0].place->node;
	from = host_node(facts, ids[0]);
	to = host_node(facts, ids[1]);
	if (!from || !to || !from->distance)
		return 0;
	return from->distance[to - facts->numa.node];
}

static void plan_distances(const struct guest_facts *facts, struct guest_plan *plan)
{
	unsigned char *all = xcalloc(plan->nodes * plan->nodes, 1);
	size_t a, b;
	uint64_t d;

	for (a = 0; a < plan->nodes; a++) {
		for (b = 0; b < plan->nodes; b++) {
			d = a == b ? 10 : distance(facts, plan, a, b);
			/*
			 * Linux ignores the whole table if two nodes are as near
			 * as one is to itself, which nodes of one GPU can be.
			 */
			if (a != b && d == 10)
				d++;
			/* ACPI: 10 is local, and 255 means out of reach. */
			if (d < 10 || d > 254) {
				free(all);
				note(plan, "no distances between the nodes, %s: the host reports none for %d nodes of each GPU (/sys/devices/system/node/has_generic_initiator)",
				     plan->format == FORMAT_KUBEVIRT ?
				     "without which KubeVirt 1.9 starts no machine with these GPUs" :
				     "so that QEMU makes all of them 20",
				     NODES_OF_GPU);
				return;
			}
			all[a * plan->nodes + b] = d;
		}
	}
	plan->distance = all;
	because(plan, WHY_DISTANCES,
		"the host's distances (/sys/devices/system/node/node*/distance) of its nodes for these GPUs");
}

static enum exit_status plan_buses(const struct guest_facts *facts, struct guest_plan *plan)
{
	bool others = plan->devices > plan->gpus, speed = false;
	/* Each has room for its ports' buses, and pcie.0 for its own. */
	unsigned int next = 16;
	struct guest_device *g;
	const char *smmu;
	size_t i, b, node;

	/* pcie.0 is enough if there is nothing to tell apart. */
	for (i = 0; has_expanders(plan) && i < plan->devices; i++) {
		g = &plan->device[i];
		node = cpu_node_of(facts, plan, g);
		smmu = plan->accel ? g->place->iommu : NULL;
		for (b = i < plan->gpus ? 0 : plan->buses; b < plan->buses; b++)
			if (plan->bus[b].node == node &&
			    (!smmu || !strcmp(plan->bus[b].smmu, smmu)))
				break;
		g->bus = b;
		if (b < plan->buses)
			continue;
		plan->bus[b] = (struct guest_bus){ .number = next, .node = node, .smmu = smmu };
		next += i < plan->gpus ? 16 : 4;
		plan->buses++;
	}
	if (plan->buses > GUEST_BUSES_MAX || next > 256)
		return refuse(plan, EXIT_REFUSED, NULL,
			      "these devices need %zu root complexes, and the guest has no room for so many; assign fewer devices",
			      plan->buses);
	if (plan->buses)
		because(plan, WHY_BUS, "%s%s",
			plan->accel ? "a root complex for each of the host's SMMUs that has one of these GPUs (the link \"iommu\" in its sysfs folder)" :
			"a root complex for each node, which tells the guest where the GPU is (numa_node in its sysfs folder)",
			others ? ", and one for each other device, as on the host" : "");
	if (others)
		because(plan, WHY_DEVICE,
			"a device beside the GPUs, as --device says, on a port of its own; it stays bound to its driver of vfio");
	if (plan->accel)
		because(plan, WHY_SMMU,
			"the guest's SMMU uses this one of the host, in hardware; ATS, 20 bits of SubstreamID and 48 of addresses are what Grace's has, and it has no range invalidation (ril)");
	for (i = 0; i < plan->devices; i++)
		speed = speed || plan->device[i].port_speed;
	because(plan, WHY_PORT,
		"a port of its own, so that the BARs have a window of their own; firmware makes it as large as the BARs, because the GPU is there at boot; a GPU has no I/O ports%s",
		speed ? "; x-speed: the device's link can be faster than 16 GT/s, which is all that QEMU's port shows" : "");
	return EXIT_OK;
}

/* ---- the rest ------------------------------------------------------------------------------- */

static bool ends_with(const char *text, const char *end)
{
	size_t n = strlen(text), m = strlen(end);

	return n >= m && !strcmp(text + n - m, end);
}

static void plan_rest(const struct guest_facts *facts, const struct guest_wish *wish,
		      struct guest_plan *plan)
{
	char size[SIZE_MAX_TEXT];

	if (facts->egm)
		note(plan, "firmware has set aside up to %s of each socket's memory (EGM), which this guest does not use",
		     size_text(facts->egm, size));
	plan->name = wish->name ? wish->name : "gh200";
	plan->disk = wish->disk ? xstrdup(wish->disk) :
		     xasprintf("%s%s%s", plan->format == FORMAT_LIBVIRT ?
			       "/var/lib/libvirt/images/" : "", plan->name,
			       plan->format == FORMAT_KUBEVIRT ? "-root" : ".qcow2");
	plan->disk_device = wish->disk_device;
	plan->disk_format = ends_with(plan->disk, ".qcow2") ? "qcow2" : "raw";
	plan->ras = !plan->qemu || vmm_has(plan->qemu, QEMU_RAS);
	if (plan->libvirt && !vmm_has(plan->libvirt, LIBVIRT_RAS))
		plan->ras = false;
	plan->firmware = facts->firmware ? facts->firmware : "/usr/share/AAVMF/AAVMF_CODE.fd";
	because(plan, WHY_MACHINE, "KVM, and GICv3 for more than 8 processors and for MSIs");
	if (plan->ras)
		because(plan, WHY_RAS, "errors of the GPU's memory reach the guest as memory errors");
	else
		note(plan, "no ras: errors of the GPU's memory end the guest; %s or later, and %s, have it",
		     vmm_since(QEMU_RAS), vmm_since(LIBVIRT_RAS));
	because(plan, WHY_GPU,
		"the GPU, as \"" PROGRAM " list\" names it; rombar=0: the guest does not see its option ROM");
	because(plan, WHY_FIRMWARE, "%s",
		facts->firmware ? "UEFI, without which the guest has no ACPI" :
		"UEFI, without which the guest has no ACPI; it is not installed in the usual places: on Debian, install qemu-efi-aarch64");
	because(plan, WHY_DISK, "%s; %s", wish->disk ? "as --disk says" : "a placeholder: --disk names yours",
		ends_with(plan->disk, ".qcow2") ? "qcow2, because its name ends in .qcow2" :
		"raw, because its name does not end in .qcow2");
	plan->seed = wish->seed;
	plan->seed_folder = wish->seed_folder;
	plan->ssh_port = wish->ssh_port;
	if (plan->seed)
		because(plan, WHY_SEED, "as --cloud-init says; cloud-init in the guest finds user-data and meta-data by the label CIDATA, %s",
			plan->seed_folder ? "which QEMU gives to the file system that it makes of the folder" :
			"which this image must have");
	because(plan, WHY_NETWORK, "a network that needs no root%s; change it as for any guest",
		plan->ssh_port ? ", with the port of this host's loopback address that --ssh-port says as the guest's port 22" : "");
	because(plan, WHY_CONSOLE, "the console is this terminal; nothing that the guest does not need");
}

enum exit_status guest_plan(const struct guest_facts *facts, const struct guest_wish *wish,
			    const struct gpu **gpu, size_t count, struct guest_plan *plan)
{
	enum exit_status status;

	memset(plan, 0, sizeof(*plan));
	status = plan_programs(facts, wish, plan);
	if (!status)
		status = plan_devices(facts, gpu, count, plan);
	if (!status)
		status = plan_cpu_nodes(facts, plan);
	if (!status)
		status = plan_memory(facts, wish, plan);
	if (!status)
		status = plan_dma(facts, wish, plan);
	if (!status)
		status = plan_window(facts, plan);
	if (!status)
		status = plan_pinning(facts, wish, plan);
	if (!status)
		status = plan_backend(facts, wish, plan);
	if (!status)
		status = plan_buses(facts, plan);
	if (status)
		return status;
	plan_nodes(facts, plan);
	plan_distances(facts, plan);
	plan_rest(facts, wish, plan);
	return EXIT_OK;
}

void guest_plan_free(struct guest_plan *plan)
{
	size_t i;

	for (i = 0; i < WHYS; i++)
		free(plan->why[i]);
	for (i = 0; i < plan->cpu_nodes; i++)
		free(plan->node[i].host_cpus);
	free(plan->host_cpus);
	free(plan->distance);
	free(plan->disk);
	free(plan->notes);
	free(plan->refused);
}
