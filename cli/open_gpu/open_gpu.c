// SPDX-License-Identifier: GPL-2.0-only
/*
 * What "bench", "test" and "scrub --verify" share: see open_gpu.h.
 */
#include <errno.h>
#include <glib.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "facts/overview.h"
#include "facts/selection.h"
#include "open_gpu/open_gpu.h"
#include "open_gpu/progress.h"
#include "system/options.h"
#include "system/output.h"

/* ---- options ------------------------------------------------------------ */

static const struct argp_option options[] = {
	{ "yes", 'y', NULL, 0, "Don't ask", 0 },
	{ "json", 'j', NULL, 0, JSON_HELP, 0 },
	{ }
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct wish *wish = state->input;

	switch (key) {
	case 'y':
		wish->yes = true;
		return 0;
	case 'j':
		wish->json = true;
		return 0;
	case ARGP_KEY_ARG:
		if (wish->typed)
			argp_error(state, "more than one GPU given");
		wish->typed = arg;
		return 0;
	case ARGP_KEY_END:
		if (!wish->typed && !wish->lists)
			argp_error(state, "no GPU given; \"" PROGRAM " list\" shows the GPUs");
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

static const struct argp argp = { options, parse, "ADDRESS", NULL, NULL, NULL, NULL };

const struct argp_child open_gpu_children[] = { { &argp, 0, NULL, 0 }, { } };

/* ---- reasons to refuse -------------------------------------------------- */

static enum exit_status refuse_unbound(const struct gpu *gpu)
{
	if (!gpu->driver) {
		complain(gpu->address, "not bound to a driver; run \"" PROGRAM " bind %s\"",
			 gpu->address);
		return EXIT_REFUSED;
	}
	/*
	 * Another vfio driver may show the memory, too: open_gpu() finds out.
	 */
	if (!gpu->ours && !strstr(gpu->driver, "vfio")) {
		complain(gpu->address, "bound to %s; stop what uses it, and run \"" PROGRAM
			 " bind %s\"", gpu->driver, gpu->address);
		return EXIT_REFUSED;
	}
	return EXIT_OK;
}

static enum exit_status refuse_in_use(struct host *h, const struct gpu *gpu)
{
	g_autofree char *who = gpu_users(h, gpu);

	if (!who)
		return EXIT_OK;
	complain(gpu->address, "in use: %s; end that program", who);
	return EXIT_REFUSED;
}

bool risk_can_ask(void)
{
	return isatty(STDIN_FILENO) && isatty(STDERR_FILENO);
}

bool risk_agreed(const char *addresses, const char *command, const char *risk)
{
	char answer[8] = "";

	fflush(stdout);
	fprintf(stderr, "%s: %s %s. Continue? [y/N] ", addresses, command, risk);
	if (!fgets(answer, sizeof(answer), stdin))
		fputc('\n', stderr);
	if (*answer == 'y' || *answer == 'Y')
		return true;
	complain(addresses, "nothing done");
	return false;
}

/* Asks whether a person agrees to the risk, if needed. */
static enum exit_status ask(const struct wish *wish, const struct gpu *gpu)
{
	if (!wish->risk || wish->yes)
		return EXIT_OK;
	if (!risk_can_ask()) {
		complain(gpu->address, "%s %s, and there is no terminal to ask on; add --yes to agree",
			 wish->command, wish->risk);
		return EXIT_REFUSED;
	}
	return risk_agreed(gpu->address, wish->command, wish->risk) ? EXIT_OK : EXIT_REFUSED;
}

/* The driver shows no memory. */
static enum exit_status refuse_core_only(const struct gpu *gpu)
{
	complain(gpu->address, "the driver %s shows no GPU memory%s", gpu->driver,
		 gpu->ours ? ": firmware reports none, so this is a plain PCI device"
			   : "; bind the GPU to " DRIVER_NAME);
	return EXIT_REFUSED;
}

/* The path of the device's own file, or NULL. */
static char *cdev_path(const struct open_gpu *e)
{
	g_auto(GStrv) names = host_list(e->host, DEVICES "/%s/vfio-dev", e->gpu.address);
	char *path = NULL;
	size_t i;

	for (i = 0; names && names[i] && !path; i++)
		if (!strncmp(names[i], "vfio", 4))
			path = g_strdup_printf("/dev/vfio/devices/%s", names[i]);
	if (path && access(path, F_OK))
		g_clear_pointer(&path, g_free);
	return path;
}

/* vfio has refused a file or a request, which v->failed names. */
static enum exit_status refuse_open(const struct open_gpu *e, int error)
{
	const char *address = e->gpu.address, *failed = e->vfio.failed;
	bool file = *failed == '/';

	if (file && error == EBUSY) {
		complain(address, "in use: another process has %s open; end that process", failed);
		return EXIT_REFUSED;
	}
	if (file && (error == EACCES || error == EPERM)) {
		complain(address, "can't open %s: %s; use sudo, or get access to that file", failed,
			 strerror(error));
		return EXIT_NOT_ROOT;
	}
	if (error == EBUSY || error == EPERM) {
		complain(address, "in use, or a device in its IOMMU group %d is not bound to a vfio driver "
			 "(%s: %s); run \"ls /sys/kernel/iommu_groups/%d/devices\"", e->gpu.iommu_group,
			 failed, strerror(error), e->gpu.iommu_group);
		return EXIT_REFUSED;
	}
	complain(address, "%s failed: %s; run \"" PROGRAM " doctor %s\"", failed, strerror(error), address);
	return EXIT_FAILED;
}

/* By the device's own file if the kernel has that, otherwise by its group. */
static enum exit_status open_device(struct open_gpu *e)
{
	g_autofree char *path = cdev_path(e);
	int error, group = e->gpu.iommu_group;

	e->vfio = VFIO_CLOSED;
	/* A user may have access only to the group. */
	if (path && (!access("/dev/iommu", R_OK | W_OK) || group < 0) && !access(path, R_OK | W_OK)) {
		error = vfio_open_cdev(&e->vfio, path);
	} else if (group < 0) {
		complain(e->gpu.address, "no IOMMU group; check that the host has an IOMMU and that it is on");
		return EXIT_REFUSED;
	} else {
		error = vfio_open_group(&e->vfio, group, e->gpu.address);
	}
	return error ? refuse_open(e, -error) : EXIT_OK;
}

enum exit_status open_gpu_open(struct open_gpu *e)
{
	enum exit_status status = open_device(e);
	int error;

	if (status)
		return status;
	error = parts_find(e->host, &e->vfio, &e->gpu, &e->parts);
	if (error) {
		complain(e->gpu.address, "VFIO_DEVICE_GET_REGION_INFO failed: %s",
			 strerror(-error));
		status = EXIT_FAILED;
	} else if (!e->parts.count) {
		status = refuse_core_only(&e->gpu);
	}
	if (status)
		vfio_close(&e->vfio);
	return status;
}

/* ---- the machine -------------------------------------------------------- */

static void read_machine(struct open_gpu *e)
{
	struct utsname name;

	/* Its only error is a bad address. */
	uname(&name);
	e->kernel = g_strdup(name.release);
	e->machine = g_strdup(name.machine);
	e->driver_version = host_line(e->host, "/sys/module/%s/version", e->gpu.driver);
}

enum exit_status open_gpu_find(struct host *h, const struct wish *wish, struct open_gpu *e)
{
	char address[ADDRESS_MAX];
	enum exit_status status;

	memset(e, 0, sizeof(*e));
	e->host = h;
	e->vfio = VFIO_CLOSED;
	status = gpu_resolve(h, wish->typed, address);
	if (status)
		return status;
	/* Without a product, it was unplugged after gpu_resolve(). */
	if (gpu_read(h, address, &e->gpu) || !e->gpu.product) {
		gpu_free(&e->gpu);
		complain(address, "the device is gone");
		return EXIT_NO_DEVICE;
	}
	status = refuse_unbound(&e->gpu);
	if (!status && e->gpu.mode == GPU_MODE_CORE_ONLY)
		status = refuse_core_only(&e->gpu);
	if (!status)
		status = refuse_in_use(h, &e->gpu);
	if (!status) {
		progress_begin(e->gpu.address, wish->risk ? "nothing done" : wish->interrupted);
		status = ask(wish, &e->gpu);
	}
	if (!status) {
		progress_interrupted(wish->interrupted);
		read_machine(e);
	} else {
		open_gpu_end(e);
	}
	return status;
}

enum exit_status open_gpu_begin(struct host *h, const struct wish *wish, struct open_gpu *e)
{
	enum exit_status status = open_gpu_find(h, wish, e);

	if (status)
		return status;
	status = open_gpu_open(e);
	if (status)
		open_gpu_end(e);
	return status;
}

void open_gpu_end(struct open_gpu *e)
{
	progress_end();
	vfio_close(&e->vfio);
	gpu_free(&e->gpu);
	g_free(e->kernel);
	g_free(e->machine);
	g_free(e->driver_version);
	memset(e, 0, sizeof(*e));
	e->vfio = VFIO_CLOSED;
}

/* ---- output ------------------------------------------------------------- */

static struct json_object *part_json(const struct part *part)
{
	struct json_object *object = json_object_new_object();

	json_object_object_add(object, "size", json_size(part->size));
	json_object_object_add(object, "mappable", json_size(part->mappable));
	json_object_object_add(object, "bar_size", json_size(part->bar_size));
	return object;
}

void open_gpu_json(const struct open_gpu *e, struct json_object *document)
{
	char id[8];
	size_t i;

	json_object_object_add(document, "address", json_text(e->gpu.address));
	snprintf(id, sizeof(id), "%04x", e->gpu.device);
	json_object_object_add(document, "device", json_text(id));
	json_object_object_add(document, "product", json_text(e->gpu.product));
	json_object_object_add(document, "driver", json_text(e->gpu.driver));
	json_object_object_add(document, "driver_version", json_text(e->driver_version));
	json_object_object_add(document, "kernel", json_text(e->kernel));
	json_object_object_add(document, "machine", json_text(e->machine));
	json_object_object_add(document, "page_size", json_size(e->host->page_size));
	json_object_object_add(document, "mode", !e->parts.count ? NULL :
			       json_text(e->vfio.cdev ? "cdev" : "group"));
	json_object_object_add(document, "usemem", NULL);
	json_object_object_add(document, "resmem", NULL);
	for (i = 0; i < e->parts.count; i++)
		json_object_object_add(document, e->parts.part[i].name,
				       part_json(&e->parts.part[i]));
}
