// SPDX-License-Identifier: GPL-2.0-only
/*
 * Puts the program under pressure: memory is short, and processors go offline
 * and back.
 *
 * The client runs in a memory cgroup with little room above what it needs. A
 * second process in that cgroup fills it with pages that the kernel may drop,
 * so almost every charge has to reclaim, including those of page tables. The
 * kernel never has to kill. The machines have no swap. A third process takes
 * processors offline and back.
 *
 * Both processes end with the client, however it ends.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "random.h"

#define CGROUPS		"/run/cgroup"
#define GROUP		CGROUPS "/pressed"

/* The sequence's buffers, model and children need less than this. */
#define LIMIT_MIB	96

/* More than the limit, so that the group can't hold it. */
#define FILL_MIB	128

/*
 * The step and the pause of the filler, which leaves the processor to the
 * client.
 */
#define STEP		(64 << 10)
#define STEP_US		2000

/* The longest pause between changes of the processors. */
#define CPU_MS		400

static pid_t filler, switcher;
static unsigned long *switches;

/* Returns the number after @name in the statistics of the group. */
static unsigned long long event(const char *name)
{
	char *text = proc_text(GROUP "/memory.events"), *at, key[40];
	unsigned long long value;

	snprintf(key, sizeof(key), "\n%s ", name);
	at = strstr(text, key);
	if (!at)
		fail_msg("memory.events has no %s", name);
	value = strtoull(at + strlen(key), NULL, 10);
	free(text);
	return value;
}

/* Starts a child that runs @fn until it is killed. */
static pid_t start(void (*fn)(void))
{
	pid_t parent = getpid(), pid;

	fflush(stdout);
	pid = fork();
	assert_true(pid >= 0);
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(0);
	fn();
	_exit(1);
}

static void fill_group(void)
{
	size_t size = (size_t)FILL_MIB << 20, at, i;
	volatile char *p;

	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		 -1, 0);
	if (p == MAP_FAILED)
		return;
	madvise((void *)p, size, MADV_NOHUGEPAGE);
	for (;;) {
		for (at = 0; at < size; at += STEP) {
			for (i = at; i < at + STEP; i += 4096)
				p[i] = 1;
			if (madvise((void *)(p + at), STEP, MADV_FREE))
				return;
			usleep(STEP_US);
		}
	}
}

static void switch_processors(void)
{
	glob_t found;
	size_t i;
	int fd;

	if (glob("/sys/devices/system/cpu/cpu[0-9]*/online", 0, NULL, &found))
		return;
	for (i = 0;; i++) {
		const char *path = found.gl_pathv[i / 2 % found.gl_pathc];

		usleep(rand() % CPU_MS * 1000);
		/* EBUSY: the last processor can't go offline. */
		fd = open(path, O_WRONLY | O_CLOEXEC);
		if (fd >= 0 && write(fd, i % 2 ? "1" : "0", 1) == 1)
			++*switches;
		close(fd);
	}
}

static void all_processors(void)
{
	glob_t found;
	size_t i;

	assert_int_equal(glob("/sys/devices/system/cpu/cpu[0-9]*/online", 0,
			      NULL, &found), 0);
	/* Writing "1" to a 1 is no error. */
	for (i = 0; i < found.gl_pathc; i++)
		must_write_file(found.gl_pathv[i], "1");
	globfree(&found);
}

void press(void)
{
	char text[32];

	mkdir(CGROUPS, 0755);
	if (mount("cgroup2", CGROUPS, "cgroup2", 0, NULL) && errno != EBUSY)
		fail_msg("cgroup2: %s", strerror(errno));
	must_write_file(CGROUPS "/cgroup.subtree_control", "+memory");
	if (mkdir(GROUP, 0755) && errno != EEXIST)
		fail_msg(GROUP ": %s", strerror(errno));
	snprintf(text, sizeof(text), "%dM", LIMIT_MIB);
	must_write_file(GROUP "/memory.max", text);

	switches = mmap(NULL, sizeof(*switches), PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(switches != MAP_FAILED);
	switcher = start(switch_processors);
	must_write_file(GROUP "/cgroup.procs", "0");
	filler = start(fill_group);
}

void press_no_more(void)
{
	unsigned long long reclaims = event("max"), killed = event("oom_kill");
	pid_t *pids[] = { &filler, &switcher };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(pids); i++) {
		/* The process must have run until now. */
		assert_int_equal(waitpid(*pids[i], NULL, WNOHANG), 0);
		kill(*pids[i], SIGKILL);
		assert_int_equal(waitpid(*pids[i], NULL, 0), *pids[i]);
	}
	all_processors();
	must_write_file(CGROUPS "/cgroup.procs", "0");
	assert_int_equal(rmdir(GROUP), 0);
	printf("# met the limit of %d MiB %llu times, switched processors %lu times\n",
	       LIMIT_MIB, reclaims, *switches);
	assert_true(reclaims > 0);
	assert_true(*switches > 0);
	assert_int_equal(killed, 0);
}
