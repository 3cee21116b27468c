/* Spending a code once, whoever sends it how often: Redis arbitrates between requests, processes
 * and machines.
 *
 *   {prefix}c:<43 characters of SHA-256(appid, code)>   "w<holder>" while somebody asks WeChat,
 * then "s<sealed>" or "e<refusal>"
 *
 * Who claims the key asks WeChat; the others look again until it is settled. A claim ends with its
 * holder's time limit. What lets a repeat have its token back is sealed under a key made from the
 * code itself, which Redis never sees. */
#ifndef STORE_CODE_H
#define STORE_CODE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/outcome.h"
#include "io/redis.h"

struct codes;

struct codes_options {
	const char *key_prefix;
	/* how long an answer is repeated; 0: only to those who asked meanwhile */
	int64_t replay_window_ms;
};

struct codes *codes_new(struct redis *r, const struct codes_options *o); /* copies o */
void codes_free(struct codes *cs); /* after redis_free */

struct code_claim { /* embedded by the login, filled by code_claim_init; holds what the code can be
		       found by, not the code */
	char    key[128];
	char    holder[18];
	uint8_t seal_key[32];
	uint8_t nonce_hash[32]; /* zeros when there is no nonce */
	bool    looked; /* has tried before: what it finds now was settled meanwhile */
};

enum claim_state {
	CLAIM_MINE,    /* nobody had it: ask WeChat, then settle or drop */
	CLAIM_BUSY,    /* somebody is asking: look again soon */
	CLAIM_SESSION, /* it became a session: token is set, and the nonce was right */
	CLAIM_SPENT,   /* it became a session that this caller must not have: another nonce, or past
			  the window */
	CLAIM_REFUSED, /* WeChat refused it for good: refused and errcode are set */
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

/* OC_OK with ans, or OC_STORE_UNAVAILABLE with NULL. hold_ms: how long the claim may stand
 * unsettled. c must live until the callback; ans is borrowed. */
typedef void (*code_claim_cb)(void *ctx, enum outcome oc, const struct claim_answer *ans);
void code_claim_try(
	struct codes *cs, struct code_claim *c, int64_t hold_ms, code_claim_cb cb, void *ctx);

/* What came of our claim. Nobody is called back: where Redis does not hear of it the claim ends by
 * itself, and until it has heard a repeat is told to wait. */
void code_settle_session(struct codes *cs, const struct code_claim *c, const char *token);
void code_settle_refusal(
	struct codes *cs, const struct code_claim *c, enum outcome oc, int errcode);
void code_drop(struct codes *cs, const struct code_claim *c); /* undecided: the next may claim it */

#endif
