// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the host says while "nvgrace-gpu test" runs: the kernel's log, and the
 * counts of PCIe errors, memory errors and the kernel's own faults. See test.h.
 *
 * A message of level 3 (error) or worse is a complaint, wherever it comes from,
 * because firmware and the kernel often report uncorrected errors without
 * naming the device. A warning is one if it names the GPU or its driver, or looks
 * like a line of the file "splats.h".
 */
#include <errno.h>
#include <glib.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "system/kmsg.h"
#include "test/test.h"

/*
 * How long the host must be silent after a case. Its interrupt handlers have run
 * by then. What firmware reports later counts for a later case.
 */
enum { SILENCE_MS = 250, ROUNDS = 20 };

enum { LEVEL_ERROR = 3, LEVEL_WARNING = 4 };

/* Whether the text matches one of these expressions, or has a word of the list. */
static bool matches(const char *text, const char *const *expressions, const char *words)
{
	g_auto(GStrv) list = g_strsplit(words, " ", 0);
	size_t i;

	for (; *expressions; expressions++)
		if (g_regex_match_simple(*expressions, text, 0, 0))
			return true;
	for (i = 0; list[i]; i++)
		if (*list[i] && strstr(text, list[i]))
			return true;
	return false;
}

static void take_line(void *data, const struct kmsg *message)
{
	/* What the kernel says of a fault of its own; the lab's judge reads them, too. */
	static const char *const splats[] = {
#include "splats.h"
		"------------\\[ cut here \\]", "nvgrace", "vfio", NULL
	};
	/* What the kernel says of a healthy reset, or of what was corrected. */
	static const char *const harmless[] = {
		": resetting", ": reset done", "Device-specific reset disabled", "[Cc]orrect(able|ed)",
		NULL
	};
	static const char *const hardware[] = {
		"Hardware Error", "EDAC", "AER", "PCIe Bus Error", "Memory failure", NULL
	};
	const char *text = message->text;
	struct test *t = data;
	g_autofree char *line = g_strdup(text);
	bool bad;

	/* Programs write to this log, too, with higher priorities. */
	if (message->priority < 0 || message->priority > LEVEL_WARNING)
		return;
	bad = message->priority <= LEVEL_ERROR ||
	      (!matches(text, harmless, "") && matches(text, splats, t->e.gpu.address));
	if (!bad && !matches(text, hardware, t->bridges))
		return;
	remove_addresses(line);
	result(t, "host", bad ? FAILED : NOTED, "kernel: %s", line);
}

static void read_log(struct test *t)
{
	struct pollfd log = { .fd = t->kmsg, .events = POLLIN };
	int rounds = 0, any;

	do {
		any = poll(&log, 1, SILENCE_MS);
		if (kmsg_read(t->kmsg, take_line, t) == EPIPE)
			result(t, "host", FAILED, "the kernel's log was overwritten before it could "
			       "be read; see \"dmesg\"");
	} while (any > 0 && ++rounds < ROUNDS);
}

/* ---- counts ------------------------------------------------------------- */

static uint64_t count_edac(struct host *h)
{
	g_auto(GStrv) controllers = host_list(h, "/sys/devices/system/edac/mc");
	uint64_t all = GPU_UNKNOWN, one;
	size_t i;

	for (i = 0; controllers && controllers[i]; i++)
		if (!host_u64(h, &one, "/sys/devices/system/edac/mc/%s/ue_count", controllers[i]))
			all = (all == GPU_UNKNOWN ? 0 : all) + one;
	return all;
}

static uint64_t count_pci(const struct test *t, const char *severity)
{
	g_auto(GStrv) bridges = g_strsplit(t->bridges, " ", 0);
	uint64_t all, one;
	size_t i;

	if (gpu_pci_errors(t->e.host, t->e.gpu.address, severity, &all))
		return GPU_UNKNOWN;
	for (i = 0; bridges[i]; i++)
		if (*bridges[i] && !gpu_pci_errors(t->e.host, bridges[i], severity, &one))
			all += one;
	return all;
}

static void read_counts(const struct test *t, uint64_t counts[COUNTS])
{
	g_autofree char *text = host_read(t->e.host, NULL, "/proc/meminfo");
	g_autofree char *poisoned = field_value(text, "HardwareCorrupted");

	counts[PCI_FATAL] = count_pci(t, "fatal");
	counts[PCI_NONFATAL] = count_pci(t, "nonfatal");
	counts[MEMORY_ERRORS] = count_edac(t->e.host);
	counts[POISONED] = poisoned ? strtoull(poisoned, NULL, 10) : GPU_UNKNOWN;
	if (host_u64(t->e.host, &counts[TAINT], "/proc/sys/kernel/tainted"))
		counts[TAINT] = GPU_UNKNOWN;
}

static void compare_counts(struct test *t)
{
	static const char *const texts[COUNTS] = {
		[PCI_FATAL] = "uncorrected fatal PCIe errors", [PCI_NONFATAL] = "uncorrected PCIe errors",
		[MEMORY_ERRORS] = "uncorrected memory errors",
		[POISONED] = "KiB of memory taken out of use",
		[TAINT] = "the kernel's taint, see /proc/sys/kernel/tainted",
	};
	uint64_t found[COUNTS];
	size_t i;

	read_counts(t, found);
	for (i = 0; i < COUNTS; i++) {
		if (t->counts[i] != GPU_UNKNOWN && found[i] != GPU_UNKNOWN && found[i] > t->counts[i])
			result(t, "host", FAILED, "%s: %llu, before: %llu", texts[i],
			       (unsigned long long)found[i], (unsigned long long)t->counts[i]);
		t->counts[i] = found[i];
	}
}

/* The addresses in the device's path, up to its own. */
static char *find_bridges(struct host *h, const char *address)
{
	g_autofree char *target = host_link(h, DEVICES "/%s", address);
	g_auto(GStrv) words = g_strsplit(target ?: "", "/", 0);
	GString *all = g_string_new(NULL);
	size_t i;

	for (i = 0; words[i]; i++)
		if (g_regex_match_simple("^[0-9a-f]+:[0-9a-f]+:[0-9a-f]+\\.[0-7]$", words[i], 0, 0) &&
		    strcmp(words[i], address))
			g_string_append_printf(all, "%s ", words[i]);
	return g_string_free(all, FALSE);
}

void complaints_begin(struct test *t)
{
	t->kmsg = kmsg_mark();
	t->bridges = find_bridges(t->e.host, t->e.gpu.address);
	read_counts(t, t->counts);
}

void complaints_read(struct test *t)
{
	read_log(t);
	compare_counts(t);
}
