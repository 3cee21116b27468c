/* Sessions this process may answer for without asking Redis.
 *
 * Redis sends every change of a session key to a connection of ours (server-assisted client-side caching: CLIENT TRACKING in
 * broadcast mode, redirected to the connection itself). Redis writes what it has to tell us before it answers whoever made the
 * change, and the connection is asked for a sign of life every 50 ms: once that is answered, every change acknowledged before the
 * question has been applied here. A session is answered from memory only while the last answered question is younger than
 * CACHE_LEASE_MS, so no ended session outlives that, whatever the network does. Lost connection, FLUSHALL: the memory is empty at once.
 *
 * Bounded: a table of a fixed number of entries, CACHE_ENTRY_BYTES each; the one not used for longest makes room, roughly (CLOCK).
 * A cache of NULL remembers nothing. */
#ifndef STORE_CACHE_H
#define STORE_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "io/redis.h"

enum {
	CACHE_ID_LEN = 15,      /* the first 120 bits of SHA-256(token) */
	CACHE_LEASE_MS = 200,
	CACHE_KEEP_MS = 60000,  /* nothing is remembered for longer */
	CACHE_ENTRY_BYTES = 168, /* what one entry costs at most, its share of the index included */
};

struct cache;

struct cached {
	const char *appid, *openid, *unionid;
	int64_t created_at;        /* Unix seconds */
	int64_t end_ms, renew_ms;  /* by clock_ms: when it ends, and from when on a use should renew it */
};

/* conn: how to reach Redis; its on_ members are ours. key_prefix: of session keys, whose last 20 characters are the id in base64url. */
struct cache *cache_new(struct loop *l, const struct redis_options *conn, const char *key_prefix, size_t entries);
void cache_free(struct cache *c);

/* true: what is known of a session that lives. Its strings are borrowed until the next call into this module. */
bool cache_find(struct cache *c, const uint8_t id[CACHE_ID_LEN], struct cached *out);

/* What is read from Redis may be remembered if nothing of the kind changed since before the question was sent: take a ticket, ask,
 * then keep the answer under it. */
uint64_t cache_ticket(const struct cache *c, const uint8_t id[CACHE_ID_LEN]);
void cache_keep(struct cache *c, const uint8_t id[CACHE_ID_LEN], uint64_t ticket, const struct cached *what);

/* We ended this one ourselves: forget it before saying so, since Redis' word comes by another connection. */
void cache_drop(struct cache *c, const uint8_t id[CACHE_ID_LEN]);

#endif
