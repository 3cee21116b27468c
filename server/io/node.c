/* What is proven is counted from when the question was sent. Whatever may have kept us from hearing
 * of a change makes the place void: its generation rises. */
#include "io/node.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"

#define CHANNEL "__redis__:invalidate"

enum { BEAT_MS = 50, ROLE_BEATS = 5, LISTEN_PENDING = 8, RUN_ID_MAX = 48, PROBES = 16 };
enum said { SAID_NO_ROLE, SAID_NO_INFO, SAID_NO_TRACKING };

struct node {
	struct loop *loop;
	struct node_options o;
	struct conn *data, *listen;
	struct kept *kept;         /* NULL until it is needed */
	struct following following;
	int conns;                 /* of the three, not gone yet */
	char *host;
	struct timer *beat;
	unsigned beats;
	bool ready;
	bool has_role;             /* ROLE is understood */
	bool role_asked;           /* and on its way */
	char owner_key[128];       /* in a cluster: of a slot that is its own; "" = it has none */
	char kept_key[128];
	int  probes;               /* unanswered, of whether it is a node of a cluster */
	char run_id[RUN_ID_MAX];   /* of the server that data leads to; "" = not said */
	char listen_id[RUN_ID_MAX];
	int  major;                /* of its version; 0 = not said */
	char *prefix;              /* of the keys that are listened for */
	bool listening;            /* subscribed, at the same server */
	bool told_asked;
	/* when the question on its way was sent; when the last answered one was */
	int64_t told_sent_ms, told_ms;
	int64_t owner_sent_ms, owner_ms; /* the same of whether it is the master */
};

/* What is remembered of this place may be told while all that could make it wrong is excluded: we
 * have heard of every change (told), the server says that it is the master (owner), and so do more
 * than half of those who decide that (majority). */
void node_prove(struct node *n)
{
	int64_t proven = n->listening ? n->told_ms : PROOF_NEVER;

	if (n->o.kind != REDIS_ONE) {
		proven = n->owner_ms < proven ? n->owner_ms : proven;
		proven = *n->o.majority_ms < proven ? *n->o.majority_ms : proven;
	}
	n->o.place->proven_ms = proven;
}

static void void_place(struct node *n)
{
	n->o.place->generation++;
}

/* Says it once, however many connections meet with it. */
static bool say_once(struct node *n, enum said what)
{
	bool first = !(*n->o.said & 1u << what);

	*n->o.said |= 1u << what;
	return first;
}

static struct asked by(
	struct node *n, void (*fn)(const struct asked *, enum conn_fate, const struct redisReply *))
{
	return (struct asked){.fn = fn, .owner = n};
}

void node_leave(struct node *n, enum log_level level, const char *why)
{
	conn_reject(n->data, level, why);
	if (n->listen)
		conn_drop(n->listen, why);
}

/* --- who it is --- */

/* "run_id:4a…\r\n" in the lines of INFO. */
static void field_of(const char *info, const char *name, char *out, size_t max)
{
	const char *at = strstr(info, name);
	size_t len = 0;

	if (at) {
		at += strlen(name);
		len = strcspn(at, "\r\n");
	}
	snprintf(out, max, "%.*s", (int)len, at ? at : "");
}

/* Both are masters, but not the same one: the name has moved, and the older connection stayed
 * behind. Which that is, is not known. */
static bool is_same_server(struct node *n)
{
	if (!n->ready || !n->listen_id[0] || !n->run_id[0] || !strcmp(n->run_id, n->listen_id))
		return true;
	conn_drop(n->data, "the name leads to another server now");
	conn_drop(n->listen, "the name leads to another server now");
	return false;
}

static void become_ready(struct node *n)
{
	conn_is_right(n->data);
	n->ready = true;
	if (is_same_server(n))
		n->o.on_ready(n->o.ctx, n, true);
}

bool node_is_of_cluster(const char *word)
{
	return !strcmp(word, "MOVED") || !strcmp(word, "ASK") || !strcmp(word, "CLUSTERDOWN") ||
	       !strcmp(word, "CROSSSLOT");
}

static void on_probe(const struct asked *a, enum conn_fate fate, const struct redisReply *v)
{
	struct node *n = a->owner;
	char word[REPLY_WORD_MAX] = "";

	if (fate != CONN_ANSWERED)
		return;
	if (reply_error(v))
		reply_word(reply_error(v), word);
	if (node_is_of_cluster(word))
		node_leave(n, LOG_ERROR, NODE_OF_CLUSTER);
	else if (--n->probes == 0)
		become_ready(n);
}

/* A server in cluster mode may still hold every slot, or be a proxy that stands before them all:
 * some keys will tell. */
