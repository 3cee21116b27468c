/* The order of deferred calls, timers that are moved, stopped and freed in their own callback, and
 * signals. */
#include "io/loop.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"

static struct loop *loop;
static char trail[256]; /* what ran, in order */

static void note(const char *s)
{
	strncat(trail, s, sizeof(trail) - strlen(trail) - 1);
}

static int setup(void **state)
{
	(void)state;
	loop = loop_new();
	trail[0] = '\0';
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	loop_free(loop);
	return 0;
}

static void say(void *ctx)
{
	note(ctx);
}

static void stop(void *ctx)
{
	(void)ctx;
	loop_stop(loop);
}

static void say_and_defer(void *ctx)
{
	note(ctx);
	loop_defer(loop, say, "d");
	loop_defer(loop, stop, NULL);
}

static void test_defer_keeps_order(void **state)
{
	(void)state;
	loop_defer(loop, say, "a");
	loop_defer(loop, say_and_defer, "b");
	loop_defer(loop, say, "c");
	assert_string_equal(trail, "");
	loop_run(loop);
	assert_string_equal(trail, "abcd");
}

static void test_defer_grows(void **state)
{
	(void)state;
	for (int i = 0; i < 200; i++)
		loop_defer(loop, say, "x");
	loop_defer(loop, stop, NULL);
	loop_run(loop);
	assert_int_equal(strlen(trail), 200);
}

static int rounds;

static void again(void *ctx)
{
	rounds++;
	loop_defer(loop, again, ctx);
}

/* A call that defers itself for ever must not keep the loop from its sockets and timers. */
static void test_defer_does_not_starve(void **state)
{
	struct timer *t = timer_new(loop, stop, NULL);

	(void)state;
	rounds = 0;
	loop_defer(loop, again, NULL);
	timer_start(t, 20);
	loop_run(loop);
	assert_true(rounds > 1);
	timer_free(t);
}

static void test_deferred_calls_are_dropped(void **state)
{
	(void)state;
	loop_defer(loop, say, "never"); /* teardown frees the loop */
}

static void say_and_undefer(void *ctx)
{
	note(ctx);
	loop_undefer(loop, say, "b"); /* of this turn */
	loop_defer(loop, say, "d");
	loop_undefer(loop, say, "d"); /* of the next */
	loop_defer(loop, stop, NULL);
}

static void test_undefer(void **state)
{
	(void)state;
	loop_defer(loop, say_and_undefer, "a");
	loop_defer(loop, say, "b");
	loop_defer(loop, say, "c");
	loop_defer(loop, say, "b");
	loop_run(loop);
	assert_string_equal(trail, "ac");
}

struct own {
	struct timer *t;
	int           left;
};

static void free_own(void *ctx)
{
	struct own *o = ctx;

	note("f");
	timer_free(o->t);
	loop_defer(loop, stop, NULL);
}

static void restart_own(void *ctx)
{
	struct own *o = ctx;

	note("r");
	if (--o->left)
		timer_start(o->t, 1);
	else
		loop_stop(loop);
}

static void test_timers(void **state)
{
	struct own self = {.left = 3}, gone = {0};
	struct timer *stopped = timer_new(loop, say, "never"), *late = timer_new(loop, say, "2"),
		     *soon = timer_new(loop, say, "1");
	int64_t began = clock_ms();

	(void)state;
	gone.t = timer_new(loop, free_own, &gone);
	timer_start(stopped, 1);
	timer_stop(stopped);
	timer_start(late, 1);
	timer_start(late, 40); /* moved */
	timer_start(soon, 10);
	timer_start(gone.t, 80);
	loop_run(loop);
	assert_string_equal(trail, "12f");
	assert_in_range(clock_ms() - began, 60, 5000);

	trail[0] = '\0';
	self.t = timer_new(loop, restart_own, &self);
	timer_start(self.t, -5); /* as 0 */
	loop_run(loop);
	assert_string_equal(trail, "rrr");
	timer_free(self.t);
	timer_free(stopped);
	timer_free(late);
	timer_free(soon);
	timer_free(NULL);
}

static void on_sig(void *ctx, int signo)
{
	note(signo == SIGUSR1 ? ctx : "?");
	loop_stop(loop);
}

static void test_signals(void **state)
{
	struct sigaction now;

	(void)state;
	loop_on_signal(loop, SIGUSR1, on_sig, "u");
	kill(getpid(), SIGUSR1);
	loop_run(loop);
	kill(getpid(), SIGUSR1);
	loop_run(loop);
	assert_string_equal(trail, "uu");
	sigaction(SIGPIPE, NULL, &now);
	assert_ptr_equal(now.sa_handler, SIG_IGN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_defer_keeps_order, setup, teardown),
		cmocka_unit_test_setup_teardown(test_defer_grows, setup, teardown),
		cmocka_unit_test_setup_teardown(test_undefer, setup, teardown),
		cmocka_unit_test_setup_teardown(test_defer_does_not_starve, setup, teardown),
		cmocka_unit_test_setup_teardown(test_deferred_calls_are_dropped, setup, teardown),
		cmocka_unit_test_setup_teardown(test_timers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_signals, setup, teardown),
	};

	return cmocka_run_group_tests_name("loop", tests, NULL, NULL);
}
