/* The keeper of access_tokens: gives each app's one token to whoever needs it, and sees that one
 * process at a time renews it.
 *
 * Callers of one process share an errand; those of others wait for what the holder of the lock in
 * Redis brings. A token that ends soon is given while its renewal runs behind the caller's back. */
#ifndef API_KEEPER_H
#define API_KEEPER_H

#include <stdint.h>

#include "common/arena.h"
#include "io/loop.h"
#include "store/token.h"
#include "wechat/wechat.h"

struct keeper;

struct keeper *keeper_new(
	struct loop *l, struct tokens *t, struct wechat *wx, int64_t wechat_timeout_ms);
/* before wechat_free: who still waits is told WECHAT_UNAVAILABLE, lest it call WeChat with what it
 * waited for */
void keeper_close(struct keeper *k);
/* after redis_free and wechat_free: by then every callback has come */
void keeper_free(struct keeper *k);

/* An app that is served: /metrics names it before its token is needed. */
void keeper_show(const char *appid);

struct keeper_answer {
	enum outcome oc;
	const char  *token;         /* NULL unless OK; borrowed */
	int64_t      expires_in_s;
	int          errcode;       /* why not, in WeChat's words; 0 when it gave none */
	int          retry_after_s; /* for Retry-After, where it is more than the outcome says */
};

/* The token there is, or a new one. OK; or STORE_UNAVAILABLE, WECHAT_UNAVAILABLE, WECHAT_CONFIG,
 * RATE_LIMITED, ... */
typedef void (*keeper_cb)(void *ctx, const struct keeper_answer *ans);
void keeper_get(struct keeper *k, const struct wechat_app *app, keeper_cb cb, void *ctx);

/* Another than bad, which must not be used any more: if nothing else helps a renewal is forced,
 * within WeChat's limits. Where those forbid it this caller has none (WECHAT_UNAVAILABLE, with
 * retry_after_s), and the others keep the one there is. */
void keeper_drop(
	struct keeper *k, const struct wechat_app *app, const char *bad, keeper_cb cb, void *ctx);

/* A call to WeChat that needs the token, and is made once more when WeChat says that the token is
 * stale: with the one that WeChat names then. It may be the same, since that error has other
 * causes; WeChat is not asked more than once in ten seconds. Embedded by who makes it, and filled
 * in; lives until the end. keeper_use: exactly one of call and fail comes, never before it returns.
 */
struct keeper_use {
	struct keeper *keeper;
	struct arena  *arena;                          /* for the token; lives as long */
	const struct wechat_app *app;
	void (*call)(void *ctx, const char *token);    /* make the call */
	void (*fail)(void *ctx, const struct keeper_answer *why); /* there is no token to be had */
	void          *ctx;
	/* keeper's own: */
	const char    *token;
	bool           again;
};
void keeper_use(struct keeper_use *u);
/* true: the token was stale; call or fail comes again */
bool keeper_use_again(struct keeper_use *u, int errcode);

#endif
