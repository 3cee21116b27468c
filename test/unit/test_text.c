/* Texts put together without printf. */
#include "unit.h"

#include <inttypes.h>

#include "common/arena.h"
#include "common/text.h"

static void test_numbers(void **state)
{
	static const int64_t rows[] = {
		0, 1, 9, 10, 200, -1, -10, 1760000000, INT64_MAX, INT64_MIN, INT64_MIN + 1};
	char text[TEXT_INT_MAX], want[32];

	(void)state;
	for (size_t i = 0; i < NELEM(rows); i++) {
		snprintf(want, sizeof(want), "%" PRId64, rows[i]);
		assert_string_equal(text_int(text, rows[i]), want);
	}
}

static void test_joined_and_cut(void **state)
{
	struct arena *a = arena_new();
	char out[8] = "-------";

	(void)state;
	text_join(out, sizeof(out), "ab", "", "cd");
	assert_string_equal(out, "abcd");
	text_join(out, sizeof(out), "abcd", "efghij", "k");
	assert_string_equal(out, "abcdefg");
	text_join(out, 1, "x");
	assert_string_equal(out, "");
	assert_string_equal(arena_join(a, "one", "", "two"), "onetwo");
	assert_string_equal(arena_join(a, ""), "");
	arena_free(a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_joined_and_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
