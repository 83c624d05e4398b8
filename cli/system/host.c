// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reads the system or a recorded tree: see host.h.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "system/host.h"
#include "system/output.h"
#include "system/program.h"

/*
 * No file is larger; an endless file (a pipe in a tree) must not use all
 * memory.
 */
#define READ_MAX ((size_t)64 << 20)

/* ---- the host ----------------------------------------------------------- */

/* Arm's page sizes. Callers divide by it and need a power of two. */
static bool is_page_size(uint64_t size)
{
	return size == 4096 || size == 16384 || size == 65536;
}

/* As openat2(2), without the kernel's excuse that something was renamed meanwhile. */
static int open_resolved(int dir, const char *path, int flags, uint64_t resolve)
{
	struct open_how how = { .flags = flags | O_CLOEXEC, .resolve = resolve };
	int fd, tries = 16;

	do {
		fd = syscall(SYS_openat2, dir, path, &how, sizeof(how));
	} while (fd < 0 && errno == EAGAIN && --tries);
	return fd;
}

void host_init(struct host *h, const char *root)
{
	uint64_t value;

	memset(h, 0, sizeof(*h));
	h->dir = -1;
	h->privileged = geteuid() == 0;
	h->page_size = sysconf(_SC_PAGESIZE);
	if (!root || !root[strspn(root, "/")])
		return;
	h->dir = open_resolved(AT_FDCWD, root, O_PATH | O_DIRECTORY, 0);
	if (h->dir < 0) {
		complain(NULL, "--root %s: %s; give the directory of a recorded tree", root,
			 errno == ENOTDIR ? "not a directory" : strerror(errno));
		exit(EXIT_USAGE_ERROR);
	}
	h->recorded = true;
	/*
	 * The user who recorded it. A tree without this file was made by hand.
	 */
	h->privileged = host_u64(h, &value, "/answers/euid") || !value;
	h->page_size = 4096;
	if (!host_u64(h, &value, "/answers/page-size") && is_page_size(value))
		h->page_size = value;
}

void host_exit(struct host *h)
{
	if (h->dir >= 0)
		close(h->dir);
}

bool host_absent(void)
{
	return errno == ENOENT || errno == ENOTDIR || errno == ENODEV || errno == ENXIO;
}

static void tell(struct host *h, enum host_kind kind, const char *path, const void *data,
		 size_t len)
{
	int error = errno;

	if (h->seen)
		h->seen(h, kind, path, data, len, data ? 0 : error);
	errno = error;
}

/* A link of a tree leads to what is below its root, as it did on the host. */
static int open_path(struct host *h, const char *path, int flags)
{
	return h->recorded ? open_resolved(h->dir, path, flags, RESOLVE_IN_ROOT) :
			     open(path, flags | O_CLOEXEC);
}

/*
 * To read; -1 with EINVAL for what is no file in a tree: to open a device's
 * file may act on it.
 */
