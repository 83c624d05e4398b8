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
		target_end(t, EXIT_FAILED, "failed", g_strdup_printf("--verify: SIGBUS at %s", place),
		    g_strdup_printf("run \"" PROGRAM " doctor %s\"", t->gpu->address));
	} else if (rc == SWEEP_ERROR) {
		target_end(t, EXIT_FAILED, "failed",
		    g_strdup_printf("--verify: reading GPU memory failed: %s", strerror(errno)),
		    g_strdup_printf("run \"" PROGRAM " doctor %s\"", t->gpu->address));
	} else if (v->differences) {
		place = place_text(v->list[0].part, v->list[0].offset);
		target_end(t, EXIT_FAILED, "failed",
		    g_strdup_printf("not clean: words of 8 bytes that are not 0: %llu, the first at %s",
				    (unsigned long long)v->differences, place),
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
	struct pattern p = { .cleared = true, .doing = "reading back" };
	enum exit_status status;
	struct open_gpu e;

	status = open_gpu_begin(h, &wish, &e);
	if (status) {
		/* open_gpu_begin() has printed why. */
		target_end(t, status, status == EXIT_REFUSED ? "refused" : "failed",
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
		target_end(t, EXIT_FAILED, "failed",
		    g_strdup_printf("scrubbed, but can't map its memory for --verify: %s",
				    strerror(errno)), NULL);
	pattern_unmap(&p);
	pthread_mutex_destroy(&p.lock);
	open_gpu_end(&e);
}
