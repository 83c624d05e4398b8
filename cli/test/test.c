// SPDX-License-Identifier: GPL-2.0-only
/*
 * "nvgrace-gpu test": runs the cases of tests/driver that don't need the lab on a
 * GPU, in steps, the safest first, to meet new hardware or to accept a host. After
 * each case it reads what the host says, and the first step that fails is the last.
 *
 * The programs are in the folder "nvgrace-gpu-tests" beside this program's, with a
 * file "order" that has the name of one on each line. "PROGRAM --list" prints a line
 * for each case: a file, the name, and what the case needs, with tabs between them.
 * "PROGRAM CASE ADDRESS" runs one. The exit status says whether it failed, and the
 * output, which is TAP, whether it was skipped.
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "facts/command.h"
#include "open_gpu/progress.h"
#include "system/options.h"
#include "system/output.h"
#include "system/spawn.h"
#include "test/test.h"

/*
 * A case that takes longer hangs. Of its output, the result has LINES_MAX lines.
 */
enum { LIST_MS = 60000, CASE_MS = 3600000, LINES_MAX = 100 };

/* Lines of TAP that say no more than the result. */
#define VERDICT "^(TAP version \\d+|1\\.\\.\\d+|(# )?(not )?ok (\\d+ )?(- \\S+)?( ?# SKIP.*)?)$"

/* cases: those, as "program::case", or all of a program; NULL: all that are left. */
static const struct step {
	const char *name, *what, *cases;
} steps[] = {
	{ "look", "read what the kernel has of this GPU, and touch nothing", "" },
	{ "open", "open it by vfio, which resets it, and compare its regions", "region sysfs" },
	{ "touch", "write and read 64 bytes at both ends and every 64 MiB of its memory",
	  "memory::both_ends_keep_what_is_written memory::every_64_MiB_keep_what_is_written" },
	{ "sample", "write and read 64 bytes every 2 MiB of its memory",
	  "memory::every_2_MiB_keep_what_is_written" },
	{ "pattern", "write patterns to all of its memory by mappings, and read them",
	  "memory::all_of_the_memory_keeps_a_pattern_and_its_inverse" },
	{ "reset", "reset it by each method that it has, and access its memory",
	  "memory::memory_can_be_accessed_after_a_reset_by_each_method" },
	{ "d3hot", "turn it to D3hot and back, and access its memory",
	  "memory::memory_can_be_accessed_after_D3hot" },
	{ "file", "write and read its memory by the device's file",
	  "memory::the_file_accesses_what_the_mapping_does" },
	{ "scrub", "have the driver overwrite its memory with zeros, and read them",
	  "memory::after_a_scrub_all_of_the_memory_is_zero" },
	{ "driver", "run all other cases, which reset it many times", NULL },
};

/* Steps of a run without --full. */
enum { USUAL = G_N_ELEMENTS(steps) - 1, FULL };

static const char doc[] =
	"Test a GPU and its memory in steps, the safest first, and stop at the first step that fails or "
	"of which the host complains.\v"
	"--list prints the steps and their cases. An ADDRESS may be short (01:00.0) if only one GPU "
	"matches it. The GPU must be bound to a vfio driver that shows its memory, and no process may "
	"have it open. The command overwrites all of the memory and resets the GPU, and asks first.\n"
	"\n"
	"Exit status: 0 all steps passed, 1 a step failed; 2 to 5 and 130 as for the other commands.";

enum { KEY_UNTIL = 256, KEY_LOG, KEY_FULL, KEY_LIST };

static const struct argp_option options[] = {
	{ "full", KEY_FULL, NULL, 0, "Then test the driver, too", 0 },
	{ "list", KEY_LIST, NULL, 0, "Print the steps with their cases", 0 },
	{ "until", KEY_UNTIL, "look|open|touch|sample|pattern|reset|d3hot|file|scrub|driver", 0,
	  "Stop after this step", 0 },
	{ "log", KEY_LOG, "FILE", 0,
	  "Log there what each step is about to do (default " LOG_FILE ")", 0 },
	{ }
};

