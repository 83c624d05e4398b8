/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A run of "nvgrace-gpu bench": its steps and the figures that they measure.
 */
#ifndef NVGRACE_GPU_BENCH_FIGURES_H
#define NVGRACE_GPU_BENCH_FIGURES_H

#include "open_gpu/open_gpu.h"

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
	uint64_t bytes;		/* measured; 0: not applicable */
	double *values;
	size_t count;
	char *reason;		/* why there are none; NULL otherwise */
};

/* Minimum, median and maximum of a figure with values. */
struct summary {
	double min, median, max;
};

struct bench;

/* Measures a figure, or two at the same time. */
struct step {
	/*
	 * Measures once, for about this many seconds, and calls figure_add().
	 * 0; 1: can't be measured here, and the figures have the reason; -1:
	 * the bench has failed, after a message.
	 */
	int (*measure)(struct bench *b, struct step *s, double seconds);
	size_t figure, second;	/* indexes; second may be NO_FIGURE */
	const struct part *part;	/* NULL: the host's own memory, or none */
	uint64_t bytes;		/* to touch or map, or of a block */
	uint64_t shift;		/* of the virtual address */
	size_t threads;
	int series;		/* steps of the same number take longer for more bytes; 0: none */
	unsigned int weight;	/* share of the time; 0: takes as long as it takes */
	unsigned int most;	/* repetitions; 0: the level's */
	bool writes;		/* GPU memory: not with --read-only */
};

#define NO_FIGURE SIZE_MAX

/* Memory to measure: a part or the host's, mapped and touched. */
struct view {
	const struct part *part;	/* NULL: the host's */
	char *map;
	uint64_t length;
	bool chained;		/* has a chain of pointers from its start */
};

struct bench {
	struct open_gpu *e;
	enum level level;
	bool read_only;
	double begin, budget;	/* seconds */

	struct figure *figures;
	size_t count;
	struct step *steps;
	size_t step_count;

	/* Private to measure.c. */
	struct view views[3];	/* usemem, resmem, host */
	struct view once;	/* a mapping for one measurement */
	struct view writer;	/* another one, to write what is read by that one */
	volatile uint64_t sink;
};

void figure_add(struct bench *b, size_t figure, double value);
/* Takes over the reason, unless there is one or there are values. */
void figure_refuse(struct bench *b, size_t figure, char *reason);
struct summary figure_summary(const struct figure *f);
/* A figure with values by its name; NULL if there is none. */
const struct figure *figure_find(const struct bench *b, const char *name);

#endif
