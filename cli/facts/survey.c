// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reads the whole system: see survey.h.
 */
#include <ctype.h>
#include <errno.h>
#include <glib.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "facts/place.h"
#include "facts/survey.h"
#include "system/output.h"

static bool has_prefix(const char *text, const char *prefix)
{
	return !strncmp(text, prefix, strlen(prefix));
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* ---- processes that have devices open ----------------------------------- */

#define VFIO_DEVICE_FD "anon_inode:[vfio-device]"
/* What the kernel calls a dma-buf without a name. */
#define DMABUF "/dmabuf:"

/* Memory devices and terminals, which every process may have open. */
static bool is_common(dev_t rdev)
{
	return major(rdev) == 1 || major(rdev) == 4 || major(rdev) == 5 ||
	       (major(rdev) >= 136 && major(rdev) <= 143);
}

/* Whether drivers of GPUs have such device files. */
static bool is_gpu_path(const char *path)
{
	return has_prefix(path, "/dev/vfio/") || has_prefix(path, "/dev/nvidia") ||
	       has_prefix(path, "/dev/dri/");
}

/* A file of NVIDIA's driver that names no GPU, but through which one may be used. */
static bool is_nvidia_common(const char *path)
{
	return has_prefix(path, "/dev/nvidiactl") || has_prefix(path, "/dev/nvidia-uvm") ||
	       has_prefix(path, DMABUF);
}

/* Whether NVIDIA's driver has exported this dma-buf. */
static bool is_nvidia_dmabuf(struct host *h, const char *pid, const char *fd)
{
	g_autofree char *info = host_read(h, NULL, "/proc/%s/fdinfo/%s", pid, fd);
	g_autofree char *exporter = info ? field_value(info, "exp_name") : NULL;

	return exporter && has_prefix(exporter, "nvidia");
}

static void read_process(struct host *h, struct open_files *files, const char *pid)
{
	g_auto(GStrv) fds = host_list(h, "/proc/%s/fd", pid);
	size_t i, first = files->count;
	g_autofree char *comm = NULL;
	bool names_device = false, names_nvidia = false;

	/* If the process has ended, it has no file open. */
	if (!fds && !host_absent() && errno != ESRCH)
		files->complete = false;
	for (i = 0; fds && fds[i]; i++) {
		g_autofree char *path = host_link(h, "/proc/%s/fd/%s", pid, fds[i]), *info = NULL;
		struct open_file *file;
		dev_t rdev = 0;

		/* Sockets and the like have names without a slash. */
		if (path && *path == '/' && !has_prefix(path, DMABUF))
			rdev = host_rdev(h, "/proc/%s/fd/%s", pid, fds[i]);
		if (!path || (has_prefix(path, DMABUF) ? !is_nvidia_dmabuf(h, pid, fds[i]) :
			      strcmp(path, VFIO_DEVICE_FD) &&
			      (rdev ? is_common(rdev) : !is_gpu_path(path))))
			continue;
		if (has_prefix(path, "/dev/nvidia") && isdigit((unsigned char)path[strlen("/dev/nvidia")]))
			names_nvidia = true;
		/* /dev/vfio/vfio, the container, names no device. */
		if (has_prefix(path, "/dev/vfio/") && strcmp(path, "/dev/vfio/vfio"))
			names_device = true;
		files->file = g_renew(struct open_file, files->file, files->count + 1);
		file = &files->file[files->count++];
		memset(file, 0, sizeof(*file));
		file->pid = atoi(pid);
		file->rdev = rdev;
		if (!strcmp(path, VFIO_DEVICE_FD)) {
			info = host_read(h, NULL, "/proc/%s/fdinfo/%s", pid, fds[i]);
			/* Linux 6.18 or later reports the device. */
			file->device = info ? field_value(info, "vfio-device-syspath") : NULL;
		}
		file->path = g_steal_pointer(&path);
		if (!comm)
			comm = host_line(h, "/proc/%s/comm", pid);
		file->comm = g_strdup(comm ? comm : "?");
	}
	for (i = first; i < files->count; i++)
		files->file[i].names_device = is_nvidia_common(files->file[i].path) ? names_nvidia :
										      names_device;
}

void open_files_read(struct host *h, struct open_files *files)
{
	g_auto(GStrv) pids = host_list(h, "/proc");
	size_t i;

	memset(files, 0, sizeof(*files));
	files->complete = pids && h->privileged;
	for (i = 0; pids && pids[i]; i++)
		if (isdigit((unsigned char)pids[i][0]) &&
		    (h->recorded || atoi(pids[i]) != getpid()))
			read_process(h, files, pids[i]);
}

void open_files_free(struct open_files *files)
{
	size_t i;

	for (i = 0; i < files->count; i++) {
		g_free(files->file[i].comm);
		g_free(files->file[i].path);
		g_free(files->file[i].device);
	}
	g_free(files->file);
	memset(files, 0, sizeof(*files));
}

/* A GPU's device file. */
struct node {
	char *path;	/* udev's name */
	dev_t rdev;	/* 0: not known */
};

struct nodes {
	struct node *node;
	size_t count;
};

/* Parses a sysfs file such as "226:128"; 0: none. */
static dev_t read_dev(struct host *h, const char *path)
{
	g_autofree char *text = host_line(h, "%s", path);
	unsigned int high, low;
	dev_t dev = 0;

	if (text && sscanf(text, "%u:%u", &high, &low) == 2)
		dev = makedev(high, low);
	return dev;
}

/* Takes over path and dev_file, the sysfs file with the number, or NULL. */
static void add_node(struct host *h, struct nodes *nodes, char *path, char *dev_file)
{
	nodes->node = g_renew(struct node, nodes->node, nodes->count + 1);
	nodes->node[nodes->count].path = path;
	nodes->node[nodes->count++].rdev = dev_file ? read_dev(h, dev_file) : 0;
	g_free(dev_file);
}

/*
 * The major number of NVIDIA's driver, which only /proc/devices has; 0: none.
 */
static unsigned int nvidia_major(struct host *h)
{
	g_autofree char *text = host_read(h, NULL, "/proc/devices");
	char *line, *save, name[32];
	unsigned int number, found = 0;

	for (line = text ? strtok_r(text, "\n", &save) : NULL; line && !found;
	     line = strtok_r(NULL, "\n", &save)) {
		/* The numbers of block devices follow. */
		if (!strncmp(line, "Block", 5))
			break;
		if (sscanf(line, "%u %31s", &number, name) == 2 &&
		    (!strcmp(name, "nvidia") || !strcmp(name, "nvidia-frontend")))
			found = number;
	}
	return found;
}

static void find_nodes(struct host *h, const struct gpu *gpu, struct nodes *nodes)
{
	static const char *const classes[][2] = {
		{ "vfio-dev", "/dev/vfio/devices" }, { "drm", "/dev/dri" },
	};
	g_autofree char *text = NULL, *minor = NULL;
	unsigned int number;
	uint64_t value;
	size_t c, i;

	memset(nodes, 0, sizeof(*nodes));
	if (gpu->iommu_group >= 0) {
		add_node(h, nodes, g_strdup_printf("/dev/vfio/%d", gpu->iommu_group),
			 g_strdup_printf("/sys/class/vfio/%d/dev", gpu->iommu_group));
		add_node(h, nodes, g_strdup_printf("/dev/vfio/noiommu-%d", gpu->iommu_group),
			 g_strdup_printf("/sys/class/vfio/noiommu-%d/dev", gpu->iommu_group));
	}
	for (c = 0; c < sizeof(classes) / sizeof(*classes); c++) {
		g_auto(GStrv) names = host_list(h, "/sys/bus/pci/devices/%s/%s", gpu->address,
						classes[c][0]);

		for (i = 0; names && names[i]; i++)
			add_node(h, nodes, g_strdup_printf("%s/%s", classes[c][1], names[i]),
				 g_strdup_printf("/sys/bus/pci/devices/%s/%s/%s/dev", gpu->address,
					   classes[c][0], names[i]));
	}
	text = host_read(h, NULL, "/proc/driver/nvidia/gpus/%s/information", gpu->address);
	minor = text ? field_value(text, "Device Minor") : NULL;
	if (minor) {
		add_node(h, nodes, g_strdup_printf("/dev/nvidia%s", minor), NULL);
		number = nvidia_major(h);
		if (number && parse_u64(minor, &value) && value < 1 << 20)
			nodes->node[nodes->count - 1].rdev = makedev(number, value);
	}
}

static bool is_node(const struct nodes *nodes, const struct open_file *file)
{
	const struct node *node;
	size_t i;

	for (i = 0; i < nodes->count; i++) {
		node = &nodes->node[i];
		/*
		 * Numbers decide, because containers can rename device files.
		 */
		if (node->rdev && file->rdev ? node->rdev == file->rdev
					     : !strcmp(node->path, file->path))
			return true;
	}
	return false;
}

struct holder *holders_find(struct host *h, const struct open_files *files, const struct gpu *gpu,
			    size_t *count)
{
	bool by_vfio = gpu->ours || host_exists(h, "/sys/bus/pci/devices/%s/vfio-dev",
						gpu->address) ||
		       (gpu->driver && !strcmp(gpu->driver, "vfio-pci"));
	bool by_nvidia = (gpu->driver && !strcmp(gpu->driver, "nvidia")) ||
			 host_exists(h, "/proc/driver/nvidia/gpus/%s", gpu->address);
	struct holder *holders = NULL;
	struct nodes nodes;
	size_t i, j;

	find_nodes(h, gpu, &nodes);
	*count = 0;
	for (i = 0; i < files->count; i++) {
		const struct open_file *file = &files->file[i];
		bool holds = is_node(&nodes, file), certain = true;

		if (by_nvidia && !holds && is_nvidia_common(file->path) && !file->names_device) {
			holds = true;
			certain = false;
		}
		if (!strcmp(file->path, VFIO_DEVICE_FD)) {
			if (file->device) {
				holds = !strcmp(base_name(file->device), gpu->address);
			} else if (by_vfio && !file->names_device) {
				/*
				 * The group's file was closed, or the device's
				 * file was passed to this process. Count it:
				 * otherwise an unbind may wait forever.
				 */
				holds = true;
				certain = false;
			}
		}
		/*
		 * One entry for each process; a certain one replaces another.
		 */
		for (j = 0; holds && j < *count; j++)
			if (holders[j].file->pid == file->pid) {
				if (certain && !holders[j].certain)
					holders[j] = (struct holder){ file, true };
				holds = false;
			}
		if (!holds)
			continue;
		holders = g_renew(struct holder, holders, *count + 1);
		holders[(*count)++] = (struct holder){ file, certain };
	}
	for (i = 0; i < nodes.count; i++)
		g_free(nodes.node[i].path);
	g_free(nodes.node);
	return holders;
}

char *holders_text(const struct holder *holders, size_t count)
{
	GString *text = g_string_new(NULL);
	size_t i;

	for (i = 0; i < count; i++)
		g_string_append_printf(
			text, "%sprocess %d (%s) %s %s", i ? ", " : "", holders[i].file->pid,
			holders[i].file->comm, holders[i].certain ? "has" : "may have it open through",
			holders[i].certain || strcmp(holders[i].file->path, VFIO_DEVICE_FD) ?
				holders[i].file->path : "vfio");
	return g_string_free(text, FALSE);
}

char *gpu_users(struct host *h, const struct gpu *gpu)
{
	struct holder *holders;
	struct open_files files;
	char *text = NULL;
	size_t count;

	open_files_read(h, &files);
	holders = holders_find(h, &files, gpu, &count);
	if (count)
		text = holders_text(holders, count);
	g_free(holders);
	open_files_free(&files);
	return text;
}

/* ---- memory ------------------------------------------------------------- */

void iomem_read(struct host *h, struct iomem *iomem)
{
	g_autofree char *text = host_read(h, NULL, "/proc/iomem");
	char *line, *save;

	memset(iomem, 0, sizeof(*iomem));
	if (!text)
		return;
	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		size_t indent = strspn(line, " ");
		struct iomem_range range = { .depth = indent / 2 };
		unsigned long long start, end;
		int name = 0;

		if (sscanf(line + indent, "%llx-%llx : %n", &start, &end, &name) < 2 || !name ||
		    end < start)
			continue;
		range.start = start;
		range.end = end;
		range.name = g_strdup(line + indent + name);
		make_printable(range.name);
		iomem->range = g_renew(struct iomem_range, iomem->range, iomem->count + 1);
		iomem->range[iomem->count++] = range;
	}
}

