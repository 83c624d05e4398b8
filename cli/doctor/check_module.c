// SPDX-License-Identifier: GPL-2.0-only
/*
 * The module: which copy modprobe would load, whether that copy is loaded, and
 * whether the kernel accepts it.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "doctor/checks.h"
#include "facts/initramfs.h"
#include "system/program.h"

#define DKMS_TREE "/var/lib/dkms/" MODULE_NAME
#define SYS_MODULE "/sys/module/" DRIVER_NAME

/* ---- headers -------------------------------------------------------------------------------- */

/*
 * The value of KEY=value or KEY="value" in os-release(5), "" without one; to be
 * freed.
 */
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
 * How to install the running kernel's headers: "run" and the distribution's
 * command in quotes, or only words; to be freed. The release has the flavour's
 * name: 6.8.0-1021-nvidia-64k, 5.14.0-570.el9.aarch64+64k,
 * 6.4.0-150600.23-64kb.
 */
static char *headers_command(struct doctor *d)
{
	char *id = os_release(d, "ID"), *like = os_release(d, "ID_LIKE");
	char *ids = xasprintf("%s %s", id, like), *command, *flavour, *c;
	const char *release = d->release ? d->release : "";

	if (has_word(ids, "debian") || has_word(ids, "ubuntu")) {
		command = xasprintf("run \"apt install linux-headers-%s\"", release);
	} else if (has_word(ids, "rhel") || has_word(ids, "fedora") || has_word(ids, "centos")) {
		flavour = strchr(release, '+');
		if (flavour) {
			char *name = xstrdup(flavour + 1);

			command = xasprintf("run \"dnf install kernel-%s-devel-%.*s\"", name,
					    (int)(flavour - release), release);
			free(name);
		} else if (strstr(release, "uek")) {
			command = xasprintf("run \"dnf install kernel-uek-devel-%s\"", release);
		} else {
			command = xasprintf("run \"dnf install kernel-devel-%s\"", release);
		}
	} else if (has_word(ids, "suse") || has_word(ids, "sles") || has_word(ids, "opensuse")) {
		flavour = strrchr(release, '-');
		command = xasprintf("run \"zypper install kernel-%s-devel\"",
				    flavour ? flavour + 1 : "default");
	} else {
		command = xasprintf("install the headers of Linux %s", release);
	}
	/* Some of it comes from a file, and a person will type it. */
	for (c = command; *c; c++)
		if (!strchr("-+.=_~ \"", *c) && !isalnum((unsigned char)*c))
			*c = '?';
	free(id);
	free(like);
	free(ids);
	return command;
}

/*
 * @headers
 *
 * Whether DKMS can build the module for the running kernel. Only if DKMS has
 * the module's source and builds for this kernel. The remedy names the package
 * for this distribution and kernel flavour, such as
 * `kernel-64k-devel-5.14.0-570.el9.aarch64`.
 *
 * good: `/lib/modules/RELEASE/build/Makefile` exists
 * note: it doesn't, but the module is built: DKMS can't build a later version
 *	remedy: install the package, then run `dkms autoinstall -k RELEASE`
 * warning: it doesn't, and the module is not built
 *	remedy: as for note
 */

/* path: of the module that modprobe would load; NULL: none. */
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
		finding(d, "headers", GOOD, NULL, "the headers of Linux %s are installed", d->release);
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

/* Reports that this kernel has no copy, and why, as far as DKMS knows. */
static void no_module(struct doctor *d)
{
	struct finding *f = finding(d, "module", BAD, NULL, "no " MODULE_NAME " for this kernel");
	char **trees = host_list(d->h, DKMS_TREE), *command;

	if (trees && trees[0]) {
		because(f, "DKMS has its source (" DKMS_TREE "), but has not built it for %s",
			d->release);
		command = headers_command(d);
		remedy(f,
		       "%s, then \"dkms autoinstall -k %s\"; errors are in " DKMS_TREE "/*/build/make.log",
		       command, d->release);
		free(command);
	} else {
		because(f, "neither DKMS nor the kernel has one");
		remedy(f,
		       "run \"apt install " MODULE_NAME "-dkms\" or \"dnf install " MODULE_NAME "-dkms\"");
	}
	host_free_list(trees);
}

