/* A user database under test: SQLite in a file, or a real MariaDB; how to ask it, and what came. */
#ifndef USER_STORE_H
#define USER_STORE_H

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

static inline void remove_file(void)
{
	static const char *const ends[] = {"", "-wal", "-shm"};
	char path[128];

	for (size_t i = 0; i < NELEM(ends); i++) {
		snprintf(path, sizeof(path), "%s%s", file, ends[i]);
		unlink(path);
	}
}

static inline void sqlite_fresh(void)
{
	remove_file();
	options = (struct user_db_options){
		.scheme = "sqlite", .path = file, .timeout_ms = 5000, .queue_max = 2 * MANY};
}

static inline void sqlite_do(const char *sql)
{
	sqlite3 *s;

	assert_int_equal(sqlite3_open(file, &s), SQLITE_OK);
	sqlite3_busy_timeout(s, LONG_MS);
	assert_int_equal(sqlite3_exec(s, sql, NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(s);
}

static inline void sqlite_set_version(int version)
{
	char sql[64];

	snprintf(sql, sizeof(sql), "PRAGMA user_version = %d", version);
	sqlite_do(sql);
}

static const struct kind sqlite_kind = {"sqlite", sqlite_fresh, sqlite_set_version};

static struct real_mariadb server;

static inline void mysql_fresh(void)
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

static inline void mysql_set_version(int version)
{
	char sql[80];

	snprintf(sql, sizeof(sql), "UPDATE users.wxlogind_schema SET version = %d", version);
	real_mariadb_do(&server, sql);
}

static const struct kind mysql_kind = {"mysql", mysql_fresh, mysql_set_version};

static inline struct user_db *open_db(void)
{
	struct user_db *d = user_db_new(loop, &options, why, sizeof(why));

	if (!d)
		fail_msg("%s does not open: %s", kind->name, why);
	return d;
}

static inline int setup(void **state)
{
	(void)state;
	loop = loop_new();
	kind->fresh();
	db = open_db();
	return 0;
}

static inline int teardown(void **state)
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

static inline void take(enum outcome oc, const struct user *u)
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

static inline void on_user(void *ctx, enum outcome oc, const struct user *u)
{
	if (ctx)
		*(enum outcome *)ctx = oc;
	take(oc, u);
}

static inline void begin(int n)
{
	calls = news = bad = 0;
	expected = n;
}

static inline void wait_for_all(void)
{
	assert_int_equal(calls, 0); /* never before the starter returns */
	loop_run(loop);
	assert_int_equal(calls, expected);
}

static inline void seen(const char *openid, const char *unionid)
{
	begin(1);
	user_seen(db, APP, openid, unionid, INT64_MAX, LONG_MS, on_user, NULL);
	wait_for_all();
}

static inline void get(const char *openid)
{
	begin(1);
	user_get(db, APP, openid, LONG_MS, on_user, NULL);
	wait_for_all();
}

static inline struct user_patch patch(enum user_text which, const char *value)
{
	struct user_patch p = {.given = 1u << which};

	p.text[which] = value;
	return p;
}

static inline void put(const char *openid, const struct user_patch *p)
{
	begin(1);
	user_put(db, APP, openid, p, LONG_MS, on_user, NULL);
	wait_for_all();
}

static inline void put_text(const char *openid, enum user_text which, const char *value)
{
	struct user_patch p = patch(which, value);

	put(openid, &p);
}

static inline void assert_text(enum user_text which, const char *value)
{
	assert_int_equal(got.oc, OC_OK);
	assert_true(got.found);
	if (value)
		assert_non_null(got.u.text[which]);
	assert_string_equal(
		got.u.text[which] ? got.u.text[which] : "(null)", value ? value : "(null)");
}

static inline const char *wide(int n)
{
	static char text[4 * 1100 + 1];

	text[0] = '\0';
	for (int i = 0; i < n; i++)
		memcpy(text + (size_t)i * 4, "\xf0\x9f\x90\xbc", 5);
	return text;
}

#define BOTH(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static inline void sqlite_begin(void)
{
	if (!mkdtemp(dir))
		fail_msg("no directory: %s", strerror(errno));
	snprintf(file, sizeof(file), "%s/users.db", dir);
	kind = &sqlite_kind;
}

static inline void sqlite_end(void)
{
	remove_file();
	rmdir(dir);
}

static inline void mysql_begin(void)
{
	kind = &mysql_kind;
	real_mariadb_start(&server);
	real_mariadb_do(&server, "CREATE USER wxl@localhost IDENTIFIED BY 'p''ss'; GRANT ALL ON "
				 "users.* TO wxl@localhost");
}

#endif
