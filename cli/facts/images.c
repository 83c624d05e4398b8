// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reads each kernel's initramfs: see images.h.
 *
 * An image is a sequence of cpio archives with zero bytes between them; the
 * last one is usually compressed (the kernel's
 * Documentation/driver-api/early-userspace/buffer-format.rst). It is read as a
 * stream, through the program that unpacks it, without writing a file.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <libkmod.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "facts/images.h"
#include "facts/config.h"
#include "system/program.h"

/* Limit for one image. An emulated machine needs some seconds. */
#define IMAGE_MS 60000

/*
 * The newc header: a magic number and 13 numbers of eight hexadecimal digits.
 */
enum { MAGIC = 6, HEADER = 110, FIELD = 8, FILE_SIZE = 6, NAME_SIZE = 11, NAME_MAX_SIZE = 4096 };

/* No wanted file is larger. */
#define FILE_MAX ((size_t)64 << 20)

/* ---- reading an image ------------------------------------------------------------------------ */

struct input {
	int fd;
	long long end;			/* when to give up, in ms */
	unsigned long long offset;	/* of buf in the file */
	size_t at, have;
	unsigned char buf[65536];
};

struct image {
	struct config directives;
	char *module;			/* its path below /lib/modules/RELEASE, or NULL */
	char *id;			/* its srcversion, or NULL */
	bool rule, helper;
	const char *error;		/* static; NULL: all of it was read */
};

/* Fills the buffer if it is empty; false: no more data. */
static bool fill(struct input *in)
{
	struct pollfd p = { .fd = in->fd, .events = POLLIN };
	long long left = in->end - now_ms();
	ssize_t n;

	if (in->at < in->have)
		return true;
	in->offset += in->have;
	in->at = in->have = 0;
	if (left <= 0 || poll(&p, 1, left) <= 0)
		return false;
	do {
		n = read(in->fd, in->buf, sizeof(in->buf));
	} while (n < 0 && errno == EINTR);
	in->have = n > 0 ? n : 0;
	return in->have;
}

/*
 * Reads len bytes to data, or skips them if data is NULL; false: fewer are
 * left.
 */
static bool take(struct input *in, void *data, size_t len)
{
	size_t n;

	while (len) {
		if (!fill(in))
			return false;
		n = in->have - in->at < len ? in->have - in->at : len;
		if (data) {
			memcpy(data, in->buf + in->at, n);
			data = (char *)data + n;
		}
		in->at += n;
		len -= n;
	}
	return true;
}

static size_t padding(size_t len)
{
	return -len & 3;
}

static bool header_field(const char *header, unsigned int field, size_t *value)
{
	char digits[FIELD + 1], *end;

	memcpy(digits, header + MAGIC + field * FIELD, FIELD);
	digits[FIELD] = 0;
	if (!isxdigit((unsigned char)*digits))
		return false;
	*value = strtoul(digits, &end, 16);
	return !*end;
}

/* The srcversion of a module file, to be freed; NULL: none. */
static char *module_id(struct kmod_ctx *ctx, const char *path)
{
	struct kmod_list *info = NULL, *item;
	struct kmod_module *mod;
	char *id = NULL;

	if (kmod_module_new_from_path(ctx, path, &mod) < 0)
		return NULL;
	if (kmod_module_get_info(mod, &info) >= 0) {
		kmod_list_foreach(item, info)
			if (!id && !strcmp(kmod_module_info_get_key(item), "srcversion"))
				id = xstrdup(kmod_module_info_get_value(item));
		kmod_module_info_free_list(info);
	}
	kmod_module_unref(mod);
	return id;
}

/* The same for a module's content, compressed or not. */
static char *content_id(const char *data, size_t len)
{
	int fd = memfd_create(MODULE_NAME, MFD_CLOEXEC);
	struct kmod_ctx *ctx = kmod_new(NULL, NULL);
	char *path, *id = NULL;

	if (ctx)
		kmod_set_log_priority(ctx, 0);
	if (ctx && fd >= 0 && write(fd, data, len) == (ssize_t)len) {
		path = xasprintf("/proc/self/fd/%d", fd);
		id = module_id(ctx, path);
		free(path);
	}
	if (fd >= 0)
		close(fd);
	kmod_unref(ctx);
	return id;
}

