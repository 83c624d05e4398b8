// SPDX-License-Identifier: GPL-2.0-only
/* Reads the memory of a scrubbed GPU back: see scrub.h. */
#include <errno.h>
#include <glib.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "open_gpu/open_gpu.h"
#include "scrub/scrub.h"
#include "system/output.h"
#include "system/program.h"

/* The GPU is open. */
static void read_back(struct target *t, struct zeros *z)
{
	struct verified *v = &t->verified;
	g_autofree char *place = NULL, *amount = NULL;
	enum sweep rc;

	v->tried = true;
	rc = zeros_read(z, &place);
	v->seconds = now() - z->begin;
	v->time = time(NULL);
	v->bytes = rc == SWEEP_DONE ? z->total : atomic_load(&z->done);
	v->done = rc == SWEEP_DONE;
	v->differences = z->differences;
	v->first = z->first;
	if (z->first.part)
		v->part = *z->first.part;
	if (rc == SWEEP_FAULT) {
		target_end(t, EXIT_FAILED, "failed", g_strdup_printf("--verify: SIGBUS at %s", place),
		    g_strdup_printf("run \"" PROGRAM " doctor %s\"", t->gpu->address));
	} else if (rc == SWEEP_ERROR) {
		target_end(t, EXIT_FAILED, "failed",
		    g_strdup_printf("--verify: reading GPU memory failed: %s", strerror(errno)),
		    g_strdup_printf("run \"" PROGRAM " doctor %s\"", t->gpu->address));
	} else if (v->differences) {
		place = place_text(&v->part, v->first.offset);
		target_end(t, EXIT_FAILED, "failed",
		    g_strdup_printf("not clean: words of 8 bytes that are not 0: %llu, the first is 0x%016llx at %s",
				    (unsigned long long)v->differences,
				    (unsigned long long)v->first.found, place),
		    g_strdup_printf("run \"" PROGRAM " test %s\" before you assign it to a guest",
				    t->gpu->address));
	} else {
		amount = amount_text(v->bytes, v->seconds);
		target_end(t, EXIT_OK, "clean",
		    g_strdup_printf("%s; read back all zeros: %s", t->outcome.message, amount), NULL);
	}
}

void verify(struct host *h, struct target *t)
{
	struct wish wish = {
		.command = "scrub", .typed = t->gpu->address,
		.interrupted = "the GPU is scrubbed, but not all of it was read back",
	};
	enum exit_status status;
	struct open_gpu e;

	status = open_gpu_begin(h, &wish, &e);
	if (status) {
		/* open_gpu_begin() has printed why. */
		target_end(t, status, status == EXIT_REFUSED ? "refused" : "failed",
		    g_strdup("scrubbed, but can't open it for --verify"), NULL);
		return;
	}
	read_back(t, &(struct zeros){ .e = &e });
	open_gpu_end(&e);
}
