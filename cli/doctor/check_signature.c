// SPDX-License-Identifier: GPL-2.0-only
/*
 * Whether the kernel would accept the module's signature. A name is no key: DKMS gives
 * all of its keys one name.
 */
#include <ctype.h>
#include <glib.h>
#include <string.h>

#include "doctor/checks.h"

/*
 * What makes the kernel refuse modules without a trusted signature; to be
 * freed. NULL: nothing does.
 */
static char *enforced_by(struct doctor *d)
{
	g_autofree char *enforce = host_line(d->h, "/sys/module/module/parameters/sig_enforce");
	g_autofree char *lockdown = host_line(d->h, "/sys/kernel/security/lockdown");
	const char *secure = answer(d->answers, "secure-boot");

	if (lockdown && (strstr(lockdown, "[integrity]") || strstr(lockdown, "[confidentiality]")))
		return g_strdup(!g_strcmp0(secure, "enabled") ? "lockdown of Secure Boot" : "lockdown");
	if (enforce && (*enforce == 'Y' || *enforce == '1'))
		return g_strdup("module.sig_enforce");
	return NULL;
}

/*
 * Whether a list of keys, each a line "NAME: ID: ...", has one with this name, or with
 * this id, which has no zeros before it.
 */
static bool has_key(const char *keys, const char *name, const char *id)
{
	g_auto(GStrv) lines = text_lines(keys);
	size_t i;

	for (i = 0; lines[i]; i++) {
		/* A name can have colons. */
		char *colon = g_strrstr(lines[i], ": X509");
		char *before;

		if (!colon)
			continue;
		*colon = 0;
		before = strrchr(lines[i], ' ');
		if (!before || before == lines[i] || before[-1] != ':')
			continue;
		before[-1] = 0;
		before += 1 + strspn(before + 1, "0");
		if ((name && !strcmp(lines[i], name)) || (id && *id && !g_ascii_strcasecmp(before, id)))
			return true;
	}
	return false;
}

/* Whether a key of this name is built into the kernel. */
static bool is_built_in(const char *trusted, const char *name)
{
	g_auto(GStrv) lines = text_lines(trusted);
	size_t i;

	for (i = 0; lines[i]; i++)
		if (g_str_has_suffix(lines[i], " .builtin_trusted_keys") && has_key(lines[i], name, NULL))
			return true;
	return false;
}

/* How many keys a keyring of the system has; -1: there is no such keyring. */
static int keys_in(const char *keyrings, const char *ring)
{
	g_auto(GStrv) lines = text_lines(keyrings);
	g_autofree char *head = g_strdup_printf("%s: ", ring);
	size_t i;

	for (i = 0; lines[i]; i++)
		if (g_str_has_prefix(lines[i], head))
			return isdigit((unsigned char)lines[i][strlen(head)]) ?
			       (int)g_ascii_strtoll(lines[i] + strlen(head), NULL, 10) : 0;
	return -1;
}

/* "05:A1" as has_key() compares it: 5a1; to be freed. */
static char *plain_number(const char *number)
{
	GString *plain = g_string_new(NULL);

	for (; number && *number; number++)
		if (*number != ':' && (plain->len || *number != '0'))
			g_string_append_c(plain, g_ascii_tolower(*number));
	return g_string_free(plain, FALSE);
}

/*
 * The case for a module that is signed. id: of the key, as the kernel names it, if
 * mokutil knows it; serial: the number of the certificate.
 */
static enum finding_case judge(struct doctor *d, const char *signer, const char *serial,
			       const char **why)
{
	const char *keyrings = d->privileged ? answer(d->answers, "keyrings") : NULL;
	const char *trusted = answer(d->answers, "trusted-keys"), *mok = answer(d->answers, "mok");
	bool enrolled = mok && g_str_has_prefix(mok, "enrolled");
	const char *id = enrolled && strchr(mok, ' ') ? strchr(mok, ' ') + 1 : NULL;
	bool packages = module_owner(d->path) == OWNER_PACKAGES, named, there;

	if (!keyrings)
		return MODULE_SIGNATURE_UNKNOWN;
	named = has_key(keyrings, signer, NULL);
	there = has_key(keyrings, NULL, id) || has_key(keyrings, NULL, serial);
	*why = named && !there ? "it has another key of the same name" : "that certificate is not enrolled";
	/* Only the kernel's makers build keys into it, so that these have names of their own. */
	if (trusted ? is_built_in(trusted, signer) : named && module_owner(d->path) == OWNER_KERNEL)
		return MODULE_SIGNATURE_GOOD;
	if (trusted && (has_key(trusted, NULL, id) || has_key(trusted, NULL, serial)))
		return MODULE_SIGNATURE_GOOD;
	if (there || (enrolled && !id && named)) {
		/* It is in one of these. */
		if (!trusted && keys_in(keyrings, ".platform") <= 0)
			return MODULE_SIGNATURE_GOOD;
		return keys_in(keyrings, ".machine") < 0 ? MODULE_SIGNATURE_NO_MACHINE :
							   MODULE_SIGNATURE_PLATFORM;
	}
	if (enrolled)
		return MODULE_SIGNATURE_NOT_TRUSTED;
	if (named && !mok)
		return MODULE_SIGNATURE_SAME_NAME;
	return packages ? MODULE_SIGNATURE_NO_KEY_PACKAGES : MODULE_SIGNATURE_NO_KEY;
}

void check_signature(struct doctor *d)
{
	g_autofree char *signer = field_value(d->module, "signer"), *by = enforced_by(d);
	g_autofree char *number = field_value(d->module, "sig_key"), *serial = plain_number(number);
	g_autofree char *key = dkms_certificate(d->h), *trusts = NULL;
	const char *why = NULL;
	enum finding_case which;

	if (!by) {
		report(d, MODULE_SIGNATURE_GOOD, NULL, "trusts", "does not enforce signatures", NULL);
		return;
	}
	trusts = g_strdup_printf("trusts the key of the module's signer, %s", signer);
	which = signer ? judge(d, signer, serial, &why) :
		module_owner(d->path) == OWNER_PACKAGES ? MODULE_SIGNATURE_NONE_PACKAGES :
		MODULE_SIGNATURE_NONE;
	report(d, which, NULL,
	       "by", by, "key", key, "signer", signer, "why", why, "trusts", trusts,
	       "log", log_says(d->log, LOG_KEY) ? "; it has rejected a module since it booted" : NULL, NULL);
}
