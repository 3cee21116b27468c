/* The cache against a real Redis: what it may answer, and all that must empty it. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/encode.h"
#include "common/log.h"
#include "common/mem.h"
#include "real_redis.h"
#include "store/cache.h"

enum { LONG_MS = 30000 };

static struct real_redis server;
static struct loop *loop;
static struct redis *redis, *another; /* the cache's, and another client */
static struct redis_options conn;
static struct cache *cache;

static uint8_t id_of_n[CACHE_ID_LEN];

static const uint8_t *id_of(uint32_t n)
{
	memset(id_of_n, 7, sizeof(id_of_n));
	memcpy(id_of_n, &n, sizeof(n));
	return id_of_n;
}

static void key_of(uint32_t n, char key[64])
{
	char id[32];

	base64url_encode(id, id_of(n), CACHE_ID_LEN);
	snprintf(key, 64, "t:s:{AAA}:%s", id);
}

static void stop_loop(void *ctx)
{
	loop_stop(ctx);
}

static void turn(int64_t ms)
{
	struct timer *t = timer_new(loop, stop_loop, loop);

	timer_start(t, ms);
	loop_run(loop);
	timer_free(t);
}

static char said[8192];         /* by Redis, last */

static void on_reply(void *ctx, enum outcome oc, const struct redisReply *reply)
{
	const char *text = redis_reply_str(reply, NULL);

	snprintf(said, sizeof(said), "%s", text ? text : "");
	*(enum outcome *)ctx = oc;
	loop_stop(loop);
}

static enum outcome command(const char *a, const char *b, const char *c, const char *d)
{
	const char *argv[] = {a, b, c, d};
	enum outcome oc = OC_PENDING;

	redis_command(another, d ? 4 : c ? 3 : b ? 2 : 1, argv, NULL, on_reply, &oc);
	loop_run(loop);
	return oc;
}

static long connections_made(void)
{
	const char *at;

	assert_int_equal(command("INFO", "stats", NULL, NULL), OC_OK);
	at = strstr(said, "total_connections_received:");
	assert_non_null(at);
	return strtol(strchr(at, ':') + 1, NULL, 10);
}

static struct cache_ticket ticket_of(uint32_t n)
{
	char key[64];

	key_of(n, key);
	return cache_ticket(cache, id_of(n), key);
}

static void keep_in(struct cache *c, uint32_t n, const struct cached *what)
{
	struct cache_ticket t = ticket_of(n);

	cache_keep(c, id_of(n), &t, what);
}

static void keep(uint32_t n, int64_t life_ms)
{
	int64_t now = clock_ms();
	struct cached c = {.appid = "wx1",
		.openid = "o-1",
		.unionid = "",
		.created_at = 1760000000,
		.end_ms = now + life_ms,
		.renew_ms = now + 5};

	keep_in(cache, n, &c);
}

static bool has(uint32_t n)
{
	struct cached c;

	return cache_find(cache, id_of(n), &c);
}

/* Keeps until it is kept: the subscription is proven. */
static void until_on(void)
{
	int64_t end = clock_ms() + LONG_MS / 2;

	for (keep(0, LONG_MS); !has(0); keep(0, LONG_MS)) {
		assert_true(clock_ms() < end);
		turn(5);
	}
}

/* A busy machine may keep us from hearing Redis for longer than the lease: again, until it is kept.
 */
static void keep_surely(uint32_t n, int64_t life_ms)
{
	for (keep(n, life_ms); !has(n); keep(n, life_ms))
		until_on();
}

static void until_gone(uint32_t n)
{
	int64_t end = clock_ms() + LONG_MS / 2;

	while (has(n)) {
		assert_true(clock_ms() < end);
		turn(1);
	}
}

/* Nobody is told what is older than the promised limit. It counts when the question was asked: we
 * may be slow to ask. */
static void until_gone_at(uint32_t n, int64_t limit_ms)
{
	for (int64_t asked = clock_ms(); has(n); asked = clock_ms()) {
		assert_true(asked <= limit_ms);
		turn(1);
	}
}

