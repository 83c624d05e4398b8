// SPDX-License-Identifier: GPL-2.0-only
/*
 * "nvgrace-gpu scrub": has the driver overwrite the memory of idle GPUs with
 * zeros, all at the same time, and with --verify reads it back. main.c calls
 * it.
 *
 * The kernel does the work in the background, even after the end of this
 * program. docs/ABI describes the sysfs files. scrub_state changes when the
 * scrub ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <json-c/json.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "commands.h"
#include "facts/overview.h"
#include "facts/selection.h"
#include "open_gpu/pattern.h"
#include "open_gpu/progress.h"
#include "open_gpu/scrubbing.h"
#include "system/kmsg.h"
#include "system/options.h"
#include "system/outcome.h"
#include "system/output.h"
#include "system/replace.h"

#define DEVICES "/sys/bus/pci/devices"

static const char doc[] =
	"Overwrite the memory of idle GPUs with zeros, all at the same time, and wait for the end.\v"
	"An ADDRESS may be short (01:00.0) if only one GPU matches it. A GPU must be bound to "
	DRIVER_NAME ", and no process may have it open. The content of the memory is lost: on a "
	"terminal, the command asks first. If a GPU can't be scrubbed, the others still are.\n"
	"\n"
	"Exit status: 0 all GPUs are clean, 1 a GPU is not, or --verify found words other than 0; "
	"2 to 5 and 130 as for the other commands. If the command is interrupted, the kernel "
	"continues the scrub.";

enum { KEY_VERIFY = 256 };

static const struct argp_option options[] = {
	{ "all", 'a', NULL, 0, "Scrub every GPU with memory that is bound to " DRIVER_NAME, 0 },
	{ "verify", KEY_VERIFY, NULL, 0, "Then open each GPU and read back all of its memory", 0 },
	{ "yes", 'y', NULL, 0, "Don't ask whether GPU memory may be overwritten", 0 },
	{ "json", 'j', NULL, 0, JSON_HELP, 0 },
	{ }
};

struct arguments {
	struct selection selected;
	bool verify, yes, json;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;

	switch (key) {
	case KEY_VERIFY:
		a->verify = true;
		return 0;
	case 'y':
		a->yes = true;
		return 0;
	case 'j':
		a->json = true;
		return 0;
	}
	return selection_parse(&a->selected, key, state);
}

/* Result of reading the memory back. */
struct verified {
	bool tried, done;		/* done: all memory was read */
	uint64_t bytes, differences;	/* differences: words of 8 bytes that are not 0 */
	double seconds;
	time_t time;			/* when that ended */
	struct part parts[2];	/* to which the list points */
	struct difference list[DIFFERENCES_LISTED];
	size_t listed;
};

/* A GPU and its scrub. */
struct target {
	const struct gpu *gpu;
	uint64_t total;		/* bytes to overwrite */
	uint64_t before;	/* scrub_progress before the scrub was started */
	bool joined;		/* a scrub was already running */
	bool moved;		/* scrub_progress has changed: it is this scrub's */
	uint64_t bytes;		/* overwritten so far */
	double begin, seconds;
	int file;		/* scrub_state; -1: not open */
	struct verified verified;

	struct outcome outcome;
	bool failed;		/* the driver reports it: the kernel's log has the reason */
	char *log;		/* the driver's last line about it; NULL: none, or not readable */
};

struct scrub {
	struct host *host;
	const struct arguments *a;
	struct gpus gpus;
	struct target *targets;
	size_t count;
	int kmsg;
	double begin;
};

/* Ends the target; takes over message and next, which may be NULL. */
static void end(struct target *t, enum exit_status status, const char *result, char *message,
		char *next)
{
	outcome_set(&t->outcome, status, result, message, next);
	if (t->file >= 0)
		close(t->file);
	t->file = -1;
}

static void refuse(struct target *t, char *message, char *next)
{
	end(t, EXIT_REFUSED, "refused", message, next);
}

/* ---- reasons to refuse -------------------------------------------------- */

