/* The Redis connection against a peer on the same loop that behaves, and one that does not. */
#include "io/redis.h"

#include <sys/un.h>

#include "peer.h"

#include <event2/buffer.h>

#include "common/log.h"

enum { TIMEOUT_MS = 300 };

/* --- the peer: answers ECHO, and GET with whatever the test says --- */

static struct {
	char         commands[4096];   /* names seen, "AUTH a b;PING;" */
	bool         frozen;           /* reads, says nothing */
	bool         knows_script;
	const char  *ping;             /* NULL = PONG */
	const char  *password;         /* NULL = none asked for */
	const char  *role;             /* the raw answer to ROLE; NULL = a master's */
	const char  *info;             /* to INFO; NULL = unknown command */
	bool         no_role;          /* ROLE is unknown */
	const char  *get;              /* the raw answer to GET */
	bool         close_after_get;
	bool         endless;          /* after GET's answer, bytes for ever */
} fake;

static struct loop *loop;
static struct event *tick;

static void on_endless(struct bufferevent *bev, void *arg)
{
	static char bytes[32 * 1024];

	(void)arg;
	if (fake.endless)
		bufferevent_write(bev, bytes, sizeof(bytes));
}

static bool auth_is_good(const redisReply *cmd)
{
	return fake.password && strcmp(cmd->element[cmd->elements - 1]->str, fake.password) == 0;
}

/* False when the connection is gone. */
static bool fake_answers(struct peer_conn *c, const redisReply *cmd)
{
	const char *name = cmd->element[0]->str;
	size_t used = strlen(fake.commands);

	/* ROLE comes all the time */
	for (size_t i = 0; i < cmd->elements && used < 4000 && strcmp(name, "ROLE") != 0; i++)
		used += (size_t)snprintf(fake.commands + used, sizeof(fake.commands) - used,
			"%.20s%s", cmd->element[i]->str, i + 1 < cmd->elements ? " " : ";");
	/* nothing stands between bytes without an end */
	if (fake.frozen || (fake.endless && strcmp(name, "GET") != 0))
		return true;
	if (!strcmp(name, "AUTH")) {
		peer_says(c, auth_is_good(cmd) ? "+OK\r\n"
					       : "-WRONGPASS invalid username-password pair\r\n");
	} else if (!strcmp(name, "PING")) {
		peer_says(c, fake.ping ? fake.ping : "+PONG\r\n");
	} else if (!strcmp(name, "ROLE") && !fake.no_role) {
		peer_says(c, fake.role ? fake.role : "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n");
	} else if (!strcmp(name, "INFO") && fake.info) {
		peer_says(c, fake.info);
	} else if (!strcmp(name, "SELECT")) {
		peer_says(c, "+OK\r\n");
	} else if (!strcmp(name, "ECHO")) {
		peer_says_bulk(c, cmd->element[1]->str);
	} else if (!strcmp(name, "EVALSHA") && !fake.knows_script) {
		peer_says(c, "-NOSCRIPT No matching script. Please use EVAL.\r\n");
	} else if (!strcmp(name, "EVALSHA") || !strcmp(name, "EVAL")) {
		fake.knows_script = true;
		peer_says(c, ":7\r\n");
	} else if (!strcmp(name, "GET")) {
		peer_says(c, fake.get);
		if (fake.close_after_get) {
			evbuffer_write(bufferevent_get_output(c->bev), bufferevent_getfd(c->bev));
			peer_conn_end(c);
			return false;
		}
	} else {
		/* CLIENT SETNAME too: it must not matter */
		peer_says(c, "-ERR unknown command\r\n");
	}
	return true;
}

static struct peer peer;

static int setup(void **state)
{
	(void)state;
	log_init(LOG_ERROR, LOG_LOGFMT);
	memset(&fake, 0, sizeof(fake));
	loop = loop_new();
	tick = tick_new(loop);
	peer = (struct peer){.loop = loop, .answers = fake_answers, .on_written = on_endless};
	peer_listen(&peer);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	peer_stop(&peer);
	event_free(tick);
	loop_free(loop);
	return 0;
}

static struct redis_host host;

static struct redis_options options(void)
{
	host = (struct redis_host){"127.0.0.1", peer.port};
	return (struct redis_options){.hosts = &host,
		.host_count = 1,
		.key_prefix = "t:",
		.timeout_ms = TIMEOUT_MS,
		.max_pending = 1000};
}

static struct redis *connected(void)
{
	struct redis_options o = options();
	struct redis *r = redis_new(loop, &o);

	assert_false(redis_is_ready(r));
	UNTIL(redis_is_ready(r));
	return r;
}

/* --- a caller --- */

struct answer {
	int          calls;
	enum outcome oc;
	int          type;
	char         text[64];
	int          order;      /* the how-manieth callback this was */
	struct redis *again;     /* sends another command in the callback */
	struct redis *free_it;   /* frees in the callback */
};

static int callbacks;
static struct answer second;

static void on_answer(void *ctx, enum outcome oc, const struct redisReply *v)
{
	struct answer *a = ctx;
	const char *s = redis_reply_str(v, NULL);

	a->calls++;
	a->oc = oc;
	a->order = callbacks++;
	a->type = v ? v->type : 0;
	snprintf(a->text, sizeof(a->text), "%s", s ? s : "");
	if (oc == OC_OK)
		assert_non_null(v);
	else
		assert_null(v);
	if (a->again)
		redis_command(a->again, 1, (const char *[]){"PING"}, NULL, on_answer, &second);
	if (a->free_it)
		redis_free(a->free_it);
}

