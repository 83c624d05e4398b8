// SPDX-License-Identifier: GPL-2.0-only
/*
 * The images from which kernels boot: see initramfs.h.
 */
#include <glib.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "facts/initramfs.h"
#include "facts/owner.h"
#include "system/spawn.h"

/* ---- where ---------------------------------------------------------------- */

/*
 * The places of dracut(8) and initramfs-tools, of which the first that exists counts.
 * What kernel-install(8) puts elsewhere has an entry.
 */
static const char *const places[] = {
	"/lib/modules/KERNEL/initrd",
	"/lib/modules/KERNEL/initramfs.img",
	"/boot/initramfs-KERNEL.img",
	"/boot/initrd-KERNEL",
	"/boot/initrd.img-KERNEL",
};

char *image_path(struct host *h, const struct loader *loader, const char *release)
{
	const char *entry = loader_image(loader, release);
	size_t i;

	if (entry && host_exists(h, "%s", entry))
		return g_strdup(entry);
	for (i = 0; i < G_N_ELEMENTS(places); i++) {
		g_autofree char *place = replaced(places[i], "KERNEL", release);

		if (host_exists(h, "%s", place))
			return g_steal_pointer(&place);
	}
	return NULL;
}

/* ---- what is in it ------------------------------------------------------- */

/* It takes some seconds, and minutes on an emulated machine; this one hangs. */
#define LIST_MS 600000

/*
 * Fails if the lister does, and prints the lines about this project, and "init": each
 * image has it, in the last of the archives of which it may consist.
 */
static const char script[] =
	"list=$(\"$0\" $2 \"$1\") && printf '%s\\n' \"$list\" | "
	"grep -E 'nvgrace-gpu|-root\\.img$|(^| |/)init($| -> )' || [ -n \"$list\" ]";

/*
 * The name in a line as "ls -l" prints it, and the size; -1: it has another form, as of
 * a file system in the image.
 */
static const char *name_in(char *line, long long *size)
{
	char *arrow = strstr(line, " -> "), *space;
	int links;

	if (sscanf(line, "%*s %d %*s %*s %lld", &links, size) != 2)
		*size = -1;
	if (arrow)
		*arrow = 0;
	space = strrchr(line, ' ');
	line = space ? space + 1 : line;
	return line + strspn(line, "./");
}

/* Where the documentation has the module's parameters, without the first slash. */
#define OPTIONS "etc/modprobe.d/nvgrace-gpu.conf"

static bool is_ours(const char *name)
{
	const char *base = strrchr(name, '/');

	base = base ? base + 1 : name;
	if (g_str_has_suffix(name, "/udev/nvgrace-gpu") || strstr(name, "udev/rules.d/60-nvgrace-gpu.rules") ||
	    g_str_has_suffix(name, "etc/nvgrace-gpu.conf") || g_str_has_suffix(name, OPTIONS) ||
	    (strstr(name, "etc/nvgrace-gpu.conf.d/") && g_str_has_suffix(name, ".conf")))
		return true;
	return g_str_has_prefix(base, "nvgrace-gpu-vfio-pci.ko") && strstr(name, "lib/modules/") &&
	       !strstr(name, "/kernel/");
}

/* Whether the hooks put it into images as it is: they strip programs and modules. */
static bool is_text(const char *name)
{
	return g_str_has_suffix(name, ".conf") || g_str_has_suffix(name, ".rules");
}

static char **files_by(const char *lister, const char *option, const char *image)
{
	char *const command[] = { (char *)"sh", (char *)"-c", (char *)script, (char *)lister,
				  (char *)image, (char *)option, NULL };
	g_autofree char *text = access(lister, X_OK) ? NULL : program_output(LIST_MS, "/bin/sh", command);
	g_autoptr(GPtrArray) files = g_ptr_array_new_with_free_func(g_free);
	g_auto(GStrv) lines = text_lines(text);
	bool whole = false, packed = false;
	size_t i;

	for (i = 0; lines[i]; i++) {
		long long size;
		const char *name = name_in(lines[i], &size);

		if (is_ours(name))
			g_ptr_array_add(files, size >= 0 && is_text(name) ?
					g_strdup_printf("%s %lld", name, size) : g_strdup(name));
		else if (g_str_has_suffix(name, "-root.img"))
			packed = true;
		else if (!strcmp(name, "init"))
			whole = true;
	}
	/* dracut's squashfs-root.img and erofs-root.img, which not every lsinitrd lists. */
	if (!files->len && (!whole || packed))
		return NULL;
	g_ptr_array_add(files, NULL);
	return (char **)g_ptr_array_free(g_steal_pointer(&files), FALSE);
}

char **image_files(struct host *h, const char *image)
{
	char **files = h->recorded ? NULL : files_by("/usr/bin/lsinitramfs", "-l", image);

	return files || h->recorded ? files : files_by("/usr/bin/lsinitrd", "", image);
}

