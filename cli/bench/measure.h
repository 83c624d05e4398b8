/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The measurements of "nvgrace-gpu bench", for struct step's measure.
 */
#ifndef NVGRACE_GPU_BENCH_MEASURE_H
#define NVGRACE_GPU_BENCH_MEASURE_H

#include "bench/figures.h"

/* open.c */
int measure_open(struct bench *b, struct step *s, double seconds);
int measure_reset(struct bench *b, struct step *s, double seconds);
int measure_touch(struct bench *b, struct step *s, double seconds);
int measure_dma(struct bench *b, struct step *s, double seconds);

/* traffic.c */
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

#endif
