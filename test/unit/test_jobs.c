/* Jobs: callbacks come exactly once, in time even though the thread is stuck, and the end waits no
 * longer than it was told. */
#include "io/jobs.h"

#include <stdatomic.h>
#include <unistd.h>

#include "common/clock.h"
#include "unit.h"

enum { QUEUE_MAX = 8, LONG_MS = 20000, CALLED_MAX = 256 };

struct work {
	struct job job;
	int number, calls;
	enum outcome told;
};

static struct loop *loop;
static struct jobs *jobs;
static atomic_int ran, dropped, ended, idled, largest;
static atomic_bool hold, held; /* the thread waits while hold; held: it does */
static int called[CALLED_MAX], callbacks, expected;
static enum outcome outcomes[CALLED_MAX];

static void pause_ms(int ms)
{
	usleep((useconds_t)ms * 1000);
}

static void wait_for(const atomic_int *what, int at_least)
{
	int64_t end = clock_ms() + LONG_MS;

	while (*what < at_least && clock_ms() < end)
		pause_ms(1);
	assert_true(*what >= at_least);
}

static void wait_until_held(void)
{
	int64_t end = clock_ms() + LONG_MS;

	while (!held && clock_ms() < end)
		pause_ms(1);
	assert_true(held);
}

static void run(void *ctx, struct job *const *batch, size_t n)
{
	assert_ptr_equal(ctx, &loop);
	largest = (int)n > largest ? (int)n : largest;
	while (hold) {
		held = true;
		pause_ms(1);
	}
	held = false;
	for (size_t i = 0; i < n; i++) {
		batch[i]->oc = ((struct work *)batch[i])->number % 2 ? OC_NOT_FOUND : OC_OK;
		ran++;
	}
}

static int64_t idle(void *ctx)
{
	(void)ctx;
	idled++;
	return 1;
}

static void end(void *ctx)
{
	(void)ctx;
	ended++;
}

static void drop(struct job *job)
{
	dropped++;
	free(job);
}

static void on_done(struct job *job, enum outcome oc)
{
	struct work *w = (struct work *)job;

	assert_int_equal(w->calls++, 0);
	outcomes[callbacks] = oc;
	called[callbacks++] = w->number;
	if (callbacks == expected)
		loop_stop(loop);
}

static void add(int number, int64_t limit_ms, bool keep)
{
	struct work *w = mem_alloc(sizeof(*w));

	w->number = number;
	jobs_add(jobs, &w->job, limit_ms, keep, on_done);
}

/* Runs the loop until so many callbacks have come in all. */
static void until(int n)
{
	expected = n;
	if (callbacks < n)
		loop_run(loop);
	assert_int_equal(callbacks, n);
}

static void start(size_t queue_max, bool with_idle)
{
	jobs = jobs_new(loop, &(struct jobs_options){.ctx = &loop,
				      .queue_max = queue_max,
				      .run = run,
				      .idle = with_idle ? idle : NULL,
				      .end = end,
				      .drop = drop});
	assert_non_null(jobs);
}

static int setup(void **state)
{
	(void)state;
	loop = loop_new();
	ran = dropped = ended = idled = largest = 0;
	hold = held = false;
	callbacks = expected = 0;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	loop_free(loop);
	return 0;
}

static void test_in_order_and_once(void **state)
{
	(void)state;
	start(CALLED_MAX, false);
	hold = true;
	add(0, LONG_MS, false);
	wait_until_held();
	for (int i = 1; i < 200; i++)
		add(i, LONG_MS, false);
	assert_int_equal(callbacks, 0);
	hold = false;
	until(200);
	for (int i = 0; i < 200; i++) {
		assert_int_equal(called[i], i);
		assert_int_equal(outcomes[i], i % 2 ? OC_NOT_FOUND : OC_OK);
	}
	assert_int_equal(largest, JOBS_BATCH);
	jobs_free(jobs, LONG_MS);
	assert_int_equal(callbacks, 200);
	assert_int_equal(dropped, 200);
	assert_int_equal(ended, 1);
}

/* Nothing is told before the starter returns, though the thread be done by then. */
static void test_never_before_the_starter_returns(void **state)
{
	(void)state;
	start(QUEUE_MAX, false);
	add(0, LONG_MS, false);
	wait_for(&ran, 1);
	pause_ms(10);
	assert_int_equal(callbacks, 0);
	until(1);
	jobs_free(jobs, LONG_MS);
}

