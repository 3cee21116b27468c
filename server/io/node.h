/* One Redis server: a connection for commands and, where somebody listens, one for invalidation
 * messages. The two must lead to the same server (run_id) and the server must be a master; if it is
 * none any more, both are closed. */
#ifndef IO_NODE_H
#define IO_NODE_H

#include "io/conn.h"
#include "io/kept.h"
#include "io/quorum.h"

#define NODE_OF_CLUSTER "this is a node of a Redis Cluster: write cluster://host:port for redis.url"

struct node;

struct node_options {
	struct conn_options conn;  /* its purpose and callbacks are ours */
	const char *key_prefix;
	enum redis_kind kind;
	const int64_t *majority_ms; /* of others, that this one is the master; not for REDIS_ONE */
	struct redis_place *place; /* where to say what is proven */
	unsigned   *said;          /* what was logged once already, of all nodes; a bit each */
	void      (*on_ready)(void *ctx, struct node *n, bool ready);
	void      (*on_gone)(void *ctx); /* as a connection's */
	/* its send, again, on_end and replicas; the rest is ours. Its ctx is the node's */
	struct kept_options kept;
	redis_changed_fn on_changed;
	void       *ctx, *changed_ctx;
};

struct node *node_new(struct loop *l, const struct node_options *o); /* copies o */
void node_free(struct node *n); /* whoever waits is told before it returns */
/* once */
void node_listen(struct node *n, const char *prefix, redis_changed_fn on_changed, void *ctx);
void *node_ctx(const struct node *n);
/* In a cluster: a hash tag of one of its slots, for questions whether it owns them; "" = none. */
void node_set_tag(struct node *n, const char *tag);
bool node_is_ready(const struct node *n);
const char *node_trouble(const struct node *n);
/* of its version (Valkey: of the Redis that it stands in for); 0 = not known */
int node_major(const struct node *n);
struct conn *node_conn(const struct node *n); /* for commands, while it is ready */
void node_prove(struct node *n); /* majority_ms has changed */
/* made by the first call; o says what it does with commands */
struct kept *node_kept(struct node *n);
/* closes both connections; tried again after a second */
void node_leave(struct node *n, enum log_level level, const char *why);

/* An error that only a node of a cluster gives. */
bool node_is_of_cluster(const char *word);

#endif
