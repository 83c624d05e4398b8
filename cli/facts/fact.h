/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What is known of a GPU, one by one: fact_table.h has a row for each, of which text,
 * JSON and metrics are made.
 */
#ifndef NVGRACE_GPU_FACTS_FACT_H
#define NVGRACE_GPU_FACTS_FACT_H

#include "facts/overview.h"

struct json_object;

enum fact {
#define FACT(id, type, name, value) FACT_##id,
#include "facts/fact_table.h"
#undef FACT
	FACTS
};

/*
 * Its number or its word by the row's type: NUMBER_OF_state and WORD_OF_bound don't
 * exist, so that a metric can't have them.
 */
#define TEXT_TYPE(id)
#define WORD_TYPE(id)		WORD_OF_##id = FACT_##id,
#define FLAG_TYPE(id)		NUMBER_OF_##id = FACT_##id,
#define ID_TYPE(id)
#define NUMBER_TYPE(id)		NUMBER_OF_##id = FACT_##id,
#define SIZE_TYPE(id)		NUMBER_OF_##id = FACT_##id,
#define TIME_TYPE(id)		NUMBER_OF_##id = FACT_##id,
#define MILLISECONDS_TYPE(id)	MILLISECONDS_OF_##id = FACT_##id,
#define ADDRESS_TYPE(id)

enum typed_fact {
#define FACT(id, type, name, value) type##_TYPE(id)
#include "facts/fact_table.h"
#undef FACT
};

/* A fact's value. text: of a TEXT, valid as long as the GPU; number: of any other. */
struct value {
	bool known;
	const char *text;
	uint64_t number;
};

struct value fact_value(enum fact fact, struct overview *s, const struct gpu *gpu);

/* It as text, with its unit, to be freed; NULL if it isn't known. */
char *fact_text(enum fact fact, struct overview *s, const struct gpu *gpu);

/* The schema's "gpu": all facts with a name, and who has the GPU open. */
struct json_object *gpu_json(struct overview *s, const struct gpu *gpu);

#endif
