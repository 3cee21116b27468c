/* Users in SQLite: what only this database has. */
#include "user_store.h"

static void test_sqlite_file_is_private(void **state)
{
	static const char *const ends[] = {"", "-wal"};
	char path[128];
	struct stat st;

	(void)state;
	put_text("oOne", USER_phone, "1");
	for (size_t i = 0; i < NELEM(ends); i++) {
		snprintf(path, sizeof(path), "%s%s", file, ends[i]);
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_mode & 0777, 0600);
	}
}

static void refuses(const char *path, const char *cause)
{
	struct user_db_options o = {
		.scheme = "sqlite", .path = path, .timeout_ms = 1000, .queue_max = 1};

	assert_null(user_db_new(loop, &o, why, sizeof(why)));
	assert_string_equal(why, cause);
}

static void test_sqlite_paths(void **state)
{
	char path[256];
	int fd;

	(void)state;
	snprintf(path, sizeof(path),
		"No such file or directory: make its directory: sudo install -d -m 700 -o %u "
		"/nonexistent/users, or give another path "
		"in users.url",
		(unsigned)geteuid());
	refuses("/nonexistent/users/users.db", path);
	refuses(dir, "Is a directory");
	snprintf(path, sizeof(path), "%s/text", dir);
	fd = open(path, O_WRONLY | O_CREAT, 0600);
	for (int i = 0; i < 200; i++)
		assert_int_equal(write(fd, "this is no database\n", 20), 20);
	close(fd);
	refuses(path, "file is not a database");
	unlink(path);
}

/* The log is moved into the file beside, and does not grow for ever. */
static void test_sqlite_checkpoints(void **state)
{
	int64_t end = clock_ms() + LONG_MS;
	struct stat st = {0};

	(void)state;
	put_text("oOne", USER_nickname, "Band");
	while (clock_ms() < end && st.st_size <= 4096) { /* an empty file and its first page */
		usleep(10000);
		assert_int_equal(stat(file, &st), 0);
	}
	assert_true(st.st_size > 4096);
}

static int64_t log_size(void)
{
	char path[112];
	struct stat st;

	snprintf(path, sizeof(path), "%s-wal", file);
	return stat(path, &st) == 0 ? (int64_t)st.st_size : 0;
}

/* A reader that stays: the log grows to its bound and no further, reads go on, and once he is gone
 * all is well and the log's file small. */
static void test_sqlite_log_is_bounded(void **state)
{
	int64_t end = clock_ms() + LONG_MS;
	char text[32];
	sqlite3 *reader;

	(void)state;
	user_db_free(db);
	options.log_max = 256 * 1024;
	db = open_db();
	put_text("oOne", USER_nickname, "Band");
	assert_int_equal(sqlite3_open(file, &reader), SQLITE_OK);
	sqlite3_busy_timeout(reader, LONG_MS);
	assert_int_equal(
		sqlite3_exec(reader, "BEGIN; SELECT * FROM users", NULL, NULL, NULL), SQLITE_OK);
	for (int i = 0; got.oc == OC_OK; i++) {
		assert_true(clock_ms() < end);
		snprintf(text, sizeof(text), "o%d", i);
		put_text(text, USER_avatar_url, wide(1000));
	}
	assert_int_equal(got.oc, OC_STORE_UNAVAILABLE);
	assert_in_range(log_size(), 8 * options.log_max, 9 * options.log_max);
	get("oOne");
	assert_text(USER_nickname, "Band");
	assert_int_equal(sqlite3_exec(reader, "COMMIT", NULL, NULL, NULL), SQLITE_OK);
	do {
		usleep(10000);
		put_text("oOne", USER_nickname, "y");
	} while (got.oc != OC_OK && clock_ms() < end);
	assert_text(USER_nickname, "y");
	assert_true(log_size() < options.log_max);
	sqlite3_close(reader);
}

/* A table that cannot be written: 503 while it is so, and good again without a restart. */
static void test_sqlite_trouble_passes(void **state)
{
	(void)state;
	put_text("oOne", USER_nickname, "Band");
	sqlite_do("CREATE TRIGGER t BEFORE INSERT ON users BEGIN SELECT RAISE(FAIL, 'x') WHERE "
		  "new.openid LIKE 'b%'; END");
	put_text("bad", USER_nickname, "x");
	assert_int_equal(got.oc, OC_STORE_UNAVAILABLE);
	put_text("oOne", USER_nickname, "y");
	assert_text(USER_nickname, "y");
	sqlite_do("DROP TRIGGER t");
	put_text("bad", USER_nickname, "x");
	assert_text(USER_nickname, "x");
}

/* Another process holds the file for longer than we wait: 503 in time; a reader does not wait. */
static void test_sqlite_locked(void **state)
{
	int64_t began;
	sqlite3 *s;

	(void)state;
	put_text("oOne", USER_nickname, "Band");
	user_db_free(db);
	options.timeout_ms = 100;
	db = open_db();
	assert_int_equal(sqlite3_open(file, &s), SQLITE_OK);
	assert_int_equal(sqlite3_exec(s, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
	began = clock_ms();
	put_text("oOne", USER_nickname, "x");
	assert_int_equal(got.oc, OC_STORE_UNAVAILABLE);
	assert_in_range(clock_ms() - began, 90, LONG_MS / 2);
	get("oOne");
	assert_text(USER_nickname, "Band");
	assert_int_equal(sqlite3_exec(s, "COMMIT", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(s);
	put_text("oOne", USER_nickname, "y");
	assert_text(USER_nickname, "y");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(test_sqlite_file_is_private),
		BOTH(test_sqlite_paths),
		BOTH(test_sqlite_checkpoints),
		BOTH(test_sqlite_log_is_bounded),
		BOTH(test_sqlite_trouble_passes),
		BOTH(test_sqlite_locked),
	};
	int failed;

	sqlite_begin();
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	sqlite_end();
	return failed;
}
