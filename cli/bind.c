// SPDX-License-Identifier: GPL-2.0-only
/*
 * "nvgrace-gpu bind" and "unbind": which devices, what speaks against it, the configuration for the
 * boot, and what is said about it. The change itself is switch.c's. Called by main.c.
 *
 * The order, for each device: everything that may refuse; the new configuration file, written
 * aside; the change of driver; only then the file's renaming or removal; at last the initramfs. So
 * a bind that fails is not tried again at every boot, and a file that can't be written is known
 * before anything was changed.
 */
#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "initramfs.h"
#include "named.h"
#include "survey.h"
#include "switch.h"

static const char doc_bind[] =
	"Give GPUs to " DRIVER_NAME ", several at a time."
	"An ADDRESS may be short (01:00.0) where only one GPU fits. A GPU that a process has open, "
	"or whose memory is System RAM of this host, is left alone; a GPU that can't be bound goes "
	"back to the driver it had.";

static const char doc_unbind[] =
	"Take GPUs from " DRIVER_NAME ", and let their default driver have them."
	"An ADDRESS may be short (01:00.0) where only one GPU fits. A GPU that a process has open "
	"is left alone.";

enum { KEY_BOOT_ONLY = 256, KEY_NO_INITRAMFS, KEY_NO_PROBE };

static const struct argp_option options_bind[] = {
	{ "all", 'a', NULL, 0, "Every supported GPU", 0 },
	{ "persist", 'p', NULL, 0, "Also at every boot, by a file in " CONFIG_DIR, 0 },
	{ "boot-only", KEY_BOOT_ONLY, NULL, 0, "Only at every boot, not now", 0 },
	{ "no-initramfs", KEY_NO_INITRAMFS, NULL, 0, "Leave the initramfs as it is", 0 },
	{ "dry-run", 'n', NULL, 0, "Only tell the steps", 0 },
	{ "json", 'j', NULL, 0, JSON_HELP, 0 },
	{ }
};

static const struct argp_option options_unbind[] = {
	{ "all", 'a', NULL, 0,
	  "Every GPU that is bound to " DRIVER_NAME ", or, with --boot-only, supported", 0 },
	{ "persist", 'p', NULL, 0, "Also undo \"bind --persist\"", 0 },
	{ "boot-only", KEY_BOOT_ONLY, NULL, 0,
	  "Only undo \"bind --persist\", and leave the GPU as it is now", 0 },
	{ "no-initramfs", KEY_NO_INITRAMFS, NULL, 0, "Leave the initramfs as it is", 0 },
	{ "no-probe", KEY_NO_PROBE, NULL, 0, "Leave it without a driver", 0 },
	{ "dry-run", 'n', NULL, 0, "Only tell the steps", 0 },
	{ "json", 'j', NULL, 0, JSON_HELP, 0 },
	{ }
};

struct arguments {
	bool bind;
	struct named named;
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
		named_parse(&a->named, key, state);
		if (a->boot_only && a->persist)
			argp_error(state, "both --persist and --boot-only given");
		if (a->boot_only && a->no_probe)
			argp_error(state,
				   "--boot-only unbinds nothing, so --no-probe has no meaning");
		if (a->no_initramfs && !a->persist && !a->boot_only)
			argp_error(state, "--no-initramfs needs --persist or --boot-only");
		return 0;
	}
	return named_parse(&a->named, key, state);
}

/* A device, and what is to be done about its configuration. */
struct task {
	const struct gpu *gpu;
	char *temporary;	/* bind: the new file, not yet in its place */
	bool write, remove;	/* the device's own file */
	const struct config_line *by;	/* what persists it already, or still */
	struct text_list steps;
	const char *boot;	/* the schema's "boot"; NULL: not asked for */
	bool changed;		/* the configuration was */
};

/* ---- what speaks against it --------------------------------------------- */

static void refuse(struct job *job, char *message, char *next)
{
	job_end(job, EXIT_REFUSED, "refused", message, next);
}

