/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the parts of "nvgrace-gpu doctor" share. doctor.c is the command: options, order of the
 * checks, output. doctor_answers.c asks what no file below /sys or /etc answers (system calls,
 * programs, filtered logs), doctor_record.c writes down all that was looked at, and the checks
 * themselves are in doctor_kernel.c, doctor_module.c, doctor_host.c, doctor_gpu.c and
 * doctor_initramfs.c; doctor_accept.c marks findings that the administrator has accepted.
 * docs/doctor.md describes each finding; tests/cli/doctor_findings.py holds the two together.
 */
#ifndef NVGRACE_GPU_DOCTOR_H
#define NVGRACE_GPU_DOCTOR_H

#include "config.h"
#include "host.h"
#include "survey.h"

/* NOTE: no alarm, such as a limit that nothing but another kernel lifts. From WARNING on they count. */
enum verdict { GOOD, UNKNOWN, NOTE, WARNING, BAD, VERDICTS };

struct finding {
	const char *id;			/* static: a heading of docs/doctor.md */
	enum verdict verdict;
	char *device;			/* NULL: the host */
	char *text, *reason, *remedy;	/* the last two only where the verdict isn't GOOD */
	char *accepted;			/* by which line of the administrator's; NULL: by none */
};

struct doctor {
	struct host *h;
	struct gpus gpus;		/* all of the host */
	struct answers *answers;
	struct recorder *recorder;	/* NULL: nothing is recorded */

	/* Facts that several checks need; doctor.c fills them in before the first one. */
	bool privileged;		/* the session that asked was root's */
	bool arm;
	const char *machine, *release;	/* as uname(2) says */
	int major, minor;		/* of release; 0 if it has none */
	const char *config;		/* the kernel's options that matter, NULL: none found */
	const char *log;		/* the kernel's lines that matter, NULL if not readable */
	bool loaded;			/* a module of our name is */
	char *features;			/* what it says that it can do; NULL: it doesn't say */
	struct config wishes;		/* the administrator's, for the boot */
	char *obstacle, *rule;		/* config_obstacle()'s */
	struct iomem iomem;

	struct finding *findings;
	size_t count;
};

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#define PCI_DEVICES "/sys/bus/pci/devices"

/* What the administrator knows and has accepted; doctor_accept.c reads it. */
#define ACCEPT_FILE "/etc/nvgrace-gpu.accept"

/* ---- findings (doctor.c) -------------------------------------------------------------------- */

/* "good", "warning"... */
const char *verdict_name(enum verdict verdict);

/*
 * Makes all checks, of the GPUs with these addresses or, where count is 0, of all. d has h, and
 * a recorder if there is one; doctor_end() frees the rest.
 */
void doctor_look(struct doctor *d, char (*addresses)[ADDRESS_MAX], size_t count);
void doctor_end(struct doctor *d);

/* Enters a finding. The one returned is for because() and remedy() right after. */
struct finding *finding(struct doctor *d, const char *id, enum verdict verdict, const char *device,
			const char *fmt, ...) host_printf(5, 6);
void because(struct finding *f, const char *fmt, ...) host_printf(2, 3);
void remedy(struct finding *f, const char *fmt, ...) host_printf(2, 3);

/* Whether the running kernel's number is this one or a later one. */
bool kernel_from(const struct doctor *d, int major, int minor);

/* 'y', 'm', or 'n' for a kernel option (without CONFIG_); 'n' too while d->config is NULL. */
char kernel_option(const struct doctor *d, const char *name);

/* Whether the loaded module says that it can do this. */
bool has_feature(const struct doctor *d, const char *word);

/* Whether the space or line separated list has this word. */
bool has_word(const char *list, const char *word);

/* ---- answers (doctor_answers.c) ------------------------------------------------------------- */

/*
 * What the system says, as text; NULL where it says nothing. Each is asked once. On a recorded tree
 * the answers are the files below /answers. docs/doctor.md has the list.
 */
const char *answer(struct doctor *d, const char *name);
void answers_free(struct doctor *d);

/* The value of "key: value" in an answer; NULL if the key isn't there. The caller frees it. */
char *answer_value(const char *text, const char *key);

/* The next line of *text, which moves on; NULL at the end. The caller frees it. */
char *next_line(const char **text);

/* ---- recording (doctor_record.c) ------------------------------------------------------------ */

/* From now on what is looked at through d->h is written below directory. An exit status. */
int record_begin(struct doctor *d, const char *directory);
void record_answer(struct doctor *d, const char *name, const char *text);
/* Ends; EXIT_OK, or EXIT_FAILED after a complaint if something could not be written. */
int record_end(struct doctor *d);

/* ---- what is in an initramfs (doctor_initramfs.c) ------------------------------------------- */

/* The answer "initramfs": see there for its lines. */
char *ask_initramfs(struct doctor *d);

/* ---- the checks ----------------------------------------------------------------------------- */

void check_kernel(struct doctor *d);		/* doctor_kernel.c */
void check_kvm(struct doctor *d);
void check_module(struct doctor *d);		/* doctor_module.c */
void check_iommu(struct doctor *d);		/* doctor_host.c */
void check_memory(struct doctor *d);
void check_programs(struct doctor *d);
void check_configuration(struct doctor *d);
void check_initramfs(struct doctor *d);		/* doctor_initramfs.c */
/* After all others: marks their findings. addresses as of doctor_look(). */
void check_accepted(struct doctor *d, char (*addresses)[ADDRESS_MAX], size_t count);
void check_gpu(struct doctor *d, const struct gpu *gpu);	/* doctor_gpu.c */

#endif
