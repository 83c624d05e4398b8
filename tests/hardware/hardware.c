// SPDX-License-Identifier: GPL-2.0-only
/*
 * A test program for a real GPU: what tests/lab/guest/main.c and the lab's parts
 * of lib.c are in a virtual machine. "nvgrace-gpu test --full" calls it:
 *
 *	PROGRAM --list		prints the names of the cases that don't need the lab
 *	PROGRAM CASE ADDRESS	runs one on a GPU that is bound, and stays bound
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib.h"

static struct gpu the_gpu = { .name = "gh200" };
static const struct case_group *group;
static const struct CMUnitTest *test;
static void *state;
static int fixtures;	/* that have been made */
static bool carve_out;

/* ---- the GPU --------------------------------------------------------------- */

const struct gpu *gpu_find(const char *name)
{
	assert_string_equal(name, the_gpu.name);
	return &the_gpu;
}

bool gpu_exists(const char *name)
{
	return !strcmp(name, the_gpu.name);
}

int gpu_bind(const struct gpu *gpu)
{
	return 0;
}

int gpu_unbind(const struct gpu *gpu)
{
	return 0;
}

int gpu_unbind_here(const struct gpu *gpu)
{
	return 0;
}

void gpu_unbind_all(void)
{
}

void other_peek(struct vfio *v, unsigned int index, uint64_t offset, void *buf, size_t count)
{
	assert_int_equal(vfio_read(v, REGION(index) + offset, buf, count), count);
}

void other_poke(struct vfio *v, unsigned int index, uint64_t offset, const void *buf,
		size_t count)
{
	assert_int_equal(vfio_write(v, REGION(index) + offset, buf, count), count);
}

/* No group without the word "lab" asks the lab. */
bool host_asked(const char *question, char *answer, size_t size)
{
	fail_msg("there is no lab for %s", question);
}

/* Opens the GPU once, to find out what cases may need of it. */
static void find_gpu(const char *address)
{
	char path[128], text[32];
	struct vfio v;

	snprintf(the_gpu.addr, sizeof(the_gpu.addr), "%s", address);
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/nvgrace_gpu/usemem_base", address);
	if (!access(path, R_OK)) {
		gpu_sysfs_read(&the_gpu, "nvgrace_gpu/usemem_base", text, sizeof(text));
		the_gpu.base = strtoull(text, NULL, 0);
	}
	vfio_open(&v, &the_gpu);
	carve_out = vfio_length(&v, USEMEM) && vfio_length(&v, RESMEM);
	vfio_close(&v);
}

/* ---- what cases need --------------------------------------------------------- */

enum known { YES = 0, NO = 1, UNKNOWN = 2 };

/* What a shell command says, which finds @name in its environment. */
static enum known asked(const char *command, const char *name)
{
	int status;

	setenv("name", name, 1);
	status = system(command);
	return WIFEXITED(status) && WEXITSTATUS(status) < UNKNOWN ? WEXITSTATUS(status) : UNKNOWN;
}

/* A word of tests/lab/needs.py. */
static enum known holds(const char *word)
{
	static const char of_config[] =
		"all=$({ zcat /proc/config.gz || cat /boot/config-$(uname -r) ||\n"
		"cat /lib/modules/$(uname -r)/config; } 2>/dev/null) || exit 2\n"
		"echo \"$all\" | grep -q \"^$name=\"";
	static const char of_module[] =
		"[ -e /sys/module/$name ] ||\n"
		"grep -qs \"/$name.ko$\" /lib/modules/$(uname -r)/modules.builtin";
	static const enum known opposite[] = { NO, YES, UNKNOWN };

	if (*word == '!')
		return opposite[holds(word + 1)];
	if (*word == '?')
		return YES;
	if (!strncmp(word, "CONFIG_", 7))
		return asked(of_config, word);
	if (!strncmp(word, "module:", 7))
		return asked(of_module, word + 7);
	if (!strncmp(word, "symbol:", 7))
		return asked("grep -q \" $name$\" /proc/kallsyms", word + 7);
	if (!strcmp(word, "this-driver"))
		return !!access("/sys/bus/pci/drivers/" DRIVER "/features", F_OK);
	if (!strcmp(word, "carve-out"))
		return !carve_out;
	if (!strcmp(word, "type1"))
		return !!access("/dev/vfio/vfio", F_OK);
	if (!strcmp(word, "model"))
		return !gpu_sysfs_is(&the_gpu, "vendor", "0x10de");
	return NO;
}

/* The first of these words that doesn't hold, or NULL. */
static const char *lacking(const char *needs, enum known *how)
{
	static char words[512];
	char *word, *rest = words;

	snprintf(words, sizeof(words), "%s", needs);
	while ((word = strsep(&rest, " "))) {
		*how = *word ? holds(word) : YES;
		if (*how != YES)
			return word;
	}
	return NULL;
}

bool machine_has(const char *needs)
{
	enum known how;
	const char *word = lacking(needs, &how);

	if (word && how == UNKNOWN) {
		print_message("# it can't be known whether there is %s\n", word);
		skip();
	}
	return !word;
}

/* ---- the case ----------------------------------------------------------------- */

static void fixture(CMFixtureFunction function)
{
	if (function && function(&state))
		fail_msg("what the case begins or ends with has failed");
}

/* If undoing a fixture fails, too, the end of the process does the rest. */
_Noreturn void end_case(enum end end)
{
	if (fixtures == 2) {
		fixtures = 1;
		fixture(test->teardown_func);
	}
	if (fixtures == 1) {
		fixtures = 0;
		fixture(group->teardown);
	}
	fflush(stdout);
	_exit(end);
}

static bool is_of_lab(const struct case_group *g)
{
	return strstr(g->needs, "lab");
}

static bool find_case(const char *name)
{
	size_t i;

	for (group = groups; group->needs; group++)
		for (i = 0; i < group->count && !is_of_lab(group); i++) {
			test = &group->cases[i];
			if (!strcmp(test->name, name))
				return true;
		}
	return false;
}

int main(int argc, char **argv)
{
	const char *word;
	enum known how;
	size_t i;

	if (argc == 2 && !strcmp(argv[1], "--list")) {
		for (group = groups; group->needs; group++)
			for (i = 0; i < group->count && !is_of_lab(group); i++)
				puts(group->cases[i].name);
		return 0;
	}
	if (argc != 3 || !find_case(argv[1])) {
		fprintf(stderr, "usage: %s --list | CASE ADDRESS\n", argv[0]);
		return 2;
	}
	setlinebuf(stdout);
	/* A killed run has left it. */
	rmdir("/sys/kernel/tracing/instances/nvgrace-gpu-tests");
	find_gpu(argv[2]);
	word = lacking(group->needs, &how);
	if (word) {
		print_message("# %s %s\n",
			      how == NO ? "needs" : "it can't be known whether there is", word);
		skip();
	}
	fixture(group->setup);
	fixtures = 1;
	if (test->initial_state)
		state = test->initial_state;
	fixture(test->setup_func);
	fixtures = 2;
	test->test_func(&state);
	end_case(PASSED);
}
