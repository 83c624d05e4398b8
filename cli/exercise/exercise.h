/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What bench, test and scrub --verify share: options, which GPU, reasons to
 * refuse, the question before memory is overwritten, and texts about the
 * machine and places in memory.
 */
#ifndef NVGRACE_GPU_EXERCISE_EXERCISE_H
#define NVGRACE_GPU_EXERCISE_EXERCISE_H

#include "exercise/open.h"
#include "exercise/parts.h"
#include "exercise/workers.h"
#include "system/options.h"

struct json_object;

struct wish {
	const char *command;	/* "bench" */
	/*
	 * "overwrites the memory of this GPU": what a person has to agree to.
	 * NULL: the command does not ask.
	 */
	const char *risk;
	/* exercise_children set these. */
	const char *typed;	/* address */
	bool yes, json;
	bool lists;		/* only lists what it would do, and needs no GPU */
	const char *interrupted;	/* message after an interruption, once the GPU is open */
};

struct exercise {
	struct host *host;
	struct gpu gpu;
	struct vfio vfio;
	struct parts parts;	/* none until it was opened */
	struct cpus cpus;
	double open_seconds;	/* how long the first vfio_open() took */
	char *kernel, *machine;	/* of uname(2) */
	char *driver_version;	/* NULL: the module has none */
	bool grace;		/* the CPU is a Neoverse V2, as in Grace */
};

/*
 * The options --yes and --json and one ADDRESS, for parse_options(). At
 * ARGP_KEY_INIT, the command's parser sets state->child_inputs[0] to the struct
 * wish that they fill.
 */
extern const struct argp_child exercise_children[];

/*
 * exercise_find() finds the GPU, refuses one that is not bound or in use, and
 * asks. exercise_open() opens it, which resets it, and finds its parts.
 * exercise_begin() does both. EXIT_OK, or an exit status after a message; after
 * one of exercise_open(), the GPU is not open. exercise_end() ends all.
 */
enum exit_status exercise_find(struct host *h, const struct wish *wish, struct exercise *e);
enum exit_status exercise_open(struct exercise *e);
enum exit_status exercise_begin(struct host *h, const struct wish *wish, struct exercise *e);
void exercise_end(struct exercise *e);

/* Prints lines about the GPU and the machine. */
void exercise_print(const struct exercise *e);

/* Adds the members of the schema's "exercise" to a document. */
void exercise_json(const struct exercise *e, struct json_object *document);

/* "usemem + 0x1000, physical address 0x420000001000"; to be freed. */
char *place_text(const struct part *part, uint64_t offset);

/* The schema's "test_place"; null without a part. */
struct json_object *place_json(const struct part *part, uint64_t offset);

/* "0x1000": text, because not every JSON parser keeps 64 bits. */
struct json_object *hex_json(uint64_t value);

/*
 * Whether standard input and standard error are a terminal, and whether a person
 * there agrees to the risk. Who does not gets a message.
 */
bool risk_can_ask(void);
bool risk_agreed(const char *addresses, const char *command, const char *risk);

#endif
