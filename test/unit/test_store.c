/* Sessions and codes against a real Redis: the scripts are half of the code. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/encode.h"
#include "common/log.h"
#include "common/mem.h"
#include "real_redis.h"
#include "store/code.h"
#include "store/seal.h"
#include "store/session.h"

static struct real_redis server;
static struct loop *loop;
static struct redis *redis;

/* ---- what callbacks brought ---- */

static struct {
	enum outcome oc;
	char    token[64], reason[32], openid[64], unionid[64], ip[64], agent[300], text[4096];
	int64_t expires_in_s, created_at, number;
	bool    nil;
	enum claim_state state;
	enum outcome refused;
	int     errcode;
	size_t  listed;
	char    ids[4][SESSION_ID_LEN + 1];
	int     calls;
} got;

static void on_create(
	void *ctx, enum outcome oc, const char *token, int64_t expires_in_s, int64_t created_ms)
{
	(void)created_ms;
	(void)ctx;
	got.oc = oc;
	snprintf(got.token, sizeof(got.token), "%s", token ? token : "");
	got.expires_in_s = expires_in_s;
	loop_stop(loop);
}

static void on_get(void *ctx, enum outcome oc, const struct session *ses, const char *reason)
{
	(void)ctx;
	got.oc = oc;
	snprintf(got.reason, sizeof(got.reason), "%s", reason ? reason : "");
	if (ses) {
		snprintf(got.openid, sizeof(got.openid), "%s", ses->openid);
		snprintf(got.unionid, sizeof(got.unionid), "%s", ses->unionid);
		got.expires_in_s = ses->expires_in_s;
		got.created_at = ses->created_at;
	}
	loop_stop(loop);
}

static void on_list(void *ctx, enum outcome oc, const struct session_listed *list, size_t n)
{
	(void)ctx;
	got.oc = oc;
	got.listed = n;
	for (size_t i = 0; i < n && i < NELEM(got.ids); i++) {
		assert_int_equal(strlen(list[i].id), SESSION_ID_LEN);
		strcpy(got.ids[i], list[i].id);
		snprintf(got.ip, sizeof(got.ip), "%s", list[i].ip);
		snprintf(got.agent, sizeof(got.agent), "%s", list[i].user_agent);
		got.created_at = list[i].created_at;
		got.expires_in_s = list[i].expires_in_s;
		assert_true(list[i].seen_at >= list[i].created_at);
	}
	loop_stop(loop);
}

static void on_done(void *ctx, enum outcome oc)
{
	(void)ctx;
	got.oc = oc;
	loop_stop(loop);
}

static void on_claim(void *ctx, enum outcome oc, const struct claim_answer *ans)
{
	(void)ctx;
	got.oc = oc;
	if (ans) {
		got.state = ans->state;
		got.refused = ans->refused;
		got.errcode = ans->errcode;
		snprintf(got.token, sizeof(got.token), "%s", ans->token ? ans->token : "");
	}
	loop_stop(loop);
}

static void on_raw(void *ctx, enum outcome oc, const struct redisReply *reply)
{
	const char *s = redis_reply_str(reply, NULL);

	(void)ctx;
	got.oc = oc;
	got.nil = redis_reply_is_nil(reply);
	got.number = -99;
	redis_reply_int(reply, &got.number);
	snprintf(got.text, sizeof(got.text), "%s", s ? s : "");
	for (size_t i = 0; i < redis_reply_count(reply); i++) {
		const char *e = redis_reply_str(redis_reply_at(reply, i), NULL);
		size_t n = strlen(got.text);
		snprintf(got.text + n, sizeof(got.text) - n, "%s\n", e ? e : "");
	}
	loop_stop(loop);
}

static void command(const char *a, const char *b, const char *c, const char *d)
{
	const char *argv[] = {a, b, c, d};

	redis_command(redis, d ? 4 : c ? 3 : b ? 2 : 1, argv, NULL, on_raw, NULL);
	loop_run(loop);
}

static int lines(const char *text)
{
	int n = 0;

	for (; *text; text++)
		n += *text == '\n';
	return n;
}

static void create(struct sessions *s, const char *openid, const char *session_key)
{
	struct session_login in = {.appid = "wx1",
		.openid = openid,
		.unionid = "u1",
		.session_key = session_key,
		.ip = "192.0.2.7",
		.user_agent = "an|agent\nof two lines"};

	session_create(s, &in, on_create, NULL);
	loop_run(loop);
	assert_int_equal(got.oc, OC_OK);
}

static void get(struct sessions *s, const char *token, bool renew)
{
	session_get(s, token, renew, on_get, NULL);
	loop_run(loop);
}

