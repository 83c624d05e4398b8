// SPDX-License-Identifier: GPL-2.0-only
/*
 * The module: which copy modprobe would load, whether the kernel takes it, whether
 * that copy is loaded, and whether it clears memory. check_signature.c has keys.
 */
#include <glib.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "doctor/checks.h"
#include "facts/elsewhere.h"
#include "facts/initramfs.h"
#include "system/program.h"

#define SYS_MODULE "/sys/module/" DRIVER_NAME

/* As much of the kernel's log is quoted. */
enum { REFUSAL_MAX = 200 };

static void check_headers(struct doctor *d)
{
	enum owner owner = module_owner(d->path);
	bool built = owner != OWNER_NONE && owner != OWNER_KERNEL;

	/* DKMS does not build for these kernels. */
	if (d->builder != OWNER_DKMS || !d->arm || !d->release || kernel_option(d, "NVGRACE_EGM") != 'n' ||
	    !host_exists(d->h, "/lib/modules/%s", d->release))
		return;
	report(d, host_exists(d->h, "/lib/modules/%s/build/Makefile", d->release) ? HEADERS_GOOD :
	       built ? HEADERS_MISSING_LATER : HEADERS_MISSING, NULL, NULL);
}

/* ---- the copy on disk ----------------------------------------------------------------------- */

/* The words of a line "KEY: NAME PATH [install COMMAND]"; NULL: another line. */
static char **need_of(const char *line, const char *key)
{
	return g_str_has_prefix(line, key) ? g_strsplit(line + strlen(key), " ", 4) : NULL;
}

/* The names of the module and of those that it needs and that are files, then NULL. */
static char **needed_names(struct doctor *d)
{
	GPtrArray *names = g_ptr_array_new();
	g_auto(GStrv) lines = text_lines(d->module);
	size_t i;

	g_ptr_array_add(names, g_strdup(DRIVER_NAME));
	for (i = 0; lines[i]; i++) {
		g_auto(GStrv) need = need_of(lines[i], "needs: ");

		if (need && need[0] && need[1] && strcmp(need[1], "builtin"))
			g_ptr_array_add(names, g_strdup(need[0]));
	}
	/* An older record, or one made by hand, does not say what the module needs. */
	if (names->len == 1 && kernel_option(d, "VFIO_PCI_CORE") != 'y')
		g_ptr_array_add(names, g_strdup("vfio_pci_core"));
	if (names->len == 2 && kernel_option(d, "VFIO") != 'y')
		g_ptr_array_add(names, g_strdup("vfio"));
	g_ptr_array_add(names, NULL);
	return (char **)g_ptr_array_free(names, FALSE);
}

/*
 * Whether this command of modprobe.d(5) loads nothing. One that loads the module is
 * insmod, or modprobe that ignores this very line.
 */
static bool masks(const char *command)
{
	return command && !strstr(command, "insmod ") && !strstr(command, "modprobe -i ") &&
	       !strstr(command, " --ignore-install ");
}

/* What module_blacklist= of a kernel command line names; g_strfreev() frees it. */
static char **blacklist_of(const char *line)
{
	g_autofree char *list = boot_parameter(line, "module_blacklist");

	return g_strsplit(list ?: "", ",", -1);
}

bool is_loadable(struct doctor *d, const char *name)
{
	g_auto(GStrv) listed = blacklist_of(d->line), lines = text_lines(d->module);
	bool good = !g_strv_contains((const char *const *)listed, name);
	size_t i;

	for (i = 0; lines[i]; i++) {
		g_auto(GStrv) need = need_of(lines[i], "backend: ");

		if (need && need[0] && need[1] && !strcmp(need[0], name))
			good &= strcmp(need[1], "none") && !(need[2] && masks(need[3]));
	}
	return good;
}

char *blacklisted(struct doctor *d, const char *line)
{
	g_auto(GStrv) listed = blacklist_of(line), names = needed_names(d);
	size_t i;

	for (i = 0; names[i]; i++)
		if (g_strv_contains((const char *const *)listed, names[i]))
			return g_strdup(names[i]);
	return NULL;
}

