/* Masters and three sentinels, played on the same loop: whose word on the end of a session counts
 * when a replica leaves. */
#include "peer.h"

#include "common/log.h"
#include "io/following.h"
#include "io/redis.h"

enum { TIMEOUT_MS = 1000 };

struct master {
	struct peer peer;
	const char *replicas; /* the list in ROLE's answer; NULL: ROLE is refused */
	const char *waited;   /* the raw answer to WAIT */
	char        wait[8];  /* how many were asked for */
	int         ends;
};

static struct loop *loop;
static struct event *tick;
static struct master masters[2];
static struct peer sentinels[3];
static int named[3]; /* the master that each sentinel names */

#define TWO \
	"*2\r\n*3\r\n$9\r\n127.0.0.1\r\n$1\r\n1\r\n$4\r\n9999\r\n" \
	"*3\r\n$9\r\n127.0.0.1\r\n$1\r\n2\r\n$4\r\n9999\r\n"
#define ONE "*1\r\n*3\r\n$9\r\n127.0.0.1\r\n$1\r\n2\r\n$4\r\n9999\r\n"

static bool master_answers(struct peer_conn *c, const redisReply *cmd)
{
	struct master *m = (struct master *)c->peer;
	const char *name = cmd->element[0]->str;

	if (!strcmp(name, "PING")) {
		peer_says(c, "+PONG\r\n");
	} else if (!strcmp(name, "ROLE") && m->replicas) {
		peer_says(c, "*3\r\n$6\r\nmaster\r\n:7\r\n");
		peer_says(c, m->replicas);
	} else if (!strcmp(name, "ROLE")) {
		peer_says(c, "-NOPERM this user has no permissions to run the 'role' command\r\n");
	} else if (!strcmp(name, "WAIT")) {
		snprintf(m->wait, sizeof(m->wait), "%s", cmd->element[1]->str);
		peer_says(c, m->waited);
	} else if (!strncmp(name, "EVAL", 4)) {
		m->ends++;
		peer_says(c, ":1\r\n");
	} else {
		peer_says(c, "+OK\r\n");
	}
	return true;
}

static bool sentinel_answers(struct peer_conn *c, const redisReply *cmd)
{
	char port[12];

	if (!strcmp(cmd->element[0]->str, "SENTINEL")) {
		peer_says(c, "*2\r\n");
		peer_says_bulk(c, "127.0.0.1");
		snprintf(port, sizeof(port), "%d", masters[named[c->peer - sentinels]].peer.port);
		peer_says_bulk(c, port);
	} else {
		peer_says(c, !strcmp(cmd->element[0]->str, "PING") ? "+PONG\r\n" : "+OK\r\n");
	}
	return true;
}

static int setup(void **state)
{
	(void)state;
	log_init(LOG_ERROR + 1, LOG_LOGFMT);
	loop = loop_new();
	tick = tick_new(loop);
	for (int i = 0; i < 2; i++) {
		masters[i] = (struct master){.peer = {.loop = loop, .answers = master_answers},
			.replicas = TWO,
			.waited = ":2\r\n"};
		peer_listen(&masters[i].peer);
	}
	for (int i = 0; i < 3; i++) {
		sentinels[i] = (struct peer){.loop = loop, .answers = sentinel_answers};
		named[i] = 0;
		peer_listen(&sentinels[i]);
	}
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++)
		peer_stop(&masters[i].peer);
	for (int i = 0; i < 3; i++)
		peer_stop(&sentinels[i]);
	event_free(tick);
	loop_free(loop);
	return 0;
}

static struct redis *connected(int replicas)
{
	struct redis_host hosts[3];
	struct redis *r;

	for (int i = 0; i < 3; i++)
		hosts[i] = (struct redis_host){"127.0.0.1", sentinels[i].port};
	r = redis_new(loop, &(struct redis_options){.kind = REDIS_SENTINEL,
				    .hosts = hosts,
				    .host_count = 3,
				    .master_name = "m",
				    .key_prefix = "t:",
				    .replicas = replicas,
				    .timeout_ms = TIMEOUT_MS,
				    .max_pending = 1000});
	UNTIL(redis_is_ready(r));
	return r;
}

/* ---- a caller ---- */

static struct redis_script a_script = {.text = "return 1"};

static void on_end(void *ctx, enum outcome oc, const struct redisReply *v)
{
	(void)v;
	*(int *)ctx = (int)oc;
}

static enum outcome end(struct redis *r)
{
	int oc = -1;

	redis_eval_kept(r, &a_script, 2, (const char *[]){"1", "k"}, NULL, on_end, &oc);
	UNTIL(oc >= 0);
	return (enum outcome)oc;
}

/* Ends, one after the other, until one is acknowledged that so many replicas had to have. */
static void end_until_asked_for(struct redis *r, const struct master *m, const char *replicas)
{
	for (int64_t give_up = clock_ms() + PATIENCE_MS;
		end(r) != OC_OK || strcmp(m->wait, replicas) != 0;)
		assert_true(clock_ms() < give_up);
}

/* ---- a replica that leaves ---- */

/* It may have become the master, so what the other has does not count for as long as nobody would
 * know that. */
static void test_it_is_asked_for_a_while(void **state)
{
	struct redis *r = connected(1);
	int64_t left_ms;

	(void)state;
	end_until_asked_for(r, &masters[0], "2");
	masters[0].replicas = ONE;
	masters[0].waited = ":1\r\n";
	left_ms = clock_ms();
	assert_int_equal(end(r), OC_STORE_UNAVAILABLE);
	assert_string_equal(masters[0].wait, "2");
	end_until_asked_for(r, &masters[0], "1");
	assert_in_range(clock_ms() - left_ms, FOLLOWING_GRACE_MS - 1000,
		FOLLOWING_GRACE_MS + BUSY_MS);
	masters[0].waited = ":0\r\n"; /* and without any there is no end, however long */
	assert_int_equal(end(r), OC_STORE_UNAVAILABLE);
	redis_free(r);
}

/* It has become the master: of what the old one was asked meanwhile, nothing was acknowledged. */
static void test_it_is_the_master(void **state)
{
	struct redis *r = connected(1);
	int64_t left_ms;

	(void)state;
	end_until_asked_for(r, &masters[0], "2");
	masters[0].replicas = ONE;
	masters[0].waited = ":1\r\n";
	for (left_ms = clock_ms(); clock_ms() - left_ms < 600;)
		assert_int_equal(end(r), OC_STORE_UNAVAILABLE);
	assert_true(masters[0].ends > 1);
	named[0] = named[1] = named[2] = 1;
	masters[1].replicas = ONE;
	masters[1].waited = ":1\r\n";
	while (end(r) != OC_OK)
		assert_true(clock_ms() - left_ms < PATIENCE_MS);
	assert_true(masters[1].ends > 0);
	redis_free(r);
}

static void test_where_role_is_refused(void **state)
{
	struct redis *r;

	(void)state;
	masters[0].replicas = NULL;
	masters[0].waited = ":1\r\n";
	r = connected(1);
	assert_int_equal(end(r), OC_OK);
	assert_string_equal(masters[0].wait, "1");
	redis_free(r);
}

static void test_where_none_is_asked_for(void **state)
{
	struct redis *r = connected(0);

	(void)state;
	assert_int_equal(end(r), OC_OK);
	assert_string_equal(masters[0].wait, "");
	redis_free(r);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_it_is_asked_for_a_while),
		T(test_it_is_the_master),
		T(test_where_role_is_refused),
		T(test_where_none_is_asked_for),
	};

	return cmocka_run_group_tests_name("sentinel", tests, NULL, NULL);
}
