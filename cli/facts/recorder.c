// SPDX-License-Identifier: GPL-2.0-only
/*
 * "nvgrace-gpu doctor --record": writes every file, link and directory that was
 * read, and every answer, into a directory for --root. doctor.c and answers.c
 * call it, and every read of the system through the hook in struct host.
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "facts/recorder.h"
#include "system/host.h"
#include "system/output.h"
#include "system/program.h"
#include "system/replace.h"

struct recorder {
	struct host *host;
	char *directory;
	int fd;
	int error;	/* the first one; 0: none */
	char *path;	/* where it occurred */
};

static void failed(struct recorder *r, const char *path)
{
	if (r->error)
		return;
	r->error = errno ? errno : EIO;
	r->path = g_strdup(path);
}

/*
 * Opens the directory of path's last component, and creates it if needed.
 * Follows no recorded link, because here it leads elsewhere. Returns a
 * descriptor, or -1 with errno set.
 */
static int open_parent(struct recorder *r, const char *path, const char **last)
{
	g_autofree char *copy = g_strdup_printf("%s", path);
	char *part, *next, *rest = NULL;
	const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
	int dir = fcntl(r->fd, F_DUPFD_CLOEXEC, 0), sub;

	*last = strrchr(path, '/') + 1;
	for (part = strtok_r(copy, "/", &rest); part && dir >= 0; part = next) {
		next = strtok_r(NULL, "/", &rest);
		if (!next)
			break;
		sub = openat(dir, part, flags);
		if (sub < 0) {
			/* It was only listed so far, and is a directory. */
			if (errno != ENOENT)
				unlinkat(dir, part, 0);
			if (!mkdirat(dir, part, 0700))
				sub = openat(dir, part, flags);
		}
		close(dir);
		dir = sub;
	}
	return dir;
}

static void write_file(struct recorder *r, const char *path, const void *data, size_t len)
{
	const char *name;
	int dir = open_parent(r, path, &name), fd = -1;

	if (dir >= 0)
		fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0 || write_all(fd, data, len))
		failed(r, path);
	if (fd >= 0)
		close(fd);
	if (dir >= 0)
		close(dir);
}

static void write_link(struct recorder *r, const char *path, const char *target)
{
	const char *name;
	int dir = open_parent(r, path, &name);

	/*
	 * It may have been listed as its target's kind; nothing was read in it.
	 */
	if (dir >= 0 && unlinkat(dir, name, 0) && errno != ENOENT)
		unlinkat(dir, name, AT_REMOVEDIR);
	if (dir < 0 || symlinkat(target, dir, name))
		failed(r, path);
	if (dir >= 0)
		close(dir);
}

/* Records that something exists, without content; an existing entry stays. */
static void write_name(struct recorder *r, const char *path, bool directory)
{
	const char *name;
	int dir = open_parent(r, path, &name), fd = -1, rc;

	if (dir < 0) {
		failed(r, path);
		return;
	}
	if (directory) {
		rc = mkdirat(dir, name, 0700);
	} else {
		fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
		rc = fd < 0 ? -1 : 0;
	}
	if (rc && errno != EEXIST)
		failed(r, path);
	if (fd >= 0)
		close(fd);
	close(dir);
}

/* path is on the running system: only that is recorded. */
static bool is_directory(const char *path)
{
	struct stat st;

	return !stat(path, &st) && S_ISDIR(st.st_mode);
}

static void seen(struct host *h, enum host_kind kind, const char *path, const void *data,
		 size_t len, int error)
{
	struct recorder *r = h->seen_data;
	char *const *names = data;
	size_t i;

	/* What is missing or not readable is missing in the record, too. */
	if (!data)
		return;
	switch (kind) {
	case HOST_FILE:
		write_file(r, path, data, len);
		break;
	case HOST_LINK:
		write_link(r, path, data);
		break;
	case HOST_STAT:
		write_name(r, path, is_directory(path));
		break;
	case HOST_DIR:
		write_name(r, path, true);
		for (i = 0; names[i]; i++) {
			g_autofree char *sub = g_strdup_printf("%s/%s", path, names[i]);

			write_name(r, sub, is_directory(sub));
		}
		break;
	}
}

int recorder_begin(struct host *h, const char *directory, struct recorder **recorder)
{
	struct recorder *r;
	int fd = -1;

	if (h->recorded) {
		complain(NULL,
			"--record %s: can't be used with --root; copy the tree instead",
			 directory);
		return EXIT_USAGE_ERROR;
	}
	/*
	 * The directory is new, private and empty: no other user can put links
	 * into it.
	 */
	if (!mkdir(directory, 0700))
		fd = open(directory, O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC | O_RDONLY);
	if (fd < 0) {
		complain(NULL,
			"--record %s: %s; name a directory that does not exist yet",
			directory,
			 strerror(errno));
		return EXIT_USAGE_ERROR;
	}
	r = g_new0(struct recorder, 1);
	r->directory = g_strdup(directory);
	r->fd = fd;
	r->host = h;
	h->seen_data = r;
	h->seen = seen;
	*recorder = r;
	return EXIT_OK;
}

void recorder_answer(struct recorder *r, const char *name, const char *text)
{
	g_autofree char *path = g_strdup_printf("/answers/%s", name);

	if (r)
		write_file(r, path, text, strlen(text));
}

int recorder_end(struct recorder *r)
{
	int rc = EXIT_OK;

	if (!r)
		return EXIT_OK;
	r->host->seen = NULL;
	if (r->error) {
		complain(NULL,
			"--record %s: %s: %s; the record is not complete: remove it, and record to "
			 "another place", r->directory, r->path, strerror(r->error));
		rc = EXIT_FAILED;
	} else {
		/* Standard output may be a JSON document. */
		complain(NULL, "recorded in %s; read it before you send it, then run "
			 "\"tar -czf doctor.tar.gz %s\"", r->directory, r->directory);
	}
	close(r->fd);
	g_free(r->path);
	g_free(r->directory);
	g_free(r);
	return rc;
}
