// SPDX-License-Identifier: GPL-2.0-only
/*
 * Signals: see signals.h.
 */
#include <stddef.h>

#include "system/signals.h"

void interrupting_signals(sigset_t *signals)
{
	static const int all[] = { SIGINT, SIGTERM, SIGHUP };
	struct sigaction action;
	size_t i;

	sigemptyset(signals);
	for (i = 0; i < sizeof(all) / sizeof(*all); i++)
		if (!sigaction(all[i], NULL, &action) && action.sa_handler != SIG_IGN)
			sigaddset(signals, all[i]);
}