void iomem_free(struct iomem *iomem)
{
	size_t i;

	for (i = 0; i < iomem->count; i++)
		g_free(iomem->range[i].name);
	g_free(iomem->range);
	memset(iomem, 0, sizeof(*iomem));
}

/* The name in /proc/iomem of memory that NVIDIA's driver adds. */
#define NVIDIA_RAM "System RAM (NVIDIA)"

/*
 * The node to which NVIDIA's driver reports it has added a GPU's memory; -1:
 * none.
 */
static int nvidia_node(struct host *h, const char *address, bool *online)
{
	g_autofree char *text = host_read(h, NULL, "/proc/driver/nvidia/gpus/%s/numa_status",
					  address);
	g_autofree char *status = text ? field_value(text, "Status") : NULL;
	g_autofree char *number = text ? field_value(text, "Node") : NULL;
	uint64_t id;
	int node = -1;

	/* "online" or "online_in_progress". */
	*online = status && !strncasecmp(status, "online", 6);
	if (*online && number && parse_u64(number, &id) && id <= INT32_MAX)
		node = id;
	return node;
}

enum answer { NO, YES, NOT_KNOWN };

/* Whether NVIDIA's driver added all memory of a node. */
static enum answer all_nvidia(struct survey *s, int node)
{
	g_autofree char *text = host_line(s->host, "/sys/devices/system/memory/block_size_bytes");
	g_autofree char *size_text = text ? g_strdup_printf("0x%s", text) : NULL;
	g_auto(GStrv) names = host_list(s->host, "/sys/devices/system/node/node%d", node);
	enum answer answer = NOT_KNOWN;
	uint64_t size = 0, id;
	size_t i, j;

