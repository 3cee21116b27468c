/* Arenas: zeroed, aligned, any size, wiped at the end and fresh again afterwards. */
#include "unit.h"

#include "common/arena.h"

static void test_sizes(void **state)
{
	struct arena *a = arena_new();

	(void)state;
	for (size_t n = 0; n < 10000; n += 37) {
		unsigned char *p = arena_alloc(a, n);

		assert_int_equal((uintptr_t)p % 16, 0);
		for (size_t i = 0; i < n; i++)
			assert_int_equal(p[i], 0);
		memset(p, 0xee, n);
	}
	arena_free(a);
	arena_free(NULL);
}

/* Blocks are used again: what stood in them must not show. */
static void test_the_next_arena_is_clean(void **state)
{
	(void)state;
	for (int round = 0; round < 3; round++) {
		struct arena *a = arena_new();

		for (int i = 0; i < 40; i++) {
			char *p = arena_alloc(a, 300);

			for (int j = 0; j < 300; j++)
				assert_int_equal(p[j], 0);
			memset(p, 's', 300);
		}
		arena_free(a);
	}
}

static void test_strings(void **state)
{
	struct arena *a = arena_new();
	char *s = arena_strndup(a, "abc\0def", 7);

	(void)state;
	assert_memory_equal(s, "abc\0def", 8);
	assert_string_equal(arena_strdup(a, ""), "");
	assert_string_equal(arena_printf(a, "%s-%d", "x", -7), "x--7");
	s = arena_printf(a, "%5000d", 1);
	assert_int_equal(strlen(s), 5000);
	arena_free(a);
}

/* What was printed into a block that proved too small leaves nothing there, neither for this arena
 * nor for the next. */
static void test_a_print_that_does_not_fit(void **state)
{
	struct arena *a = arena_new();
	char *s, *first = arena_alloc(a, 16);

	(void)state;
	s = arena_printf(a, "%s%4999d", "secret", 1);
	assert_int_equal(strlen(s), 5005);
	assert_memory_equal(s, "secret ", 7);
	for (int i = 16; i < 3000; i++)
		assert_int_equal(first[i], 0);
	arena_free(a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_the_next_arena_is_clean),
		cmocka_unit_test(test_strings),
		cmocka_unit_test(test_a_print_that_does_not_fit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
