/* One first-in, first-out list for each kind of wait. */
#include "unit.h"

#include "http/waits.h"

static void test_first_in_first_out(void **state)
{
	struct waits ws = {0};
	struct wait w[3] = {0};

	(void)state;
	for (int i = 0; i < 3; i++)
		waits_begin(&ws, &w[i], WAIT_IDLE);
	assert_ptr_equal(waits_oldest(&ws, WAIT_IDLE), &w[0]);
	waits_move(&ws, &w[0], WAIT_IDLE); /* it begins anew, behind the others */
	assert_ptr_equal(waits_oldest(&ws, WAIT_IDLE), &w[1]);
	waits_move(&ws, &w[1], WAIT_LINGER);
	assert_int_equal(w[1].kind, WAIT_LINGER);
	assert_ptr_equal(waits_oldest(&ws, WAIT_IDLE), &w[2]);
	assert_ptr_equal(waits_oldest(&ws, WAIT_LINGER), &w[1]);
	for (int i = 0; i < 3; i++)
		waits_end(&ws, &w[i]);
	for (enum wait_kind kind = 0; kind < WAIT_KINDS; kind++)
		assert_null(waits_oldest(&ws, kind));
}

static void test_the_limit_is_that_of_the_look(void **state)
{
	struct waits ws = {0};
	struct wait w = {0}, other = {0};

	(void)state;
	assert_null(waits_overdue(&ws, WAIT_REQUEST, 0));
	waits_begin(&ws, &w, WAIT_REQUEST);
	waits_begin(&ws, &other, WAIT_FLUSH);
	assert_null(waits_overdue(&ws, WAIT_REQUEST, 3600 * 1000));
	/* as after a reload that lowers it */
	assert_ptr_equal(waits_overdue(&ws, WAIT_REQUEST, 0), &w);
	w.since_ms -= 5000;
	assert_ptr_equal(waits_overdue(&ws, WAIT_REQUEST, 5000), &w);
	assert_null(waits_overdue(&ws, WAIT_FLUSH, 5000)); /* each kind by itself */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_first_in_first_out),
		cmocka_unit_test(test_the_limit_is_that_of_the_look),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
