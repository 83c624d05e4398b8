// SPDX-License-Identifier: GPL-2.0-only
/*
 * Writes a file as a whole: see replace.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "system/replace.h"
#include "system/util.h"

static void release(struct replacement *r)
{
	g_free(r->file);
	g_free(r->target);
	g_free(r->temporary);
	g_free(r->text);
	g_free(r);
}

int write_all(int fd, const char *text, size_t length)
{
	ssize_t n;

	while (length) {
		n = write(fd, text, length);
		if (n < 0)
			return -1;
		text += n;
		length -= n;
	}
	return 0;
}

bool is_stdout(const struct stat *st)
{
	struct stat out;

	return !fstat(STDOUT_FILENO, &out) && out.st_dev == st->st_dev && out.st_ino == st->st_ino;
}

/*
 * Sets r->target, unless the file must be written in place. The kernel follows
 * the links, because it refuses those that another user left in /tmp.
 */
static int find_target(struct replacement *r)
{
	struct stat st;
	int fd = open(r->file, O_PATH | O_CLOEXEC), rc;

	if (fd < 0 && errno == ENOENT) {
		if (lstat(r->file, &st) || !S_ISLNK(st.st_mode)) {
			r->target = g_strdup(r->file);
			return 0;
		}
		/* A link to a file that is missing. */
		fd = open(r->file, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	}
	if (fd < 0)
		return -1;
	rc = fstat(fd, &st);
	close(fd);
	if (rc)
		return -1;
	if (!S_ISREG(st.st_mode) || is_stdout(&st))
		return 0;
	r->target = realpath(r->file, NULL);
	return r->target ? 0 : -1;
}

/* Writes the new file beside the target. */
static int write_aside(struct replacement *r, mode_t mode, const char *text, size_t length)
{
	char *slash = strrchr(r->target, '/');
	int directory = slash ? slash + 1 - r->target : 0, fd, rc, error;

	/* Hidden, and without the target's ending: no directory's reader takes it. */
	r->temporary = g_strdup_printf("%.*s.%s.XXXXXX", directory, r->target, r->target + directory);
	fd = mkostemp(r->temporary, O_CLOEXEC);
	if (fd < 0)
		return -1;
	rc = write_all(fd, text, length) || fchmod(fd, mode) || fsync(fd) ? -1 : 0;
	error = errno;
	close(fd);
	if (rc)
		unlink(r->temporary);
	errno = error;
	return rc;
}

struct replacement *replacement_begin(const char *file, mode_t mode, const char *text, size_t length)
{
	struct replacement *r = g_new0(struct replacement, 1);
	int rc, error;

	r->file = g_strdup(file);
	rc = find_target(r);
	if (!rc && r->target) {
		rc = write_aside(r, mode, text, length);
	} else if (!rc) {
		r->text = g_memdup2(text, length);
		r->length = length;
	}
	if (!rc)
		return r;
	error = errno;
	release(r);
	errno = error;
	return NULL;
}

static int write_in_place(struct replacement *r)
{
	struct stat st;
	int fd, rc, error;

	/* Standard output may be a socket, which can't be opened. */
	if (!stat(r->file, &st) && is_stdout(&st))
		return write_all(STDOUT_FILENO, r->text, r->length);
	fd = open(r->file, O_WRONLY | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	rc = write_all(fd, r->text, r->length);
	error = errno;
	if (close(fd) && !rc)
		return -1;
	errno = error;
	return rc;
}

static int move(struct replacement *r)
{
	char *slash = strrchr(r->target, '/');
	int error, fd;

	if (rename(r->temporary, r->target)) {
		error = errno;
		unlink(r->temporary);
		errno = error;
		return -1;
	}
	/* The next reboot may be a loss of power. */
	if (slash)
		slash[1] = 0;
	fd = open(slash ? r->target : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0) {
		fsync(fd);
		close(fd);
	}
	return 0;
}

int replacement_commit(struct replacement *r)
{
	int rc = r->target ? move(r) : write_in_place(r), error = errno;

	release(r);
	errno = error;
	return rc;
}

void replacement_abandon(struct replacement *r)
{
	if (r->temporary)
		unlink(r->temporary);
	release(r);
}