/*
 * The path below /lib/modules/RELEASE/, without a suffix of the compression; to
 * be freed.
 */
static char *module_place(const char *path)
{
	const char *at = strstr(path, "lib/modules/"), *slash;
	char *place, *suffix;

	slash = at ? strchr(at + strlen("lib/modules/"), '/') : NULL;
	place = xstrdup(slash ? slash + 1 : path);
	suffix = strstr(place, ".ko");
	if (suffix)
		suffix[3] = 0;
	return place;
}

static bool ends_with(const char *text, const char *end)
{
	size_t length = strlen(text), n = strlen(end);

	return length >= n && !strcmp(text + length - n, end);
}

enum part { PART_NONE, PART_RULE, PART_HELPER, PART_CONFIG, PART_MODULE };

static enum part part_of(const char *name)
{
	const char *base = strrchr(name, '/');

	base = base ? base + 1 : name;
	if (ends_with(name, "udev/rules.d/60-nvgrace-gpu.rules"))
		return PART_RULE;
	if (ends_with(name, "udev/nvgrace-gpu"))
		return PART_HELPER;
	if (!strcmp(name, &CONFIG_FILE[1]) ||
	    (!strncmp(name, &CONFIG_DIR[1], strlen(CONFIG_DIR) - 1) && *base != '.' &&
	     ends_with(base, ".conf")))
		return PART_CONFIG;
	if (!strncmp(base, MODULE_NAME ".ko", strlen(MODULE_NAME ".ko")) &&
	    strstr(name, "lib/modules/"))
		return PART_MODULE;
	return PART_NONE;
}

static void keep(struct image *image, enum part part, const char *name, const char *data,
		 size_t len)
{
	char *file;

	switch (part) {
	case PART_RULE:
		image->rule = true;
		break;
	case PART_HELPER:
		image->helper = true;
		break;
	case PART_CONFIG:
		file = xasprintf("/%s", name);
		config_parse(&image->directives, file, data);
		free(file);
		break;
	case PART_MODULE:
		/*
		 * With two copies, modprobe prefers the one that isn't the
		 * kernel's.
		 */
		if (image->module && !strncmp(image->module, "kernel/", 7)) {
			free(image->module);
			free(image->id);
			image->module = NULL;
		}
		if (!image->module) {
			image->module = module_place(name);
			image->id = content_id(data, len);
		}
		break;
	case PART_NONE:		/* LCOV_EXCL_LINE: a mistake in this program */
		break;		/* LCOV_EXCL_LINE */
	}
}

/* Reads one archive, up to its trailer; false: malformed or incomplete. */
static bool read_archive(struct input *in, struct image *image)
{
	char header[HEADER], name[NAME_MAX_SIZE], *data;
	size_t name_size, size;
	enum part part;
	const char *at;

	for (;;) {
		if (!take(in, header, HEADER) ||
		    (strncmp(header, "070701", MAGIC) && strncmp(header, "070702", MAGIC)) ||
		    !header_field(header, NAME_SIZE, &name_size) ||
		    !header_field(header, FILE_SIZE, &size) || !name_size ||
		    name_size > sizeof(name) || !take(in, name, name_size) ||
		    !take(in, NULL, padding(HEADER + name_size)))
			return false;
		name[name_size - 1] = 0;
		if (!strcmp(name, "TRAILER!!!"))
			return true;
		for (at = name; *at == '/' || !strncmp(at, "./", 2); at++)
			;
		part = size <= FILE_MAX ? part_of(at) : PART_NONE;
		data = part ? xcalloc(size + 1, 1) : NULL;
		if (!take(in, data, size) || !take(in, NULL, padding(size))) {
			free(data);
			return false;
		}
		if (part)
			keep(image, part, at, data, size);
		free(data);
	}
}

