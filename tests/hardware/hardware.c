// SPDX-License-Identifier: GPL-2.0-only
/*
 * Runs the cases of a test program on a real GPU: what tests/lab/guest/main.c
 * and the lab's parts of lib.c are in a virtual machine. nvgrace-gpu-tests calls
 * it:
 *
 *	PROGRAM --list [WORD]		prints the names of the cases
 *	PROGRAM ADDRESS FIRST [WORD]	runs them, and numbers them from FIRST on
 *
 * WORD: only the cases whose name, such as mmap::protection_bits_hold, contains
 * it. In the environment, REPORT is a file to which all output is appended,
 * CONFIG one with the kernel's configuration, and ADDRESSES=1 means that physical
 * addresses may be shown.
 *
 * The GPU is bound before, and stays bound. Exit status: 0, 1 if a case failed,
 * 3 if the kernel complained, 4 if the GPU can't be used.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <regex.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "lib.h"

/* Lines of the kernel's log that end the run; the Makefile writes it. */
static const char *const splats[] = {
#include "splats.h"
};

enum { PASSED = 0, FAILED = 1, COMPLAINT = 3, UNUSABLE = 4 };

/* A program that takes longer hangs. */
#define PROGRAM_S	1800

static struct gpu the_gpu = { .name = "gh200" };
static bool carve_out, is_nvidia;
static FILE *report;
static int kmsg = -1;

/* ---- output --------------------------------------------------------------- */

/* As cli/test/complaints.c, and what looks like a pointer without 0x. */
static bool may_be_address(const char *word, size_t length)
{
	static const char digits[] = "0123456789abcdefABCDEF";

	if (length > 2 && !strncmp(word, "0x", 2))
		return length >= 2 + 5 && strspn(word + 2, digits) >= length - 2;
	return length >= 16 && strspn(word, digits) >= length;
}

static void remove_addresses(char *text)
{
	char *from = text, *to = text;
	size_t length;

	if (getenv("ADDRESSES"))
		return;
	while (*from) {
		for (length = 0; isalnum((unsigned char)from[length]); )
			length++;
		if (may_be_address(from, length)) {
			memcpy(to, "...", 3);
			to += 3;
		} else {
			length = length ?: 1;
			memmove(to, from, length);
			to += length;
		}
		from += length;
	}
	*to = 0;
}

static void say_to(FILE *f, const char *text)
{
	fputs(text, f);
	fflush(f);
}

static void vsay(const char *before, const char *format, va_list args)
{
	char text[2048];
	int n = snprintf(text, sizeof(text), "%s", before);

	vsnprintf(text + n, sizeof(text) - n, format, args);
	remove_addresses(text);
	say_to(stdout, text);
	if (report)
		say_to(report, text);
}

static void __attribute__((format(printf, 1, 2))) say(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsay("", format, args);
	va_end(args);
}

void print_message(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsay("", format, args);
	va_end(args);
}

/* ---- how a case ends ------------------------------------------------------- */

enum end { END_PASSED = 1, END_FAILED, END_SKIPPED };

/* Only the thread that runs the case may end it. */
static jmp_buf way_out;

void end_skipped(void)
{
	longjmp(way_out, END_SKIPPED);
}

void end_failed(const char *file, int line, const char *format, ...)
{
	char where[256];
	va_list args;

	snprintf(where, sizeof(where), "# %s:%d: ", strrchr(file, '/') ?
		 strrchr(file, '/') + 1 : file, line);
	va_start(args, format);
	vsay(where, format, args);
	va_end(args);
	say("\n");
	longjmp(way_out, END_FAILED);
}

void check_numbers(uintmax_t a, uintmax_t b, bool equal, const char *text,
		   const char *file, int line)
{
	bool same = a == b;

	if (same != equal)
		end_failed(file, line, "%s is %#jx (%jd), %s %#jx (%jd)", text, a, (intmax_t)a,
			   equal ? "not" : "like", b, (intmax_t)b);
}

void check_range(uintmax_t value, uintmax_t least, uintmax_t most, const char *text,
		 const char *file, int line)
{
	if (value < least || value > most)
		end_failed(file, line, "%s is %ju, not from %ju to %ju", text, value, least, most);
}

void check_strings(const char *a, const char *b, const char *file, int line)
{
	if (strcmp(a, b))
		end_failed(file, line, "\"%s\" instead of \"%s\"", a, b);
}

void check_memory(const void *a, const void *b, size_t size, const char *file, int line)
{
	const unsigned char *x = a, *y = b;
	size_t i, first = size, count = 0;

	for (i = 0; i < size; i++) {
		if (x[i] == y[i])
			continue;
		if (!count++)
			first = i;
	}
	if (count)
		end_failed(file, line, "%zu of %zu bytes differ, at %zu %#x instead of %#x", count,
			   size, first, x[first], y[first]);
}

/* ---- the GPU --------------------------------------------------------------- */

const struct gpu *gpu_find(const char *name)
{
	if (strcmp(name, the_gpu.name))
		fail_msg("there is no GPU %s outside of the lab", name);
	return &the_gpu;
}

