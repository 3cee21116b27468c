/* The connection against a Redis that behaves, and one that does not: how it is greeted, what ends
 * it, and how it is made anew. */
#include <sys/un.h>

#include "one_redis.h"

static void test_handshake(void **state)
{
	struct redis_options o = options();
	struct redis *r;

	(void)state;
	fake.password = "hunter2";
	o.password = "hunter2";
	o.db = 3;
	r = redis_new(loop, &o);
	UNTIL(redis_is_ready(r));
	assert_string_equal(
		fake.commands, "AUTH hunter2;SELECT 3;CLIENT SETNAME wxlogind;PING;INFO server;");
	redis_free(r);
	fake.commands[0] = '\0';
	o.user = "wx";
	o.db = 0;
	r = redis_new(loop, &o);
	UNTIL(redis_is_ready(r));
	assert_string_equal(
		fake.commands, "AUTH wx hunter2;CLIENT SETNAME wxlogind;PING;INFO server;");
	redis_free(r);
}

/* A wrong password: said once, without the password, and tried again. */
static void test_wrong_password(void **state)
{
	FILE *file = tmpfile();
	int saved = dup(2);
	struct redis_options o = options();
	struct redis *r;
	struct answer a = {0};
	char log[4096];
	size_t n;

	(void)state;
	fake.password = "right";
	o.password = "hunter2";
	dup2(fileno(file), 2);
	log_init(LOG_ERROR, LOG_LOGFMT);
	r = redis_new(loop, &o);
	UNTIL(peer.accepted >= 3 && strstr(redis_trouble(r), "WRONGPASS"));
	ask(r, "ECHO", "x", &a);
	UNTIL(a.calls);
	dup2(saved, 2);
	close(saved);
	log_init(LOG_ERROR, LOG_LOGFMT);
	assert_int_equal(a.oc, OC_STORE_UNAVAILABLE);
	assert_null(strstr(fake.commands, "ECHO"));
	assert_false(redis_is_ready(r));
	rewind(file);
	n = fread(log, 1, sizeof(log) - 1, file);
	log[n] = '\0';
	fclose(file);
	assert_non_null(strstr(log, "WRONGPASS"));
	assert_null(strstr(strstr(log, "WRONGPASS") + 1, "WRONGPASS"));
	assert_null(strstr(log, "hunter2"));
	fake.password = "hunter2";
	UNTIL(redis_is_ready(r));
	redis_free(r);
}

static void test_not_yet(void **state)
{
	static const char *const answers[] = {
		"-LOADING Redis is loading the dataset in memory\r\n",
		"-MASTERDOWN Link with MASTER is down\r\n",
		"-NOAUTH Authentication required.\r\n",
		"*2\r\n$4\r\npong\r\n$0\r\n\r\n",
		":1\r\n",
		"SSH-2.0-OpenSSH\r\n",
	};

	(void)state;
	log_set_level(LOG_ERROR + 1);
	for (size_t i = 0; i < NELEM(answers); i++) {
		struct redis_options o = options();
		struct redis *r;

		fake.ping = answers[i];
		peer.accepted = 0;
		r = redis_new(loop, &o);
		UNTIL(peer.accepted == 2); /* it was sent away, and came again */
		assert_false(redis_is_ready(r));
		fake.ping = NULL;
		UNTIL(redis_is_ready(r));
		redis_free(r);
	}
}