static void probe(struct node *n)
{
	struct asked a = by(n, on_probe);
	char key[128];

	n->probes = PROBES;
	for (int i = 0; i < PROBES; i++) {
		snprintf(key, sizeof(key), "%sh:{%d}", n->o.key_prefix, i);
		CONN_SEND(n->data, &a, "GET", key);
	}
}

static void on_info(const struct asked *a, enum conn_fate fate, const struct redisReply *v)
{
	struct node *n = a->owner;
	const char *info = redis_reply_str(v, NULL);
	char mode[16] = "", version[8] = "";

	if (fate != CONN_ANSWERED)
		return;
	if (info) {
		field_of(info, "run_id:", n->run_id, sizeof(n->run_id));
		/* Valkey: server */
		field_of(info, strstr(info, "server_mode:") ? "server_mode:" : "redis_mode:", mode,
			sizeof(mode));
		field_of(info, "redis_version:", version, sizeof(version));
	} else if (say_once(n, SAID_NO_INFO)) {
		log_info("redis does not say who it is: after a failover behind a name, memory may "
			 "be used up to a second too long",
			LOG_STR("needs", "INFO"));
	}
	n->major = atoi(version);
	if (!strcmp(mode, "sentinel"))
		node_leave(n, LOG_ERROR,
			"this is a Sentinel: write sentinel://host:port,host:port,host:port/name "
			"for redis.url");
	else if (!strcmp(mode, "standalone") && n->o.kind == REDIS_CLUSTER)
		node_leave(n, LOG_ERROR,
			"this is no node of a Redis Cluster: write redis://host:port for "
			"redis.url");
	else if (!strcmp(mode, "cluster") && n->o.kind != REDIS_CLUSTER)
		probe(n);
	else
		become_ready(n);
}

/* false: it was left. */
static bool is_master(struct node *n, const struct redisReply *v)
{
	const char *role = redis_reply_str(redis_reply_at(v, 0), NULL);
	char why[160];

	if (reply_error(v)) {
		n->has_role = false;
		if (say_once(n, SAID_NO_ROLE))
			log_info("redis does not say whether it is a master: a demoted one is "
				 "noticed by its refusals only",
				LOG_STR("needs", "ROLE"));
		return true;
	}
	if (!role) {
		conn_drop(n->data, "the answer is not Redis'");
		return false;
	}
	if (!strcmp(role, "master"))
		return true;
	if (!strcmp(role, "sentinel"))
		return true; /* INFO follows, and knows better what to say */
	snprintf(why, sizeof(why), "this is a replica, of %.100s",
		log_or_empty(redis_reply_str(redis_reply_at(v, 1), NULL)));
	node_leave(n, LOG_WARN, why);
	return false;
}

/* It has no ROLE, so it was only PINGed. MISCONF: it cannot save to disk; reads go on. false: it
 * was left. */
static bool is_alive(struct node *n, const struct redisReply *v)
{
	char word[REPLY_WORD_MAX], sentence[REPLY_SENTENCE_MAX];

	if (!reply_error(v))
		return true;
	reply_word(reply_error(v), word);
	if (!strcmp(word, "MISCONF"))
		return true;
	reply_sentence(reply_error(v), n->o.conn.password, sentence);
	node_leave(n, LOG_WARN, sentence);
	return false;
}

static void on_role(const struct asked *a, enum conn_fate fate, const struct redisReply *v)
{
	struct node *n = a->owner;

	n->role_asked = false;
	if (fate != CONN_ANSWERED)
		return;
	if (n->has_role ? !is_master(n, v) : !is_alive(n, v))
		return;
	if (n->o.kind != REDIS_ONE)
		following_look(&n->following, v, clock_ms());
	n->owner_ms = n->owner_sent_ms;
	node_prove(n);
}

/* In a cluster nobody asks for more: a node says MOVED to what is not its own. */
static void on_replicas(const struct asked *a, enum conn_fate fate, const struct redisReply *v)
{
	struct node *n = a->owner;

	if (fate == CONN_ANSWERED)
		following_look(&n->following, v, clock_ms());
}

/* A node that owns the key's slot says what it holds, or that it is on its way elsewhere; another
 * says MOVED, or that the cluster is down. */
static void on_owner(const struct asked *a, enum conn_fate fate, const struct redisReply *v)
{
	struct node *n = a->owner;

	n->role_asked = false;
	if (fate != CONN_ANSWERED || (reply_error(v) && strncmp(reply_error(v), "ASK ", 4) != 0))
		return;
	n->owner_ms = n->owner_sent_ms;
	node_prove(n);
}

