// SPDX-License-Identifier: GPL-2.0-only
/*
 * The reasons to refuse a GPU, and the steps: see task.h.
 */
#include <glib.h>
#include <string.h>

#include "bind/task.h"

void job_refuse(struct job *job, char *message, char *next)
{
	job_end(job, EXIT_REFUSED, "refused", message, next);
}

void task_add_step(struct task *task, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	g_ptr_array_add(task->steps, g_strdup_vprintf(fmt, args));
	va_end(args);
}

static bool refuse_in_use(struct overview *s, const struct gpu *gpu, struct job *job)
{
	g_autofree struct holder *holders = NULL;
	g_autofree char *who = NULL;
	bool service = false;
	size_t count, i;

	if (!gpu_may_be_open(s->host, gpu))
		return false;
	holders = holders_find(s->host, overview_files(s), gpu, &count);
	for (i = 0; i < count; i++)
		service |= !strncmp(holders[i].file->comm, "nvidia-persiste", 15);
	if (count) {
		who = holders_text(holders, count);
		job_refuse(job, g_strdup_printf("in use: %s", who),
			   service ? g_strdup("run \"systemctl stop nvidia-persistenced\", and end other "
					      "programs that use the GPU")
			   : gpu->ours || (gpu->driver && !strcmp(gpu->driver, "vfio-pci"))
			       ? g_strdup("shut down that virtual machine")
			       : g_strdup("end that program"));
	}
	return count;
}

static bool refuse_online(struct overview *s, const struct gpu *gpu, struct job *job)
{
	struct online online = overview_online(s, gpu);
	g_autofree char *where = NULL;

	if (!online.online)
		return false;
	where = online.range && online.range->end
			? g_strdup_printf("%llx-%llx, %s", (unsigned long long)online.range->start,
					  (unsigned long long)online.range->end, online.range->name)
			: g_strdup("System RAM");
	/* No command takes it offline: it isn't known which blocks are this GPU's alone. */
	job_refuse(job, g_strdup_printf("its memory is online as System RAM of this host (%s)", where),
		   g_strdup_printf("stop what uses the GPU and unload the driver that added the memory; if the "
				   "memory stays online, run \"" PROGRAM " bind --boot-only %s\" and reboot",
				   gpu->address));
	return true;
}

/* Others' guests have its functions, or could get them at any moment. */
static bool refuse_functions(const struct gpu *gpu, struct job *job)
{
	if (!gpu->functions)
		return false;
	job_refuse(job, g_strdup_printf("%llu of its virtual functions (SR-IOV) are on",
					(unsigned long long)gpu->functions),
		   g_strdup_printf("end what uses them, and run \"echo 0 > "
				   DEVICES "/%s/sriov_numvfs\"", gpu->address));
	return true;
}

void task_plan(struct overview *s, const struct arguments *a, struct task *task, struct job *job)
{
	const struct gpu *gpu = task->gpu;
	bool ours = gpu->override && !strcmp(gpu->override, DRIVER_NAME);
	const char *address = gpu->address;

	if (!a->boot_only && a->bind && !gpu->ours) {
		if (refuse_functions(gpu, job) || refuse_online(s, gpu, job) ||
		    refuse_in_use(s, gpu, job))
			return;
		if (!host_exists(s->host, "/sys/bus/pci/drivers/" DRIVER_NAME))
			task_add_step(task, "load the module " MODULE_NAME);
		task_add_step(task, "write " DRIVER_NAME " into /sys/bus/pci/devices/%s/driver_override", address);
		if (gpu->driver)
			task_add_step(task, "write %s into /sys/bus/pci/drivers/%s/unbind", address, gpu->driver);
		task_add_step(task, "write %s into /sys/bus/pci/drivers_probe", address);
	}
	if (!a->boot_only && !a->bind) {
		if (gpu->ours && refuse_in_use(s, gpu, job))
			return;
		if (ours)
			task_add_step(task, "clear /sys/bus/pci/devices/%s/driver_override", address);
		if (gpu->ours)
			task_add_step(task, "write %s into /sys/bus/pci/drivers/" DRIVER_NAME "/unbind", address);
		if ((gpu->ours || (ours && !gpu->driver)) && !a->no_probe)
			task_add_step(task, "write %s into /sys/bus/pci/drivers_probe", address);
	}
}
