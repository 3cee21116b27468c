/* A store of several servers against nodes on the same loop that say whatever a Redis Cluster may
 * say, once and for ever. */
#include "io/redis.h"

#include "peer.h"

#include "common/log.h"
#include "io/reply.h"
#include "io/slots.h"

enum { TIMEOUT_MS = 250, FOREVER = 1000000 };

/* ---- the nodes: a owns the lower half of the slots, b and c a quarter each; d is to come ---- */

enum then { GOES_ON, HANGS_UP, FALLS_SILENT };

struct node {
	struct peer peer; /* first: a connection of the peer is one of the node */
	const char *id;
	const char *word;         /* the raw answer to whatever is asked of keys below k:, */
	int         times;        /* so often; then it answers well */
	enum then   then;         /* after that word */
	bool        says_no_votes; /* CLUSTER INFO is not answered */
	int         asked, scripts; /* commands below k: */
	const char *version;
};

static struct node nodes[4];
static struct loop *loop;
static struct event *tick;
static int owned;        /* slots from here on are nobody's */
static int epoch;
static const char *map_ids[3];
static int map_ports[3];
static int maps;         /* how many were told */
static const char *wait; /* the raw answer to WAIT */

static struct node *node_of(const struct peer_conn *c)
{
	return (struct node *)c->peer;
}

static void say_range(struct peer_conn *c, int from, int to, int who)
{
	char text[200];

	snprintf(text, sizeof(text),
		"*3\r\n:%d\r\n:%d\r\n*3\r\n$9\r\n127.0.0.1\r\n:%d\r\n$%zu\r\n%s\r\n", from, to,
		map_ports[who], strlen(map_ids[who]), map_ids[who]);
	peer_says(c, text);
}

static void say_map(struct peer_conn *c)
{
	maps++;
	peer_says(c, "*3\r\n");
	say_range(c, 0, 8191, 0);
	say_range(c, 8192, 12287, 1);
	say_range(c, 12288, owned - 1, 2);
}

static void say_info(struct peer_conn *c)
{
	char text[100];

	if (node_of(c)->says_no_votes)
		return;
	snprintf(text, sizeof(text), "cluster_state:ok\r\ncluster_current_epoch:%d\r\n", epoch);
	peer_says_bulk(c, text);
}

static const char *word_for(const char *key, const struct node *n, bool by_script, bool asking);

/* false: the connection is gone. */
static bool answer_key(struct peer_conn *c, const char *name, const char *key, bool asking)
{
	struct node *n = node_of(c);
	bool script = !strncmp(name, "EVAL", 4);
	const char *word = n->times-- > 0 ? n->word : word_for(key, n, script, asking);

	n->asked++;
	n->scripts += script;
	if (word) {
		peer_says(c, word);
		c->is_silent = n->then == FALLS_SILENT;
		if (n->then == HANGS_UP) {
			bufferevent_flush(c->bev, EV_WRITE, BEV_FLUSH);
			peer_conn_end(c);
			return false;
		}
		return true;
	}
	peer_says_bulk(c, n->id);
	return true;
}

static bool answer_command(struct peer_conn *c, const redisReply *cmd)
{
	const char *name = cmd->element[0]->str;
	const char *second = cmd->elements > 1 ? cmd->element[1]->str : "";
	const char *key = !strncmp(name, "EVAL", 4) ? cmd->element[3]->str : second;
	bool asking = c->is_asking;
	char info[100];

	if (c->is_silent)
		return true;
	c->is_asking = !strcmp(name, "ASKING");
	if (!strcmp(name, "PING")) {
		peer_says(c, "+PONG\r\n");
	} else if (!strcmp(name, "CLUSTER")) {
		!strcmp(second, "SLOTS") ? say_map(c) : say_info(c);
	} else if (!strcmp(name, "INFO")) {
		snprintf(info, sizeof(info),
			"redis_version:%s\r\nredis_mode:cluster\r\nrun_id:%s\r\n",
			node_of(c)->version, node_of(c)->id);
		peer_says_bulk(c, info);
	} else if (!strcmp(name, "WAIT") && wait) {
		peer_says(c, wait);
	} else if (!strncmp(key, "k:", 2)) {
		return answer_key(c, name, key, asking);
	} else if (!strcmp(name, "GET")) {
		peer_says(c, "$-1\r\n"); /* whether it owns its slots */
	} else {
		peer_says(c, "+OK\r\n");
	}
	return true;
}

