/* Users: every database passes the same tests, against the real thing. */
#include "user_store.h"

static void test_nobody(void **state)
{
	(void)state;
	get("oNobody");
	assert_int_equal(got.oc, OC_OK);
	assert_false(got.found);
	assert_true(user_db_is_up(db));
}

static void test_logins(void **state)
{
	int64_t began = clock_wall_ms(), first;

	(void)state;
	seen("oOne", NULL);
	assert_int_equal(got.oc, OC_OK);
	assert_true(got.u.is_new);
	assert_string_equal(got.u.openid, "oOne");
	assert_in_range(got.u.number[USER_created_at], began, clock_wall_ms());
	first = got.u.number[USER_created_at];
	assert_int_equal(got.u.number[USER_last_login_at], first);
	assert_int_equal(got.u.number[USER_updated_at], -1);
	assert_int_equal(got.u.number[USER_gender], -1);
	assert_text(USER_unionid, NULL);

	seen("oOne", "uUnion");
	assert_false(got.u.is_new);
	assert_text(USER_unionid, "uUnion");
	assert_int_equal(got.u.number[USER_created_at], first);
	assert_true(got.u.number[USER_last_login_at] > first);
	seen("oOne", NULL); /* WeChat did not say it this time */
	assert_text(USER_unionid, "uUnion");
	get("oOne");
	assert_text(USER_unionid, "uUnion");
	assert_int_equal(got.u.number[USER_created_at], first);
}

static void test_profiles(void **state)
{
	struct user_patch p = patch(USER_nickname, "Band"), nothing = {0};
	int64_t updated;

	(void)state;
	p.given |= 1u << USER_city | 1u << USER_avatar_url;
	p.text[USER_city] = "";
	p.text[USER_avatar_url] = "https://example.org/a?b=c&d='%s'";
	p.gender_given = true;
	p.gender = 2;
	put("oOne", &p);
	assert_true(got.u.is_new);
	assert_text(USER_nickname, "Band");
	assert_text(USER_city, "");
	assert_text(USER_country, NULL);
	assert_int_equal(got.u.number[USER_gender], 2);
	assert_int_equal(got.u.number[USER_last_login_at], -1);
	assert_int_equal(got.u.number[USER_updated_at], got.u.number[USER_created_at]);
	updated = got.u.number[USER_updated_at];

	seen("oOne", NULL);
	assert_false(got.u.is_new);
	assert_text(USER_nickname, "Band");
	assert_int_equal(got.u.number[USER_updated_at], updated);
	usleep(2000);
	put("oOne", &nothing);
	put_text("oOne", USER_nickname, "Band"); /* as it is */
	assert_int_equal(got.u.number[USER_updated_at], updated);
	put_text("oOne", USER_nickname, NULL);
	assert_text(USER_nickname, NULL);
	assert_text(USER_avatar_url, "https://example.org/a?b=c&d='%s'");
	assert_true(got.u.number[USER_updated_at] > updated);
	p = (struct user_patch){.gender_given = true, .gender = -1};
	put("oOne", &p);
	assert_int_equal(got.u.number[USER_gender], -1);
	p.gender = 0;
	put("oOne", &p);
	get("oOne");
	assert_int_equal(got.u.number[USER_gender], 0);
	assert_text(USER_city, "");
	assert_text(USER_nickname, NULL);
}

static void test_texts_come_back_as_they_went(void **state)
{
	static const char *const texts[] = {"\xe5\xb0\x8f\xe6\x98\x8e\xf0\x9f\x90\xbc",
		"'; DROP TABLE users; --", "\"quoted\" \\ back\\slash \\' \\0", "%d %s _ %",
		"line\nend\r\ttab\x1a", " blanks ", "NULL", "caf\xc3\xa9 e\xcc\x81", "?", "`",
		"/* */ # --", "0x41"};

	(void)state;
	for (size_t i = 0; i < NELEM(texts); i++) {
		put_text("oOne", USER_nickname, texts[i]);
		assert_text(USER_nickname, texts[i]);
		get("oOne");
		assert_text(USER_nickname, texts[i]);
	}
}

