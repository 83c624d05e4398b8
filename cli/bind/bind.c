// SPDX-License-Identifier: GPL-2.0-only
/*
 * "nvgrace-gpu bind" and "unbind": which GPUs, the order of all changes, and the
 * output. task.c and boot.c plan them, and switch.c changes the drivers. main.c calls
 * it.
 *
 * The order for each GPU: all checks that may refuse; the new configuration
 * file, written aside; the change of driver; then the file is renamed or
 * removed; last the initramfs. So a failed bind is not repeated at every boot,
 * and a file that can't be written is noticed before anything is changed.
 */
#include <errno.h>
#include <glib.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "bind/module.h"
#include "bind/renew.h"
#include "bind/task.h"
#include "commands.h"
#include "facts/boots.h"
#include "system/options.h"
#include "system/output.h"
#include "system/signals.h"

static const char doc_bind[] =
	"Bind GPUs to " DRIVER_NAME ", all at the same time.\v"
	"An ADDRESS may be short (01:00.0) if only one GPU matches it. The command refuses a GPU that "
	"a process has open, or whose memory is System RAM of this host. If a bind fails, the GPU "
	"gets its former driver back.";

static const char doc_unbind[] =
	"Unbind GPUs from " DRIVER_NAME ", and have the kernel bind their default driver.\v"
	"An ADDRESS may be short (01:00.0) if only one GPU matches it. The command refuses a GPU that "
	"a process has open.";

enum { KEY_BOOT_ONLY = 256, KEY_NO_INITRAMFS, KEY_NO_PROBE };

static const struct argp_option options_bind[] = {
	{ "all", 'a', NULL, 0, "Bind every supported GPU that no line of the configuration ignores", 0 },
	{ "persist", 'p', NULL, 0, "Also bind at every boot, by a file in " CONFIG_DIR, 0 },
	{ "boot-only", KEY_BOOT_ONLY, NULL, 0, "Bind only at every boot, not now", 0 },
	{ "no-initramfs", KEY_NO_INITRAMFS, NULL, 0, "Don't update the initramfs", 0 },
	{ "dry-run", 'n', NULL, 0, "Only print the steps", 0 },
	{ "json", 'j', NULL, 0, JSON_HELP, 0 },
	{ }
};

static const struct argp_option options_unbind[] = {
	{ "all", 'a', NULL, 0,
	  "Unbind every GPU that is bound to " DRIVER_NAME "; with --persist or --boot-only, every "
	  "supported GPU", 0 },
	{ "persist", 'p', NULL, 0, "Also undo \"bind --persist\"", 0 },
	{ "boot-only", KEY_BOOT_ONLY, NULL, 0,
	  "Only undo \"bind --persist\"; don't unbind now", 0 },
	{ "no-initramfs", KEY_NO_INITRAMFS, NULL, 0, "Don't update the initramfs", 0 },
	{ "no-probe", KEY_NO_PROBE, NULL, 0, "Leave the GPU without a driver", 0 },
	{ "dry-run", 'n', NULL, 0, "Only print the steps", 0 },
	{ "json", 'j', NULL, 0, JSON_HELP, 0 },
	{ }
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;

	switch (key) {
	case 'p':
		a->persist = true;
		return 0;
	case KEY_BOOT_ONLY:
		a->boot_only = true;
		return 0;
	case KEY_NO_INITRAMFS:
		a->no_initramfs = true;
		return 0;
	case KEY_NO_PROBE:
		a->no_probe = true;
		return 0;
	case 'n':
		a->dry_run = true;
		return 0;
	case 'j':
		a->json = true;
		return 0;
	case ARGP_KEY_END:
		selection_parse(&a->selected, key, state);
		if (a->boot_only && a->persist)
			argp_error(state, "both --persist and --boot-only given");
		if (a->boot_only && a->no_probe)
			argp_error(state,
				   "both --boot-only and --no-probe given; --boot-only does not unbind");
		if (a->no_initramfs && !a->persist && !a->boot_only)
			argp_error(state, "--no-initramfs needs --persist or --boot-only");
		return 0;
	}
	return selection_parse(&a->selected, key, state);
}