/* Refuses a GPU that a visible process has open. */
static bool refuse_in_use(struct host *h, struct target *t)
{
	g_autofree char *who = gpu_users(h, t->gpu);

	if (!who)
		return false;
	refuse(t, g_strdup_printf("in use: %s", who), g_strdup("end that program"));
	return true;
}

static void check(struct host *h, struct target *t)
{
	const struct gpu *gpu = t->gpu;

	if (!gpu->driver)
		refuse(t, g_strdup("not bound to a driver"),
		       g_strdup_printf("run \"" PROGRAM " bind %s\"", gpu->address));
	else if (!gpu->ours)
		refuse(t, g_strdup_printf("bound to %s, which can't scrub it", gpu->driver),
		       g_strdup_printf("stop what uses it and run \"" PROGRAM " bind %s\"",
				       gpu->address));
	else if (gpu->mode == GPU_MODE_CORE_ONLY)
		refuse(t, g_strdup("no memory to scrub: a plain PCI device, because firmware reports "
				   "no memory"), NULL);
	else if (gpu_memory_size(gpu) == GPU_UNKNOWN ||
		 !host_exists(h, DEVICES "/%s/nvgrace_gpu/scrub", gpu->address))
		refuse(t, g_strdup("the loaded " DRIVER_NAME " can't scrub"),
		       g_strdup("install a later nvgrace-gpu-vfio-pci-dkms, run \"" PROGRAM
				" unbind --all\" and \"modprobe -r " DRIVER_NAME
				"\", and bind the GPUs again"));
	else
		refuse_in_use(h, t);
}

/* ---- scrubbing ---------------------------------------------------------- */

static uint64_t read_progress(struct host *h, const struct target *t)
{
	uint64_t bytes;

	if (host_u64(h, &bytes, DEVICES "/%s/nvgrace_gpu/scrub_progress", t->gpu->address))
		return 0;
	return bytes;
}

static void start(struct host *h, struct target *t)
{
	g_autofree char *state = NULL;
	int error;

	t->total = gpu_memory_size(t->gpu);
	/* Before the scrub starts, so that no change is missed. */
	t->file = scrub_state_open(t->gpu->address);
	state = t->file < 0 ? NULL : scrub_state_read(t->file);
	error = state ? 0 : errno;
	t->joined = state && !strcmp(state, "scrubbing");
	t->before = read_progress(h, t);
	t->begin = now();
	if (!error)
		error = scrub_start(t->gpu->address);
	if (error == EBUSY) {
		/*
		 * Opened after check(), or by a process that is not visible
		 * here.
		 */
		if (!refuse_in_use(h, t))
			refuse(t, g_strdup("in use, or being unbound"),
			       g_strdup_printf("run \"" PROGRAM " status %s\"", t->gpu->address));
	} else if (error) {
		end(t, EXIT_FAILED, "failed",
		    g_strdup_printf("can't start the scrub: %s", strerror(error)),
		    g_strdup_printf("run \"" PROGRAM " doctor %s\"", t->gpu->address));
	}
}

/* Sets t->bytes to what this scrub has overwritten so far. */
static void look_at_progress(struct host *h, struct target *t)
{
	uint64_t bytes = read_progress(h, t);

	if (bytes != t->before || t->joined)
		t->moved = true;
	t->bytes = t->moved ? bytes : 0;
}

/* "94.50 GiB in 0.31 s, 327 GB/s"; to be freed. */
static char *amount_text(uint64_t bytes, double seconds)
{
	double rate = seconds > 0 ? bytes / seconds / 1e9 : 0;
	char size[SIZE_MAX_TEXT];

	return g_strdup_printf("%s in %.2f s, %.*f GB/s", size_text(bytes, size), seconds,
			       rate < 9.995 ? 2 : rate < 99.95 ? 1 : 0, rate);
}

/* Bytes overwritten since this program started, for the rate. */
static uint64_t bytes_seen(const struct target *t)
{
	return t->joined && t->before <= t->bytes ? t->bytes - t->before : t->bytes;
}

