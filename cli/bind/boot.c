// SPDX-License-Identifier: GPL-2.0-only
/*
 * The configuration for boot: see task.h.
 */
#include <errno.h>
#include <glib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "bind/task.h"

void task_plan_boot(struct overview *s, const struct arguments *a, struct task *task,
		      struct job *job)
{
	const struct config_line *ignored = config_ignores(&s->config, task->gpu);
	struct config_line wish = { .match = a->selected.all ? CONFIG_ALL : CONFIG_ADDRESS,
				    .value = (char *)task->gpu->address };
	struct config wished = { .line = &wish, .count = 1, .error = s->config.error, .errors = s->config.errors };
	const struct config_error *unread = NULL, *unclear;
	g_autofree char *own = config_own_file(task->gpu->address);
	bool boot = a->persist || a->boot_only;
	int foreign = -1;
	size_t i;

	/* "bind --all" asks which GPUs are ignored, too. */
	if (!boot && !(a->bind && a->selected.all))
		return;
	if (a->bind && ignored) {
		job_refuse(job,
			   g_strdup_printf("%s:%u ignores it at boot", ignored->file,
					   ignored->line),
			   g_strdup("remove that line"));
		return;
	}
	/* Nothing would read the file. */
	if (a->bind && boot && s->obstacle) {
		job_refuse(job, g_strdup_printf("can't be bound at boot: %s", s->obstacle),
			   g_strdup("install the package " PROGRAM " again, which has the rule and its "
				    "program, or omit --persist and --boot-only"));
		return;
	}
	unclear = a->bind ? config_unclear(&wished, task->gpu) : NULL;
	if (unclear) {
		job_refuse(job, g_strdup_printf("%s:%u may mean that it is to be ignored at boot: %s",
						unclear->file, unclear->line, unclear->reason),
			   g_strdup("correct or remove that line"));
		return;
	}
	if (!boot)
		return;
	if (a->bind) {
		task->by = config_binds(&s->config, task->gpu);
		task->write = !task->by;
		task->boot = task->by ? "already-persisted" : "persisted";
		if (task->write && host_exists(s->host, "%s", own))
			job_refuse(job, g_strdup_printf("%s exists, but does not bind it", own),
				   g_strdup("check that file, and remove or move it"));
		else if (task->write && !host_absent())
			job_refuse(job, g_strdup_printf("can't check for %s: %s", own, strerror(errno)),
				   NULL);
		else if (task->write)
			task_add_step(task, "write %s", own);
		return;
	}
	/* Which line binds it, apart from the one in its own file? */
	task->remove = host_exists(s->host, "%s", own) || !host_absent();
	for (i = 0; i < s->config.count; i++) {
		struct config_line *line = &s->config.line[i];
		struct config one = { .line = line, .count = 1 };

		if (strcmp(line->file, own)) {
			if (!task->by && !ignored)
				task->by = config_binds(&one, task->gpu);
		} else if (!config_line_binds(line) || line->match != CONFIG_ADDRESS ||
			   strcasecmp(line->value, task->gpu->address)) {
			foreign = line->line;
		}
	}
	for (i = 0; i < s->config.errors; i++) {
		const struct config_error *e = &s->config.error[i];

		if (!strcmp(e->file, own) && e->line)
			foreign = e->line;
		else if (!strcmp(e->file, own) || !strcmp(e->file, CONFIG_DIR))
			unread = e;
	}
	/* Only what bind wrote may be removed. */
	if (unread) {
		job_refuse(job, g_strdup_printf("%s %s", unread->file, unread->reason),
			   g_strdup("check it, and edit or remove the GPU's file yourself"));
		return;
	}
	if (foreign >= 0) {
		job_refuse(job, g_strdup_printf("%s:%d was not written by \"bind --persist\"", own, foreign),
			   g_strdup("edit or remove that file yourself"));
		return;
	}
	task->boot = task->by ? "still-persisted" : task->remove ? "removed" : "not-persisted";
	if (task->remove)
		task_add_step(task, "remove %s", own);
}

void task_prepare_boot(struct task *task, struct job *job)
{
	if (job->outcome.status || !task->write)
		return;
	task->file = config_prepare(job->host, job->address);
	if (!task->file)
		job_end(job, EXIT_FAILED, "failed",
			g_strdup_printf("can't write a file in " CONFIG_DIR ": %s", strerror(errno)),
			NULL);
}

bool task_settle_boot(struct task *task, struct job *job)
{
	g_autofree char *own = config_own_file(task->gpu->address);
	char *longer = NULL, *next = NULL;
	bool changed = false;
	int error = 0;

	if (job->outcome.status != EXIT_OK) {
		if (task->file)
			replacement_abandon(task->file);
		task->boot = NULL;
	} else if (task->write) {
		error = replacement_commit(task->file) ? errno : 0;
		changed = !error;
		longer = error ? g_strdup_printf("%s; but not at boot: can't write %s: %s",
						 job->outcome.message, own, strerror(error))
			       : g_strdup_printf("%s; at every boot, by %s", job->outcome.message, own);
	} else if (task->remove || task->by) {
		if (task->remove) {
			error = unlink(own) && errno != ENOENT ? errno : 0;
			changed = !error;
		}
		if (error) {
			longer = g_strdup_printf("%s; but can't remove %s: %s", job->outcome.message, own,
						 strerror(error));
		} else if (task->by && !job->bind) {
			longer = g_strdup_printf("%s; but %s:%u binds it at boot", job->outcome.message,
						 task->by->file, task->by->line);
			next = g_strdup_printf("remove that line, or add \"ignore %s\"",
					       task->gpu->address);
		} else if (task->by) {
			longer = g_strdup_printf("%s; at every boot, by %s:%u", job->outcome.message,
						 task->by->file, task->by->line);
		} else {
			longer = g_strdup_printf("%s; no longer at boot", job->outcome.message);
		}
	} else if (task->boot) {
		longer = g_strdup_printf("%s; no line binds it at boot", job->outcome.message);
	}
	task->file = NULL;
	if (longer) {
		/* The request included the boot. */
		if (error || next)
			job_end(job, EXIT_FAILED, "failed", longer, next);
		else
			job_end(job, job->outcome.status, job->outcome.result, longer, NULL);
	}
	if (error)
		task->boot = NULL;
	task->changed = changed;
	return changed;
}