/* ---- output ------------------------------------------------------------- */

static void say(struct job *job)
{
	size_t i;

	outcome_print(&job->outcome, job->address);
	for (i = 0; i < job->log->len; i++)
		complain(job->address, "kernel: %s", (char *)job->log->pdata[i]);
}

/* Whether the GPU or its configuration changed, or would without --dry-run. */
static bool has_changed(const struct arguments *a, const struct task *task, const struct job *job)
{
	if (a->dry_run)
		return !job->outcome.status && task->steps->len;
	return job->changed || task->changed;
}

/* Writes the GPU, the user and the result to the system's log. */
static void write_log(const struct job *job)
{
	uint64_t user;

	/*
	 * The user who logged in, even with sudo; 4294967295 without a login.
	 */
	if (host_u64(job->host, &user, "/proc/self/loginuid") || user >= UINT32_MAX)
		user = getuid();
	syslog(job->outcome.status ? LOG_ERR : LOG_NOTICE, "%s %s by uid %u: %s",
	       job->bind ? "bind" : "unbind", job->address, (unsigned int)user,
	       job->outcome.message);
}

static struct json_object *job_json(const struct arguments *a, const struct task *task,
				    const struct job *job)
{
	struct json_object *object = json_object_new_object();

	json_object_object_add(object, "address", json_text(job->address));
	json_object_object_add(object, "result", json_text(job->outcome.result));
	json_object_object_add(object, "exit_status", json_object_new_int(job->outcome.status));
	json_object_object_add(object, "changed",
			       json_object_new_boolean(has_changed(a, task, job)));
	json_object_object_add(object, "message", json_text(job->outcome.message));
	json_object_object_add(object, "next", json_text(job->outcome.next));
	json_object_object_add(object, "boot", json_text(task->boot));
	json_object_object_add(object, "steps", json_texts(task->steps));
	json_object_object_add(object, "kernel_log", json_texts(job->log));
	return object;
}

/* ---- the commands ------------------------------------------------------- */

/* All GPUs of a command line. */
struct work {
	const struct arguments *a;
	struct overview s;
	struct task *tasks;
	struct job *jobs;	/* one for each task, in the same order */
	size_t count;
};

/* Whether --all includes this GPU. The two commands undo each other. */
static bool belongs(const struct gpu *gpu, const void *data)
{
	const struct work *w = data;

	if (w->a->bind)
		return !config_ignores(&w->s.config, gpu);
	return w->a->persist || w->a->boot_only || gpu->ours;
}

/* Finds the GPUs; EXIT_OK, or an exit status after a message. */
static enum exit_status choose(struct work *w)
{
	g_autofree const struct gpu **found = g_new0(const struct gpu *, w->s.gpus.count);
	enum exit_status status;
	size_t i;

	status = selection_find(&w->a->selected, w->s.host, &w->s.gpus, belongs, w, found, &w->count);
	w->tasks = g_new0(struct task, w->count);
	w->jobs = g_new0(struct job, w->count);
	for (i = 0; i < w->count; i++)
		w->tasks[i].gpu = found[i];
	for (i = 0; w->a->bind && w->a->selected.all && i < w->s.gpus.count; i++) {
		const struct config_line *ignored = config_ignores(&w->s.config, &w->s.gpus.gpu[i]);

		if (ignored)
			complain(w->s.gpus.gpu[i].address, "left out: %s:%u ignores it", ignored->file, ignored->line);
	}
	return status;
}

/* Plans all jobs, or refuses them. Returns whether a driver has to change. */
static bool plan_all(struct work *w)
{
	bool change = false;
	size_t i;

	for (i = 0; i < w->count; i++) {
		struct task *task = &w->tasks[i];
		struct job *job = &w->jobs[i];

		task->steps = g_ptr_array_new_with_free_func(g_free);
		job->log = g_ptr_array_new_with_free_func(g_free);
		job->host = w->s.host;
		strcpy(job->address, task->gpu->address);
		job->gpu = task->gpu;
		job->bind = w->a->bind;
		job->probe = !w->a->no_probe;
		job->kmsg = -1;
		task_plan(&w->s, w->a, task, job);
		if (!job->outcome.result)
			task_plan_boot(&w->s, w->a, task, job);
		if (job->outcome.result) {
			g_ptr_array_set_size(task->steps, 0);
			continue;
		}
		if (w->a->dry_run)
			job_end(job, EXIT_OK, "planned",
				g_strdup(task->steps->len ? "would" : "nothing to do"), NULL);
		else if (w->a->boot_only)
			job_end(job, EXIT_OK, "unchanged", g_strdup("left as it is now"), NULL);
		else
			change = true;
	}
	return change;
}

