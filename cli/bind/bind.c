// SPDX-License-Identifier: GPL-2.0-only
/*
 * "nvgrace-gpu bind" and "unbind": which GPUs, reasons to refuse, the
 * configuration for boot, and the output. switch.c changes the drivers. main.c
 * calls it.
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

#include "bind/switch.h"
#include "commands.h"
#include "facts/initramfs.h"
#include "facts/overview.h"
#include "facts/selection.h"
#include "system/options.h"
#include "system/output.h"
#include "system/signals.h"
#include "system/spawn.h"

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
	{ "all", 'a', NULL, 0, "Bind every supported GPU", 0 },
	{ "persist", 'p', NULL, 0, "Also bind at every boot, by a file in " CONFIG_DIR, 0 },
	{ "boot-only", KEY_BOOT_ONLY, NULL, 0, "Bind only at every boot, not now", 0 },
	{ "no-initramfs", KEY_NO_INITRAMFS, NULL, 0, "Don't update the initramfs", 0 },
	{ "dry-run", 'n', NULL, 0, "Only print the steps", 0 },
	{ "json", 'j', NULL, 0, JSON_HELP, 0 },
	{ }
};

static const struct argp_option options_unbind[] = {
	{ "all", 'a', NULL, 0,
	  "Unbind every GPU that is bound to " DRIVER_NAME "; with --boot-only, every supported GPU", 0 },
	{ "persist", 'p', NULL, 0, "Also undo \"bind --persist\"", 0 },
	{ "boot-only", KEY_BOOT_ONLY, NULL, 0,
	  "Only undo \"bind --persist\"; don't unbind now", 0 },
	{ "no-initramfs", KEY_NO_INITRAMFS, NULL, 0, "Don't update the initramfs", 0 },
	{ "no-probe", KEY_NO_PROBE, NULL, 0, "Leave the GPU without a driver", 0 },
	{ "dry-run", 'n', NULL, 0, "Only print the steps", 0 },
	{ "json", 'j', NULL, 0, JSON_HELP, 0 },
	{ }
};

struct arguments {
	bool bind;
	struct selection selected;
	bool persist, boot_only, no_initramfs, no_probe, dry_run, json;
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

/* A GPU, and what to do with its configuration. */
struct task {
	const struct gpu *gpu;
	struct replacement *file;	/* bind: the new file, not yet renamed */
	bool write, remove;	/* the GPU's own file */
	const struct config_line *by;	/* the line that already, or still, binds it */
	GPtrArray *steps;
	const char *boot;	/* the schema's "boot"; NULL: not requested */
	bool changed;		/* the configuration has changed */
};

/* ---- reasons to refuse -------------------------------------------------- */

static void refuse(struct job *job, char *message, char *next)
{
	job_end(job, EXIT_REFUSED, "refused", message, next);
}