/*
 * @module
 *
 * Which copy of the module modprobe would load, by libkmod. DKMS's copy is in
 * `updates/dkms/`, or in `extra/` on RHEL.
 *
 * good: DKMS's, or another one outside `kernel/`; or the driver is built in
 *	(see in-tree-driver)
 * warning: the kernel's own
 *	remedy: if you need DKMS's, install the dkms package and this kernel's
 *	headers
 * bad: none
 *	remedy: install the headers and run `dkms autoinstall -k RELEASE`, whose
 *	log is `/var/lib/dkms/nvgrace-gpu-vfio-pci/VERSION/build/make.log`
 * bad: one that was built for another kernel
 *	remedy: run `dkms uninstall nvgrace-gpu-vfio-pci/VERSION -k RELEASE`,
 *	then `dkms autoinstall -k RELEASE`
 * bad: none, because `/etc/modprobe.d` has an `install` line for the module
 *	remedy: remove that line
 * unknown: `/lib/modules/RELEASE` has no index
 *	remedy: run `depmod -a`
 */

/* Returns the path of a copy that could be loaded, or NULL. */
static char *check_copy(struct doctor *d, const char *module)
{
	char *path = field_value(module, "path"), *install = field_value(module, "install");
	char *version = field_value(module, "version"), *magic = field_value(module, "vermagic");
	struct finding *f;
	bool usable = false;
	char *command;

	if (magic)
		magic[strcspn(magic, " ")] = 0;
	if (!path || !strcmp(path, "none")) {
		no_module(d);
	} else if (install) {
		f = finding(d, "module", BAD, NULL, "modprobe does not load the module");
		because(f, "a file in /etc/modprobe.d has the line \"install %s %s\"", DRIVER_NAME,
			install);
		remedy(f,
		       "find it with \"grep -r 'install.*nvgrace' /etc/modprobe.d\" and remove the line");
	} else if (!strcmp(path, "builtin")) {
		/* The finding in-tree-driver has the remedy. */
		finding(d, "module", GOOD, NULL, "the driver is built into the kernel");
	} else if (magic && d->release && strcmp(magic, d->release)) {
		f = finding(d, "module", BAD, NULL,
			    "modprobe would load a module of another kernel");
		because(f, "%s was built for %s, this is %s", path, magic, d->release);
		remedy(f,
		       "run \"dkms uninstall " MODULE_NAME "/%s -k %s\", then \"dkms autoinstall -k %s\"",
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
			"; DKMS does not build for kernels with CONFIG_NVGRACE_EGM" :
			"");
		command = headers_command(d);
		remedy(f,
		       "if you need DKMS's: install " MODULE_NAME "-dkms, %s, then \"dkms status\"",
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

/*
 * Describes the loaded driver of this name that has no file "features"; to be
 * freed.
 */
static char *other_driver(struct doctor *d)
{
	char *taint = host_line(d->h, SYS_MODULE "/taint");
	char *version = host_line(d->h, SYS_MODULE "/version");
	char *id = host_line(d->h, SYS_MODULE "/srcversion"), *text;

	/* The kernel marks modules built outside its tree with O. */
	text = xasprintf("%s%s%s%s%s",
			 !taint ? "another driver of this name" :
			 strchr(taint, 'O') ? "another driver of this name, built outside the kernel's tree" :
			 "the kernel's own driver of this name",
			 version && *version ? ", version " : "", version ? version : "",
			 id && *id ? ", srcversion " : "", id ? id : "");
	free(taint);
	free(version);
	free(id);
	return text;
}

/*
 * @module-loaded
 *
 * Only if a module of this name is loaded: whether it is the copy that modprobe
 * would load now. The kernel's own driver has the same name, but no file
 * `features`. The kernel's `taint` flags show whether such a driver was built
 * outside the kernel's tree.
 *
 * good: it is that copy; the finding lists its features on this kernel
 * warning: it is the kernel's own driver, another driver of this name, or
 *	another build (srcversion)
 *	remedy: see the finding `module`; if that is good, unbind all GPUs, run
 *	`modprobe -r nvgrace_gpu_vfio_pci`, and bind them; or reboot, when the
 *	finding `initramfs` is good
 */
static void check_loaded(struct doctor *d, const char *module, const char *path)
{
	char *loaded = host_line(d->h, SYS_MODULE "/srcversion");
	char *on_disk = field_value(module, "srcversion"), *other;
	bool ours = path && !strstr(path, "/kernel/");
	struct finding *f;

	if (!d->features) {
		other = other_driver(d);
		f = finding(d, "module-loaded", WARNING, NULL, "the loaded driver is %s", other);
		because(f,
			"it has no file \"features\", so it is not this project's driver%s%s, and its features are not known",
			ours ? "; it was loaded before " : "", ours ? path : "");
		free(other);
	} else if (path && loaded && on_disk && strcmp(loaded, on_disk)) {
		f = finding(d, "module-loaded", WARNING, NULL,
			    "the loaded module is not the one that modprobe would load");
		because(f, "its srcversion is %s, but %s has %s: the file was updated since", loaded,
			path, on_disk);
	} else {
		finding(d, "module-loaded", GOOD, NULL, "loaded, with the features: %s",
			d->features);
		f = NULL;
	}
	if (f && (ours || d->features))
		remedy(f,
		       "when no guest has a GPU, run \"" PROGRAM " unbind --all\", \"modprobe -r " DRIVER_NAME "\" and \"" PROGRAM " bind ADDRESS...\"; or reboot, with an initramfs that has the module (see the finding initramfs)");
	else if (f)
		remedy(f, "see the finding module");
	free(loaded);
	free(on_disk);
}

/*
 * What makes the kernel refuse modules without a trusted signature; to be
 * freed. NULL: nothing does.
 */
static char *enforced_by(struct doctor *d)
{
	char *enforce = host_line(d->h, "/sys/module/module/parameters/sig_enforce");
	char *lockdown = host_line(d->h, "/sys/kernel/security/lockdown"), *by = NULL;
	const char *secure = answer(d->answers, "secure-boot");

	if (lockdown && (strstr(lockdown, "[integrity]") || strstr(lockdown, "[confidentiality]")))
		by = xasprintf(
			"lockdown%s",
			secure && !strcmp(secure, "enabled") ? " of Secure Boot" : "");
	else if (enforce && (*enforce == 'Y' || *enforce == '1'))
		by = xstrdup("module.sig_enforce");
	free(enforce);
	free(lockdown);
	return by;
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

static void enroll(struct finding *f)
{
	remedy(f,
	       "run \"mokutil --import /var/lib/dkms/mok.pub\" (on Ubuntu /var/lib/shim-signed/mok/MOK.der), reboot, and choose \"Enroll MOK\" on the console");
}

/*
 * @module-signature
 *
 * Whether the kernel accepts the module's signature. Lockdown, which Secure
 * Boot turns on, and `module.sig_enforce` enforce signatures. Only if there is
 * a module to load.
 *
 * good: the module is loaded; or signatures are not enforced; or the kernel has
 *	the signer's key
 * bad: the module is not signed
 *	remedy: set `mok_signing_key` in `/etc/dkms/framework.conf`, run
 *	`dkms build --force`, and enroll the key
 * bad: the kernel does not have its signer's key ("Key was rejected by
 *	service")
 *	remedy: run `mokutil --import /var/lib/dkms/mok.pub` (on Ubuntu
 *	`/var/lib/shim-signed/mok/MOK.der`), reboot, and choose "Enroll MOK"
 * bad: the key is enrolled (MokListRT) but not trusted for modules
 *	remedy: reboot; if that does not help, run `mokutil --trust-mok`
 * unknown: only root can see the kernel's keys
 *	remedy: run as root
 */
static void check_signature(struct doctor *d, const char *module)
{
	char *signer = field_value(module, "signer"), *by = enforced_by(d);
	const char *keyrings, *mok = answer(d->answers, "mok");
	struct finding *f;

	if (d->loaded && d->features) {
		finding(d, "module-signature", GOOD, NULL, "the kernel has accepted the module");
	} else if (!by) {
		finding(d, "module-signature", GOOD, NULL,
			"the kernel does not enforce signatures");
	} else if (!signer) {
		f = finding(d, "module-signature", BAD, NULL,
			    "the module is not signed, and the kernel enforces signatures");
		because(f,
			"%s enforces signatures: modprobe fails with \"Key was rejected by service\" or \"Operation not permitted\"",
			by);
		remedy(f,
		       "have DKMS sign it: set mok_signing_key in /etc/dkms/framework.conf, run \"dkms build --force " MODULE_NAME "/VERSION\" and \"mokutil --import /var/lib/dkms/mok.pub\", reboot, and enroll the key");
	} else {
		keyrings = d->privileged ? answer(d->answers, "keyrings") : NULL;
		if (keyrings && has_key(keyrings, signer)) {
			finding(d, "module-signature", GOOD, NULL,
				"the kernel trusts the module's signer, %s", signer);
		} else if (!keyrings) {
			f = finding(d, "module-signature", UNKNOWN, NULL,
				    "not known whether the kernel trusts the module's signer, %s",
				    signer);
			because(f,
				"only root can see the kernel's keys, and %s enforces signatures",
				by);
			remedy(f, "run as root");
		} else if (mok && !strcmp(mok, "enrolled")) {
			f = finding(d, "module-signature", BAD, NULL,
				    "the module's signer, %s, is enrolled but not trusted for modules",
				    signer);
			because(f,
				"the certificate is in MokListRT, but in none of the kernel's keyrings, and %s enforces signatures",
				by);
			remedy(f,
			       "reboot; if that does not help, run \"mokutil --trust-mok\", reboot, and confirm; the kernel also needs CONFIG_INTEGRITY_MACHINE_KEYRING");
		} else {
			f = finding(d, "module-signature", BAD, NULL,
				    "the kernel does not have the key of the module's signer, %s", signer);
			because(f,
				"%s enforces signatures: modprobe fails with \"Key was rejected by service\"",
				by);
			enroll(f);
		}
	}
	free(signer);
	free(by);
}

/*
 * @module-alias
 *
 * Whether modules.alias has the module for these GPUs
 * (`vfio_pci:v000010DEd00002342...`). libvirt 10.0 or later and KubeVirt's
 * helpers find the variant driver there. Only if there is a module to load.
 *
 * good: it has the module
 * note: a GPU has an id that only the configuration has
 *	remedy: use `managed='no'`, or name the driver in libvirt's `<hostdev>`
 * warning: it lacks the module: they bind vfio-pci, and the guest gets a GPU
 *	without memory
 *	remedy: run `depmod -a`
 */
static void check_alias(struct doctor *d, const char *module)
{
	char *alias = field_value(module, "alias");
	struct finding *f;
	size_t i;

	for (i = 0; i < d->gpus.count; i++) {
		if (gpu_has_alias(&d->gpus.gpu[i]))
			continue;
		f = finding(d, "module-alias", NOTE, d->gpus.gpu[i].address,
			    "modules.alias has no line for 10de:%04x, an id of the configuration",
			    d->gpus.gpu[i].device);
		because(f,
			"tools that choose the driver there, such as libvirt with managed='yes', bind vfio-pci, and the guest gets a GPU without memory");
		remedy(f,
		       "use managed='no' and \"" PROGRAM " bind --persist\", or <driver model='" DRIVER_NAME "'/> in libvirt's <hostdev>");
	}

	if (!alias || strcmp(alias, "no")) {
		finding(d, "module-alias", GOOD, NULL,
			"modules.alias has the module for these GPUs");
	} else {
		f = finding(d, "module-alias", WARNING, NULL,
			    "modules.alias does not have the module for these GPUs");
		because(f,
			"libvirt with managed='yes', and other tools that read modules.alias, bind vfio-pci, and the guest gets a GPU without memory");
		remedy(f, "run \"depmod -a\"; if that does not help, reinstall " MODULE_NAME "-dkms");
	}
	free(alias);
}

/* ---- scrubbing ------------------------------------------------------------------------------ */

#define SCRUB_PARAMETER SYS_MODULE "/parameters/scrub"
#define SCRUB_LINE "echo 'options " DRIVER_NAME " scrub=1' > /etc/modprobe.d/nvgrace-gpu.conf"

/*
 * Whether the kernel reads this value of a module parameter as on
 * (kstrtobool()); NULL: no value.
 */
static bool is_on(const char *value)
{
	static const char *const words[] = { "y", "t", "1", "on" };
	size_t i;

	/* The kernel reads no more than these letters. */
	for (i = 0; value && i < ARRAY_SIZE(words); i++)
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
	char *options = field_value(module, "options"), *word, *rest = NULL, *value;
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
	free(options);
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

/*
 * @scrubbing
 *
 * Only if a module of this name is loaded: whether its parameter `scrub` is on,
 * so that it overwrites GPU memory with zeros after binding and after each
 * guest, and whether the parameter will be on after the next boot. libkmod
 * reads the latter from `/etc/modprobe.d` and the kernel's command line.
 *
 * good: the parameter is on, and will be on, as far as that is known
 * note: it is off: the next guest can read what the last one left
 *	remedy: write the line `options nvgrace_gpu_vfio_pci scrub=1` into a
 *	file in `/etc/modprobe.d` and update the initramfs; run
 *	`echo 1 > /sys/module/nvgrace_gpu_vfio_pci/parameters/scrub`; or run
 *	`nvgrace-gpu scrub ADDRESS` before each guest
 * note: the loaded module does not have it
 *	remedy: load a later module
 * warning: it is on, but will be off after the next boot
 *	remedy: write that line, and update the initramfs
 * warning: it is off, although that line or the command line turns it on
 *	remedy: turn it on now; update the initramfs
 */
static void check_scrubbing(struct doctor *d, const char *module)
{
	char *parameter = host_line(d->h, SCRUB_PARAMETER), *renew = renewal(d, " and ");
	char *again = renewal(d, ": run ");
	int boot = scrub_at_boot(module);
	struct finding *f;

	if (!parameter) {
		f = finding(d, "scrubbing", NOTE, NULL, "GPU memory is not cleared between guests");
		because(f, "the loaded module has no parameter scrub");
		remedy(f,
		       "clear it with another driver before another owner's guest gets it; or load a later module (see the finding module-loaded)");
	} else if (*parameter == 'Y' && boot) {
		finding(d, "scrubbing", GOOD, NULL, "GPU memory is cleared between guests%s",
			boot > 0 ? ", also after the next boot" : "");
	} else if (*parameter == 'Y') {
		f = finding(d, "scrubbing", WARNING, NULL,
			    "GPU memory is cleared between guests, but not after the next boot");
		because(f, "the parameter scrub is on, but no line in /etc/modprobe.d turns it on at boot");
		remedy(f, "run \"" SCRUB_LINE "\"%s", renew);
	} else if (boot > 0) {
		f = finding(d, "scrubbing", WARNING, NULL,
			    "GPU memory is not cleared between guests, although this is configured");
		because(f,
			"/etc/modprobe.d or the kernel's command line has scrub=1, but the loaded module's parameter is off");
		remedy(f,
		       "run \"echo 1 > " SCRUB_PARAMETER "\"; if it is off after the next boot, the initramfs has another configuration%s",
		       again);
	} else {
		f = finding(d, "scrubbing", NOTE, NULL, "GPU memory is not cleared between guests");
		because(f,
			"the parameter scrub is off: the next guest can read what the last one left");
		remedy(f,
		       "run \"" SCRUB_LINE "\"%s, then \"echo 1 > " SCRUB_PARAMETER "\"; or run \"" PROGRAM " scrub ADDRESS\" before each guest",
		       renew);
	}
	free(parameter);
	free(renew);
	free(again);
}

void check_module(struct doctor *d)
{
	const char *module = answer(d->answers, "module");
	struct finding *f;
	char *path = NULL;

	if (!module) {
		f = finding(d, "module", UNKNOWN, NULL,
			    "not known which module modprobe would load");
		because(f, "there is no module index for Linux %s",
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