static void test_answers_table(void **state)
{
	static const struct {
		const char  *answer;
		enum outcome oc;
		bool         lost;     /* the connection does not survive */
		bool         close, endless;
	} rows[] = {
		{"+OK\r\n", OC_OK, false, false, false},
		{"$-1\r\n", OC_OK, false, false, false},
		{"*2\r\n:1\r\n$1\r\nx\r\n", OC_OK, false, false, false},
		{"*-1\r\n", OC_OK, false, false, false},
		{"-ERR something secret\r\n", OC_STORE_UNAVAILABLE, false, false, false},
		{"-NOSCRIPT No matching\r\n", OC_STORE_UNAVAILABLE, false, false, false},
		{"-READONLY You can't\r\n", OC_STORE_UNAVAILABLE, true, false, false},
		{"-ERR Error running script (call to f_1a): @user_script:1: @user_script: 1: "
		 "-READONLY You can't write against a read only "
		 "replica.\r\n",
			OC_STORE_UNAVAILABLE, true, false, false}, /* Redis 6 */
		{"-MOVED 3421 127.0.0.1:1\r\n", OC_STORE_UNAVAILABLE, true, false, false},
		{"-MISCONF Redis is configured to save RDB snapshots\r\n", OC_STORE_UNAVAILABLE,
			false, false, false},
		{"+OK\r\n+and another\r\n", OC_OK, true, false, false},
		{"hello\r\n", OC_STORE_UNAVAILABLE, true, false, false},
		{"$10\r\nhalf", OC_STORE_UNAVAILABLE, true, true, false},
		{"", OC_STORE_UNAVAILABLE, true, true, false},
		{"", OC_STORE_UNAVAILABLE, true, false, false}, /* silence */
		{"*2147483647\r\n", OC_STORE_UNAVAILABLE, true, false, false},
		{"*99999999999999999999\r\n", OC_STORE_UNAVAILABLE, true, false, false},
		{"*5000\r\n", OC_STORE_UNAVAILABLE, true, false, false},
		{"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n",
			OC_STORE_UNAVAILABLE, true, false, false},
		{"$-5\r\n", OC_STORE_UNAVAILABLE, true, false, false},
		{"$536870912\r\n", OC_STORE_UNAVAILABLE, true, false, true},
		{"+never ends", OC_STORE_UNAVAILABLE, true, false, true},
	};

	(void)state;
	for (size_t i = 0; i < NELEM(rows); i++) {
		struct redis *r = connected();
		struct answer a = {0}, b = {0};
		int64_t began = clock_ms();

		peer.accepted = 0;
		fake.get = rows[i].answer;
		fake.close_after_get = rows[i].close;
		fake.endless = rows[i].endless;
		fake.frozen = !*rows[i].answer && !rows[i].close;
		ask(r, "GET", "k", &a);
		UNTIL(a.calls);
		if (a.oc != rows[i].oc)
			fail_msg("row %zu: outcome %d", i, a.oc);
		assert_in_range(clock_ms() - began, 0, TIMEOUT_MS + BUSY_MS);
		fake.endless = fake.frozen = false;
		if (rows[i].lost) {
			UNTIL(peer.accepted == 1);
			UNTIL(redis_is_ready(r));
		}
		ask(r, "ECHO", "still there", &b);
		UNTIL(b.calls);
		assert_int_equal(a.calls, 1);
		assert_string_equal(b.text, "still there");
		assert_int_equal(peer.accepted, rows[i].lost);
		redis_free(r);
		UNTIL(!peer.conns);
	}
}

/* Redis' words at the door are told as they are. */
static void test_the_last_word(void **state)
{
	(void)state;
	log_set_level(LOG_ERROR + 1);
	say_for_ever(&peer.door, "-ERR max number of clients reached\r\n",
		"ERR max number of clients reached");
	say_for_ever(&peer.door, "-DENIED Redis is running in protected mode\r\n",
		"DENIED Redis is running in protected mode");
	say_for_ever(&fake.ping, "-NOAUTH Authentication required.\r\n",
		"PING: NOAUTH Authentication required.");
}

static void test_unasked_answer(void **state)
{
	struct redis *r = connected();

	(void)state;
	peer_says(peer.conns, "+news\r\n");
	UNTIL(!redis_is_ready(r));
	UNTIL(redis_is_ready(r));
	assert_int_equal(peer.accepted, 2);
	redis_free(r);
}

/* A peer that greets as Redis does and answers nonsense must not be called upon for ever without a
 * pause. */
static void test_nonsense_is_not_sought_in_a_hurry(void **state)
{
	struct redis *r = connected();
	struct answer a = {0};
	int64_t end = clock_ms() + 800;

	(void)state;
	fake.get = "+one\r\n+too many\r\n";
	while (clock_ms() < end) {
		if (redis_is_ready(r))
			ask(r, "GET", "x", &a);
		event_base_loop(loop_base(loop), EVLOOP_ONCE);
	}
	/* 25 to 50 ms, 50 to 100, ...: without backing off there would be 20 */
	assert_in_range(peer.accepted, 2, 8);
	redis_free(r);
}