static void end_clean(struct target *t)
{
	g_autofree char *amount = NULL;

	/* After a very fast scrub, scrub_progress looks like the last one's. */
	t->bytes = t->total;
	amount = amount_text(bytes_seen(t), t->seconds);
	end(t, EXIT_OK, "clean",
	    g_strdup_printf("clean; %s%s", amount,
			    t->joined ? ", by a scrub that was already running" : ""), NULL);
}

/* Reads the scrub's state, and ends the target if the scrub has ended. */
static void look(struct host *h, struct target *t)
{
	g_autofree char *state = scrub_state_read(t->file);
	int error = errno;

	t->seconds = now() - t->begin;
	t->failed = state && !strcmp(state, "failed");
	look_at_progress(h, t);
	if (!state)
		end(t, EXIT_FAILED, "failed",
		    g_strdup_printf("unbound before the scrub ended: %s", strerror(error)),
		    g_strdup_printf("run \"" PROGRAM " bind %s\", and scrub it again", t->gpu->address));
	else if (!strcmp(state, "clean"))
		end_clean(t);
	else if (t->failed)
		end(t, EXIT_FAILED, "failed",
		    g_strdup("the scrub failed; see the kernel's log"),
		    g_strdup_printf("run \"echo 1 > " DEVICES "/%s/reset\", and scrub it again; if that "
				    "does not help, power-cycle the host", t->gpu->address));
	else if (strcmp(state, "scrubbing"))
		end(t, EXIT_FAILED, "failed",
		    g_strdup_printf("not known to be clean: its scrub state is now \"%s\", because it was "
				    "opened or unbound meanwhile", state),
		    g_strdup("scrub it again when it is idle"));
}

static void show(const struct scrub *s)
{
	char done_text[SIZE_MAX_TEXT], total_text[SIZE_MAX_TEXT];
	uint64_t done = 0, total = 0, seen = 0;
	double seconds = now() - s->begin, rate;
	size_t i;

	for (i = 0; i < s->count; i++) {
		const struct target *t = &s->targets[i];

		if (t->outcome.result && strcmp(t->outcome.result, "clean"))
			continue;
		done += t->bytes;
		total += t->total;
		seen += bytes_seen(t);
	}
	rate = seconds > 0 ? seen / seconds : 0;
	if (total)
		progress_step((double)done / total, rate > 0 ? (total - done) / rate : -1,
			      "%s of %s, %.1f GB/s", size_text(done, done_text),
			      size_text(total, total_text), rate / 1e9);
}

/* Returns when all scrubs have ended. */
static void follow(struct scrub *s)
{
	g_autofree struct pollfd *files = g_new0(struct pollfd, s->count);
	size_t i, running;

	for (;;) {
		running = 0;
		for (i = 0; i < s->count; i++) {
			struct target *t = &s->targets[i];

			if (!t->outcome.result)
				look(s->host, t);
			running += !t->outcome.result;
			/* poll() ignores negative descriptors. */
			files[i] = (struct pollfd){ .fd = t->file, .events = POLLPRI };
		}
		show(s);
		if (!running)
			break;
		/*
		 * look() has read each file, so only its next change wakes
		 * poll().
		 */
		poll(files, s->count, SCRUB_POLL_MS);
	}
}

static void take_line(void *data, int priority, const char *text)
{
	struct scrub *s = data;
	size_t i;

	for (i = 0; i < s->count; i++) {
		struct target *t = &s->targets[i];

		if (!t->failed || !strstr(text, DRIVER_NAME) || !strstr(text, t->gpu->address))
			continue;
		g_free(t->log);
		t->log = g_strdup(text);
	}
}

/* ---- reading back ------------------------------------------------------- */

static void keep_differences(struct verified *v, const struct pattern *p)
{
	size_t i;

	v->differences = p->differences;
	v->listed = p->listed;
	memcpy(v->parts, p->e->parts.part, sizeof(v->parts));
	for (i = 0; i < p->listed; i++) {
		v->list[i] = p->list[i];
		v->list[i].part = v->parts + (p->list[i].part - p->e->parts.part);
	}
}