/*
 * What the kernel said when it refused the module or one that it needs, to be freed;
 * NULL: nothing, or the module was loaded since. One cause can have many lines.
 */
static char *refusal(struct doctor *d)
{
	g_auto(GStrv) lines = text_lines(d->log), names = needed_names(d);
	GString *said = g_string_new(NULL);
	size_t i, k;

	for (i = 0; !d->loaded && lines[i]; i++) {
		const char *text = lines[i] + strspn(lines[i], "01234567 ");
		bool refused = log_says(text, LOG_REFUSED);

		if (g_str_has_prefix(text, DRIVER_NAME " "))
			g_string_truncate(said, 0);
		for (k = 0; refused && names[k]; k++)
			if (log_names(text, names[k]) && said->len < REFUSAL_MAX && !strstr(said->str, text))
				g_string_append_printf(said, "%s%s", said->len ? "; " : "", text);
	}
	return g_string_free(said, !said->len);
}

/* How to have the module built again, by who built it; to be freed. said: the refusal. */
static char *rebuild(struct doctor *d, const char *said)
{
	g_autofree char *version = field_value(d->module, "version"), *why = NULL;
	char *remedy;

	if (said && strstr(said, LOG_PARAMETER))
		return g_strdup("find the option with \"grep -r " DRIVER_NAME " /etc/modprobe.d\", or on the kernel's command line, and correct it");
	if (system_kind(d->h) == SYSTEM_OSTREE) {
		module_lack(d->h, d->release ?: "", &why, &remedy);
		return remedy;
	}
	switch (module_owner(d->path)) {
	case OWNER_PACKAGES:
		return g_strdup_printf("install nvgrace-gpu-vfio-pci-modules-%s, which \"make module-packages\" builds, in its version for this kernel", d->release);
	case OWNER_KERNEL:
		return g_strdup_printf("install the package of Linux %s and of its modules again", d->release);
	default:
		remedy = g_strdup_printf("run \"dkms uninstall nvgrace-gpu-vfio-pci/%s -k %s\", then \"dkms build --force nvgrace-gpu-vfio-pci/%s -k %s\" and \"dkms install nvgrace-gpu-vfio-pci/%s -k %s\"",
					 version ?: "VERSION", d->release, version ?: "VERSION", d->release,
					 version ?: "VERSION", d->release);
		return in_snapshot(d->h, remedy);
	}
}

/* Whether the module that this line of the answer names, which it needs, is masked or missing. */
static bool check_need(struct doctor *d, const char *line)
{
	g_auto(GStrv) need = need_of(line, "needs: ");

	if (!need || !need[0] || !need[1])
		return false;
	if (need[2] && masks(need[3])) {
		report(d, MODULE_MASKED, NULL, "name", need[0], "command", need[3], NULL);
		return true;
	}
	if (strcmp(need[1], "none") || host_exists(d->h, "/sys/module/%s", need[0]))
		return false;
	report(d, MODULE_NEEDS, NULL, "name", need[0], NULL);
	return true;
}

static bool check_needs(struct doctor *d)
{
	g_auto(GStrv) lines = text_lines(d->module);
	bool found = false;
	size_t i;

	for (i = 0; lines[i] && !found; i++)
		found = check_need(d, lines[i]);
	return found;
}

/* Reports the first obstacle of modprobe's, or of the kernel's, to load it; false: none. */
static bool check_obstacles(struct doctor *d)
{
	g_autofree char *install = field_value(d->module, "install"), *magic = field_value(d->module, "vermagic");
	g_autofree char *name = blacklisted(d, d->line), *said = refusal(d), *again = rebuild(d, said);

	if (name) {
		report(d, MODULE_BLACKLISTED, NULL, "name", name, NULL);
		return true;
	}
	if (masks(install)) {
		report(d, MODULE_MASKED, NULL, "name", DRIVER_NAME, "command", install, NULL);
		return true;
	}
	if (check_needs(d))
		return true;
	if (magic)
		magic[strcspn(magic, " ")] = 0;
	if (magic && d->release && strcmp(magic, d->release) && !strstr(d->path, WEAK_UPDATES)) {
		report(d, MODULE_OF_OTHER_KERNEL, NULL, "path", d->path, "magic", magic, "have it built again by who built it", again, NULL);
		return true;
	}
	if (said)
		report(d, MODULE_REFUSED, NULL, "path", d->path, "said", said, "have it built again by who built it", again, NULL);
	return said;
}