static int start(void **state)
{
	(void)state;
	real_redis_start(&server);
	loop = loop_new();
	conn = (struct redis_options){
		.unix_path = server.socket, .timeout_ms = 10000, .max_pending = 100};
	redis = redis_new(loop, &conn);
	another = redis_new(loop, &conn);
	while (!redis_is_ready(redis) || !redis_is_ready(another))
		turn(5);
	cache = cache_new(redis, "t:s:", 1000, conn.timeout_ms);
	return 0;
}

static int stop(void **state)
{
	(void)state;
	redis_free(redis);
	redis_free(another);
	cache_free(cache);
	loop_free(loop);
	real_redis_stop(&server);
	return 0;
}

static void test_nothing_before_it_is_proven(void **state)
{
	struct redis *r = redis_new(loop, &conn);
	struct cache *young = cache_new(r, "t:s:", 10, conn.timeout_ms);
	struct cached c = {
		.appid = "a", .openid = "o", .unionid = "", .end_ms = clock_ms() + LONG_MS};
	struct cache_ticket ticket = cache_ticket(young, id_of(1), "t:s:{AAA}:x"), later;
	struct cached found;

	(void)state;
	cache_keep(young, id_of(1), &ticket, &c);
	assert_false(cache_find(young, id_of(1), &found));
	do { /* a ticket from before does not count afterwards */
		turn(5);
		later = cache_ticket(young, id_of(1), "t:s:{AAA}:x");
	} while (later.generation == ticket.generation);
	for (bool found_it = false; !found_it; found_it = cache_find(young, id_of(1), &found)) {
		turn(20);
		cache_keep(young, id_of(1), &ticket, &c);
		assert_false(cache_find(young, id_of(1), &found));
		later = cache_ticket(young, id_of(1), "t:s:{AAA}:x");
		cache_keep(young, id_of(1), &later, &c);
	}
	redis_free(r);
	cache_free(young);
	assert_false(cache_find(NULL, id_of(1), &found));
	cache_keep(NULL, id_of(1), &ticket, &c);
	cache_drop(NULL, id_of(1));
}

static void test_what_is_kept_comes_back(void **state)
{
	struct cached in = {.appid = "wx0123456789abcdef",
			      .openid = "oAAAAAAAAAAAAAAAAAAAAAAAAAAA",
			      .unionid = "uBBBBBBBBBBBBBBBBBBBBBBBBBBB",
			      .created_at = 1760000001,
			      .end_ms = clock_ms() + LONG_MS,
			      .renew_ms = 42},
		      out;

	(void)state;
	until_on();
	for (keep_in(cache, 77, &in); !cache_find(cache, id_of(77), &out); keep_in(cache, 77, &in))
		until_on();
	assert_string_equal(out.appid, in.appid);
	assert_string_equal(out.openid, in.openid);
	assert_string_equal(out.unionid, in.unionid);
	assert_true(out.created_at == in.created_at && out.end_ms == in.end_ms &&
		    out.renew_ms == in.renew_ms);
	/* too long: not kept */
	in.unionid = "uCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCC";
	keep_in(cache, 78, &in);
	assert_false(has(78));
	assert_false(has(79));
	cache_drop(cache, id_of(77));
	assert_false(has(77));
}

static void test_its_own_end(void **state)
{
	(void)state;
	until_on();
	keep_surely(5, 100);
	keep(5, 100);
	until_gone_at(5, clock_ms() + 100);
}

static void test_a_change_by_another_drops_it(void **state)
{
	static const char *const commands[][4] = {{"SET", "", "x", NULL}, {"DEL", "", NULL, NULL},
		{"SET", "", "y", NULL}, {"PEXPIRE", "", "100000", NULL},
		{"PEXPIRE", "", "1", NULL}};
	char key[64];

	(void)state;
	until_on();
	for (size_t i = 0; i < NELEM(commands); i++) {
		key_of(6, key);
		keep_surely(6, LONG_MS);
		assert_int_equal(
			command(commands[i][0], key, commands[i][2], commands[i][3]), OC_OK);
		until_gone(6);
	}
}

static void test_an_answer_that_raced_a_change_is_not_kept(void **state)
{
	struct cached c = {
		.appid = "a", .openid = "o", .unionid = "", .end_ms = clock_ms() + LONG_MS};
	struct cache_ticket ticket;
	char key[64];

	(void)state;
	until_on();
	ticket = ticket_of(8);
	key_of(8, key);
	command("SET", key, "!revoked", NULL);
	turn(50);
	cache_keep(cache, id_of(8), &ticket, &c);
	assert_false(has(8));
	ticket = ticket_of(8);
	cache_drop(cache, id_of(8)); /* our own end counts as a change at once */
	cache_keep(cache, id_of(8), &ticket, &c);
	assert_false(has(8));
}

