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
#include <unistd.h>

#include "system/kmsg.h"
#include "test/test.h"

/*
 * How long the host must be silent after a step. Its interrupt handlers have run
 * by then. What firmware reports later counts for a later step.
 */
enum { SILENCE_MS = 250, ROUNDS = 20 };

enum { LEVEL_ERROR = 3, LEVEL_WARNING = 4, LEVELS = 8 };

/* ---- the kernel's log --------------------------------------------------- */

/* What the kernel says of a fault of its own; the lab's judge reads them, too. */
static bool is_splat(const char *text)
{
	static const char *const expressions[] = {
#include "splats.h"
	};
	size_t i;

	for (i = 0; i < G_N_ELEMENTS(expressions); i++)
		if (g_regex_match_simple(expressions[i], text, 0, 0))
			return true;
	return false;
}

static bool has_any(const char *text, const char *const *words)
{
	for (; *words; words++)
		if (strstr(text, *words))
			return true;
	return false;
}

/* Whether the text has the address of a bridge above the GPU. */
static bool names_bridge(const struct test *t, const char *text)
{
	const char *at = t->bridges;
	char address[ADDRESS_MAX];

	while (sscanf(at, "%23s", address) == 1) {
		if (strstr(text, address))
			return true;
		at += strlen(address) + 1;
	}
	return false;
}