/* Whether this project's module is meant to be here. */
static bool is_project_installed(struct doctor *d)
{
	return d->builder != OWNER_NONE || d->features;
}

static void check_copy(struct doctor *d)
{
	g_autofree char *version = field_value(d->module, "version");
	g_autofree char *text = version ? g_strdup_printf(", version %s", version) : NULL;
	g_autofree char *why = NULL, *remedy = NULL;
	enum owner owner = module_owner(d->path);
	bool egm = kernel_option(d, "NVGRACE_EGM") != 'n';

	if (kernel_option(d, "NVGRACE_GPU_VFIO_PCI") == 'y' || !g_strcmp0(d->path, "builtin")) {
		report(d, is_project_installed(d) ? MODULE_BUILT_IN : MODULE_BY_CHOICE, NULL,
		       "path", "the driver that is built into the kernel", NULL);
	} else if (owner == OWNER_NONE) {
		module_lack(d->h, d->release ?: "", &why, &remedy);
		report(d, MODULE_NONE, NULL, "why", why, "have the module built for that kernel", remedy, NULL);
	} else if (!check_obstacles(d)) {
		report(d, owner != OWNER_KERNEL ? MODULE_GOOD : d->egm_driver ? MODULE_EGM_LOADED :
		       egm ? MODULE_EGM : is_project_installed(d) ? MODULE_IN_TREE : MODULE_BY_CHOICE, NULL,
		       "path", d->path, "version", text, NULL);
	}
}

static void check_alias(struct doctor *d)
{
	g_autofree char *alias = field_value(d->module, "alias");
	size_t i;

	for (i = 0; i < d->gpus.count; i++) {
		g_autofree char *id = g_strdup_printf("%04x", d->gpus.gpu[i].device);

		if (!gpu_has_alias(&d->gpus.gpu[i]))
			report(d, MODULE_ALIAS_ADDED_ID, d->gpus.gpu[i].address, "id", id, NULL);
	}
	/* An older record does not say. */
	if (alias)
		report(d, strcmp(alias, "yes") ? MODULE_ALIAS_NONE : MODULE_ALIAS_GOOD, NULL, NULL);
}

/* ---- the loaded module ------------------------------------------------------------------------- */

/* The loaded driver of this name that has no file "features". The kernel marks others with O. */
static const char *other_driver(struct doctor *d)
{
	g_autofree char *taint = host_line(d->h, SYS_MODULE "/taint");

	return !taint ? "another driver of this name" :
	       strchr(taint, 'O') ? "another driver of this name, built outside the kernel's tree" :
	       "the kernel's own driver of this name";
}

/* The last finding with this id; NULL: none. */
static const struct finding *last_of(const struct doctor *d, enum finding_id id)
{
	size_t i;

	for (i = d->count; i; i--)
		if (d->findings[i - 1].id == id)
			return &d->findings[i - 1];
	return NULL;
}

static void check_loaded(struct doctor *d)
{
	g_autofree char *loaded = host_line(d->h, SYS_MODULE "/srcversion"), *why = NULL;
	g_autofree char *on_disk = field_value(d->module, "srcversion");
	const char *other = other_driver(d);
	const struct finding *key = last_of(d, ID_MODULE_SIGNATURE);
	enum owner owner = module_owner(d->path);
	bool ours = owner != OWNER_NONE && owner != OWNER_KERNEL;

	if (!d->features && !ours)
		report(d, d->egm_driver ? MODULE_LOADED_EGM :
		       is_project_installed(d) || owner != OWNER_KERNEL ? MODULE_LOADED_OTHER :
		       MODULE_LOADED_BY_CHOICE, NULL, "other", other, NULL);
	else if (!d->features)
		why = g_strdup_printf("it is %s: it has no file \"features\", and was loaded before %s",
				      other, d->path);
	else if (owner != OWNER_NONE && loaded && on_disk && strcmp(loaded, on_disk))
		why = g_strdup_printf("its srcversion is %s, but %s has %s: the file was updated since",
				      loaded, d->path, on_disk);
	else
		report(d, MODULE_LOADED_GOOD, NULL, "features", d->features, NULL);
	if (why)
		report(d, key && key->verdict != GOOD ? MODULE_LOADED_KEEP : MODULE_LOADED_OUTDATED, NULL,
		       "why", why, NULL);
}

