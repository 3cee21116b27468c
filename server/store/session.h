/* clang-format off */
/* Sessions in Redis.
 *
 * A third_session, or token, is what the mini program holds: 32 bytes, written as 43 characters.
 * The names of the Redis keys do not contain the token: the <id> in them is made from its SHA-256.
 * A claim, by which a login reserves its code (store/code.h), contains the token, encrypted under a
 * key made from that code. Redis never gets the code.
 *
 * <prefix> is redis.key_prefix. The braces are part of the names: Redis Cluster chooses the slot by
 * what is between them.
 *
 *   <prefix>s:{<tag>}:<id>      a session. The key expires when the session does. If the session
 *                               is ended earlier, the value becomes the reason ("revoked", for
 *                               example), and the key stays until the session would have expired
 *   <prefix>s:{<tag>}:!<id>     a mark, written when no renewal can move the session's end any
 *                               more: it will end because of max_age, not because it was unused
 *                               for ttl. The mark stays longer than the session: if session_get
 *                               finds only the mark, it gives "expired"; if it finds neither,
 *                               "unknown"
 *   <prefix>u:{<tag>}           index: the sessions of all users with this tag
 *   <prefix>m:{<tag>}:<user>    this user is being erased. Lasts for SESSION_ERASING_MS at most
 *   <prefix>b:{<tag>}:<user>    this user is blocked. The value is the Unix second at which the
 *                               block ends; 0: only an unblock ends it. It is a copy: it expires
 *                               after max_age plus one day, and is written again regularly
 *                               (session_block)
 *
 *   <id>     20 characters: the first 120 bits of SHA-256(token)
 *   <tag>    3 characters: the first 16 bits of SHA-256(appid:openid). These 16 bits are also the
 *            first two bytes of the token, so the key can be found from the token alone; the other
 *            30 bytes of the token are random
 *   <user>   16 hex digits: the first 64 bits of SHA-1(appid:openid). Lua in Redis has a function
 *            for SHA-1, and none for SHA-256
 *
 * All keys of a user have the same tag, so they are in one slot of Redis Cluster, and one Lua
 * script can change them together. session_create.lua describes the values.
 *
 * All times are by Redis' clock (TTL and TIME), not by the clock of this machine.
 *
 * "Borrowed" means: valid only during the callback. Copy what you keep. */
/* clang-format on */
#ifndef STORE_SESSION_H
#define STORE_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/arena.h"
#include "common/outcome.h"
#include "io/redis.h"

#define TOKEN_LEN      43 /* third_session: 32 bytes in base64url */
/* The public id of a session, for lists of sessions and for ending one of them. It is not the
 * token, and the token cannot be computed from it. */
#define SESSION_ID_LEN 20

struct sessions;
struct cache;
struct seal;

enum {
	SESSION_LIST_MAX = 1000,     /* sessions that session_list gives */
	SESSION_PER_USER_MAX = 1000, /* sessions of one user if max_per_user is 0 */
	SESSION_KEYS_MAX = 2,        /* WeChat session_keys kept per user: the two newest */
};

struct sessions_options {
	const char *key_prefix;
	int64_t ttl_ms, max_age_ms;
	/* redis.timeout. If more than this has passed between the request to Redis and the use of
	 * its response (the process was stopped, for example), the session may have ended since.
	 * The response is dropped, and Redis is asked again */
	int64_t timeout_ms;
	int     max_per_user;        /* 0 = SESSION_PER_USER_MAX */
	const struct seal *seal;     /* encrypts session_key; free it after sessions_free */
	struct cache *cache;         /* NULL = no cache */
};

struct session {
	/* unionid: from the user's latest login in which WeChat gave one; "" if it never did */
	const char *appid, *openid, *unionid;
	int64_t created_at;                   /* Unix seconds, by Redis' clock */
	int64_t created_ms;                   /* the same in milliseconds */
	int64_t expires_in_s;                 /* seconds until it expires if it is not renewed */
};

struct sessions *sessions_new(struct redis *r, const struct sessions_options *o); /* copies o */
/* Call it after redis_free and before cache_free. redis_free still runs the callbacks of the calls
 * to this module that have not finished. */
void sessions_free(struct sessions *s);

/* Puts "<prefix>s:" into out: the names of all session keys in Redis begin with it. (This is not
 * about WeChat's session_key.) The cache asks Redis to report every change of these keys. */
void session_key_prefix(char out[128], const char *key_prefix);

/* Well-formed? A token is 43 characters of base64url: 258 bits for 32 bytes, so the last two bits
 * must be 0. An id is 20 characters: 120 bits, all used. Callers reject anything else without
 * asking Redis. */
bool session_token_ok(const char *token);
bool session_id_ok(const char *id);

/* Creates a session. session_key becomes the user's newest. A unionid that is not empty becomes the
 * unionid of all sessions of the user.
 *
 * If the user now has more than max_per_user sessions, the oldest ones are ended (reason
 * "replaced"). The script that creates the session ends at most 250 of them. If more remain
 * (because max_per_user was lowered), further scripts end them, 250 each. cb is called after the
 * last one.
 *
 * OC_OK: the session is in Redis. OC_USER_BLOCKED: the user is blocked, and no session was created.
 * OC_STORE_UNAVAILABLE: Redis failed, or the user is being erased. token is borrowed. */
struct session_login { const char *appid, *openid, *unionid, *session_key, *ip, *user_agent; };
typedef void (*session_create_cb)(
	void *ctx, enum outcome oc, const char *token, int64_t expires_in_s, int64_t created_ms);
