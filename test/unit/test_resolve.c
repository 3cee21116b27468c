/* Names to addresses: the callback comes once and later, with addresses or with a reason; a lookup
 * that is cancelled is silent. `make tsan` runs it under ThreadSanitizer. */
#include "io/resolve.h"

#include <dirent.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

enum { LONG_MS = 30000 };

static struct loop *loop;
static int threads_before;
static int calls, found;
static char said[128];

static int threads(void)
{
	DIR *tasks = opendir("/proc/self/task");
	int n = 0;

	assert_non_null(tasks);
	while (readdir(tasks))
		n++;
	closedir(tasks);
	return n;
}

static int count_threads(void **state)
{
	(void)state;
	threads_before = threads();
	return 0;
}

/* A lookup that was cancelled still has its thread. Let it end, or the leak sanitizer counts what
 * getaddrinfo holds in it. */
static int wait_for_threads(void **state)
{
	(void)state;
	for (int ms = 0; threads() > threads_before; ms++) {
		if (ms == LONG_MS)
			fail_msg("a lookup's thread does not end");
		usleep(1000);
	}
	return 0;
}

static int setup(void **state)
{
	(void)state;
	loop = loop_new();
	calls = found = 0;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	loop_free(loop);
	return 0;
}

static void on_answer(void *ctx, const struct addrinfo *list, const char *error)
{
	int *expected = ctx;

	for (; list; list = list->ai_next)
		found++;
	strncpy(said, error, sizeof(said) - 1);
	if (++calls == *expected)
		loop_stop(loop);
}

static void test_many_at_once(void **state)
{
	int expected = 20;

	(void)state;
	for (int i = 0; i < expected; i++)
		resolve_start(loop, i % 2 ? "localhost" : "127.0.0.1", 6379, on_answer, &expected);
	assert_int_equal(calls, 0);
	loop_run(loop);
	assert_int_equal(calls, 20);
	assert_true(found >= 20);
}

static void test_no_such_name(void **state)
{
	int expected = 1;

	(void)state;
	resolve_start(loop, "no such name.invalid", 1, on_answer, &expected);
	loop_run(loop);
	assert_int_equal(found, 0);
	assert_string_not_equal(said, "");
}

static void test_cancelled(void **state)
{
	int expected = 1;

	(void)state;
	for (int i = 0; i < 20; i++)
		resolve_cancel(resolve_start(loop, "localhost", 6379, on_answer, NULL));
	resolve_start(loop, "127.0.0.1", 6379, on_answer, &expected);
	loop_run(loop);
	assert_int_equal(calls, 1);
}

/* Without a descriptor to be had, the callback says so, from the loop. */
static void test_out_of_descriptors(void **state)
{
	struct rlimit before, none;
	int expected = 1;

	(void)state;
	getrlimit(RLIMIT_NOFILE, &before);
	none = (struct rlimit){.rlim_cur = 0, .rlim_max = before.rlim_max};
	setrlimit(RLIMIT_NOFILE, &none);
	resolve_start(loop, "localhost", 6379, on_answer, &expected);
	resolve_cancel(resolve_start(loop, "localhost", 6379, on_answer, &expected));
	setrlimit(RLIMIT_NOFILE, &before);
	assert_int_equal(calls, 0);
	loop_run(loop);
	assert_int_equal(calls, 1);
	assert_int_equal(found, 0);
	assert_string_not_equal(said, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_many_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_such_name, setup, teardown),
		cmocka_unit_test_setup_teardown(test_cancelled, setup, teardown),
		cmocka_unit_test_setup_teardown(test_out_of_descriptors, setup, teardown),
	};

	return cmocka_run_group_tests(tests, count_threads, wait_for_threads);
}
