/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the test programs use of cmocka, for static programs: distributions have
 * no static library of it. Each case has a process of its own, which end_case()
 * ends.
 */
#ifndef NVGRACE_HARDWARE_CMOCKA_H
#define NVGRACE_HARDWARE_CMOCKA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef int (*CMFixtureFunction)(void **state);

struct CMUnitTest {
	const char *name;
	void (*test_func)(void **state);
	CMFixtureFunction setup_func;
	CMFixtureFunction teardown_func;
	void *initial_state;
};

#define cmocka_unit_test_setup_teardown(f, setup, teardown) { #f, f, setup, teardown }
#define cmocka_unit_test(f)	cmocka_unit_test_setup_teardown(f, NULL, NULL)
#define cmocka_unit_test_teardown(f, teardown) cmocka_unit_test_setup_teardown(f, NULL, teardown)

/* As in the kernel's selftests. */
enum end { PASSED = 0, FAILED = 1, SKIPPED = 4 };

_Noreturn void end_case(enum end end);

#define print_message(...)	printf(__VA_ARGS__)
#define skip()			end_case(SKIPPED)
#define fail_msg(...) \
	do { \
		printf("# %s:%d: ", __FILE__, __LINE__); \
		printf(__VA_ARGS__); \
		putchar('\n'); \
		end_case(FAILED); \
	} while (0)
#define assert_true(c) \
	do { \
		if (!(c)) \
			fail_msg("%s", #c); \
	} while (0)
#define assert_false(c)		assert_true(!(c))
#define assert_null(p)		assert_true((p) == NULL)
#define assert_non_null(p)	assert_true((p) != NULL)
/* Errors are small; a report shows no number that may be an address. */
#define NUMBER(n)	((intmax_t)(n) > -65536 && (intmax_t)(n) < 65536 ? "%jd" : "%#jx")
#define assert_compared(a, compare, b) \
	do { \
		uintmax_t a_ = (uintmax_t)(a), b_ = (uintmax_t)(b); \
		char at_[24], bt_[24]; \
		if (!(a_ compare b_)) { \
			snprintf(at_, sizeof(at_), NUMBER(a_), a_); \
			snprintf(bt_, sizeof(bt_), NUMBER(b_), b_); \
			fail_msg("%s: %s " #compare " %s", #a, at_, bt_); \
		} \
	} while (0)
#define assert_ptr_equal(a, b)		assert_compared((uintptr_t)(a), ==, (uintptr_t)(b))
#define assert_int_equal(a, b)		assert_compared(a, ==, b)
#define assert_int_not_equal(a, b)	assert_compared(a, !=, b)
#define assert_in_range(value, least, most) \
	do { \
		uintmax_t value_ = (uintmax_t)(value); \
		assert_compared(value_, >=, least); \
		assert_compared(value_, <=, most); \
	} while (0)
#define assert_return_code(value, error) \
	do { \
		if ((intmax_t)(value) < 0) \
			fail_msg("%s: %s", #value, strerror(error)); \
	} while (0)
#define assert_string_equal(a, b) \
	do { \
		const char *a_ = (a), *b_ = (b); \
		if (strcmp(a_, b_)) \
			fail_msg("\"%s\" instead of \"%s\"", a_, b_); \
	} while (0)
#define assert_memory_equal(a, b, size) \
	do { \
		if (memcmp(a, b, size)) \
			fail_msg("%s and %s differ", #a, #b); \
	} while (0)

#endif /* NVGRACE_HARDWARE_CMOCKA_H */
