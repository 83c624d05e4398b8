// SPDX-License-Identifier: GPL-2.0-only
/*
 * Whether the loaded module clears GPU memory between guests, now and after the next
 * boot.
 */
#include <glib.h>
#include <string.h>
#include <strings.h>

#include "doctor/checks.h"
#include "facts/initramfs.h"
#include "system/program.h"

#define UPDATE " and update the initramfs"	/* in two remedies */
#define SCRUB_PARAMETER "/sys/module/" DRIVER_NAME "/parameters/scrub"

/*
 * Whether the kernel reads this value of a module parameter as on
 * (kstrtobool()); NULL: no value.
 */
static bool is_on(const char *value)
{
	static const char *const words[] = { "y", "t", "1", "on" };
	size_t i;

	/* The kernel reads no more than these letters. */
	for (i = 0; value && i < G_N_ELEMENTS(words); i++)
		if (!strncasecmp(value, words[i], strlen(words[i])))
			return true;
	return !value;
}

/*
 * Whether the options that modprobe passes turn scrubbing on: 1, 0, or -1 for
 * not known.
 */
static int scrub_at_boot(const char *module)
{
	g_autofree char *options = field_value(module, "options");
	char *word, *rest = NULL, *value;
	int on = options ? 0 : -1;

	for (word = options ? strtok_r(options, " \t", &rest) : NULL; word;
	     word = strtok_r(NULL, " \t", &rest)) {
		value = strchr(word, '=');
		if (value)
			*value++ = 0;
		/* The last one holds. */
		if (!strcmp(word, "scrub"))
			on = is_on(value);
	}
	return on;
}

/*
 * These words and the command, in quotes, that updates the initramfs, because
 * the module may be loaded there; "" without an initramfs to update. To be
 * freed.
 */
static char *renewal(struct doctor *d, const char *words)
{
	const char *const *command = initramfs_command(d->h);
	g_autofree char *text = command ? g_strjoinv(" ", (char **)command) : NULL;

	return text ? g_strdup_printf("%s\"%s\"", words, text) : g_strdup("");
}

void check_scrubbing(struct doctor *d, const char *module)
{
	g_autofree char *parameter = host_line(d->h, SCRUB_PARAMETER), *renew = renewal(d, " and ");
	g_autofree char *again = renewal(d, ": run ");
	int boot = scrub_at_boot(module);
	struct finding *f;

	if (!parameter) {
		f = finding(d, SCRUBBING_NO_PARAMETER, NULL, "GPU memory is not cleared between guests");
		because(f, "the loaded module has no parameter scrub");
	} else if (*parameter == 'Y' && boot) {
		finding(d, SCRUBBING_GOOD, NULL, "GPU memory is cleared between guests%s",
			boot > 0 ? ", also after the next boot" : "");
	} else if (*parameter == 'Y') {
		f = finding(d, SCRUBBING_OFF_AT_BOOT, NULL,
			    "GPU memory is cleared between guests, but not after the next boot");
		because(f, "the parameter scrub is on, but no line in /etc/modprobe.d turns it on at boot");
		fill(f, UPDATE, renew);
	} else if (boot > 0) {
		f = finding(d, SCRUBBING_OFF_NOW, NULL,
			    "GPU memory is not cleared between guests, although this is configured");
		because(f,
			"/etc/modprobe.d or the kernel's command line has scrub=1, but the loaded module's parameter is off");
		fill(f, ": update it", again);
	} else {
		f = finding(d, SCRUBBING_OFF, NULL, "GPU memory is not cleared between guests");
		because(f,
			"the parameter scrub is off: the next guest can read what the last one left");
		fill(f, UPDATE, renew);
	}
}