/* ---- clearing ----------------------------------------------------------------------------------- */

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

/* Adds each "scrub=VALUE" that a kernel command line has for the module. */
static void add_scrubs(GPtrArray *words, const char *line)
{
	g_auto(GStrv) list = boot_words(line);
	const char head[] = DRIVER_NAME ".scrub";
	size_t i;

	for (i = 0; list[i]; i++) {
		g_autofree char *name = g_strdelimit(g_strndup(list[i], strcspn(list[i], "=")), "-", '_');

		if (!strcmp(name, head))
			g_ptr_array_add(words, g_strdup(strrchr(list[i], '.') + 1));
	}
}

/*
 * Whether the options that modprobe passes at the next boot turn scrubbing on: 1, 0, or
 * -1 for not known. Those of now end with this boot's command line, and the next one can
 * have another.
 */
static int scrub_at_boot(struct doctor *d)
{
	g_autofree char *options = field_value(d->module, "options");
	g_autoptr(GPtrArray) words = g_ptr_array_new_with_free_func(g_free);
	g_autoptr(GPtrArray) now = g_ptr_array_new_with_free_func(g_free);
	g_auto(GStrv) list = g_strsplit_set(options ?: "", " \t", -1);
	const char *last;
	size_t i;

	for (i = 0; list[i]; i++)
		if (!strcmp(list[i], "scrub") || g_str_has_prefix(list[i], "scrub="))
			g_ptr_array_add(words, g_strdup(list[i]));
	if (d->boots.line) {
		add_scrubs(now, d->line);
		g_ptr_array_set_size(words, words->len - MIN(words->len, now->len));
		add_scrubs(words, d->boots.line);
	}
	if (!words->len)
		return options ? 0 : -1;
	/* The last one holds. */
	last = strchr(words->pdata[words->len - 1], '=');
	return is_on(last ? last + 1 : NULL);
}

static void check_scrubbing(struct doctor *d)
{
	g_autofree char *parameter = host_line(d->h, SYS_MODULE "/parameters/scrub");
	bool other = module_owner(d->path) == OWNER_KERNEL, on = parameter && *parameter == 'Y';
	int boot = scrub_at_boot(d);

	d->scrub_wanted = boot > 0;
	if (d->loaded ? !parameter && boot > 0 : other && boot > 0)
		report(d, SCRUBBING_NO_DRIVER, NULL, "driver", d->loaded ? "the loaded driver" : d->path, NULL);
	else if (d->loaded)
		report(d, !parameter ? SCRUBBING_NO_PARAMETER : on && boot ? SCRUBBING_GOOD :
		       on ? SCRUBBING_OFF_AT_BOOT : boot > 0 ? SCRUBBING_OFF_NOW : SCRUBBING_OFF, NULL,
		       "boot", boot > 0 ? ", and modprobe's options of this kernel have scrub=1" : NULL, NULL);
}

void check_module(struct doctor *d)
{
	d->path = field_value(d->module, "path");
	if (!*d->module)
		report(d, MODULE_UNKNOWN, NULL, NULL);
	else
		check_copy(d);
	check_headers(d);
	if (d->path && strcmp(d->path, "none") && strcmp(d->path, "builtin")) {
		check_signature(d);
		check_alias(d);
	}
	if (d->loaded)
		check_loaded(d);
	check_scrubbing(d);
}