struct arguments {
	size_t count;	/* of steps; 0: those of the level */
	bool full;
	const char *log;
	struct wish wish;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &a->wish;
		return 0;
	case KEY_UNTIL:
		for (a->count = 0; a->count < FULL; a->count++)
			if (!strcmp(steps[a->count].name, arg))
				break;
		if (a->count++ == FULL)
			argp_error(state, "--until=%s: no such step; see --list", arg);
		return 0;
	case ARGP_KEY_END:
		if (a->count == FULL && !a->full)
			argp_error(state, "--until=%s needs --full", steps[USUAL].name);
		return 0;
	case KEY_FULL:
		a->full = true;
		return 0;
	case KEY_LIST:
		a->wish.lists = true;
		return 0;
	case KEY_LOG:
		a->log = arg;
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

/* ---- cases -------------------------------------------------------------- */

/* Adds a program's cases, from what it lists, but those that the project's lab runs. */
static bool add_cases(GStrvBuilder *all, const char *folder, const char *program)
{
	g_autofree char *path = g_build_filename(folder, program, NULL);
	char *const argv[] = { path, (char *)"--list", NULL };
	g_autofree char *list = program_output(LIST_MS, path, argv);
	g_auto(GStrv) lines = text_lines(list);
	size_t i;

	for (i = 0; lines && lines[i]; i++) {
		g_auto(GStrv) fields = g_strsplit(lines[i], "\t", 3);
		g_autofree char *name = NULL;

		if (g_strv_length(fields) < 3 || strstr(fields[2], "lab"))
			continue;
		name = g_strdup_printf("%s::%s", program, fields[1]);
		g_strv_builder_add(all, name);
	}
	if (!list)
		complain(NULL, "%s doesn't list its cases; install the package nvgrace-gpu-tests again",
			 path);
	return list;
}

/* All cases, in the order of the programs; NULL after a message. */
static char **find_cases(struct host *h, const char *folder)
{
	g_autoptr(GStrvBuilder) all = g_strv_builder_new();
	g_autofree char *order = host_read(h, NULL, "%s/order", folder);
	g_auto(GStrv) programs = text_lines(order);
	size_t i;

	if (!order)
		complain(NULL, "can't read %s/order: %s; install the package nvgrace-gpu-tests again", folder,
			 strerror(errno));
	for (i = 0; order && programs[i]; i++)
		if (!add_cases(all, folder, programs[i]))
			return NULL;
	return order ? g_strv_builder_end(all) : NULL;
}

/* The step to which a case belongs. */
static const struct step *step_of(const char *name)
{
	g_autofree char *program = g_strndup(name, strcspn(name, ":"));
	const struct step *s = steps;

	while (s->cases && !has_word(s->cases, name) && !has_word(s->cases, program))
		s++;
	return s;
}

/* What a case has printed, without addresses. */
static char *told(const char *output)
{
	g_autoptr(GString) text = g_string_new(NULL);
	g_auto(GStrv) lines = g_strsplit(output, "\n", 0);
	size_t i, count = 0;

	for (i = 0; lines[i] && count < LINES_MAX; i++) {
		char *line = lines[i] + (g_str_has_prefix(lines[i], "# ") ? 2 : 0);

		if (!*line || g_regex_match_simple(VERDICT, lines[i], 0, 0))
			continue;
		make_printable(line);
		remove_addresses(line);
		g_string_append_printf(text, "%s%s", count++ ? "\n" : "", line);
	}
	return g_string_free(g_steal_pointer(&text), FALSE);
}

/*
 * A case that chooses reset methods may have been killed before it restored them,
 * or is about to be.
 */
static void restore_methods(const struct test *t)
{
	g_autofree char *path = g_strdup_printf(DEVICES "/%s/reset_method", t->e.gpu.address);
	g_autofree char *present = host_line(t->e.host, "%s", path);
	int fd = present && t->methods && strcmp(present, t->methods) ?
		 open(path, O_WRONLY | O_TRUNC | O_CLOEXEC) : -1;

	if (fd < 0)
		return;
	if (write(fd, t->methods, strlen(t->methods)) < 0)
		complain(t->e.gpu.address, "can't restore reset_method: %s; run \"echo %s > %s\"",
			 strerror(errno), t->methods, path);
	close(fd);
}

static void run_case(struct test *t, const char *name)
{
	g_auto(GStrv) words = g_strsplit(name, "::", 2);
	g_autofree char *path = g_build_filename(t->programs, words[0], NULL), *output = NULL, *text;
	char *const argv[] = { path, words[1], t->e.gpu.address, NULL };
	int status, error;

	error = program_test(CASE_MS, path, argv, &output, &status);
	text = told(output);
	if (error)
		result(t, name, FAILED, "%s\n%s", strerror(error), text);
	else if (WIFSIGNALED(status))
		result(t, name, FAILED, "ended by signal %d\n%s", WTERMSIG(status), text);
	else
		result(t, name, WEXITSTATUS(status) ? FAILED : strstr(output, "# SKIP") ? SKIPPED : PASSED,
		       "%s", text);
	restore_methods(t);
}

/* ---- the run ------------------------------------------------------------ */

/* Notes a first line of the device's files in sysfs. */
static void note_file(struct test *t, const char *id, const char *name)
{
	g_autofree char *text = host_line(t->e.host, DEVICES "/%s/%s", t->e.gpu.address, name);

	if (text && *text)
		result(t, id, NOTED, "%s", text);
}

/* What a reader of the report must know. */
static void look(struct test *t)
{
	static const char *const names[] = { "bios_vendor", "bios_version", "bios_date", "sys_vendor",
					     "product_name" };
	g_autofree char *system = host_os_release(t->e.host, "PRETTY_NAME");
	g_autofree char *features = host_line(t->e.host, "/sys/bus/pci/drivers/%s/features",
					      t->e.gpu.driver);
	g_autoptr(GString) firmware = g_string_new(NULL);
	size_t i;

	for (i = 0; i < G_N_ELEMENTS(names); i++) {
		g_autofree char *text = host_line(t->e.host, "/sys/class/dmi/id/%s", names[i]);

		g_string_append_printf(firmware, "%s%s", i ? ", " : "", text ?: "?");
	}
	result(t, "system", NOTED, "%s%sLinux %s", system, *system ? ", " : "", t->e.kernel);
	result(t, "firmware", NOTED, "%s", firmware->str);
	result(t, "driver", NOTED, "%s %s, %s%s", t->e.gpu.driver, t->e.driver_version ?: "",
	       features ? "this project's, features: " : "another one, such as Linux's own",
	       features ?: "");
	note_file(t, "readiness", "nvgrace_gpu/readiness");
	note_file(t, "reset-methods", "reset_method");
	note_file(t, "pcie-speed", "current_link_speed");
	note_file(t, "pcie-width", "current_link_width");
	if (t->kmsg < 0)
		result(t, "log-of-kernel", NOTED, "this user can't read it: what the kernel says is not "
		       "seen");
}

/* A failed case of the driver ends the step only if the host complains of it, too. */
static void run_step(struct test *t, const struct step *step, char *const *cases)
{
	bool failed = false;

	if (step == &steps[0])
		look(t);
	/* The message of a GPU that can't be opened is this program's own. */
	if (step == &steps[1])
		t->status = open_gpu_open(&t->e);
	if (t->status)
		return;
	vfio_close(&t->e.vfio);
	complaints_read(t);
	for (; *cases && !t->failed; cases++) {
		g_autofree char *text = g_strdup_printf("case %s", *cases);

		if (step_of(*cases) != step)
			continue;
		log_line(t, text);
		if (t->failed)
			break;
		run_case(t, *cases);
		failed |= t->failed;
		t->failed = t->log < 0;
		complaints_read(t);
		t->failed |= failed && step->cases;
	}
	t->failed |= failed;
}

/* In another thread, before the end of the process. */
static void interrupted(void *data)
{
	const struct test *t = data;

	programs_end();
	restore_methods(t);
	if (t->log >= 0)
		log_write(t, "interrupted");
}

/* Runs the first steps. What became of each is added to a JSON array. */
static void run(struct test *t, size_t count, char *const *cases, struct json_object *array)
{
	size_t i;

	complaints_begin(t);
	progress_undo(interrupted, t);
	for (i = 0; i < count && !t->status; i++) {
		const struct step *step = &steps[i];
		struct json_object *object = json_object_new_object();
		bool begins = !t->failed;
		g_autofree char *text = g_strdup_printf("step %zu of %zu, %s: %s", i + 1, count,
							step->name, step->what);

		t->step = step->name;
		if (begins)
			log_line(t, text);
		if (begins && !t->failed) {
			progress_say(t->e.gpu.address, text);
			if (i)
				progress_interrupted("the GPU is bound as before, but its memory may be "
						     "overwritten");
			run_step(t, step, cases);
		}
		json_object_object_add(object, "name", json_text(step->name));
		json_object_object_add(object, "outcome",
				       json_text(!begins ? "skipped" : t->failed ? "failed" : "passed"));
		json_object_array_add(array, object);
	}
	progress_undo(NULL, NULL);
	log_line(t, t->status ? "end: not possible" : t->failed ? "end: failed" : "end: passed");
}

static enum exit_status run_locked(struct test *t, const struct arguments *a, char *const *cases)
{
	struct json_object *document = json_document("test"), *array = json_object_new_array();
	const char *address = t->e.gpu.address;

