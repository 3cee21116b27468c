/* One Redis as its callers see it: answers in order, scripts by their hash, who it must be, what is
 * bounded, and that everybody is told when it goes. */
#include "one_redis.h"

static void test_answers_in_order(void **state)
{
	static struct answer a[500];
	struct redis *r = connected();
	char text[16];

	(void)state;
	memset(a, 0, sizeof(a));
	callbacks = 0;
	for (int i = 0; i < 500; i++) {
		snprintf(text, sizeof(text), "no %d", i);
		ask(r, "ECHO", text, &a[i]);
	}
	UNTIL(a[499].calls);
	for (int i = 0; i < 500; i++) {
		snprintf(text, sizeof(text), "no %d", i);
		assert_int_equal(a[i].calls, 1);
		assert_int_equal(a[i].oc, OC_OK);
		assert_int_equal(a[i].order, i);
		assert_string_equal(a[i].text, text);
	}
	assert_int_equal(peer.accepted, 1);
	redis_free(r);
}

/* Three always under way, many more than the ring has places. */
static struct { struct redis *r; int sent, answered; } rolling;

static void roll_on(void);

static void on_rolled(void *ctx, enum outcome oc, const struct redisReply *v)
{
	char text[16];

	(void)ctx;
	snprintf(text, sizeof(text), "no %d", rolling.answered++);
	assert_int_equal(oc, OC_OK);
	assert_string_equal(redis_reply_str(v, NULL), text);
	if (rolling.sent < 200)
		roll_on();
}

static void roll_on(void)
{
	char text[16];

	snprintf(text, sizeof(text), "no %d", rolling.sent++);
	redis_command(rolling.r, 2, (const char *[]){"ECHO", text}, NULL, on_rolled, NULL);
}

static void test_ring_goes_round(void **state)
{
	struct redis_options o = options();

	(void)state;
	o.max_pending = 5;
	rolling.r = redis_new(loop, &o);
	rolling.sent = rolling.answered = 0;
	UNTIL(redis_is_ready(rolling.r));
	for (int i = 0; i < 3; i++)
		roll_on();
	UNTIL(rolling.answered == 200);
	redis_free(rolling.r);
}

static struct redis_script some_script = {.text = "return 7"};

static void eval(struct redis *r, const char *arg, struct answer *a)
{
	redis_eval(r, &some_script, 2, (const char *[]){"0", arg}, NULL, on_answer, a);
	assert_int_equal(a->calls, 0);
}

static void test_scripts_go_by_their_hash(void **state)
{
	struct redis *r = connected();
	struct answer a = {0}, b = {0}, c = {0}, d = {0};

	(void)state;
	fake.commands[0] = '\0';
	eval(r, "one", &a);
	eval(r, "two", &b);
	UNTIL(a.calls && b.calls);
	fake.knows_script = false; /* SCRIPT FLUSH */
	eval(r, "three", &c);
	UNTIL(c.calls);
	eval(r, "four", &d);
	UNTIL(d.calls);
	for (struct answer *each[] = {&a, &b, &c, &d, NULL}, **p = each; *p; p++) {
		assert_int_equal((*p)->calls, 1);
		assert_int_equal((*p)->oc, OC_OK);
		assert_int_equal((*p)->type, REDIS_REPLY_INTEGER);
	}
	assert_non_null(
		strstr(fake.commands, "EVAL return 7 0 one;EVALSHA 59b6ab2fbe0ee4b25733 0 two;"
				      "EVALSHA 59b6ab2fbe0ee4b25733 0 three;EVAL return 7 0 "
				      "three;EVALSHA 59b6ab2fbe0ee4b25733 0 four;"));
	redis_free(r);
}

/* What waits for an answer to a hash is told when the connection ends, and nothing of it is kept
 * (the sanitizers look). */
static void test_a_script_whose_connection_ends(void **state)
{
	struct redis *r = connected();
	struct answer a = {0}, b = {0};

	(void)state;
	eval(r, "one", &a);
	UNTIL(a.calls);
	fake.frozen = true;
	eval(r, "two", &b);
	UNTIL(b.calls);
	assert_int_equal(b.oc, OC_STORE_UNAVAILABLE);
	redis_free(r);
}

static void test_bytes_and_long_values(void **state)
{
	struct redis *r = connected();
	struct answer a = {0};
	size_t n = 60000;
	char *value = mem_alloc(n);
	const char *argv[] = {"ECHO", value};

	(void)state;
	redis_command(r, 2, argv, (const size_t[]){4, n}, on_answer, &a); /* NULs and all */
	UNTIL(a.calls);
	assert_int_equal(a.oc, OC_OK);
	free(value);
	redis_free(r);
}

/* Who is no master, or no server for this URL, is not ready, and it is said why. */
static void test_who_it_is(void **state)
{
	(void)state;
	log_set_level(LOG_ERROR + 1);
	say_for_ever(&fake.role,
		"*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.2\r\n:6379\r\n$9\r\nconnected\r\n:14\r\n",
		"replica, of 127.0.0.2");
	say_for_ever(&fake.info, "$42\r\n# Server\r\nredis_mode:sentinel\r\nrun_id:ab\r\n\r\n",
		"sentinel://");
	fake.get = "-MOVED 3421 127.0.0.1:1\r\n";
	say_for_ever(&fake.info, "$41\r\n# Server\r\nredis_mode:cluster\r\nrun_id:ab\r\n\r\n",
		"cluster://");
	/* Valkey */
	say_for_ever(&fake.info, "$42\r\n# Server\r\nserver_mode:cluster\r\nrun_id:ab\r\n\r\n",
		"cluster://");
	fake.get = "$-1\r\n"; /* in cluster mode, but it has every slot */
	fake.info = "$41\r\n# Server\r\nredis_mode:cluster\r\nrun_id:ab\r\n\r\n";
	redis_free(connected());
}