static void test_keys_are_told_apart(void **state)
{
	static const char *const openids[] = {"oAbC", "oabc", "OABC", "oAbC ", "oAbC'", "oAbC\\",
		"oAbC\"", "o\303\241bC", "oAb", "oAbCd", "%", "_"};

	(void)state;
	for (size_t i = 0; i < NELEM(openids); i++) {
		put_text(openids[i], USER_nickname, openids[i]);
		assert_true(got.u.is_new);
	}
	for (size_t i = 0; i < NELEM(openids); i++) {
		get(openids[i]);
		assert_text(USER_nickname, openids[i]);
	}
	begin(1); /* and the app is part of the key */
	user_get(db, "wxfa4efa4efa4efa4f", "oAbC", LONG_MS, on_user, NULL);
	wait_for_all();
	assert_false(got.found);
}

static const int widths[USER_TEXT_COUNT] = {
#define X(name, max) max,
	USER_TEXTS(X)
#undef X
};

static void test_lengths_are_in_characters(void **state)
{
	char openid[USER_OPENID_MAX + 1];

	(void)state;
	memset(openid, 'o', sizeof(openid) - 1);
	openid[sizeof(openid) - 1] = '\0';
	for (int i = 0; i < USER_TEXT_COUNT; i++) {
		put_text(openid, (enum user_text)i, wide(widths[i]));
		assert_text((enum user_text)i, wide(widths[i]));
	}
	get(openid);
	for (int i = 0; i < USER_TEXT_COUNT; i++)
		assert_text((enum user_text)i, wide(widths[i]));
}

/* A value that no column holds costs its own user, not the batch. */
static void test_a_bad_one_among_many(void **state)
{
	enum outcome oc[40];
	char openid[16];

	(void)state;
	begin(NELEM(oc));
	for (int i = 0; i < (int)NELEM(oc); i++) {
		struct user_patch p =
			patch(USER_language, i == 17 ? wide(USER_language_MAX + 1) : "zh_CN");

		snprintf(openid, sizeof(openid), "o%d", i);
		user_put(db, APP, openid, &p, LONG_MS, on_user, &oc[i]);
	}
	wait_for_all();
	for (size_t i = 0; i < NELEM(oc); i++)
		assert_int_equal(oc[i], i == 17 ? OC_STORE_UNAVAILABLE : OC_OK);
	assert_true(user_db_is_up(db));
	get("o17");
	assert_false(got.found);
	get("o39");
	assert_text(USER_language, "zh_CN");
}

/* Many at once, each user several times: all are told, each in its turn. */
static void test_many_at_once(void **state)
{
	char openid[16], name[16];

	(void)state;
	begin(MANY);
	for (int i = 0; i < MANY; i++) {
		struct user_patch p = patch(USER_nickname, name);

		snprintf(openid, sizeof(openid), "o%d", i % 100);
		snprintf(name, sizeof(name), "n%d", i);
		if (i % 10 == 9)
			user_get(db, APP, openid, LONG_MS, on_user, NULL);
		else if (i % 10 == 8)
			user_seen(db, APP, openid, NULL, INT64_MAX, LONG_MS, on_user, NULL);
		else
			user_put(db, APP, openid, &p, LONG_MS, on_user, NULL);
	}
	wait_for_all();
	assert_int_equal(bad, 0);
	assert_int_equal(news, 90); /* one of ten was only asked for */
	get("o7");
	assert_text(USER_nickname, "n907");
	get("o8");
	assert_text(USER_nickname, NULL);
	get("o9");
	assert_false(got.found);
}

