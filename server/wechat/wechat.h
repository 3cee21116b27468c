/* The gate to WeChat: makes the call, reads the reply, turns errcode into an outcome (one table, wechat.c).
 *
 * Rules are WeChat's code2Session page (developers.weixin.qq.com/miniprogram/dev/server/API/user-login/api_code2session):
 * HTTP 200 and text/plain for success and failure alike, no errcode on success, a code good once and for five minutes. So a
 * call is repeated only when no byte of it left (another host is tried) or WeChat said -1. */
#ifndef WECHAT_WECHAT_H
#define WECHAT_WECHAT_H

#include <stddef.h>
#include <stdint.h>

#include "common/arena.h"
#include "common/outcome.h"
#include "io/fetch.h"

struct wechat;

struct wechat_options {
	const char *const *base_urls; /* the first is asked first; the others when it cannot be reached */
	size_t  base_url_count;
	int64_t timeout_ms;           /* for one call, retries included */
};

struct wechat_app {
	const char *appid;
	const char *secrets[2]; /* [1] may be NULL: tried when WeChat refuses [0] (40125) */
};

struct wechat_session {
	const char *openid;
	const char *session_key; /* base64 text of 16 bytes, as WeChat gave it */
	const char *unionid;     /* "" when WeChat gave none */
	int         errcode;     /* WeChat's number when it refused, else 0 */
};

/* Outcomes: OK, INVALID_CODE, USER_BLOCKED, RATE_LIMITED, WECHAT_ERROR, WECHAT_CONFIG, WECHAT_UNAVAILABLE, OVERLOADED.
 * ws is never NULL; it is borrowed, and holds only errcode unless OK. */
typedef void (*wechat_session_cb)(void *ctx, enum outcome oc, const struct wechat_session *ws);

struct wechat *wechat_new(struct loop *l, struct fetch *f, const struct wechat_options *o); /* copies o */
void wechat_free(struct wechat *wx); /* after fetch_free */
/* app and code are copied. timeout_ms: what the caller has left, at most the options' own. */
void wechat_code2session(struct wechat *wx, const struct wechat_app *app, const char *code, int64_t timeout_ms,
                         wechat_session_cb cb, void *ctx);

/* The table's row for an errcode, for tests and documents. */
enum outcome wechat_outcome(int errcode);

#endif