static void turn_for(int ms)
{
	int64_t end = clock_ms() + ms;

	UNTIL(clock_ms() >= end);
}

static int setup(void **state)
{
	static const char *const ids[] = {"a", "b", "c", "d"};

	(void)state;
	log_init(LOG_ERROR + 1, LOG_LOGFMT);
	memset(nodes, 0, sizeof(nodes));
	loop = loop_new();
	tick = tick_new(loop);
	for (size_t i = 0; i < NELEM(nodes); i++) {
		nodes[i].id = ids[i];
		nodes[i].version = "7.0.15";
		nodes[i].peer = (struct peer){.loop = loop, .answers = answer_command};
		peer_listen(&nodes[i].peer);
	}
	owned = SLOTS;
	epoch = 1;
	maps = 0;
	wait = NULL;
	for (int i = 0; i < 3; i++) {
		map_ids[i] = ids[i];
		map_ports[i] = nodes[i].peer.port;
	}
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	for (size_t i = 0; i < NELEM(nodes); i++)
		peer_stop(&nodes[i].peer);
	event_free(tick);
	loop_free(loop);
	return 0;
}

static struct redis *opened(void)
{
	struct redis_host hosts[3] = {{"127.0.0.1", nodes[0].peer.port},
		{"127.0.0.1", nodes[1].peer.port}, {"127.0.0.1", nodes[2].peer.port}};

	return redis_new(loop, &(struct redis_options){.kind = REDIS_CLUSTER,
				       .hosts = hosts,
				       .host_count = 3,
				       .key_prefix = "t:",

				       .replicas = 1,
				       .timeout_ms = TIMEOUT_MS,
				       .max_pending = 1000});
}

static struct redis *connected(void)
{
	struct redis *r = opened();

	UNTIL(redis_is_ready(r));
	return r;
}

/* ---- a caller ---- */

struct answer {
	int          calls;
	enum outcome oc;
	char         text[16];
	int64_t      asked_ms, took_ms;
};

static void on_answer(void *ctx, enum outcome oc, const struct redisReply *v)
{
	struct answer *a = ctx;
	const char *s = redis_reply_str(v, NULL);

	a->calls++;
	a->oc = oc;
	a->took_ms = clock_ms() - a->asked_ms;
	snprintf(a->text, sizeof(a->text), "%s", s ? s : "");
}

static struct redis_script a_script = {.text = "return 1"};

static void ask(struct redis *r, bool by_script, const char *key, struct answer *a)
{
	*a = (struct answer){.asked_ms = clock_ms()};
	if (by_script)
		redis_eval(r, &a_script, 2, (const char *[]){"1", key}, NULL, on_answer, a);
	else
		redis_command(r, 2, (const char *[]){"GET", key}, NULL, on_answer, a);
	assert_int_equal(a->calls, 0); /* never before it returns */
}

static const char *ask_and_wait(struct redis *r, bool by_script, const char *key, struct answer *a)
{
	ask(r, by_script, key, a);
	UNTIL(a->calls);
	return a->oc == OC_OK ? a->text : "unavailable";
}

#define LOW "k:{b}"  /* slot 3300 */
#define HIGH "k:{a}" /* slot 15495 */