/* The program that unpacks data with this magic number, or NULL. */
static char *const *unpacker(const unsigned char *magic)
{
	static const struct {
		const char *magic;
		size_t len;
		char *argv[4];
	} programs[] = {
		{ "\x1f\x8b", 2, { (char *)"/usr/bin/gzip", (char *)"-dc" } },
		{ "\xfd" "7zXZ", 5, { (char *)"/usr/bin/xz", (char *)"-dc" } },
		{ "\x28\xb5\x2f\xfd", 4, { (char *)"/usr/bin/zstd", (char *)"-dcq" } },
		{ "\x02\x21\x4c\x18", 4, { (char *)"/usr/bin/lz4", (char *)"-dcq" } },
		{ "\x04\x22\x4d\x18", 4, { (char *)"/usr/bin/lz4", (char *)"-dcq" } },
		{ "BZh", 3, { (char *)"/usr/bin/bzip2", (char *)"-dc" } },
		{ "\x5d\x00\x00", 3, { (char *)"/usr/bin/xz", (char *)"--format=lzma",
				       (char *)"-dc" } },
		{ "\x89LZO", 4, { (char *)"/usr/bin/lzop", (char *)"-dc" } },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(programs); i++)
		if (!memcmp(magic, programs[i].magic, programs[i].len))
			return programs[i].argv;
	return NULL;
}

static void read_archives(struct input *in, struct image *image, bool packed);

/* Reads the rest of the file, unpacked by a program. */
static void read_packed(struct input *in, struct image *image)
{
	char *const env[] = { (char *)"LC_ALL=C", (char *)"PATH=/usr/bin:/bin", NULL };
	unsigned char magic[8] = { };
	posix_spawn_file_actions_t actions;
	struct input *out;
	char *const *argv;
	int fds[2], error;
	pid_t pid;

	if (pread(in->fd, magic, sizeof(magic), in->offset + in->at) < 4)
		return;
	argv = unpacker(magic);
	if (!argv) {
		image->error = "its compression is not known";
		return;
	}
	if (access(argv[0], X_OK)) {
		image->error = "the program that unpacks it is missing";
		return;
	}
	if (lseek(in->fd, in->offset + in->at, SEEK_SET) < 0 || pipe2(fds, O_CLOEXEC)) {
		image->error = "it can't be read";
		return;
	}
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, in->fd, 0);
	posix_spawn_file_actions_adddup2(&actions, fds[1], 1);
	posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
	error = posix_spawn(&pid, argv[0], &actions, NULL, argv, env);
	posix_spawn_file_actions_destroy(&actions);
	close(fds[1]);
	if (error) {
		image->error = "the program that unpacks it can't be run";
	} else {
		out = xcalloc(1, sizeof(*out));
		out->fd = fds[0];
		out->end = in->end;
		read_archives(out, image, false);
		free(out);
		kill(pid, SIGKILL);
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	close(fds[0]);
}

static void read_archives(struct input *in, struct image *image, bool packed)
{
	bool any = false;

	for (;;) {
		while (fill(in) && !in->buf[in->at])
			in->at++;
		if (!fill(in))
			break;
		if (in->buf[in->at] == '0') {
			if (!read_archive(in, image)) {
				image->error = "an archive in it is incomplete";
				return;
			}
			any = true;
		} else if (packed) {
			read_packed(in, image);
			return;
		} else {
			image->error = "it contains something that is not an archive";
			return;
		}
	}
	if (now_ms() >= in->end)
		image->error = "it takes too long to unpack";
	else if (!any)
		image->error = "it is empty";
}

/* ---- all images ------------------------------------------------------------------------------ */