static void take_line(void *data, const struct kmsg *message)
{
	/* What the kernel says of a healthy reset, or of its configuration. */
	static const char *const expected[] = {
		": resetting", ": reset done", "Device-specific reset disabled", NULL
	};
	static const char *const corrected[] = { "orrectable", "orrected", NULL };
	static const char *const faults[] = { "------------[ cut here ]", "nvgrace", "vfio", NULL };
	static const char *const hardware[] = {
		"Hardware Error", "EDAC", "AER", "PCIe Bus Error", "Memory failure", NULL
	};
	const char *text = message->text;
	int priority = message->priority;
	struct test *t = data;
	g_autofree char *line = NULL;
	bool bad;

	/* Programs write to this log, too. */
	if (priority < 0 || priority >= LEVELS || priority > LEVEL_WARNING)
		return;
	bad = priority <= LEVEL_ERROR;
	if (!bad && !has_any(text, expected) && !has_any(text, corrected))
		bad = strstr(text, t->e.gpu.address) || has_any(text, faults) ||
		      is_splat(text);
	if (!bad && !has_any(text, hardware) && !names_bridge(t, text))
		return;
	line = g_strdup(text);
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

static uint64_t count_edac(struct host *h, const char *name)
{
	g_auto(GStrv) controllers = host_list(h, "/sys/devices/system/edac/mc");
	uint64_t all = GPU_UNKNOWN, one;
	size_t i;

	for (i = 0; controllers && controllers[i]; i++)
		if (!host_u64(h, &one, "/sys/devices/system/edac/mc/%s/%s", controllers[i], name))
			all = (all == GPU_UNKNOWN ? 0 : all) + one;
	return all;
}

/* Of the GPU and of the bridges above it. GPU_UNKNOWN: not counted for the GPU. */
static uint64_t count_pci(const struct test *t, const char *severity)
{
	struct host *h = t->e.host;
	const char *at = t->bridges;
	char address[ADDRESS_MAX];
	uint64_t all, one;

	if (gpu_pci_errors(h, t->e.gpu.address, severity, &all))
		return GPU_UNKNOWN;
	while (sscanf(at, "%23s", address) == 1) {
		if (!gpu_pci_errors(h, address, severity, &one))
			all += one;
		at += strlen(address) + 1;
	}
	return all;
}

static void read_counts(const struct test *t, struct counts *counts)
{
	struct host *h = t->e.host;
	g_autofree char *text = host_read(h, NULL, "/proc/meminfo");
	char *at;

	memset(counts, 0xff, sizeof(*counts));
	counts->fatal = count_pci(t, "fatal");
	counts->nonfatal = count_pci(t, "nonfatal");
	counts->correctable = count_pci(t, "correctable");
	at = text ? strstr(text, "HardwareCorrupted:") : NULL;
	if (at)
		counts->poisoned = strtoull(at + strlen("HardwareCorrupted:"), NULL, 10) << 10;
	counts->uncorrected = count_edac(h, "ue_count");
	counts->corrected = count_edac(h, "ce_count");
	if (host_u64(h, &counts->taint, "/proc/sys/kernel/tainted"))
		counts->taint = GPU_UNKNOWN;
}

static unsigned long long grown(uint64_t before, uint64_t after)
{
	return before == GPU_UNKNOWN || after == GPU_UNKNOWN || after < before ? 0 : after - before;
}

static void compare_counts(struct test *t)
{
	struct counts *last = &t->last, now_counts;
	unsigned long long bad, poisoned;
	uint64_t taint;

	read_counts(t, &now_counts);
	bad = grown(last->fatal, now_counts.fatal) + grown(last->nonfatal, now_counts.nonfatal);
	if (bad)
		result(t, "host", FAILED, "%llu uncorrected PCIe errors were counted", bad);
	bad = grown(last->uncorrected, now_counts.uncorrected);
	poisoned = grown(last->poisoned, now_counts.poisoned) / 1024;
	if (bad || poisoned)
		result(t, "host", FAILED, "%llu uncorrected memory errors were counted, and %llu KiB "
		       "taken out of use", bad, poisoned);
	taint = last->taint == GPU_UNKNOWN || now_counts.taint == GPU_UNKNOWN ? 0 :
		now_counts.taint & ~last->taint;
	if (taint)
		result(t, "host", FAILED, "the kernel is tainted by 0x%llx, which it was not before: "
		       "see /proc/sys/kernel/tainted", (unsigned long long)taint);
	*last = now_counts;
}

/* ---- the run ------------------------------------------------------------ */

/* The addresses in the device's path, up to its own. */
static char *find_bridges(struct host *h, const char *address)
{
	g_autofree char *target = host_link(h, DEVICES "/%s", address);
	GString *all = g_string_new(NULL);
	char *word, *save, other[ADDRESS_MAX];
	unsigned int number[4];
	char end;

	word = target ? strtok_r(target, "/", &save) : NULL;
	for (; word; word = strtok_r(NULL, "/", &save)) {
		if (sscanf(word, "%x:%x:%x.%x%c", &number[0], &number[1], &number[2], &number[3],
			   &end) != 4 || strlen(word) >= sizeof(other) || !strcmp(word, address))
			continue;
		g_string_append_printf(all, "%s ", word);
	}
	return g_string_free(all, FALSE);
}

void complaints_begin(struct test *t)
{
	t->kmsg = kmsg_mark();
	t->bridges = find_bridges(t->e.host, t->e.gpu.address);
	read_counts(t, &t->before);
	t->last = t->before;
}

void complaints_read(struct test *t)
{
	read_log(t);
	compare_counts(t);
}

void complaints_sum(struct test *t)
{
	const struct counts *before = &t->before, *after = &t->last;
	unsigned long long bad, other;

	bad = grown(before->fatal, after->fatal) + grown(before->nonfatal, after->nonfatal);
	other = grown(before->correctable, after->correctable);
	if (after->fatal == GPU_UNKNOWN || after->nonfatal == GPU_UNKNOWN)
		result(t, "pcie-errors", SKIPPED, "the kernel counts no errors of this device (no AER)");
	else if (bad)
		result(t, "pcie-errors", FAILED, "%llu uncorrected and %llu corrected PCIe errors "
		       "during the test", bad, other);
	else if (other)
		result(t, "pcie-errors", NOTED, "%llu corrected PCIe errors during the test", other);
	else
		result(t, "pcie-errors", PASSED, "no PCIe errors during the test; since boot, %llu "
		       "uncorrected", (unsigned long long)after->fatal + after->nonfatal);
	bad = grown(before->poisoned, after->poisoned) / 1024;
	other = grown(before->uncorrected, after->uncorrected);
	if (bad || other)
		result(t, "memory-errors", FAILED, "%llu KiB taken out of use and %llu uncorrected "
		       "memory errors counted during the test", bad, other);
	else if (grown(before->corrected, after->corrected))
		result(t, "memory-errors", NOTED, "%llu corrected memory errors during the test",
		       grown(before->corrected, after->corrected));
	else if (after->poisoned == GPU_UNKNOWN && after->uncorrected == GPU_UNKNOWN)
		result(t, "memory-errors", SKIPPED, "this kernel counts no memory errors");
	else
		result(t, "memory-errors", PASSED, "no memory errors during the test");
}

void complaints_end(struct test *t)
{
	if (t->kmsg >= 0)
		close(t->kmsg);
	g_free(t->bridges);
}
