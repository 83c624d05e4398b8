// SPDX-License-Identifier: GPL-2.0-only
/*
 * The module: which copy modprobe would load, whether that is the one that is loaded, and whether
 * the kernel would accept it. Called by doctor.c.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "doctor.h"
#include "initramfs.h"

#define DKMS_TREE "/var/lib/dkms/" MODULE_NAME
#define SYS_MODULE "/sys/module/" DRIVER_NAME

/* ---- headers -------------------------------------------------------------------------------- */

/* The value of "KEY=value" or "KEY=\"value\"" in os-release(5); "" if there is none. To be freed. */
static char *os_release(struct doctor *d, const char *key)
{
	char *text = host_read(d->h, NULL, "/etc/os-release"), *line, *value = NULL;
	const char *rest;
	size_t len = strlen(key);

	if (!text)
		text = host_read(d->h, NULL, "/usr/lib/os-release");
	rest = text;
	while (!value && (line = next_line(&rest))) {
		if (!strncmp(line, key, len) && line[len] == '=') {
			char *start = line + len + 1, *end;

			start += strspn(start, "\"'");
			end = start + strcspn(start, "\"'");
			value = xasprintf("%.*s", (int)(end - start), start);
		}
		free(line);
	}
	free(text);
	return value ? value : xstrdup("");
}

/*
 * What installs the running kernel's headers, as its distribution calls them: a command in quotes,
 * or words; to be freed. The name of a flavour is a part of the release's: 6.8.0-1021-nvidia-64k,
 * 5.14.0-570.el9.aarch64+64k, 6.4.0-150600.23-64kb.
 */
static char *headers_command(struct doctor *d)
{
	char *id = os_release(d, "ID"), *like = os_release(d, "ID_LIKE");
	char *ids = xasprintf("%s %s", id, like), *command, *flavour, *c;
	const char *release = d->release ? d->release : "";

	if (has_word(ids, "debian") || has_word(ids, "ubuntu")) {
		command = xasprintf("\"apt install linux-headers-%s\"", release);
	} else if (has_word(ids, "rhel") || has_word(ids, "fedora") || has_word(ids, "centos")) {
		flavour = strchr(release, '+');
		if (flavour) {
			char *name = xstrdup(flavour + 1);

			command = xasprintf("\"dnf install kernel-%s-devel-%.*s\"", name,
					    (int)(flavour - release), release);
			free(name);
		} else if (strstr(release, "uek")) {
			command = xasprintf("\"dnf install kernel-uek-devel-%s\"", release);
		} else {
			command = xasprintf("\"dnf install kernel-devel-%s\"", release);
		}
	} else if (has_word(ids, "suse") || has_word(ids, "sles") || has_word(ids, "opensuse")) {
		flavour = strrchr(release, '-');
		command = xasprintf("\"zypper install kernel-%s-devel\"",
				    flavour ? flavour + 1 : "default");
	} else {
		command = xasprintf("install the headers of Linux %s", release);
	}
	/* Its parts are from a file, and a person will type it. */
	for (c = command; *c; c++)
		if (!strchr("-+.=_~ \"", *c) && !isalnum((unsigned char)*c))
			*c = '?';
	free(id);
	free(like);
	free(ids);
	return command;
}

/* path: of the module that modprobe would load, NULL: none. */
static void check_headers(struct doctor *d, const char *path)
{
	char **trees = host_list(d->h, DKMS_TREE), *command;
	bool dkms = trees && trees[0], built = path && !strstr(path, "/kernel/");
	struct finding *f;

	host_free_list(trees);
	/* DKMS does not build for these kernels. */
	if (!dkms || !d->arm || !d->release || kernel_option(d, "NVGRACE_EGM") != 'n' ||
	    !host_exists(d->h, "/lib/modules/%s", d->release))
		return;
	if (host_exists(d->h, "/lib/modules/%s/build/Makefile", d->release)) {
		finding(d, "headers", GOOD, NULL, "the headers of Linux %s are there", d->release);
		return;
	}
	command = headers_command(d);
	f = finding(d, "headers", built ? NOTE : WARNING, NULL,
		    "the headers of Linux %s are missing", d->release);
	because(f, "there is no /lib/modules/%s/build/Makefile: DKMS can't build %s", d->release,
		built ? "a later version of the module for this kernel" :
			"the module for this kernel");
	remedy(f, "%s, then \"dkms autoinstall -k %s\"", command, d->release);
	free(command);
}

/* ---- the copy on disk ----------------------------------------------------------------------- */

