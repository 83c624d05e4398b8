// SPDX-License-Identifier: GPL-2.0-only
/* See loader.h. */
#include <fnmatch.h>
#include <glib.h>
#include <string.h>

#include "facts/loader.h"

/* Where a boot partition's folders are. */
static const char *const roots[] = { "/efi", "/boot", "/boot/efi" };

#define EFI_VARIABLE "/sys/firmware/efi/efivars/%s-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"

/* ---- entries ---------------------------------------------------------------------------------- */

/*
 * The installed release that a path is of: ".../vmlinuz-RELEASE" or
 * ".../RELEASE/linux"; the longest, since one can be the end of another.
 */
static char *release_of(const struct loader *loader, const char *path)
{
	const char *best = NULL;
	size_t i;

	for (i = 0; loader->releases && loader->releases[i]; i++) {
		const char *release = loader->releases[i], *at = strstr(path, release), *end;

		end = at ? at + strlen(release) : NULL;
		/* "7.2" is not the release of vmlinuz-7.2.3, but that of initramfs-7.2.img. */
		if (!at || at == path || !strchr("-/", at[-1]) || !strchr("/.+-", *end) ||
		    (*end == '.' && g_ascii_isdigit(end[1])))
			continue;
		if (!best || strlen(release) > strlen(best))
			best = release;
	}
	return g_strdup(best);
}

/* Notes the kernel that an entry's path is of: the first one that is installed. */
static void set_kernel(const struct loader *loader, struct loader_entry *entry, const char *path)
{
	if (entry->release)
		return;
	entry->release = release_of(loader, path);
	/* "vmlinuz-linux" may be any. */
	entry->foreign |= g_regex_match_simple("[0-9]\\.[0-9]", path, G_REGEX_RAW, 0);
	entry->foreign &= !entry->release;
}

static struct loader_entry *add_entry(struct loader *loader)
{
	loader->entry = g_renew(struct loader_entry, loader->entry, loader->count + 1);
	loader->entry[loader->count] = (struct loader_entry){ };
	return &loader->entry[loader->count++];
}

/*
 * The last file that a boot loader's line names: below this folder, or in /. The first
 * can be the processor's microcode, and Red Hat has $tuned_initrd after it.
 */
static char *file_of(struct host *h, const char *root, const char *line)
{
	g_auto(GStrv) words = g_strsplit_set(line, " \t", -1);
	size_t last = g_strv_length(words), i;
	g_autofree char *here = NULL;
	const char *path = line;

	for (i = 0; i < last; i++)
		if (*words[i] && !strchr(words[i], '$'))
			path = words[i];
	here = g_strdup_printf("%s/%s", root, path + (*path == '/'));
	return g_strdup(host_exists(h, "%s", here) || !host_exists(h, "%s", path) ? here : path);
}

/* ---- the Boot Loader Specification --------------------------------------------------------------- */

/*
 * The id of the file of an entry, which has no counter of boots ("+3", "+0-3") and no
 * ".conf". *failed: all boots that it may have were tried.
 */
static char *id_of(const char *name, bool *failed)
{
	const char *end = strrchr(name, '.'), *plus = g_strrstr_len(name, end - name, "+");
	bool counted = plus && g_ascii_isdigit(plus[1]) && plus + 1 + strspn(plus + 1, "0123456789-") == end;

	*failed = counted && !strtoul(plus + 1, NULL, 10);
	return g_strdup_printf("%.*s%s", (int)((counted ? plus : end) - name), name, strcmp(end, ".conf") ? end : "");
}

/* Sets a value of an entry, which counts once. */
static void set_once(char **to, const char *value)
{
	if (!*to)
		*to = g_strdup(value);
}