static bool refuse_in_use(struct survey *s, const struct gpu *gpu, struct job *job)
{
	struct holder *holders;
	size_t count, i;
	bool service = false;
	char *who;

	holders = holders_find(s->host, &s->files, gpu, &count);
	for (i = 0; i < count; i++)
		service |= !strncmp(holders[i].file->comm, "nvidia-persiste", 15);
	if (count) {
		who = holders_text(holders, count);
		refuse(job, xasprintf("in use: %s", who),
		       service ? xstrdup("systemctl stop nvidia-persistenced, and end what else "
					 "uses the GPU")
		       : gpu->ours || (gpu->driver && !strcmp(gpu->driver, "vfio-pci"))
			       ? xstrdup("shut that virtual machine down")
			       : xstrdup("end that program"));
		free(who);
	}
	free(holders);
	return count;
}

static bool refuse_online(struct survey *s, const struct gpu *gpu, struct job *job)
{
	struct online online = survey_online(s, gpu);
	char *where, *node, *next;

	if (!online.online)
		return false;
	where = online.range && online.range->end
			? xasprintf("%llx-%llx, %s", (unsigned long long)online.range->start,
				    (unsigned long long)online.range->end, online.range->name)
			: xstrdup("System RAM");
	node = online.node < 0 ? xstrdup("") : xasprintf(", NUMA node%d", online.node);
	/* A command only for what is certainly this GPU's: the rest may be the host's own RAM. */
	if (online.node < 0)
		next = xasprintf("stop what uses the GPU and unload the driver that added the memory; "
				 "if the memory stays online, run \"" PROGRAM " bind --boot-only "
				 "%s\" and reboot", gpu->address);
	else
		next = xasprintf("stop what uses the GPU, take its memory offline with \"for s in "
				 "/sys/devices/system/node/node%d/memory*/state; do echo offline "
				 "> $s; done\", and unload the driver that added it", online.node);
	refuse(job, xasprintf("its memory is online as the host's own (%s%s)", where, node), next);
	free(where);
	free(node);
	return true;
}

/* Which steps of the configuration; may refuse. */
static void plan_boot(struct survey *s, const struct arguments *a, struct task *task,
		      struct job *job)
{
	const struct config_line *ignored = config_ignores(&s->config, task->gpu);
	char *own = config_own_file(task->gpu->address);
	int foreign = -1;
	size_t i;

	if (!a->persist && !a->boot_only)
		goto out;
	if (a->bind && ignored) {
		refuse(job,
		       xasprintf("%s:%u says that it is to be ignored at boot", ignored->file,
				 ignored->line),
		       xstrdup("remove that line"));
		goto out;
	}
	/* Nothing would read what we write. */
	if (a->bind && s->obstacle) {
		refuse(job, xasprintf("can't be bound at boot: %s", s->obstacle),
		       xstrdup("install " MODULE_NAME "-dkms, which has the rule and the program, "
			       "or leave out --persist and --boot-only"));
		goto out;
	}
	if (a->bind) {
		task->by = config_binds(&s->config, task->gpu);
		task->write = !task->by;
		task->boot = task->by ? "already-persisted" : "persisted";
		if (task->write && host_exists(s->host, "%s", own))
			refuse(job, xasprintf("%s is there, but does not bind it", own),
			       xstrdup("see what it says, and remove it or move it away"));
		else if (task->write)
			text_list_add(&task->steps, xasprintf("write %s", own));
		goto out;
	}
	/* What else than our line in its own file wants it? */
	task->remove = host_exists(s->host, "%s", own);
	for (i = 0; i < s->config.count; i++) {
		struct config_line *line = &s->config.line[i];
		struct config one = { .line = line, .count = 1 };

		if (strcmp(line->file, own)) {
			if (!task->by && !ignored)
				task->by = config_binds(&one, task->gpu);
		} else if (line->ignore || line->match != CONFIG_ADDRESS ||
			   strcasecmp(line->value, task->gpu->address)) {
			foreign = line->line;
		}
	}
	for (i = 0; i < s->config.errors; i++)
		if (!strcmp(s->config.error[i].file, own))
			foreign = s->config.error[i].line;
	/* Somebody's own words aren't ours to remove. */
	if (foreign >= 0) {
		refuse(job, xasprintf("%s:%d is not what \"bind --persist\" writes", own, foreign),
		       xstrdup("edit or remove that file yourself"));
		goto out;
	}
	task->boot = task->by ? "still-persisted" : task->remove ? "removed" : "not-persisted";
	if (task->remove)
		text_list_add(&task->steps, xasprintf("remove %s", own));
out:
	free(own);
}

