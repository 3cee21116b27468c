/* Users in MySQL or MariaDB: a server that is slow, away, frozen, killed, or refuses. */
#include "user_store.h"

static void wait_until_up(bool up)
{
	int64_t end = clock_ms() + LONG_MS;

	while (user_db_is_up(db) != up && clock_ms() < end)
		usleep(5000);
	assert_true(user_db_is_up(db) == up);
}

/* Frozen: answers in time, not waited for after the first, and all is back by itself. */
static void test_mysql_frozen(void **state)
{
	enum outcome late;
	int64_t began;

	(void)state;
	put_text("oOne", USER_nickname, "Band");
	user_db_free(db);
	options.timeout_ms = 1000;
	db = open_db();
	kill(server.pid, SIGSTOP);
	began = clock_ms();
	begin(2);
	user_seen(db, APP, "oTwo", NULL, INT64_MAX, 200, on_user, NULL);
	user_get(db, APP, "oOne", 300, on_user, &late);
	wait_for_all();
	assert_in_range(clock_ms() - began, 290, LONG_MS / 4);
	assert_int_equal(bad, 2);
	assert_int_equal(late, OC_STORE_UNAVAILABLE);
	assert_false(user_db_is_up(db));
	get("oOne"); /* until the thread's read has timed out */
	assert_int_equal(got.oc, OC_STORE_UNAVAILABLE);
	get("oOne"); /* while the thread connects again */
	assert_int_equal(got.oc, OC_STORE_UNAVAILABLE);
	kill(server.pid, SIGCONT);
	wait_until_up(true);
	get("oOne");
	assert_text(USER_nickname, "Band");
	put_text("oTwo", USER_nickname, "x");
	assert_text(USER_nickname, "x");
}

static void test_mysql_killed(void **state)
{
	(void)state;
	put_text("oOne", USER_nickname, "Band");
	real_mariadb_kill(&server);
	wait_until_up(false); /* though nobody asks */
	get("oOne");
	assert_int_equal(got.oc, OC_STORE_UNAVAILABLE);
	real_mariadb_up(&server);
	wait_until_up(true);
	get("oOne");
	assert_text(USER_nickname, "Band");
}

static void test_mysql_away_at_start(void **state)
{
	(void)state;
	put_text("oOne", USER_nickname, "Band");
	user_db_free(db);
	real_mariadb_kill(&server);
	db = open_db();
	assert_false(user_db_is_up(db));
	seen("oOne", NULL);
	assert_int_equal(got.oc, OC_STORE_UNAVAILABLE);
	real_mariadb_up(&server);
	wait_until_up(true);
	seen("oOne", NULL);
	assert_text(USER_nickname, "Band");
}

/* A first connection that takes long is waited for, not taken for one that failed. */
static void test_mysql_slow_at_start(void **state)
{
	struct user_patch p = patch(USER_nickname, "Band");

	(void)state;
	user_db_free(db);
	kill(server.pid, SIGSTOP);
	db = open_db();
	assert_false(user_db_is_up(db));
	begin(1);
	user_put(db, APP, "oOne", &p, LONG_MS, on_user, NULL);
	kill(server.pid, SIGCONT);
	wait_for_all();
	assert_text(USER_nickname, "Band");
	assert_true(user_db_is_up(db));
}

/* Our connection is cut, as administrators and proxies do. */
static void test_mysql_connection_cut(void **state)
{
	int64_t end = clock_ms() + LONG_MS;

	(void)state;
	put_text("oOne", USER_nickname, "Band");
	real_mariadb_do(&server, "KILL USER wxl");
	do
		put_text("oOne", USER_city, "x");
	while (got.oc != OC_OK && clock_ms() < end);
	assert_text(USER_nickname, "Band");
}

static void test_mysql_refused(void **state)
{
	(void)state;
	user_db_free(db);
	options.password = "wrong";
	db = user_db_new(loop, &options, why, sizeof(why));
	assert_null(db);
	assert_non_null(strstr(why, "Access denied for user 'wxl'"));
	assert_null(strstr(why, "wrong"));
	options.password = "p'ss";
	options.database = "nowhere";
	db = user_db_new(loop, &options, why, sizeof(why));
	assert_null(db);
	assert_non_null(strstr(why, "nowhere"));
}

/* A lock that somebody else keeps costs its users, in time, and nobody else. */
static void test_mysql_locked(void **state)
{
	MYSQL *m = real_mariadb_root(&server);

	(void)state;
	put_text("oOne", USER_nickname, "Band");
	user_db_free(db);
	options.timeout_ms = 1000;
	db = open_db();
	assert_int_equal(mysql_query(m, "START TRANSACTION"), 0);
	assert_int_equal(mysql_query(m, "UPDATE users.wxlogind_users SET city = 'y' WHERE appid = "
					"'wxfa4efa4efa4efa4e' AND openid = 'oOne'"),
		0);
	put_text("oOne", USER_nickname, "x");
	assert_int_equal(got.oc, OC_STORE_UNAVAILABLE);
	put_text("oTwo", USER_nickname, "x");
	assert_int_equal(got.oc, OC_OK);
	get("oOne");
	assert_text(USER_nickname, "Band");
	mysql_close(m);
	put_text("oOne", USER_nickname, "x");
	assert_text(USER_nickname, "x");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(test_mysql_frozen),
		BOTH(test_mysql_killed),
		BOTH(test_mysql_away_at_start),
		BOTH(test_mysql_slow_at_start),
		BOTH(test_mysql_connection_cut),
		BOTH(test_mysql_refused),
		BOTH(test_mysql_locked),
	};
	int failed;

	mysql_begin();
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	real_mariadb_stop(&server);
	return failed;
}