static void test_limits_while_the_thread_is_stuck(void **state)
{
	int64_t began = clock_ms();

	(void)state;
	start(QUEUE_MAX, false);
	hold = true;
	add(0, 900, false); /* begun, and stuck */
	wait_until_held();
	add(2, 300, false); /* not begun: never will be */
	add(4, 600, true);  /* worth doing late */
	until(3);
	assert_in_range(clock_ms() - began, 895, LONG_MS);
	assert_int_equal(called[0], 2);
	assert_int_equal(called[1], 4);
	assert_int_equal(called[2], 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(outcomes[i], OC_STORE_UNAVAILABLE);
	assert_int_equal(dropped, 1);
	assert_true(jobs_busy_ms(jobs) >= 40);
	hold = false;
	add(6, LONG_MS, false);
	until(4); /* those that were late are told nothing more */
	assert_int_equal(ran, 3);
	assert_int_equal(outcomes[3], OC_OK);
	jobs_free(jobs, LONG_MS);
	assert_int_equal(dropped, 4);
}

static void test_a_full_queue(void **state)
{
	(void)state;
	start(QUEUE_MAX, false);
	hold = true;
	add(0, LONG_MS, false);
	wait_until_held();
	for (int i = 1; i <= QUEUE_MAX; i++)
		add(2 * i, LONG_MS, false);
	add(100, LONG_MS, false);
	assert_int_equal(callbacks, 0); /* refused, too, only later */
	until(1);
	assert_int_equal(called[0], 100);
	assert_int_equal(outcomes[0], OC_OVERLOADED);
	hold = false;
	until(QUEUE_MAX + 2);
	add(200, LONG_MS, false); /* there is room again */
	until(QUEUE_MAX + 3);
	assert_int_equal(outcomes[QUEUE_MAX + 2], OC_OK);
	jobs_free(jobs, LONG_MS);
	assert_int_equal(dropped, QUEUE_MAX + 3);
}

/* One that gave its place up by being late makes room. */
static void test_late_ones_leave_the_queue(void **state)
{
	(void)state;
	start(1, false);
	hold = true;
	add(0, LONG_MS, false);
	wait_until_held();
	add(2, 10, false);
	until(1);
	add(4, LONG_MS, false);
	hold = false;
	until(3);
	assert_int_equal(called[0], 2);
	assert_int_equal(outcomes[2], OC_OK);
	jobs_free(jobs, LONG_MS);
}

static void test_refused_by_the_owner(void **state)
{
	struct work *w = mem_alloc(sizeof(*w));

	(void)state;
	start(QUEUE_MAX, false);
	jobs_refuse(jobs, &w->job, OC_RATE_LIMITED, on_done);
	assert_int_equal(callbacks, 0);
	until(1);
	assert_int_equal(outcomes[0], OC_RATE_LIMITED);
	jobs_free(jobs, LONG_MS);
	assert_int_equal(ran, 0);
	assert_int_equal(dropped, 1);
}

static void test_without_a_thread(void **state)
{
	struct work *w = mem_alloc(sizeof(*w)), *never_told = mem_alloc(sizeof(*w));

	(void)state;
	jobs = jobs_new(loop, &(struct jobs_options){.drop = drop});
	jobs_refuse(jobs, &w->job, OC_NOT_FOUND, on_done);
	until(1);
	jobs_refuse(jobs, &never_told->job, OC_NOT_FOUND, on_done);
	jobs_free(jobs, LONG_MS);
	assert_int_equal(callbacks, 2); /* the end tells it */
	assert_int_equal(dropped, 2);
}

static void test_idle(void **state)
{
	(void)state;
	start(QUEUE_MAX, true);
	wait_for(&idled, 3);
	add(0, LONG_MS, false);
	until(1);
	wait_for(&idled, idled + 2);
	jobs_free(jobs, LONG_MS);
	assert_int_equal(ended, 1);
}

static void test_the_end_lets_the_thread_finish(void **state)
{
	(void)state;
	start(QUEUE_MAX, false);
	for (int i = 0; i < 5; i++)
		add(2 * i, LONG_MS, false);
	jobs_free(jobs, LONG_MS);
	assert_int_equal(ran, 5);
	assert_int_equal(callbacks, 5);
	for (int i = 0; i < 5; i++)
		assert_int_equal(outcomes[i], OC_OK);
	assert_int_equal(dropped, 5);
}

/* A thread that hangs is left behind, with all callbacks come; it drops its own when it wakes. */
static void test_the_end_with_a_stuck_thread(void **state)
{
	int64_t began = clock_ms();

	(void)state;
	start(QUEUE_MAX, false);
	hold = true;
	add(0, LONG_MS, false);
	add(2, 1, false); /* late, and told so, while the thread has it or it waits */
	wait_until_held();
	until(1);
	add(4, LONG_MS, false);
	jobs_free(jobs, 30);
	assert_in_range(clock_ms() - began, 25, LONG_MS / 2);
	assert_int_equal(callbacks, 3);
	for (int i = 0; i < 3; i++)
		assert_int_equal(outcomes[i], OC_STORE_UNAVAILABLE);
	assert_int_equal(ended, 0);
	hold = false;
	wait_for(&ended, 1);
	wait_for(&dropped, 3);
	assert_int_equal(callbacks, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_in_order_and_once, setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_never_before_the_starter_returns, setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_limits_while_the_thread_is_stuck, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_full_queue, setup, teardown),
		cmocka_unit_test_setup_teardown(test_late_ones_leave_the_queue, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refused_by_the_owner, setup, teardown),
		cmocka_unit_test_setup_teardown(test_without_a_thread, setup, teardown),
		cmocka_unit_test_setup_teardown(test_idle, setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_the_end_lets_the_thread_finish, setup, teardown),
		cmocka_unit_test_setup_teardown(test_the_end_with_a_stuck_thread, setup, teardown),
	};

	return cmocka_run_group_tests_name("jobs", tests, NULL, NULL);
}