	if (size_text && !parse_u64(size_text, &size))
		size = 0;
	for (i = 0; size && names && names[i]; i++) {
		if (!has_prefix(names[i], "memory") || !parse_u64(names[i] + 6, &id) ||
		    id >= UINT64_MAX / size)
			continue;
		for (j = 0; j < s->iomem.count; j++) {
			const struct iomem_range *range = &s->iomem.range[j];

			if (has_prefix(range->name, NVIDIA_RAM) && range->start <= id * size &&
			    range->end >= id * size + size - 1)
				break;
		}
		if (j == s->iomem.count) {
			answer = NO;
			break;
		}
		answer = YES;
	}
	return answer;
}

/* Whether the node has no CPU: its cpulist exists and is empty. */
static bool is_memory_only(struct host *h, int node)
{
	g_autofree char *cpus = host_line(h, "/sys/devices/system/node/node%d/cpulist", node);

	return cpus && !*cpus;
}

/*
 * Whether this is the only device whose memory NVIDIA's driver can have added.
 */
static bool is_alone(struct host *h, const char *address)
{
	g_auto(GStrv) names = host_list(h, "/sys/bus/pci/devices");
	bool alone = true;
	uint64_t value;
	size_t i;

	for (i = 0; names && names[i]; i++)
		if (strcmp(names[i], address) &&
		    !host_u64(h, &value, "/sys/bus/pci/devices/%s/vendor", names[i]) &&
		    value == 0x10de &&
		    !host_u64(h, &value, "/sys/bus/pci/devices/%s/class", names[i]) &&
		    value >> 16 == 3)
			alone = false;
	return alone;
}