void session_create(
	struct sessions *s, const struct session_login *in, session_create_cb cb, void *ctx);

/* Looks in this process' cache only, without asking Redis. false does not mean that the session is
 * invalid: call session_get. It is also false if renew is set and a renewal is due. The strings of
 * ses are valid until the next call into this module. */
bool session_recall(struct sessions *s, const char *token, bool renew, struct session *ses);

/* Reads a session. If renew is set, it also moves the end of the session to ttl from now (at most
 * to max_age), but not more often than every ttl/10. Calls for one session at the same time share
 * one request to Redis.
 *
 * OC_OK: ses is set, reason is NULL. OC_INVALID_SESSION: ses is NULL, reason is a string constant:
 * "unknown", "expired", "logged_out", "revoked", "replaced" or "blocked". OC_STORE_UNAVAILABLE:
 * both are NULL. ses is borrowed. */
typedef void (*session_get_cb)(
	void *ctx, enum outcome oc, const struct session *ses, const char *reason);
void session_get(struct sessions *s, const char *token, bool renew, session_get_cb cb, void *ctx);

/* The session_end functions end sessions. The reason stays in Redis until the session would have
 * expired, so that session_get can give it. OC_OK also if there was no such session. After OC_OK
 * the session is refused everywhere, with one exception: another process may accept it from its
 * cache for up to CACHE_LEASE_MS. */
typedef void (*session_done_cb)(void *ctx, enum outcome oc);
void session_end(
	struct sessions *s, const char *token, const char *reason, session_done_cb cb, void *ctx);
/* Ends one session of the user, by its id (reason "revoked"). */
void session_end_id(struct sessions *s, const char *appid, const char *openid, const char *id,
	session_done_cb cb, void *ctx);
/* Ends all sessions of the user (reason "revoked"). */
void session_end_user(
	struct sessions *s, const char *appid, const char *openid, session_done_cb cb, void *ctx);

/* Erasing a user takes two calls.
 *
 * session_erase_begin refuses new sessions of the user, for SESSION_ERASING_MS at most. erased_ms
 * is Redis' time at that moment, in Unix milliseconds. The caller then deletes the user's data
 * elsewhere, such as the row in the user database.
 *
 * session_erase_end ends all sessions (reason "revoked"), deletes the session_keys with them, and
 * allows new sessions again. */
enum { SESSION_ERASING_MS = 60000 };
typedef void (*session_erasing_cb)(void *ctx, enum outcome oc, int64_t erased_ms);
void session_erase_begin(struct sessions *s, const char *appid, const char *openid,
	session_erasing_cb cb, void *ctx);
void session_erase_end(
	struct sessions *s, const char *appid, const char *openid, session_done_cb cb, void *ctx);

/* Copies a block from the user database to Redis, and ends the user's sessions (reason "blocked").
 * The block ends at until_s (Unix seconds). If until_s is 0, it lasts until session_unblock is
 * called. A blocked user gets no new sessions.
 *
 * The copy expires max_age plus one day after it was written, even if the block lasts longer. So
 * all blocks are copied again regularly, by the process that session_block_claim chooses. */
void session_block(struct sessions *s, const char *appid, const char *openid, int64_t until_s,
	session_done_cb cb, void *ctx);
void session_unblock(
	struct sessions *s, const char *appid, const char *openid, session_done_cb cb, void *ctx);
/* Chooses one process to copy all blocks to Redis. OC_OK: this process copies them now.
 * OC_OVERLOADED: another process began to do so in the last 5 s; nothing is overloaded. */
void session_block_claim(struct sessions *s, session_done_cb cb, void *ctx);

/* A user's session_keys, the newest first. Code that decrypts data or checks a signature tries them
 * in this order. n is 0 if the user has no session. keys are borrowed. */
typedef void (*session_keys_cb)(void *ctx, enum outcome oc, const char *const *keys, size_t n);
void session_keys(
	struct sessions *s, const char *appid, const char *openid, session_keys_cb cb, void *ctx);

/* A user's valid sessions, up to SESSION_LIST_MAX, the newest first. list is borrowed. */
struct session_listed {
	/* SESSION_ID_LEN characters, for session_end_id; it is not the token */
	const char *id;
	const char *ip, *user_agent; /* of the login */
	/* Unix seconds. seen_at: the login or the last renewal. The last use may be up
	 * to ttl/10 later */
	int64_t created_at, seen_at;
	int64_t expires_in_s;
};
typedef void (*session_list_cb)(
	void *ctx, enum outcome oc, const struct session_listed *list, size_t n);
void session_list(
	struct sessions *s, const char *appid, const char *openid, session_list_cb cb, void *ctx);

/* Makes the name of another key of this user, in the slot of the user's sessions, so that one
 * script can change both. kind is the letter after the prefix, such as "e" for the keys of
 * store/keycache.h. */
struct session_place {
	char key[192];   /* <prefix><kind>:{<tag>}:<user> */
	/* what the scripts about sessions take as arguments: */
	char index[144]; /* the index, <prefix>u:{<tag>} */
	char base[144];  /* the key of a session without its id, <prefix>s:{<tag>}: */
	char name[41];   /* <user>: 16 digits and NUL (the array has room for a whole SHA-1) */
};
void session_place(const struct sessions *s, const char *kind, const char *appid,
	const char *openid, struct session_place *out);

#endif
