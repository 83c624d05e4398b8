/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What bench, test and scrub --verify share: options, which GPU, reasons to
 * refuse, and the question before memory is overwritten.
 */
#ifndef NVGRACE_GPU_OPEN_GPU_OPEN_GPU_H
#define NVGRACE_GPU_OPEN_GPU_OPEN_GPU_H

#include <glib.h>

#include "open_gpu/parts.h"
#include "system/options.h"
#include "system/program.h"

struct json_object;

struct wish {
	const char *command;	/* "bench" */
	/*
	 * "overwrites the memory of this GPU": what a person has to agree to.
	 * NULL: the command does not ask.
	 */
	const char *risk;
	/* open_gpu_children set these. */
	const char *typed;	/* address */
	bool yes, json;
	bool lists;		/* only lists what it would do, and needs no GPU */
	const char *interrupted;	/* message after an interruption, once the GPU is open */
};

struct open_gpu {
	struct host *host;
	struct gpu gpu;
	struct vfio vfio;
	struct parts parts;	/* none until it was opened */
	char *kernel, *machine;	/* of uname(2) */
	char *driver_version;	/* NULL: the module has none */
};

/*
 * The options --yes and --json and one ADDRESS, for parse_options(). At
 * ARGP_KEY_INIT, the command's parser sets state->child_inputs[0] to the struct
 * wish that they fill.
 */
extern const struct argp_child open_gpu_children[];

/*
 * open_gpu_find() finds the GPU, refuses one that is not bound or in use, and
 * asks. open_gpu_open() opens it, which resets it, and finds its parts.
 * open_gpu_begin() does both. EXIT_OK, or an exit status after a message; after
 * one of open_gpu_open(), the GPU is not open. open_gpu_end() ends all.
 */
enum exit_status open_gpu_find(struct host *h, const struct wish *wish, struct open_gpu *e);
enum exit_status open_gpu_open(struct open_gpu *e);
enum exit_status open_gpu_begin(struct host *h, const struct wish *wish, struct open_gpu *e);
void open_gpu_end(struct open_gpu *e);

/* Adds the members of the schema's "open_gpu" to a document. */
void open_gpu_json(const struct open_gpu *e, struct json_object *document);

/*
 * Whether standard input and standard error are a terminal, and whether a person
 * there agrees to the risk. Who does not gets a message.
 */
bool risk_can_ask(void);
bool risk_agreed(const char *addresses, const char *command, const char *risk);

#endif
