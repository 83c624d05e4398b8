/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a run of "nvgrace-gpu doctor" knows about the host, its findings, and
 * how the checks (checks.h) add findings.
 */
#ifndef NVGRACE_GPU_DOCTOR_FINDINGS_H
#define NVGRACE_GPU_DOCTOR_FINDINGS_H

#include <glib.h>

#include "doctor/explain.h"
#include "facts/answers.h"
#include "facts/boots.h"
#include "facts/owner.h"
#include "facts/overview.h"
#include "plan/plan.h"

struct finding {
	enum finding_id id;
	enum verdict verdict;
	char *device;			/* NULL: the host */
	char *text, *reason, *remedy;	/* the last two are NULL if the verdict is GOOD */
};

struct doctor {
	struct host *h;
	struct gpus gpus;		/* all of the host */
	struct answers *answers;
	struct recorder *recorder;	/* NULL: nothing is recorded */

	/*
	 * Facts that several checks need; doctor.c sets them before the first
	 * check.
	 */
	bool privileged;		/* root runs the doctor, or made the record */
	bool arm;
	const char *machine, *release;	/* of uname(2) */
	int major, minor, patch;	/* of release; 0 if it has none */
	const char *config;		/* the kernel's configuration; NULL: not found */
	const char *line;		/* its command line, between spaces; NULL: not known */
	const char *log;		/* the kernel's lines that matter; NULL: not readable */
	bool loaded;			/* a module of this driver's name is loaded */
	bool egm_driver;		/* which is NVIDIA's own, with EGM */
	const char *module;		/* the answer; "" if there is none */
	char *path;			/* of the module that modprobe would load; NULL: none */
	bool scrub_wanted;		/* the options of modprobe have scrub=1 */
	enum owner builder;		/* module_builder() */
	char *features;			/* of that module; NULL: it does not report any */
	struct config wishes;		/* the configuration for boot */
	bool binds;			/* it binds a GPU */
	char *obstacle, *rule;		/* of config_obstacle() */
	struct iomem iomem;
	struct boots boots;
	struct guest_facts facts;	/* of which guests are made */

	struct finding *findings;
	size_t count;
};

/*
 * Adds a finding with a case's texts. device: NULL: the host. Then follow pairs, and
 * NULL: a word that the texts have in braces, and what it is on this host. {address}
 * is the device, {release} the running kernel's.
 */
void report(struct doctor *d, enum finding_case which, const char *device, ...)
	G_GNUC_NULL_TERMINATED;

/* Whether the kernel has this version or a later one. */
bool kernel_from(const struct doctor *d, int major, int minor, int patch);

/*
 * The value of a kernel option (name without CONFIG_): 'y', 'm' or 'n'; 'n' if
 * d->config is NULL.
 */
char kernel_option(const struct doctor *d, const char *name);

/* Whether the kernel exports GPU memory as dma-bufs. */
bool exports_dmabufs(const struct doctor *d);

#endif
