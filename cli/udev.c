// SPDX-License-Identifier: GPL-2.0-only
/*
 * /usr/lib/udev/nvgrace-gpu: binds GPUs at boot, and asks and updates the images that
 * boot. It is linked from the files of nvgrace-gpu(8), without what only that needs, so
 * that it is small in an image and starts in milliseconds.
 *
 *	nvgrace-gpu bind ADDRESS	bind the GPU, if the configuration says so;
 *					60-nvgrace-gpu.rules calls it
 *	nvgrace-gpu match ADDRESS	status 0 if "bind" would; changes nothing
 *	nvgrace-gpu configured		status 0 if the configuration binds any GPU;
 *					the initramfs hooks call it
 *	nvgrace-gpu renew [KERNEL]	update the images that have these files or
 *					should; the packages and DKMS call it
 *	nvgrace-gpu images		print the commands that update the images with
 *					these files, for when they are gone
 *	nvgrace-gpu kernels		name the kernels that may boot next and bind no GPU,
 *					because they lack the module; the packages call
 *					it after each change of kernels
 *	nvgrace-gpu leave		unload the driver if no device is in use, and
 *					clear overrides that name it; before the
 *					package is removed
 *
 * It also runs in an initramfs, where the end of the initramfs may cut a bind short.
 * A bind can be repeated at any point, and the running system does so, because udev
 * announces all devices again. Messages go to standard error and, about a GPU, to
 * the kernel's log, because the log can be read at any time.
 *
 * Environment: NVGRACE_GPU_ROOT is a prefix for all paths, for "match" and
 * "configured".
 */
#include <fcntl.h>
#include <glib.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "bind/renew.h"
#include "bind/task.h"
#include "facts/boots.h"
#include "facts/elsewhere.h"
#include "facts/owner.h"
#include "system/output.h"
#include "system/spawn.h"

enum level { WARNING = 4, NOTICE };

/* Says it of the GPU, on standard error and in the kernel's log. */
static void G_GNUC_PRINTF(4, 5) say(struct host *h, enum level level, const char *address,
				   const char *fmt, ...)
{
	g_autofree char *text = NULL;
	va_list args;
	int fd;

	va_start(args, fmt);
	text = g_strdup_vprintf(fmt, args);
	va_end(args);
	complain(address, "%s", text);
	fd = h->recorded ? -1 : open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	/* Without the newline, the record would wait for more. */
	dprintf(fd, "<%d>" PROGRAM ": %s: %s\n", level, address, text);
	close(fd);
}

/*
 * Whether the configuration binds the GPU in this boot. The rule calls for every 3D
 * controller of NVIDIA, so nothing is said of one that is not supported, nor of one
 * that no line binds.
 */
static bool is_wanted(struct host *h, const char *address)
{
	g_autofree char *elsewhere = NULL;
	const struct config_error *unclear;
	struct config config;
	bool wanted = false;
	struct gpu gpu;
	size_t i;

	if (gpu_read(h, address, &gpu) || !gpu.product) {
		gpu_free(&gpu);
		return false;
	}
	config_read(h, &config);
	for (i = 0; i < config.errors; i++) {
		g_autofree char *text = config_error_text(&config.error[i]);

		say(h, WARNING, address, "%s", text);
	}
	if (!config_ignores(&config, &gpu)) {
		wanted = config_binds(&config, &gpu);
		unclear = config_unclear(&config, &gpu);
		if (unclear)
			say(h, WARNING, address, "not bound, because %s:%u may mean that it is to be ignored; "
			    "correct that, and run \"" PROGRAM " bind %s\"", unclear->file, unclear->line,
			    address);
	}
	config_free(&config);
	gpu_free(&gpu);
	elsewhere = wanted ? boot_is_elsewhere(h) : NULL;
	if (elsewhere)
		say(h, NOTICE, address, "not bound, because this is %s; later, run \"" PROGRAM " bind %s\"",
		    elsewhere, address);
	return wanted && !elsewhere;
}

static int bind_gpu(struct host *h, const char *address)
{
	static const struct arguments arguments = { .bind = true };
	struct task task = { .steps = g_ptr_array_new_with_free_func(g_free) };
	struct job job = { .host = h, .bind = true, .at_boot = true, .kmsg = -1,
			   .log = g_ptr_array_new_with_free_func(g_free) };
	struct outcome *o = &job.outcome;
	struct overview s;
	int status;
	size_t i;

	overview_read(h, &s);
	for (i = 0; i < s.gpus.count && !task.gpu; i++)
		if (!strcmp(s.gpus.gpu[i].address, address))
			task.gpu = &s.gpus.gpu[i];
	if (task.gpu) {
		strcpy(job.address, address);
		job.gpu = task.gpu;
		task_plan(&s, &arguments, &task, &job);
		switch_all(&job, 1);
		if (o->status)
			say(h, WARNING, address, "%s%s%s", o->message, o->next ? "; " : "", o->next ?: "");
		else if (job.changed)
			say(h, NOTICE, address, "%s", o->message);
	}
	status = o->status;
	job_free(&job);
	g_ptr_array_unref(task.steps);
	overview_free(&s);
	return status;
}