/* Loads the module for binds; if that fails, the binds fail. */
static void load_module(struct work *w)
{
	g_autoptr(GPtrArray) log = g_ptr_array_new_with_free_func(g_free);
	g_autofree char *next = NULL, *why = NULL;
	bool asked = false;
	size_t i, j;

	for (i = 0; i < w->count; i++) {
		struct job *job = &w->jobs[i];

		if (job->outcome.result || !job->bind || w->tasks[i].gpu->ours)
			continue;
		if (!asked)
			why = module_load(w->s.host, &next, log);
		asked = true;
		if (!why)
			break;
		job_end(job, EXIT_FAILED, "failed", g_strdup(why), g_strdup(next));
		for (j = 0; j < log->len; j++)
			g_ptr_array_add(job->log, g_strdup(log->pdata[j]));
	}
}

/*
 * Changes files and drivers in the order above. Returns whether the
 * configuration changed.
 */
static bool change_all(struct work *w, bool drivers)
{
	sigset_t signals, before;
	bool changed = false;
	size_t i;

	interrupting_signals(&signals);
	sigprocmask(SIG_BLOCK, &signals, &before);
	for (i = 0; i < w->count; i++)
		task_prepare_boot(&w->tasks[i], &w->jobs[i]);
	if (drivers)
		switch_all(w->jobs, w->count);
	for (i = 0; i < w->count; i++)
		changed |= task_settle_boot(&w->tasks[i], &w->jobs[i]);
	sigprocmask(SIG_SETMASK, &before, NULL);
	return changed;
}

/*
 * Makes the images again that need it; returns the schema's "initramfs". Even if the
 * configuration is as it was, an image may have another one.
 */
static struct json_object *renew_images(struct work *w, bool changed, enum exit_status *worst)
{
	bool dry = w->a->dry_run, binds = (dry && w->a->bind) || config_binds_any(w->s.host);
	g_autoptr(GPtrArray) plan = renew_plan(w->s.host, NULL, changed ? RENEW_CHANGED : RENEW_CHECK,
					       binds, changed && !w->a->bind);
	g_autoptr(GString) commands = g_string_new(NULL);
	struct json_object *object;
	int status = 0, rc;
	size_t i;

	for (i = 0; i < plan->len; i++) {
		const struct renewal *renewal = plan->pdata[i];
		g_autofree char *text = NULL, *failure = NULL;

		text = renewal->owner.command ? g_strjoinv(" ", renewal->owner.command) : NULL;
		if (text)
			g_string_append_printf(commands, "%s%s", commands->len ? " && " : "", text);
		if (w->a->no_initramfs) {
			complain(NULL, "%s %s the old configuration; %s", renewal->image,
				 w->a->dry_run ? "would keep" : "keeps", renewal->owner.remedy);
			continue;
		}
		if (text && !w->a->json)
			printf("%s: %s\n", dry ? "would then update the initramfs" : "updating the initramfs",
			       text);
		fflush(stdout);
		if (dry && !text)
			complain(NULL, "can't update %s; %s", renewal->image, renewal->owner.remedy);
		if (dry)
			continue;
		failure = renew_image(w->s.host, renewal, &rc);
		if (!failure)
			continue;
		complain(NULL, "%s", failure);
		status = status ? status : rc ? rc : -1;
		if (*worst < EXIT_FAILED)
			*worst = EXIT_FAILED;
	}
	if (!plan->len || w->a->no_initramfs)
		return NULL;
	object = json_object_new_object();
	json_object_object_add(object, "command", json_text(commands->str));
	json_object_object_add(object, "exit_status", dry ? NULL : json_object_new_int(status));
	return object;
}