/*
 * The node that holds this GPU's memory and nothing else, or -1. The caller
 * prints a command that takes all of it offline, so it must not have memory of
 * the host or of another device.
 */
static int certain_node(struct survey *s, const struct gpu *gpu, int told)
{
	int found = -1;
	struct numa numa;
	size_t i;
	bool online;

	if (told >= 0) {
		for (i = 0; i < s->gpus.count; i++)
			if (strcmp(s->gpus.gpu[i].address, gpu->address) &&
			    nvidia_node(s->host, s->gpus.gpu[i].address, &online) == told)
				return -1;
		return is_memory_only(s->host, told) && all_nvidia(s, told) != NO ? told : -1;
	}
	if (!is_alone(s->host, gpu->address))
		return -1;
	numa_read(s->host, &numa);
	for (i = 0; i < numa.count; i++) {
		if (numa.node[i].cpus || !is_memory_only(s->host, numa.node[i].id) ||
		    all_nvidia(s, numa.node[i].id) != YES)
			continue;
		/* With two such nodes, either may be another device's. */
		found = found == -1 ? numa.node[i].id : -2;
	}
	numa_free(&numa);
	return found < 0 ? -1 : found;
}

struct online survey_online(struct survey *s, const struct gpu *gpu)
{
	struct online online = { .node = -1 };
	int told = nvidia_node(s->host, gpu->address, &online.online);
	size_t i;