static void add_specified(struct host *h, struct loader *loader, const char *root, const char *name)
{
	g_autofree char *text = host_read(h, NULL, "%s/loader/entries/%s", root, name);
	g_auto(GStrv) lines = text_lines(text);
	struct loader_entry *entry = add_entry(loader);
	g_autoptr(GString) options = g_string_new(NULL);
	g_autofree char *kernel = NULL;
	size_t i;

	entry->id = id_of(name, &entry->failed);
	for (i = 0; lines[i]; i++) {
		char *key = g_strchug(lines[i]), *value = key + strcspn(key, " \t");

		if (*value)
			*value++ = 0;
		value = g_strstrip(value);
		if (!strcmp(key, "title"))
			set_once(&entry->title, value);
		if (!strcmp(key, "sort-key"))
			set_once(&entry->sort_key, value);
		if (!strcmp(key, "machine-id"))
			set_once(&entry->machine, value);
		if (!strcmp(key, "version"))
			set_once(&entry->version, value);
		if (!strcmp(key, "linux") || !strcmp(key, "efi") || !strcmp(key, "uki") || !strcmp(key, "initrd"))
			set_kernel(loader, entry, value);
		if (!strcmp(key, "linux"))
			set_once(&kernel, value);
		/* There can be several, which are joined. */
		if (!strcmp(key, "options"))
			g_string_append_printf(options, " %s", value);
		if (!strcmp(key, "initrd") || !strcmp(key, "efi") || !strcmp(key, "uki")) {
			g_free(entry->image);
			entry->image = file_of(h, root, value);
		}
	}
	/* A unified kernel image has one of its own, unless the entry states another. */
	if (kernel || options->len)
		entry->line = g_strdup_printf("BOOT_IMAGE=%s%s", kernel ?: "", options->str);
}

/* How a separator counts: a tilde is older than the end, and so on; all else is newer. */
static int rank_of(char c)
{
	static const char separators[] = { '~', 0, '-', '^', '.' };
	const char *at = memchr(separators, c, sizeof(separators));

	return at ? at - separators : (int)sizeof(separators);
}

#define DIGITS "0123456789"
#define LETTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

/*
 * Compares versions as the UAPI Group's "Version Format Specification" says, which
 * systemd-boot follows. GRUB compares as RPM, which agrees on the names of kernels:
 * unlike strverscmp(), both have 427.13.1.el9_4 after 427.el9.
 */
static int compare_versions(const char *a, const char *b)
{
	while (true) {
		const char *set;
		size_t x, y;
		int order;

		a += strcspn(a, "~-^." DIGITS LETTERS);
		b += strcspn(b, "~-^." DIGITS LETTERS);
		order = rank_of(*a) - rank_of(*b);
		if (order || !*a)
			return order;
		if (strchr("~-^.", *a)) {
			a++;
			b++;
			continue;
		}
		set = g_ascii_isdigit(*a) || g_ascii_isdigit(*b) ? DIGITS : LETTERS;
		if (*set == '0') {
			a += strspn(a, "0");
			b += strspn(b, "0");
		}
		x = strspn(a, set);
		y = strspn(b, set);
		order = *set == '0' && x != y ? 0 : strncmp(a, b, MIN(x, y));
		if (order || x != y)
			return order ?: x > y ? 1 : -1;
		a += x;
		b += y;
	}
}

/* As GRUB has them. */
static int by_id(const void *a, const void *b)
{
	const struct loader_entry *x = a, *y = b;

	return compare_versions(y->id, x->id);
}

/* As systemd-boot has them. */
static int by_key(const void *a, const void *b)
{
	const struct loader_entry *x = a, *y = b;

	return (x->failed - y->failed) ?: (!x->sort_key - !y->sort_key) ?:
	       (x->sort_key ? strcmp(x->sort_key, y->sort_key) ?:
		strcmp(x->machine ?: "", y->machine ?: "") ?:
		compare_versions(y->version ?: "", x->version ?: "") : 0) ?: by_id(a, b);
}

