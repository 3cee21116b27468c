/* Sessions in Redis. Redis never sees a third_session: keys are made from its SHA-256.
 *
 *   {prefix}s:{tag}:<20 characters: 120 bits of SHA-256(token)>     a session, with its TTL
 *   {prefix}s:{tag}:!<the same>                                     that it will have expired, or
 * has, by max_age {prefix}u:{tag}                                                 which sessions
 * have the users of this tag (session_create.lua) {prefix}m:{tag}:<user>   the user is being erased
 * (a minute at most) {prefix}b:{tag}:<user>   the user is blocked until then (Unix seconds; 0 =
 * until it is lifted)
 *
 * tag is the first 16 bits of SHA-256(appid:openid), carried by the token's first two bytes: what a
 * user has is in one slot of Redis Cluster, and each change of it is one script. Within its tag a
 * user goes by 64 bits of SHA-1(appid:openid), SHA-1 because Redis' scripts can make it. Ages are
 * counted by Redis' clock (TTL and TIME), never by ours. */
#ifndef STORE_SESSION_H
#define STORE_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/arena.h"
#include "common/outcome.h"
#include "io/redis.h"

#define TOKEN_LEN   43 /* third_session: 32 bytes in base64url */
#define SESSION_ID_LEN \
	20 /* names a session to its user's operators; not the token, and the token cannot be made \
	      from it */

struct sessions;
struct cache;
struct seal;

enum { SESSION_LIST_MAX = 1000, SESSION_PER_USER_MAX = 1000, SESSION_KEYS_MAX = 2 };

struct sessions_options {
	const char *key_prefix;
	int64_t ttl_ms, max_age_ms;
	/* redis.timeout: an answer of Redis that was asked for longer ago is not told, but asked
	 * for again */
	int64_t timeout_ms;
	int     max_per_user;        /* 0 = SESSION_PER_USER_MAX */
	const struct seal *seal;     /* for session_key; must live as long */
	struct cache *cache;         /* NULL = none */
};

struct session {
	/* unionid: of the user's newest login that brought one; "" when none did */
	const char *appid, *openid, *unionid;
	int64_t created_at;                   /* Unix seconds, by Redis' clock */
	int64_t created_ms;                   /* the same, finer */
	int64_t expires_in_s;                 /* if not used again */
};

struct sessions *sessions_new(struct redis *r, const struct sessions_options *o); /* copies o */
void sessions_free(struct sessions *s); /* after redis_free, before cache_free */

/* What a cache needs to be told of: the prefix that all sessions' keys have, in at most 128 bytes.
 */
void session_key_prefix(char out[128], const char *key_prefix);

/* Well-formed? 43 characters of canonical base64url. What is not never reaches Redis. */
bool session_token_ok(const char *token);
bool session_id_ok(const char *id);

/* Creates a session; session_key is the user's newest from now on, and unionid, unless it is empty,
 * that of all the user's sessions; ends the oldest past max_per_user (reason "replaced"): 250 of
 * them with the session, and more, which only a lowered max_per_user can bring, 250 at a time; past
 * some 2,000 it calls back first. OC_OK: it is in Redis. OC_USER_BLOCKED; OC_STORE_UNAVAILABLE,
 * also while the user is being erased. token is borrowed. */
struct session_login { const char *appid, *openid, *unionid, *session_key, *ip, *user_agent; };
typedef void (*session_create_cb)(
	void *ctx, enum outcome oc, const char *token, int64_t expires_in_s, int64_t created_ms);
void session_create(
	struct sessions *s, const struct session_login *in, session_create_cb cb, void *ctx);

/* From memory, at once and for nothing: false says only that Redis must be asked (session_get), for
 * a renewal too if one is due. Its strings are borrowed until the next call into this module. */
bool session_recall(struct sessions *s, const char *token, bool renew, struct session *ses);