/* No copy for this kernel: why not, as far as DKMS knows. */
static void no_module(struct doctor *d)
{
	struct finding *f = finding(d, "module", BAD, NULL, "no " MODULE_NAME " for this kernel");
	char **trees = host_list(d->h, DKMS_TREE), *command;

	if (trees && trees[0]) {
		because(f, "DKMS has its source (" DKMS_TREE "), but has not built it for %s",
			d->release);
		command = headers_command(d);
		remedy(f,
		       "%s, then \"dkms autoinstall -k %s\"; what fails is in " DKMS_TREE "/*/build/make.log",
		       command, d->release);
		free(command);
	} else {
		because(f, "neither DKMS nor the kernel has one");
		remedy(f,
		       "\"apt install " MODULE_NAME "-dkms\" or \"dnf install " MODULE_NAME "-dkms\"");
	}
	host_free_list(trees);
}

/* Returns the path of a copy that could be loaded, or NULL. */
static char *check_copy(struct doctor *d, const char *module)
{
	char *path = answer_value(module, "path"), *install = answer_value(module, "install");
	char *version = answer_value(module, "version"), *magic = answer_value(module, "vermagic");
	struct finding *f;
	bool usable = false;
	char *command;

	if (magic)
		magic[strcspn(magic, " ")] = 0;
	if (!path || !strcmp(path, "none")) {
		no_module(d);
	} else if (install) {
		f = finding(d, "module", BAD, NULL, "modprobe won't load the module");
		because(f, "a file of /etc/modprobe.d says \"install %s %s\"", DRIVER_NAME,
			install);
		remedy(f,
		       "find it with \"grep -r 'install.*nvgrace' /etc/modprobe.d\" and remove the line");
	} else if (!strcmp(path, "builtin")) {
		/* "in-tree-driver" has the remedy. */
		finding(d, "module", GOOD, NULL, "the driver is built into the kernel");
	} else if (magic && d->release && strcmp(magic, d->release)) {
		f = finding(d, "module", BAD, NULL,
			    "modprobe would load a module of another kernel");
		because(f, "%s was built for %s, this is %s", path, magic, d->release);
		remedy(f,
		       "\"dkms uninstall " MODULE_NAME "/%s -k %s\", then \"dkms autoinstall -k %s\"",
		       version ? version : "VERSION", d->release, d->release);
	} else if (!strstr(path, "/kernel/")) {
		usable = true;
		finding(d, "module", GOOD, NULL, "modprobe would load %s%s%s", path,
			version ? ", version " : "", version ? version : "");
	} else {
		usable = true;
		f = finding(d, "module", WARNING, NULL, "modprobe would load %s", path);
		because(f, "it is the kernel's own copy, not the one that DKMS builds%s",
			kernel_option(d, "NVGRACE_EGM") != 'n' ?
			"; DKMS leaves kernels with CONFIG_NVGRACE_EGM alone" :
			"");
		command = headers_command(d);
		remedy(f,
		       "if it must be DKMS's: install " MODULE_NAME "-dkms, %s, then \"dkms status\"",
		       command);
		free(command);
	}
	if (!usable) {
		free(path);
		path = NULL;
	}
	free(install);
	free(version);
	free(magic);
	return path;
}

/* Which driver of our name has no file "features". To be freed. */
static char *other_driver(struct doctor *d)
{
	char *taint = host_line(d->h, SYS_MODULE "/taint");
	char *version = host_line(d->h, SYS_MODULE "/version");
	char *id = host_line(d->h, SYS_MODULE "/srcversion"), *text;

	/* The kernel marks what was built outside of its own tree. */
	text = xasprintf("%s%s%s%s%s",
			 !taint ? "another driver of this name" :
			 strchr(taint, 'O') ? "another driver of this name, built outside of the kernel's tree" :
			 "the kernel's own driver of this name",
			 version && *version ? ", version " : "", version ? version : "",
			 id && *id ? ", srcversion " : "", id ? id : "");
	free(taint);
	free(version);
	free(id);
	return text;
}

static void check_loaded(struct doctor *d, const char *module, const char *path)
{
	char *loaded = host_line(d->h, SYS_MODULE "/srcversion");
	char *on_disk = answer_value(module, "srcversion"), *other;
	bool ours = path && !strstr(path, "/kernel/");
	struct finding *f;

	if (!d->features) {
		other = other_driver(d);
		f = finding(d, "module-loaded", WARNING, NULL, "loaded is %s", other);
		because(f,
			"it has no file \"features\", so it isn't this project's%s%s: what it can do is not known here",
			ours ? "; it was loaded before " : "", ours ? path : "");
		free(other);
	} else if (path && loaded && on_disk && strcmp(loaded, on_disk)) {
		f = finding(d, "module-loaded", WARNING, NULL,
			    "the loaded module is not the one that modprobe would load");
		because(f, "its srcversion is %s, that of %s is %s: it was updated since", loaded,
			path, on_disk);
	} else {
		finding(d, "module-loaded", GOOD, NULL, "loaded; can: %s", d->features);
		f = NULL;
	}
	if (f && (ours || d->features))
		remedy(f,
		       "when no guest has a GPU: \"" PROGRAM " unbind --all\", \"modprobe -r " DRIVER_NAME "\", \"" PROGRAM " bind ADDRESS...\"; or reboot, with an initramfs that has the module (see the finding initramfs)");
	else if (f)
		remedy(f, "see the finding module");
	free(loaded);
	free(on_disk);
}

