// SPDX-License-Identifier: GPL-2.0-only
/* Makes the tracepoints of trace.h; nothing else may define CREATE_TRACE_POINTS. */
#define CREATE_TRACE_POINTS
#include "trace.h"
