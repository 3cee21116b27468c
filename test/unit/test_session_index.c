/* The index of a user's sessions: how many there may be, which goes first, and that the dead leave
 * it. */
#include "real_store.h"

static int64_t index_size(void)
{
	command("EVAL", "return redis.call('ZCARD', redis.call('KEYS', 't:u:*')[1])", "0", NULL);
	return got.number;
}

static void test_max_per_user(void **state)
{
	struct sessions_options o = options();
	struct sessions *s;
	char first[64], second[64];

	(void)state;
	o.max_per_user = 2;
	s = sessions_new(redis, &o);
	create(s, "o4", "a2V5");
	strcpy(first, got.token);
	wait_ms(2);
	create(s, "o4", "a2V5");
	strcpy(second, got.token);
	wait_ms(2);
	create(s, "o4", "a2V5");
	get(s, first, true);
	assert_string_equal(got.reason, "replaced");
	get(s, second, true);
	assert_int_equal(got.oc, OC_OK);
	sessions_free(s);
}

/* Redis' clock was set back after the first login: the first is the oldest all the same. */
static void test_oldest_by_order(void **state)
{
	static const char from_the_future[] =
		"local index, key = redis.call('KEYS', 't:u:*')[1], redis.call('KEYS', 't:s:*')[1] "
		"local member = redis.call('ZRANGE', index, 0, 0)[1] "
		"redis.call('ZREM', index, member) "
		"redis.call('ZADD', index, 0, string.sub(member, 1, 16) .. '9999999999990' .. "
		"string.sub(member, -20)) "
		"return redis.call('SET', key, (string.gsub(redis.call('GET', key), '^%d+', "
		"'9999999999990', 1)), 'PX', 60000)";
	struct sessions_options o = options();
	struct sessions *s;
	char first[64], second[64];

	(void)state;
	o.max_per_user = 2;
	s = sessions_new(redis, &o);
	create(s, "o4", "a2V5");
	strcpy(first, got.token);
	command("EVAL", from_the_future, "0", NULL);
	assert_string_equal(got.text, "OK");
	create(s, "o4", "a2V5");
	strcpy(second, got.token);
	create(s, "o4", "a2V5");
	get(s, first, true);
	assert_string_equal(got.reason, "replaced");
	get(s, second, true);
	assert_int_equal(got.oc, OC_OK);
	assert_true(llabs(got.created_at - clock_wall_s()) <= 2); /* its age is its own */
	sessions_free(s);
}

/* 5,000 more of the one session that there is, a little older, as an earlier version may have left
 * them. */
static void multiply(void)
{
	static const char many[] =
		"local index, key = redis.call('KEYS', 't:u:*')[1], redis.call('KEYS', 't:s:*')[1] "
		"local base, member = string.sub(key, 1, -21), redis.call('ZRANGE', index, 0, "
		"0)[1] "
		"local older = string.format('%013d', tonumber(string.sub(member, 17, 29)) - 1) "
		"local value = string.gsub(redis.call('GET', key), '^%d+', older) "
		"for i = 1, 5000 do "
		"  local id = string.format('%020d', i) "
		"  redis.call('SET', base .. id, value, 'PX', 60000) "
		"  redis.call('ZADD', index, 0, string.sub(member, 1, 16) .. older .. id) "
		"end "
		"return redis.call('ZCARD', index)";

	command("EVAL", many, "0", NULL);
	assert_int_equal(got.number, 5001);
}

static void test_more_sessions_than_one_script_ends(void **state)
{
	struct sessions_options o = options();
	struct sessions *s = sessions_new(redis, &o);
	char first[64];

	(void)state;
	create(s, "o9", "a2V5");
	strcpy(first, got.token);
	multiply();
	list(s, "o9");
	assert_int_equal(got.listed, SESSION_LIST_MAX);
	session_end_user(s, "wx1", "o9", on_done, NULL);
	loop_run(loop);
	list(s, "o9");
	assert_int_equal(got.listed, 0);
	get(s, first, true);
	assert_string_equal(got.reason, "revoked");
	sessions_free(s);
}

/* max_per_user was lowered: a login waits until some 2,000 of the sessions are ended, and the
 * others follow, 250 at a time. */
static void test_more_sessions_than_a_login_ends(void **state)
{
	struct sessions_options o = options();
	struct sessions *s = sessions_new(redis, &o);
	char first[64], last[64];

	(void)state;
	create(s, "o9", "a2V5");
	strcpy(first, got.token);
	multiply();
	sessions_free(s);
	o.max_per_user = 1;
	s = sessions_new(redis, &o);
	create(s, "o9", "a2V5");
	strcpy(last, got.token);
	assert_int_equal(index_size(), 5002 - 10 * 250);
	while (index_size() > 1)
		assert_int_equal(got.number % 250, 2);
	get(s, first, true);
	assert_string_equal(got.reason, "replaced");
	get(s, last, true);
	assert_int_equal(got.oc, OC_OK);
	sessions_free(s);
}

/* "As many as you like" is a thousand. */
static void test_no_limit_is_a_thousand(void **state)
{
	struct sessions_options o = options();
	struct sessions *s = sessions_new(redis, &o);
	char second[64] = "";

	(void)state;
	for (int i = 0; i < SESSION_PER_USER_MAX + 1; i++) {
		create(s, "o9", "a2V5");
		if (i == 1)
			strcpy(second, got.token);
	}
	assert_int_equal(index_size(), SESSION_PER_USER_MAX);
	get(s, second, true);
	assert_int_equal(got.oc, OC_OK);
	create(s, "o9", "a2V5");
	get(s, second, true);
	assert_string_equal(got.reason, "replaced");
	sessions_free(s);
}

