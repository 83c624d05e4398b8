/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The parts of "nvgrace-gpu bench": bench.c is the command and decides what is measured and for how
 * long, bench_measure.c measures, bench_print.c prints tables, hints and JSON.
 */
#ifndef NVGRACE_GPU_BENCH_H
#define NVGRACE_GPU_BENCH_H

#include "exercise.h"

enum level { LEVEL_QUICK, LEVEL_NORMAL, LEVEL_FULL };

/* What a figure's values are. */
enum unit { UNIT_SECONDS, UNIT_BYTES_PER_SECOND, UNIT_PER_SECOND, UNIT_FAULTS };

/* Where it stands in the tables. */
enum group { GROUP_OPEN, GROUP_TOUCH, GROUP_DMA, GROUP_MEMORY, GROUP_LATENCY, GROUP_FILE, GROUPS };

struct figure {
	char *name;		/* stable, in JSON: "pread/usemem/1MiB" */
	char *label;		/* for people */
	enum unit unit;
	enum group group;
	uint64_t bytes;		/* that it is about; 0: none in particular */
	double *values;
	size_t count;
	char *reason;		/* why there are none; NULL otherwise */
};

/* Minimum, median and maximum of a figure with values. */
struct summary {
	double min, median, max;
};

struct bench;

/* A figure to be measured, perhaps with a second one that comes with it. */
struct step {
	/*
	 * Measures once, for about so many seconds, into figure_add(). 0; 1: it can't be had here,
	 * and the figures have a reason; -1: the bench has failed, and it has been said why.
	 */
	int (*measure)(struct bench *b, struct step *s, double seconds);
	size_t figure, second;	/* indexes; second may be NO_FIGURE */
	const struct vfio_part *part;	/* NULL: the host's own memory, or none */
	uint64_t bytes;		/* to touch or map, or of a block */
	uint64_t shift;		/* of the virtual address */
	size_t threads;
	int series;		/* those of a number grow with bytes; 0: none */
	unsigned int weight;	/* of the time that there is; 0: it takes what it takes */
	unsigned int most;	/* repetitions; 0: what the level says */
	bool writes;		/* GPU memory: not with --read-only */
};

#define NO_FIGURE SIZE_MAX

/* Memory that is worked on: a part, mapped and touched, or the host's. */
struct view {
	const struct vfio_part *part;	/* NULL: the host's */
	char *map;
	uint64_t length;
	bool chained;		/* has a chain of pointers from its begin on */
};

struct bench {
	struct exercise *e;
	enum level level;
	bool read_only;
	double begin, budget;	/* seconds */

	struct figure *figures;
	size_t count;
	struct step *steps;
	size_t step_count;

	/* bench_measure.c's own. */
	struct view views[3];	/* usemem, resmem, host */
	struct view once;	/* a mapping for one measurement */
	volatile uint64_t sink;
};

/* ---- figures (bench.c) -------------------------------------------------- */

void figure_add(struct bench *b, size_t figure, double value);
/* Takes over the reason, unless there is one or there are values. */
void figure_refuse(struct bench *b, size_t figure, char *reason);
struct summary figure_summary(const struct figure *f);
/* A figure with values by its name; NULL if there is none. */
const struct figure *figure_find(const struct bench *b, const char *name);

/* ---- measuring (bench_measure.c) ---------------------------------------- */

int measure_open(struct bench *b, struct step *s, double seconds);
int measure_reset(struct bench *b, struct step *s, double seconds);
int measure_touch(struct bench *b, struct step *s, double seconds);
int measure_dma(struct bench *b, struct step *s, double seconds);
int measure_read(struct bench *b, struct step *s, double seconds);
int measure_write(struct bench *b, struct step *s, double seconds);
int measure_copy(struct bench *b, struct step *s, double seconds);
int measure_latency(struct bench *b, struct step *s, double seconds);
int measure_pread(struct bench *b, struct step *s, double seconds);
int measure_pwrite(struct bench *b, struct step *s, double seconds);
int measure_memcpy_from(struct bench *b, struct step *s, double seconds);
int measure_memcpy_to(struct bench *b, struct step *s, double seconds);
int measure_tail(struct bench *b, struct step *s, double seconds);
int measure_config(struct bench *b, struct step *s, double seconds);

/* Unmaps all that was mapped. */
void measure_end(struct bench *b);

/* ---- printing (bench_print.c) ------------------------------------------- */

void bench_print(const struct bench *b);
void bench_json(const struct bench *b);

#endif