static int open_to_read(struct host *h, const char *path)
{
	struct stat st;
	int fd, rc;

	if (h->recorded) {
		fd = open_path(h, path, O_PATH);
		if (fd < 0)
			return -1;
		rc = fstat(fd, &st);
		close(fd);
		if (rc || !S_ISREG(st.st_mode)) {
			errno = !rc && S_ISDIR(st.st_mode) ? EISDIR : EINVAL;
			return -1;
		}
	}
	/* Not to wait for a pipe's other end, nor for a device's. */
	return open_path(h, path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
}

static char *read_path(struct host *h, const char *path, size_t *len)
{
	g_autofree char *text = NULL;
	size_t used = 0, room = 4096;
	int fd, error;
	ssize_t n;

	fd = open_to_read(h, path);
	if (fd < 0)
		return NULL;
	do {
		room *= 2;
		text = g_realloc(text, room + 1);
		while ((n = read(fd, text + used, room - used)) > 0)
			used += n;
	} while (n == 0 && used == room && room < READ_MAX);
	error = n < 0 ? errno : used == room ? EFBIG : 0;
	close(fd);
	if (error) {
		errno = error;
		return NULL;
	}
	text[used] = 0;
	*len = used;
	return g_steal_pointer(&text);
}

static char *vread(struct host *h, size_t *len, const char *fmt, va_list args)
{
	g_autofree char *path = g_strdup_vprintf(fmt, args);
	char *text;

	*len = 0;
	text = read_path(h, path, len);
	tell(h, HOST_FILE, path, text, *len);
	return text;
}

char *host_read(struct host *h, size_t *len, const char *fmt, ...)
{
	va_list args;
	size_t unused;
	char *text;

	va_start(args, fmt);
	text = vread(h, len ? len : &unused, fmt, args);
	va_end(args);
	return text;
}

static char *vline(struct host *h, const char *fmt, va_list args)
{
	size_t len, i;
	char *text = vread(h, &len, fmt, args), *start, *end;

	if (!text)
		return NULL;
	end = memchr(text, '\n', len);
	if (!end)
		end = text + len;
	for (start = text; start < end && isspace((unsigned char)*start); start++)
		;
	while (end > start && isspace((unsigned char)end[-1]))
		end--;
	len = end - start;
	memmove(text, start, len);
	text[len] = 0;
	/* "1\0x" is not a number. */
	for (i = 0; i < len; i++)
		if (!text[i])
			text[i] = '?';
	make_printable(text);
	return text;
}

ssize_t host_head(struct host *h, void *data, size_t len, const char *fmt, ...)
{
	g_autofree char *path = NULL;
	va_list args;
	ssize_t n;
	int fd;

	va_start(args, fmt);
	path = g_strdup_vprintf(fmt, args);
	va_end(args);
	fd = open_to_read(h, path);
	n = fd < 0 ? -1 : read(fd, data, len);
	tell(h, HOST_FILE, path, n < 0 ? NULL : data, n < 0 ? 0 : n);
	if (fd >= 0)
		close(fd);
	return n;
}

dev_t host_rdev(struct host *h, const char *fmt, ...)
{
	g_autofree char *path = NULL;
	struct statx stx = { };
	struct stat st = { };
	va_list args;
	dev_t rdev = 0;
	int fd;

	va_start(args, fmt);
	path = g_strdup_vprintf(fmt, args);
	va_end(args);
	if (!h->recorded) {
		/*
		 * Don't wait for the server of a network file that a process
		 * has open.
		 */
		if (!statx(AT_FDCWD, path, AT_STATX_DONT_SYNC, STATX_TYPE, &stx) &&
		    S_ISCHR(stx.stx_mode))
			rdev = makedev(stx.stx_rdev_major, stx.stx_rdev_minor);
	} else {
		fd = open_path(h, path, O_PATH);
		if (fd >= 0 && !fstat(fd, &st) && S_ISCHR(st.st_mode))
			rdev = st.st_rdev;
		if (fd >= 0)
			close(fd);
	}
	return rdev;
}

char *host_line(struct host *h, const char *fmt, ...)
{
	va_list args;
	char *text;

	va_start(args, fmt);
	text = vline(h, fmt, args);
	va_end(args);
	return text;
}

char *host_os_release(struct host *h, const char *key)
{
	g_autofree char *text = host_read(h, NULL, "/etc/os-release");
	g_auto(GStrv) lines = NULL;
	size_t len = strlen(key), i;
	const char *start;

	if (!text)
		text = host_read(h, NULL, "/usr/lib/os-release");
	lines = g_strsplit(text ? text : "", "\n", -1);
	for (i = 0; lines[i]; i++) {
		if (strncmp(lines[i], key, len) || lines[i][len] != '=')
			continue;
		start = lines[i] + len + 1;
		start += strspn(start, "\"'");
		return g_strndup(start, strcspn(start, "\"'"));
	}
	return g_strdup("");
}

int host_u64(struct host *h, uint64_t *value, const char *fmt, ...)
{
	g_autofree char *text = NULL;
	va_list args;

	va_start(args, fmt);
	text = vline(h, fmt, args);
	va_end(args);
	if (!text)
		return -1;
	if (parse_u64(text, value))
		return 0;
	errno = EINVAL;
	return -1;
}

int host_int(struct host *h, int *value, const char *fmt, ...)
{
	g_autofree char *text = NULL;
	va_list args;
	gint64 number;

	va_start(args, fmt);
	text = vline(h, fmt, args);
	va_end(args);
	if (!text)
		return -1;
	if (!g_ascii_string_to_signed(text, 10, INT_MIN, INT_MAX, &number, NULL)) {
		errno = EINVAL;
		return -1;
	}
	*value = number;
	return 0;
}

static char *vlink(struct host *h, const char *fmt, va_list args)
{
	g_autofree char *path = g_strdup_vprintf(fmt, args);
	char target[PATH_MAX];
	ssize_t n = -1;
	int fd;

	if (!h->recorded) {
		n = readlink(path, target, sizeof(target) - 1);
	} else {
		fd = open_path(h, path, O_PATH | O_NOFOLLOW);
		if (fd >= 0) {
			n = readlinkat(fd, "", target, sizeof(target) - 1);
			/*
			 * It is not a link; ENOENT would mean that it is
			 * missing.
			 */
			if (n < 0)
				errno = EINVAL;
			close(fd);
		}
	}
	if (n >= 0)
		target[n] = 0;
	tell(h, HOST_LINK, path, n < 0 ? NULL : target, n < 0 ? 0 : n);
	if (n < 0)
		return NULL;
	make_printable(target);
	return g_strdup(target);
}

char *host_link(struct host *h, const char *fmt, ...)
{
	va_list args;
	char *target;

	va_start(args, fmt);
	target = vlink(h, fmt, args);
	va_end(args);
	return target;
}

char *host_link_name(struct host *h, const char *fmt, ...)
{
	char *target, *slash;
	va_list args;

	va_start(args, fmt);
	target = vlink(h, fmt, args);
	va_end(args);
	if (!target)
		return NULL;
	slash = strrchr(target, '/');
	if (slash)
		memmove(target, slash + 1, strlen(slash)); /* NOLINT: with its NUL */
	return target;
}

static int by_version(const void *a, const void *b)
{
	return strverscmp(*(char *const *)a, *(char *const *)b);
}

char **host_list(struct host *h, const char *fmt, ...)
{
	g_autofree char *path = NULL;
	GPtrArray *names = NULL;
	struct dirent *entry;
	DIR *dir = NULL;
	char **list;
	va_list args;
	int fd;

	va_start(args, fmt);
	path = g_strdup_vprintf(fmt, args);
	va_end(args);
	fd = open_path(h, path, O_RDONLY | O_DIRECTORY);
	if (fd >= 0)
		dir = fdopendir(fd);
	if (fd >= 0 && !dir)
		close(fd);
	if (dir) {
		names = g_ptr_array_new();
		while ((entry = readdir(dir)))
			if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
				g_ptr_array_add(names, g_strdup(entry->d_name));
		closedir(dir);
		g_ptr_array_sort(names, by_version);
		g_ptr_array_add(names, NULL);
	}
	list = names ? (char **)g_ptr_array_free(names, FALSE) : NULL;
	tell(h, HOST_DIR, path, list, 0);
	return list;
}

bool host_exists(struct host *h, const char *fmt, ...)
{
	g_autofree char *path = NULL;
	va_list args;
	bool there;
	int fd;

	va_start(args, fmt);
	path = g_strdup_vprintf(fmt, args);
	va_end(args);
	if (!h->recorded) {
		there = !access(path, F_OK);
	} else {
		fd = open_path(h, path, O_PATH);
		there = fd >= 0;
		if (there)
			close(fd);
	}
	tell(h, HOST_STAT, path, there ? "" : NULL, 0);
	return there;
}
