// SPDX-License-Identifier: GPL-2.0-only
/*
 * Whether the kernel would accept the module's signature. A name is no key: DKMS gives
 * all of its keys one name.
 */
#include <glib.h>
#include <string.h>

#include "doctor/checks.h"
#include "facts/elsewhere.h"

const char *enforced_by(struct doctor *d, bool *known)
{
	g_autofree char *enforce = host_line(d->h, "/sys/module/module/parameters/sig_enforce");
	g_autofree char *lockdown = host_line(d->h, "/sys/kernel/security/lockdown");

	*known = lockdown || (d->config && kernel_option(d, "SECURITY_LOCKDOWN_LSM") == 'n');
	if (lockdown && (strstr(lockdown, "[integrity]") || strstr(lockdown, "[confidentiality]")))
		return "lockdown";
	return enforce && (*enforce == 'Y' || *enforce == '1') ? "module.sig_enforce" : NULL;
}

const char *enforced_next(struct doctor *d)
{
	g_autofree char *lockdown = boot_parameter(d->boots.line, "lockdown");
	g_autofree char *enforce = boot_parameter(d->boots.line, "module.sig_enforce");
	g_auto(GStrv) words = boot_words(d->boots.line);

	if (!g_strcmp0(lockdown, "integrity") || !g_strcmp0(lockdown, "confidentiality"))
		return "lockdown= on the kernel command line of the next boot";
	return g_strv_contains((const char *const *)words, "module.sig_enforce") || (enforce && strchr("1yYtT", *enforce)) ?
	       "module.sig_enforce on the kernel command line of the next boot" : NULL;
}

#define ASYMMETRIC " asymmetri "	/* in /proc/keys, before a key's name */

/* The kernel's keys. */
struct keys {
	char *all;		/* /proc/keys */
	const char *trusted;	/* the answer "trusted-keys"; NULL: not known */
};

#define PLATFORM ".platform"

/*
 * Whether the key of a line may count for modules; of any keyring but .platform, or of
 * this one.
 */
static bool may_count(const struct keys *keys, const char *line, const char *ring)
{
	g_autofree char *number = g_strdup_printf("%.8s %s", line, ring ?: "");
	g_autofree char *platform = g_strdup_printf("%.8s " PLATFORM, line);

	return !keys->trusted || (strstr(keys->trusted, number) && (ring || !strstr(keys->trusted, platform)));
}

/*
 * Whether there is a key with this name, or with this id, which has no zeros before it,
 * that may count for modules; of any keyring, or of this one. NULL: none is meant.
 */
static bool has_key(const struct keys *keys, const char *name, const char *id, const char *ring)
{
	g_auto(GStrv) lines = text_lines(keys->all);
	size_t i;

	for (i = 0; lines[i]; i++) {
		char *key = strstr(lines[i], ASYMMETRIC), *end, *own;

		/* A name can have colons: "NAME: ID: X509.rsa ...". */
		end = key ? g_strrstr(key, ": X509") : NULL;
		if (!end || !may_count(keys, lines[i], ring))
			continue;
		*end = 0;
		key += strlen(ASYMMETRIC);
		own = strrchr(key, ' ');
		if (!own || own == key || own[-1] != ':')
			continue;
		own[-1] = 0;
		own += 1 + strspn(own + 1, "0");
		if ((name && !strcmp(key, name)) || (id && *id && !g_ascii_strcasecmp(own, id)))
			return true;
	}
	return false;
}

/*
 * By what the kernel names the key of the certificate with this number, if mokutil lists
 * it among the machine owner's; "": it is there, and that is not known; NULL: it is not.
 * To be freed.
 */
static char *enrolled_id(const char *mok, const char *serial)
{
	g_auto(GStrv) lines = text_lines(mok);
	size_t i;

	for (i = 0; lines[i]; i++) {
		char *space = lines[i] + strcspn(lines[i], " ");

		/* 0.3.0 and older records have "enrolled ID", of the module's certificate. */
		if (g_str_has_prefix(lines[i], "enrolled") ||
		    (*serial && !strncmp(lines[i], serial, strlen(serial)) && space == lines[i] + strlen(serial)))
			return g_strdup(*space ? space + 1 : "");
	}
	return NULL;
}

enum finding_case signature_case(struct doctor *d, enum owner owner, const char *signer, const char *serial)
{
	g_autofree char *all = host_read(d->h, NULL, "/proc/keys");
	const struct keys keys = { all, answer(d->answers, "trusted-keys") };
	const char *mok = answer(d->answers, "mok");
	g_autofree char *id = enrolled_id(mok, serial);
	bool numbered, named;

	numbered = has_key(&keys, NULL, id, NULL) || has_key(&keys, NULL, serial, NULL);
	/* A name is no key, but if no key has it, this one is not there. */
	named = (!mok || (id && !*id) || owner == OWNER_KERNEL) && has_key(&keys, signer, NULL, NULL);
	/* Only the kernel's makers build keys into it, so that these have names of their own. */
	if (keys.trusted && (numbered || has_key(&keys, signer, NULL, ".builtin_trusted_keys")))
		return MODULE_SIGNATURE_GOOD;
	if (keys.trusted && !log_says(d->log, LOG_KEY) &&
	    (has_key(&keys, NULL, id, PLATFORM) || has_key(&keys, NULL, serial, PLATFORM)))
		return MODULE_SIGNATURE_PLATFORM;
	if (numbered || named || !keys.all || !d->privileged)
		return MODULE_SIGNATURE_UNKNOWN;
	return id ? MODULE_SIGNATURE_NOT_TRUSTED :
	       owner == OWNER_PACKAGES ? MODULE_SIGNATURE_NO_KEY_PACKAGES : MODULE_SIGNATURE_NO_KEY;
}

void check_signature(struct doctor *d)
{
	g_autofree char *signer = field_value(d->module, "signer");
	g_autofree char *number = field_value(d->module, "sig_key"), *serial = plain_number(number);
	g_autofree char *key = dkms_certificate(d->h), *trusts = NULL;
	enum finding_case which;
	bool known;
	const char *by = enforced_by(d, &known);

	if (!by) {
		report(d, known ? MODULE_SIGNATURE_GOOD : MODULE_SIGNATURE_UNASKED, NULL,
		       "trusts", "does not enforce signatures", NULL);
		return;
	}
	trusts = g_strdup_printf("trusts the key of the module's signer, %s", signer);
	which = signer ? signature_case(d, module_owner(d->path), signer, serial) :
		module_owner(d->path) == OWNER_PACKAGES ? MODULE_SIGNATURE_NONE_PACKAGES :
		MODULE_SIGNATURE_NONE;
	report(d, which, NULL,
	       "by", by, "key", key, "signer", signer, "trusts", trusts,
	       "log", log_says(d->log, LOG_KEY) ? "; it has rejected a module since it booted" : NULL, NULL);
}
