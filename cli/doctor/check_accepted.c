// SPDX-License-Identifier: GPL-2.0-only
/*
 * Findings that the administrator has accepted, so that monitoring stays quiet
 * until there is another one. Reads the file that lists them; doctor.c calls it
 * after all checks. A line is
 *
 *	FINDING VERDICT [ADDRESS|host]
 *
 * and accepts this finding up to that verdict: an accepted warning counts again
 * when it becomes bad.
 */
#include <errno.h>
#include <glib.h>
#include <string.h>
#include <strings.h>

#include "doctor/checks.h"

static const char forms[] =
	"FINDING VERDICT [ADDRESS|host], such as \"qemu warning\"";

static bool for_device(const char *device, const struct finding *f)
{
	return !device || !strcasecmp(device, f->device ? f->device : "host");
}

/* Whether this run checked the device: an address, "host", or NULL for all. */
static bool was_checked(const char *device, char (*addresses)[ADDRESS_MAX], size_t count)
{
	size_t i;

	for (i = 0; i < count; i++)
		if (!device || !strcasecmp(device, "host") || !strcasecmp(device, addresses[i]))
			return device != NULL;
	return !count;
}

/* Returns how many findings the line accepts. */
static size_t accept(struct doctor *d, size_t number, const char *id, enum verdict verdict,
		     const char *device)
{
	size_t i, found = 0;

	for (i = 0; i < d->count; i++) {
		struct finding *f = &d->findings[i];

		if (strcmp(finding_ids[f->id], id) || !for_device(device, f) || f->verdict < WARNING ||
		    f->verdict > verdict)
			continue;
		found++;
		if (!f->accepted)
			f->accepted = g_strdup_printf(ACCEPT_FILE ":%zu", number);
	}
	return found;
}

void check_accepted(struct doctor *d, char (*addresses)[ADDRESS_MAX], size_t count)
{
	g_autofree char *text = host_read(d->h, NULL, ACCEPT_FILE);
	char *id, *word, *device, *more, *save;
	g_auto(GStrv) line = NULL;
	size_t i, lines = 0, bad = 0;
	struct finding *f;

	if (!text) {
		if (host_absent())
			return;
		f = finding(d, ACCEPTED_UNREADABLE, NULL, ACCEPT_FILE " can't be read");
		because(f, "%s", strerror(errno));
		return;
	}
	line = text_lines(text);
	for (i = 0; line[i]; i++) {
		enum verdict verdict;

		line[i][strcspn(line[i], "#")] = 0;
		id = strtok_r(line[i], " \t\r", &save);
		word = id ? strtok_r(NULL, " \t\r", &save) : NULL;
		device = word ? strtok_r(NULL, " \t\r", &save) : NULL;
		more = device ? strtok_r(NULL, " \t\r", &save) : NULL;
		if (!id)
			continue;
		lines++;
		verdict = !word || more ? GOOD : !strcmp(word, "bad") ? BAD :
			  !strcmp(word, "warning") ? WARNING : GOOD;
		if (verdict == GOOD) {
			bad++;
			f = finding(d, ACCEPTED_IGNORED, NULL, ACCEPT_FILE ":%zu is ignored",
				    i + 1);
			because(f, "it does not have the form %s", forms);
		} else if (!accept(d, i + 1, id, verdict, device) &&
			   was_checked(device, addresses, count)) {
			bad++;
			f = finding(d, ACCEPTED_NOTHING, NULL,
				    ACCEPT_FILE ":%zu accepts nothing", i + 1);
			because(f, "no finding %s%s%s is worse than a note and at most %s",
				id, device ? " of " : "", device ? device : "", word);
		}
	}
	if (!bad)
		finding(d, ACCEPTED_GOOD, NULL, ACCEPT_FILE " has %zu line%s", lines,
			lines == 1 ? "" : "s");
}