/* Reads a session, and renews it (unless renew is false) at most once in a tenth of ttl.
 * Simultaneous questions about one session are one question to Redis. OC_OK: ses is set;
 * OC_INVALID_SESSION: reason says why ("unknown", "expired", "logged_out", "revoked", "replaced",
 * "blocked", a string constant); OC_STORE_UNAVAILABLE. ses is borrowed. */
typedef void (*session_get_cb)(
	void *ctx, enum outcome oc, const struct session *ses, const char *reason);
void session_get(struct sessions *s, const char *token, bool renew, session_get_cb cb, void *ctx);

/* The ends below leave the reason ("logged_out", "revoked") for as long as the session would have
 * lived. OK also when there was none. Once they have called back with OK nobody is told that it
 * lives, but for CACHE_LEASE_MS of another process' memory. */
typedef void (*session_done_cb)(void *ctx, enum outcome oc);
void session_end(
	struct sessions *s, const char *token, const char *reason, session_done_cb cb, void *ctx);
/* revoked */
void session_end_id(struct sessions *s, const char *appid, const char *openid, const char *id,
	session_done_cb cb, void *ctx);
/* all, revoked */
void session_end_user(
	struct sessions *s, const char *appid, const char *openid, session_done_cb cb, void *ctx);

/* Erasing a user: begin keeps new sessions away, for SESSION_ERASING_MS at most, and tells now by
 * Redis' clock. In between others delete what they hold. end ends all sessions (revoked), which
 * takes the session_keys with them, and lets new ones be. */
enum { SESSION_ERASING_MS = 60000 };
typedef void (*session_erasing_cb)(void *ctx, enum outcome oc, int64_t erased_ms);
void session_erase_begin(struct sessions *s, const char *appid, const char *openid,
	session_erasing_cb cb, void *ctx);
void session_erase_end(
	struct sessions *s, const char *appid, const char *openid, session_done_cb cb, void *ctx);

/* A block, as the user database has it: no new sessions until then (Unix seconds; 0: until it is
 * lifted), and those that there are end (blocked). What Redis knows of it ends by itself a day
 * after the oldest session could, so it is told again (session_block_claim says by whom). */
void session_block(struct sessions *s, const char *appid, const char *openid, int64_t until_s,
	session_done_cb cb, void *ctx);
void session_unblock(
	struct sessions *s, const char *appid, const char *openid, session_done_cb cb, void *ctx);
/* OC_OK: it is ours to tell Redis of all blocks; OC_OVERLOADED: another process has just begun to.
 */
void session_block_claim(struct sessions *s, session_done_cb cb, void *ctx);

/* A user's session_keys, the newest first: whatever opens or checks data tries them in this order.
 * None when no session lives. Borrowed. */
typedef void (*session_keys_cb)(void *ctx, enum outcome oc, const char *const *keys, size_t n);
void session_keys(
	struct sessions *s, const char *appid, const char *openid, session_keys_cb cb, void *ctx);

/* A user's living sessions, up to SESSION_LIST_MAX, the newest first. Borrowed. */
struct session_listed {
	/* SESSION_ID_LEN characters; ends the session, but is not its token */
	const char *id;
	const char *ip, *user_agent; /* of the login */
	int64_t created_at, seen_at; /* Unix seconds; seen_at moves in steps of a tenth of ttl */
	int64_t expires_in_s;
};
typedef void (*session_list_cb)(
	void *ctx, enum outcome oc, const struct session_listed *list, size_t n);
void session_list(
	struct sessions *s, const char *appid, const char *openid, session_list_cb cb, void *ctx);

/* Where a user's other keys lie in Redis: beside the sessions, in the user's slot, so that one
 * script may change both. key is {prefix}<kind>:{tag}:<user>; the rest is what scripts about
 * sessions take. */
struct session_place {
	char key[192], index[144], base[144];
	char name[41];
};
void session_place(const struct sessions *s, const char *kind, const char *appid,
	const char *openid, struct session_place *out);

#endif
