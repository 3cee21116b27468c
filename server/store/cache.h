/* Sessions this process may answer for without asking Redis.
 *
 * Redis tells of every change of a session key (io/redis.h: redis_listen). A session is answered
 * from memory only while it is proven that every change acknowledged up to CACHE_LEASE_MS ago has
 * been applied here, so no ended session outlives that, whatever the network does. A lost
 * connection, FLUSHALL, another master: what was remembered of that place is void at once.
 *
 * Bounded: a table of a fixed number of entries, CACHE_ENTRY_BYTES each; the one not used for
 * longest makes room, roughly (CLOCK). A cache of NULL remembers nothing. */
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
	int64_t created_at;        /* as its owner counts */
	/* by clock_ms: when it ends, and from when on a use should renew it */
	int64_t end_ms, renew_ms;
};

/* key_prefix: of session keys, whose last 20 characters are the id in base64url. timeout_ms:
 * Redis'. */
struct cache *cache_new(struct redis *r, const char *key_prefix, size_t entries, int timeout_ms);
void cache_free(struct cache *c); /* after redis_free */

/* true: what is known of a session that lives. Its strings are borrowed until the next call into
 * this module. */
bool cache_find(struct cache *c, const uint8_t id[CACHE_ID_LEN], struct cached *out);

/* What is read from Redis may be remembered if nothing of the kind changed since before the
 * question was sent: take a ticket, ask, then keep the answer under it. */
struct cache_ticket { unsigned place; uint32_t generation, changes; };
struct cache_ticket cache_ticket(
	const struct cache *c, const uint8_t id[CACHE_ID_LEN], const char *key);
void cache_keep(struct cache *c, const uint8_t id[CACHE_ID_LEN], const struct cache_ticket *t,
	const struct cached *what);

/* We ended this one ourselves: forget it before saying so, since Redis' word comes by another
 * connection. */
void cache_drop(struct cache *c, const uint8_t id[CACHE_ID_LEN]);

#endif