static void test_it_lasts(void **state)
{
	(void)state;
	put_text("oOne", USER_nickname, "Band");
	user_db_free(db);
	db = open_db();
	get("oOne");
	assert_text(USER_nickname, "Band");
	seen("oOne", NULL);
	assert_false(got.u.is_new);
}

/* What waits at the end is done, or at least told. */
static void test_the_end_tells_all(void **state)
{
	char openid[16];

	(void)state;
	begin(500);
	for (int i = 0; i < 500; i++) {
		snprintf(openid, sizeof(openid), "o%d", i);
		user_seen(db, APP, openid, NULL, INT64_MAX, LONG_MS, on_user, NULL);
	}
	user_db_free(db);
	assert_int_equal(calls, 500);
	db = open_db();
	get("o0");
	assert_true(got.found);
}

static void test_a_full_queue(void **state)
{
	int most = 0;

	(void)state;
	user_db_free(db);
	options.queue_max = 10;
	db = open_db();
	begin(MANY);
	for (int i = 0; i < MANY; i++)
		user_get(db, APP, "oOne", LONG_MS, on_user, NULL);
	wait_for_all();
	most = bad;
	assert_true(most > 0 && most < MANY);
	get("oOne");
	assert_int_equal(got.oc, OC_OK);
}

/* Changes of one user come in the order they were asked for, within a batch too. */
static void test_order(void **state)
{
	char name[16];

	(void)state;
	begin(40);
	for (int i = 0; i < 40; i++) {
		struct user_patch p = patch(USER_nickname, name);

		snprintf(name, sizeof(name), "n%d", i);
		user_put(db, APP, "oOne", &p, LONG_MS, on_user, NULL);
	}
	wait_for_all();
	assert_text(USER_nickname, "n39");
	get("oOne");
	assert_text(USER_nickname, "n39");
	assert_int_equal(news, 0);
}

/* Users of several apps in one batch. */
static void test_many_apps_at_once(void **state)
{
	static const char *const apps[] = {"wxa", "wxb", "wxB", "wxc"};
	char name[40];

	(void)state;
	for (int round = 0; round < 2; round++) {
		begin(200);
		for (int i = 0; i < 200; i++) {
			struct user_patch p = patch(USER_nickname, name);

			snprintf(name, sizeof(name), "%s-%d-%d", apps[i % 4], i / 40, round);
			user_put(db, apps[i % 4], i / 20 % 2 ? "oOne" : "oTwo", &p, LONG_MS,
				on_user, NULL);
		}
		wait_for_all();
		assert_int_equal(bad, 0);
		assert_int_equal(news, round ? 0 : 8);
	}
	for (int i = 0; i < 4; i++) {
		begin(1);
		user_get(db, apps[i], "oOne", LONG_MS, on_user, NULL);
		wait_for_all();
		snprintf(name, sizeof(name), "%s-4-1", apps[i]);
		assert_text(USER_nickname, name);
	}
}

/* Two at one database: none is lost, and who was first is said once. */
static void test_two_at_once(void **state)
{
	struct user_db *other = open_db();
	char openid[16];

	(void)state;
	for (int round = 0; round < 3; round++) {
		begin(MANY);
		for (int i = 0; i < MANY; i++) {
			snprintf(openid, sizeof(openid), "o%d", round * MANY + i / 2);
			user_seen(i % 2 ? db : other, APP, openid, NULL, INT64_MAX, LONG_MS,
				on_user, NULL);
		}
		wait_for_all();
		assert_int_equal(bad, 0);
		assert_int_equal(news, MANY / 2);
	}
	for (int round = 0; round < 6;
		round++) { /* each its own column: neither undoes the other's, in new rows or old */
		const char *value = round % 2 ? "x" : "y";

		begin(MANY);
		for (int i = 0; i < MANY; i++) {
			struct user_patch p = patch(i % 2 ? USER_city : USER_country, value);

			snprintf(openid, sizeof(openid), "p%d", i / 2);
			user_put(i % 2 ? db : other, APP, openid, &p, LONG_MS, on_user, NULL);
		}
		wait_for_all();
		assert_int_equal(bad, 0);
		assert_int_equal(news, round ? 0 : MANY / 2);
		for (int i = 0; i < MANY / 2; i++) {
			snprintf(openid, sizeof(openid), "p%d", i);
			get(openid);
			assert_text(USER_city, value);
			assert_text(USER_country, value);
		}
	}
	user_db_free(other);
}

