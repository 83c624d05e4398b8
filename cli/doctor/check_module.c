// SPDX-License-Identifier: GPL-2.0-only
/*
 * The module: which copy modprobe would load, whether that copy is loaded, and
 * whether the kernel accepts it.
 */
#include <ctype.h>
#include <glib.h>
#include <stdlib.h>
#include <string.h>

#include "doctor/checks.h"
#include "system/program.h"

#define SYS_MODULE "/sys/module/" DRIVER_NAME

/* ---- the copy on disk ----------------------------------------------------------------------- */

/* Reports that this kernel has no copy, and why, as far as DKMS knows. */
static void no_module(struct doctor *d)
{
	bool dkms = has_dkms_source(d);
	/* Without DKMS, the rule's package is for packages of the built module. */
	bool packages = !dkms && host_exists(d->h, "/usr/share/" MODULE_NAME);
	struct finding *f = finding(d, dkms ? MODULE_NOT_BUILT :
				    packages ? MODULE_NO_PACKAGE : MODULE_NOT_INSTALLED, NULL,
				    "no " MODULE_NAME " for this kernel");

	if (dkms) {
		because(f, "DKMS has its source, but has not built it for %s", d->release);
		fill_headers(d, f);
		fill_dkms(d, f);
	} else if (packages) {
		because(f, "there is no package of the built module for %s, nor DKMS", d->release);
		fill(f, "RELEASE", d->release);
	} else {
		because(f, "neither DKMS nor the kernel has one");
	}
}

/* Whether the kernel refuses to load the module, whoever asks. */
static bool is_blacklisted(struct doctor *d)
{
	const char *words = answer(d->answers, "command-line");
	g_auto(GStrv) each = words ? g_strsplit_set(words, " \n", -1) : NULL;
	size_t i;

	for (i = 0; each && each[i]; i++) {
		g_auto(GStrv) names = NULL;

		if (!g_str_has_prefix(each[i], "module_blacklist="))
			continue;
		names = g_strsplit(strchr(each[i], '=') + 1, ",", -1);
		if (g_strv_contains((const char *const *)names, DRIVER_NAME))
			return true;
	}
	return false;
}

/* Returns the path of a copy that could be loaded, or NULL. */
static char *check_copy(struct doctor *d, const char *module)
{
	g_autofree char *path = field_value(module, "path"), *install = field_value(module, "install");
	g_autofree char *version = field_value(module, "version");
	g_autofree char *magic = field_value(module, "vermagic");
	struct finding *f;
	bool usable = false;

	if (magic)
		magic[strcspn(magic, " ")] = 0;
	if (!path || !strcmp(path, "none")) {
		no_module(d);
	} else if (is_blacklisted(d)) {
		f = finding(d, MODULE_BLACKLISTED, NULL, "the kernel refuses the module by its name");
		because(f, "its command line has module_blacklist= with " DRIVER_NAME);
	} else if (install) {
		f = finding(d, MODULE_MASKED, NULL, "modprobe does not load the module");
		because(f, "a file in /etc/modprobe.d has the line \"install %s %s\"", DRIVER_NAME,
			install);
	} else if (!strcmp(path, "builtin")) {
		/* The finding in-tree-driver has the remedy. */
		finding(d, MODULE_GOOD, NULL, "the driver is built into the kernel");
	} else if (magic && d->release && strcmp(magic, d->release)) {
		f = finding(d, MODULE_OF_OTHER_KERNEL, NULL,
			    "modprobe would load a module of another kernel");
		because(f, "%s was built for %s, this is %s", path, magic, d->release);
		fill(f, "VERSION", version);
		fill(f, "RELEASE", d->release);
	} else if (!strstr(path, "/kernel/") || other_driver_gives_egm(d)) {
		usable = true;
		finding(d, MODULE_GOOD, NULL, "modprobe would load %s%s%s", path,
			version ? ", version " : "", version ? version : "");
	} else {
		usable = true;
		f = finding(d, MODULE_IN_TREE, NULL, "modprobe would load %s", path);
		because(f, "it is the kernel's own copy, not the one that DKMS builds%s",
			kernel_option(d, "NVGRACE_EGM") != 'n' ?
			"; DKMS does not build for kernels with CONFIG_NVGRACE_EGM" :
			"");
		fill_headers(d, f);
	}
	return usable ? g_steal_pointer(&path) : NULL;
}

/*
 * Describes the loaded driver of this name that has no file "features"; to be
 * freed.
 */
static char *other_driver(struct doctor *d)
{
	g_autofree char *taint = host_line(d->h, SYS_MODULE "/taint");
	g_autofree char *version = host_line(d->h, SYS_MODULE "/version");
	g_autofree char *id = host_line(d->h, SYS_MODULE "/srcversion");

	/* The kernel marks modules built outside its tree with O. */
	return g_strdup_printf("%s%s%s%s%s",
			       !taint ? "another driver of this name" :
			       strchr(taint, 'O') ? "another driver of this name, built outside the kernel's tree" :
			       "the kernel's own driver of this name",
			       version && *version ? ", version " : "", version ? version : "",
			       id && *id ? ", srcversion " : "", id ? id : "");
}

