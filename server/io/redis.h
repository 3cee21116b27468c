/* One connection to Redis: hiredis' reader under a connection of our own (hiredis' async context aborts
 * the process on an unasked reply).
 *
 * A command's callback comes exactly once, never before redis_command returns. OC_OK: reply is Redis' answer, borrowed, and not an
 * error; OC_STORE_UNAVAILABLE: not connected, timed out, connection lost, queue full, or Redis said an error (reply is then
 * NULL; the error was logged once). What timed out may or may not have happened. A command late by timeout_ms ends the
 * connection: replies are first in, first out, so nothing behind it can be trusted to come. Reconnects back off 50 ms to 1 s with
 * jitter, until one has lasted a second; names are resolved off the loop, and a numeric address needs no resolver.
 *
 * With on_push the connection may SUBSCRIBE: messages go there and to no callback, and on_state says when there is a new connection
 * and when it is lost. Nothing is asked of an idle one: its owner does that. */
#ifndef IO_REDIS_H
#define IO_REDIS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/outcome.h"
#include "io/loop.h"

struct redis;
struct redisReply; /* hiredis'; read it by the functions below */

struct redis_options {
	const char *host;        /* NULL for a unix socket */
	int         port;
	const char *unix_path;   /* NULL for TCP */
	const char *user;        /* "" = default user */
	const char *password;    /* "" = no AUTH */
	int         db;
	int         timeout_ms;  /* for one command, and for connecting with its handshake */
	int         max_pending; /* commands in flight; more are refused */
	void      (*on_push)(void *ctx, const struct redisReply *message); /* ["message", channel, payload]; borrowed */
	void      (*on_state)(void *ctx, bool up); /* may send commands; comes on a turn of the loop, not from redis_new or redis_free */
	void       *push_ctx;
};

typedef void (*redis_cb)(void *ctx, enum outcome oc, const struct redisReply *reply);

struct redis *redis_new(struct loop *l, const struct redis_options *o); /* starts to connect */
void redis_free(struct redis *r); /* pending callbacks get OC_STORE_UNAVAILABLE before it returns */
bool redis_is_ready(const struct redis *r); /* handshake done and nothing overdue; an idle connection is PINGed every 250 ms */

/* argv strings are copied; argvlen NULL = strlen. Commands are written together at the end of the loop's turn, in order. */
void redis_command(struct redis *r, int argc, const char *const *argv, const size_t *argvlen, redis_cb cb, void *ctx);

/* A Lua script: only text is set by its owner. */
struct redis_script {
	const char *text;
	char        hash[41];         /* Redis' name for it */
	const struct redis *told;     /* who knows it, since that connection */
	unsigned    generation;
};

/* As redis_command: argv are the number of keys, the keys, the arguments. The text travels once on each connection, then its hash does;
 * a script that Redis has forgotten meanwhile (SCRIPT FLUSH) is sent again, and runs after what was sent in between. */
void redis_eval(struct redis *r, struct redis_script *s, int argc, const char *const *argv, const size_t *argvlen, redis_cb cb, void *ctx);

/* Reading replies. Each takes NULL and the wrong type without harm. */
bool        redis_reply_is_nil(const struct redisReply *v);
const char *redis_reply_str(const struct redisReply *v, size_t *len); /* string or status; NULL when it is neither. len may be NULL */
bool        redis_reply_int(const struct redisReply *v, int64_t *out);
size_t      redis_reply_count(const struct redisReply *v);            /* elements of an array, else 0 */
const struct redisReply *redis_reply_at(const struct redisReply *v, size_t i); /* NULL past the end */

#endif
