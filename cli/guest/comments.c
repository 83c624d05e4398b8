// SPDX-License-Identifier: GPL-2.0-only
/*
 * Comments in the formats that have them, and the names of reasons.
 */
#include <glib.h>
#include <string.h>

#include "guest/formats.h"

enum { COLUMNS = 80 };

void guest_comment(FILE *out, const char *prefix, const char *text)
{
	size_t column = 0, n;

	while (*text) {
		n = strcspn(text, " \n");
		if (column && column + 1 + n > COLUMNS) {
			fputc('\n', out);
			column = 0;
		}
		column += fprintf(out, "%s%.*s", column ? " " : prefix, (int)n, text);
		text += n;
		text += strspn(text, " \n");
	}
	fputc('\n', out);
}

void guest_head(const struct guest_output *o, const char *prefix,
		void (*comment)(FILE *out, const char *prefix, const char *text))
{
	const GPtrArray *notes = o->plan->notes;
	const struct guest_warning *w;
	size_t i;

	for (w = o->warning; w < o->warning + o->warnings; w++) {
		g_autofree char *text = g_strdup_printf("doctor: this guest %s: %s%s%s: %s%s%s",
			strcmp(w->effect, "slow") ? w->effect : "is slow", w->id,
			w->device ? " of " : "", w->device ? w->device : "", w->text,
			w->remedy ? "; " : "", w->remedy ? w->remedy : "");

		comment(o->out, prefix, text);
	}
	for (i = 0; notes && i < notes->len; i++) {
		g_autofree char *text = g_strdup_printf("note: %s", (char *)notes->pdata[i]);

		comment(o->out, prefix, text);
	}
}

const char *guest_why_name(enum why why)
{
	static const char *const names[] = {
		[WHY_MACHINE] = "machine", [WHY_RAS] = "ras", [WHY_WINDOW] = "window",
		[WHY_CPU] = "cpu", [WHY_CPUS] = "cpus", [WHY_MEMORY] = "memory",
		[WHY_BACKEND] = "memory_backend", [WHY_PIN] = "pin",
		[WHY_NODES] = "nodes",
		[WHY_DISTANCES] = "distances", [WHY_IOMMUFD] = "iommufd", [WHY_BUS] = "buses",
		[WHY_SMMU] = "smmu", [WHY_PORT] = "port", [WHY_GPU] = "gpu", [WHY_DEVICE] = "device",
		[WHY_ATS] = "ats",
		[WHY_INITIATOR] = "initiators", [WHY_FIRMWARE] = "firmware",
		[WHY_VARS] = "uefi_vars", [WHY_TPM] = "tpm",
		[WHY_DISK] = "disk", [WHY_SEED] = "cloud_init",
		[WHY_NETWORK] = "network", [WHY_CONSOLE] = "console",
	};

	return names[why];
}
