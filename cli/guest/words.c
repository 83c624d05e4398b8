// SPDX-License-Identifier: GPL-2.0-only
/* What all formats call things. See formats.h. */
#include <glib.h>
#include <string.h>

#include "guest/formats.h"

char *guest_warning_text(const struct guest_warning *w)
{
	return g_strdup_printf("this guest %s: %s%s%s: %s%s%s",
			       strcmp(w->effect, "slow") ? w->effect : "is slow", w->id,
			       w->device ? " of " : "", w->device ? w->device : "", w->text,
			       w->remedy ? "; " : "", w->remedy ? w->remedy : "");
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
		[WHY_DISK] = "disk", [WHY_CONSOLE] = "console",
	};

	return names[why];
}