static void test_each_slot_at_its_owner(void **state)
{
	struct redis *r = connected();
	struct answer a;

	(void)state;
	assert_true(slot_of(LOW, strlen(LOW)) == 3300 && slot_of(HIGH, strlen(HIGH)) == 15495);
	for (int script = 0; script < 2; script++) {
		assert_string_equal(ask_and_wait(r, script, LOW, &a), "a");
		assert_string_equal(ask_and_wait(r, script, HIGH, &a), "c");
	}
	assert_int_equal(redis_major(r), 7);
	redis_free(r);
}

/* What comes of each word: said once, and for ever; to a read, and to a script. "a" and "b" are who
 * answers in the end. # stands for the key's slot, @ for b's port. */
static const struct row {
	const char *word;
	const char *once_read, *ever_read, *once_script, *ever_script;
} rows[] = {
#define UN "unavailable"
	{"-MOVED # 127.0.0.1:@\r\n", "b", "b", "b", "b"}, /* b answers well, so for ever is not for long */
	{"-MOVED # :@\r\n", "b", "b", "b", "b"},          /* the host that was asked */
	{"-MOVED # localhost:@\r\n", "ab", "ab", "ab", "ab"}, /* a name: another node to us; the map may come first */
	{"-MOVED # ?:@\r\n", "a", UN, "a", UN},
	{"-MOVED 16384 127.0.0.1:@\r\n", "a", UN, "a", UN},
	{"-MOVED -1 127.0.0.1:@\r\n", "a", UN, "a", UN},
	{"-MOVED\r\n", "a", UN, "a", UN},
	{"-ASK # 127.0.0.1:@\r\n", "b", "b", "a", UN},
	{"-ASK # 127.0.0.1\r\n", "a", UN, "a", UN},
	{"-TRYAGAIN Multiple keys request during rehashing of slot\r\n", "a", UN, "a", UN},
	{"-ERR Script attempted to access a non local key in a cluster node script: f_1\r\n", "a", UN, "a", UN},
	{"-ERR Unable to execute command 'del' in script because undeclared keys were accessed during rehashing of the slot\r\n",
		"a", UN, "a", UN},
	{"-CLUSTERDOWN The cluster is down\r\n", "a", UN, "a", UN},
	{"-CLUSTERDOWN Hash slot not served\r\n", "a", UN, "a", UN},
	{"-NOSCRIPT No matching script. Please use EVAL.\r\n", "a", UN, "a", UN},
	{"-LOADING Redis is loading the dataset in memory\r\n", "a", UN, "a", UN},
	{"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n", "a", UN, "a", UN},
	{"-READONLY You can't write against a read only replica.\r\n", "a", UN, "a", UN},
	{"-ERR Error running script (call to f_1): @user_script:1: @user_script: 1: -READONLY You can't write\r\n", "a", UN, "a", UN},
	{"-NOREPLICAS Not enough good replicas to write.\r\n", UN, UN, UN, UN},
	{"-OOM command not allowed when used memory > 'maxmemory'.\r\n", UN, UN, UN, UN},
	{"-CROSSSLOT Keys in request don't hash to the same slot\r\n", UN, UN, UN, UN},
	{"-NOPERM this user has no permissions\r\n", UN, UN, UN, UN},
	{"-\r\n", UN, UN, UN, UN},
};

/* Each word, said of a key of its own, so that all may be tried at the same time. */
static struct trial {
	const struct row *row;
	bool        by_script, ever;
	const char *expected;
	char        key[32], word[200];
	int         asked, asking, asking_script;
	struct answer a;
} trials[4 * NELEM(rows)];

static const char *word_for(const char *key, const struct node *n, bool by_script, bool asking)
{
	for (struct trial *t = trials; t < trials + NELEM(trials); t++) {
		if (strcmp(key, t->key) != 0)
			continue;
		t->asked++;
		t->asking += asking;
		t->asking_script += by_script && asking;
		return n == &nodes[0] && (t->ever || t->asked == 1) ? t->word : NULL;
	}
	return NULL;
}

