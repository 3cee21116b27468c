/* traceparent: the examples and the rules of W3C Trace Context. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>

#include <cmocka.h>

#include "common/trace.h"

#define TRACE  "4bf92f3577b34da6a3ce929d0e0e4736"
#define PARENT "00f067aa0ba902b7"

static void good_ones(void **state)
{
	(void)state;
	assert_true(trace_parent_ok("00-" TRACE "-" PARENT "-01"));
	assert_true(trace_parent_ok("00-" TRACE "-" PARENT "-00"));
	assert_true(trace_parent_ok("00-" TRACE "-" PARENT "-ff"));
	assert_true(trace_parent_ok("cc-" TRACE "-" PARENT "-01")); /* of a version to come */
	assert_true(trace_parent_ok("cc-" TRACE "-" PARENT "-01-what-the-future-will-be-like"));
}

static void bad_ones(void **state)
{
	static const char *const bad[] = {
		"",
		"00",
		"00-" TRACE "-" PARENT,
		"00-" TRACE "-" PARENT "-1",
		"00-" TRACE "-" PARENT "-01-",
		"00-" TRACE "-" PARENT "-01.",
		"cc-" TRACE "-" PARENT "-01.what",
		"cc-" TRACE "-" PARENT "-0100",
		"ff-" TRACE "-" PARENT "-01",
		"00-" TRACE "-" PARENT "-0g",
		"00-4BF92F3577B34DA6A3CE929D0E0E4736-" PARENT "-01",
		"00-00000000000000000000000000000000-" PARENT "-01",
		"00-" TRACE "-0000000000000000-01",
		"00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7a-01",
		"0x-" TRACE "-" PARENT "-01",
		"00_" TRACE "_" PARENT "_01",
		"00-4bf92f3577b34da6a3ce929d0e0e473\n-" PARENT "-01",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (trace_parent_ok(bad[i]))
			fail_msg("taken: %s", bad[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(good_ones), cmocka_unit_test(bad_ones)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
