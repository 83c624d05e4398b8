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
#include "facts/initramfs.h"
#include "system/program.h"

#define DKMS_TREE "/var/lib/dkms"

/*
 * A setting of DKMS's own configuration, which is shell: the last plain assignment
 * of it, or the default; to be freed.
 */
static char *dkms_setting(struct doctor *d, const char *name, const char *by_default)
{
	g_auto(GStrv) more = host_list(d->h, "/etc/dkms/framework.conf.d");
	char *value = g_strdup(by_default);
	size_t i, j;

	for (i = 0; !i || (more && more[i - 1]); i++) {
		g_autofree char *text = i && !g_str_has_suffix(more[i - 1], ".conf") ? NULL : i ? host_read(d->h, NULL, "/etc/dkms/framework.conf.d/%s", more[i - 1]) :
					    host_read(d->h, NULL, "/etc/dkms/framework.conf");
		g_auto(GStrv) lines = text ? g_strsplit(text, "\n", -1) : NULL;

		for (j = 0; lines && lines[j]; j++) {
			g_auto(GStrv) words = NULL;
			char *line = g_strstrip(lines[j]);

			if (!g_str_has_prefix(line, name) || line[strlen(name)] != '=' ||
			    !g_shell_parse_argv(line + strlen(name) + 1, NULL, &words, NULL) || strchr(line, '$'))
				continue;
			g_free(value);
			value = g_strdup(words[0]);
		}
	}
	return value;
}

/* The versions of the module's source that DKMS has; to be freed. */
static char **dkms_sources(struct doctor *d)
{
	g_autofree char *tree = dkms_setting(d, "dkms_tree", DKMS_TREE);

	return host_list(d->h, "%s/" MODULE_NAME, tree);
}

/* Completes remedies that name DKMS's key or tree. */
static void fill_dkms(struct doctor *d, struct finding *f)
{
	g_autofree char *tree = dkms_setting(d, "dkms_tree", DKMS_TREE);
	g_autofree char *source = g_strdup_printf("%s/" MODULE_NAME, tree);
	g_autofree char *mok = g_strdup_printf("%s/mok.pub", tree);
	g_autofree char *key = dkms_setting(d, "mok_certificate", mok);

	fill(f, DKMS_TREE "/mok.pub", key);
	fill(f, DKMS_TREE "/" MODULE_NAME, source);
}
#define SYS_MODULE "/sys/module/" DRIVER_NAME

/* ---- headers -------------------------------------------------------------------------------- */

/*
 * How to install the headers by the package of the running kernel, which each distribution calls
 * otherwise; NULL: it has none.
 */
static char *command_by_package(struct doctor *d)
{
	const char *package = answer(d->answers, "kernel-package");
	g_auto(GStrv) words = g_strsplit(package ? package : "", " ", 3);
	g_autoptr(GString) name = NULL;

	if (!words[0] || !words[1])
		return NULL;
	name = g_string_new(words[1]);
	if (!strcmp(words[0], "dpkg")) {
		/* linux-image-unsigned-6.8.0-1021-nvidia, proxmox-kernel-6.14.11-3-pve-signed */
		g_string_replace(name, "-unsigned", "", 1);
		g_string_replace(name, "-signed", "", 1);
		g_string_replace(name, "-image-", "-headers-", 1);
		g_string_replace(name, "-kernel-", "-headers-", 1);
		return g_strdup_printf("run \"apt install %s\"", name->str);
	}
	if (!words[2])
		return NULL;
	/* kernel-64k-core, kernel6.12, kernel-default */
	if (g_str_has_suffix(name->str, "-core"))
		g_string_truncate(name, name->len - strlen("-core"));
	if (host_exists(d->h, "/usr/bin/zypper"))
		return g_strdup_printf("run \"zypper install %s-devel=%s\"", name->str, words[2]);
	return g_strdup_printf("run \"dnf install %s-devel-%s\"", name->str, words[2]);
}

/*
 * How to install the running kernel's headers: "run" and the distribution's
 * command in quotes, or only words; to be freed. The release has the flavour's
 * name: 6.8.0-1021-nvidia-64k, 5.14.0-570.el9.aarch64+64k,
 * 6.4.0-150600.23-64kb.
 */
