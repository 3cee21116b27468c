#include "io/kept.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"

enum { QUEUE_MAX = 1024, LATE_MS = 200 /* WAIT looks at the clock ten times a second */ };

struct held {
	struct command *c;
	const struct redisReply *reply;
};

struct kept {
	struct loop *loop;
	struct kept_options o;
	struct conn *conn;
	struct command *queue[QUEUE_MAX]; /* for the next batch */
	struct held held[QUEUE_MAX];      /* done, and waiting for the replicas */
	size_t queued, holding;
	bool in_flight;             /* a WAIT is on its way */
	struct following_wants wants; /* of that one */
	/* WAIT is not understood: nothing can be confirmed, and nothing is waited for */
	bool no_wait;
};

static void flush(void *ctx);

static void flush_soon(struct kept *k)
{
	loop_undefer(k->loop, flush, k);
	loop_defer(k->loop, flush, k);
}

static void end_batch(struct kept *k, bool confirmed)
{
	size_t n = k->holding;
	struct held *held = mem_alloc((n + 1) * sizeof(*held));

	memcpy(held, k->held, n * sizeof(*held)); /* those who are told may ask again at once */
	k->holding = 0;
	k->in_flight = false;
	for (size_t i = 0; i < n; i++) {
		k->o.on_end(k->o.ctx, held[i].c, confirmed, held[i].reply);
		reply_free(held[i].reply);
	}
	free(held);
	if (k->queued)
		flush_soon(k);
}

/* A Redis that is full refuses it, and takes the end of a session all the same. */
static void on_written(const struct asked *a, enum conn_fate fate, const struct redisReply *v)
{
	(void)a, (void)fate, (void)v;
}

/* WAIT is not there, or not for us. Whatever else is said of it (the master is none any more, say)
 * confirms nothing. */
static bool is_unknown(const char *error)
{
	return error && (!strncmp(error, "NOPERM", 6) || strstr(error, "unknown command"));
}

static void on_waited(const struct asked *a, enum conn_fate fate, const struct redisReply *v)
{
	struct kept *k = a->owner;
	int64_t have = 0;

	if (fate == CONN_ANSWERED && !k->no_wait && is_unknown(reply_error(v))) {
		log_warn("redis does not allow WAIT: the end of a session is acknowledged before a "
			 "replica has it",
			LOG_STR("needs", "WAIT, or replicas = 0"));
		k->no_wait = true;
	}
	if (redis_reply_int(v, &have))
		following_got(k->o.following, &k->wants, have, clock_ms());
	end_batch(k, fate == CONN_ANSWERED && (k->no_wait || have >= k->wants.needed));
}

static void send_one(void *ctx, struct command *c)
{
	struct kept *k = ctx;

	k->o.send(k->o.ctx, c, k->conn);
}

/* Nobody is told on the way but by the next turn, so the queue stays as it is meanwhile. */
static void empty_queue(struct kept *k, void (*fn)(void *ctx, struct command *c), void *ctx)
{
	size_t n = k->queued;

	k->queued = 0;
	for (size_t i = 0; i < n; i++)
		fn(ctx, k->queue[i]);
}

static void flush(void *ctx)
{
	struct kept *k = ctx;
	struct asked set = {.fn = on_written, .owner = k}, wait = {.fn = on_waited, .owner = k};
	char replicas[12], ms[12];

	if (k->in_flight || k->queued == 0 || !conn_is_up(k->conn))
		return;
	empty_queue(k, send_one, k);
	k->wants = following_wants(k->o.following, *k->o.replicas, clock_ms());
	snprintf(replicas, sizeof(replicas), "%d", k->wants.asked);
	snprintf(ms, sizeof(ms), "%d", k->o.conn.timeout_ms / 2);
	CONN_SEND(k->conn, &set, "SET", k->o.key, "", "PX", "60000");
	k->in_flight = CONN_SEND(k->conn, &wait, "WAIT", replicas, ms);
	if (!k->in_flight)
		conn_drop(k->conn, "no room for WAIT"); /* who was sent is told so */
}

bool kept_take(struct kept *k, struct command *c)
{
	if (!conn_is_up(k->conn) || k->queued == QUEUE_MAX)
		return false;
	if (k->queued == 0 && !k->in_flight)
		flush_soon(k);
	k->queue[k->queued++] = c;
	return true;
}

void kept_answered(struct kept *k, struct command *c, const struct redisReply *reply)
{
	conn_keep_reply(k->conn);
	k->held[k->holding++] = (struct held){c, reply};
}

static void on_state(void *ctx, bool up)
{
	struct kept *k = ctx;

	if (up)
		conn_is_right(k->conn);
	else
		empty_queue(k, k->o.again, k->o.ctx);
}

static void on_conn_gone(void *ctx)
{
	struct kept *k = ctx;

	loop_undefer(k->loop, flush, k);
	k->o.on_gone(k->o.ctx);
	free(k);
}

struct kept *kept_new(struct loop *l, const struct kept_options *o)
{
	struct kept *k = mem_alloc(sizeof(*k));
	struct conn_options c = o->conn;

	k->loop = l;
	k->o = *o;
	c.purpose = "ends";
	c.timeout_ms += LATE_MS;
	c.max_pending = QUEUE_MAX + 2;
	c.on_push = NULL;
	c.on_state = on_state;
	c.on_gone = on_conn_gone;
	c.ctx = k;
	k->conn = conn_new(l, &c);
	return k;
}

void kept_free(struct kept *k)
{
	if (!k)
		return;
	empty_queue(k, k->o.again, k->o.ctx);
	conn_free(k->conn);
}

void kept_drop(struct kept *k, const char *why)
{
	conn_drop(k->conn, why);
}