/* What makes the kernel refuse modules without a signature that it trusts; NULL if nothing does. */
static char *enforced_by(struct doctor *d)
{
	char *enforce = host_line(d->h, "/sys/module/module/parameters/sig_enforce");
	char *lockdown = host_line(d->h, "/sys/kernel/security/lockdown"), *by = NULL;
	const char *secure = answer(d, "secure-boot");

	if (lockdown && (strstr(lockdown, "[integrity]") || strstr(lockdown, "[confidentiality]")))
		by = xasprintf(
			"lockdown%s",
			secure && !strcmp(secure, "enabled") ? ", by Secure Boot" : "");
	else if (enforce && (*enforce == 'Y' || *enforce == '1'))
		by = xstrdup("module.sig_enforce");
	free(enforce);
	free(lockdown);
	return by;
}

/* Whether the kernel has a key whose certificate is for this name. */
static bool has_key(const char *keyrings, const char *signer)
{
	size_t len = strlen(signer);
	const char *at = keyrings;

	for (; (at = strstr(at, signer)); at++)
		if ((at == keyrings || at[-1] == '\n' || at[-1] == ' ') && at[len] == ':')
			return true;
	return false;
}

static void enroll(struct finding *f)
{
	remedy(f,
	       "\"mokutil --import /var/lib/dkms/mok.pub\" (on Ubuntu /var/lib/shim-signed/mok/MOK.der), reboot, and choose \"Enroll MOK\" on the console");
}

static void check_signature(struct doctor *d, const char *module)
{
	char *signer = answer_value(module, "signer"), *by = enforced_by(d);
	const char *keyrings, *mok = answer(d, "mok");
	struct finding *f;

	if (d->loaded && d->features) {
		finding(d, "module-signature", GOOD, NULL, "the kernel has accepted the module");
	} else if (!by) {
		finding(d, "module-signature", GOOD, NULL,
			"the kernel takes modules of any signer and unsigned ones");
	} else if (!signer) {
		f = finding(d, "module-signature", BAD, NULL,
			    "the module is not signed, and the kernel takes signed ones only");
		because(f,
			"enforced by %s: modprobe would say \"Key was rejected by service\" or \"Operation not permitted\"",
			by);
		remedy(f,
		       "let DKMS sign it: \"dkms build --force " MODULE_NAME "/VERSION\" with mok_signing_key of /etc/dkms/framework.conf; then \"mokutil --import /var/lib/dkms/mok.pub\", reboot, and enroll it");
	} else {
		keyrings = d->privileged ? answer(d, "keyrings") : NULL;
		if (keyrings && has_key(keyrings, signer)) {
			finding(d, "module-signature", GOOD, NULL,
				"the kernel trusts the module's signer, %s", signer);
		} else if (!keyrings) {
			f = finding(d, "module-signature", UNKNOWN, NULL,
				    "not known whether the kernel trusts the module's signer, %s",
				    signer);
			because(f,
				"only root sees the kernel's keys, and signatures are enforced by %s",
				by);
			remedy(f, "run as root");
		} else if (mok && !strcmp(mok, "enrolled")) {
			f = finding(d, "module-signature", BAD, NULL,
				    "the module's signer, %s, is enrolled but not trusted for modules",
				    signer);
			because(f,
				"the certificate is in MokListRT, but in none of the kernel's keyrings; signatures are enforced by %s",
				by);
			remedy(f,
			       "reboot; if that does not help, the kernel lacks CONFIG_INTEGRITY_MACHINE_KEYRING or was told not to trust it: \"mokutil --trust-mok\", reboot, confirm");
		} else {
			f = finding(d, "module-signature", BAD, NULL,
				    "the kernel does not know the module's signer, %s", signer);
			because(f,
				"modprobe would say \"Key was rejected by service\"; signatures are enforced by %s",
				by);
			enroll(f);
		}
	}
	free(signer);
	free(by);
}

