/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What bench and test have in common: their options, which GPU, what speaks against using it, the
 * question whether its memory may be overwritten, and the words for the machine and for places in
 * memory. bench.c, test.c and scrub.c call it.
 */
#ifndef NVGRACE_GPU_EXERCISE_H
#define NVGRACE_GPU_EXERCISE_H

#include "commands.h"
#include "progress.h"
#include "vfio.h"
#include "workers.h"

struct json_object;

struct wish {
	const char *command;	/* "bench" */
	bool overwrites;	/* GPU memory: ask, unless yes is set */
	/* exercise_children fill these in. */
	const char *typed;	/* address */
	bool yes, json;
	const char *interrupted;	/* what to say then, once the GPU is opened */
};

struct exercise {
	struct host *host;
	struct gpu gpu;
	struct vfio vfio;
	struct cpus cpus;
	double open_seconds;	/* how long the first vfio_open() took */
	char *kernel, *machine;	/* as uname(2) says */
	char *driver_version;	/* NULL: the module has none */
	bool grace;		/* the CPU is a Neoverse V2, as Grace's is */
};

/*
 * The options --yes and --json and one ADDRESS, for parse_options(). The command's own parser names
 * the struct wish that they fill: state->child_inputs[0], at ARGP_KEY_INIT.
 */
extern const struct argp_child exercise_children[];

/* EXIT_OK, with the GPU open and its parts found; or an exit status after saying why not. */
enum exit_status exercise_begin(struct host *h, const struct wish *wish, struct exercise *e);
void exercise_end(struct exercise *e);

/* Prints the lines that say which GPU and machine this is, for people. */
void exercise_print(const struct exercise *e);

/* Adds to a document what the schema's "exercise" has. */
void exercise_json(const struct exercise *e, struct json_object *document);

/* "usemem + 0x1000, physical address 0x420000001000"; to be freed. */
char *place_text(const struct vfio_part *part, uint64_t offset);

/* The schema's "test_place": the same for programs; null without a part. */
struct json_object *place_json(const struct vfio_part *part, uint64_t offset);

/* "0x1000", since not every JSON parser keeps 64 bits. */
struct json_object *hex_json(uint64_t value);

#endif