bool gpu_exists(const char *name)
{
	return !strcmp(name, the_gpu.name);
}

int gpu_bind(const struct gpu *gpu)
{
	(void)gpu;
	return 0;
}

int gpu_unbind(const struct gpu *gpu)
{
	(void)gpu;
	return 0;
}

int gpu_unbind_here(const struct gpu *gpu)
{
	(void)gpu;
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
	snprintf(answer, size, "there is no lab for %s", question);
	return false;
}

/* ---- what cases need --------------------------------------------------------- */

enum known { NO, YES, UNKNOWN };

static bool file_has_line(const char *path, const char *begin, const char *word)
{
	char line[512];
	bool found = false;
	FILE *f = fopen(path, "r");

	while (f && !found && fgets(line, sizeof(line), f)) {
		const char *at = word ? strstr(line, word) : line;

		found = at && !strncmp(line, begin, strlen(begin));
	}
	if (f)
		fclose(f);
	return found;
}

static enum known has_option(const char *option)
{
	const char *config = getenv("CONFIG");
	char line[130];

	if (!config || access(config, R_OK))
		return UNKNOWN;
	snprintf(line, sizeof(line), "%s=", option);
	return file_has_line(config, line, NULL);
}

/* Whether it is loaded or built in. */
static bool has_module(const char *name)
{
	struct utsname kernel;
	char path[160], file[64];

	snprintf(path, sizeof(path), "/sys/module/%s", name);
	if (!access(path, F_OK) || uname(&kernel))
		return true;
	snprintf(path, sizeof(path), "/lib/modules/%s/modules.builtin", kernel.release);
	snprintf(file, sizeof(file), "/%s.ko\n", name);
	return file_has_line(path, "", file);
}

/* A word of tests/lab/needs.py. */
static enum known holds(const char *word)
{
	char text[128];

	if (*word == '!') {
		enum known other = holds(word + 1);

		return other == UNKNOWN ? UNKNOWN : !other;
	}
	if (*word == '?')
		return YES;
	if (!strncmp(word, "CONFIG_", 7))
		return has_option(word);
	if (!strncmp(word, "module:", 7))
		return has_module(word + 7);
	if (!strncmp(word, "symbol:", 7)) {
		snprintf(text, sizeof(text), " %s\n", word + 7);
		return file_has_line("/proc/kallsyms", "", text);
	}
	if (!strcmp(word, "this-driver"))
		return !access("/sys/bus/pci/drivers/" DRIVER "/features", F_OK);
	if (!strcmp(word, "carve-out"))
		return carve_out;
	if (!strcmp(word, "type1"))
		return !access("/dev/vfio/vfio", F_OK);
	if (!strcmp(word, "model"))
		return is_nvidia;
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
		say("# whether this kernel has %s can't be known\n", word);
		skip();
	}
	return !word;
}

static bool is_of_lab(const struct case_group *group)
{
	return strstr(group->needs, "lab");
}

/* ---- the kernel's log --------------------------------------------------------- */

static bool is_splat(const char *text)
{
	static regex_t patterns[ARRAY_SIZE(splats)];
	static bool compiled;
	size_t i;

	for (i = 0; !compiled && i < ARRAY_SIZE(splats); i++)
		if (regcomp(&patterns[i], splats[i], REG_EXTENDED | REG_NOSUB))
			abort();
	compiled = true;
	for (i = 0; i < ARRAY_SIZE(splats); i++)
		if (!regexec(&patterns[i], text, 0, NULL, 0))
			return true;
	return false;
}

/* Shows the new lines of the kernel. Returns whether one is a complaint. */
static bool read_kmsg(void)
{
	bool complaint = false;
	char record[8192];
	ssize_t len;

	for (;;) {
		len = read(kmsg, record, sizeof(record) - 1);
		if (len < 0 && errno == EPIPE) {
			say("# kernel: (lines were lost)\n");
			continue;
		}
		if (len <= 0)
			return complaint;
		record[len] = 0;
		/* "level,number,time,flags;text\n"; programs have another facility. */
		if (atoi(record) > 7 || !strchr(record, ';'))
			continue;
		record[strcspn(record, "\n")] = 0;
		say("# kernel: %s\n", strchr(record, ';') + 1);
		complaint |= is_splat(strchr(record, ';') + 1);
	}
}

/* ---- the run ------------------------------------------------------------------ */

static const char *wanted;

static const char *name_of(const struct CMUnitTest *test)
{
	static char name[256];

	snprintf(name, sizeof(name), "%s::%s", program_invocation_short_name, test->name);
	return name;
}

static bool is_wanted(const struct CMUnitTest *test)
{
	return !wanted || strstr(name_of(test), wanted);
}

static enum end run_fixture(CMFixtureFunction function, void **state)
{
	int end = setjmp(way_out);

	if (!end && function && function(state)) {
		say("# a fixture failed\n");
		return END_FAILED;
	}
	return end ?: END_PASSED;
}

static enum end run_test(const struct CMUnitTest *test, void **state)
{
	int end = setjmp(way_out);

	if (!end)
		test->test_func(state);
	return end ?: END_PASSED;
}