static void end(struct sessions *s, const char *token, const char *reason)
{
	session_end(s, token, reason, on_done, NULL);
	loop_run(loop);
	assert_int_equal(got.oc, OC_OK);
}

static struct sessions_options options(void)
{
	static struct seal *plain;

	if (!plain)
		plain = seal_new(NULL, 0);
	return (struct sessions_options){.key_prefix = "t:",
		.seal = plain,
		.ttl_ms = 60000,
		.max_age_ms = 3600000,
		.timeout_ms = 2000};
}

static void nothing(void *ctx)
{
	loop_stop(ctx);
}

static void wait_ms(int64_t ms)
{
	struct timer *t = timer_new(loop, nothing, loop);

	timer_start(t, ms);
	loop_run(loop);
	timer_free(t);
}

static void assert_session_keys(struct sessions *s, const char *openid, const char *expected);

/* ---- sessions ---- */

static void test_life(void **state)
{
	struct sessions_options o = options();
	struct sessions *s = sessions_new(redis, &o);
	char token[64];

	(void)state;
	create(s, "o1", "c2Vzc2lvbl9rZXkxMjM0NQ==");
	strcpy(token, got.token);
	assert_true(session_token_ok(token));
	assert_int_equal(got.expires_in_s, 60);
	get(s, token, true);
	assert_int_equal(got.oc, OC_OK);
	assert_string_equal(got.openid, "o1");
	assert_string_equal(got.unionid, "u1");
	assert_true(got.expires_in_s >= 58 && got.expires_in_s <= 60);
	assert_true(llabs(got.created_at - clock_wall_s()) <= 2);
	command("KEYS", "*", NULL, NULL);
	assert_int_equal(lines(got.text), 2);
	assert_null(strstr(got.text, token));
	end(s, token, "logged_out");
	get(s, token, true);
	assert_int_equal(got.oc, OC_INVALID_SESSION);
	assert_string_equal(got.reason, "logged_out");
	command("KEYS", "t:u:*", NULL, NULL); /* session_key goes with the last session */
	assert_int_equal(lines(got.text), 0);
	end(s, token, "revoked"); /* what is over stays as it ended */
	get(s, token, true);
	assert_string_equal(got.reason, "logged_out");
	get(s, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", true);
	assert_string_equal(got.reason, "unknown");
	sessions_free(s);
}

static void test_every_key_has_an_end(void **state)
{
	struct sessions_options o = options();
	struct sessions *s = sessions_new(redis, &o);

	(void)state;
	create(s, "o2", "a2V5");
	command("EVAL",
		"local n = 0 for _, k in ipairs(redis.call('KEYS', '*')) do if redis.call('PTTL', "
		"k) < 1 then n = n + 1 end end return n",
		"0", NULL);
	assert_int_equal(got.number, 0);
	sessions_free(s);
}

static void test_two_ages(void **state)
{
	struct sessions_options o = options();
	struct sessions *s;
	char token[64];

	(void)state;
	o.ttl_ms = 4000;
	o.max_age_ms = 8000;
	s = sessions_new(redis, &o);
	create(s, "o3", "a2V5");
	strcpy(token, got.token);
	for (int64_t began = clock_ms(); clock_ms() - began < 5000;
		wait_ms(250)) { /* use keeps it alive past its ttl */
		get(s, token, true);
		assert_int_equal(got.oc, OC_OK);
	}
	wait_ms(3100); /* past max_age, whatever the use */
	get(s, token, true);
	assert_int_equal(got.oc, OC_INVALID_SESSION);
	assert_string_equal(got.reason, "expired");
	create(s, "o3", "a2V5");
	strcpy(token, got.token);
	wait_ms(1500);
	get(s, token, false);
	assert_int_equal(got.oc, OC_OK);
	wait_ms(2600); /* asked about without renewing: it ended on time */
	get(s, token, true);
	assert_string_equal(got.reason, "unknown");
	sessions_free(s);
}

/* A restart with less of either age: what was said to be over stays so, and what is used ends when
 * it now should. */
static void test_shorter_ages(void **state)
{
	struct sessions_options o = options();
	struct sessions *s, *shorter;
	char token[64];

	(void)state;
	s = sessions_new(redis, &o);
	create(s, "o3", "a2V5");
	strcpy(token, got.token);
	o.max_age_ms = 200;
	shorter = sessions_new(redis, &o);
	wait_ms(300);
	get(shorter, token, true);
	assert_string_equal(got.reason, "expired");
	get(s, token, false);
	assert_string_equal(got.reason, "expired");
	end(s, token, "logged_out");
	get(s, token, true);
	assert_string_equal(got.reason, "expired");
	sessions_free(shorter);

	create(s, "o3", "a2V5");
	strcpy(token, got.token);
	o.max_age_ms = 1500;
	shorter = sessions_new(redis, &o);
	/* a lowered max_age holds at once, without renewing too; a ttl from the next renewal on */
	get(shorter, token, false);
	assert_int_equal(got.oc, OC_OK);
	assert_in_range(got.expires_in_s, 0, 1);
	sessions_free(shorter);

	create(s, "o3", "a2V5");
	strcpy(token, got.token);
	o.max_age_ms = 200;
	shorter = sessions_new(redis, &o);
	wait_ms(300);
	get(shorter, token, false);
	assert_string_equal(got.reason, "expired");
	sessions_free(shorter);

	create(s, "o3", "a2V5");
	strcpy(token, got.token);
	o.max_age_ms = 3600000;
	o.ttl_ms = 5000;
	shorter = sessions_new(redis, &o);
	get(shorter, token, false);
	assert_in_range(got.expires_in_s, 50, 60);
	get(shorter, token, true);
	assert_in_range(got.expires_in_s, 4, 5);
	sessions_free(shorter);
	sessions_free(s);
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

static void list(struct sessions *s, const char *openid)
{
	session_list(s, "wx1", openid, on_list, NULL);
	loop_run(loop);
	assert_int_equal(got.oc, OC_OK);
}

static void test_list_and_end(void **state)
{
	struct sessions_options o = options();
	struct sessions *s = sessions_new(redis, &o);
	char token[3][64], other[64], id[SESSION_ID_LEN + 1];

	(void)state;
	for (int i = 0; i < 3; i++) {
		create(s, "o7", "a2V5");
		strcpy(token[i], got.token);
	}
	create(s, "o8", "a2V5");
	strcpy(other, got.token);
	list(s, "o7");
	assert_int_equal(got.listed, 3);
	assert_string_equal(got.ip, "192.0.2.7");
	/* what separates fields or lines is blanked */
	assert_string_equal(got.agent, "an agent of two lines");
	assert_true(llabs(got.created_at - clock_wall_s()) <= 2 && got.expires_in_s >= 58);
	for (int i = 0; i < 3; i++)
		assert_null(strstr(token[i], got.ids[0]));
	strcpy(id, got.ids[1]);

	session_end_id(s, "wx1", "o8", id, on_done, NULL); /* another's: nothing happens */
	loop_run(loop);
	list(s, "o7");
	assert_int_equal(got.listed, 3);
	session_end_id(s, "wx1", "o7", id, on_done, NULL);
	loop_run(loop);
	assert_int_equal(got.oc, OC_OK);
	list(s, "o7");
	assert_int_equal(got.listed, 2);
	assert_true(strcmp(got.ids[0], id) != 0 && strcmp(got.ids[1], id) != 0);

	session_end_user(s, "wx1", "o7", on_done, NULL);
	loop_run(loop);
	assert_int_equal(got.oc, OC_OK);
	for (int i = 0; i < 3; i++) {
		get(s, token[i], true);
		assert_string_equal(got.reason, "revoked");
	}
	list(s, "o7");
	assert_int_equal(got.listed, 0);
	get(s, other, true);
	assert_int_equal(got.oc, OC_OK);
	list(s, "nobody");
	assert_int_equal(got.listed, 0);
	sessions_free(s);
}

/* 5,000 more of the one session that there is, as an earlier version may have left them. */
static void multiply(void)
{
	static const char many[] =
		"local index, key = redis.call('KEYS', 't:u:*')[1], redis.call('KEYS', 't:s:*')[1] "
		"local base, member = string.sub(key, 1, -21), redis.call('ZRANGE', index, 0, "
		"0)[1] "
		"for i = 1, 5000 do "
		"  local id = string.format('%020d', i) "
		"  redis.call('SET', base .. id, redis.call('GET', key), 'PX', 60000) "
		"  redis.call('ZADD', index, 0, string.sub(member, 1, -21) .. id) "
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

static int64_t index_size(void)
{
	command("EVAL", "return redis.call('ZCARD', redis.call('KEYS', 't:u:*')[1])", "0", NULL);
	return got.number;
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

static void create_with(struct sessions *s, const char *openid, const char *unionid)
{
	struct session_login in = {.appid = "wx1",
		.openid = openid,
		.unionid = unionid,
		.session_key = "a2V5",
		.ip = "",
		.user_agent = ""};

	session_create(s, &in, on_create, NULL);
	loop_run(loop);
	assert_int_equal(got.oc, OC_OK);
}

/* A user's sessions all have the unionid of the newest login that brought one. */
static void test_unionid_of_the_newest_login(void **state)
{
	static const struct {
		const char *brings, *all_have;
	} logins[] = {{"", ""}, {"", ""}, {"u1", "u1"}, {"", "u1"}, {"u2", "u2"}, {"u2", "u2"}};
	struct sessions_options o = options();
	struct sessions *s = sessions_new(redis, &o);
	char tokens[NELEM(logins)][64];

	(void)state;
	for (size_t i = 0; i < NELEM(logins); i++) {
		create_with(s, "o14", logins[i].brings);
		strcpy(tokens[i], got.token);
		create_with(s, "another", "");
		for (size_t k = 0; k <= i; k++) {
			get(s, tokens[k], false);
			assert_string_equal(got.unionid, logins[i].all_have);
			assert_string_equal(got.openid, "o14");
			assert_in_range(got.expires_in_s, 58, 60); /* its end is where it was */
		}
	}
	assert_session_keys(s, "o14", "a2V5\n");
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

/* Those of users whom nobody looks at leave as others come. */
static void test_the_index_is_swept(void **state)
{
	static const char dead[] = "local index = redis.call('KEYS', 't:u:*')[1] "
				   "for i = 1, 300 do redis.call('ZADD', index, 0, "
				   "string.format('%016x%013d%020d', i * 7919, i, i)) end "
				   "return redis.call('ZCARD', index)";
	struct sessions_options o = options();
	struct sessions *s = sessions_new(redis, &o);

	(void)state;
	create(s, "o10", "a2V5");
	command("EVAL", dead, "0", NULL);
	assert_int_equal(got.number, 301);
	for (int i = 1; i < 100; i++)
		create(s, "o10", "a2V5");
	command("EVAL", "return redis.call('ZCARD', redis.call('KEYS', 't:u:*')[1])", "0", NULL);
	assert_in_range(got.number, 100, 200);
	list(s, "o10");
	assert_int_equal(got.listed, 100);
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

/* A session ends while it is just expiring: a key lives for a moment in which its TTL is 0. */
static void test_ended_in_its_last_millisecond(void **state)
{
	static const char soon[] = "for _, k in ipairs(redis.call('KEYS', 't:s:*')) do "
				   "  if string.sub(redis.call('GET', k), 1, 1) ~= '!' then "
				   "redis.call('PEXPIRE', k, 1) end "
				   "end";
	struct sessions_options o = options();
	struct sessions *s = sessions_new(redis, &o);

	(void)state;
	for (int i = 0; i < 300; i++) {
		create(s, "o13", "a2V5");
		command("EVAL", soon, "0", NULL);
		end(s, got.token, "logged_out");
	}
	sessions_free(s);
}

static void on_counted(void *ctx, enum outcome oc, const struct session *ses, const char *reason)
{
	(void)ctx;
	(void)ses;
	(void)reason;
	assert_int_equal(oc, OC_OK);
	if (++got.calls == 50)
		loop_stop(loop);
}

/* maxmemory reached, noeviction: sessions are read and ended as ever. */
static void test_full(void **state)
{
	struct sessions_options o = options();
	struct sessions *s = sessions_new(redis, &o);
	char one[64], two[64];

	(void)state;
	create(s, "o20", "a2V5");
	strcpy(one, got.token);
	create(s, "o20", "a2V5");
	strcpy(two, got.token);
	command("CONFIG", "SET", "maxmemory", "1");
	get(s, one, true);
	assert_int_equal(got.oc, OC_OK);
	end(s, one, "logged_out");
	assert_int_equal(got.oc, OC_OK);
	session_end_user(s, "wx1", "o20", on_done, NULL);
	loop_run(loop);
	assert_int_equal(got.oc, OC_OK);
	command("CONFIG", "SET", "maxmemory", "0");
	get(s, one, true);
	assert_string_equal(got.reason, "logged_out");
	get(s, two, true);
	assert_string_equal(got.reason, "revoked");
	sessions_free(s);
}

static void test_simultaneous_questions_are_one(void **state)
{
	struct sessions_options o = options();
	struct sessions *s = sessions_new(redis, &o);
	char token[64];

	(void)state;
	create(s, "o11", "a2V5");
	strcpy(token, got.token);
	command("CONFIG", "RESETSTAT", NULL, NULL);
	got.calls = 0;
	for (int i = 0; i < 50; i++)
		session_get(s, token, i % 2, on_counted, NULL);
	loop_run(loop);
	command("INFO", "commandstats", NULL, NULL);
	assert_non_null(strstr(got.text, "cmdstat_get:calls=1,"));
	sessions_free(s);
}

/* A renewal that finds the session ended says so: what was read before it is no longer true. */
static void test_ended_between_reading_and_renewing(void **state)
{
	struct sessions_options o = options();
	struct sessions *s, *b;
	char token[64];

	(void)state;
	o.ttl_ms = 3000;
	s = sessions_new(redis, &o);
	b = sessions_new(redis, &o);
	create(s, "o12", "a2V5");
	strcpy(token, got.token);
	wait_ms(400);
	session_get(s, token, true, on_get, NULL);
	/* stands in line before the renewal, which is sent once GET is answered */
	session_end(b, token, "logged_out", on_done, NULL);
	got.reason[0] = '\0';
	for (int i = 0; i < 2; i++)
		loop_run(loop);
	assert_string_equal(got.reason, "logged_out");
	sessions_free(b);
	sessions_free(s);
}

/* The process stands still for longer than redis.timeout, with the answer that the session lives in
 * its socket, while the session ends. */
static void on_standing_still(void *ctx, enum outcome oc, const struct redisReply *reply)
{
	char line[160];
	FILE *cli;

	(void)reply;
	assert_int_equal(oc, OC_OK);
	snprintf(line, sizeof(line), "redis-cli -s %s FLUSHALL", server.socket);
	cli = popen(line, "r");
	assert_int_equal(pclose(cli), 0);
	usleep(1000 * *(const int *)ctx);
}

static void test_an_answer_too_old_is_asked_for_again(void **state)
{
	const char *ping[] = {"PING"};
	struct sessions_options o = options();
	struct sessions *s;
	int stands_ms = 2250;
	char token[64];

	(void)state;
	o.timeout_ms = 2000;
	s = sessions_new(redis, &o);
	create(s, "o15", "a2V5");
	strcpy(token, got.token);
	/* all in one write, and so answered before the end */
	redis_command(redis, 1, ping, NULL, on_standing_still, &stands_ms);
	get(s, token, false);
	assert_int_equal(got.oc, OC_INVALID_SESSION);
	assert_string_equal(got.reason, "unknown");
	create(s, "o15", "a2V5");
	strcpy(token, got.token);
	stands_ms = 0; /* young enough: what was true when it was asked may be told */
	redis_command(redis, 1, ping, NULL, on_standing_still, &stands_ms);
	get(s, token, false);
	assert_int_equal(got.oc, OC_OK);
	sessions_free(s);
}

static void on_keys(void *ctx, enum outcome oc, const char *const *keys, size_t n)
{
	(void)ctx;
	got.oc = oc;
	got.text[0] = '\0';
	for (size_t i = 0; i < n; i++)
		snprintf(got.text + strlen(got.text), sizeof(got.text) - strlen(got.text), "%s\n",
			keys[i]);
	loop_stop(loop);
}

static void assert_session_keys(struct sessions *s, const char *openid, const char *expected)
{
	session_keys(s, "wx1", openid, on_keys, NULL);
	loop_run(loop);
	assert_int_equal(got.oc, OC_OK);
	assert_string_equal(got.text, expected);
}

static bool sessions_hold(const char *what)
{
	static const char find[] =
		"for _, k in ipairs(redis.call('KEYS', 't:s:*')) do "
		"  if string.find(redis.call('GET', k), ARGV[1], 1, true) then return 1 end "
		"end "
		"return 0";

	command("EVAL", find, "0", what);
	return got.number == 1;
}

static void test_session_keys_newest_and_the_one_before(void **state)
{
	struct sessions_options o = options();
	struct sessions *s = sessions_new(redis, &o);
	const char *keys[] = {"a2V5MQ==", "a2V5Mg==", "a2V5Mg==", "a2V5Mw=="};

	(void)state;
	for (size_t i = 0; i < NELEM(keys); i++)
		create(s, "o5", keys[i]);
	assert_session_keys(s, "o5", "a2V5Mw==\na2V5Mg==\n");
	create(s, "o5", "a2V5Mg=="); /* the older one again is the newest now */
	assert_session_keys(s, "o5", "a2V5Mg==\na2V5Mw==\n");
	create(s, "o5", "no|base64, \n whatever WeChat may have meant");
	assert_session_keys(s, "o5", "no|base64, \n whatever WeChat may have meant\na2V5Mg==\n");
	get(s, got.token, true);
	assert_int_equal(got.oc, OC_OK);
	list(s, "o5");
	assert_int_equal(got.listed, 6);
	assert_session_keys(s, "another", "");
	sessions_free(s);
}

/* They are the user's, not the session's that brought them: those that are left have them, whoever
 * ended it and however. */
static void test_session_keys_outlive_their_session(void **state)
{
	struct sessions_options o = options();
	struct sessions *s = sessions_new(redis, &o);
	char token[3][64];

	(void)state;
	for (int i = 0; i < 3; i++) {
		create(s, "o5", i == 2 ? "a2V5Mg==" : "a2V5MQ==");
		strcpy(token[i], got.token);
	}
	end(s, token[0], "logged_out"); /* an old one: nothing changes hands */
	assert_session_keys(s, "o5", "a2V5Mg==\na2V5MQ==\n");
	list(s, "o5");
	session_end_id(s, "wx1", "o5", got.ids[0], on_done, NULL); /* the newest */
	loop_run(loop);
	get(s, token[2], true);
	assert_string_equal(got.reason, "revoked");
	assert_session_keys(s, "o5", "a2V5Mg==\na2V5MQ==\n");
	get(s, token[1], true);
	assert_int_equal(got.oc, OC_OK);
	assert_string_equal(got.openid, "o5");
	end(s, token[1], "logged_out");
	assert_session_keys(s, "o5", "");
	assert_false(sessions_hold("key")); /* "a2V5…" is base64 of "key…" */
	sessions_free(s);
}

/* An older session that is in use outlives the newest, which is not. */
static void test_session_keys_outlive_a_session_that_expired(void **state)
{
	struct sessions_options o = options();
	struct sessions *s;
	char token[64];

	(void)state;
	o.ttl_ms = 2000;
	s = sessions_new(redis, &o);
	create(s, "o5", "a2V5MQ==");
	strcpy(token, got.token);
	create(s, "o5", "a2V5Mg==");
	do { /* until the newest is gone */
		wait_ms(100);
		get(s, token, true);
		assert_int_equal(got.oc, OC_OK);
		list(s, "o5");
	} while (got.listed == 2);
	assert_int_equal(got.listed, 1);
	assert_session_keys(s, "o5", "a2V5Mg==\na2V5MQ==\n");
	sessions_free(s);
}

/* One that max_age has ended leaves nothing but the reason, until its ttl is over. And its early
 * end is not that of the index: the younger session stays in it. */
static void test_what_max_age_ended_counts_for_nothing(void **state)
{
	struct sessions_options o = options();
	struct sessions *s;
	char token[64];

	(void)state;
	o.ttl_ms = 2500;
	o.max_age_ms = 3000;
	s = sessions_new(redis, &o);
	create(s, "o5", "a2V5MQ==");
	strcpy(token, got.token);
	wait_ms(1200);
	create(s, "o5", "a2V5MQ==");
	get(s, token, true); /* lives for another 1.8 s, and 2.5 s if max_age did not end it */
	assert_int_equal(got.oc, OC_OK);
	command("EVAL", "return redis.call('PTTL', redis.call('KEYS', 't:u:*')[1])", "0", NULL);
	assert_in_range(got.number, 2000, 2500 + 2500 / 8);
	list(s, "o5");
	session_end_id(s, "wx1", "o5", got.ids[0], on_done, NULL); /* the younger */
	loop_run(loop);
	assert_session_keys(s, "o5", "a2V5MQ==\n");
	do {
		wait_ms(50);
		get(s, token, false);
	} while (got.oc == OC_OK);
	for (int64_t end = clock_ms() + 600;
		sessions_hold("key") && clock_ms() < end;) /* Redis' clock and ours */
		wait_ms(10);
	assert_session_keys(s, "o5", "");
	assert_false(sessions_hold("key"));
	get(s, token, true);
	assert_string_equal(got.reason, "expired");
	sessions_free(s);
}

/* max_per_user = 1: each login ends the one before, whose session_key data on the way may still
 * need. */
static void test_session_keys_outlive_a_session_that_was_replaced(void **state)
{
	struct sessions_options o = options();
	struct sessions *s;

	(void)state;
	o.max_per_user = 1;
	s = sessions_new(redis, &o);
	create(s, "o5", "a2V5MQ==");
	create(s, "o5", "a2V5Mg==");
	assert_session_keys(s, "o5", "a2V5Mg==\na2V5MQ==\n");
	sessions_free(s);
}

static void test_sealed(void **state)
{
	static const uint8_t keys[1][32] = {{1, 2, 3}};
	struct sessions_options o = options();
	struct sessions *s;
	struct seal *seal;

	(void)state;
	seal = seal_new(keys, 1);
	o.seal = seal;
	s = sessions_new(redis, &o);
	create(s, "o6", "c2Vzc2lvbl9rZXkxMjM0NQ==");
	/* sealed otherwise, and known to be the same */
	create(s, "o6", "c2Vzc2lvbl9rZXkxMjM0NQ==");
	assert_session_keys(s, "o6", "c2Vzc2lvbl9rZXkxMjM0NQ==\n");
	create(s, "o6", "c2Vzc2lvbl9rZXkxMjM0Ng==");
	assert_session_keys(s, "o6", "c2Vzc2lvbl9rZXkxMjM0Ng==\nc2Vzc2lvbl9rZXkxMjM0NQ==\n");
	assert_false(sessions_hold("session_key"));
	sessions_free(s);
	o.seal = seal_new(NULL, 0);
	s = sessions_new(redis, &o);
	create(s, "o7", "c2Vzc2lvbl9rZXkxMjM0NQ==");
	assert_true(sessions_hold("session_key")); /* the search can find */
	sessions_free(s);
	seal_free((struct seal *)o.seal);
	seal_free(seal);
}

static void test_tokens(void **state)
{
	(void)state;
	assert_true(session_token_ok("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"));
	/* not canonical */
	assert_false(session_token_ok("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB"));
	assert_false(session_token_ok(""));
	assert_false(session_token_ok("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"));
	assert_false(session_token_ok("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"));
	assert_false(session_token_ok("AAAAAAAAAAAAAAAAAAAAAA*AAAAAAAAAAAAAAAAAAAA"));
}

/* ---- codes ---- */

static struct code_claim claim(struct codes *cs, const char *code, const char *nonce)
{
	struct code_claim c;

	code_claim_init(cs, &c, "wx1", code, nonce);
	code_claim_try(cs, &c, 5000, on_claim, NULL);
	loop_run(loop);
	assert_int_equal(got.oc, OC_OK);
	return c;
}

static const char some_token[] = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

static void settle(struct codes *cs, const struct code_claim *c)
{
	code_settle_session(cs, c, some_token);
	command("GET", c->key, NULL, NULL); /* answered behind it */
	assert_int_equal(got.text[0], 's');
}

static void test_code_becomes_one_session(void **state)
{
	struct codes *cs = codes_new(
		redis, &(struct codes_options){.key_prefix = "t:", .replay_window_ms = 60000});
	struct code_claim first = claim(cs, "code-1", "n1");

	(void)state;
	assert_int_equal(got.state, CLAIM_MINE);
	claim(cs, "code-1", "n1");
	assert_int_equal(got.state, CLAIM_BUSY);
	claim(cs, "code-2", "n1");
	assert_int_equal(got.state, CLAIM_MINE);
	settle(cs, &first);
	claim(cs, "code-1", "n1");
	assert_int_equal(got.state, CLAIM_SESSION);
	assert_string_equal(got.token, some_token);
	claim(cs, "code-1", "n2");
	assert_int_equal(got.state, CLAIM_SPENT);
	assert_string_equal(got.token, "");
	claim(cs, "code-1", NULL);
	assert_int_equal(got.state, CLAIM_SPENT);
	command("GET", first.key, NULL, NULL);
	assert_null(strstr(got.text, some_token));
	codes_free(cs);
}

static void test_refusals_are_shared_and_drops_are_not(void **state)
{
	struct codes *cs = codes_new(
		redis, &(struct codes_options){.key_prefix = "t:", .replay_window_ms = 60000});
	struct code_claim c = claim(cs, "code-3", NULL);

	(void)state;
	code_settle_refusal(cs, &c, OC_INVALID_CODE, 40163);
	claim(cs, "code-3", "any");
	assert_int_equal(got.state, CLAIM_REFUSED);
	assert_int_equal(got.refused, OC_INVALID_CODE);
	assert_int_equal(got.errcode, 40163);
	c = claim(cs, "code-4", NULL);
	code_drop(cs, &c);
	claim(cs, "code-4", NULL);
	assert_int_equal(got.state, CLAIM_MINE);
	code_drop(cs, &c); /* no longer ours: leaves the other's claim alone */
	code_settle_refusal(cs, &c, OC_INVALID_CODE, 40029);
	claim(cs, "code-4", NULL);
	assert_int_equal(got.state, CLAIM_BUSY);
	codes_free(cs);
}

static void test_a_session_outweighs_a_late_refusal(void **state)
{
	struct codes *cs = codes_new(
		redis, &(struct codes_options){.key_prefix = "t:", .replay_window_ms = 60000});
	struct code_claim slow, next;

	(void)state;
	code_claim_init(cs, &slow, "wx1", "code-5", NULL);
	/* a claim that ends before its holder is back */
	code_claim_try(cs, &slow, 1, on_claim, NULL);
	loop_run(loop);
	wait_ms(10);
	next = claim(cs, "code-5", NULL);
	assert_int_equal(got.state, CLAIM_MINE);
	settle(cs, &slow);
	code_settle_refusal(cs, &next, OC_INVALID_CODE, 40163);
	claim(cs, "code-5", NULL);
	assert_int_equal(got.state, CLAIM_SESSION);
	codes_free(cs);
}

static void test_window_of_zero(void **state)
{
	struct codes *cs = codes_new(
		redis, &(struct codes_options){.key_prefix = "t:", .replay_window_ms = 0});
	struct code_claim first = claim(cs, "code-6", NULL), waiting = claim(cs, "code-6", NULL);

	(void)state;
	assert_int_equal(got.state, CLAIM_BUSY);
	settle(cs, &first);
	code_claim_try(cs, &waiting, 5000, on_claim, NULL);
	loop_run(loop);
	assert_int_equal(got.state, CLAIM_SESSION); /* it asked while the first was asking */
	claim(cs, "code-6", NULL);
	assert_int_equal(got.state, CLAIM_SPENT);
	codes_free(cs);
}

/* ---- */

static int start(void **state)
{
	struct redis_options o = {.unix_path = server.socket,
		.user = "",
		.password = "",
		.timeout_ms = 10000,
		.max_pending = 100};

	(void)state;
	real_redis_start(&server);
	o.unix_path = server.socket;
	loop = loop_new();
	redis = redis_new(loop, &o);
	for (int i = 0; i < 500 && !redis_is_ready(redis); i++)
		wait_ms(20);
	return redis_is_ready(redis) ? 0 : -1;
}

static int stop(void **state)
{
	(void)state;
	redis_free(redis);
	loop_free(loop);
	real_redis_stop(&server);
	return 0;
}

static int flush(void **state)
{
	(void)state;
	command("CONFIG", "SET", "maxmemory", "0");
	command("FLUSHALL", NULL, NULL, NULL);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_life, flush),
		cmocka_unit_test_setup(test_every_key_has_an_end, flush),
		cmocka_unit_test_setup(test_two_ages, flush),
		cmocka_unit_test_setup(test_shorter_ages, flush),
		cmocka_unit_test_setup(test_max_per_user, flush),
		cmocka_unit_test_setup(test_oldest_by_order, flush),
		cmocka_unit_test_setup(test_list_and_end, flush),
		cmocka_unit_test_setup(test_more_sessions_than_one_script_ends, flush),
		cmocka_unit_test_setup(test_more_sessions_than_a_login_ends, flush),
		cmocka_unit_test_setup(test_no_limit_is_a_thousand, flush),
		cmocka_unit_test_setup(test_the_dead_do_not_count, flush),
		cmocka_unit_test_setup(test_the_many_dead_do_not_count, flush),
		cmocka_unit_test_setup(test_unionid_of_the_newest_login, flush),
		cmocka_unit_test_setup(test_the_index_heals, flush),
		cmocka_unit_test_setup(test_the_index_is_swept, flush),
		cmocka_unit_test_setup(test_the_index_comes_back, flush),
		cmocka_unit_test_setup(test_ended_in_its_last_millisecond, flush),
		cmocka_unit_test_setup(test_full, flush),
		cmocka_unit_test_setup(test_simultaneous_questions_are_one, flush),
		cmocka_unit_test_setup(test_ended_between_reading_and_renewing, flush),
		cmocka_unit_test_setup(test_an_answer_too_old_is_asked_for_again, flush),
		cmocka_unit_test_setup(test_session_keys_newest_and_the_one_before, flush),
		cmocka_unit_test_setup(test_session_keys_outlive_their_session, flush),
		cmocka_unit_test_setup(test_session_keys_outlive_a_session_that_expired, flush),
		cmocka_unit_test_setup(test_what_max_age_ended_counts_for_nothing, flush),
		cmocka_unit_test_setup(
			test_session_keys_outlive_a_session_that_was_replaced, flush),
		cmocka_unit_test_setup(test_sealed, flush),
		cmocka_unit_test(test_tokens),
		cmocka_unit_test_setup(test_code_becomes_one_session, flush),
		cmocka_unit_test_setup(test_refusals_are_shared_and_drops_are_not, flush),
		cmocka_unit_test_setup(test_a_session_outweighs_a_late_refusal, flush),
		cmocka_unit_test_setup(test_window_of_zero, flush),
	};

	log_init(LOG_ERROR, LOG_LOGFMT);
	return cmocka_run_group_tests(tests, start, stop);
}
