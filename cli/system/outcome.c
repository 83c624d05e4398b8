// SPDX-License-Identifier: GPL-2.0-only
/*
 * The outcome of a command for one GPU: see outcome.h.
 */
#include <glib.h>
#include <stdio.h>

#include "system/outcome.h"
#include "system/output.h"

void outcome_set(struct outcome *o, enum exit_status status, const char *result, char *message,
		 char *next)
{
	outcome_free(o);
	*o = (struct outcome){ status, result, message, next };
}

void outcome_free(struct outcome *o)
{
	g_free(o->message);
	g_free(o->next);
}

void outcome_print(const struct outcome *o, const char *address)
{
	if (o->status == EXIT_OK)
		printf("%s: %s\n", address, o->message);
	else
		complain(address, "%s%s%s", o->message, o->next ? "; " : "",
			 o->next ? o->next : "");
}