/* As renew-initramfs accepts it. */
static bool is_entry_token(const char *token)
{
	return !token[strspn(token, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")];
}

/* The word that names this system in boot loaders' folders, to be freed; or NULL. */
static char *entry_token(struct host *h)
{
	char *token = host_line(h, "/etc/kernel/entry-token");

	if (!token || !*token || !is_entry_token(token)) {
		free(token);
		token = host_line(h, "/etc/machine-id");
	}
	if (token && !is_entry_token(token)) {
		free(token);
		token = NULL;
	}
	return token;
}

/* The path of a kernel's image, to be freed; NULL: none in the usual places. */
static char *image_path(struct host *h, const char *release)
{
#define INITRAMFS_IMAGE(path) path,
	static const char *const places[] = {
#include "nvgrace_initramfs_images.h"
	};
#undef INITRAMFS_IMAGE
	char *token = entry_token(h), *path = NULL;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(places) && !path; i++) {
		const char *kernel = strstr(places[i], "KERNEL");
		const char *named = strstr(places[i], "TOKEN");

		if (named && (!token || !*token))
			continue;
		path = named ? xasprintf("%.*s%s/%s%s", (int)(named - places[i]), places[i], token,
					 release, kernel + strlen("KERNEL")) :
			       xasprintf("%.*s%s%s", (int)(kernel - places[i]), places[i], release,
					 kernel + strlen("KERNEL"));
		if (!host_exists(h, "%s", path)) {
			free(path);
			path = NULL;
		}
	}
	free(token);
	return path;
}

/*
 * The module that modprobe would load for that kernel: "PLACE ID", to be freed;
 * or NULL.
 */
static char *installed_module(const char *release)
{
	char *directory = xasprintf("/lib/modules/%s", release), *text = NULL, *place, *id;
	struct kmod_ctx *ctx = kmod_new(directory, NULL);
	struct kmod_list *list = NULL;
	struct kmod_module *mod;
	const char *path;

	if (ctx)
		kmod_set_log_priority(ctx, 0);
	if (ctx && kmod_module_new_from_lookup(ctx, MODULE_NAME, &list) >= 0 && list) {
		mod = kmod_module_get_module(list);
		path = kmod_module_get_path(mod);
		if (path) {
			place = module_place(path);
			id = module_id(ctx, path);
			text = xasprintf("%s %s", place, id ? id : "-");
			free(place);
			free(id);
		}
		kmod_module_unref(mod);
		kmod_module_unref_list(list);
	}
	kmod_unref(ctx);
	free(directory);
	return text;
}

char *images_read(struct host *h)
{
	char **releases = host_list(h, "/lib/modules"), *text = NULL, *more, *path, *installed;
	size_t i, j;

	for (i = 0; releases && releases[i]; i++) {
		struct image image = { };
		struct input *in;

		path = image_path(h, releases[i]);
		if (!path) {
			/* Folders without a kernel stay behind when kernels are removed. */
			if (!host_exists(h, "/boot/vmlinuz-%s", releases[i]) &&
			    !host_exists(h, "/lib/modules/%s/vmlinuz", releases[i]))
				continue;
			more = xasprintf("%skernel: %s\nimage: none\n", text ? text : "", releases[i]);
			free(text);
			text = more;
			continue;
		}
		in = xcalloc(1, sizeof(*in));
		in->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
		in->end = now_ms() + IMAGE_MS;
		if (in->fd < 0)
			image.error = errno == EACCES ? "only root can read it" : "it can't be opened";
		else
			read_archives(in, &image, true);
		if (in->fd >= 0)
			close(in->fd);
		free(in);
		installed = installed_module(releases[i]);
		more = xasprintf("%skernel: %s\nimage: %s\ninstalled: %s\nmodule: %s%s%s\nparts:%s%s\n",
				 text ? text : "", releases[i], path, installed ? installed : "none",
				 image.module ? image.module : "none", image.module ? " " : "",
				 !image.module ? "" : image.id ? image.id : "-",
				 image.rule ? " rule" : "", image.helper ? " helper" : "");
		free(text);
		text = more;
		for (j = 0; j < image.directives.count; j++) {
			char *directive = config_text(&image.directives.line[j]);

			more = xasprintf("%sdirective: %s\n", text, directive);
			free(directive);
			free(text);
			text = more;
		}
		if (image.error) {
			more = xasprintf("%serror: %s\n", text, image.error);
			free(text);
			text = more;
		}
		free(installed);
		free(path);
		free(image.module);
		free(image.id);
		config_free(&image.directives);
	}
	host_free_list(releases);
	return text;
}
