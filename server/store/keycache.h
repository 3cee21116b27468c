/* A user's encryption keys, as WeChat's getuserencryptkey gave them, until the newest of them ends.
 *
 *   {prefix}e:{tag}:<user>   the keys, sealed, with a TTL
 *
 * It lies in the user's slot, so that the script that erases a user can delete it with the rest.
 * It is written only while a session of the user lives: an erasure that came first stays
 * complete. */
#ifndef STORE_KEYCACHE_H
#define STORE_KEYCACHE_H

#include <stdint.h>

#include "common/outcome.h"
#include "io/redis.h"
#include "store/seal.h"
#include "store/session.h"

struct keycache;

/* What it is given must live as long. */
struct keycache *keycache_new(
	struct redis *r, const struct sessions *s, const struct seal *seal);
void keycache_free(struct keycache *kc); /* after redis_free; NULL is fine */

/* OC_OK: text is what was put, with its age; or NULL when there is none. Borrowed. Or
 * OC_STORE_UNAVAILABLE. */
typedef void (*keycache_cb)(void *ctx, enum outcome oc, const char *text, int64_t age_ms);
void keycache_get(struct keycache *kc, const char *appid, const char *openid, keycache_cb cb,
	void *ctx);

/* Nobody is called back: what Redis does not keep is asked for again. */
void keycache_put(struct keycache *kc, const char *appid, const char *openid, const char *text,
	int64_t ttl_ms);

#endif
