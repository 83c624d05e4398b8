// SPDX-License-Identifier: GPL-2.0-only
/*
 * The driver's scrubs: starts them, and follows them to their end. See scrub.h.
 *
 * The kernel does the work in the background, even after the end of this program.
 * docs/ABI describes the sysfs files. scrub_state changes when the scrub ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "facts/open_files.h"
#include "open_gpu/progress.h"
#include "scrub/scrub.h"
#include "system/kmsg.h"
#include "system/output.h"
#include "system/program.h"

/*
 * Interval for reading the progress. The end of a scrub wakes poll() earlier,
 * with POLLPRI of scrub_state.
 */
enum { SCRUB_POLL_MS = 250 };

void target_end(struct target *t, enum exit_status status, const char *result, char *message,
		char *next)
{
	outcome_set(&t->outcome, status, result, message, next);
	if (t->file >= 0)
		close(t->file);
	t->file = -1;
}

static void refuse(struct target *t, char *message, char *next)
{
	target_end(t, EXIT_REFUSED, "refused", message, next);
}

char *amount_text(uint64_t bytes, double seconds)
{
	double rate = seconds > 0 ? bytes / seconds / 1e9 : 0;
	char size[SIZE_MAX_TEXT];

	return g_strdup_printf("%s in %.2f s, %.*f GB/s", size_text(bytes, size), seconds,
			       rate < 9.995 ? 2 : rate < 99.95 ? 1 : 0, rate);
}

uint64_t bytes_seen(const struct target *t)
{
	return t->joined && t->before <= t->bytes ? t->bytes - t->before : t->bytes;
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

/* ---- the driver's files ------------------------------------------------- */

static int open_attribute(const char *address, const char *name, int flags)
{
	g_autofree char *path = g_strdup_printf(DEVICES "/%s/nvgrace_gpu/%s", address,
						name);

	return open(path, flags | O_CLOEXEC);
}

/* 0 or an errno. */
static int scrub_start(const char *address)
{
	int fd = open_attribute(address, "scrub", O_WRONLY), error = 0;

	if (fd < 0 || write(fd, "1", 1) != 1)
		error = errno;
	if (fd >= 0)
		close(fd);
	return error;
}

/* To be freed; NULL with errno if the GPU was unbound. */
static char *scrub_state_read(int fd)
{
	char text[64];
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

	if (n < 0)
		return NULL;
	text[n] = 0;
	text[strcspn(text, "\n")] = 0;
	make_printable(text);
	return g_strdup(text);
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
	t->file = open_attribute(t->gpu->address, "scrub_state", O_RDONLY);
	state = t->file < 0 ? NULL : scrub_state_read(t->file);
	error = state ? 0 : errno;
	t->joined = scrub_state_of(state) == GPU_SCRUB_RUNNING;
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
		target_end(t, EXIT_FAILED, "failed",
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

static void end_clean(struct target *t)
{
	g_autofree char *amount = NULL;

	/* After a very fast scrub, scrub_progress looks like the last one's. */
	t->bytes = t->total;
	amount = amount_text(bytes_seen(t), t->seconds);
	target_end(t, EXIT_OK, "clean",
	    g_strdup_printf("clean; %s%s", amount,
			    t->joined ? ", by a scrub that was already running" : ""), NULL);
}

/* Reads the scrub's state, and ends the target if the scrub has ended. */
static void look(struct host *h, struct target *t)
{
	g_autofree char *state = scrub_state_read(t->file);
	int error = errno;

	t->seconds = now() - t->begin;
	t->failed = scrub_state_of(state) == GPU_SCRUB_FAILED;
	look_at_progress(h, t);
	if (!state)
		target_end(t, EXIT_FAILED, "failed",
		    g_strdup_printf("unbound before the scrub ended: %s", strerror(error)),
		    g_strdup_printf("run \"" PROGRAM " bind %s\", and scrub it again", t->gpu->address));
	else if (scrub_state_of(state) == GPU_SCRUB_CLEAN)
		end_clean(t);
	else if (t->failed)
		target_end(t, EXIT_FAILED, "failed",
		    g_strdup("the scrub failed; see the kernel's log"),
		    g_strdup_printf("run \"echo 1 > " DEVICES "/%s/reset\", and scrub it again; if that "
				    "does not help, power-cycle the host", t->gpu->address));
	else if (scrub_state_of(state) != GPU_SCRUB_RUNNING)
		target_end(t, EXIT_FAILED, "failed",
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

static void take_line(void *data, const struct kmsg *message)
{
	const char *text = message->text;
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

void overwrite_all(struct scrub *s)
{
	size_t i;

	s->kmsg = kmsg_mark();
	progress_begin(s->count == 1 ? s->targets[0].gpu->address : NULL,
		       "the kernel continues scrubs that have started; \"" PROGRAM
		       " status\" shows them");
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
}
