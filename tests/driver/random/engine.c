// SPDX-License-Identifier: GPL-2.0-only
/*
 * Long random sequences of what users and administrators can do with a GPU,
 * each operation compared with an independent model.
 *
 * What operation number i does depends only on the seed and on i, so a seed
 * replays a sequence. The settings are SEED and OPERATIONS.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "random.h"

/* Operations between lines of the output. */
#define PER_TEST	10000

/* Operations that a failure shows. */
#define TRACE		40
#define LINE		200

/* A sequence that is stuck in an operation ends and prints it. */
#define STUCK_S		1200

static uint64_t seed, now, operations;
static uint64_t numbers;	/* the state of draw() */
static char trace[TRACE][LINE];
static uint64_t traced;
static bool has_ended;

static uint64_t mix(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ULL;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebULL;
	return x ^ x >> 31;
}

uint64_t draw(uint64_t n)
{
	numbers += 0x9e3779b97f4a7c15ULL;
	return n ? mix(numbers) % n : 0;
}

bool chance(unsigned int percent)
{
	return draw(100) < percent;
}

void draw_bytes(void *buf, size_t count)
{
	uint8_t *p = buf;
	uint64_t word;

	for (; count; count -= count < 8 ? count : 8, p += 8) {
		word = draw(UINT64_MAX);
		memcpy(p, &word, count < 8 ? count : 8);
	}
}

/* ---- trace -------------------------------------------------------------- */

static char *line(void)
{
	return trace[traced % TRACE];
}

void say(const char *format, ...)
{
	size_t len = strlen(line());
	va_list args;

	va_start(args, format);
	vsnprintf(line() + len, LINE - len, format, args);
	va_end(args);
}

void not_now(const char *why)
{
	say(" (not now: %s)", why);
}

static void print_trace(void)
{
	uint64_t i = traced < TRACE ? 1 : traced - TRACE + 1;

	printf("# seed %llu, the last operations:\n", (unsigned long long)seed);
	for (; i <= traced; i++)
		printf("# %s\n", trace[i % TRACE]);
}

static void tell(void)
{
	print_trace();
	printf("# seed %llu failed at operation %llu of %llu\n",
	       (unsigned long long)seed, (unsigned long long)now,
	       (unsigned long long)operations);
	fflush(stdout);
}

void wrong(const char *format, ...)
{
	va_list args;

	has_ended = true;
	printf("# operation %llu: ", (unsigned long long)now);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	tell();
	_exit(1);
}

void expect(const char *what, int64_t seen, int64_t expected)
{
	if (seen != expected)
		wrong("%s: %lld, expected %lld", what, (long long)seen,
		      (long long)expected);
}

/* Reports a failure in lib.c, which ends the program. */
static void at_exit(void)
{
	if (!has_ended)
		tell();
}

static void stuck(int sig)
{
	(void)sig;
	wrong("no progress for %d s", STUCK_S);
}

/* ---- accesses that may fault -------------------------------------------- */

/* While an access may fault. */
static sigjmp_buf after_fault;
static volatile bool guarded;

static void on_fault(int sig)
{
	if (!guarded) {
		signal(sig, SIG_DFL);
		wrong("signal %d outside any access", sig);
	}
	siglongjmp(after_fault, sig);
}

int try_copy(void *dst, const void *src, size_t count)
{
	int sig = sigsetjmp(after_fault, 0);

	guarded = !sig;
	if (!sig)
		memcpy(dst, src, count);
	guarded = false;
	return sig;
}

/* ---- which operations --------------------------------------------------- */

static const struct op *const tables[] = {
	memory_ops, mapping_ops, config_ops, reset_ops, life_ops,
};

#define OPS	128

static const struct op *ops[OPS];
static uint64_t done[OPS];
static unsigned int op_count, weights;

static void choose_ops(void)
{
	const struct op *op;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(tables); i++) {
		for (op = tables[i]; op->name; op++) {
			assert_true(op_count < OPS);
			ops[op_count++] = op;
			weights += op->weight;
		}
	}
}

static void run_one(uint64_t number)
{
	unsigned int i, at;

	now = number;
	alarm(STUCK_S);
	/* Both through mix(), so that neighbours have nothing in common. */
	numbers = mix(mix(seed + 1) + number);
	at = draw(weights);
	for (i = 0; at >= ops[i]->weight; i++)
		at -= ops[i]->weight;
	traced++;
	line()[0] = 0;
	say("%llu %s", (unsigned long long)number, ops[i]->name);
	ops[i]->run();
	settle();
	done[i]++;
}

static void run_all(void)
{
	uint64_t i;

	for (i = 0; i < operations; i++) {
		run_one(i);
		if (i % PER_TEST != PER_TEST - 1 && i != operations - 1)
			continue;
		if (i == operations - 1)
			compare_all();
		printf("# operations to %llu agree\n", (unsigned long long)i);
		fflush(stdout);
	}
}

/* Starts from a known state, even if an earlier run has failed. */
static void begin(void)
{
	if (!gpu_bound(s.gpu))
		expect("bind", gpu_bind(s.gpu), 0);
	s.bound = true;
	open_session();
	vfio_make_ready(&s.v);
	write_all_known();
}

static void sequences_agree_with_the_model(void **state)
{
	struct sigaction sa = { .sa_handler = on_fault, .sa_flags = SA_NODEFER };
	struct sigaction late = { .sa_handler = stuck };
	unsigned int i;

	seed = setting("SEED", 1);
	operations = setting("OPERATIONS", PER_TEST);
	printf("# seed %llu operations %llu\n", (unsigned long long)seed,
	       (unsigned long long)operations);
	fflush(stdout);

	atexit(at_exit);
	sigaction(SIGBUS, &sa, NULL);
	sigaction(SIGSEGV, &sa, NULL);
	sigaction(SIGALRM, &late, NULL);
	alarm(STUCK_S);

	model_init(gpu_find("random"));
	choose_ops();
	begin();
	run_all();
	close_session();
	assert_true(gpu_unbind(s.gpu) == 0);

	printf("# drawn:");
	for (i = 0; i < op_count; i++)
		printf(" %s %llu", ops[i]->name, (unsigned long long)done[i]);
	printf("\n");
	has_ended = true;
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(sequences_agree_with_the_model),
};

const struct case_group groups[] = {
	{ "pages slow lab", CASES(tests) },
	{ }
};
