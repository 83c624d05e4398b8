// SPDX-License-Identifier: GPL-2.0-only
/*
 * Boots in which no GPU is bound: see elsewhere.h.
 */
#include <glib.h>
#include <string.h>

#include "facts/elsewhere.h"

enum boot {
	ORDINARY,	/* as systemd has it: the last word of its own counts */
	RESCUE,
	ALWAYS_RESCUE,	/* not systemd's choice of a unit, so no later word changes it */
	DUMP,
};

/*
 * Words of the kernel command line. Those that only interrupt a boot, such as rd.break of
 * dracut.cmdline(7), are not among them, because it goes on. A row has the beginning of a
 * word, and how it can go on. The first row that fits counts. ANY is each other value.
 */
#define ANY "*"

static const struct {
	enum boot boot;
	const char *begin, *ends;
} words[] = {
	/* systemd(1), "Kernel Command Line"; -s of sysvinit's init(8) */
	{ RESCUE, "", "rescue single s S 1 -s emergency -b" },
	{ ORDINARY, "", "2 3 4 5" },
	/* systemd.special(7); runlevel(8); friendly-recovery of Ubuntu */
	{ RESCUE, "systemd.unit=", "rescue.target rescue.service emergency.target emergency.service runlevel1.target "
	  "friendly-recovery.target" },
	{ ORDINARY, "systemd.unit=", ANY },
	/* bootup(7): the initramfs's own */
	{ ALWAYS_RESCUE, "", "rd.rescue rd.emergency" },
	{ ALWAYS_RESCUE, "rd.systemd.unit=", "rescue.target emergency.target" },
	/*
	 * Ubuntu's entry in GRUB, "recovery nomodeset dis_ucode_ldr", by
	 * friendly-recovery. Debian's and SUSE's have "single", by
	 * GRUB_CMDLINE_LINUX_RECOVERY.
	 */
	{ ALWAYS_RESCUE, "", "recovery" },
	/* kernel-parameters.txt: init= and reset_devices, which a crash's kernel gets */
	{ ALWAYS_RESCUE, "init=", "sh bash dash ash zsh busybox sulogin" },
	{ DUMP, "", "reset_devices" },
};

/*
 * Fedora's and Red Hat's entry has its own kernel: 51-dracut-rescue.install calls it
 * vmlinuz-0-rescue-MACHINE.
 */
#define RESCUE_KERNEL "vmlinuz-0-rescue-"

static bool is_row(size_t row, const char *word)
{
	const char *end, *slash;

	if (!g_str_has_prefix(word, words[row].begin))
		return false;
	end = word + strlen(words[row].begin);
	/* systemd ignores what is no unit's name. */
	if (!strcmp(words[row].ends, ANY))
		return strchr(end, '.');
	/* init=/usr/bin/bash */
	slash = *words[row].begin ? strrchr(end, '/') : NULL;
	return has_word(words[row].ends, slash ? slash + 1 : end);
}

char **boot_words(const char *line)
{
	g_autoptr(GPtrArray) list = g_ptr_array_new();
	g_autoptr(GString) word = g_string_new(NULL);
	bool quoted = false;

	for (line = line ?: "";; line++) {
		if (*line == '"') {
			quoted = !quoted;
		} else if (*line && (quoted || !g_ascii_isspace(*line))) {
			g_string_append_c(word, *line);
		} else {
			if (word->len)
				g_ptr_array_add(list, g_strdup(word->str));
			g_string_truncate(word, 0);
			if (!*line)
				break;
		}
	}
	g_ptr_array_add(list, NULL);
	return (char **)g_ptr_array_free(g_steal_pointer(&list), FALSE);
}

char *boot_parameter(const char *line, const char *name)
{
	g_auto(GStrv) list = boot_words(line);
	size_t length = strlen(name);
	char *value = NULL;
	size_t i;

	for (i = 0; list[i]; i++) {
		char *equals = strchr(list[i], '=');

		if (!equals || (size_t)(equals - list[i]) != length)
			continue;
		/* The kernel takes either spelling. */
		*equals = 0;
		if (strcmp(g_strdelimit(list[i], "-", '_'), name))
			continue;
		g_free(value);
		value = g_strdup(equals + 1);
	}
	return value;
}

char *line_is_elsewhere(const char *line)
{
	g_auto(GStrv) list = boot_words(line);
	enum boot boot = ORDINARY;
	const char *by = NULL;
	size_t i, row;

	for (i = 0; list[i] && boot < ALWAYS_RESCUE; i++) {
		for (row = 0; row < G_N_ELEMENTS(words) && !is_row(row, list[i]); row++)
			;
		if (row < G_N_ELEMENTS(words))
			boot = words[row].boot;
		else if (g_str_has_prefix(list[i], "BOOT_IMAGE=") && strstr(list[i], RESCUE_KERNEL))
			boot = ALWAYS_RESCUE;
		else
			continue;
		by = list[i];
	}
	if (boot == DUMP)
		return g_strdup("the kernel of a crash dump");
	return boot == ORDINARY ? NULL :
				  g_strdup_printf("a rescue system (\"%s\" on the kernel command line)", by);
}

char *boot_is_elsewhere(struct host *h)
{
	g_autofree char *line = host_line(h, "/proc/cmdline");

	return host_exists(h, "/proc/vmcore") ? g_strdup("the kernel of a crash dump") : line_is_elsewhere(line);
}