static int renew(struct host *h, const char *release)
{
	g_autoptr(GPtrArray) plan = renew_plan(h, release, RENEW_CHANGED, config_binds_any(h), false);
	int status = EXIT_OK, rc;
	size_t i;

	for (i = 0; i < plan->len; i++) {
		g_autofree char *failure = renew_image(h, plan->pdata[i], &rc);

		if (failure) {
			complain(NULL, "%s", failure);
			status = EXIT_FAILED;
		}
	}
	return status;
}

static int print_images(struct host *h)
{
	g_autoptr(GPtrArray) plan = renew_plan(h, NULL, RENEW_REMOVE, false, config_binds_any(h));
	size_t i;

	for (i = 0; i < plan->len; i++) {
		const struct renewal *renewal = plan->pdata[i];
		g_autofree char *command = renewal->owner.command ? g_strjoinv(" ", renewal->owner.command) : NULL;

		if (command)
			puts(command);
		else
			complain(NULL, "%s has files of this package, and binds GPUs at boot until it is made "
				 "again; %s", renewal->image, renewal->owner.remedy);
	}
	return EXIT_OK;
}

static int check_kernels(struct host *h)
{
	g_autofree char *kernels = config_binds_any(h) ? kernels_read(h) : NULL;
	struct utsname running;
	struct boots boots;
	int status = EXIT_OK;
	size_t i;

	uname(&running);
	boots_read(h, kernels, NULL, running.release, &boots);
	for (i = 0; i < boots.count; i++) {
		const struct boot *b = &boots.boot[i];
		g_autofree char *why = NULL, *remedy = NULL;

		if (!b->counts || b->module)
			continue;
		module_lack(h, b->release, &why, &remedy);
		complain(NULL, "Linux %s has no " MODULE_NAME ", and would bind no GPU: %s; %s", b->release, why,
			 remedy);
		status = EXIT_FAILED;
	}
	boots_free(&boots);
	return status;
}

static int leave(struct host *h)
{
	char *const unload[] = { (char *)"modprobe", (char *)"-r", (char *)MODULE_NAME, NULL };
	g_auto(GStrv) names = NULL;
	int status = EXIT_OK;
	size_t i;

	/* In a chroot, /sys is the host's, which the package must not change. */
	if (!host_exists(h, "/run/systemd/system"))
		return EXIT_OK;
	if (host_exists(h, "/sys/module/" DRIVER_NAME) && program_show("/sbin/modprobe", unload))
		complain(NULL, "can't unload " MODULE_NAME ", because devices are in use; it stays loaded until "
			 "a reboot");
	names = host_list(h, DEVICES);
	for (i = 0; names && names[i]; i++) {
		g_autofree char *override = gpu_override(h, names[i]);
		g_autofree char *driver = host_link_name(h, DEVICES "/%s/driver", names[i]);
		g_autofree char *path = NULL;
		int fd;

		if (g_strcmp0(override, DRIVER_NAME) || !g_strcmp0(driver, DRIVER_NAME))
			continue;
		path = g_strdup_printf(DEVICES "/%s/driver_override", names[i]);
		fd = open(path, O_WRONLY | O_CLOEXEC);
		if (fd < 0 || write(fd, "\n", 1) != 1) {
			complain(names[i], "can't clear its driver_override; until a reboot, no driver can bind it");
			status = EXIT_FAILED;
		}
		if (fd >= 0)
			close(fd);
	}
	return status;
}

static int usage(void)
{
	fputs("usage: nvgrace-gpu bind ADDRESS | match ADDRESS | configured | renew [KERNEL] | images | kernels | leave\n",
	      stderr);
	return EXIT_USAGE_ERROR;
}

int main(int argc, char **argv)
{
	const char *command = argc > 1 ? argv[1] : "", *root = getenv("NVGRACE_GPU_ROOT");
	g_autofree char *address = argc == 3 ? g_ascii_strdown(argv[2], -1) : NULL;
	struct host h;
	int status;

	signal(SIGCHLD, SIG_DFL);
	host_init(&h, root);
	h.adds_id = config_adds_id;
	if (argc == 3 && !strcmp(command, "match"))
		status = is_wanted(&h, address) ? EXIT_OK : EXIT_FAILED;
	else if (argc == 2 && !strcmp(command, "configured"))
		status = config_binds_any(&h) ? EXIT_OK : EXIT_FAILED;
	else if (h.recorded)
		status = usage();
	else if (argc == 3 && !strcmp(command, "bind"))
		status = is_wanted(&h, address) ? bind_gpu(&h, address) : EXIT_OK;
	else if ((argc == 2 || argc == 3) && !strcmp(command, "renew"))
		status = renew(&h, argc == 3 ? argv[2] : NULL);
	else if (argc == 2 && !strcmp(command, "images"))
		status = print_images(&h);
	else if (argc == 2 && !strcmp(command, "kernels"))
		status = check_kernels(&h);
	else if (argc == 2 && !strcmp(command, "leave"))
		status = leave(&h);
	else
		status = usage();
	host_exit(&h);
	return status;
}
