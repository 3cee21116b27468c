/* clang-format off */
/* Claims: WeChat is asked about a code once, however often and to whichever process it is sent.
 *
 *   <prefix>c:<43 characters of SHA-256(appid, code)>   a claim. Its value:
 *       w<holder>    held: this login is asking WeChat
 *       s<sealed>    settled: the token of the session, encrypted
 *       e<refusal>   settled: WeChat's final refusal
 *
 * The login that claims the key asks WeChat. Others with the same code read the key again until it
 * is settled. A claim that is not settled expires after hold_ms. The token is encrypted under a key
 * made from the code itself, which is never sent to Redis. */
/* clang-format on */
#ifndef STORE_CODE_H
#define STORE_CODE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/outcome.h"
#include "io/redis.h"

struct codes;

struct codes_options {
	const char *key_prefix;
	/* how long a repeat gets the result; 0: only a repeat that began before it was settled */
	int64_t replay_window_ms;
};

struct codes *codes_new(struct redis *r, const struct codes_options *o); /* copies o */
void codes_free(struct codes *cs); /* after redis_free */

/* Embedded by the login, filled by code_claim_init. It has what is made from the code, not the code
 * itself. */
struct code_claim {
	char    key[128];
	char    holder[18];
	uint8_t seal_key[32];
	uint8_t nonce_hash[32]; /* zeros when there is no nonce */
	bool    looked; /* code_claim_try was called before: a result found now is newer */
};

enum claim_state {
	CLAIM_MINE,    /* nobody held it: ask WeChat, then settle or drop it */
	CLAIM_BUSY,    /* another login is asking WeChat: try again soon */
	CLAIM_SESSION, /* settled with a session, and the nonce is the same: token is set */
	/* settled with a session that this caller must not get: its nonce differs, or
	 * replay_window_ms is 0 and the claim was settled before this caller began. (When a window
	 * that is not 0 is over, the key is gone: CLAIM_MINE) */
	CLAIM_SPENT,
	CLAIM_REFUSED, /* WeChat's refusal is final: refused and errcode are set */
};

struct claim_answer {
	enum claim_state state;
	const char  *token;
	enum outcome refused;
	int          errcode;
};

/* nonce NULL or "" = none. */
void code_claim_init(const struct codes *cs, struct code_claim *c, const char *appid,
	const char *code, const char *nonce);

/* OC_OK with ans, or OC_STORE_UNAVAILABLE with NULL. hold_ms: when a claim that is not settled
 * expires. c must stay valid until the callback; ans is valid only during it. */
typedef void (*code_claim_cb)(void *ctx, enum outcome oc, const struct claim_answer *ans);
void code_claim_try(
	struct codes *cs, struct code_claim *c, int64_t hold_ms, code_claim_cb cb, void *ctx);

/* Settle or drop our claim. There is no callback. If Redis cannot be reached, the claim expires by
 * itself; until then a repeat gets CLAIM_BUSY. */
void code_settle_session(struct codes *cs, const struct code_claim *c, const char *token);
void code_settle_refusal(
	struct codes *cs, const struct code_claim *c, enum outcome oc, int errcode);
void code_drop(struct codes *cs, const struct code_claim *c); /* the next may claim it */

#endif