static void ask_owner(struct node *n)
{
	struct asked a = by(n, on_owner), replicas = by(n, on_replicas);

	if (n->owner_key[0])
		n->role_asked = CONN_SEND(n->data, &a, "GET", n->owner_key);
	if (n->owner_key[0] && *n->o.kept.replicas > 0 && n->beats++ % ROLE_BEATS == 0)
		CONN_SEND(n->data, &replicas, "ROLE");
}

static void ask_role(struct node *n)
{
	struct asked a = by(n, on_role);

	if (n->role_asked)
		return;
	n->owner_sent_ms = clock_ms();
	if (n->o.kind == REDIS_CLUSTER) {
		ask_owner(n);
		return;
	}
	n->role_asked =
		n->has_role ? CONN_SEND(n->data, &a, "ROLE") : CONN_SEND(n->data, &a, "PING");
}

static void on_data_state(void *ctx, bool up)
{
	struct node *n = ctx;
	struct asked info = by(n, on_info);

	n->run_id[0] = '\0';
	n->owner_ms = PROOF_NEVER;
	node_prove(n);
	if (up) {
		n->has_role = true;
		n->role_asked = false;
		if (n->o.kind != REDIS_CLUSTER)
			ask_role(n);
		CONN_SEND(n->data, &info, "INFO", "server");
		return;
	}
	void_place(n);
	if (n->listen)
		conn_drop(n->listen, "the other connection was lost");
	if (n->kept)
		kept_drop(n->kept, "the other connection was lost");
	if (n->ready) {
		n->ready = false;
		n->o.on_ready(n->o.ctx, n, false);
	}
}

/* --- what it tells --- */

static void on_push(void *ctx, const struct redisReply *message)
{
	struct node *n = ctx;
	const struct redisReply *keys = redis_reply_at(message, 2);
	const char *channel = redis_reply_str(redis_reply_at(message, 1), NULL), *key;
	size_t len;

	if (!channel || strcmp(channel, CHANNEL) != 0)
		return;
	/* nil: the whole database was emptied, or there are more keys than we care to read; or
	 * somebody publishes nonsense there */
	if (redis_reply_count(keys) == 0)
		void_place(n);
	for (size_t i = 0; i < redis_reply_count(keys); i++) {
		key = redis_reply_str(redis_reply_at(keys, i), &len);
		if (!key || !n->o.on_changed(n->o.changed_ctx, key, len))
			void_place(n);
	}
}

static void no_tracking(struct node *n)
{
	if (say_once(n, SAID_NO_TRACKING))
		log_warn("redis has no client tracking: every check asks redis",
			LOG_STR("needs", "CLIENT TRACKING, Redis 6 or later"));
}

static void on_told(const struct asked *a, enum conn_fate fate, const struct redisReply *v)
{
	struct node *n = a->owner;

	n->told_asked = false;
	if (fate != CONN_ANSWERED)
		return; /* the connection is gone, and on_listen_state has said so */
	if (reply_error(v)) {
		no_tracking(n);
		return;
	}
	if (!n->listening) {
		n->listening = true;
		/* what was asked for before we were told of changes does not count */
		void_place(n);
		conn_is_right(n->listen);
	}
	n->told_ms = n->told_sent_ms;
	node_prove(n);
}

/* Subscribing again to the same channel is answered in line, behind all that Redis had to tell. */
static void ask_told(struct node *n)
{
	struct asked a = by(n, on_told);

	if (n->told_asked)
		return;
	n->told_sent_ms = clock_ms();
	n->told_asked = CONN_SEND(n->listen, &a, "SUBSCRIBE", CHANNEL);
}

static void on_tracking(const struct asked *a, enum conn_fate fate, const struct redisReply *v)
{
	struct node *n = a->owner;

	if (fate != CONN_ANSWERED)
		return;
	if (!reply_error(v))
		ask_told(n);
	else
		no_tracking(n);
}

static void on_id(const struct asked *a, enum conn_fate fate, const struct redisReply *v)
{
	struct node *n = a->owner;
	struct asked tracking = by(n, on_tracking);
	char id[24];
	int64_t number;

	if (fate != CONN_ANSWERED)
		return;
	if (!redis_reply_int(v, &number)) {
		no_tracking(n);
		return;
	}
	snprintf(id, sizeof(id), "%lld", (long long)number);
	CONN_SEND(n->listen, &tracking, "CLIENT", "TRACKING", "ON", "REDIRECT", id, "BCAST",
		"PREFIX", n->prefix);
}

/* The name may lead to a replica as well: it is none to listen to. */
static void on_listen_role(const struct asked *a, enum conn_fate fate, const struct redisReply *v)
{
	struct node *n = a->owner;
	const char *role = redis_reply_str(redis_reply_at(v, 0), NULL);

	if (fate == CONN_ANSWERED && role && !strcmp(role, "slave") && n->o.kind != REDIS_CLUSTER)
		conn_reject(n->listen, LOG_WARN, "this is a replica");
}

