/* Sessions in Redis. Redis never sees a third_session: keys are made from its SHA-256.
 *
 *   {prefix}s:{tag}:<22 characters of SHA-256(token)>       a session, with its TTL
 *   {prefix}u:{tag}:<24 characters of SHA-1(appid:openid)>  a user: newest and second session_key, and the ids of its sessions
 *
 * tag is the first 16 bits of SHA-256(appid, openid), carried by the token's first two bytes: a user's keys are one slot of Redis
 * Cluster, and each change of them is one script. (SHA-1 because Redis' scripts can make it; it only shortens a name.) Ages are counted by Redis' clock (TTL and TIME), never by ours. */
#ifndef STORE_SESSION_H
#define STORE_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/arena.h"
#include "common/outcome.h"
#include "io/redis.h"

#define TOKEN_LEN   43 /* third_session: 32 bytes in base64url */
#define SESSION_ID_LEN 22 /* names a session to its user's operators; not the token, and the token cannot be made from it */

struct sessions;

struct sessions_options {
	const char *key_prefix;
	int64_t ttl_ms, max_age_ms;
	int     max_per_user;        /* 0 = any number */
	const uint8_t (*keys)[32];   /* session_key is sealed under the first; all open. key_count 0: kept as it came */
	size_t  key_count;
};

struct session {
	const char *appid, *openid, *unionid; /* unionid "" when unknown */
	const char *ip, *user_agent;          /* of the login */
	int64_t created_at, seen_at;          /* Unix seconds, by Redis' clock; seen_at in steps of a tenth of ttl */
	int64_t expires_in_s;                 /* if not used again */
	char    id[SESSION_ID_LEN + 1];
};

struct sessions *sessions_new(struct redis *r, const struct sessions_options *o); /* copies o */
void sessions_free(struct sessions *s); /* after redis_free */

/* Well-formed? 43 characters of canonical base64url. What is not never reaches Redis. */
bool session_token_ok(const char *token);

/* Creates a session; stores session_key with the user; ends the oldest past max_per_user (reason "replaced").
 * OC_OK: it is in Redis. token is borrowed. */
struct session_login { const char *appid, *openid, *unionid, *session_key, *ip, *user_agent; };
typedef void (*session_create_cb)(void *ctx, enum outcome oc, const char *token, int64_t expires_in_s);
void session_create(struct sessions *s, const struct session_login *in, session_create_cb cb, void *ctx);

/* Reads a session, and renews it (unless renew is false) at most once in a tenth of ttl. OC_OK: ses is set; OC_INVALID_SESSION: reason says why
 * ("unknown", "expired", "logged_out", "revoked", "replaced", a string constant); OC_STORE_UNAVAILABLE. ses is borrowed. */
typedef void (*session_get_cb)(void *ctx, enum outcome oc, const struct session *ses, const char *reason);
void session_get(struct sessions *s, const char *token, bool renew, session_get_cb cb, void *ctx);

/* Ends a session, leaving the reason for as long as it would have lived. OK also when there was none. */
typedef void (*session_done_cb)(void *ctx, enum outcome oc);
void session_end(struct sessions *s, const char *token, const char *reason, session_done_cb cb, void *ctx);

#endif