static void ask(struct redis *r, const char *name, const char *arg, struct answer *a)
{
	const char *argv[] = {name, arg};
	int before = a->calls;

	redis_command(r, arg ? 2 : 1, argv, NULL, on_answer, a);
	assert_int_equal(a->calls, before); /* never before it returns */
}

/* --- tests --- */

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

static void say_for_ever(const char **answer, const char *says, const char *expected)
{
	struct redis_options o = options();
	struct redis *r;

	*answer = says;
	peer.accepted = 0;
	r = redis_new(loop, &o);
	UNTIL(peer.accepted == 2); /* it was sent away, and came again */
	assert_false(redis_is_ready(r));
	if (!strstr(redis_trouble(r), expected))
		fail_msg("trouble: %s", redis_trouble(r));
	*answer = NULL;
	UNTIL(redis_is_ready(r));
	assert_string_equal(redis_trouble(r), "");
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

static void assert_word(const char *error, const char *expected)
{
	char word[REPLY_WORD_MAX];

	reply_word(error, word);
	assert_string_equal(word, expected);
}

static void test_words(void **state)
{
	char sentence[REPLY_SENTENCE_MAX], longest[400];

	(void)state;
	assert_word("READONLY You can't write against a read only replica.", "READONLY");
	assert_word("ERR unknown command", "ERR");
	assert_word("", "?");
	assert_word("nothing", "?");
	assert_word("ERR Error running script (call to f_0): @user_script:1: @user_script: 1: -OOM "
		    "command not allowed",
		"OOM");
	assert_word("ERR Error running script (call to f_0): @user_script:1: @user_script: 1: "
		    "-NOREPLICAS Not enough",
		"NOREPLICAS");
	assert_word(
		"ERR Error running script (call to f_0): @user_script:1: x: -1 is no word", "ERR");
	assert_word("ERR Script attempted to access a non local key in a cluster node script: f_1",
		"TRYAGAIN");
	assert_word("ERR Unable to execute command 'del' in script because undeclared keys were "
		    "accessed during rehashing of the slot",
		"TRYAGAIN");
	assert_word(
		"ERR The user executing the script can't run this command or subcommand", "NOPERM");
	reply_sentence(
		"ERR unknown command 'AUTH', with args beginning with: 'hunter2' ", NULL, sentence);
	assert_string_equal(sentence, "ERR unknown command 'AUTH'");
	reply_sentence("WRONGPASS hunter2 is wrong", "hunter2", sentence);
	assert_string_equal(sentence, "WRONGPASS");
	memset(longest, 'x', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	reply_sentence(longest, "", sentence);
	assert_int_equal(strlen(sentence), REPLY_SENTENCE_MAX - 1);
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

static void test_reading_replies(void **state)
{
	redisReply one = {.type = REDIS_REPLY_INTEGER, .integer = 42},
		   text = {.type = REDIS_REPLY_STRING, .str = (char[]){"ab"}, .len = 2},
		   nil = {.type = REDIS_REPLY_NIL};
	redisReply *both[] = {&one, &text};
	redisReply list = {.type = REDIS_REPLY_ARRAY, .elements = 2, .element = both};
	int64_t n = 7;
	size_t len = 9;

	(void)state;
	assert_true(redis_reply_is_nil(&nil));
	assert_false(redis_reply_is_nil(NULL));
	assert_false(redis_reply_is_nil(&one));
	assert_string_equal(redis_reply_str(&text, &len), "ab");
	assert_int_equal(len, 2);
	assert_null(redis_reply_str(&one, &len));
	assert_int_equal(len, 0);
	assert_null(redis_reply_str(NULL, NULL));
	assert_false(redis_reply_int(&text, &n));
	assert_false(redis_reply_int(NULL, &n));
	assert_int_equal(n, 7);
	assert_true(redis_reply_int(&one, &n));
	assert_int_equal(n, 42);
	assert_int_equal(redis_reply_count(&list), 2);
	assert_int_equal(redis_reply_count(&text), 0);
	assert_int_equal(redis_reply_count(NULL), 0);
	assert_ptr_equal(redis_reply_at(&list, 1), &text);
	assert_null(redis_reply_at(&list, 2));
	assert_null(redis_reply_at(&one, 0));
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_answers_in_order),
		T(test_ring_goes_round),
		T(test_scripts_go_by_their_hash),
		T(test_a_script_whose_connection_ends),
		T(test_bytes_and_long_values),
		T(test_handshake),
		T(test_wrong_password),
		T(test_not_yet),
		T(test_answers_table),
		T(test_who_it_is),
		T(test_the_last_word),
		T(test_demoted),
		T(test_without_role),
		T(test_words),
		T(test_unasked_answer),
		T(test_nonsense_is_not_sought_in_a_hurry),
		T(test_freeze_while_idle),
		T(test_freeze_under_way),
		T(test_listener_appears),
		T(test_full),
		T(test_output_is_bounded),
		T(test_free_tells_all),
		T(test_free_in_callback),
		T(test_free_in_callback_of_a_lost_connection),
		T(test_names),
		T(test_unix_socket),
		T(test_reading_replies),
	};

	return cmocka_run_group_tests_name("redis", tests, NULL, NULL);
}