static void read_specified(struct host *h, struct loader *loader, int (*compare)(const void *a, const void *b))
{
	g_autofree char *key = host_os_release(h, "ID");
	size_t i, k;

	for (i = 0; i < G_N_ELEMENTS(roots); i++) {
		g_auto(GStrv) entries = host_list(h, "%s/loader/entries", roots[i]);
		g_auto(GStrv) unified = host_list(h, "%s/EFI/Linux", roots[i]);

		for (k = 0; entries && entries[k]; k++)
			if (g_str_has_suffix(entries[k], ".conf"))
				add_specified(h, loader, roots[i], entries[k]);
		for (k = 0; unified && unified[k]; k++) {
			struct loader_entry *entry;

			if (!g_str_has_suffix(unified[k], ".efi"))
				continue;
			entry = add_entry(loader);
			entry->id = id_of(unified[k], &entry->failed);
			/* By the os-release in the image, which is that of this system. */
			entry->sort_key = g_strdup(key);
			entry->image = g_strdup_printf("%s/EFI/Linux/%s", roots[i], unified[k]);
			set_kernel(loader, entry, entry->image);
		}
	}
	if (loader->count)
		qsort(loader->entry, loader->count, sizeof(*loader->entry), compare);
}

/* ---- unified kernel images ----------------------------------------------------------------------- */

/* What makes them puts the long sections, kernel and initramfs, at the end. */
enum { IMAGE_HEAD = 1 << 20, SECTION = 40 };

static uint32_t number_at(const char *data, size_t at, size_t bytes)
{
	uint32_t number = 0;

	while (bytes--)
		number = number << 8 | (unsigned char)data[at + bytes];
	return number;
}

/*
 * The section .cmdline of a PE file, to be freed; "": it has none; NULL: it is no such
 * file, or can't be read.
 */
static char *section_line(struct host *h, const char *path)
{
	g_autofree char *data = g_malloc0(IMAGE_HEAD);
	ssize_t n = host_head(h, data, IMAGE_HEAD, "%s", path);
	size_t length = n, header, at, count;

	if (n < 0x40 || memcmp(data, "MZ", 2))
		return NULL;
	header = number_at(data, 0x3c, 4);
	if (header + 24 > length || memcmp(data + header, "PE\0\0", 4))
		return NULL;
	count = number_at(data, header + 6, 2);
	for (at = header + 24 + number_at(data, header + 20, 2); count; count--, at += SECTION) {
		size_t size, from;

		if (at + SECTION > length)
			return NULL;
		if (memcmp(data + at, ".cmdline", 8))
			continue;
		size = number_at(data, at + 8, 4);
		from = number_at(data, at + 20, 4);
		return from + size <= length ? g_strndup(data + from, size) : NULL;
	}
	return g_strdup("");
}

/* ---- systemd-boot -------------------------------------------------------------------------------- */

/* A variable of systemd-boot's, which is UTF-16 after four bytes; NULL: there is none. */
static char *efi_variable(struct host *h, const char *name)
{
	size_t length;
	g_autofree char *data = host_read(h, &length, EFI_VARIABLE, name);
	g_autofree char *text = data && length > 4 ?
		g_convert(data + 4, (length - 4) & ~(size_t)1, "UTF-8", "UTF-16LE", NULL, NULL, NULL) : NULL;

	return text && *text ? g_steal_pointer(&text) : NULL;
}

/* The pattern of a line of loader.conf, "default ID"; NULL: there is none. */
static char *configured(struct host *h, const char *key)
{
	size_t i, k;

	for (i = 0; i < G_N_ELEMENTS(roots); i++) {
		g_autofree char *text = host_read(h, NULL, "%s/loader/loader.conf", roots[i]);
		g_auto(GStrv) lines = text_lines(text);

		for (k = 0; lines[k]; k++)
			if (g_str_has_prefix(lines[k], key) && strchr(" \t", lines[k][strlen(key)]))
				return g_strdup(g_strstrip(lines[k] + strlen(key)));
	}
	return NULL;
}

