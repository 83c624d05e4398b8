// SPDX-License-Identifier: GPL-2.0-only
/*
 * The figures: see figures.h.
 */
#include <glib.h>
#include <stdlib.h>
#include <string.h>

#include "bench/figures.h"

void figure_add(struct bench *b, size_t figure, double value)
{
	struct figure *f = &b->figures[figure];

	f->values = g_renew(double, f->values, f->count + 1);
	f->values[f->count++] = value;
}

void figure_refuse(struct bench *b, size_t figure, char *reason)
{
	struct figure *f = figure == NO_FIGURE ? NULL : &b->figures[figure];

	if (!f || f->count || f->reason)
		g_free(reason);
	else
		f->reason = reason;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

struct summary figure_summary(const struct figure *f)
{
	g_autofree double *sorted = g_memdup2(f->values, f->count * sizeof(double));
	size_t n = f->count;
	struct summary s = { };

	if (n) {
		qsort(sorted, n, sizeof(*sorted), compare);
		s.min = sorted[0];
		s.max = sorted[n - 1];
		s.median = n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
	}
	return s;
}

const struct figure *figure_find(const struct bench *b, const char *name)
{
	size_t i;

	for (i = 0; i < b->count; i++)
		if (!strcmp(b->figures[i].name, name))
			return b->figures[i].count ? &b->figures[i] : NULL;
	return NULL;
}