static void on_listen_info(const struct asked *a, enum conn_fate fate, const struct redisReply *v)
{
	struct node *n = a->owner;
	const char *info = redis_reply_str(v, NULL);

	if (fate != CONN_ANSWERED)
		return;
	field_of(info ? info : "", "run_id:", n->listen_id, sizeof(n->listen_id));
	is_same_server(n);
}

static void on_listen_state(void *ctx, bool up)
{
	struct node *n = ctx;
	struct asked role = by(n, on_listen_role), info = by(n, on_listen_info), id = by(n, on_id);

	n->listen_id[0] = '\0';
	n->listening = n->told_asked = false;
	node_prove(n);
	if (up) {
		CONN_SEND(n->listen, &role, "ROLE");
		CONN_SEND(n->listen, &info, "INFO", "server");
		CONN_SEND(n->listen, &id, "CLIENT", "ID");
	} else {
		void_place(n);
	}
}

/* --- the clock --- */

static void on_beat(void *ctx)
{
	struct node *n = ctx;

	timer_start(n->beat, BEAT_MS);
	if (n->ready && (n->o.kind != REDIS_ONE || n->beats++ % ROLE_BEATS == 0))
		ask_role(n);
	if (n->listening)
		ask_told(n);
}

/* --- the object --- */

static void on_conn_gone(void *ctx)
{
	struct node *n = ctx;

	if (--n->conns > 0)
		return;
	n->o.on_gone(n->o.ctx);
	free(n->prefix);
	free(n->host);
	free(n);
}

static struct conn *open_conn(struct node *n, const char *purpose, void (*on_state)(void *, bool))
{
	struct conn_options o = n->o.conn;

	o.purpose = purpose;
	o.on_state = on_state;
	o.on_gone = on_conn_gone;
	o.ctx = n;
	n->conns++;
	if (on_state == on_listen_state) {
		o.on_push = on_push;
		o.max_pending = LISTEN_PENDING;
	}
	return conn_new(n->loop, &o);
}

struct kept *node_kept(struct node *n)
{
	struct kept_options o = n->o.kept;

	if (n->kept || !n->ready)
		return n->kept;
	o.conn = n->o.conn;
	o.key = n->kept_key;
	o.following = &n->following;
	o.on_gone = on_conn_gone;
	o.ctx = n;
	n->conns++;
	n->kept = kept_new(n->loop, &o);
	return n->kept;
}

void node_set_tag(struct node *n, const char *tag)
{
	snprintf(n->owner_key, sizeof(n->owner_key), *tag ? "%sh:{%s}" : "%s%s",
		*tag ? n->o.key_prefix : "", tag);
	snprintf(n->kept_key, sizeof(n->kept_key), *tag ? "%sw:{%s}" : "%sw:%s", n->o.key_prefix,
		tag);
}

void *node_ctx(const struct node *n)
{
	return n->o.ctx;
}

struct node *node_new(struct loop *l, const struct node_options *o)
{
	struct node *n = mem_alloc(sizeof(*n));

	n->loop = l;
	n->o = *o;
	n->o.conn.host = n->host = mem_strdup(o->conn.host);
	n->told_ms = n->owner_ms = PROOF_NEVER;
	following_init(&n->following);
	node_set_tag(n, "");
	n->beat = timer_new(l, on_beat, n);
	n->o.place->proven_ms = PROOF_NEVER;
	timer_start(n->beat, BEAT_MS);
	n->data = open_conn(n, "commands", on_data_state);
	return n;
}

void node_listen(struct node *n, const char *prefix, redis_changed_fn on_changed, void *ctx)
{
	n->prefix = mem_strdup(prefix);
	n->o.on_changed = on_changed;
	n->o.changed_ctx = ctx;
	n->listen = open_conn(n, "invalidation", on_listen_state);
}

void node_free(struct node *n)
{
	struct conn *listen;
	struct kept *kept;

	if (!n)
		return;
	void_place(n);
	n->o.place->proven_ms = PROOF_NEVER;
	timer_free(n->beat);
	listen = n->listen;
	kept = n->kept;
	n->listen = NULL;
	n->kept = NULL;
	n->conns++; /* ours: n must outlive the three calls */
	conn_free(n->data);
	conn_free(listen);
	kept_free(kept);
	on_conn_gone(n);
}

int node_major(const struct node *n)
{
	return n->major;
}

bool node_is_ready(const struct node *n)
{
	return n->ready && conn_is_up(n->data);
}

const char *node_trouble(const struct node *n)
{
	return conn_trouble(n->data);
}

struct conn *node_conn(const struct node *n)
{
	return n->data;
}