/*
 * What systemd-boot starts, by systemd-boot(7) and loader.conf(5): the first of these that
 * has an entry, or the first entry. "preferred" takes none of which all boots have failed.
 */
static const struct loader_entry *systemd_boots(struct host *h, const struct loader *loader)
{
	static const struct {
		const char *variable, *key;
		bool working;
	} ways[] = {
		{ "LoaderEntryOneShot", NULL, false },
		{ "LoaderEntryPreferred", NULL, true }, { NULL, "preferred", true },
		{ "LoaderEntryDefault", NULL, false }, { NULL, "default", false },
	};
	size_t i, k;

	for (k = 0; k < G_N_ELEMENTS(ways); k++) {
		g_autofree char *wanted = ways[k].key ? configured(h, ways[k].key) : efi_variable(h, ways[k].variable);

		if (!g_strcmp0(wanted, "@saved")) {
			g_free(wanted);
			wanted = efi_variable(h, "LoaderEntryLastBooted");
		}
		/* Another system, or the firmware's setup. */
		if (wanted && g_str_has_prefix(wanted, "auto-"))
			return NULL;
		for (i = 0; wanted && i < loader->count; i++) {
			const struct loader_entry *entry = &loader->entry[i];
			g_autofree char *id = g_strdup_printf("%s.conf", entry->id);

			if ((!fnmatch(wanted, entry->id, FNM_CASEFOLD) || !fnmatch(wanted, id, FNM_CASEFOLD)) &&
			    !(ways[k].working && entry->failed))
				return entry;
		}
	}
	return loader->count ? loader->entry : NULL;
}

/* ---- GRUB --------------------------------------------------------------------------------------- */

/* A word after another one of a line; NULL: there is none. */
static const char *word_after(char *const *words, const char *option)
{
	size_t i;

	for (i = 0; words[i] && words[i + 1]; i++)
		if (!strcmp(words[i], option))
			return words[i + 1];
	return NULL;
}

/*
 * Reads a line of GRUB's menu. path: the number of the entry that the line is in, with
 * those of its submenus; next: the number of the next entry, by depth.
 */
static void read_menu_line(struct host *h, struct loader *loader, char *line, GPtrArray *path,
			   GArray *next, struct loader_entry **open)
{
	g_auto(GStrv) words = NULL;
	unsigned int number, *counter;
	const char *in;
	bool menu;

	g_strstrip(line);
	if (!strcmp(line, "}")) {
		if (path->len)
			g_ptr_array_remove_index(path, path->len - 1);
		if (next->len > path->len + 1)
			g_array_set_size(next, path->len + 1);
		*open = NULL;
		return;
	}
	menu = g_str_has_prefix(line, "submenu ");
	if (!menu && !g_str_has_prefix(line, "menuentry ")) {
		/* A function, or an entry's command. */
		if (g_str_has_suffix(line, "{")) {
			g_ptr_array_add(path, NULL);
		} else if (*open && g_shell_parse_argv(line, NULL, &words, NULL) && words[1]) {
			if (g_str_has_prefix(words[0], "linux") && !(*open)->line) {
				g_autofree char *options = g_strjoinv(" ", words + 2);

				set_kernel(loader, *open, words[1]);
				(*open)->line = g_strdup_printf("BOOT_IMAGE=%s %s", words[1], options);
			}
			if (g_str_has_prefix(words[0], "initrd")) {
				g_autofree char *all = g_strjoinv(" ", words + 1);

				g_free((*open)->image);
				(*open)->image = file_of(h, "/boot", all);
			}
		}
		return;
	}
	while (next->len <= path->len)
		g_array_append_vals(next, &(unsigned int){ 0 }, 1);
	counter = &g_array_index(next, unsigned int, path->len);
	number = (*counter)++;
	in = path->len ? path->pdata[path->len - 1] : NULL;
	g_ptr_array_add(path, g_strdup_printf("%s%s%u", in ?: "", in ? ">" : "", number));
	*open = add_entry(loader);
	(*open)->path = g_strdup(path->pdata[path->len - 1]);
	if (g_shell_parse_argv(line, NULL, &words, NULL) && words[1]) {
		(*open)->title = g_strdup(words[1]);
		(*open)->id = g_strdup(word_after(words, "$menuentry_id_option") ?: word_after(words, "--id"));
	}
	if (menu)
		*open = NULL;
}

