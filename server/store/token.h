/* clang-format off */
/* One access_token of each app in Redis, for all processes and machines; who is renewing it, and
 * what came of that.
 *
 *   <prefix>t:{<appid>}         22 characters of the token's SHA-256, then the token, encrypted;
 *                               expires with the token
 *   <prefix>t:{<appid>}:lock    who is renewing it; or, for a second, why that failed: !outcome or
 *                               !outcome:errcode
 *   <prefix>t:{<appid>}:bad     the SHA-256 of the token that a caller last reported as invalid;
 *                               for five minutes
 *   <prefix>t:{<appid>}:asked   WeChat was asked about a reported token in the last ten seconds
 *   <prefix>t:{<appid>}:forced  when renewals were forced, the newest first; for a day
 *
 * A lock expires with its holder's time limit, so it does not outlive a holder that has crashed. */
/* clang-format on */
#ifndef STORE_TOKEN_H
#define STORE_TOKEN_H

#include <stdbool.h>
#include <stdint.h>

#include "common/outcome.h"
#include "io/redis.h"
#include "store/seal.h"

enum {
	/* renewed from here on: WeChat gives a new one in the last 300 s, and both work then */
	TOKEN_AHEAD_MS = 290 * 1000,
	TOKEN_FORCE_PAUSE_MS = 30000,   /* WeChat's limits on force_refresh: 30 s apart, */
	TOKEN_FORCE_DAY = 20,           /* 20 a day */
};

struct tokens;

/* copies the prefix */
struct tokens *tokens_new(struct redis *r, const char *key_prefix, const struct seal *seal);
void tokens_free(struct tokens *t); /* after redis_free */

struct token_report { /* what a caller says of a token */
	const char *token;     /* NULL = nothing */
	/* it must not be used any more. Else: WeChat called it stale, which may have another cause
	 */
	bool        drop;
};

struct token_look {
	const char *token;     /* one that lives; or NULL */
	int64_t  left_ms;
	/* the lock is the caller's now: it must renew, and say what came of it (token_save,
	 * token_fail) */
	bool     ours;
	enum outcome failed;   /* OK, or how another's renewal failed a moment ago */
	int      errcode;      /* what WeChat gave with that, or 0 */
};

/* Looks for a token. Takes the lock when nobody has it and there is none to give, one that ends
 * soon, one that is to be dropped, or one that is doubted and that WeChat was not asked about in
 * the last ten seconds. No report deletes a token: it stays until token_save brings another, so
 * that one caller's trouble is not everybody's. holder: any text of the caller's own. */
/* NULL unless OK; borrowed */
typedef void (*token_look_cb)(void *ctx, enum outcome oc, const struct token_look *look);
void token_look(struct tokens *t, const char *appid, const struct token_report *report,
	const char *holder, int64_t lock_ms, token_look_cb cb, void *ctx);

/* The holder's renewal brought this one. dead: it is the one that was to be dropped: not kept, the
 * lock stays, and it must be forced. */
typedef void (*token_save_cb)(void *ctx, enum outcome oc, bool dead);
void token_save(struct tokens *t, const char *appid, const char *holder, const char *token,
	int64_t expires_in_s, token_save_cb cb, void *ctx);

/* The holder's renewal failed: those who wait are told so for a second, and the token there was
 * stays. */
void token_fail(
	struct tokens *t, const char *appid, const char *holder, enum outcome why, int errcode);

/* May a renewal be forced? wait_ms 0: yes, and it is counted; else when it may. */
typedef void (*token_force_cb)(void *ctx, enum outcome oc, int64_t wait_ms);
void token_force(struct tokens *t, const char *appid, token_force_cb cb, void *ctx);

#endif
