/* Token buckets: what is let through, when, and what a flood of keys can do. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <stdio.h>
#include <time.h>

#include <cmocka.h>

#include "common/bucket.h"

static int64_t wait_ms;

static bool take(struct buckets *b, const char *key, int64_t count, int64_t period_ms)
{
	return buckets_take(b, key, 3, &(struct bucket_limit){count, period_ms}, &wait_ms);
}

static void test_a_burst_then_the_rate(void **state)
{
	struct buckets *b = buckets_new(64);

	(void)state;
	for (int i = 0; i < 5; i++)
		assert_true(take(b, "one", 5, 1000000));
	assert_false(take(b, "one", 5, 1000000));
	assert_true(wait_ms > 199000 && wait_ms <= 200000); /* a fifth of the period brings one */
	assert_false(take(b, "one", 5, 1000000));           /* asking in vain costs nothing */
	assert_true(wait_ms > 199000 && wait_ms <= 200000);
	assert_true(take(b, "two", 5, 1000000));
	buckets_free(b);
}

static void test_it_fills_again(void **state)
{
	struct buckets *b = buckets_new(64);

	(void)state;
	assert_true(take(b, "one", 2, 100));
	assert_true(take(b, "one", 2, 100));
	assert_false(take(b, "one", 2, 100));
	assert_true(wait_ms <= 50);
	nanosleep(&(struct timespec){.tv_nsec = (wait_ms + 1) * 1000000}, NULL); /* as told */
	assert_true(take(b, "one", 2, 100));
	buckets_free(b);
}

/* As a reload does it. */
static void test_a_changed_limit_holds_at_once(void **state)
{
	struct buckets *b = buckets_new(64);

	(void)state;
	assert_true(take(b, "one", 2, 86400000) && take(b, "one", 2, 86400000));
	assert_false(take(b, "one", 2, 86400000));
	for (int i = 0; i < 1000; i++)
		assert_true(take(b, "one", 1000, 86400000));
	assert_false(take(b, "one", 1000, 86400000));
	for (int i = 0; i < 10; i++)
		assert_true(take(b, "one", 10, 10000));
	assert_false(take(b, "one", 10, 10000));
	assert_false(take(b, "one", 2, 86400000)); /* and the old one, should it come back */
	buckets_free(b);
}

static void test_spending(void **state)
{
	const struct bucket_limit limit = {20, 1000000};
	struct buckets *b = buckets_new(64);

	(void)state;
	for (int i = 0; i < 2; i++) {
		assert_true(take(b, "one", 20, 1000000));
		buckets_spend(b, "one", 3, &limit, 9);
	}
	assert_false(take(b, "one", 20, 1000000));
	buckets_spend(b, "one", 3, &limit, 9);
	assert_false(take(b, "one", 20, 1000000));
	assert_true(wait_ms <= 50000); /* no debt beyond an empty bucket */
	buckets_spend(b, "one", 3, &(struct bucket_limit){0, 0}, 9);
	buckets_free(b);
}

static void test_no_limit(void **state)
{
	struct buckets *b = buckets_new(64);

	(void)state;
	for (int i = 0; i < 1000; i++)
		assert_true(take(b, "one", 0, 0));
	buckets_free(b);
}

/* Of a million keys each gets its first token, and the key that spent all stays held back by
 * whoever is fuller. */
static void test_a_flood_of_keys(void **state)
{
	struct buckets *b = buckets_new(1024);
	int held = 0;

	(void)state;
	while (take(b, "bad", 100, 1000000))
		;
	for (uint32_t i = 0; i < 1000000; i++) {
		assert_true(buckets_take(
			b, &i, sizeof(i), &(struct bucket_limit){100, 1000000}, &wait_ms));
		if (i % 1000 == 0)
			held += !take(b, "bad", 100, 1000000);
	}
	assert_true(held >= 990);
	buckets_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_burst_then_the_rate),
		cmocka_unit_test(test_it_fills_again),
		cmocka_unit_test(test_no_limit),
		cmocka_unit_test(test_a_changed_limit_holds_at_once),
		cmocka_unit_test(test_spending),
		cmocka_unit_test(test_a_flood_of_keys),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