static void prepare(struct trial *t, const struct row *row, int variant, int *tags)
{
	unsigned slot;
	size_t len = 0;

	*t = (struct trial){.row = row, .by_script = variant / 2, .ever = variant % 2};
	t->expected = (const char *[]){
		row->once_read, row->ever_read, row->once_script, row->ever_script}[variant];
	do {
		snprintf(t->key, sizeof(t->key), "k:{%d}", (*tags)++);
		slot = slot_of(t->key, strlen(t->key));
	} while (slot >= 8192);
	for (const char *p = row->word; *p; p++)
		len += (size_t)(*p == '#'   ? sprintf(t->word + len, "%u", slot)
				: *p == '@' ? sprintf(t->word + len, "%d", nodes[1].peer.port)
					    : sprintf(t->word + len, "%c", *p));
}

static void judge(const struct trial *t)
{
	const char *got = !t->a.calls ? "no answer" : t->a.oc == OC_OK ? t->a.text : UN;
	bool may_ask = strstr(t->word, "-ASK ") && strstr(t->word, "127.0.0.1:") && !t->by_script;

	if (!*got || !strstr(t->expected, got) || t->a.calls > 1 || t->asked > 40 ||
		t->asking_script || t->asking > may_ask ||
		t->a.took_ms > TIMEOUT_MS * 11 / 10 + BUSY_MS)
		fail_msg("%s (%s, %s): %s after %d ms; %d times asked, %d by ASKING, answered %d "
			 "times",
			t->row->word, t->by_script ? "script" : "read",
			t->ever ? "for ever" : "once", got, (int)t->a.took_ms, t->asked, t->asking,
			t->a.calls);
}

static void test_each_word(void **state)
{
	struct redis *r = connected();
	struct answer other;
	int tags = 0;

	(void)state;
	ask_and_wait(r, true, LOW, &other); /* the script's text is known from here on */
	for (size_t i = 0; i < NELEM(trials); i++) {
		prepare(&trials[i], &rows[i / 4], (int)(i % 4), &tags);
		ask(r, trials[i].by_script, trials[i].key, &trials[i].a);
	}
	/* another slot knows nothing of it */
	assert_string_equal(ask_and_wait(r, true, HIGH, &other), "c");
	turn_for(2 * TIMEOUT_MS);
	for (size_t i = 0; i < NELEM(trials); i++)
		judge(&trials[i]);
	redis_free(r);
	memset(trials, 0, sizeof(trials));
}

/* What ends a connection: nothing is known of what was sent, and all is well again after that. */
static void test_each_end(void **state)
{
	static const struct { const char *word; enum then then; } ends[] = {
		{"$10\r\nabc", FALLS_SILENT}, {"", FALLS_SILENT},
		{"HTTP/1.1 400 Bad Request\r\n\r\n", GOES_ON}, {"*2147483647\r\n", GOES_ON}, {":1\r\n:2\r\n", HANGS_UP},
	};
	struct redis *r = connected();
	struct answer read, eval, other;

	(void)state;
	for (size_t i = 0; i < NELEM(ends); i++) {
		nodes[0].word = ends[i].word;
		nodes[0].then = ends[i].then;
		nodes[0].times = 1;
		ask(r, true, LOW, &eval);
		ask(r, false, LOW, &read);
		ask(r, false, HIGH, &other);
		UNTIL(read.calls && eval.calls && other.calls);
		assert_true(read.oc == OC_STORE_UNAVAILABLE &&
			    read.took_ms <= TIMEOUT_MS * 11 / 10 + BUSY_MS);
		assert_true(other.oc == OC_OK && !strcmp(other.text, "c"));
		UNTIL(!strcmp(ask_and_wait(r, true, LOW, &eval), "a"));
	}
	redis_free(r);
}

