// SPDX-License-Identifier: GPL-2.0-only
/* See privilege.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "privilege.h"

/* No other user or group has this id. */
#define CLIENT_ID	54321

#ifndef SYS_close_range
#define SYS_close_range	436
#endif

/* The child's report, in memory that the parent shares. */
struct said {
	size_t length;
	bool at_end;
	char text[16 * KiB];
};

static struct said *said;

static struct said *shared(void)
{
	if (!said)
		said = mmap(NULL, sizeof(*said), RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(said != MAP_FAILED);
	return said;
}

void client_owns(const struct gpu *gpu)
{
	char path[64];

	snprintf(path, sizeof(path), "/dev/vfio/%d", gpu_group(gpu));
	if (chown(path, CLIENT_ID, CLIENT_ID))
		fail_msg("chown of %s: %s", path, strerror(errno));
}

/* Returns a hexadecimal field of /proc/self/status. */
static unsigned long long status_field(const char *name)
{
	unsigned long long value = ~0ULL;
	char *text = proc_text("/proc/self/status"), *at = strstr(text, name);

	if (at)
		sscanf(at + strlen(name), ": %llx", &value);
	free(text);
	return value;
}

/* Drops all ids, groups and capabilities of root for good. */
static void drop_root(void)
{
	if (setgroups(0, NULL) ||
	    setresgid(CLIENT_ID, CLIENT_ID, CLIENT_ID) ||
	    setresuid(CLIENT_ID, CLIENT_ID, CLIENT_ID) ||
	    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    /* After a change of ids, /proc/self belongs to root. */
	    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0))
		client_says("can't drop root: %s", strerror(errno));
	if (status_field("CapEff") || status_field("CapPrm") ||
	    status_field("CapInh") || status_field("CapAmb") ||
	    status_field("NoNewPrivs") != 1 || !setuid(0))
		client_says("root is not dropped");
}

void client_says(const char *format, ...)
{
	struct said *s = shared();
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(s->text + s->length, sizeof(s->text) - s->length, format,
		      args);
	va_end(args);
	s->length += n;
	if (s->length + 2 >= sizeof(s->text))
		s->length = sizeof(s->text) - 2;
	s->text[s->length++] = '\n';
	s->text[s->length] = 0;
}

const char *client_answer(void (*fn)(void))
{
	struct said *s = shared();
	int status;
	pid_t pid;

	memset(s, 0, sizeof(*s));
	fflush(stdout);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		syscall(SYS_close_range, 3, ~0U, 0);
		drop_root();
		fn();
		s->at_end = true;
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (!s->at_end || status)
		client_says("the client ended in the middle, with status %#x",
			    status);
	return s->text;
}

void as_client(void (*fn)(void))
{
	const char *text = client_answer(fn);

	if (*text)
		fail_msg("the client says:\n%s", text);
}
