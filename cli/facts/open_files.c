// SPDX-License-Identifier: GPL-2.0-only
/* See open_files.h. */
#include <ctype.h>
#include <errno.h>
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "facts/open_files.h"
#include "system/output.h"

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

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
	return g_str_has_prefix(path, "/dev/vfio/") || g_str_has_prefix(path, "/dev/nvidia") ||
	       g_str_has_prefix(path, "/dev/dri/");
}

/* A file of NVIDIA's driver that names no GPU, but through which one may be used. */
static bool is_nvidia_common(const char *path)
{
	return g_str_has_prefix(path, "/dev/nvidiactl") || g_str_has_prefix(path, "/dev/nvidia-uvm") ||
	       g_str_has_prefix(path, DMABUF);
}

/* Whether NVIDIA's driver has exported this dma-buf. */
static bool is_nvidia_dmabuf(struct host *h, const char *pid, const char *fd)
{
	g_autofree char *info = host_read(h, NULL, "/proc/%s/fdinfo/%s", pid, fd);
	g_autofree char *exporter = info ? field_value(info, "exp_name") : NULL;

	return exporter && g_str_has_prefix(exporter, "nvidia");
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
		if (path && *path == '/' && !g_str_has_prefix(path, DMABUF))
			rdev = host_rdev(h, "/proc/%s/fd/%s", pid, fds[i]);
		if (!path || (g_str_has_prefix(path, DMABUF) ? !is_nvidia_dmabuf(h, pid, fds[i]) :
			      strcmp(path, VFIO_DEVICE_FD) &&
			      (rdev ? is_common(rdev) : !is_gpu_path(path))))
			continue;
		if (g_str_has_prefix(path, "/dev/nvidia") && isdigit((unsigned char)path[strlen("/dev/nvidia")]))
			names_nvidia = true;
		/* /dev/vfio/vfio, the container, names no device. */
		if (g_str_has_prefix(path, "/dev/vfio/") && strcmp(path, "/dev/vfio/vfio"))
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
		g_auto(GStrv) names = host_list(h, DEVICES "/%s/%s", gpu->address,
						classes[c][0]);

		for (i = 0; names && names[i]; i++)
			add_node(h, nodes, g_strdup_printf("%s/%s", classes[c][1], names[i]),
				 g_strdup_printf(DEVICES "/%s/%s/%s/dev", gpu->address,
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

bool gpu_may_be_open(struct host *h, const struct gpu *gpu)
{
	return gpu->driver || host_exists(h, "/proc/driver/nvidia/gpus/%s", gpu->address) ||
	       host_exists(h, "/sys/class/vfio/%d", gpu->iommu_group) ||
	       host_exists(h, "/sys/class/vfio/noiommu-%d", gpu->iommu_group);
}

struct holder *holders_find(struct host *h, const struct open_files *files, const struct gpu *gpu,
			    size_t *count)
{
	bool by_vfio = gpu->ours || host_exists(h, DEVICES "/%s/vfio-dev",
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