/* The entry that one part of a default names, in the submenu of this number. */
static const struct loader_entry *named(const struct loader *loader, const char *menu, const char *part)
{
	g_autofree char *number = g_strdup_printf("%s%s%s", menu, *menu ? ">" : "", part);
	size_t i;

	for (i = 0; i < loader->count; i++) {
		const struct loader_entry *e = &loader->entry[i];
		const char *last = e->path ? strrchr(e->path, '>') : NULL;

		if (!e->path || (last ? (size_t)(last - e->path) : 0) != strlen(menu) ||
		    !g_str_has_prefix(e->path, menu))
			continue;
		if (!strcmp(e->path, number) || !g_strcmp0(e->id, part) || !g_strcmp0(e->title, part))
			return e;
	}
	return NULL;
}

/* The value of "NAME=value" in GRUB's environment; NULL: none, or empty. */
static char *saved(const char *environment, const char *name)
{
	g_auto(GStrv) lines = text_lines(environment);
	g_autofree char *head = g_strdup_printf("%s=", name);
	size_t i;

	for (i = 0; lines[i]; i++)
		if (g_str_has_prefix(lines[i], head) && lines[i][strlen(head)])
			return g_strdup(lines[i] + strlen(head));
	return NULL;
}

/* A command line with the values of "$kernelopts" and the like, of GRUB's environment. */
static char *expanded(const char *line, const char *environment)
{
	g_auto(GStrv) words = g_strsplit(line, " ", -1);
	size_t i;

	for (i = 0; words[i]; i++)
		if (*words[i] == '$') {
			g_autofree char *name = words[i];

			words[i] = saved(environment, g_strstrip(g_strdelimit(name, "${}", ' '))) ?: g_strdup("");
		}
	return g_strjoinv(" ", words);
}

/*
 * The value of the menu's 'set default="VALUE"': the first one that isn't the next boot's
 * own, or the last that no condition is about. Fedora's menu has "set default=1" for when
 * boots have failed.
 */
static char *menu_default(const char *text)
{
	g_auto(GStrv) lines = text_lines(text);
	char *value = NULL;
	int conditions = 0;
	size_t i;

	for (i = 0; lines[i]; i++) {
		char *line = g_strstrip(lines[i]);
		g_auto(GStrv) words = NULL;

		conditions += g_str_has_prefix(line, "if ");
		conditions -= !strcmp(line, "fi");
		if (!g_str_has_prefix(line, "set default=") || strstr(line, "next_entry") ||
		    (value && conditions) || !g_shell_parse_argv(line, NULL, &words, NULL) || !words[1])
			continue;
		g_free(value);
		value = g_strdup(words[1] + strlen("default="));
	}
	return value ?: g_strdup("0");
}

/*
 * What GRUB boots by this default: of its menu, or, if the menu has the command
 * blscfg, of the specification's entries, which come first.
 */
static const struct loader_entry *grub_boots(const struct loader *loader, const char *by, bool specified)
{
	const struct loader_entry *e = NULL;
	g_autofree char *menu = g_strdup("");
	g_auto(GStrv) parts = g_strsplit(by, ">", -1);
	uint64_t number;
	size_t i;

	for (i = 0; specified && i < loader->count && !loader->entry[i].path; i++)
		if (!strcmp(loader->entry[i].id, by) ||
		    !g_strcmp0(loader->entry[i].title, by) || (parse_u64(by, &number) && number == i))
			return &loader->entry[i];
	for (i = 0; parts[i]; i++) {
		e = named(loader, menu, parts[i]);
		if (!e)
			return NULL;
		g_free(menu);
		menu = g_strdup(e->path);
	}
	/* A submenu boots its first entry. */
	if (e && !e->release) {
		const struct loader_entry *first = named(loader, e->path, "0");

		e = first ?: e;
	}
	return e;
}