/* Whether one of these files, which can have a size, has a name with this end. */
static bool has_end(char *const *files, const char *end)
{
	for (; *files; files++) {
		g_autofree char *name = g_strndup(*files, strcspn(*files, " "));

		if (g_str_has_suffix(name, end))
			return true;
	}
	return false;
}

/* Whether a file of the host has another size than the one in the image, if that is known. */
static bool differs(struct host *h, const char *file)
{
	const char *space = strchr(file, ' ');
	g_autofree char *name = g_strndup(file, strcspn(file, " ")), *text = NULL;
	size_t length;
	uint64_t size;

	if (!space || !parse_u64(space + 1, &size))
		return false;
	text = host_read(h, &length, "/%s", name);
	return text && length != size;
}

const char *image_fault(struct host *h, char *const *files, bool wants)
{
	static const char conf[] = "etc/nvgrace-gpu.conf";
	g_auto(GStrv) names = host_list(h, "/%s.d", conf);
	size_t i, here = host_exists(h, "/%s", conf), there = 0;
	bool same = !here || has_end(files, conf), older = false;

	for (i = 0; files[i]; i++) {
		there += !!strstr(files[i], conf);
		older |= differs(h, files[i]);
		if (!wants && !strstr(files[i], "lib/modules/") && !strstr(files[i], OPTIONS))
			return "still has files that bind GPUs";
	}
	if (!wants)
		return NULL;
	if (!has_end(files, "/60-nvgrace-gpu.rules") || !has_end(files, "/udev/nvgrace-gpu"))
		return "lacks the udev rule or its program, and binds no GPU";
	for (i = 0; names && names[i]; i++)
		if (g_str_has_suffix(names[i], ".conf") && *names[i] != '.') {
			g_autofree char *name = g_strdup_printf("%s.d/%s", conf, names[i]);

			here++;
			same &= has_end(files, name);
		}
	/* With the rule there is a configuration. A record of 0.3.0 has no names of it. */
	if (there && (!same || here != there))
		return "has other files of the configuration than /etc";
	if (host_exists(h, "/" OPTIONS) != has_end(files, OPTIONS))
		return "has other parameters of the module than /" OPTIONS;
	return older ? "has the rule or the configuration in another size than is installed" : NULL;
}

/* ---- what makes it ------------------------------------------------------- */

/*
 * The programs that can make a host's images. The first whose two files exist
 * applies. The mark is a file that only this program's package has: it decides on
 * systems whose dracut package also has an update-initramfs (Ubuntu 26.04).
 * mkinitramfs alone, which is in a package of its own, makes no image.
 */
static const struct tool {
	const char *mark, *hooks, *command[6];
} tools[] = {
	{ "/usr/sbin/mkinitramfs", "/usr/share/initramfs-tools/hooks",
	  { "/usr/sbin/update-initramfs", "-u", "-k", "all" } },
	{ "/usr/bin/dracut", "/usr/lib/dracut/modules.d",
	  { "/usr/bin/dracut", "--regenerate-all", "--force" } },
};

/* NULL: none is there. */
static const struct tool *find_tool(struct host *h)
{
	size_t i;

	for (i = 0; i < G_N_ELEMENTS(tools); i++)
		if (host_exists(h, "%s", tools[i].mark) && host_exists(h, "%s", tools[i].command[0]))
			return &tools[i];
	return NULL;
}

/*
 * Whether a directory has a file of this project, with any number before its
 * name.
 */
static bool has_part(struct host *h, const char *directory)
{
	g_auto(GStrv) names = host_list(h, "%s", directory);
	bool found = false;
	size_t i;

	for (i = 0; names && names[i]; i++)
		found |= !!strstr(names[i], "nvgrace-gpu");
	return found;
}

const char *const *initramfs_command(struct host *h)
{
	const struct tool *tool = find_tool(h);

	return tool && has_part(h, tool->hooks) ? tool->command : NULL;
}

/* update-initramfs.conf(5): then "update-initramfs -u" says so, and succeeds. */
static bool is_switched_off(struct host *h)
{
	g_autofree char *text = host_read(h, NULL, "/etc/initramfs-tools/update-initramfs.conf");
	g_auto(GStrv) lines = text_lines(text);
	bool off = false;
	size_t i;

	for (i = 0; lines[i]; i++) {
		const char *line = g_strstrip(lines[i]), name[] = "update_initramfs=";

		if (g_str_has_prefix(line, name))
			off = strncmp(line + strlen(name) + strspn(line + strlen(name), "\"'"), "no", 2) == 0;
	}
	return off;
}

static char **copy(const char *program, const char *a, const char *b, const char *c, const char *d)
{
	const char *const words[] = { program, a, b, c, d, NULL };

	return g_strdupv((char **)words);
}

