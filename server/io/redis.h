/* The store, whatever it is made of.
 *
 * A command's callback comes exactly once, never before redis_command returns. OC_OK: reply is
 * Redis' answer, borrowed, and not an error; OC_STORE_UNAVAILABLE: not connected, timed out,
 * connection lost, queue full, or Redis said an error (reply is then NULL; the error was logged
 * once a second). What timed out may or may not have happened.
 *
 * REDIS_ONE: one server, by name. It must be a master: that is asked when connecting and four times
 * a second, and a server that is none is left (the name may lead to the new master by now).
 *
 * REDIS_SENTINEL: the master that more than half of all the sentinels name. What it answers counts
 * only while that majority is proven for a moment later than timeout_ms ago: an old master that was
 * cut off goes on answering, and must not be believed. A command that meets no master, or one that
 * is not ready, waits for at most timeout_ms after it was asked. What was sent and not answered is
 * never sent again.
 *
 * REDIS_CLUSTER: as REDIS_SENTINEL, for each slot's owner by itself; the majority is of the
 * masters. A command goes to the owner of its first key, argv[1]: the keys of one command or script
 * must be of one slot. Redirections are followed, five at most; but to a node that is still being
 * given the slot (ASK) only GET, PTTL and EXISTS are, since a script would take what is not there
 * yet for gone. */
#ifndef IO_REDIS_H
#define IO_REDIS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/outcome.h"
#include "io/loop.h"
#include "io/reply.h"

struct redis;
struct tls;

enum redis_kind { REDIS_ONE, REDIS_SENTINEL, REDIS_CLUSTER };
struct redis_host { const char *host; int port; };

struct redis_options {
	enum redis_kind kind;
	/* the server, the sentinels, or some nodes; none for a unix socket */
	const struct redis_host *hosts;
	size_t      host_count;
	const char *master_name;
	const char *sentinel_user, *sentinel_password;
	int         replicas;     /* that redis_eval_kept waits for */
	/* the server's own word is proof enough: no majority is asked for when it answers */
	bool        proof_master;
	const char *unix_path;   /* NULL for TCP */
	const char *user;        /* "" = default user */
	const char *password;    /* "" = no AUTH */
	const char *key_prefix;  /* of all our keys */
	int         db;
	int         timeout_ms;  /* for one command, and for connecting with its handshake */
	int         max_pending; /* commands in flight, and as many that wait; more are refused */
	struct tls *tls;         /* NULL = none; must live as long */
};

typedef void (*redis_cb)(void *ctx, enum outcome oc, const struct redisReply *reply);

/* copies o; starts to connect */
struct redis *redis_new(struct loop *l, const struct redis_options *o);
void redis_free(struct redis *r); /* pending callbacks get OC_STORE_UNAVAILABLE before it returns */
bool redis_is_ready(const struct redis *r); /* connected to a master, and nothing overdue */
/* The first attempt to reach it has not ended, and is not overdue. */
bool redis_is_starting(const struct redis *r);
/* of the version, 7 of 7.0.15; of several servers that of the oldest; 0 = one has not said */
int redis_major(const struct redis *r);
/* why it is not ready, in Redis' words where it has any; "" when it is */
const char *redis_trouble(const struct redis *r);

/* argv strings are copied; argvlen NULL = strlen; argv[0] is a string constant. Commands are
 * written together at the end of the loop's turn, in order. */
void redis_command(struct redis *r, int argc, const char *const *argv, const size_t *argvlen,
	redis_cb cb, void *ctx);

/* A Lua script: only text is set by its owner. */
struct redis_script {
	const char *text;
	char        hash[41]; /* Redis' name for it */
	uint8_t     number;   /* ours, from 1 on */
};

/* As redis_command: argv are the number of keys, the keys, the arguments. The text travels once on
 * each connection, then its hash does; a script that Redis has forgotten meanwhile (SCRIPT FLUSH)
 * is sent again, and runs after what was sent in between. */
void redis_eval(struct redis *r, struct redis_script *s, int argc, const char *const *argv,
	const size_t *argvlen, redis_cb cb, void *ctx);

/* As redis_eval, but OC_OK only once options.replicas replicas have what the script did (WAIT), for
 * an end that must survive the loss of the master. OC_STORE_UNAVAILABLE: it may have been done all
 * the same, and may be repeated. */
void redis_eval_kept(struct redis *r, struct redis_script *s, int argc, const char *const *argv,
	const size_t *argvlen, redis_cb cb, void *ctx);
void redis_set_replicas(struct redis *r, int replicas);

/* --- what a memory of Redis' answers needs ---
 *
 * Each server that answers is a place. Redis tells an invalidation connection of every change under
 * a prefix (server-assisted client-side caching: CLIENT TRACKING in broadcast mode, redirected to
 * the connection itself). It writes what it has to tell before it answers whoever made the change,
 * and the connection is asked for a sign of life every 50 ms: once that is answered, every change
 * acknowledged before proven_ms has been told. */
enum { REDIS_PLACES = 128 };

struct redis_place {
	uint32_t generation; /* changes when everything remembered of this place is void */
	int64_t  proven_ms;  /* by clock_ms; far in the past while nothing is proven */
};

/* changed: this key did, or may have; false: not one of the listener's, so the place is void. At
 * most one listener. The places are REDIS_PLACES, and borrowed until redis_free. */
typedef bool (*redis_changed_fn)(void *ctx, const char *key, size_t len);
const struct redis_place *redis_listen(
	struct redis *r, const char *prefix, redis_changed_fn changed, void *ctx);
unsigned redis_place_of(const struct redis *r, const char *key); /* who would answer for it now */

#endif
