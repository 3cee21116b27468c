/* What session.c (create, get, renew) and session_user.c (end, list, keys, erase, block) share. */
#ifndef STORE_SESSION_PRIVATE_H
#define STORE_SESSION_PRIVATE_H

#include "store/names.h"
#include "store/seal.h"
#include "store/session.h"

struct sessions {
	struct redis *redis;
	struct cache *cache;
	char    *prefix;
	int64_t  ttl_ms, max_age_ms, timeout_ms;
	int      max_per_user;
	const struct seal *seal;
	struct get *gets;     /* in flight and young enough to be joined, by id */
};

struct value {
	int64_t created_ms, seen_s; /* seen: at the login or the last renewal, Unix seconds too */
	const char *appid, *openid, *unionid, *ip, *user_agent;
};

/* Takes a session's value apart, in the arena; false when it is none of ours. */
bool session_value_read(struct arena *a, const char *text, size_t len, struct value *v);

/* A script's ids of what it ended or changed, from the i-th on, leave the memory. */
void session_forget_id(struct sessions *s, const char *id);
void session_forget_ids(struct sessions *s, const struct redisReply *reply, size_t i);

#endif