/* It was a master, and is none any more: that is noticed though nobody writes. */
static void test_demoted(void **state)
{
	struct redis *r = connected();
	int64_t began = clock_ms();

	(void)state;
	log_set_level(LOG_ERROR + 1);
	fake.role = "*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.2\r\n:6379\r\n$7\r\nconnect\r\n:-1\r\n";
	UNTIL(!redis_is_ready(r));
	assert_in_range(clock_ms() - began, 0, 1000);
	fake.role = NULL;
	UNTIL(redis_is_ready(r));
	redis_free(r);
}

static void test_without_role(void **state)
{
	struct redis *r;

	(void)state;
	log_set_level(LOG_ERROR + 1);
	fake.no_role = true;
	r = connected();
	fake.ping = "-MISCONF cannot save\r\n"; /* reads go on */
	for (int64_t end = clock_ms() + 600; clock_ms() < end;)
		event_base_loop(loop_base(loop), EVLOOP_ONCE);
	assert_true(redis_is_ready(r));
	assert_int_equal(peer.accepted, 1);
	fake.ping = "-LOADING not yet\r\n";
	UNTIL(!redis_is_ready(r));
	fake.ping = "-MISCONF cannot save\r\n"; /* nor does it keep us from connecting */
	UNTIL(redis_is_ready(r));
	redis_free(r);
}

static void test_full(void **state)
{
	struct redis_options o = options();
	struct answer a[11] = {{0}};
	struct redis *r;

	(void)state;
	callbacks = 0;
	o.max_pending = 10;
	r = redis_new(loop, &o);
	UNTIL(redis_is_ready(r));
	for (int i = 0; i < 11; i++)
		ask(r, "ECHO", "x", &a[i]);
	UNTIL(callbacks == 11);
	for (int i = 0; i < 11; i++)
		assert_int_equal(a[i].oc, i < 10 ? OC_OK : OC_STORE_UNAVAILABLE);
	redis_free(r);
}

static void test_output_is_bounded(void **state)
{
	struct redis *r = connected();
	size_t n = 1024 * 1024;
	char *value = mem_alloc(n);
	struct answer a[20] = {{0}};

	(void)state;
	callbacks = 0;
	for (int i = 0; i < 20; i++)
		redis_command(r, 2, (const char *[]){"ECHO", value}, (const size_t[]){4, n},
			on_answer, &a[i]);
	UNTIL(a[19].calls);
	assert_int_equal(a[19].oc, OC_STORE_UNAVAILABLE);
	redis_free(r);
	assert_int_equal(callbacks, 20);
	free(value);
}

static void test_free_tells_all(void **state)
{
	struct redis *r = connected();
	struct answer a[3] = {{0}};

	(void)state;
	callbacks = 0;
	memset(&second, 0, sizeof(second));
	a[0].again = r;
	for (int i = 0; i < 3; i++)
		ask(r, "ECHO", "x", &a[i]);
	redis_free(r);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(a[i].calls, 1);
		assert_int_equal(a[i].oc, OC_STORE_UNAVAILABLE);
	}
	assert_int_equal(second.calls, 1);
	redis_free(NULL);
}

static void test_free_in_callback(void **state)
{
	(void)state;
	for (int refused = 0; refused < 3; refused++) {
		struct redis *r = connected();
		struct answer a[3] = {{0}};

		if (refused == 1) /* the callback is a refusal */
			fake.frozen = true;
		if (refused) {
			peer_stop(&peer);
			UNTIL(!redis_is_ready(r));
		}
		a[0].free_it = r;
		for (int i = 0; i < 3; i++)
			ask(r, "ECHO", "x", &a[i]);
		UNTIL(a[2].calls);
		for (int i = 0; i < 3; i++)
			assert_int_equal(a[i].calls, 1);
		assert_int_equal(a[2].oc, OC_STORE_UNAVAILABLE);
		fake.frozen = false;
		peer_stop(&peer);
		peer_listen(&peer);
	}
}

static void test_free_in_callback_of_a_lost_connection(void **state)
{
	struct redis *r = connected();
	struct answer a[3] = {{0}};

	(void)state;
	fake.frozen = true;
	a[0].free_it = r;
	for (int i = 0; i < 3; i++)
		ask(r, "ECHO", "x", &a[i]);
	UNTIL(a[2].calls);
	for (int i = 0; i < 3; i++)
		assert_int_equal(a[i].calls, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_answers_in_order),
		T(test_ring_goes_round),
		T(test_scripts_go_by_their_hash),
		T(test_a_script_whose_connection_ends),
		T(test_bytes_and_long_values),
		T(test_who_it_is),
		T(test_demoted),
		T(test_without_role),
		T(test_full),
		T(test_output_is_bounded),
		T(test_free_tells_all),
		T(test_free_in_callback),
		T(test_free_in_callback_of_a_lost_connection),
	};

	return cmocka_run_group_tests_name("redis", tests, NULL, NULL);
}
