// SPDX-License-Identifier: GPL-2.0-only
/*
 * The step of "nvgrace-gpu test" in which the driver overwrites the memory with
 * zeros. It ends with what "scrub --verify" does: the GPU is opened, which
 * resets it, and all of its memory is read. See test.h.
 */
#include <errno.h>
#include <glib.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "open_gpu/progress.h"
#include "open_gpu/scrubbing.h"
#include "test/test.h"

/* Waits until the scrub has ended; the state, to be freed. NULL sets errno. */
static char *follow(struct test *t, int file)
{
	uint64_t total = gpu_memory_size(&t->e.gpu), bytes;
	char *state;

	for (;;) {
		state = scrub_state_read(file);
		if (scrub_state_of(state) != GPU_SCRUB_RUNNING)
			return state;
		g_free(state);
		if (host_u64(t->e.host, &bytes, DEVICES "/%s/nvgrace_gpu/scrub_progress",
			     t->e.gpu.address))
			bytes = 0;
		progress_step((double)bytes / total, -1, "scrub");
		poll(&(struct pollfd){ .fd = file, .events = POLLPRI }, 1, SCRUB_POLL_MS);
	}
}

static bool scrub(struct test *t)
{
	int file = scrub_state_open(t->e.gpu.address), error = file < 0 ? errno : 0;
	char *state = NULL;
	bool clean;

	if (!error)
		error = scrub_start(t->e.gpu.address);
	if (!error) {
		state = follow(t, file);
		error = state ? 0 : errno;
	}
	if (file >= 0)
		close(file);
	clean = scrub_state_of(state) == GPU_SCRUB_CLEAN;
	if (error)
		result_error(t, "scrub", "the driver can't scrub", error);
	else if (!clean)
		result(t, "scrub", FAILED, "the memory is not clean after the scrub: its state is "
		       "\"%s\"; see the kernel's log", state);
	else
		result(t, "scrub", PASSED, "the driver has overwritten the memory with zeros");
	g_free(state);
	return clean;
}

static void read_back(struct test *t)
{
	struct pattern *p = &t->pattern;
	char *place = NULL;
	enum sweep rc;
	size_t i;

	p->cleared = true;
	log_line(t, "opens the GPU, which resets it, and reads all of its memory");
	if (t->failed || !open_memory(t))
		return;
	p->doing = "reading zeros back";
	p->begin = now();
	p->bound = 0;
	p->total = 0;
	for (i = 0; i < t->e.parts.count; i++)
		p->total += t->e.parts.part[i].size;
	atomic_store(&p->done, 0);
	rc = pattern_compare(p, &place);
	if (!result_swept(t, "zeros", rc, place))
		return;
	if (p->differences)
		say_differences(t, "zeros");
	else
		result(t, "zeros", PASSED, "after the reset, all of the memory reads as 0");
}

void step_scrub(struct test *t)
{
	const char *address = t->e.gpu.address;

	if (!t->e.gpu.ours || gpu_memory_size(&t->e.gpu) == GPU_UNKNOWN ||
	    !host_exists(t->e.host, DEVICES "/%s/nvgrace_gpu/scrub", address)) {
		result(t, "scrub", SKIPPED, "this driver can't scrub");
		return;
	}
	if (!t->e.host->privileged) {
		result(t, "scrub", SKIPPED, "only root may scrub GPUs");
		return;
	}
	pattern_unmap(&t->pattern);
	vfio_close(&t->e.vfio);
	if (scrub(t)) {
		complaints_read(t);
		if (!t->failed)
			read_back(t);
	}
}