static void plan(struct survey *s, const struct arguments *a, struct task *task, struct job *job)
{
	const struct gpu *gpu = task->gpu;
	bool ours = gpu->override && !strcmp(gpu->override, DRIVER_NAME);
	const char *address = gpu->address;

	if (!a->boot_only && a->bind && !gpu->ours) {
		if (refuse_online(s, gpu, job) || refuse_in_use(s, gpu, job))
			return;
		if (!host_exists(s->host, "/sys/bus/pci/drivers/" DRIVER_NAME))
			text_list_add(&task->steps, xstrdup("load the module " MODULE_NAME));
		text_list_add(&task->steps,
			      xasprintf("write " DRIVER_NAME
					" into /sys/bus/pci/devices/%s/driver_override",
					address));
		if (gpu->driver)
			text_list_add(&task->steps,
				      xasprintf("write %s into /sys/bus/pci/drivers/%s/unbind",
						address, gpu->driver));
		text_list_add(&task->steps,
			      xasprintf("write %s into /sys/bus/pci/drivers_probe", address));
	}
	if (!a->boot_only && !a->bind) {
		if (gpu->ours && refuse_in_use(s, gpu, job))
			return;
		if (ours)
			text_list_add(&task->steps,
				      xasprintf("clear /sys/bus/pci/devices/%s/driver_override",
						address));
		if (gpu->ours)
			text_list_add(&task->steps,
				      xasprintf("write %s into /sys/bus/pci/drivers/" DRIVER_NAME
						"/unbind",
						address));
		if ((gpu->ours || (ours && !gpu->driver)) && !a->no_probe)
			text_list_add(
				&task->steps,
				xasprintf("write %s into /sys/bus/pci/drivers_probe", address));
	}
	plan_boot(s, a, task, job);
}

/* ---- the boot ----------------------------------------------------------- */

/* The device's new file, so far under another name. */
static void prepare_boot(struct task *task, struct job *job)
{
	if (job->status || !task->write)
		return;
	task->temporary = config_prepare(job->host, job->address);
	if (!task->temporary)
		job_end(job, EXIT_FAILED, "failed",
			xasprintf("a file in " CONFIG_DIR " can't be written: %s", strerror(errno)),
			NULL);
}

/* Returns whether the configuration changed. */
static bool settle_boot(struct task *task, struct job *job)
{
	char *own = config_own_file(task->gpu->address), *longer = NULL, *next = NULL;
	bool changed = false;
	int error = 0;

	if (job->status != EXIT_OK) {
		if (task->temporary)
			config_abandon(task->temporary);
		task->boot = NULL;
	} else if (task->write) {
		error = config_commit(task->temporary, task->gpu->address) ? errno : 0;
		changed = !error;
		longer = error ? xasprintf("%s; but not at boot: %s can't be written: %s",
					   job->message, own, strerror(error))
			       : xasprintf("%s; at every boot, by %s", job->message, own);
	} else if (task->remove || task->by) {
		if (task->remove) {
			error = unlink(own) && errno != ENOENT ? errno : 0;
			changed = !error;
		}
		if (error) {
			longer = xasprintf("%s; but %s can't be removed: %s", job->message, own,
					   strerror(error));
		} else if (task->by && !job->bind) {
			longer = xasprintf("%s; but %s:%u binds it at boot", job->message,
					   task->by->file, task->by->line);
			next = xasprintf("remove that line, or add \"ignore %s\"",
					 task->gpu->address);
		} else if (task->by) {
			longer = xasprintf("%s; at every boot, by %s:%u", job->message,
					   task->by->file, task->by->line);
		} else {
			longer = xasprintf("%s; no longer at boot", job->message);
		}
	} else if (task->boot) {
		longer = xasprintf("%s; not at boot either", job->message);
	}
	task->temporary = NULL;
	if (longer) {
		/* Done but not at boot is not what was asked for. */
		if (error || next)
			job_end(job, EXIT_FAILED, "failed", longer, next);
		else
			job_end(job, job->status, job->result, longer, NULL);
	}
	if (error)
		task->boot = NULL;
	free(own);
	task->changed = changed;
	return changed;
}

/* ---- what is said ------------------------------------------------------- */

static void say(struct job *job)
{
	size_t i;

	if (job->status == EXIT_OK)
		printf("%s: %s\n", job->address, job->message);
	else
		complain(job->address, "%s%s%s", job->message, job->next ? "; " : "",
			 job->next ? job->next : "");
	for (i = 0; i < job->log.count; i++)
		complain(job->address, "kernel: %s", job->log.text[i]);
}