/* The GPU is open and its memory mapped. */
static void read_back(struct target *t, struct pattern *p)
{
	struct verified *v = &t->verified;
	g_autofree char *place = NULL, *amount = NULL;
	enum sweep rc;

	v->tried = true;
	rc = pattern_compare(p, &place);
	v->seconds = now() - p->begin;
	v->time = time(NULL);
	v->bytes = rc == SWEEP_DONE ? p->total : atomic_load(&p->done);
	v->done = rc == SWEEP_DONE;
	keep_differences(v, p);
	if (rc == SWEEP_FAULT) {
		end(t, EXIT_FAILED, "failed", g_strdup_printf("--verify: SIGBUS at %s", place),
		    g_strdup_printf("run \"" PROGRAM " doctor %s\"", t->gpu->address));
	} else if (rc == SWEEP_ERROR) {
		end(t, EXIT_FAILED, "failed",
		    g_strdup_printf("--verify: reading GPU memory failed: %s", strerror(errno)),
		    g_strdup_printf("run \"" PROGRAM " doctor %s\"", t->gpu->address));
	} else if (v->differences) {
		place = place_text(v->list[0].part, v->list[0].offset);
		end(t, EXIT_FAILED, "failed",
		    g_strdup_printf("not clean: words of 8 bytes that are not 0: %llu, the first at %s",
				    (unsigned long long)v->differences, place),
		    g_strdup_printf("run \"" PROGRAM " test %s\" before you assign it to a guest",
				    t->gpu->address));
	} else {
		amount = amount_text(v->bytes, v->seconds);
		end(t, EXIT_OK, "clean",
		    g_strdup_printf("%s; read back all zeros: %s", t->outcome.message, amount), NULL);
	}
}

static void verify(struct host *h, struct target *t)
{
	struct wish wish = {
		.command = "scrub", .typed = t->gpu->address,
		.interrupted = "the GPU is scrubbed, but not all of it was read back",
	};
	struct pattern p = { .cleared = true, .doing = "reading back" };
	enum exit_status status;
	struct open_gpu e;

	status = open_gpu_begin(h, &wish, &e);
	if (status) {
		/* open_gpu_begin() has printed why. */
		end(t, status, status == EXIT_REFUSED ? "refused" : "failed",
		    g_strdup("scrubbed, but can't open it for --verify"), NULL);
		return;
	}
	p.e = &e;
	p.begin = now();
	p.total = e.parts.part[0].size + (e.parts.count > 1 ? e.parts.part[1].size : 0);
	pthread_mutex_init(&p.lock, NULL);
	if (pattern_map(&p))
		read_back(t, &p);
	else
		end(t, EXIT_FAILED, "failed",
		    g_strdup_printf("scrubbed, but can't map its memory for --verify: %s",
				    strerror(errno)), NULL);
	pattern_unmap(&p);
	pthread_mutex_destroy(&p.lock);
	open_gpu_end(&e);
}

/* ---- output ------------------------------------------------------------- */

static void say(const struct target *t)
{
	size_t i;

	outcome_print(&t->outcome, t->gpu->address);
	if (t->log)
		complain(t->gpu->address, "kernel: %s", t->log);
	for (i = 0; i < t->verified.listed; i++) {
		const struct difference *d = &t->verified.list[i];
		g_autofree char *place = place_text(d->part, d->offset);

		complain(t->gpu->address, "%s: 0x%016llx", place, (unsigned long long)d->found);
	}
}

static struct json_object *verified_json(const struct verified *v)
{
	struct json_object *object = json_object_new_object(), *array = json_object_new_array(), *o;
	size_t i;

	json_object_object_add(object, "complete", json_object_new_boolean(v->done));
	json_object_object_add(object, "bytes", json_size(v->bytes));
	json_object_object_add(object, "seconds", json_object_new_double(v->seconds));
	json_object_object_add(object, "differences", json_size(v->differences));
	for (i = 0; i < v->listed; i++) {
		o = place_json(v->list[i].part, v->list[i].offset);
		json_object_object_add(o, "found", hex_json(v->list[i].found));
		json_object_array_add(array, o);
	}
	json_object_object_add(object, "places", array);
	return object;
}