	t->status = log_open(t, a->log);
	if (t->status) {
		json_object_put(document);
		json_object_put(array);
		return t->status;
	}
	if (a->wish.json)
		t->checks = json_object_new_array();
	else
		printf("%s  %s\n", address, t->e.gpu.product);
	t->methods = host_line(t->e.host, DEVICES "/%s/reset_method", address);
	log_line(t, "begin: " PROGRAM " " VERSION " test");
	run(t, a->count, cases, array);
	progress_end();
	open_gpu_json(&t->e, document);
	json_object_object_add(document, "passed", json_object_new_boolean(!t->failed));
	json_object_object_add(document, "log", json_text(t->log_file));
	json_object_object_add(document, "steps", array);
	json_object_object_add(document, "checks", t->checks);
	if (a->wish.json && !t->status) {
		json_print(document);
	} else if (t->status) {
		json_object_put(document);
	} else {
		printf("%s: %s%s%s; see %s\n", address,
		       colour(t->failed ? COLOUR_BAD : COLOUR_GOOD), t->failed ? "FAILED" : "passed",
		       colour(COLOUR_NONE), t->log_file);
		json_object_put(document);
	}
	if (t->log >= 0)
		close(t->log);
	if (t->kmsg >= 0)
		close(t->kmsg);
	g_free(t->methods);
	g_free(t->bridges);
	return t->status ?: t->failed ? EXIT_FAILED : EXIT_OK;
}

/*
 * Another instance may neither test nor unbind the GPU between two cases. EXIT_OK, or
 * an exit status after a message. A user who is not root can't unbind.
 */
static enum exit_status lock(const char *address, int *fd)
{
	*fd = gpu_lock(address, false);
	if (*fd >= 0 || errno == EACCES || errno == EPERM)
		return EXIT_OK;
	if (errno == EWOULDBLOCK) {
		complain(address, "another " PROGRAM " is changing or testing it; wait until that ends");
		return EXIT_REFUSED;
	}
	complain(address, "can't lock it: %s", strerror(errno));
	return EXIT_FAILED;
}

static void print_list(size_t count, char *const *cases)
{
	size_t i;

	for (i = 0; i < count; i++) {
		char *const *c;

		puts(steps[i].name);
		for (c = cases; *c; c++)
			if (step_of(*c) == &steps[i])
				printf("  %s\n", *c);
	}
}

static int cmd_test(struct host *h, int argc, char **argv)
{
	static const struct argp argp = {
		options, parse, NULL, doc, open_gpu_children, NULL, NULL
	};
	struct arguments a = {
		.wish = { .command = "test", .interrupted = "nothing done" },
	};
	g_autofree char *here = g_file_read_link("/proc/self/exe", NULL);
	g_autofree char *folder = g_path_get_dirname(here ?: "/");
	struct test t = { .log = -1, .kmsg = -1, .step = steps->name };
	g_auto(GStrv) cases = NULL;
	int rc, fd;

	parse_options(&argp, argc, argv, &a);
	a.count = a.count ?: a.full ? FULL : USUAL;
	t.programs = g_strconcat(folder, "-tests", NULL);
	cases = find_cases(h, t.programs);
	if (cases && a.wish.lists)
		print_list(a.count, cases);
	if (!cases || a.wish.lists) {
		g_free(t.programs);
		return cases ? EXIT_OK : EXIT_FAILED;
	}
	if (a.count > 1)
		a.wish.risk = "overwrites the memory of this GPU";
	rc = open_gpu_find(h, &a.wish, &t.e);
	if (!rc) {
		rc = lock(t.e.gpu.address, &fd);
		if (!rc)
			rc = run_locked(&t, &a, cases);
		if (fd >= 0)
			close(fd);
		open_gpu_end(&t.e);
	}
	g_free(t.programs);
	return rc;
}

int main(int argc, char **argv)
{
	return command_main("test", cmd_test, argc, argv);
}