static void test_flush_empties_it(void **state)
{
	(void)state;
	keep_surely(9, LONG_MS);
	assert_int_equal(command("FLUSHALL", NULL, NULL, NULL), OC_OK);
	until_gone(9);
	until_on();
}

/* Many sessions that end at once come as one message, longer than we care to read: everything is
 * forgotten, the connection stays. */
static void test_a_message_of_many_keys_empties_it(void **state)
{
	static const char script[] = "for i = 1, 6000 do redis.call('SET', 't:s:{AAA}:' .. "
				     "string.format('%020d', i), '') end "
				     "for i = 1, 6000 do redis.call('DEL', 't:s:{AAA}:' .. "
				     "string.format('%020d', i)) end";

	long before;

	(void)state;
	keep_surely(20, LONG_MS);
	before = connections_made();
	assert_int_equal(command("EVAL", script, "0", NULL), OC_OK);
	until_gone(20);
	until_on();
	assert_int_equal(connections_made(), before);
}

static void test_nonsense_on_the_channel_empties_it(void **state)
{
	(void)state;
	keep_surely(10, LONG_MS);
	assert_int_equal(command("PUBLISH", "__redis__:invalidate", "nonsense", NULL), OC_OK);
	until_gone(10);
	until_on();
}

static void test_a_lost_connection_empties_it(void **state)
{
	(void)state;
	keep_surely(11, LONG_MS);
	assert_int_equal(command("CLIENT", "KILL", "TYPE", "pubsub"), OC_OK);
	until_gone(11);
	until_on(); /* and it comes back by itself */
	assert_false(has(11));
}

static void test_a_frozen_redis_ends_the_lease(void **state)
{
	(void)state;
	keep_surely(12, LONG_MS);
	kill(server.pid, SIGSTOP);
	/* 50: what Redis said before it stopped arrives */
	until_gone_at(12, clock_ms() + CACHE_LEASE_MS + 50);
	kill(server.pid, SIGCONT);
	while (!redis_is_ready(redis) || !redis_is_ready(another))
		turn(5);
	until_on();
}

static bool is_on(void)
{
	keep(0, LONG_MS);
	return has(0);
}

/* More than there is room for, one of them used all the time. false: nothing was heard from Redis
 * for longer than the lease, on a busy machine, and some were not kept. */
static bool fill(void)
{
	until_on();
	for (uint32_t i = 100; i < 1100; i++)
		keep(i, LONG_MS);
	for (uint32_t round = 0; round < 5; round++) {
		for (uint32_t i = 2000 + 300 * round; i < 2300 + 300 * round; i++) {
			keep(i, LONG_MS);
			has(1099);
		}
		if (!is_on())
			return false;
		until_on();
	}
	return is_on();
}

/* The used stay when room is made for others, and there are never more than there is room for. */
static void test_bounded(void **state)
{
	uint32_t kept;

	(void)state;
	do {
		while (!fill())
			;
		kept = 0;
		for (uint32_t i = 0; i < 4000; i++)
			kept += has(i);
		assert_true(kept <= 1000);
	} while (!is_on());
	assert_true(has(1099));
	assert_true(kept >= 990);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing_before_it_is_proven),
		cmocka_unit_test(test_what_is_kept_comes_back),
		cmocka_unit_test(test_its_own_end),
		cmocka_unit_test(test_a_change_by_another_drops_it),
		cmocka_unit_test(test_an_answer_that_raced_a_change_is_not_kept),
		cmocka_unit_test(test_flush_empties_it),
		cmocka_unit_test(test_a_message_of_many_keys_empties_it),
		cmocka_unit_test(test_nonsense_on_the_channel_empties_it),
		cmocka_unit_test(test_a_lost_connection_empties_it),
		cmocka_unit_test(test_a_frozen_redis_ends_the_lease),
		cmocka_unit_test(test_bounded),
	};

	log_init(LOG_ERROR, LOG_LOGFMT);
	return cmocka_run_group_tests(tests, start, stop);
}