static struct json_object *target_json(struct host *h, const struct target *t)
{
	bool begun = strcmp(t->outcome.result, "refused") || t->bytes;
	struct json_object *object = json_object_new_object(), *log = json_object_new_array();
	g_autofree char *state = host_line(h, DEVICES "/%s/nvgrace_gpu/scrub_state", t->gpu->address);

	json_object_object_add(object, "address", json_text(t->gpu->address));
	json_object_object_add(object, "result", json_text(t->outcome.result));
	json_object_object_add(object, "exit_status", json_object_new_int(t->outcome.status));
	json_object_object_add(object, "message", json_text(t->outcome.message));
	json_object_object_add(object, "next", json_text(t->outcome.next));
	if (t->log)
		json_object_array_add(log, json_text(t->log));
	json_object_object_add(object, "kernel_log", log);
	json_object_object_add(object, "joined", json_object_new_boolean(t->joined));
	json_object_object_add(object, "bytes", begun ? json_size(t->bytes) : NULL);
	json_object_object_add(object, "seconds",
			       begun ? json_object_new_double(t->seconds) : NULL);
	json_object_object_add(object, "bytes_per_second", begun && t->seconds > 0 ?
			       json_object_new_double(bytes_seen(t) / t->seconds) : NULL);
	json_object_object_add(object, "verified",
			       t->verified.tried ? verified_json(&t->verified) : NULL);
	json_object_object_add(object, "scrub_state", json_text(state));
	return object;
}

/* ---- the command -------------------------------------------------------- */

/*
 * Whether --all includes this GPU. check() refuses one whose driver does not
 * report memory.
 */
static bool belongs(const struct gpu *gpu, const void *data)
{
	return gpu->ours && gpu->mode != GPU_MODE_CORE_ONLY;
}

/* Finds the GPUs to scrub; EXIT_OK, or an exit status after a message. */
static enum exit_status choose(struct scrub *s)
{
	g_autofree const struct gpu **found = g_new0(const struct gpu *, s->gpus.count);
	enum exit_status status;
	size_t i;

	status = selection_find(&s->a->selected, s->host, &s->gpus, belongs, NULL, found, &s->count);
	s->targets = g_new0(struct target, s->count);
	for (i = 0; i < s->count; i++)
		s->targets[i] = (struct target){ .gpu = found[i], .file = -1 };
	return status;
}

/*
 * Asks a person at a terminal. Programs call this command without one, and mean
 * it.
 */
static bool agreed(const struct scrub *s)
{
	g_autoptr(GString) list = g_string_new(NULL);
	size_t i;

	if (s->a->yes || !risk_can_ask())
		return true;
	for (i = 0; i < s->count; i++)
		g_string_append_printf(list, "%s%s", i ? ", " : "", s->targets[i].gpu->address);
	return risk_agreed(list->str, "scrub", s->count > 1 ? "overwrites the memory of these GPUs"
							    : "overwrites the memory of this GPU");
}

static void scrub_all(struct scrub *s)
{
	size_t i;

	s->kmsg = kmsg_mark();
	progress_begin(s->count == 1 ? s->targets[0].gpu->address : NULL,
		       "the kernel continues scrubs that have started; \"" PROGRAM
		       " status\" shows them", true);
	for (i = 0; i < s->count; i++)
		check(s->host, &s->targets[i]);
	s->begin = now();
	for (i = 0; i < s->count; i++)
		if (!s->targets[i].outcome.result)
			start(s->host, &s->targets[i]);
	follow(s);
	progress_end();
	kmsg_read(s->kmsg, take_line, s);
	if (s->kmsg >= 0)
		close(s->kmsg);
	/* One after the other, because each uses all CPUs of its node. */
	for (i = 0; s->a->verify && i < s->count; i++)
		if (!s->targets[i].outcome.status)
			verify(s->host, &s->targets[i]);
}

