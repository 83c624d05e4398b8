/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The signals that interrupt a command.
 */
#ifndef NVGRACE_GPU_SYSTEM_SIGNALS_H
#define NVGRACE_GPU_SYSTEM_SIGNALS_H

#include <signal.h>

/*
 * SIGINT, SIGTERM and SIGHUP, except those that the parent process has set to
 * be ignored. The caller blocks them while it changes something.
 */
void interrupting_signals(sigset_t *signals);

#endif