/* A Redis that is frozen while nobody asks is noticed, and a thawed one is found again. */
static void test_freeze_while_idle(void **state)
{
	struct redis *r = connected();
	int64_t began = clock_ms();

	(void)state;
	fake.frozen = true;
	UNTIL(!redis_is_ready(r));
	assert_in_range(clock_ms() - began, 0, 250 + TIMEOUT_MS + BUSY_MS);
	UNTIL(peer.accepted >= 3); /* keeps trying */
	assert_false(redis_is_ready(r));
	fake.frozen = false;
	UNTIL(redis_is_ready(r));
	redis_free(r);
}

static void test_freeze_under_way(void **state)
{
	struct redis *r = connected();
	struct answer a[3] = {{0}};
	int64_t began = clock_ms();

	(void)state;
	callbacks = 0;
	fake.frozen = true;
	for (int i = 0; i < 3; i++)
		ask(r, "ECHO", "x", &a[i]);
	a[0].again = r; /* during the teardown: refused, not lost */
	memset(&second, 0, sizeof(second));
	UNTIL(a[2].calls);
	assert_in_range(clock_ms() - began, TIMEOUT_MS - 10, TIMEOUT_MS + BUSY_MS);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(a[i].calls, 1);
		assert_int_equal(a[i].order, i);
		assert_int_equal(a[i].oc, OC_STORE_UNAVAILABLE);
	}
	assert_false(redis_is_ready(r));
	UNTIL(second.calls);
	assert_int_equal(second.oc, OC_STORE_UNAVAILABLE);
	redis_free(r);
	assert_int_equal(second.calls, 1);
}

static void test_listener_appears(void **state)
{
	struct redis_options o = options();
	struct answer a = {0};
	struct redis *r;

	(void)state;
	peer_stop(&peer);
	r = redis_new(loop, &o);
	ask(r, "ECHO", "x", &a);
	UNTIL(a.calls);
	assert_int_equal(a.oc, OC_STORE_UNAVAILABLE);
	assert_false(redis_is_ready(r));
	peer_listen(&peer);
	UNTIL(redis_is_ready(r));
	peer_stop(&peer);
	UNTIL(!redis_is_ready(r));
	peer_listen(&peer);
	UNTIL(redis_is_ready(r));
	redis_free(r);
}

static void test_names(void **state)
{
	struct redis_options o = options();
	struct redis *r;

	(void)state;
	host.host = "localhost"; /* may be ::1 first, where nobody listens */
	r = redis_new(loop, &o);
	UNTIL(redis_is_ready(r));
	redis_free(r);
	r = redis_new(loop, &o); /* gone before the answer */
	redis_free(r);
}

static void test_unix_socket(void **state)
{
	char dir[] = "/tmp/wxlogind-test-XXXXXX", path[64], too_long[200];
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct redis_options o = options();
	struct redis *r;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/s", dir);
	strcpy(un.sun_path, path);
	peer_stop(&peer);
	peer.listener = evconnlistener_new_bind(loop_base(loop), peer_on_accept, &peer,
		LEV_OPT_CLOSE_ON_FREE, 16, (struct sockaddr *)&un, sizeof(un));
	assert_non_null(peer.listener);
	o.host_count = 0;
	o.unix_path = path;
	r = redis_new(loop, &o);
	UNTIL(redis_is_ready(r));
	redis_free(r);
	unlink(path);
	rmdir(dir);

	memset(too_long, 'x', sizeof(too_long) - 1);
	too_long[sizeof(too_long) - 1] = '\0';
	o.unix_path = too_long;
	r = redis_new(loop, &o);
	assert_false(redis_is_ready(r));
	redis_free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_handshake),
		T(test_wrong_password),
		T(test_not_yet),
		T(test_answers_table),
		T(test_the_last_word),
		T(test_unasked_answer),
		T(test_nonsense_is_not_sought_in_a_hurry),
		T(test_freeze_while_idle),
		T(test_freeze_under_way),
		T(test_listener_appears),
		T(test_names),
		T(test_unix_socket),
	};

	return cmocka_run_group_tests_name("conn", tests, NULL, NULL);
}
