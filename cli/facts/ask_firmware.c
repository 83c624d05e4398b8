// SPDX-License-Identifier: GPL-2.0-only
/*
 * Questions to firmware: ACPI's tables, secure boot, and keys.
 */
#include <ctype.h>
#include <errno.h>
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "facts/answers.h"
#include "facts/ask.h"

#define ACPI_TABLES "/sys/firmware/acpi/tables"
#define EFI_VARIABLES "/sys/firmware/efi/efivars"
#define MOK_VARIABLES "/sys/firmware/efi/mok-variables"

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

#define EGM_SIZE "nvidia,egm-size"

/* The largest extended GPU memory that the table states; false: it states none. */
static bool find_egm(const char *data, size_t len, uint64_t *size)
{
	const char *at = data, *end = data + len;
	uint64_t value;
	bool found = false;

	*size = 0;
	/* With the NUL of the string. */
	while ((at = memmem(at, end - at, EGM_SIZE, sizeof(EGM_SIZE)))) {
		at += sizeof(EGM_SIZE);
		if (!aml_integer(at, end, &value))
			continue;
		found = true;
		if (value > *size)
			*size = value;
	}
	return found;
}

/*
 * Lines "SSDT5: name name" for the tables that have the properties, and
 * "nvidia,egm-size=BYTES" for the extended GPU memory.
 */
char *ask_acpi_tables(struct answers *a)
{
	static const char *const names[] = { "nvidia,gpu-mem-base-pa", "nvidia,gpu-mem-size" };
	g_auto(GStrv) tables = host_list(a->h, ACPI_TABLES);
	g_autoptr(GString) t = g_string_new(NULL);
	size_t i, n, len;
	uint64_t egm;
	bool named;

	if (!tables)
		return NULL;
	for (i = 0; tables[i]; i++) {
		g_autofree char *data = NULL;

		if (strncmp(tables[i], "DSDT", 4) && strncmp(tables[i], "SSDT", 4))
			continue;
		data = host_read(a->h, &len, ACPI_TABLES "/%s", tables[i]);
		if (!data && (errno == EACCES || errno == EPERM))
			return g_strdup("denied: only root can read them\n");
		if (!data)
			continue;
		named = false;
		for (n = 0; n < G_N_ELEMENTS(names); n++) {
			if (!memmem(data, len, names[n], strlen(names[n])))
				continue;
			if (named)
				g_string_append_printf(t, " %s", names[n]);
			else
				g_string_append_printf(t, "%s: %s", tables[i], names[n]);
			named = true;
		}
		if (named && find_egm(data, len, &egm))
			g_string_append_printf(t, " " EGM_SIZE "=%llu", (unsigned long long)egm);
		if (named)
			g_string_append(t, "\n");
	}
	return g_string_free(g_steal_pointer(&t), FALSE);
}

char *ask_secure_boot(struct answers *a)
{
	size_t len;
	g_autofree char *data = host_read(a->h, &len, EFI_VARIABLES
					  "/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c");

	/* The value follows four bytes of attributes. */
	if (!data || len < 5)
		return NULL;
	return g_strdup(data[4] ? "enabled" : "disabled");
}

char *ask_keyrings(struct answers *a)
{
	g_autofree char *keys = host_read(a->h, NULL, "/proc/keys");
	g_auto(GStrv) lines = NULL;
	const char *description;
	GString *t;
	size_t i;

	if (!keys)
		return NULL;
	t = g_string_new(NULL);
	lines = g_strsplit(keys, "\n", -1);
	for (i = 0; lines[i]; i++) {
		description = strstr(lines[i], " asymmetri ");
		if (description)
			g_string_append_printf(t, "%s\n", description + strlen(" asymmetri "));
		/* How many keys the system's keyrings have: ".machine: 1". */
		description = strstr(lines[i], " keyring   .");
		if (description)
			g_string_append_printf(t, "%s\n", description + strlen(" keyring   "));
	}
	return g_string_free(t, FALSE);
}

/* Parses "AA:BB:..."; returns the number of bytes, 0 if malformed. */
static size_t parse_serial(const char *hex, unsigned char *bytes, size_t room)
{
	size_t n = 0;
	unsigned int byte;

	while (n < room && sscanf(hex, "%2x", &byte) == 1 && isxdigit((unsigned char)hex[1])) {
		bytes[n++] = byte;
		hex += 2;
		if (!*hex)
			return n;
		if (*hex++ != ':')
			return 0;
	}
	return 0;
}

/*
 * Whether the certificate that signed the module is enrolled as a machine
 * owner's key: "enrolled" or "missing". The signature has the certificate's
 * serial number, which is a DER integer in the certificate. DKMS's keys have 20
 * random bytes, which are unique.
 */
char *ask_mok(struct answers *a)
{
	static const char *const dirs[] = { MOK_VARIABLES, EFI_VARIABLES };
	const char *module = answer(a, "module");
	g_autofree char *key = module ? field_value(module, "sig_key") : NULL;
	bool there = false, found = false;
	unsigned char serial[64], integer[sizeof(serial) + 3] = { 2 };
	size_t n, sign, i, j, len;

	n = key ? parse_serial(key, serial, sizeof(serial)) : 0;
	/* Shorter numbers could match by chance. */
	if (n < 4)
		return NULL;
	/* In DER, a first bit that is set would mean a negative number. */
	sign = serial[0] >> 7;
	integer[1] = n + sign;
	memcpy(integer + 2 + sign, serial, n);
	for (i = 0; i < G_N_ELEMENTS(dirs); i++) {
		g_auto(GStrv) names = host_list(a->h, "%s", dirs[i]);

		for (j = 0; names && names[j]; j++) {
			g_autofree char *data = NULL;

			if (strncmp(names[j], "MokListRT", 9))
				continue;
			data = host_read(a->h, &len, "%s/%s", dirs[i], names[j]);
			if (!data)
				continue;
			there = true;
			found |= !!memmem(data, len, integer, 2 + sign + n);
		}
	}
	return there ? g_strdup(found ? "enrolled" : "missing") : NULL;
}

bool answer_egm(struct answers *a, uint64_t *size)
{
	const char *at = answer(a, "acpi-tables");
	char *end;
	unsigned long long value;
	bool found = false;

	*size = 0;
	while (at && (at = strstr(at, EGM_SIZE "="))) {
		at += strlen(EGM_SIZE "=");
		value = strtoull(at, &end, 10);
		if (end == at)
			continue;
		found = true;
		if (value > *size)
			*size = value;
	}
	return found;
}