/*
 * Keeps the document of a GPU whose memory was read back, so that "status" and
 * "metrics" can say when. A later failure to read removes it.
 */
static void keep_verified(struct scrub *s, const struct target *t)
{
	g_autofree char *file = gpu_verified_file(t->gpu->address);
	struct json_object *document = json_document("scrub"), *results = json_object_new_array();
	struct replacement *r = NULL;
	const char *text;

	json_object_array_add(results, target_json(s->host, t));
	json_object_object_add(document, "verify", json_object_new_boolean(true));
	json_object_object_add(document, "time", json_object_new_int64(t->verified.time));
	json_object_object_add(document, "results", results);
	text = json_object_to_json_string_ext(document, JSON_C_TO_STRING_PRETTY);
	if (!mkdir(RUN_DIR, 0755) || errno == EEXIST)
		r = replacement_begin(file, 0644, text, strlen(text));
	if (!r || replacement_commit(r))
		complain(t->gpu->address, "can't keep the result in %s: %s", file, strerror(errno));
	json_object_put(document);
}

static void keep(struct scrub *s)
{
	size_t i;

	for (i = 0; i < s->count; i++) {
		const struct target *t = &s->targets[i];
		g_autofree char *file = gpu_verified_file(t->gpu->address);

		if (t->verified.tried && !t->outcome.status)
			keep_verified(s, t);
		else if (t->verified.tried)
			unlink(file);
		if (strcmp(t->outcome.result, "refused"))
			syslog(t->outcome.status ? LOG_ERR : LOG_NOTICE, "scrub %s by uid %u: %s",
			       t->gpu->address, getuid(), t->outcome.message);
	}
}

static enum exit_status print(struct scrub *s)
{
	struct json_object *document = json_document("scrub"), *results = json_object_new_array();
	enum exit_status worst = EXIT_OK;
	size_t i;

	for (i = 0; i < s->count; i++) {
		const struct target *t = &s->targets[i];

		worst = t->outcome.status > worst ? t->outcome.status : worst;
		if (!s->a->json || t->outcome.status)
			say(t);
		json_object_array_add(results, target_json(s->host, t));
	}
	json_object_object_add(document, "verify", json_object_new_boolean(s->a->verify));
	json_object_object_add(document, "time", json_object_new_int64(time(NULL)));
	json_object_object_add(document, "results", results);
	if (s->a->json)
		json_print(document);
	else
		json_object_put(document);
	return worst;
}

static enum exit_status run(struct host *h, const struct arguments *a)
{
	struct scrub s = { .host = h, .a = a };
	enum exit_status status, worst;
	size_t i;

	gpus_find(h, &s.gpus);
	status = choose(&s);
	if (!status && !s.count)
		complain(NULL, "no GPU with memory is bound to " DRIVER_NAME);
	if (s.count && agreed(&s)) {
		scrub_all(&s);
		keep(&s);
		worst = print(&s);
	} else if (s.count) {
		worst = EXIT_REFUSED;
	} else {
		worst = print(&s);
	}
	for (i = 0; i < s.count; i++) {
		outcome_free(&s.targets[i].outcome);
		g_free(s.targets[i].log);
	}
	g_free(s.targets);
	gpus_free(&s.gpus);
	return status > worst ? status : worst;
}

int cmd_scrub(struct host *h, int argc, char **argv)
{
	static const struct argp argp = {
		options, parse, "ADDRESS...\n--all", doc, NULL, NULL, NULL
	};
	struct arguments a = { };

	parse_options(&argp, argc, argv, &a);
	if (h->recorded) {
		complain(NULL, "can't scrub a GPU of a recorded tree; run \"" PROGRAM " scrub\" "
			 "without --root");
		return EXIT_USAGE_ERROR;
	}
	if (!h->privileged) {
		complain(NULL, "only root may scrub GPUs; use sudo");
		return EXIT_NOT_ROOT;
	}
	return run(h, &a);
}
