/* session_keys are the user's: which there are, how long they last, and that Redis holds them
 * sealed. */
#include "real_store.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_session_keys_newest_and_the_one_before),
		T(test_session_keys_outlive_their_session),
		T(test_session_keys_outlive_a_session_that_expired),
		T(test_what_max_age_ended_counts_for_nothing),
		T(test_session_keys_outlive_a_session_that_was_replaced),
		T(test_sealed),
	};

	return RUN(tests);
}
