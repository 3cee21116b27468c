/* Users: every database passes the same tests, against the real thing; then what only one of them
 * has. */
#include "store/user.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sqlite3.h>

#include "common/clock.h"
#include "common/log.h"
#include "real_mariadb.h"
#include "unit.h"

enum { LONG_MS = 20000, MANY = 1000 };
static const char APP[] = "wxfa4efa4efa4efa4e";

/* ---- a database under test ---- */

struct kind {
	const char *name;
	void (*fresh)(void);             /* an empty one, no schema */
	void (*set_version)(int version);
};

static const struct kind *kind;
static struct user_db_options options;
static char dir[] = "/tmp/wxlogind-user-XXXXXX", file[96];
static struct loop *loop;
static struct user_db *db;
static char why[256];

static void remove_file(void)
{
	static const char *const ends[] = {"", "-wal", "-shm"};
	char path[128];

	for (size_t i = 0; i < NELEM(ends); i++) {
		snprintf(path, sizeof(path), "%s%s", file, ends[i]);
		unlink(path);
	}
}

static void sqlite_fresh(void)
{
	remove_file();
	options = (struct user_db_options){
		.scheme = "sqlite", .path = file, .timeout_ms = 5000, .queue_max = 2 * MANY};
}

static void sqlite_do(const char *sql)
{
	sqlite3 *s;

	assert_int_equal(sqlite3_open(file, &s), SQLITE_OK);
	sqlite3_busy_timeout(s, LONG_MS);
	assert_int_equal(sqlite3_exec(s, sql, NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(s);
}

static void sqlite_set_version(int version)
{
	char sql[64];

	snprintf(sql, sizeof(sql), "PRAGMA user_version = %d", version);
	sqlite_do(sql);
}

static const struct kind sqlite_kind = {"sqlite", sqlite_fresh, sqlite_set_version};

static struct real_mariadb server;

static void mysql_fresh(void)
{
	real_mariadb_do(&server,
		"DROP DATABASE IF EXISTS users; CREATE DATABASE users CHARACTER SET latin1");
	options = (struct user_db_options){.scheme = "mysql",
		.path = server.socket,
		.user = "wxl",
		.password = "p'ss",
		.database = "users",
		.timeout_ms = 5000,
		.queue_max = 2 * MANY};
}

static void mysql_set_version(int version)
{
	char sql[80];

	snprintf(sql, sizeof(sql), "UPDATE users.wxlogind_schema SET version = %d", version);
	real_mariadb_do(&server, sql);
}

static const struct kind mysql_kind = {"mysql", mysql_fresh, mysql_set_version};

static struct user_db *open_db(void)
{
	struct user_db *d = user_db_new(loop, &options, why, sizeof(why));

	if (!d)
		fail_msg("%s does not open: %s", kind->name, why);
	return d;
}

static int setup(void **state)
{
	(void)state;
	loop = loop_new();
	kind->fresh();
	db = open_db();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	user_db_free(db);
	loop_free(loop);
	return 0;
}

/* ---- asking, and what came ---- */

static struct got {
	enum outcome oc;
	bool found;
	struct user u;
	char openid[256], texts[USER_TEXT_COUNT][4200];
} got;
static int calls, expected, news, bad;

static void take(enum outcome oc, const struct user *u)
{
	got.oc = oc;
	got.found = u != NULL;
	if (u) {
		got.u = *u;
		got.u.openid = strcpy(got.openid, u->openid);
		for (int i = 0; i < USER_TEXT_COUNT; i++) {
			snprintf(got.texts[i], sizeof(got.texts[i]), "%s",
				u->text[i] ? u->text[i] : "");
			got.u.text[i] = u->text[i] ? got.texts[i] : NULL;
		}
	}
	news += u && u->is_new;
	bad += oc != OC_OK;
	if (++calls == expected)
		loop_stop(loop);
}

static void on_user(void *ctx, enum outcome oc, const struct user *u)
{
	if (ctx)
		*(enum outcome *)ctx = oc;
	take(oc, u);
}

static void begin(int n)
{
	calls = news = bad = 0;
	expected = n;
}

static void wait_for_all(void)
{
	assert_int_equal(calls, 0); /* never before the starter returns */
	loop_run(loop);
	assert_int_equal(calls, expected);
}

static void seen(const char *openid, const char *unionid)
{
	begin(1);
	user_seen(db, APP, openid, unionid, INT64_MAX, LONG_MS, on_user, NULL);
	wait_for_all();
}

static void get(const char *openid)
{
	begin(1);
	user_get(db, APP, openid, LONG_MS, on_user, NULL);
	wait_for_all();
}

static struct user_patch patch(enum user_text which, const char *value)
{
	struct user_patch p = {.given = 1u << which};

	p.text[which] = value;
	return p;
}

static void put(const char *openid, const struct user_patch *p)
{
	begin(1);
	user_put(db, APP, openid, p, LONG_MS, on_user, NULL);
	wait_for_all();
}

static void put_text(const char *openid, enum user_text which, const char *value)
{
	struct user_patch p = patch(which, value);

	put(openid, &p);
}

static void assert_text(enum user_text which, const char *value)
{
	assert_int_equal(got.oc, OC_OK);
	assert_true(got.found);
	if (value)
		assert_non_null(got.u.text[which]);
	assert_string_equal(
		got.u.text[which] ? got.u.text[which] : "(null)", value ? value : "(null)");
}

/* ---- what every database does ---- */

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

static const char *wide(int n)
{
	static char text[4 * 1100 + 1];

	text[0] = '\0';
	for (int i = 0; i < n; i++)
		memcpy(text + (size_t)i * 4, "\xf0\x9f\x90\xbc", 5);
	return text;
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

/* ---- SQLite alone ---- */

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

/* ---- MySQL alone ---- */

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
	usleep(1500000); /* its reads time out: away, and a question is refused */
	get("oOne");
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

#define BOTH(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define COMMON \
	BOTH(test_nobody), BOTH(test_logins), BOTH(test_profiles), \
		BOTH(test_texts_come_back_as_they_went), BOTH(test_keys_are_told_apart), \
		BOTH(test_lengths_are_in_characters), BOTH(test_a_bad_one_among_many), \
		BOTH(test_many_at_once), BOTH(test_many_apps_at_once), BOTH(test_order), \
		BOTH(test_it_lasts), BOTH(test_the_end_tells_all), BOTH(test_a_full_queue), \
		BOTH(test_two_at_once), BOTH(test_many_make_the_schema_at_once), \
		BOTH(test_a_newer_schema_is_refused)

int main(void)
{
	const struct CMUnitTest on_sqlite[] = {
		COMMON,
		BOTH(test_sqlite_file_is_private),
		BOTH(test_sqlite_paths),
		BOTH(test_sqlite_checkpoints),
		BOTH(test_sqlite_log_is_bounded),
		BOTH(test_sqlite_trouble_passes),
		BOTH(test_sqlite_locked),
	};
	const struct CMUnitTest on_mysql[] = {
		COMMON,
		BOTH(test_mysql_frozen),
		BOTH(test_mysql_killed),
		BOTH(test_mysql_away_at_start),
		BOTH(test_mysql_slow_at_start),
		BOTH(test_mysql_connection_cut),
		BOTH(test_mysql_refused),
		BOTH(test_mysql_locked),
	};
	const struct CMUnitTest on_none[] = {cmocka_unit_test(test_none)};
	int failed;

	if (!mkdtemp(dir))
		return 1;
	snprintf(file, sizeof(file), "%s/users.db", dir);
	kind = &sqlite_kind;
	failed = cmocka_run_group_tests_name("users in sqlite", on_sqlite, NULL, NULL);
	failed += cmocka_run_group_tests_name("users in none", on_none, NULL, NULL);
	remove_file();
	rmdir(dir);
	kind = &mysql_kind;
	real_mariadb_start(&server);
	real_mariadb_do(&server, "CREATE USER wxl@localhost IDENTIFIED BY 'p''ss'; GRANT ALL ON "
				 "users.* TO wxl@localhost");
	failed += cmocka_run_group_tests_name("users in mysql", on_mysql, NULL, NULL);
	real_mariadb_stop(&server);
	return failed;
}
