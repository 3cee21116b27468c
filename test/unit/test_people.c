/* Users in SQL, what operators and the law ask for: erasures, blocks, lists, and phone numbers at
 * rest. Against SQLite, and against a MariaDB of the test's own. */
#include <sqlite3.h>

#include "common/clock.h"
#include "common/mem.h"
#include "real_mariadb.h"
#include "store/user.h"

enum { LONG_MS = 30000, RACES = 60 };

static const char APP[] = "wxfa4efa4efa4efa4e", PHONE[] = "13812345678";
static const uint8_t KEYS[2][SEAL_KEY_LEN] = {{1}, {2}};

static bool on_mysql;
static struct user_db_options options;
static char dir[] = "/tmp/wxlogind-people-XXXXXX", file[96];
static struct real_mariadb server;
static struct loop *loop;
static struct user_db *db;

/* ---- a database ---- */

static void remove_file(void)
{
	static const char *const ends[] = {"", "-wal", "-shm"};
	char path[128];

	for (size_t i = 0; i < NELEM(ends); i++) {
		snprintf(path, sizeof(path), "%s%s", file, ends[i]);
		unlink(path);
	}
}

static struct user_db *open_db(void)
{
	char why[256];
	struct user_db *d = user_db_new(loop, &options, why, sizeof(why));

	if (!d)
		fail_msg("does not open: %s", why);
	return d;
}

/* With the keys from this one on, as many. */
static void open_with(size_t first, size_t count)
{
	struct seal *s = seal_new(KEYS + first, count);

	user_db_free(db);
	options.seal = s;
	db = open_db();
	seal_free(s);
	options.seal = NULL;
}

