/* A session from login to end: its ages, who is listed, what two at a time see of it. */
#include "real_store.h"

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

static void on_counted(void *ctx, enum outcome oc, const struct session *ses, const char *reason)
{
	(void)ctx;
	(void)ses;
	(void)reason;
	assert_int_equal(oc, OC_OK);
	if (++got.calls == 50)
		loop_stop(loop);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_life),
		T(test_every_key_has_an_end),
		T(test_two_ages),
		T(test_shorter_ages),
		T(test_list_and_end),
		T(test_unionid_of_the_newest_login),
		T(test_ended_in_its_last_millisecond),
		T(test_full),
		T(test_simultaneous_questions_are_one),
		T(test_ended_between_reading_and_renewing),
		T(test_an_answer_too_old_is_asked_for_again),
		T(test_tokens),
	};

	return RUN(tests);
}