void image_owner_find(struct host *h, const char *image, const char *release,
		      struct image_owner *owner)
{
	const struct tool *tool = find_tool(h);
	bool by_dracut = tool && strstr(tool->command[0], "dracut");
	g_autofree char *kernel = NULL, *text = NULL;
	enum system_kind system = system_kind(h);

	memset(owner, 0, sizeof(*owner));
	owner->hooked = initramfs_command(h);
	if (system == SYSTEM_OSTREE) {
		owner->remedy = g_strdup("rpm-ostree makes it: run \"rpm-ostree initramfs --enable\", or make the "
					 "image of the host again, and reboot");
		return;
	}
	if (system == SYSTEM_SNAPSHOT) {
		owner->remedy = g_strdup("transactional-update makes it: run \"transactional-update initrd\", and "
					 "reboot");
		return;
	}
	if (!tool && host_exists(h, "/usr/bin/mkinitcpio")) {
		owner->remedy = g_strdup("mkinitcpio makes it, for which this package has no hook: run \"mkinitcpio "
					 "-P\" after you have added the files to FILES of mkinitcpio.conf(5)");
		return;
	}
	if (!tool) {
		owner->remedy = g_strdup("neither update-initramfs nor dracut is installed; update it with the "
					 "program that made it");
		return;
	}
	if (!by_dracut && is_switched_off(h)) {
		owner->remedy = g_strdup_printf("update_initramfs=no in /etc/initramfs-tools/update-initramfs.conf "
						"forbids it: run \"mkinitramfs -o %s %s\"", image, release);
		return;
	}
	kernel = g_strdup_printf("/lib/modules/%s/vmlinuz", release);
	if (g_str_has_suffix(image, ".efi"))
		owner->command = strstr(image, "/linux-") ?
			copy("/usr/bin/dracut", "--force", "--uefi", image, release) :
			copy("/usr/bin/kernel-install", "add", release, kernel, NULL);
	else if (by_dracut)
		owner->command = copy(tool->command[0], "--force", image, release, NULL);
	else if (!g_str_has_prefix(image, "/boot/initrd.img-"))
		owner->command = copy("/usr/sbin/mkinitramfs", "-o", image, release, NULL);
	else
		owner->command = copy(tool->command[0], "-u", "-k", release, NULL);
	text = g_strjoinv(" ", owner->command);
	owner->remedy = g_strdup_printf("run \"%s\"", text);
}

void image_owner_free(struct image_owner *owner)
{
	g_strfreev(owner->command);
	g_free(owner->remedy);
	memset(owner, 0, sizeof(*owner));
}

/* ---- crash dumps --------------------------------------------------------- */

static void free_dump(void *data)
{
	struct dump_image *dump = data;

	g_free(dump->path);
	g_strfreev(dump->command);
	g_free(dump);
}

/* Of Debian's kdump-tools, whose command has the kernel, of Red Hat's kdump, and of SUSE's. */
static const struct {
	const char *folder, *prefix, *suffix, *command[3];
} dumps[] = {
	{ "/var/lib/kdump", "initrd.img-", "", { "/etc/kernel/postinst.d/kdump-tools", "KERNEL" } },
	{ "/var/lib/kdump", "initramfs-", "kdump.img", { "/usr/bin/kdumpctl", "rebuild" } },
	{ "/boot", "initramfs-", "kdump.img", { "/usr/bin/kdumpctl", "rebuild" } },
	{ "/var/lib/kdump", "initrd", "initrd", { "/sbin/mkdumprd", "-f" } },
	{ "/boot", "initrd-", "-kdump", { "/sbin/mkdumprd", "-f" } },
};

GPtrArray *dump_images(struct host *h)
{
	GPtrArray *list = g_ptr_array_new_with_free_func(free_dump);
	size_t i, j;

	for (i = 0; i < G_N_ELEMENTS(dumps); i++) {
		g_auto(GStrv) names = host_list(h, "%s", dumps[i].folder);

		for (j = 0; names && names[j]; j++) {
			struct dump_image *dump;
			const char *end = dumps[i].command[1];

			if (!g_str_has_prefix(names[j], dumps[i].prefix) ||
			    !g_str_has_suffix(names[j], dumps[i].suffix))
				continue;
			if (!strcmp(end, "KERNEL"))
				end = names[j] + strlen(dumps[i].prefix);
			dump = g_new0(struct dump_image, 1);
			dump->path = g_strdup_printf("%s/%s", dumps[i].folder, names[j]);
			dump->command = g_new0(char *, 3);
			dump->command[0] = g_strdup(dumps[i].command[0]);
			dump->command[1] = g_strdup(end);
			g_ptr_array_add(list, dump);
		}
	}
	return list;
}
