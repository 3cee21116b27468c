/* The map of a Redis Cluster: which is adopted, and how it is found again. And the nodes' version.
 */
#include "cluster_nodes.h"

static void test_a_map_with_gaps(void **state)
{
	struct redis *r;
	struct answer a;

	(void)state;
	owned = 13107;
	r = opened();
	UNTIL(maps == 2);
	turn_for(20);
	assert_int_equal(redis_place_of(r, LOW), REDIS_PLACES - 1); /* not adopted: nobody's */
	/* the third in a row says the same */
	UNTIL(maps >= 3 && redis_place_of(r, LOW) != REDIS_PLACES - 1);
	assert_int_equal(redis_place_of(r, HIGH), REDIS_PLACES - 1);
	UNTIL(!strcmp(ask_and_wait(r, false, LOW, &a), "a"));
	assert_false(redis_is_ready(r));
	owned = SLOTS;
	UNTIL(redis_is_ready(r));
	assert_string_equal(ask_and_wait(r, false, HIGH, &a), "c");
	redis_free(r);
}

/* The cluster is gone, and another answers at its addresses: it is not followed, and nothing that
 * it says is believed. */
static void test_another_cluster_at_the_same_addresses(void **state)
{
	struct redis *r = connected();
	struct answer a;

	(void)state;
	for (int i = 0; i < 3; i++) {
		peer_stop(&nodes[i].peer);
		map_ids[i] = (const char *[]){"x", "y", "z"}[i];
	}
	UNTIL(!redis_is_ready(r));
	for (int i = 0; i < 3; i++)
		peer_listen(&nodes[i].peer);
	maps = 0;
	UNTIL(maps >= 4);
	/* What was good for a moment, before the first map, is called ready for TIMEOUT_MS more. */
	UNTIL(!redis_is_ready(r));
	for (int64_t end = clock_ms() + 3 * TIMEOUT_MS; clock_ms() < end;) {
		assert_string_equal(ask_and_wait(r, false, LOW, &a), UN);
		assert_false(redis_is_ready(r));
	}
	map_ids[0] = "a";
	UNTIL(redis_is_ready(r));
	assert_string_equal(ask_and_wait(r, false, LOW, &a), "a");
	redis_free(r);
}

static void test_all_hosts_away_and_back(void **state)
{
	struct redis *r = connected();
	struct answer a;
	int64_t back_ms;

	(void)state;
	for (int i = 0; i < 3; i++)
		peer_stop(&nodes[i].peer);
	UNTIL(!redis_is_ready(r));
	assert_string_equal(ask_and_wait(r, false, LOW, &a), UN);
	turn_for(3 * TIMEOUT_MS);
	for (int i = 0; i < 3; i++)
		peer_listen(&nodes[i].peer);
	back_ms = clock_ms();
	UNTIL(redis_is_ready(r));
	assert_true(clock_ms() - back_ms < 2000 + BUSY_MS);
	assert_string_equal(ask_and_wait(r, true, HIGH, &a), "c");
	redis_free(r);
}

/* The same node says that it is somewhere else now. */
static void test_an_address_that_changes(void **state)
{
	struct redis *r = connected();
	struct answer a;

	(void)state;
	nodes[3].id = "a";
	map_ports[0] = nodes[3].peer.port;
	epoch++;
	peer_stop(&nodes[0].peer);
	UNTIL(!strcmp(ask_and_wait(r, false, LOW, &a), "a"));
	assert_true(nodes[3].asked > 0);
	UNTIL(redis_is_ready(r));
	redis_free(r);
}

static void test_the_oldest_version_counts(void **state)
{
	struct redis *r;

	(void)state;
	nodes[1].version = "6.2.14";
	r = connected();
	assert_int_equal(redis_major(r), 6);
	redis_free(r);
}

/* One that has not said its version may be the oldest. */
static void test_a_version_that_is_not_known(void **state)
{
	struct redis *r;

	(void)state;
	nodes[0].version = "";
	r = connected();
	assert_int_equal(redis_major(r), 0);
	redis_free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_a_map_with_gaps),
		T(test_another_cluster_at_the_same_addresses),
		T(test_all_hosts_away_and_back),
		T(test_an_address_that_changes),
		T(test_the_oldest_version_counts),
		T(test_a_version_that_is_not_known),
	};

	return cmocka_run_group_tests_name("cluster map", tests, NULL, NULL);
}
