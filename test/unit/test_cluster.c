/* What comes of each thing that a node of a Redis Cluster may say. */
#include "cluster_nodes.h"

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

static const char *word_of_trial(const char *key, const struct node *n, bool by_script, bool asking)
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
	word_for = word_of_trial;
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
	word_for = NULL;
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

static enum outcome end(struct redis *r)
{
	struct answer a = {.asked_ms = clock_ms()};

	redis_eval_kept(r, &a_script, 2, (const char *[]){"1", LOW}, NULL, on_answer, &a);
	UNTIL(a.calls);
	return a.oc;
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

	(void)state;
	for (size_t i = 0; i < NELEM(waits); i++) {
		wait = waits[i].wait;
		if (end(r) != waits[i].oc)
			fail_msg("row %zu: %s", i, waits[i].wait);
	}
	redis_free(r);
}

/* One that was there is asked for, since it may have become the master. */
static void test_all_replicas_that_follow_are_asked_for(void **state)
{
	int64_t give_up = clock_ms() + PATIENCE_MS;
	struct redis *r;

	(void)state;
	wait = ":2\r\n";
	role = "*3\r\n$6\r\nmaster\r\n:7\r\n*2\r\n"
	       "*3\r\n$9\r\n127.0.0.1\r\n$1\r\n1\r\n$1\r\n7\r\n"
	       "*3\r\n$9\r\n127.0.0.1\r\n$1\r\n2\r\n$1\r\n7\r\n";
	r = connected();
	do {
		assert_int_equal(end(r), OC_OK);
		assert_true(clock_ms() < give_up);
	} while (strcmp(waited_for, "2") != 0);
	wait = ":1\r\n";
	role = "*3\r\n$6\r\nmaster\r\n:7\r\n*0\r\n";
	assert_int_equal(end(r), OC_STORE_UNAVAILABLE);
	assert_string_equal(waited_for, "2");
	redis_free(r);
}

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_each_slot_at_its_owner),
		T(test_each_word),
		T(test_each_end),
		T(test_redirections_without_end),
		T(test_what_was_sent_is_not_sent_again),
		T(test_what_replicas_must_have),
		T(test_all_replicas_that_follow_are_asked_for),
		T(test_free_with_votes_under_way),
	};

	return cmocka_run_group_tests_name("cluster", tests, NULL, NULL);
}
