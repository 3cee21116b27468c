/* What the files of the store share: redis.c, what it is made of; command.c, what becomes of a
 * command. */
#ifndef IO_REDIS_PRIVATE_H
#define IO_REDIS_PRIVATE_H

#include <sys/queue.h>

#include "common/buf.h"
#include "common/metrics.h"
#include "io/cluster.h"
#include "io/conn.h"
#include "io/node.h"
#include "io/sentinel.h"

enum { KINDS = 8 /* of errors told apart when logging */ };
enum { NOBODY = REDIS_PLACES - 1 /* the place of nobody: nothing is ever proven of it */ };

struct command;
TAILQ_HEAD(commands, command);

struct refused {
	redis_cb cb;
	void    *ctx;
};

struct redis {
	struct loop *loop;
	struct redis_options o; /* its strings are ours */
	struct sentinels *sentinels;
	struct cluster *cluster;
	/* but for a cluster only the first; NULL while no master is known */
	struct node *nodes[REDIS_PLACES];
	unsigned used; /* places from this one on never had a node */
	int64_t majority_ms;    /* when the majority last named it */
	int64_t good_ms;        /* when all was well */
	int64_t born_ms;
	struct redis_place places[REDIS_PLACES];
	unsigned said;
	struct buf scratch;     /* a command's words, encoded */

	/* waiting, or sent again */
	struct commands waiting;
	size_t waiting_count;
	struct timer *sweep, *clock;
	bool sweep_set;
	unsigned seed;

	/* refused before they were sent; told next turn */
	struct refused *refused;
	size_t refused_told, refused_len, refused_cap;

	const char *prefix;     /* of the keys that somebody listens for */
	redis_changed_fn on_changed;
	void *changed_ctx;

	struct { char word[REPLY_WORD_MAX]; int64_t at_ms; } kinds[KINDS];
	int  parts;             /* nodes, and the sentinels, that are not gone yet */
	int  depth;             /* callbacks in progress: memory must outlive them */
	bool freed;
	struct metric_series *ok, *error, *timeout, *unavailable, *connected, *parked, *unconfirmed,
		*moved, *ask, *nodes_ready, *nodes_away;
};

/* ---- redis.c ---- */

/* around callbacks, which may free r: memory must outlive them */
void redis_enter(struct redis *r);
void redis_leave(struct redis *r);
void redis_refuse(struct redis *r, redis_cb cb, void *ctx); /* told on the next turn */
/* for commands to whoever is there; NULL: not ready */
struct conn *redis_conn_at(const struct redis *r, unsigned place);
bool redis_is_believed(const struct redis *r); /* more than half said lately who the master is */

/* ---- command.c ---- */

void commands_init(struct redis *r);
void commands_tell_all(struct redis *r); /* r is being freed: whoever waits is told */
void commands_fini(struct redis *r);

/* What becomes of ends that replicas must have: ctx is the node. As struct kept_options wants them.
 */
void command_send_kept(void *ctx, struct command *c, struct conn *to);
void command_again_kept(void *ctx, struct command *c);
void command_on_kept(void *ctx, struct command *c, bool confirmed, const struct redisReply *v);

#endif