/* Two nodes that each say it is the other's: five redirections and no more. */
static void test_redirections_without_end(void **state)
{
	struct redis *r = connected();
	char words[2][64];
	struct answer a;

	(void)state;
	for (int i = 0; i < 2; i++) {
		snprintf(words[i], sizeof(words[i]), "-MOVED 3300 127.0.0.1:%d\r\n",
			nodes[1 - i].peer.port);
		nodes[i].word = words[i];
		nodes[i].times = FOREVER;
	}
	for (int script = 0; script < 2; script++) {
		nodes[0].asked = nodes[1].asked = 0;
		assert_string_equal(ask_and_wait(r, script, LOW, &a), UN);
		assert_in_range(nodes[0].asked + nodes[1].asked, 2, 6);
	}
	redis_free(r);
}

/* What was sent and not answered may have been done: it is never sent again. */
static void test_what_was_sent_is_not_sent_again(void **state)
{
	struct redis *r = connected();
	struct answer a;

	(void)state;
	nodes[0].word = "";
	nodes[0].times = 1;
	nodes[0].then = HANGS_UP;
	assert_string_equal(ask_and_wait(r, true, LOW, &a), UN);
	turn_for(2 * TIMEOUT_MS);
	assert_int_equal(nodes[0].scripts, 1);
	redis_free(r);
}

/* An end counts once a replica has it. What a demoted master says of WAIT is no reason to do
 * without, then or later. */
static void test_what_replicas_must_have(void **state)
{
	static const struct { const char *wait; enum outcome oc; } waits[] = {
		{":1\r\n", OC_OK}, {":2\r\n", OC_OK}, {":0\r\n", OC_STORE_UNAVAILABLE},
		{"-ERR WAIT cannot be used with replica instances.\r\n", OC_STORE_UNAVAILABLE},
		{"-UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)\r\n", OC_STORE_UNAVAILABLE},
		{"$1\r\n1\r\n", OC_STORE_UNAVAILABLE}, {":0\r\n", OC_STORE_UNAVAILABLE}, {":1\r\n", OC_OK},
		{"-ERR unknown command 'WAIT', with args beginning with: '1' '125' \r\n", OC_OK}, {":0\r\n", OC_OK}, /* there is none: known now */
	};
	struct redis *r = connected();
	struct answer a;

	(void)state;
	for (size_t i = 0; i < NELEM(waits); i++) {
		wait = waits[i].wait;
		a = (struct answer){.asked_ms = clock_ms()};
		redis_eval_kept(r, &a_script, 2, (const char *[]){"1", LOW}, NULL, on_answer, &a);
		UNTIL(a.calls);
		if (a.oc != waits[i].oc)
			fail_msg("row %zu: %s", i, waits[i].wait);
	}
	redis_free(r);
}

/* ---- the map ---- */

static void test_a_map_with_gaps(void **state)
{
	struct redis *r;
	struct answer a;

	(void)state;
	owned = 13107;
	r = opened();
	UNTIL(maps == 2);
	turn_for(20);
	assert_int_equal(redis_place_of(r, LOW), REDIS_PLACES - 1); /* not adopted: nobody's */
	/* the third in a row says the same */
	UNTIL(maps >= 3 && redis_place_of(r, LOW) != REDIS_PLACES - 1);
	assert_int_equal(redis_place_of(r, HIGH), REDIS_PLACES - 1);
	UNTIL(!strcmp(ask_and_wait(r, false, LOW, &a), "a"));
	assert_false(redis_is_ready(r));
	owned = SLOTS;
	UNTIL(redis_is_ready(r));
	assert_string_equal(ask_and_wait(r, false, HIGH, &a), "c");
	redis_free(r);
}

/* The cluster is gone, and another answers at its addresses: it is not followed, and nothing that
 * it says is believed. */
