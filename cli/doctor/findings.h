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
#include "facts/overview.h"
#include "plan/plan.h"

struct finding {
	enum finding_id id;
	enum verdict verdict;
	char *device;			/* NULL: the host */
	char *text, *reason, *remedy;	/* the last two are NULL if the verdict is GOOD */
	char *accepted;			/* "FILE:LINE" that accepts it; NULL: none */
	bool accel_only;		/* about guests with an accelerated SMMUv3 alone */
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
	int major, minor;		/* of release; 0 if it has none */
	const char *config;		/* the kernel's options that matter; NULL: not found */
	const char *log;		/* the kernel's lines that matter; NULL: not readable */
	bool loaded;			/* a module of this driver's name is loaded */
	char *features;			/* of that module; NULL: it does not report any */
	struct config wishes;		/* the configuration for boot */
	char *obstacle, *rule;		/* of config_obstacle() */
	struct iomem iomem;
	struct guest_facts facts;	/* of which guests are made */

	struct finding *findings;
	size_t count;
};

/*
 * The findings that the administrator has accepted; check_accepted.c reads it.
 */
#define ACCEPT_FILE "/etc/nvgrace-gpu.accept"

/*
 * Adds a finding, with the case's verdict and its remedy, in which ADDRESS is
 * the device. The pointer is valid until the next call: for because(), and for
 * fill(), which replaces words of the remedy by what they are on this host (NULL:
 * not known).
 */
struct finding *finding(struct doctor *d, enum finding_case which, const char *device,
			const char *fmt, ...) G_GNUC_PRINTF(4, 5);
void because(struct finding *f, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
void fill(struct finding *f, const char *words, const char *by);

/* Whether the kernel has this version or a later one. */
bool kernel_from(const struct doctor *d, int major, int minor);

/*
 * The value of a kernel option (name without CONFIG_): 'y', 'm' or 'n'; 'n' if
 * d->config is NULL.
 */
char kernel_option(const struct doctor *d, const char *name);

/*
 * "CONFIG_X, CONFIG_Y": those of these options that the kernel lacks, to be freed;
 * "" if it has all.
 */
char *missing_options(const struct doctor *d, const char *const *names, size_t count);

/* Completes a finding that needs the kernel's configuration, if there is none. */
void no_config(const struct doctor *d, struct finding *f);

/*
 * Whether the loaded driver is NVIDIA's own, which gives guests extended GPU
 * memory, on a kernel that DKMS leaves alone.
 */
bool other_driver_gives_egm(const struct doctor *d);

/*
 * Why guests with all bound GPUs can have no accelerated SMMUv3, to be freed.
 * NULL: they can, or there is no such GPU, and then *gpus is 0.
 */
char *accel_obstacle(const struct doctor *d, size_t *gpus);

/* Whether the kernel exports GPU memory as dma-bufs. */
bool exports_dmabufs(const struct doctor *d);

/* Whether the loaded module reports this feature. */
bool has_feature(const struct doctor *d, const char *word);

#endif
