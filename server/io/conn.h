/* One connection to one Redis (or Sentinel): hiredis' reader under a connection of our own, since
 * hiredis' async context aborts the process on an unasked reply.
 *
 * Commands go out in order and are written together at the end of the loop's turn; answers come in
 * order. Each asker is answered exactly once, never before conn_send returned true: with Redis'
 * reply as it came, errors too, or without one when the connection is gone (CONN_LOST) or the
 * answer is late by timeout_ms (CONN_LATE, which ends the connection: nothing behind it can be
 * trusted to come). What was sent and not answered may or may not have happened.
 *
 * A connection that is lost is made anew: after 50 ms to 1 s with jitter, less often the longer it
 * fails, until one has lasted a second. Names are resolved off the loop, each time anew. Nothing is
 * asked of an idle connection: its owner does that. */
#ifndef IO_CONN_H
#define IO_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/log.h"
#include "common/mem.h"
#include "io/loop.h"
#include "io/redis.h"

struct conn;
struct command;
struct tls;

enum conn_fate { CONN_ANSWERED, CONN_LOST, CONN_LATE };

/* Who asks. fn is told; the rest is for fn. reply is borrowed, and NULL unless fate is
 * CONN_ANSWERED. */
struct asked {
	void (*fn)(const struct asked *a, enum conn_fate fate, const struct redisReply *reply);
	void *owner;
	redis_cb cb;             /* on whose behalf, or NULL */
	void *ctx;
	struct command *command; /* or NULL */
	const char *name;        /* the command, for the log: a string constant */
};

struct conn_options {
	const char *host;        /* NULL for a unix socket */
	int         port;
	const char *unix_path;   /* NULL for TCP */
	const char *user;        /* "" = default user */
	const char *password;    /* "" = no AUTH */
	int         db;
	int         timeout_ms;  /* for one command, and for connecting with its handshake */
	int         max_pending; /* commands in flight */
	/* NULL = none; must live as long. The host's name or address is verified */
	struct tls *tls;
	/* "commands", "invalidation": a string constant, for the log and for CLIENT SETNAME */
	const char *purpose;
	/* greeted, or lost after that; neither from conn_new nor from conn_free */
	void      (*on_state)(void *ctx, bool up);
	/* NULL, or takes ["message", channel, payload]; borrowed */
	void      (*on_push)(void *ctx, const struct redisReply *message);
	/* after conn_free, once nothing of it is on the stack: its owner's memory may go too */
	void      (*on_gone)(void *ctx);
	void       *ctx;
};

/* copies o; starts to connect */
struct conn *conn_new(struct loop *l, const struct conn_options *o);
void conn_free(struct conn *c);       /* askers are told CONN_LOST before it returns */
bool conn_is_up(const struct conn *c); /* greeted, and nothing overdue */
bool conn_has_room(const struct conn *c, size_t bytes);
/* its text was sent since the connection was made; script < 64 */
bool conn_knows(const struct conn *c, unsigned script);
void conn_learns(struct conn *c, unsigned script, bool known);
const char *conn_address(const struct conn *c);
const char *conn_trouble(const struct conn *c); /* why it is not right, or "" */

/* false: it is not up or has no room, and a is never told. argv is copied; argvlen NULL = strlen.
 */
bool conn_send(struct conn *c, int argc, const char *const *argv, const size_t *argvlen,
	const struct asked *a);
/* As conn_send: two words (or none: word1 is NULL), then argc words that request_words has
 * written already. */
bool conn_send_encoded(struct conn *c, const char *word1, const char *word2, int argc,
	const char *bytes, size_t len, const struct asked *a);
#define CONN_SEND(c, a, ...) \
	conn_send(c, (int)NELEM(((const char *const[]){__VA_ARGS__})), \
		(const char *const[]){__VA_ARGS__}, NULL, a)

/* while one is told: it is the asker's, who frees it by reply_free */
void conn_keep_reply(struct conn *c);
void conn_drop(struct conn *c, const char *why);   /* closes it: a new one is made soon */
/* what we reached is what we looked for: past trouble is forgotten */
void conn_is_right(struct conn *c);
/* what we reached will not do: tries again after a second */
void conn_reject(struct conn *c, enum log_level level, const char *why);

#endif