	for (i = 0; i < s->iomem.count; i++) {
		const struct iomem_range *range = &s->iomem.range[i];

		if (!has_prefix(range->name, "System RAM"))
			continue;
		if (gpu->usemem_base != GPU_UNKNOWN && gpu->usemem_size != GPU_UNKNOWN &&
		    range->end) {
			uint64_t end = gpu->usemem_base + gpu->usemem_size +
				       (gpu->resmem_size == GPU_UNKNOWN ? 0 : gpu->resmem_size);

			if (range->start >= end || range->end < gpu->usemem_base)
				continue;
			online.online = true;
		} else if (!has_prefix(range->name, NVIDIA_RAM)) {
			continue;
		} else if (!gpu->ours && s->gpus.count == 1) {
			online.online = true;
		} else if (!online.online || s->gpus.count > 1) {
			continue;
		}
		online.range = range;
		break;
	}
	if (online.online)
		online.node = certain_node(s, gpu, told);
	return online;
}

/* ---- all of it ---------------------------------------------------------- */

void survey_read(struct host *h, struct survey *s)
{
	g_autofree char *rule = NULL;

	memset(s, 0, sizeof(*s));
	s->host = h;
	gpus_find(h, &s->gpus);
	open_files_read(h, &s->files);
	iomem_read(h, &s->iomem);
	config_read(h, &s->config);
	s->obstacle = config_obstacle(h, &rule);
}

void survey_free(struct survey *s)
{
	gpus_free(&s->gpus);
	open_files_free(&s->files);
	iomem_free(&s->iomem);
	config_free(&s->config);
	g_free(s->obstacle);
}

const char *survey_state(struct survey *s, const struct gpu *gpu)
{
	size_t count;

	if (survey_online(s, gpu).online)
		return "memory-online";
	if (!gpu->driver)
		return "unbound";
	if (!gpu->ours)
		return "other-driver";
	g_free(holders_find(s->host, &s->files, gpu, &count));
	return count ? "in-use" : "bound";
}

const struct config_line *survey_persisted(struct survey *s, const struct gpu *gpu)
{
	return config_ignores(&s->config, gpu) ? NULL : config_binds(&s->config, gpu);
}

bool survey_boots(struct survey *s, const struct gpu *gpu)
{
	return !s->obstacle && survey_persisted(s, gpu);
}

void survey_complain(const struct survey *s)
{
	size_t i;

	for (i = 0; i < s->config.errors; i++) {
		const struct config_error *e = &s->config.error[i];

		if (e->line)
			complain(NULL, "%s:%u: ignored: %s; see nvgrace-gpu.conf(5)",
				 e->file, e->line, e->reason);
		else
			complain(NULL, "%s: %s", e->file, e->reason);
	}
}

static struct json_object *memory_json(uint64_t size, uint64_t bar_size, uint64_t base)
{
	g_autofree char *text = NULL;
	struct json_object *object;