/* In a child: opens, makes the user, closes. */
static int child_opens(void)
{
	loop = loop_new();
	db = user_db_new(loop, &options, why, sizeof(why));
	if (!db) {
		fprintf(stderr, "child: %s\n", why);
		return 1;
	}
	begin(1);
	user_seen(db, APP, "oOne", NULL, INT64_MAX, LONG_MS, on_user, NULL);
	loop_run(loop);
	user_db_free(db);
	return got.oc == OC_OK ? 0 : 2;
}

static void test_many_make_the_schema_at_once(void **state)
{
	pid_t pids[8];

	(void)state;
	user_db_free(db);
	db = NULL;
	kind->fresh();
	for (size_t i = 0; i < NELEM(pids); i++) {
		pids[i] = fork();
		if (pids[i] == 0)
			_exit(child_opens());
	}
	for (size_t i = 0; i < NELEM(pids); i++) {
		int status;

		assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
		assert_int_equal(status, 0);
	}
	db = open_db();
	get("oOne");
	assert_true(got.found);
}

static void test_a_newer_schema_is_refused(void **state)
{
	(void)state;
	user_db_free(db);
	kind->set_version(9);
	db = user_db_new(loop, &options, why, sizeof(why));
	assert_null(db);
	assert_string_equal(why, "its schema is version 9, and this wxlogind knows no newer than "
				 "1: run the newer wxlogind");
	kind->set_version(1);
	db = open_db();
	get("oOne");
	assert_int_equal(got.oc, OC_OK);
}

/* ---- none ---- */

static void test_none(void **state)
{
	(void)state;
	loop = loop_new();
	options = (struct user_db_options){.scheme = "none"};
	db = open_db();
	assert_false(user_db_is_up(db));
	seen("oOne", "u");
	assert_int_equal(got.oc, OC_NOT_FOUND);
	get("oOne");
	assert_int_equal(got.oc, OC_NOT_FOUND);
	put_text("oOne", USER_nickname, "x");
	assert_int_equal(got.oc, OC_NOT_FOUND);
	assert_false(got.found);
	begin(2);
	user_get(db, APP, "oOne", LONG_MS, on_user, NULL);
	user_db_free(db);
	assert_int_equal(calls, 1);
	loop_free(loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(test_nobody),
		BOTH(test_logins),
		BOTH(test_profiles),
		BOTH(test_texts_come_back_as_they_went),
		BOTH(test_keys_are_told_apart),
		BOTH(test_lengths_are_in_characters),
		BOTH(test_a_bad_one_among_many),
		BOTH(test_many_at_once),
		BOTH(test_many_apps_at_once),
		BOTH(test_order),
		BOTH(test_it_lasts),
		BOTH(test_the_end_tells_all),
		BOTH(test_a_full_queue),
		BOTH(test_two_at_once),
		BOTH(test_many_make_the_schema_at_once),
		BOTH(test_a_newer_schema_is_refused),
	};
	const struct CMUnitTest on_none[] = {cmocka_unit_test(test_none)};
	int failed;

	sqlite_begin();
	failed = cmocka_run_group_tests_name("users in sqlite", tests, NULL, NULL);
	failed += cmocka_run_group_tests_name("users in none", on_none, NULL, NULL);
	sqlite_end();
	mysql_begin();
	failed += cmocka_run_group_tests_name("users in mysql", tests, NULL, NULL);
	real_mariadb_stop(&server);
	return failed;
}