static bool refuse_in_use(struct overview *s, const struct gpu *gpu, struct job *job)
{
	g_autofree struct holder *holders = NULL;
	g_autofree char *who = NULL;
	bool service = false;
	size_t count, i;

	holders = holders_find(s->host, &s->files, gpu, &count);
	for (i = 0; i < count; i++)
		service |= !strncmp(holders[i].file->comm, "nvidia-persiste", 15);
	if (count) {
		who = holders_text(holders, count);
		refuse(job, g_strdup_printf("in use: %s", who),
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
	g_autofree char *where = NULL, *node = NULL;

	if (!online.online)
		return false;
	where = online.range && online.range->end
			? g_strdup_printf("%llx-%llx, %s", (unsigned long long)online.range->start,
					  (unsigned long long)online.range->end, online.range->name)
			: g_strdup("System RAM");
	node = online.node < 0 ? g_strdup("") : g_strdup_printf(", NUMA node%d", online.node);
	/*
	 * A command only for a node that certainly is this GPU's: others may
	 * have host RAM.
	 */
	refuse(job,
	       g_strdup_printf("its memory is online as System RAM of this host (%s%s)", where, node),
	       online.node < 0
	       ? g_strdup_printf("stop what uses the GPU and unload the driver that added the memory; "
				 "if the memory stays online, run \"" PROGRAM " bind --boot-only "
				 "%s\" and reboot", gpu->address)
	       : g_strdup_printf("stop what uses the GPU, take its memory offline with \"for s in "
				 "/sys/devices/system/node/node%d/memory*/state; do echo offline "
				 "> $s; done\", and unload the driver that added it", online.node));
	return true;
}

static void printf_like(2, 3) add_step(struct task *task, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	g_ptr_array_add(task->steps, g_strdup_vprintf(fmt, args));
	va_end(args);
}

/* Plans the changes of the configuration; may refuse. */
static void plan_boot(struct overview *s, const struct arguments *a, struct task *task,
		      struct job *job)
{
	const struct config_line *ignored = config_ignores(&s->config, task->gpu);
	const struct config_error *unread = NULL;
	g_autofree char *own = config_own_file(task->gpu->address);
	int foreign = -1;
	size_t i;

	if (!a->persist && !a->boot_only)
		return;
	if (a->bind && ignored) {
		refuse(job,
		       g_strdup_printf("%s:%u ignores it at boot", ignored->file,
				       ignored->line),
		       g_strdup("remove that line"));
		return;
	}
	/* Nothing would read the file. */
	if (a->bind && s->obstacle) {
		refuse(job, g_strdup_printf("can't be bound at boot: %s", s->obstacle),
		       g_strdup("install " MODULE_NAME "-dkms, which has the rule and its program, "
				"or omit --persist and --boot-only"));
		return;
	}
	if (a->bind) {
		task->by = config_binds(&s->config, task->gpu);
		task->write = !task->by;
		task->boot = task->by ? "already-persisted" : "persisted";
		if (task->write && host_exists(s->host, "%s", own))
			refuse(job, g_strdup_printf("%s exists, but does not bind it", own),
			       g_strdup("check that file, and remove or move it"));
		else if (task->write && !host_absent())
			refuse(job, g_strdup_printf("can't check for %s: %s", own, strerror(errno)),
			       NULL);
		else if (task->write)
			add_step(task, "write %s", own);
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
		refuse(job, g_strdup_printf("%s %s", unread->file, unread->reason),
		       g_strdup("check it, and edit or remove the GPU's file yourself"));
		return;
	}
	if (foreign >= 0) {
		refuse(job, g_strdup_printf("%s:%d was not written by \"bind --persist\"", own, foreign),
		       g_strdup("edit or remove that file yourself"));
		return;
	}
	task->boot = task->by ? "still-persisted" : task->remove ? "removed" : "not-persisted";
	if (task->remove)
		add_step(task, "remove %s", own);
}

/* Others' guests have its functions, or could get them at any moment. */
static bool refuse_functions(const struct gpu *gpu, struct job *job)
{
	if (!gpu->functions)
		return false;
	refuse(job, g_strdup_printf("%llu of its virtual functions (SR-IOV) are on",
				    (unsigned long long)gpu->functions),
	       g_strdup_printf("end what uses them, and run \"echo 0 > "
			       "/sys/bus/pci/devices/%s/sriov_numvfs\"", gpu->address));
	return true;
}

static void plan(struct overview *s, const struct arguments *a, struct task *task, struct job *job)
{
	const struct gpu *gpu = task->gpu;
	bool ours = gpu->override && !strcmp(gpu->override, DRIVER_NAME);
	const char *address = gpu->address;

	if (!a->boot_only && a->bind && !gpu->ours) {
		if (refuse_functions(gpu, job) || refuse_online(s, gpu, job) ||
		    refuse_in_use(s, gpu, job))
			return;
		if (!host_exists(s->host, "/sys/bus/pci/drivers/" DRIVER_NAME))
			add_step(task, "load the module " MODULE_NAME);
		add_step(task, "write " DRIVER_NAME " into /sys/bus/pci/devices/%s/driver_override", address);
		if (gpu->driver)
			add_step(task, "write %s into /sys/bus/pci/drivers/%s/unbind", address, gpu->driver);
		add_step(task, "write %s into /sys/bus/pci/drivers_probe", address);
	}
	if (!a->boot_only && !a->bind) {
		if (gpu->ours && refuse_in_use(s, gpu, job))
			return;
		if (ours)
			add_step(task, "clear /sys/bus/pci/devices/%s/driver_override", address);
		if (gpu->ours)
			add_step(task, "write %s into /sys/bus/pci/drivers/" DRIVER_NAME "/unbind", address);
		if ((gpu->ours || (ours && !gpu->driver)) && !a->no_probe)
			add_step(task, "write %s into /sys/bus/pci/drivers_probe", address);
	}
	plan_boot(s, a, task, job);
}

/* ---- the boot ----------------------------------------------------------- */

/* Writes the GPU's new file, under a temporary name. */
static void prepare_boot(struct task *task, struct job *job)
{
	if (job->outcome.status || !task->write)
		return;
	task->file = config_prepare(job->host, job->address);
	if (!task->file)
		job_end(job, EXIT_FAILED, "failed",
			g_strdup_printf("can't write a file in " CONFIG_DIR ": %s", strerror(errno)),
			NULL);
}

/*
 * Renames or removes the GPU's file, if the job succeeded; returns whether the
 * configuration changed.
 */
static bool settle_boot(struct task *task, struct job *job)
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
		longer = g_strdup_printf("%s; not at boot either", job->outcome.message);
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

/* Whether --all includes this GPU. */
static bool belongs(const struct gpu *gpu, const void *data)
{
	const struct arguments *a = data;

	return a->bind || a->boot_only || gpu->ours;
}

/* All GPUs of a command line. */
struct work {
	const struct arguments *a;
	struct overview s;
	struct task *tasks;
	struct job *jobs;	/* one for each task, in the same order */
	size_t count;
};

/* Finds the GPUs; EXIT_OK, or an exit status after a message. */
static enum exit_status choose(struct work *w)
{
	g_autofree const struct gpu **found = g_new0(const struct gpu *, w->s.gpus.count);
	enum exit_status status;
	size_t i;

	status = selection_find(&w->a->selected, w->s.host, &w->s.gpus, belongs, w->a, found, &w->count);
	w->tasks = g_new0(struct task, w->count);
	w->jobs = g_new0(struct job, w->count);
	for (i = 0; i < w->count; i++)
		w->tasks[i].gpu = found[i];
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
		plan(&w->s, w->a, task, job);
		if (job->outcome.result)
			continue;
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
			why = switch_load_module(w->s.host, &next, log);
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
		prepare_boot(&w->tasks[i], &w->jobs[i]);
	if (drivers)
		switch_all(w->jobs, w->count);
	for (i = 0; i < w->count; i++)
		changed |= settle_boot(&w->tasks[i], &w->jobs[i]);
	sigprocmask(SIG_SETMASK, &before, NULL);
	return changed;
}

/* Updates the initramfs; returns the schema's "initramfs". */
static struct json_object *renew_initramfs(struct work *w, enum exit_status *worst)
{
	const char *const *command = initramfs_command(w->s.host);
	struct json_object *object;
	g_autofree char *text = NULL;
	int status;

	if (!command)
		return NULL;
	text = g_strjoinv(" ", (char **)command);
	if (!w->a->json)
		printf("%s: %s\n", w->a->dry_run ? "would then update the initramfs" :
						   "updating the initramfs", text);
	fflush(stdout);
	status = w->a->dry_run ? 0 : program_show(command[0], (char *const *)command);
	if (status) {
		g_autofree char *how = status < 0
			? g_strdup_printf("did not finish: %s", strerror(errno))
			: g_strdup_printf("exited with %d", status);

		complain(NULL, "can't update the initramfs: %s %s; it keeps the old configuration "
			 "until you run \"%s\" again", command[0], how, text);
		if (*worst < EXIT_FAILED)
			*worst = EXIT_FAILED;
	}
	object = json_object_new_object();
	json_object_object_add(object, "command", json_text(text));
	json_object_object_add(object, "exit_status",
			       w->a->dry_run ? NULL : json_object_new_int(status));
	return object;
}

/* Reports that the initramfs keeps the old configuration. */
static void warn_of_initramfs(struct work *w)
{
	const char *const *command = initramfs_command(w->s.host);
	g_autofree char *text = NULL;

	if (!command)
		return;
	text = g_strjoinv(" ", (char **)command);
	complain(NULL, "the initramfs %s the old configuration until you run \"%s\"",
		 w->a->dry_run ? "would keep" : "keeps", text);
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
	worst = choose(&w);
	if (!worst && !w.count && a->bind)
		worst = EXIT_NO_DEVICE;
	if (a->selected.all && !w.count)
		complain(NULL, a->bind || a->boot_only ? "no supported GPU on this host" :
							 "no GPU is bound to " DRIVER_NAME);
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
	if (changed && a->no_initramfs)
		warn_of_initramfs(&w);
	else if (changed)
		initramfs = renew_initramfs(&w, &worst);
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