static void test_another_cluster_at_the_same_addresses(void **state)
{
	struct redis *r = connected();
	struct answer a;

	(void)state;
	for (int i = 0; i < 3; i++) {
		peer_stop(&nodes[i].peer);
		map_ids[i] = (const char *[]){"x", "y", "z"}[i];
	}
	UNTIL(!redis_is_ready(r));
	for (int i = 0; i < 3; i++)
		peer_listen(&nodes[i].peer);
	maps = 0;
	UNTIL(maps >= 4);
	for (int64_t end = clock_ms() + 3 * TIMEOUT_MS; clock_ms() < end;) {
		assert_string_equal(ask_and_wait(r, false, LOW, &a), UN);
		assert_false(redis_is_ready(r));
	}
	map_ids[0] = "a";
	UNTIL(redis_is_ready(r));
	assert_string_equal(ask_and_wait(r, false, LOW, &a), "a");
	redis_free(r);
}

static void test_all_hosts_away_and_back(void **state)
{
	struct redis *r = connected();
	struct answer a;
	int64_t back_ms;

	(void)state;
	for (int i = 0; i < 3; i++)
		peer_stop(&nodes[i].peer);
	UNTIL(!redis_is_ready(r));
	assert_string_equal(ask_and_wait(r, false, LOW, &a), UN);
	turn_for(3 * TIMEOUT_MS);
	for (int i = 0; i < 3; i++)
		peer_listen(&nodes[i].peer);
	back_ms = clock_ms();
	UNTIL(redis_is_ready(r));
	assert_true(clock_ms() - back_ms < 2000 + BUSY_MS);
	assert_string_equal(ask_and_wait(r, true, HIGH, &a), "c");
	redis_free(r);
}

/* The same node says that it is somewhere else now. */
static void test_an_address_that_changes(void **state)
{
	struct redis *r = connected();
	struct answer a;

	(void)state;
	nodes[3].id = "a";
	map_ports[0] = nodes[3].peer.port;
	epoch++;
	peer_stop(&nodes[0].peer);
	UNTIL(!strcmp(ask_and_wait(r, false, LOW, &a), "a"));
	assert_true(nodes[3].asked > 0);
	UNTIL(redis_is_ready(r));
	redis_free(r);
}

static void test_the_oldest_version_counts(void **state)
{
	struct redis *r;

	(void)state;
	nodes[1].version = "6.2.14";
	r = connected();
	assert_int_equal(redis_major(r), 6);
	redis_free(r);
}

/* One that has not said its version may be the oldest. */
static void test_a_version_that_is_not_known(void **state)
{
	struct redis *r;

	(void)state;
	nodes[0].version = "";
	r = connected();
	assert_int_equal(redis_major(r), 0);
	redis_free(r);
}

/* ---- the end ---- */

/* While votes and a map are under way, and commands wait, at a node and for one. */
static void test_free_with_votes_under_way(void **state)
{
	struct redis *r = connected();
	struct answer a, b;

	(void)state;
	nodes[0].says_no_votes = nodes[2].says_no_votes = true;
	nodes[0].word = "-TRYAGAIN\r\n";
	nodes[0].times = nodes[2].times = FOREVER;
	nodes[2].word = "";
	ask(r, true, LOW, &a);
	ask(r, false, HIGH, &b);
	turn_for(TIMEOUT_MS / 2);
	redis_free(r);
	assert_int_equal(a.calls, 1);
	assert_int_equal(b.calls, 1);
	turn_for(20);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_each_slot_at_its_owner),
		T(test_each_word),
		T(test_each_end),
		T(test_redirections_without_end),
		T(test_what_was_sent_is_not_sent_again),
		T(test_what_replicas_must_have),
		T(test_a_map_with_gaps),
		T(test_another_cluster_at_the_same_addresses),
		T(test_all_hosts_away_and_back),
		T(test_an_address_that_changes),
		T(test_the_oldest_version_counts),
		T(test_a_version_that_is_not_known),
		T(test_free_with_votes_under_way),
	};

	return cmocka_run_group_tests_name("cluster", tests, NULL, NULL);
}