static int setup(void **state)
{
	(void)state;
	if (on_mysql) {
		real_mariadb_do(&server, "DROP DATABASE IF EXISTS users; CREATE DATABASE users");
		options = (struct user_db_options){.scheme = "mysql",
			.path = server.socket,
			.user = "root",
			.password = "",
			.database = "users"};
	} else {
		remove_file();
		options = (struct user_db_options){.scheme = "sqlite", .path = file};
	}
	options.timeout_ms = 5000;
	options.queue_max = 1000;
	loop = loop_new();
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

static struct {
	enum outcome oc;
	bool    found, exists, is_new;
	int64_t since_s, until_s;
	char    note[64], phone[64], pure[64], city[64], list[1024];
	size_t  n;
} got;
static int calls, expected, bad;

static void put_text(char *to, size_t cap, const char *text)
{
	snprintf(to, cap, "%s", text ? text : "");
}

static void on_user(void *ctx, enum outcome oc, const struct user *u)
{
	(void)ctx;
	memset(&got, 0, sizeof(got));
	got.oc = oc;
	bad += oc != OC_OK;
	if (u) {
		got.found = true;
		got.exists = u->exists;
		got.is_new = u->is_new;
		got.since_s = u->block.since_s;
		got.until_s = u->block.until_s;
		put_text(got.note, sizeof(got.note), u->block.note);
		put_text(got.phone, sizeof(got.phone), u->text[USER_phone]);
		put_text(got.pure, sizeof(got.pure), u->phone_pure);
		put_text(got.city, sizeof(got.city), u->text[USER_city]);
	}
	if (++calls == expected)
		loop_stop(loop);
}

static void on_list(void *ctx, enum outcome oc, const struct user *list, size_t n)
{
	size_t len = 0;

	(void)ctx;
	memset(&got, 0, sizeof(got));
	got.oc = oc;
	got.n = n;
	for (size_t i = 0; i < n && len < sizeof(got.list); i++)
		len += (size_t)snprintf(got.list + len, sizeof(got.list) - len, "%s%s/%s",
			i ? " " : "",
			list[i].appid + (strcmp(list[i].appid, APP) ? 0 : sizeof(APP) - 1),
			list[i].openid);
	loop_stop(loop);
}

static void begin(int n)
{
	calls = bad = 0;
	expected = n;
}

static void wait_for_all(void)
{
	loop_run(loop);
	assert_int_equal(calls, expected);
}

static void get(const char *openid)
{
	begin(1);
	user_get(db, APP, openid, LONG_MS, on_user, NULL);
	wait_for_all();
	assert_int_equal(got.oc, OC_OK);
}

static void seen(const char *openid, int64_t as_of_ms)
{
	begin(1);
	user_seen(db, APP, openid, NULL, as_of_ms, LONG_MS, on_user, NULL);
	wait_for_all();
	assert_int_equal(got.oc, OC_OK);
}

static void put_as_of(const char *openid, enum user_text which, const char *value, int64_t as_of_ms)
{
	struct user_patch p = {.given = 1u << which, .as_of_ms = as_of_ms};

	p.text[which] = value;
	if (which == USER_phone && value)
		p.phone_pure = value + 2;
	begin(1);
	user_put(db, APP, openid, &p, LONG_MS, on_user, NULL);
	wait_for_all();
	assert_int_equal(got.oc, OC_OK);
}

static void put(const char *openid, enum user_text which, const char *value)
{
	put_as_of(openid, which, value, INT64_MAX);
}

static void erase(const char *openid, int64_t erased_ms)
{
	begin(1);
	user_erase(db, APP, openid, erased_ms, LONG_MS, on_user, NULL);
	wait_for_all();
	assert_int_equal(got.oc, OC_OK);
}

static void block(const char *appid, const char *openid, const struct user_block *b)
{
	begin(1);
	user_set_block(db, appid, openid, b, LONG_MS, on_user, NULL);
	wait_for_all();
	assert_int_equal(got.oc, OC_OK);
}

static void assert_list(struct user_query q, const char *expect)
{
	q.limit = q.limit ? q.limit : USER_PAGE_MAX;
	user_list(db, &q, LONG_MS, on_list, NULL);
	loop_run(loop);
	assert_int_equal(got.oc, OC_OK);
	assert_string_equal(got.list, expect);
}

/* ---- erasures ---- */

static void test_erase(void **state)
{
	(void)state;
	put("oOne", USER_city, "x");
	put("oOne", USER_phone, PHONE);
	put("oTwo", USER_city, "y");
	for (int i = 0; i < 2; i++) {
		erase("oOne", 5000);
		assert_false(got.found);
		get("oOne");
		assert_false(got.found);
	}
	get("oTwo");
	assert_string_equal(got.city, "y");
	put("oOne", USER_city, "z"); /* a backend's */
	assert_true(got.is_new);
	assert_string_equal(got.phone, "");
}

/* On behalf of a session of before the erasure nothing is written, of one after it everything. */
static void test_late_writes(void **state)
{
	(void)state;
	seen("oOne", 1000);
	erase("oOne", 5000);
	erase("oOne", 4000); /* what was promised for 5000 stays so */
	seen("oOne", 5000);
	assert_false(got.found);
	put_as_of("oOne", USER_city, "late", 5000);
	assert_false(got.found);
	get("oOne");
	assert_false(got.found);
	put_as_of("oOne", USER_city, "new", 5001);
	assert_true(got.is_new);
	get("oOne");
	assert_string_equal(got.city, "new");
}

/* An erasure and a write race through two connections: whoever comes first, there is no user in the
 * end. */
static void test_late_writes_that_race(void **state)
{
	struct user_db *other = open_db();
	struct user_patch p = {.given = 1u << USER_city, .as_of_ms = 1000};
	char openid[32];

	(void)state;
	p.text[USER_city] = "late";
	for (int round = 0; round < 5; round++) {
		begin(2 * RACES);
		for (int i = 0; i < RACES; i++) {
			snprintf(openid, sizeof(openid), "o%d-%d", round, i);
			user_put(i % 2 ? db : other, APP, openid, &p, LONG_MS, on_user, NULL);
			user_erase(i % 2 ? other : db, APP, openid, 2000, LONG_MS, on_user, NULL);
		}
		wait_for_all();
		assert_int_equal(bad, 0);
	}
	assert_list((struct user_query){.appid = APP}, "");
	user_db_free(other);
}

static bool somebody_waits(MYSQL *gate)
{
	MYSQL_RES *res;
	bool found;

	assert_int_equal(mysql_query(gate, "SELECT 1 FROM information_schema.processlist "
					   "WHERE state = 'User lock'"),
		0);
	res = mysql_store_result(gate);
	found = res && mysql_num_rows(res) > 0;
	mysql_free_result(res);
	return found;
}

/* A tombstone comes after it was looked for, and before the new row goes in: the row's key is then
 * inserted once more, which fails as a duplicate, and the batch is done over. */
static void test_mysql_a_tombstone_in_between(void **state)
{
	struct user_patch p = {.given = 1u << USER_city, .as_of_ms = 1000};
	MYSQL *gate = real_mariadb_root(&server);

	(void)state;
	assert_non_null(gate);
	p.text[USER_city] = "late";
	real_mariadb_do(&server, "CREATE TRIGGER users.gate BEFORE INSERT ON users.wxlogind_users "
				 "FOR EACH ROW DO GET_LOCK('gate', 10)");
	assert_int_equal(mysql_query(gate, "DO GET_LOCK('gate', 10)"), 0);
	begin(1);
	user_put(db, APP, "oOne", &p, LONG_MS, on_user, NULL);
	while (!somebody_waits(gate))
		usleep(1000);
	real_mariadb_do(&server, "INSERT INTO users.wxlogind_erased VALUES "
				 "(UNHEX(SHA2('wxfa4efa4efa4efa4e\noOne', 256)), 2000)");
	mysql_close(gate);
	wait_for_all();
	assert_int_equal(got.oc, OC_OK);
	assert_false(got.found);
	get("oOne");
	assert_false(got.found);
}

/* ---- blocks ---- */

static void test_blocks(void **state)
{
	struct user_block b = {.since_s = clock_wall_s(), .note = "spam"};

	(void)state;
	put("oOne", USER_city, "x");
	block(APP, "oOne", &b);
	get("oOne");
	assert_true(got.exists);
	assert_int_equal(got.since_s, b.since_s);
	assert_string_equal(got.note, "spam");
	seen("oOne", 1000);
	assert_int_equal(got.since_s, b.since_s);
	erase("oOne", 2000);
	get("oOne"); /* a block stays */
	assert_true(got.found && !got.exists);
	assert_int_equal(got.since_s, b.since_s);
	seen("oOne", 3000); /* and who is blocked does not get a row */
	assert_true(got.found && !got.exists);
	b.since_s += 100;
	block(APP, "oOne", &b);
	assert_int_equal(got.since_s, b.since_s - 100); /* since the first */
	block(APP, "oOne", NULL);
	get("oOne");
	assert_false(got.found);
	b.until_s = clock_wall_s() - 1;
	block(APP, "oOne", &b);
	get("oOne"); /* it is over */
	assert_false(got.found);
}

/* ---- lists ---- */

static void test_lists(void **state)
{
	const struct user_block b = {.since_s = 1}, over = {.since_s = 1, .until_s = 2};
	char openid[16];

	(void)state;
	for (int i = 0; i < 5; i++) {
		snprintf(openid, sizeof(openid), "o%d", i);
		put(openid, USER_unionid, i % 2 ? "uOdd" : "uEven");
	}
	put("o3", USER_phone, PHONE);
	block(APP, "o1", &b);
	block(APP, "oNobody", &b);
	block(APP, "o2", &over);
	block("wxother", "o0", &b);
	assert_list((struct user_query){.appid = APP}, "/o0 /o1 /o2 /o3 /o4");
	assert_list((struct user_query){.appid = APP, .limit = 2}, "/o0 /o1");
	assert_list((struct user_query){.appid = APP, .limit = 2, .after = "o1"}, "/o2 /o3");
	assert_list((struct user_query){.appid = "wxother"}, "");
	assert_list((struct user_query){.appid = APP, .filter = USER_OF_UNIONID, .value = "uOdd"},
		"/o1 /o3");
	assert_list(
		(struct user_query){.appid = APP, .filter = USER_OF_PHONE, .value = PHONE}, "/o3");
	assert_list((struct user_query){.appid = APP, .filter = USER_OF_PHONE, .value = PHONE + 2},
		"/o3");
	assert_list(
		(struct user_query){
			.appid = APP, .filter = USER_OF_PHONE, .value = "' OR 1=1 -- \\"},
		"");
	assert_list((struct user_query){.appid = APP, .filter = USER_BLOCKED}, "/o1 /oNobody");
	assert_list((struct user_query){.filter = USER_BLOCKED}, "/o1 /oNobody wxother/o0");
	assert_list(
		(struct user_query){
			.filter = USER_BLOCKED, .after_appid = APP, .after = "o1", .sweep = true},
		"/oNobody wxother/o0");
}

/* ---- phone numbers at rest ---- */

static void assert_phone(const char *openid, const char *number)
{
	get(openid);
	assert_string_equal(got.phone, number);
	assert_string_equal(got.pure, *number ? number + 2 : "");
}

/* Opened with both keys the thread seals anew, in the background: then the new key alone is enough.
 */
static void rotate(void)
{
	int64_t end = clock_ms() + LONG_MS;

	do {
		assert_true(clock_ms() < end);
		open_with(0, 2);
		for (int i = 0; i < 40; i++) {
			get("oOne"); /* which turns the loop */
			usleep(5000);
		}
		open_with(0, 1);
		get("oOne");
	} while (!*got.phone);
}

static void test_phones(void **state)
{
	const struct user_query by_number = {.appid = APP, .filter = USER_OF_PHONE, .value = PHONE};

	(void)state;
	put("oClear", USER_phone, PHONE); /* without a key: as it came */
	open_with(1, 1);
	put("oOne", USER_phone, PHONE);
	assert_list(by_number, "/oClear /oOne");
	assert_phone("oOne", PHONE);
	open_with(0, 1); /* another key: not lost, not readable */
	assert_phone("oOne", "");
	put("oOne", USER_city, "x");
	open_with(1, 1);
	assert_phone("oOne", PHONE);
	rotate();
	assert_phone("oOne", PHONE);
	assert_list(by_number, "/oClear /oOne");
	put("oOne", USER_phone, NULL);
	assert_phone("oOne", "");
	assert_list(by_number, "/oClear");
}

/* ---- SQLite's files ---- */

static bool is_in(const char *end, const char *text)
{
	char path[128], *data;
	size_t n;
	FILE *f;
	bool found;

	snprintf(path, sizeof(path), "%s%s", file, end);
	f = fopen(path, "rb");
	if (!f)
		return false;
	data = mem_alloc(1 << 22);
	n = fread(data, 1, 1 << 22, f);
	found = memmem(data, n, text, strlen(text)) != NULL;
	fclose(f);
	free(data);
	return found;
}

/* The pages are overwritten, and the log, which holds them as they were, is cut soon. */
static void test_what_was_erased_is_in_no_file(void **state)
{
	int64_t end = clock_ms() + LONG_MS;

	(void)state;
	put("oOne", USER_phone, PHONE);
	put("oOne", USER_nickname, "ErasedNick");
	assert_true(is_in("", PHONE) || is_in("-wal", PHONE));
	erase("oOne", 5000);
	while ((is_in("", PHONE) || is_in("-wal", PHONE) || is_in("", "ErasedNick") ||
		       is_in("-wal", "ErasedNick")) &&
		clock_ms() < end)
		usleep(20000);
	assert_true(clock_ms() < end);
}

#define BOTH(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define COMMON \
	BOTH(test_erase), BOTH(test_late_writes), BOTH(test_late_writes_that_race), \
		BOTH(test_blocks), BOTH(test_lists), BOTH(test_phones)

int main(void)
{
	const struct CMUnitTest sqlite[] = {COMMON, BOTH(test_what_was_erased_is_in_no_file)};
	const struct CMUnitTest mysql[] = {COMMON, BOTH(test_mysql_a_tombstone_in_between)};
	int failed;

	if (!mkdtemp(dir))
		return 1;
	snprintf(file, sizeof(file), "%s/users.db", dir);
	failed = cmocka_run_group_tests_name("people in sqlite", sqlite, NULL, NULL);
	remove_file();
	rmdir(dir);
	on_mysql = true;
	real_mariadb_start(&server);
	failed += cmocka_run_group_tests_name("people in mysql", mysql, NULL, NULL);
	real_mariadb_stop(&server);
	return failed;
}