static char *headers_command(struct doctor *d)
{
	g_autofree char *id = host_os_release(d->h, "ID"), *like = host_os_release(d->h, "ID_LIKE");
	g_autofree char *ids = g_strdup_printf("%s %s", id, like);
	char *command = command_by_package(d), *flavour, *c;
	const char *release = d->release ? d->release : "";

	if (command) {
		/* The rest is for trees without answers, and kernels of no package. */
	} else if (g_str_has_suffix(release, "-pve")) {
		command = g_strdup_printf("run \"apt install proxmox-headers-%s\"", release);
	} else if (has_word(ids, "amzn")) {
		/* kernel6.12-devel and the like; each provides this name. */
		command = g_strdup_printf("run \"dnf install 'kernel-devel-uname-r = %s'\"", release);
	} else if (has_word(ids, "debian") || has_word(ids, "ubuntu")) {
		command = g_strdup_printf("run \"apt install linux-headers-%s\"", release);
	} else if (has_word(ids, "rhel") || has_word(ids, "fedora") || has_word(ids, "centos")) {
		flavour = strchr(release, '+');
		if (flavour) {
			command = g_strdup_printf("run \"dnf install kernel-%s-devel-%.*s\"", flavour + 1,
						  (int)(flavour - release), release);
		} else if (strstr(release, "uek") && g_str_has_suffix(release, ".64k")) {
			command = g_strdup_printf("run \"dnf install kernel-uek64k-devel-%.*s\"",
						  (int)(strlen(release) - strlen(".64k")), release);
		} else if (strstr(release, "uek")) {
			command = g_strdup_printf("run \"dnf install kernel-uek-devel-%s\"", release);
		} else {
			command = g_strdup_printf("run \"dnf install kernel-devel-%s\"", release);
		}
	} else if (has_word(ids, "suse") || has_word(ids, "sles") || has_word(ids, "opensuse")) {
		flavour = strrchr(release, '-');
		command = g_strdup_printf("run \"zypper install kernel-%s-devel\"",
					  flavour ? flavour + 1 : "default");
	} else {
		command = g_strdup_printf("install the headers of Linux %s", release);
	}
	/* Some of it comes from a file, and a person will type it. */
	for (c = command; *c; c++)
		if (!strchr("-+.=_~ \"'", *c) && !isalnum((unsigned char)*c))
			*c = '?';
	return command;
}

/* Completes a remedy that installs headers. */
static void fill_headers(struct doctor *d, struct finding *f)
{
	g_autofree char *command = headers_command(d);

	fill(f, "install the headers of Linux RELEASE", command);
	fill(f, "RELEASE", d->release);
}

/* path: of the module that modprobe would load; NULL: none. */
static void check_headers(struct doctor *d, const char *path)
{
	g_auto(GStrv) trees = dkms_sources(d);
	bool dkms = trees && trees[0], built = path && !strstr(path, "/kernel/");
	struct finding *f;

	/* DKMS does not build for these kernels. */
	if (!dkms || !d->arm || !d->release || kernel_option(d, "NVGRACE_EGM") != 'n' ||
	    !host_exists(d->h, "/lib/modules/%s", d->release))
		return;
	if (host_exists(d->h, "/lib/modules/%s/build/Makefile", d->release)) {
		finding(d, HEADERS_GOOD, NULL, "the headers of Linux %s are installed", d->release);
		return;
	}
	f = finding(d, built ? HEADERS_MISSING_LATER : HEADERS_MISSING, NULL,
		    "the headers of Linux %s are missing", d->release);
	because(f, "there is no /lib/modules/%s/build/Makefile: DKMS can't build %s", d->release,
		built ? "a later version of the module for this kernel" :
			"the module for this kernel");
	fill_headers(d, f);
}

/* ---- the copy on disk ----------------------------------------------------------------------- */

/* Reports that this kernel has no copy, and why, as far as DKMS knows. */
static void no_module(struct doctor *d)
{
	g_auto(GStrv) trees = dkms_sources(d);
	bool dkms = trees && trees[0];
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

/* ---- scrubbing ------------------------------------------------------------------------------ */

#define UPDATE " and update the initramfs"	/* in two remedies */
#define SCRUB_PARAMETER SYS_MODULE "/parameters/scrub"

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

static void check_scrubbing(struct doctor *d, const char *module)
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
