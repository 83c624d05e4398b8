/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The output of "nvgrace-gpu bench": tables with bars and hints, or JSON.
 */
#ifndef NVGRACE_GPU_BENCH_PRINT_H
#define NVGRACE_GPU_BENCH_PRINT_H

#include "bench/figures.h"

void bench_print(const struct bench *b);
void bench_json(const struct bench *b);

#endif
