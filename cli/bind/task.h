/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What bind and unbind have to do for a GPU: the reasons to refuse and the steps
 * (task.c), and the configuration for boot (boot.c). bind.c calls both, and switch.c
 * changes the drivers.
 */
#ifndef NVGRACE_GPU_BIND_TASK_H
#define NVGRACE_GPU_BIND_TASK_H

#include <glib.h>

#include "bind/switch.h"
#include "facts/overview.h"
#include "facts/selection.h"

/* The command line. */
struct arguments {
	bool bind;
	struct selection selected;
	bool persist, boot_only, no_initramfs, no_probe, dry_run, json;
};

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

/* Ends the job, and adds a line to what --dry-run prints. */
void job_refuse(struct job *job, char *message, char *next);
void task_add_step(struct task *task, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

/* Plans the GPU's change, or refuses it. */
void task_plan(struct overview *s, const struct arguments *a, struct task *task, struct job *job);

/* Plans the changes of the configuration; may refuse. */
void task_plan_boot(struct overview *s, const struct arguments *a, struct task *task,
		    struct job *job);

/* Writes the GPU's new file, under a temporary name. */
void task_prepare_boot(struct task *task, struct job *job);

/*
 * Renames or removes the GPU's file, if the job succeeded; returns whether the
 * configuration changed.
 */
bool task_settle_boot(struct task *task, struct job *job);

#endif
