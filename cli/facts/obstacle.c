// SPDX-License-Identifier: GPL-2.0-only
/* Why the next boot binds no GPU. See boots.h. */
#include <glib.h>

#include "facts/answers.h"
#include "facts/boots.h"
#include "system/program.h"

char *boots_obstacle(struct host *h)
{
	struct answers *a = answers_begin(h, NULL);
	struct boots boots;
	char *why = NULL;
	size_t i;

	boots_read(h, a, false, &boots);
	for (i = 0; i < boots.count && !why; i++)
		if (boots.boot[i].next == NEXT_YES && boots.boot[i].module_known && !boots.boot[i].module)
			why = g_strdup_printf("Linux %s, which boots next, has no " MODULE_NAME,
					      boots.boot[i].release);
	boots_free(&boots);
	answers_free(a);
	return why;
}
