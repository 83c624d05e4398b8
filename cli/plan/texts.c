// SPDX-License-Identifier: GPL-2.0-only
/*
 * The texts of a plan: why there is no guest, reasons and notes.
 */
#include <stdarg.h>
#include <stdlib.h>

#include "plan/steps.h"

enum exit_status plan_refuse(struct guest_plan *plan, enum exit_status status,
			     const struct gpu *gpu, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	plan->refused = xvasprintf(fmt, args);
	va_end(args);
	plan->about = gpu ? gpu->address : NULL;
	return status;
}

void plan_because(struct guest_plan *plan, enum why why, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	plan->why[why] = xvasprintf(fmt, args);
	va_end(args);
}

void plan_note(struct guest_plan *plan, const char *fmt, ...)
{
	char *text, *all;
	va_list args;

	va_start(args, fmt);
	text = xvasprintf(fmt, args);
	va_end(args);
	all = xasprintf("%s%s\n", plan->notes ? plan->notes : "", text);
	free(text);
	free(plan->notes);
	plan->notes = all;
}

char *guest_size(uint64_t bytes)
{
	static const char units[] = "KMGT";
	int i;

	for (i = sizeof(units) - 2; i > 0 && bytes % (1ULL << (10 * (i + 1))); i--)
		;
	return xasprintf("%llu%c", (unsigned long long)(bytes >> (10 * (i + 1))), units[i]);
}