/* What is in the index and lives no more does not count: the oldest session stays, though nothing
 * else of its time does. */
static void test_the_dead_do_not_count(void **state)
{
	static const char all_but_the_oldest_die[] =
		"local index = redis.call('KEYS', 't:u:*')[1] "
		"local base = string.sub(redis.call('KEYS', 't:s:*')[1], 1, -21) "
		"for _, m in ipairs(redis.call('ZRANGE', index, 1, -1)) do redis.call('DEL', base "
		".. string.sub(m, -20)) end";
	struct sessions_options o = options();
	struct sessions *s;
	char first[64];

	(void)state;
	o.max_per_user = 3;
	s = sessions_new(redis, &o);
	create(s, "o9", "a2V5");
	strcpy(first, got.token);
	create(s, "o9", "a2V5");
	create(s, "o9", "a2V5");
	command("EVAL", all_but_the_oldest_die, "0", NULL);
	create(s, "o9", "a2V5");
	create(s, "o9", "a2V5");
	get(s, first, true);
	assert_int_equal(got.oc, OC_OK);
	create(s, "o9", "a2V5");
	get(s, first, true);
	assert_string_equal(got.reason, "replaced");
	sessions_free(s);
}

/* Nor do they where there are more of them than one script looks at. */
static void test_the_many_dead_do_not_count(void **state)
{
	static const char die[] = "for _, m in ipairs(redis.call('ZRANGE', redis.call('KEYS', "
				  "'t:u:*')[1], 0, -1)) do "
				  "  local id = string.sub(m, -20) "
				  "  if string.find(id, '^%d+$') then redis.call('DEL', "
				  "string.sub(ARGV[1], 1, -21) .. id) end "
				  "end";
	struct sessions_options o = options();
	struct sessions *s = sessions_new(redis, &o);
	char first[64], key[256];

	(void)state;
	create(s, "o9", "a2V5");
	strcpy(first, got.token);
	command("KEYS", "t:s:*", NULL, NULL);
	snprintf(key, sizeof(key), "%.*s", (int)strcspn(got.text, "\n"), got.text);
	multiply();
	command("EVAL", die, "0", key);
	create(s, "o9", "a2V5");
	get(s, first, true);
	assert_int_equal(got.oc, OC_OK);
	while (index_size() > 1000)
		assert_in_range(got.number, 1001, 5001);
	get(s, first, true);
	assert_int_equal(got.oc, OC_OK);
	sessions_free(s);
}

/* What is gone without our doing (evicted, deleted by hand) leaves the index when its user is next
 * looked at. */
static void test_the_index_heals(void **state)
{
	struct sessions_options o = options();
	struct sessions *s = sessions_new(redis, &o);

	(void)state;
	create(s, "o10", "a2V5");
	create(s, "o10", "a2V5");
	command("EVAL",
		"redis.call('DEL', redis.call('KEYS', 't:s:*')[1]) return redis.call('ZCARD', "
		"redis.call('KEYS', 't:u:*')[1])",
		"0", NULL);
	assert_int_equal(got.number, 2);
	list(s, "o10");
	assert_int_equal(got.listed, 1);
	command("EVAL", "return redis.call('ZCARD', redis.call('KEYS', 't:u:*')[1])", "0", NULL);
	assert_int_equal(got.number, 1);
	sessions_free(s);
}

/* Those of users whom nobody looks at leave as others come. Which login sweeps is up to chance (one
 * in eight does), so there are as many logins as it takes. */
static void test_the_index_is_swept(void **state)
{
	static const char dead[] = "local index = redis.call('KEYS', 't:u:*')[1] "
				   "for i = 1, 300 do redis.call('ZADD', index, 0, "
				   "string.format('%016x%013d%020d', i * 7919, i, i)) end "
				   "return redis.call('ZCARD', index)";
	struct sessions_options o = options();
	struct sessions *s = sessions_new(redis, &o);
	int made = 1;

	(void)state;
	create(s, "o10", "a2V5");
	command("EVAL", dead, "0", NULL);
	assert_int_equal(got.number, 301);
	while (index_size() - made > 100) {
		assert_true(made < SESSION_PER_USER_MAX);
		for (int i = 0; i < 20 && made < SESSION_PER_USER_MAX; i++, made++)
			create(s, "o10", "a2V5");
	}
	list(s, "o10");
	assert_int_equal(got.listed, made);
	sessions_free(s);
}

/* And a session that is not in the index is in it again when it is next renewed: its operators must
 * be able to end it. */
static void test_the_index_comes_back(void **state)
{
	struct sessions_options o = options();
	struct sessions *s;
	char token[64];

	(void)state;
	o.ttl_ms = 2000;
	s = sessions_new(redis, &o);
	create(s, "o10", "a2V5");
	strcpy(token, got.token);
	command("EVAL", "return redis.call('DEL', redis.call('KEYS', 't:u:*')[1])", "0", NULL);
	assert_int_equal(got.number, 1);
	wait_ms(300);
	get(s, token, true);
	assert_int_equal(got.oc, OC_OK);
	list(s, "o10");
	assert_int_equal(got.listed, 1);
	session_end_user(s, "wx1", "o10", on_done, NULL);
	loop_run(loop);
	get(s, token, true);
	assert_string_equal(got.reason, "revoked");
	sessions_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_max_per_user),
		T(test_oldest_by_order),
		T(test_more_sessions_than_one_script_ends),
		T(test_more_sessions_than_a_login_ends),
		T(test_no_limit_is_a_thousand),
		T(test_the_dead_do_not_count),
		T(test_the_many_dead_do_not_count),
		T(test_the_index_heals),
		T(test_the_index_is_swept),
		T(test_the_index_comes_back),
	};

	return RUN(tests);
}
