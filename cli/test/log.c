// SPDX-License-Identifier: GPL-2.0-only
/*
 * The log file of "nvgrace-gpu test": see test.h. If the host stops, the last
 * line on its disk says what the test was about to do. So each line is written
 * at once, and the next step waits until the disk has it.
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "system/output.h"
#include "system/replace.h"
#include "test/test.h"

/* 0 or -1 with errno. Pipes and terminals have no disk. */
static int to_disk(int fd)
{
	return fsync(fd) && errno != EINVAL && errno != EROFS && errno != ENOTSUP ? -1 : 0;
}

/* A new file is on the disk when its directory is. */
static void directory_to_disk(const char *file)
{
	g_autofree char *directory = g_path_get_dirname(file);
	int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return;
	fsync(fd);
	close(fd);
}

enum exit_status log_open(struct test *t, const char *file)
{
	/*
	 * Who may write to /var/log must not lead root elsewhere by a link.
	 * Nobody waits for the other end of a pipe.
	 */
	int flags = O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK |
		    (file ? 0 : O_NOFOLLOW);
	struct stat st;
	bool out;

	t->log_file = g_strdup(file ? file : LOG_FILE);
	out = !stat(t->log_file, &st) && is_stdout(&st);
	if (out)
		/* Opened again, it would begin at the file's start. */
		t->log = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0);
	else
		t->log = open(t->log_file, flags, 0640);
	if (t->log < 0) {
		flags = errno;
		complain(t->e.gpu.address, "can't open the log file %s: %s; name another one with "
			 "--log", t->log_file, strerror(flags));
		log_close(t);
		return flags == EACCES || flags == EPERM ? EXIT_NOT_ROOT : EXIT_FAILED;
	}
	flags = fcntl(t->log, F_GETFL);
	if (flags >= 0 && !out)
		fcntl(t->log, F_SETFL, flags & ~O_NONBLOCK);
	directory_to_disk(t->log_file);
	return EXIT_OK;
}

void log_close(struct test *t)
{
	if (t->log >= 0)
		close(t->log);
	t->log = -1;
	g_clear_pointer(&t->log_file, g_free);
}

/* 0 or an errno. */
static int write_line(const struct test *t, const char *text)
{
	time_t date = time(NULL);
	g_autofree char *line = NULL;
	struct tm utc;
	char when[32];

	strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S UTC", gmtime_r(&date, &utc));
	line = g_strdup_printf("%s %s: %s\n", when, t->e.gpu.address, text);
	return write_all(t->log, line, strlen(line)) || to_disk(t->log) ? errno : 0;
}

void log_interrupted(const struct test *t)
{
	if (t->log >= 0)
		write_line(t, "interrupted");
}

void log_line(struct test *t, const char *fmt, ...)
{
	va_list args;
	g_autofree char *text = NULL;
	int error;

	if (t->log < 0)
		return;
	va_start(args, fmt);
	text = g_strdup_vprintf(fmt, args);
	va_end(args);
	error = write_line(t, text);
	if (!error)
		return;
	/* Nothing may be done that the log does not say first. */
	close(t->log);
	t->log = -1;
	result(t, "log", FAILED, "can't write to the log file %s: %s", t->log_file, strerror(error));
}