static int run(struct host *h, const struct arguments *a)
{
	struct work w = { .a = a };
	struct json_object *document = json_document(a->bind ? "bind" : "unbind"), *results;
	struct json_object *initramfs = NULL;
	bool drivers, changed = false, any = false;
	enum exit_status worst;
	size_t i, j;

	overview_read(h, &w.s);
	overview_complain(&w.s);
	if (a->bind && (a->persist || a->boot_only))
		w.s.no_module = boots_obstacle(h);
	if (w.s.no_module)
		complain(NULL, "%s; see the finding initramfs of \"" PROGRAM " doctor\"", w.s.no_module);
	worst = choose(&w);
	if (!worst && !w.count && a->bind)
		worst = EXIT_NO_DEVICE;
	if (a->selected.all && !w.s.gpus.count)
		complain(NULL, "no supported GPU on this host");
	else if (a->selected.all && !w.count && !a->bind)
		complain(NULL, "no GPU is bound to " DRIVER_NAME);
	drivers = plan_all(&w);
	openlog(PROGRAM, LOG_PID, LOG_DAEMON);
	if (a->dry_run) {
		for (i = 0; i < w.count; i++)
			changed |= !w.jobs[i].outcome.status &&
				   (w.tasks[i].write || w.tasks[i].remove);
	} else {
		load_module(&w);
		changed = change_all(&w, drivers);
	}

	results = json_object_new_array();
	for (i = 0; i < w.count; i++) {
		struct job *job = &w.jobs[i];

		if (job->outcome.status > worst)
			worst = job->outcome.status;
		json_object_array_add(results, job_json(a, &w.tasks[i], job));
		any |= has_changed(a, &w.tasks[i], job);
		if (!a->dry_run)
			write_log(job);
		if (!a->json || job->outcome.status)
			say(job);
		if (!a->json && a->dry_run && !job->outcome.status)
			for (j = 0; j < w.tasks[i].steps->len; j++)
				printf("  %s\n", (char *)w.tasks[i].steps->pdata[j]);
	}
	/* What was refused or failed leaves images as they are. */
	if (changed || ((a->persist || a->boot_only) && !worst && !h->recorded))
		initramfs = renew_images(&w, changed, &worst);
	json_object_object_add(document, "dry_run", json_object_new_boolean(a->dry_run));
	json_object_object_add(document, "changed", json_object_new_boolean(any));
	json_object_object_add(document, "results", results);
	json_object_object_add(document, "initramfs", initramfs);
	if (a->json)
		json_print(document);
	else
		json_object_put(document);

	for (i = 0; i < w.count; i++) {
		g_ptr_array_unref(w.tasks[i].steps);
		job_free(&w.jobs[i]);
	}
	g_free(w.tasks);
	g_free(w.jobs);
	overview_free(&w.s);
	return worst;
}

static int command(struct host *h, int argc, char **argv, bool bind)
{
	static const struct argp argp_bind = {
		options_bind, parse, "ADDRESS...\n--all", doc_bind, NULL, NULL, NULL
	};
	static const struct argp argp_unbind = {
		options_unbind, parse, "ADDRESS...\n--all", doc_unbind, NULL, NULL, NULL
	};
	struct arguments a = { .bind = bind };

	parse_options(bind ? &argp_bind : &argp_unbind, argc, argv, &a);
	if (!a.dry_run && h->recorded) {
		complain(NULL, "can't change a recorded tree; add --dry-run to see the steps");
		return EXIT_USAGE_ERROR;
	}
	if (!a.dry_run && !h->privileged) {
		complain(NULL, "only root may %s GPUs; use sudo, or add --dry-run to see the "
			 "steps", bind ? "bind" : "unbind");
		return EXIT_NOT_ROOT;
	}
	return run(h, &a);
}

int cmd_bind(struct host *h, int argc, char **argv)
{
	return command(h, argc, argv, true);
}

int cmd_unbind(struct host *h, int argc, char **argv)
{
	return command(h, argc, argv, false);
}