/* Whether this device is, or by a dry run would be, another than before. */
static bool has_changed(const struct arguments *a, const struct task *task, const struct job *job)
{
	if (a->dry_run)
		return !job->status && task->steps.count;
	return job->changed || task->changed;
}

/* Records in the system's log which GPU went where, and by whom. */
static void write_log(const struct job *job)
{
	uint64_t user;

	/* The user who logged in, also by sudo; 4294967295 without a login. */
	if (host_u64(job->host, &user, "/proc/self/loginuid") || user >= UINT32_MAX)
		user = getuid();
	syslog(job->status ? LOG_ERR : LOG_NOTICE, "%s %s by uid %u: %s",
	       job->bind ? "bind" : "unbind", job->address, (unsigned int)user, job->message);
}

static struct json_object *texts_json(const struct text_list *list)
{
	struct json_object *array = json_object_new_array();
	size_t i;

	for (i = 0; i < list->count; i++)
		json_object_array_add(array, json_text(list->text[i]));
	return array;
}

static struct json_object *job_json(const struct arguments *a, const struct task *task,
				    const struct job *job)
{
	struct json_object *object = json_object_new_object();

	json_object_object_add(object, "address", json_text(job->address));
	json_object_object_add(object, "result", json_text(job->result));
	json_object_object_add(object, "exit_status", json_object_new_int(job->status));
	json_object_object_add(object, "changed",
			       json_object_new_boolean(has_changed(a, task, job)));
	json_object_object_add(object, "message", json_text(job->message));
	json_object_object_add(object, "next", json_text(job->next));
	json_object_object_add(object, "boot", json_text(task->boot));
	json_object_object_add(object, "steps", texts_json(&task->steps));
	json_object_object_add(object, "kernel_log", texts_json(&job->log));
	return object;
}

static char *command_text(const char *const *command)
{
	char *text = xstrdup(""), *longer;

	for (; *command; command++) {
		longer = xasprintf("%s%s%s", text, *text ? " " : "", *command);
		free(text);
		text = longer;
	}
	return text;
}

/* ---- the commands ------------------------------------------------------- */

/* Whether --all means this one. */
static bool belongs(const struct gpu *gpu, const void *data)
{
	const struct arguments *a = data;

	return a->bind || a->boot_only || gpu->ours;
}

/* All devices of a command line. */
struct work {
	const struct arguments *a;
	struct survey s;
	struct task *tasks;
	struct job *jobs;	/* as many, in the same order */
	size_t count;
};

/* The devices to work at; EXIT_OK, or the status of what can't be resolved. */
static enum exit_status choose(struct work *w)
{
	const struct gpu **found = xcalloc(w->s.gpus.count, sizeof(*found));
	enum exit_status status;
	size_t i;

	status = named_find(&w->a->named, w->s.host, &w->s.gpus, belongs, w->a, found, &w->count);
	w->tasks = xcalloc(w->count, sizeof(*w->tasks));
	w->jobs = xcalloc(w->count, sizeof(*w->jobs));
	for (i = 0; i < w->count; i++)
		w->tasks[i].gpu = found[i];
	free(found);
	return status;
}

/* What to do with each, or why not. Returns whether any driver is to change. */
static bool plan_all(struct work *w)
{
	bool change = false;
	size_t i;

	for (i = 0; i < w->count; i++) {
		struct task *task = &w->tasks[i];
		struct job *job = &w->jobs[i];

		job->host = w->s.host;
		strcpy(job->address, task->gpu->address);
		job->bind = w->a->bind;
		job->probe = !w->a->no_probe;
		job->kmsg = -1;
		plan(&w->s, w->a, task, job);
		if (job->result)
			continue;
		if (w->a->dry_run)
			job_end(job, EXIT_OK, "planned",
				xstrdup(task->steps.count ? "would" : "nothing to do"), NULL);
		else if (w->a->boot_only)
			job_end(job, EXIT_OK, "unchanged", xstrdup("left as it is now"), NULL);
		else
			change = true;
	}
	return change;
}

