// SPDX-License-Identifier: GPL-2.0-only
/*
 * Questions to firmware: ACPI's tables, and keys.
 */
#include <ctype.h>
#include <errno.h>
#include <glib.h>
#include <linux/keyctl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "facts/answers.h"
#include "facts/ask.h"
#include "facts/egm.h"

#define ACPI_TABLES "/sys/firmware/acpi/tables"

/*
 * Reads a constant of AML at a place: 0, 1, or a byte, word, dword or qword after
 * its prefix. Whether it is one.
 */
static bool aml_integer(const char *at, const char *end, uint64_t *value)
{
	static const char prefixes[] = { 0x0a, 0x0b, 0x0c, 0x0e };
	size_t i, n;

	*value = 0;
	if (at < end && (*at == 0 || *at == 1)) {
		*value = (unsigned char)*at;
		return true;
	}
	for (i = 0; at < end && i < sizeof(prefixes); i++) {
		if (*at != prefixes[i] || end - at <= 1 << i)
			continue;
		for (n = 0; n < (size_t)1 << i; n++)
			*value |= (uint64_t)(unsigned char)at[1 + n] << (8 * n);
		return true;
	}
	return false;
}

/* Properties of NVIDIA's, of which the last three have a number that matters. */
static const char *const properties[] = {
	"nvidia,gpu-mem-base-pa", "nvidia,gpu-mem-size", EGM_BASE, EGM_SIZE, EGM_PXM,
};

enum { NUMBERS_FROM = 2 };

/*
 * Appends each property that a table has, " NAME" or " NAME=NUMBER", as often as it
 * has it, because a table can be of several sockets.
 */
static void append_properties(GString *t, const char *data, size_t len)
{
	const char *at, *end = data + len;
	uint64_t value;
	size_t n;

	for (n = 0; n < G_N_ELEMENTS(properties); n++) {
		size_t room = strlen(properties[n]) + (n >= NUMBERS_FROM);

		/* With the NUL of the string if a number follows. */
		for (at = data; (at = memmem(at, end - at, properties[n], room)); ) {
			at += room;
			if (n < NUMBERS_FROM) {
				g_string_append_printf(t, " %s", properties[n]);
				break;
			}
			if (aml_integer(at, end, &value))
				g_string_append_printf(t, " %s=%llu", properties[n],
						       (unsigned long long)value);
		}
	}
}

/* Where a table has the six letters of who made it. */
enum { OEM_AT = 10, OEM_LENGTH = 6 };

/*
 * Lines "SSDT5: name name=number" for the tables that have properties, and "oem: NAME"
 * for who made the DSDT.
 */
char *ask_acpi_tables(struct answers *a)
{
	g_auto(GStrv) tables = host_list(a->h, ACPI_TABLES);
	g_autoptr(GString) t = g_string_new(NULL);
	size_t i, len;

	if (!tables)
		return NULL;
	for (i = 0; tables[i]; i++) {
		g_autoptr(GString) line = g_string_new(NULL);
		g_autofree char *data = NULL;

		if (strncmp(tables[i], "DSDT", 4) && strncmp(tables[i], "SSDT", 4))
			continue;
		data = host_read(a->h, &len, ACPI_TABLES "/%s", tables[i]);
		/* In a record, what could not be read is empty. */
		if (data ? !len : errno == EACCES || errno == EPERM)
			return g_strdup("denied: only root can read them\n");
		if (!data)
			continue;
		append_properties(line, data, len);
		if (line->len)
			g_string_append_printf(t, "%s:%s\n", tables[i], line->str);
		if (!strcmp(tables[i], "DSDT") && len > OEM_AT + OEM_LENGTH)
			g_string_append_printf(t, "oem: %.*s\n", OEM_LENGTH, data + OEM_AT);
	}
	return g_string_free(g_steal_pointer(&t), FALSE);
}

/* The keyrings whose keys the kernel trusts for modules, and one that some kernels do. */
static const char *const trusted_rings[] = {
	".builtin_trusted_keys", ".secondary_trusted_keys", ".machine", ".platform",
};

/*
 * "NUMBER KEYRING" for each key in one of these, as /proc/keys numbers them, which does
 * not say in which keyring they are. NULL: only root can read them; every kernel has a
 * key of its own.
 */
char *ask_trusted_keys(struct answers *a)
{
	g_autofree char *text = host_read(a->h, NULL, "/proc/keys");
	g_auto(GStrv) lines = text_lines(text);
	GString *t = g_string_new(NULL);
	size_t i, k;
	long n;

	for (i = 0; lines[i]; i++)
		for (k = 0; k < G_N_ELEMENTS(trusted_rings); k++) {
			g_autofree char *ring = g_strdup_printf(" keyring   %s:", trusted_rings[k]);
			int32_t keys[256];

			if (!strstr(lines[i], ring))
				continue;
			n = syscall(SYS_keyctl, KEYCTL_READ, (int32_t)strtoul(lines[i], NULL, 16), keys, sizeof(keys));
			n = MIN(n, (long)sizeof(keys)) / (long)sizeof(keys[0]);
			while (n > 0)
				g_string_append_printf(t, "%08x %s\n", (uint32_t)keys[--n], trusted_rings[k]);
		}
	return g_string_free(t, !t->len);
}

char *plain_number(const char *text)
{
	GString *digits = g_string_new(NULL);

	for (; text && (isxdigit((unsigned char)*text) || *text == ':'); text++)
		if (*text != ':' && (digits->len || *text != '0'))
			g_string_append_c(digits, g_ascii_tolower(*text));
	return g_string_free(digits, FALSE);
}

/*
 * The digits after a heading in openssl's text: in the next line, or, of a short
 * number, in this one as "1 (0x1)"; to be freed.
 */
static char *after(const char *text, const char *heading)
{
	const char *at = strstr(text, heading), *hex, *end;

	if (!at)
		return g_strdup("");
	at += strlen(heading);
	end = strchr(at, '\n');
	hex = strstr(at, "(0x");
	if (end && hex && hex < end)
		return plain_number(hex + strlen("(0x"));
	return plain_number(at + strspn(at, " \n"));
}

/*
 * "NUMBER ID" for each certificate of the machine owner, by mokutil(1): its plain number,
 * and by what the kernel names its key; or "none".
 */
char *ask_mok(struct answers *a)
{
	static char *const list[] = { (char *)"mokutil", (char *)"--list-enrolled", NULL };
	g_autofree char *said = program_output(PROGRAM_MS, "/usr/bin/mokutil", list);
	g_auto(GStrv) keys = g_strsplit(said ?: "", "[key ", -1);
	GString *t = g_string_new(NULL);
	size_t i;

	for (i = 0; keys[i]; i++) {
		g_autofree char *serial = after(keys[i], "Serial Number:");
		g_autofree char *id = after(keys[i], "X509v3 Subject Key Identifier:");

		if (*serial)
			g_string_append_printf(t, "%s %s\n", serial, id);
	}
	if (said && !t->len)
		g_string_append(t, "none");
	return g_string_free(t, !said);
}