/* Reads GRUB's menu, and the specification's entries if it has them. */
static const struct loader_entry *read_grub(struct host *h, struct loader *loader, const char *text,
					    const char *environment)
{
	g_autoptr(GPtrArray) path = g_ptr_array_new_with_free_func(g_free);
	g_autoptr(GArray) next = g_array_new(FALSE, TRUE, sizeof(unsigned int));
	g_auto(GStrv) lines = text_lines(text);
	bool specified = strstr(text, "blscfg");
	struct loader_entry *open = NULL;
	g_autofree char *by = NULL;
	size_t i;

	if (specified)
		read_specified(h, loader, by_id);
	for (i = 0; lines[i]; i++)
		read_menu_line(h, loader, lines[i], path, next, &open);
	by = (strstr(text, "next_entry") ? saved(environment, "next_entry") : NULL) ?: menu_default(text);
	if (!strcmp(by, "${saved_entry}") || !strcmp(by, "$saved_entry")) {
		g_free(by);
		by = saved(environment, "saved_entry") ?: g_strdup("0");
	}
	return grub_boots(loader, by, specified);
}

/* ---- both --------------------------------------------------------------------------------------- */

/* Only the entries of what has booted this system count: others can be left over. */
void loader_read(struct host *h, char *const *releases, struct loader *loader)
{
	g_autofree char *info = efi_variable(h, "LoaderInfo"), *menu = NULL, *environment = NULL;
	bool systemd = info && g_str_has_prefix(info, "systemd-boot");
	static const char *const folders[] = { "/boot/grub", "/boot/grub2" };
	const struct loader_entry *next = NULL;
	size_t i;

	*loader = (struct loader){ .releases = releases };
	for (i = 0; i < G_N_ELEMENTS(folders) && !menu && !systemd; i++) {
		menu = host_read(h, NULL, "%s/grub.cfg", folders[i]);
		if (menu)
			environment = host_read(h, NULL, "%s/grubenv", folders[i]);
	}
	if (menu)
		next = read_grub(h, loader, menu, environment);
	else
		read_specified(h, loader, by_key);
	if (systemd)
		next = systemd_boots(h, loader);
	if (next && next->line)
		loader->line = menu ? expanded(next->line, environment) : g_strdup(next->line);
	else if (next && next->image)
		loader->line = section_line(h, next->image);
	loader->chosen = next;
	loader->next = next ? g_strdup(next->release) : NULL;
	/* Whatever boots this system boots its only kernel. */
	if (!loader->next && !(next && next->foreign) && releases && releases[0] && !releases[1])
		loader->next = g_strdup(releases[0]);
}

const char *loader_image(const struct loader *loader, const char *release)
{
	const struct loader_entry *chosen = loader->chosen;
	size_t i;

	if (chosen && chosen->image && !g_strcmp0(chosen->release, release))
		return chosen->image;
	for (i = 0; i < loader->count; i++)
		if (loader->entry[i].image && !g_strcmp0(loader->entry[i].release, release))
			return loader->entry[i].image;
	return NULL;
}

void loader_free(struct loader *loader)
{
	size_t i;

	for (i = 0; i < loader->count; i++) {
		g_free(loader->entry[i].path);
		g_free(loader->entry[i].id);
		g_free(loader->entry[i].title);
		g_free(loader->entry[i].sort_key);
		g_free(loader->entry[i].machine);
		g_free(loader->entry[i].version);
		g_free(loader->entry[i].release);
		g_free(loader->entry[i].line);
		g_free(loader->entry[i].image);
	}
	g_free(loader->entry);
	g_free(loader->line);
	g_free(loader->next);
	*loader = (struct loader){ };
}
