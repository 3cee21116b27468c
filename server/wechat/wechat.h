/* The gate to WeChat: makes the calls, reads the replies, turns errcode into an outcome (errcode.c,
 * one table).
 *
 * Rules are those of WeChat's pages (developers.weixin.qq.com/miniprogram/dev/server/API/): HTTP
 * 200 and text/plain for success and failure alike, errcode absent or 0 on success. A code is good
 * once and for five minutes, so a call that spends one is repeated only when no byte of it left
 * (another host is tried) or WeChat said -1. Calls that may be repeated are, once, when no answer
 * came.
 *
 * All of them: inputs are copied; the callback comes exactly once, never before the starter
 * returns; what it is given is borrowed. Outcomes: OK, INVALID_CODE, USER_BLOCKED, RATE_LIMITED,
 * WECHAT_ERROR, WECHAT_CONFIG, WECHAT_UNAVAILABLE, OVERLOADED. timeout_ms: what the caller has
 * left, at most the options' own. errcode: WeChat's number when it refused, else 0. */
#ifndef WECHAT_WECHAT_H
#define WECHAT_WECHAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/arena.h"
#include "common/outcome.h"
#include "io/fetch.h"

struct wechat;

struct wechat_options {
	/* the first is asked first; the others when it cannot be reached */
	const char *const *base_urls;
	size_t  base_url_count;
	int64_t timeout_ms;           /* for one call, retries included */
	/* connections for jscode2session alone: nothing else can slow a login */
	struct fetch *login;
	struct fetch *token;          /* for stable_token alone: no user's calls can fill it */
	struct fetch *service;        /* for our own other calls */
	struct fetch *pass;           /* for what backends send through us */
};

struct wechat_app {
	const char *appid;
	const char *secrets[2]; /* [1] may be NULL: tried when WeChat refuses [0] (40125) */
};

/* copies o, not the fetches */
struct wechat *wechat_new(struct loop *l, const struct wechat_options *o);
void wechat_free(struct wechat *wx); /* after fetch_free */

/* code2Session: a login's code for who it is. */
struct wechat_session {
	const char *openid;
	const char *session_key; /* base64 text of 16 bytes, as WeChat gave it */
	const char *unionid;     /* "" when WeChat gave none */
	int         errcode;
};
/* ws: only errcode unless OK; never NULL */
typedef void (*wechat_session_cb)(void *ctx, enum outcome oc, const struct wechat_session *ws);
void wechat_code2session(struct wechat *wx, const struct wechat_app *app, const char *code,
	int64_t timeout_ms, wechat_session_cb cb, void *ctx);

/* getStableAccessToken. force: a new one even if WeChat thinks the old one lives (20 a day, 30 s
 * apart: the caller counts). */
typedef void (*wechat_token_cb)(
	void *ctx, enum outcome oc, const char *access_token, int64_t expires_in_s, int errcode);
void wechat_stable_token(
	struct wechat *wx, const struct wechat_app *app, bool force, wechat_token_cb cb, void *ctx);

/* true: WeChat says that the access_token is no good. Renew it, and ask once more. */
bool wechat_token_is_stale(int errcode);
int  wechat_retry_after_s(int errcode); /* longer than the outcome says: for Retry-After; else 0 */

/* checkSessionKey: does this session_key still live? */
typedef void (*wechat_check_cb)(void *ctx, enum outcome oc, bool valid, int errcode);
void wechat_checksession(struct wechat *wx, const struct wechat_app *app, const char *access_token,
	const char *openid, const char *session_key, wechat_check_cb cb, void *ctx);

/* getPhoneNumber: the code of the getPhoneNumber button, checked by WeChat to be this user's. */
struct wechat_phone {
	const char *number, *pure_number, *country_code; /* "" unless OK */
	int         errcode;
};
/* never NULL */
typedef void (*wechat_phone_cb)(void *ctx, enum outcome oc, const struct wechat_phone *phone);
void wechat_getuserphonenumber(struct wechat *wx, const struct wechat_app *app,
	const char *access_token, const char *code, const char *openid, wechat_phone_cb cb,
	void *ctx);

/* getUserEncryptKey: the keys that wx.getUserCryptoManager gives the phone, the last three.
 * Outcomes also: SESSION_KEY_EXPIRED. */
enum { WECHAT_ENCRYPT_KEYS_MAX = 16 };
struct wechat_encrypt_key {
	/* expires_in_s: 0 or less for one that has ended */
	int64_t version, expires_in_s, created_at;
	const char *encrypt_key, *iv;
};
struct wechat_encrypt_keys {
	size_t n; /* 0 unless OK */
	struct wechat_encrypt_key list[WECHAT_ENCRYPT_KEYS_MAX];
	int errcode;
};
typedef void (*wechat_encrypt_keys_cb)(
	void *ctx, enum outcome oc, const struct wechat_encrypt_keys *keys); /* never NULL */
void wechat_getuserencryptkey(struct wechat *wx, const struct wechat_app *app,
	const char *access_token, const char *openid, const char *session_key,
	wechat_encrypt_keys_cb cb, void *ctx);

/* A backend's own call: path below the host, query without access_token (added here). Sent once, or
 * again if no byte of it left. reply is NULL unless OK: then it is WeChat's answer as it came, and
 * errcode what it says inside, if it is JSON. */
struct wechat_pass {
	const char *method, *path, *query, *content_type; /* content_type NULL without a body */
	const void *body;
	size_t      body_len;
	int64_t     timeout_ms;
};
typedef void (*wechat_pass_cb)(
	void *ctx, enum outcome oc, const struct fetch_reply *reply, int errcode);
void wechat_pass(struct wechat *wx, const struct wechat_app *app, const char *access_token,
	const struct wechat_pass *what, wechat_pass_cb cb, void *ctx);

#endif
