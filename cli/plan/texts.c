// SPDX-License-Identifier: GPL-2.0-only
/*
 * The texts of a plan: why there is no guest, and notes.
 */
#include <glib.h>
#include <stdarg.h>

#include "plan/steps.h"

enum exit_status plan_refuse(struct guest_plan *plan, enum exit_status status,
			     const struct gpu *gpu, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	plan->refused = g_strdup_vprintf(fmt, args);
	va_end(args);
	plan->about = gpu ? gpu->address : NULL;
	return status;
}

void plan_note(struct guest_plan *plan, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	g_ptr_array_add(plan->notes, g_strdup_vprintf(fmt, args));
	va_end(args);
}

char *guest_size(uint64_t bytes)
{
	static const char units[] = "KMGT";
	int i;

	for (i = sizeof(units) - 2; i > 0 && bytes % (1ULL << (10 * (i + 1))); i--)
		;
	return g_strdup_printf("%llu%c", (unsigned long long)(bytes >> (10 * (i + 1))), units[i]);
}