/* Without its module nothing can be bound. */
static void load_module(struct work *w)
{
	struct text_list log = { };
	char *next = NULL, *why = NULL;
	bool asked = false;
	size_t i, j;

	for (i = 0; i < w->count; i++) {
		struct job *job = &w->jobs[i];

		if (job->result || !job->bind || w->tasks[i].gpu->ours)
			continue;
		if (!asked)
			why = switch_load_module(w->s.host, &next, &log);
		asked = true;
		if (!why)
			break;
		job_end(job, EXIT_FAILED, "failed", xstrdup(why), next ? xstrdup(next) : NULL);
		for (j = 0; j < log.count; j++)
			text_list_add(&job->log, xstrdup(log.text[j]));
	}
	free(why);
	free(next);
	text_list_free(&log);
}

/* The new files aside, the drivers, the files into their places. Whether the latter changed. */
static bool change_all(struct work *w, bool drivers)
{
	sigset_t signals, before;
	bool changed = false;
	size_t i;

	switch_signals(&signals);
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

/* Renews the initramfs; the schema's "initramfs". */
static struct json_object *renew_initramfs(struct work *w, enum exit_status *worst)
{
	const char *const *command = initramfs_command(w->s.host);
	struct json_object *object;
	char *text;
	int status;

	if (!command)
		return NULL;
	text = command_text(command);
	if (!w->a->json)
		printf("%s: %s\n", w->a->dry_run ? "would then renew the initramfs" :
						   "renewing the initramfs", text);
	fflush(stdout);
	status = w->a->dry_run ? 0 : initramfs_run(command);
	if (status) {
		complain(NULL, "can't update the initramfs: %s exited with %d; it keeps the old "
			 "configuration until you run \"%s\" again", command[0], status, text);
		if (*worst < EXIT_FAILED)
			*worst = EXIT_FAILED;
	}
	object = json_object_new_object();
	json_object_object_add(object, "command", json_text(text));
	json_object_object_add(object, "exit_status",
			       w->a->dry_run ? NULL : json_object_new_int(status));
	free(text);
	return object;
}

/* What was said of the boot holds from the next renewal on. */
static void warn_of_initramfs(struct work *w)
{
	const char *const *command = initramfs_command(w->s.host);
	char *text;

	if (!command)
		return;
	text = command_text(command);
	complain(NULL, "the initramfs %s the old configuration until you run \"%s\"",
		 w->a->dry_run ? "would keep" : "keeps", text);
	free(text);
}

static int run(struct host *h, const struct arguments *a)
{
	struct work w = { .a = a };
	struct json_object *document = json_document(a->bind ? "bind" : "unbind"), *results;
	struct json_object *initramfs = NULL;
	bool drivers, changed = false, any = false;
	enum exit_status worst;
	size_t i, j;

	survey_read(h, &w.s);
	survey_complain(&w.s);
	worst = choose(&w);
	if (!worst && !w.count && a->bind)
		worst = EXIT_NO_DEVICE;
	if (a->named.all && !w.count)
		complain(NULL, a->bind || a->boot_only ? "no supported GPU on this host" :
							 "no GPU is bound to " DRIVER_NAME);
	drivers = plan_all(&w);
	openlog(PROGRAM, LOG_PID, LOG_DAEMON);
	if (a->dry_run) {
		for (i = 0; i < w.count; i++)
			changed |= !w.jobs[i].status && (w.tasks[i].write || w.tasks[i].remove);
	} else {
		load_module(&w);
		changed = change_all(&w, drivers);
	}

	results = json_object_new_array();
	for (i = 0; i < w.count; i++) {
		struct job *job = &w.jobs[i];

		if (job->status > worst)
			worst = job->status;
		json_object_array_add(results, job_json(a, &w.tasks[i], job));
		any |= has_changed(a, &w.tasks[i], job);
		if (!a->dry_run)
			write_log(job);
		if (!a->json || job->status)
			say(job);
		if (!a->json && a->dry_run && !job->status)
			for (j = 0; j < w.tasks[i].steps.count; j++)
				printf("  %s\n", w.tasks[i].steps.text[j]);
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
		text_list_free(&w.tasks[i].steps);
		job_free(&w.jobs[i]);
	}
	free(w.tasks);
	free(w.jobs);
	survey_free(&w.s);
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
		complain(NULL, "a recorded tree can't be changed; add --dry-run to see the steps");
		return EXIT_USAGE_ERROR;
	}
	if (!a.dry_run && !h->privileged) {
		complain(NULL, "only root may %s GPUs; run it by sudo, or add --dry-run to see the "
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
