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
	GTree *links;	/* path: target, from the last path to the first; they are made at the end */
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

/* Where the path is in the record, in folders that are there; to be freed. */
static char *place_of(struct recorder *r, const char *path)
{
	char *place = g_strconcat(r->directory, path, NULL);
	g_autofree char *folder = g_path_get_dirname(place);

	if (g_mkdir_with_parents(folder, 0700))
		failed(r, path);
	return place;
}

/* flags: O_TRUNC replaces a file; O_EXCL keeps what is there. */
static void write_file(struct recorder *r, const char *path, const void *data, size_t len, int flags)
{
	g_autofree char *place = place_of(r, path);
	int fd = open(place, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0600);

	if (fd < 0 ? errno != EEXIST : write_all(fd, data, len))
		failed(r, path);
	if (fd >= 0)
		close(fd);
}

/* Records that something exists, without content. */
static void write_name(struct recorder *r, const char *path, bool directory)
{
	g_autofree char *place = place_of(r, path);

	if (!directory)
		write_file(r, path, "", 0, O_EXCL);
	else if (g_mkdir_with_parents(place, 0700))
		failed(r, path);
}

/*
 * Makes a link. What was listed as its target's kind goes, and what was read through it
 * stays in its place.
 */
static int write_link(void *key, void *value, void *data)
{
	struct recorder *r = data;
	g_autofree char *place = place_of(r, key);
	struct stat st;

	if (!lstat(place, &st) && (S_ISDIR(st.st_mode) ? rmdir(place) : st.st_size ? -1 : unlink(place)))
		return 0;
	if (symlink(value, place))
		failed(r, key);
	return 0;
}

static int compare(const void *a, const void *b, void *unused)
{
	return strcmp(b, a);
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
		write_file(r, path, data, len, O_TRUNC);
		break;
	case HOST_LINK:
		g_tree_replace(r->links, g_strdup(path), g_strdup(data));
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
	if (mkdir(directory, 0700)) {
		complain(NULL,
			"--record %s: %s; name a directory that does not exist yet",
			directory, strerror(errno));
		return EXIT_USAGE_ERROR;
	}
	r = g_new0(struct recorder, 1);
	r->directory = g_strdup(directory);
	r->links = g_tree_new_full(compare, NULL, g_free, g_free);
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
		write_file(r, path, text, strlen(text), O_TRUNC);
}

int recorder_end(struct recorder *r)
{
	int rc = EXIT_OK;

	if (!r)
		return EXIT_OK;
	r->host->seen = NULL;
	g_tree_foreach(r->links, write_link, r);
	g_tree_unref(r->links);
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
	g_free(r->path);
	g_free(r->directory);
	g_free(r);
	return rc;
}