static enum end run_case(const struct CMUnitTest *test)
{
	void *state = NULL;
	enum end end = run_fixture(test->setup_func, &state), last;

	if (end != END_PASSED)
		return end;
	end = run_test(test, &state);
	last = run_fixture(test->teardown_func, &state);
	return end == END_PASSED ? last : end;
}

static void print_end(enum end end, unsigned int number, const struct CMUnitTest *test,
		      const char *reason)
{
	say("%sok %u - %s%s%s\n", end == END_FAILED ? "not " : "", number, name_of(test),
	    end == END_SKIPPED ? " # SKIP " : "", end == END_SKIPPED ? reason : "");
	if (report)
		fsync(fileno(report));
}

static const char *why_not(const struct case_group *group)
{
	static char reason[640];
	enum known how;
	const char *word = lacking(group->needs, &how);

	if (!word)
		return NULL;
	snprintf(reason, sizeof(reason), how == UNKNOWN ? "whether there is %s can't be known" :
		 "needs %s", word);
	return reason;
}

/* Runs a group's cases. Returns its worst status, and advances *@number. */
static int run_group(const struct case_group *group, unsigned int *number)
{
	const char *reason = why_not(group);
	enum end begin = END_SKIPPED, end;
	bool any = false, complaint;
	int status = PASSED;
	void *state = NULL;
	uint64_t begun;
	size_t i;

	for (i = 0; i < group->count; i++)
		any |= is_wanted(&group->cases[i]);
	if (any && !reason)
		begin = run_fixture(group->setup, &state);
	for (i = 0; i < group->count; i++) {
		const struct CMUnitTest *test = &group->cases[i];

		if (!is_wanted(test))
			continue;
		begun = now_ms();
		end = begin == END_PASSED ? run_case(test) : begin;
		complaint = read_kmsg();
		if (end == END_PASSED && complaint)
			end = END_FAILED;
		print_end(end, (*number)++, test, reason ?: "this GPU is no subject for it");
		if (end != END_SKIPPED)
			say("# %llu ms\n", (unsigned long long)(now_ms() - begun));
		if (end == END_FAILED)
			status = FAILED;
		/* A group's fixture may have opened what its cases use. */
		if (end == END_FAILED && !group->setup)
			gpu_let_go();
		if (complaint) {
			say("Bail out! the kernel complained\n");
			return COMPLAINT;
		}
	}
	if (begin == END_PASSED && run_fixture(group->teardown, &state) == END_FAILED)
		status = FAILED;
	return status;
}

/*
 * Opens the GPU once, so that one that can't be used fails no case, and finds out
 * what cases may need of it. Fails like a case.
 */
static void find_gpu(const char *address)
{
	char text[32], path[128];
	struct vfio v;

	snprintf(the_gpu.addr, sizeof(the_gpu.addr), "%s", address);
	is_nvidia = gpu_sysfs_is(&the_gpu, "vendor", "0x10de");
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/nvgrace_gpu/usemem_base", address);
	if (!access(path, R_OK)) {
		gpu_sysfs_read(&the_gpu, "nvgrace_gpu/usemem_base", text, sizeof(text));
		the_gpu.base = strtoull(text, NULL, 0);
	}
	vfio_open(&v, &the_gpu);
	carve_out = vfio_length(&v, USEMEM) && vfio_length(&v, RESMEM);
	vfio_close(&v);
}

static bool can_use_gpu(const char *address)
{
	if (setjmp(way_out))
		return false;
	find_gpu(address);
	return true;
}

static int list(void)
{
	const struct case_group *group;
	size_t i;

	for (group = groups; group->needs; group++)
		for (i = 0; i < group->count && !is_of_lab(group); i++)
			if (is_wanted(&group->cases[i]))
				puts(name_of(&group->cases[i]));
	return 0;
}

int main(int argc, char **argv)
{
	const struct case_group *group;
	unsigned int number;
	int status = PASSED, this;

	if (argc > 1 && !strcmp(argv[1], "--list")) {
		wanted = argc > 2 ? argv[2] : NULL;
		return list();
	}
	if (argc < 3) {
		fprintf(stderr, "%s: nvgrace-gpu-tests calls this program\n", argv[0]);
		return 2;
	}
	number = atoi(argv[2]);
	wanted = argc > 3 ? argv[3] : NULL;
	/* nvgrace-gpu-tests ends the processes that a case forks, too. */
	setpgid(0, 0);
	alarm(PROGRAM_S);
	if (getenv("REPORT"))
		report = fopen(getenv("REPORT"), "ae");
	kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (kmsg < 0) {
		say("Bail out! can't read /dev/kmsg: %s\n", strerror(errno));
		return UNUSABLE;
	}
	lseek(kmsg, 0, SEEK_END);
	if (!can_use_gpu(argv[1])) {
		say("Bail out! the GPU can't be used\n");
		return UNUSABLE;
	}
	for (group = groups; group->needs; group++) {
		if (is_of_lab(group))
			continue;
		this = run_group(group, &number);
		if (this > status)
			status = this;
		if (status == COMPLAINT)
			break;
	}
	return status;
}