static void check_loaded(struct doctor *d, const char *module, const char *path)
{
	g_autofree char *loaded = host_line(d->h, SYS_MODULE "/srcversion");
	g_autofree char *on_disk = field_value(module, "srcversion");
	g_autofree char *other = d->features ? NULL : other_driver(d);
	bool ours = path && !strstr(path, "/kernel/");
	struct finding *f;

	if (!d->features && !ours && other_driver_gives_egm(d)) {
		finding(d, MODULE_LOADED_GOOD, NULL, "the loaded driver is %s", other);
	} else if (!d->features) {
		f = finding(d, ours ? MODULE_LOADED_OUTDATED : MODULE_LOADED_OTHER, NULL,
			    "the loaded driver is %s", other);
		because(f,
			"it has no file \"features\", so it is not this project's driver%s%s, and its features are not known",
			ours ? "; it was loaded before " : "", ours ? path : "");
	} else if (path && loaded && on_disk && strcmp(loaded, on_disk)) {
		f = finding(d, MODULE_LOADED_OUTDATED, NULL,
			    "the loaded module is not the one that modprobe would load");
		because(f, "its srcversion is %s, but %s has %s: the file was updated since", loaded,
			path, on_disk);
	} else {
		finding(d, MODULE_LOADED_GOOD, NULL, "loaded, with the features: %s",
			d->features);
	}
}

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

/* Whether the kernel has a key with this name. */
static bool has_key(const char *keyrings, const char *signer)
{
	size_t len = strlen(signer);
	const char *at = keyrings;

	for (; (at = strstr(at, signer)); at++)
		if ((at == keyrings || at[-1] == '\n' || at[-1] == ' ') && at[len] == ':')
			return true;
	return false;
}

/* Whether a keyring of the system is there and has keys. */
static bool has_keys(const char *keyrings, const char *ring)
{
	g_autofree char *line = g_strdup_printf("%s: ", ring);
	const char *at = strstr(keyrings, line);

	return at && isdigit((unsigned char)at[strlen(line)]);
}

static void check_signature(struct doctor *d, const char *module)
{
	g_autofree char *signer = field_value(module, "signer"), *by = enforced_by(d);
	const char *keyrings, *mok = answer(d->answers, "mok");
	struct finding *f;

	if (d->loaded && d->features) {
		finding(d, MODULE_SIGNATURE_GOOD, NULL, "the kernel has accepted the module");
	} else if (!by) {
		finding(d, MODULE_SIGNATURE_GOOD, NULL,
			"the kernel does not enforce signatures");
	} else if (!signer) {
		f = finding(d, MODULE_SIGNATURE_NONE, NULL,
			    "the module is not signed, and the kernel enforces signatures");
		because(f,
			"%s enforces signatures: modprobe fails with \"Key was rejected by service\" or \"Operation not permitted\"",
			by);
		fill_dkms(d, f);
	} else {
		keyrings = d->privileged ? answer(d->answers, "keyrings") : NULL;
		if (keyrings && has_key(keyrings, signer) && has_keys(keyrings, ".platform") &&
		    !has_keys(keyrings, ".machine")) {
			f = finding(d, MODULE_SIGNATURE_PLATFORM, NULL,
				    "not known whether the kernel trusts the module's signer, %s",
				    signer);
			because(f,
				"it has the key, but .machine is empty, so the key may be in .platform, and %s enforces signatures",
				by);
		} else if (keyrings && has_key(keyrings, signer)) {
			finding(d, MODULE_SIGNATURE_GOOD, NULL,
				"the kernel trusts the module's signer, %s", signer);
		} else if (!keyrings) {
			f = finding(d, MODULE_SIGNATURE_UNKNOWN, NULL,
				    "not known whether the kernel trusts the module's signer, %s",
				    signer);
			because(f,
				"only root can see the kernel's keys, and %s enforces signatures",
				by);
		} else if (mok && !strcmp(mok, "enrolled")) {
			f = finding(d, MODULE_SIGNATURE_NOT_TRUSTED, NULL,
				    "the module's signer, %s, is enrolled but not trusted for modules",
				    signer);
			because(f,
				"the certificate is in MokListRT, but in none of the kernel's keyrings, and %s enforces signatures",
				by);
		} else {
			f = finding(d, MODULE_SIGNATURE_NO_KEY, NULL,
				    "the kernel does not have the key of the module's signer, %s", signer);
			because(f,
				"%s enforces signatures: modprobe fails with \"Key was rejected by service\"",
				by);
			fill_dkms(d, f);
		}
	}
}

static void check_alias(struct doctor *d, const char *module)
{
	g_autofree char *alias = field_value(module, "alias");
	struct finding *f;
	size_t i;

	for (i = 0; i < d->gpus.count; i++) {
		if (gpu_has_alias(&d->gpus.gpu[i]))
			continue;
		f = finding(d, MODULE_ALIAS_ADDED_ID, d->gpus.gpu[i].address,
			    "modules.alias has no line for 10de:%04x, an id of the configuration",
			    d->gpus.gpu[i].device);
		because(f,
			"tools that choose the driver there, such as libvirt with managed='yes', bind vfio-pci, and the guest gets a GPU without memory");
	}

	if (!alias || strcmp(alias, "no")) {
		finding(d, MODULE_ALIAS_GOOD, NULL,
			"modules.alias has the module for these GPUs");
	} else {
		f = finding(d, MODULE_ALIAS_NONE, NULL,
			    "modules.alias does not have the module for these GPUs");
		because(f,
			"libvirt with managed='yes', and other tools that read modules.alias, bind vfio-pci, and the guest gets a GPU without memory");
	}
}

void check_module(struct doctor *d)
{
	const char *module = answer(d->answers, "module");
	g_autofree char *path = NULL;
	struct finding *f;

	if (!module) {
		f = finding(d, MODULE_UNKNOWN, NULL,
			    "not known which module modprobe would load");
		because(f, "there is no module index for Linux %s",
			d->release ? d->release : "");
		module = "";
	} else {
		path = check_copy(d, module);
	}
	check_headers(d, path);
	if (d->loaded) {
		check_loaded(d, module, path);
		check_scrubbing(d, module);
	}
	if (path) {
		check_signature(d, module);
		check_alias(d, module);
	}
}