/* libvirt from 10.0 on and KubeVirt's helpers ask modules.alias for the driver of a device. */
static void check_alias(struct doctor *d, const char *module)
{
	char *alias = answer_value(module, "alias");
	struct finding *f;

	if (!alias || strcmp(alias, "no")) {
		finding(d, "module-alias", GOOD, NULL,
			"modules.alias leads from these GPUs to the module");
	} else {
		f = finding(d, "module-alias", WARNING, NULL,
			    "modules.alias does not lead from these GPUs to the module");
		because(f,
			"libvirt with managed='yes', and others that look for a variant driver there, take vfio-pci, which gives a guest no memory");
		remedy(f, "run \"depmod -a\"; if it stays so, reinstall " MODULE_NAME "-dkms");
	}
	free(alias);
}

/* ---- scrubbing ------------------------------------------------------------------------------ */

#define SCRUB_PARAMETER SYS_MODULE "/parameters/scrub"
#define SCRUB_LINE "echo 'options " DRIVER_NAME " scrub=1' > /etc/modprobe.d/nvgrace-gpu.conf"

/* What the kernel takes for a module parameter that is on (kstrtobool()). Without a value it is. */
static bool is_on(const char *value)
{
	static const char *const words[] = { "y", "t", "1", "on" };
	size_t i;

	/* It looks at no more than these letters. */
	for (i = 0; value && i < ARRAY_SIZE(words); i++)
		if (!strncasecmp(value, words[i], strlen(words[i])))
			return true;
	return !value;
}

/* Whether the options that modprobe passes switch it on: 1, 0, or -1, where they aren't known. */
static int scrub_at_boot(const char *module)
{
	char *options = answer_value(module, "options"), *word, *rest = NULL, *value;
	int on = options ? 0 : -1;

	for (word = options ? strtok_r(options, " \t", &rest) : NULL; word;
	     word = strtok_r(NULL, " \t", &rest)) {
		value = strchr(word, '=');
		if (value)
			*value++ = 0;
		/* Of several, the kernel lets the last one stand. */
		if (!strcmp(word, "scrub"))
			on = is_on(value);
	}
	free(options);
	return on;
}

/*
 * The command that renews the initramfs, in quotes and behind these words, since the module may be
 * loaded there; "" if there is none to renew. To be freed.
 */
static char *renewal(struct doctor *d, const char *words)
{
	const char *const *command = initramfs_command(d->h);
	char *text, *longer;

	if (!command)
		return xstrdup("");
	text = xasprintf("%s\"", words);
	for (; *command; command++) {
		longer = xasprintf("%s%s%s", text, *command, command[1] ? " " : "\"");
		free(text);
		text = longer;
	}
	return text;
}

static void check_scrubbing(struct doctor *d, const char *module)
{
	char *parameter = host_line(d->h, SCRUB_PARAMETER), *renew = renewal(d, ", then ");
	char *again = renewal(d, ": renew it by ");
	int boot = scrub_at_boot(module);
	struct finding *f;

	if (!parameter) {
		f = finding(d, "scrubbing", NOTE, NULL, "GPU memory is not cleared between guests");
		because(f, "the loaded module can't: it has no parameter scrub");
		remedy(f,
		       "have a driver clear it before another owner's guest gets it; or load a later module, see the finding module-loaded");
	} else if (*parameter == 'Y' && boot) {
		finding(d, "scrubbing", GOOD, NULL, "GPU memory is cleared between guests%s",
			boot > 0 ? ", and will be after the next boot" : "");
	} else if (*parameter == 'Y') {
		f = finding(d, "scrubbing", WARNING, NULL,
			    "GPU memory is cleared between guests, but not after the next boot");
		because(f, "the parameter scrub is on, but no line of modprobe.d keeps it so");
		remedy(f, SCRUB_LINE "%s", renew);
	} else if (boot > 0) {
		f = finding(d, "scrubbing", WARNING, NULL,
			    "GPU memory is not cleared between guests, though it is configured");
		because(f,
			"modprobe.d or the kernel's command line says scrub=1, but the loaded module's parameter is off");
		remedy(f,
		       "echo 1 > " SCRUB_PARAMETER "; if it is off after the next boot, the module was loaded by an initramfs with another configuration%s",
		       again);
	} else {
		f = finding(d, "scrubbing", NOTE, NULL, "GPU memory is not cleared between guests");
		because(f,
			"the parameter scrub is off: the next guest can read what the last one has left");
		remedy(f,
		       SCRUB_LINE "%s, and now echo 1 > " SCRUB_PARAMETER "; or \"" PROGRAM " scrub ADDRESS\" before each guest",
		       renew);
	}
	free(parameter);
	free(renew);
	free(again);
}

void check_module(struct doctor *d)
{
	const char *module = answer(d, "module");
	struct finding *f;
	char *path = NULL;

	if (!module) {
		f = finding(d, "module", UNKNOWN, NULL,
			    "not known which module modprobe would load");
		because(f, "there is no index of modules for Linux %s",
			d->release ? d->release : "");
		remedy(f, "run \"depmod -a\"");
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
	free(path);
}
