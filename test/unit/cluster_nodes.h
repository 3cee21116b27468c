/* The nodes of a Redis Cluster, played on the same loop: they say whatever such a node may say,
 * once and for ever. A store that is connected to them, and a caller. */
#ifndef CLUSTER_NODES_H
#define CLUSTER_NODES_H

#include "peer.h"

#include "common/log.h"
#include "io/redis.h"
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
static char waited_for[8]; /* how many replicas it asked for */
static const char *role; /* the raw answer to ROLE; NULL: +OK */

static inline struct node *node_of(const struct peer_conn *c)
{
	return (struct node *)c->peer;
}

static inline void say_range(struct peer_conn *c, int from, int to, int who)
{
	char text[200];

	snprintf(text, sizeof(text),
		"*3\r\n:%d\r\n:%d\r\n*3\r\n$9\r\n127.0.0.1\r\n:%d\r\n$%zu\r\n%s\r\n", from, to,
		map_ports[who], strlen(map_ids[who]), map_ids[who]);
	peer_says(c, text);
}

static inline void say_map(struct peer_conn *c)
{
	maps++;
	peer_says(c, "*3\r\n");
	say_range(c, 0, 8191, 0);
	say_range(c, 8192, 12287, 1);
	say_range(c, 12288, owned - 1, 2);
}

static inline void say_info(struct peer_conn *c)
{
	char text[100];

	if (node_of(c)->says_no_votes)
		return;
	snprintf(text, sizeof(text), "cluster_state:ok\r\ncluster_current_epoch:%d\r\n", epoch);
	peer_says_bulk(c, text);
}

/* what this node says of this key, or NULL; the test's own, if it has one */
static const char *(*word_for)(
	const char *key, const struct node *n, bool by_script, bool asking);

/* false: the connection is gone. */
static inline bool answer_key(struct peer_conn *c, const char *name, const char *key, bool asking)
{
	struct node *n = node_of(c);
	bool script = !strncmp(name, "EVAL", 4);
	const char *word = n->times-- > 0 ? n->word
			   : word_for	     ? word_for(key, n, script, asking)
					     : NULL;

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

static inline bool answer_command(struct peer_conn *c, const redisReply *cmd)
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
		snprintf(waited_for, sizeof(waited_for), "%s", second);
		peer_says(c, wait);
	} else if (!strcmp(name, "ROLE") && role) {
		peer_says(c, role);
	} else if (!strncmp(key, "k:", 2)) {
		return answer_key(c, name, key, asking);
	} else if (!strcmp(name, "GET")) {
		peer_says(c, "$-1\r\n"); /* whether it owns its slots */
	} else {
		peer_says(c, "+OK\r\n");
	}
	return true;
}

static inline void turn_for(int ms)
{
	int64_t end = clock_ms() + ms;

	UNTIL(clock_ms() >= end);
}

static inline int setup(void **state)
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
	wait = role = NULL;
	for (int i = 0; i < 3; i++) {
		map_ids[i] = ids[i];
		map_ports[i] = nodes[i].peer.port;
	}
	return 0;
}

static inline int teardown(void **state)
{
	(void)state;
	for (size_t i = 0; i < NELEM(nodes); i++)
		peer_stop(&nodes[i].peer);
	event_free(tick);
	loop_free(loop);
	return 0;
}

static inline struct redis *opened(void)
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

static inline struct redis *connected(void)
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

static inline void on_answer(void *ctx, enum outcome oc, const struct redisReply *v)
{
	struct answer *a = ctx;
	const char *s = redis_reply_str(v, NULL);

	a->calls++;
	a->oc = oc;
	a->took_ms = clock_ms() - a->asked_ms;
	snprintf(a->text, sizeof(a->text), "%s", s ? s : "");
}

static struct redis_script a_script = {.text = "return 1"};

static inline void ask(struct redis *r, bool by_script, const char *key, struct answer *a)
{
	*a = (struct answer){.asked_ms = clock_ms()};
	if (by_script)
		redis_eval(r, &a_script, 2, (const char *[]){"1", key}, NULL, on_answer, a);
	else
		redis_command(r, 2, (const char *[]){"GET", key}, NULL, on_answer, a);
	assert_int_equal(a->calls, 0); /* never before it returns */
}

#define UN "unavailable"

static inline const char *ask_and_wait(
	struct redis *r, bool by_script, const char *key, struct answer *a)
{
	ask(r, by_script, key, a);
	UNTIL(a->calls);
	return a->oc == OC_OK ? a->text : UN;
}

#define LOW "k:{b}"  /* slot 3300 */
#define HIGH "k:{a}" /* slot 15495 */

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

#endif