	if (size == GPU_UNKNOWN)
		return NULL;
	object = json_object_new_object();
	json_object_object_add(object, "size", json_size(size));
	json_object_object_add(object, "bar_size", json_size(bar_size));
	/* Text, because not every JSON parser keeps 64 bits. */
	text = base == GPU_UNKNOWN ? NULL : g_strdup_printf("0x%llx", (unsigned long long)base);
	json_object_object_add(object, "base", json_text(text));
	return object;
}

/* The schema's "last_scrub". */
static struct json_object *last_scrub_json(const struct gpu *gpu)
{
	struct json_object *object;

	if (gpu->scrub_count == GPU_UNKNOWN)
		return NULL;
	object = json_object_new_object();
	json_object_object_add(object, "count", json_size(gpu->scrub_count));
	json_object_object_add(object, "result", json_text(gpu->scrub_result));
	json_object_object_add(object, "time", json_size(gpu->scrub_time));
	json_object_object_add(object, "milliseconds", json_size(gpu->scrub_ms));
	json_object_object_add(object, "verified_time", json_size(gpu->verified_time));
	return object;
}

struct json_object *survey_json(struct survey *s, const struct gpu *gpu)
{
	struct json_object *object = json_object_new_object(), *part;
	const struct config_line *line = survey_persisted(s, gpu);
	g_autofree struct holder *holders = NULL;
	size_t count, i;
	char id[8];

	json_object_object_add(object, "address", json_text(gpu->address));
	snprintf(id, sizeof(id), "%04x", gpu->vendor);
	json_object_object_add(object, "vendor", json_text(id));
	snprintf(id, sizeof(id), "%04x", gpu->device);
	json_object_object_add(object, "device", json_text(id));
	json_object_object_add(object, "product", json_text(gpu->product));
	json_object_object_add(object, "state", json_text(survey_state(s, gpu)));
	json_object_object_add(object, "driver", json_text(gpu->driver));
	json_object_object_add(object, "driver_override", json_text(gpu->override));
	json_object_object_add(object, "numa_node",
			       gpu->numa_node < 0 ? NULL : json_object_new_int(gpu->numa_node));
	json_object_object_add(object, "iommu_group",
			       gpu->iommu_group < 0 ? NULL : json_object_new_int(gpu->iommu_group));
	json_object_object_add(object, "slot", json_text(gpu->slot));
	json_object_object_add(object, "serial", json_text(gpu->serial));
	json_object_object_add(object, "mode", json_text(gpu_mode_name(gpu->mode)));
	json_object_object_add(object, "readiness", json_text(gpu->readiness));
	json_object_object_add(object, "scrub_state", json_text(gpu->scrub_state));
	json_object_object_add(object, "scrub_progress", json_size(gpu->scrub_progress));
	json_object_object_add(object, "last_scrub", last_scrub_json(gpu));
	json_object_object_add(
		object, "usemem",
		memory_json(gpu->usemem_size, gpu->usemem_bar_size, gpu->usemem_base));
	json_object_object_add(
		object, "resmem",
		memory_json(gpu->resmem_size, gpu->resmem_bar_size, gpu->resmem_base));
	part = NULL;
	if (line) {
		part = json_object_new_object();
		json_object_object_add(part, "file", json_text(line->file));
		json_object_object_add(part, "line", json_object_new_int(line->line));
	}
	json_object_object_add(object, "persisted", part);
	json_object_object_add(object, "at_boot", json_object_new_boolean(survey_boots(s, gpu)));
	json_object_object_add(object, "boot_obstacle", json_text(line ? s->obstacle : NULL));
	/*
	 * Unless all processes could be read, no holders means not known: null.
	 */
	holders = holders_find(s->host, &s->files, gpu, &count);
	part = count || s->files.complete ? json_object_new_array() : NULL;
	for (i = 0; i < count; i++) {
		struct json_object *holder = json_object_new_object();

		json_object_object_add(holder, "pid", json_object_new_int(holders[i].file->pid));
		json_object_object_add(holder, "command", json_text(holders[i].file->comm));
		json_object_object_add(holder, "file", json_text(holders[i].file->path));
		json_object_object_add(holder, "certain",
				       json_object_new_boolean(holders[i].certain));
		json_object_array_add(part, holder);
	}
	json_object_object_add(object, "holders", part);
	return object;
}
