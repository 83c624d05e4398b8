/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the test programs use of cmocka, for static programs: distributions have
 * no static library of it. hardware.c runs the cases.
 */
#ifndef NVGRACE_HARDWARE_CMOCKA_H
#define NVGRACE_HARDWARE_CMOCKA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef int (*CMFixtureFunction)(void **state);

struct CMUnitTest {
	const char *name;
	void (*test_func)(void **state);
	CMFixtureFunction setup_func;
	CMFixtureFunction teardown_func;
};

#define cmocka_unit_test_setup_teardown(f, setup, teardown) \
	{ #f, f, setup, teardown }
#define cmocka_unit_test(f) \
	cmocka_unit_test_setup_teardown(f, NULL, NULL)
#define cmocka_unit_test_teardown(f, teardown) \
	cmocka_unit_test_setup_teardown(f, NULL, teardown)

/* Print as printf() does. The last two also end the case. */
void print_message(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void end_skipped(void);
void end_failed(const char *file, int line, const char *format, ...)
	__attribute__((format(printf, 3, 4), noreturn));

/* Fail with both values unless they are as @wanted. */
void check_numbers(uintmax_t a, uintmax_t b, bool equal, const char *text,
		   const char *file, int line);
void check_range(uintmax_t value, uintmax_t least, uintmax_t most, const char *text,
		 const char *file, int line);
void check_strings(const char *a, const char *b, const char *file, int line);
void check_memory(const void *a, const void *b, size_t size, const char *file,
		  int line);

#define skip()			end_skipped()
#define fail_msg(...)		end_failed(__FILE__, __LINE__, __VA_ARGS__)
#define assert_true(c) \
	do { \
		if (!(c)) \
			end_failed(__FILE__, __LINE__, "%s", #c); \
	} while (0)
#define assert_false(c)		assert_true(!(c))
#define assert_null(p)		assert_true((p) == NULL)
#define assert_non_null(p)	assert_true((p) != NULL)
#define assert_ptr_equal(a, b) \
	check_numbers((uintptr_t)(a), (uintptr_t)(b), true, #a, __FILE__, __LINE__)
#define assert_int_equal(a, b) \
	check_numbers((uintmax_t)(a), (uintmax_t)(b), true, #a, __FILE__, __LINE__)
#define assert_int_not_equal(a, b) \
	check_numbers((uintmax_t)(a), (uintmax_t)(b), false, #a, __FILE__, __LINE__)
#define assert_in_range(value, least, most) \
	check_range((uintmax_t)(value), (uintmax_t)(least), (uintmax_t)(most), #value, \
		    __FILE__, __LINE__)
#define assert_return_code(value, error) \
	do { \
		if ((intmax_t)(value) < 0) \
			end_failed(__FILE__, __LINE__, "%s: error %d", #value, (int)(error)); \
	} while (0)
#define assert_string_equal(a, b)	check_strings(a, b, __FILE__, __LINE__)
#define assert_memory_equal(a, b, size)	check_memory(a, b, size, __FILE__, __LINE__)

#endif /* NVGRACE_HARDWARE_CMOCKA_H */
