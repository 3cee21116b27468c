/* What stands before a handler: the internal token, CORS, who the client is, and the third_session
 * a request carries. */
#ifndef API_GUARD_H
#define API_GUARD_H

#include "api/routes.h"
#include "common/ip.h"

/* Who sent the request: the peer, or the one that trusted proxies name in X-Forwarded-For, read
 * from the right (what stands left of the first address that is no trusted proxy is the caller's
 * own word). */
struct client {
	char text[IP_TEXT_MAX]; /* "unix" when nothing more is known */
	struct ip ip;           /* unless it is "unix" */
	/* false for peers that may speak for a whole site: loopback or a unix socket, and no
	 * trusted proxy */
	bool limited;
};
void guard_client(struct api *api, struct req *r, struct client *c);
/* its text alone, for a log line */
void guard_name_client(const struct api *api, const struct req *r, char out[IP_TEXT_MAX]);

/* Each answers the request itself when it returns false. */
bool guard_internal(const struct api *api, struct req *r, const struct route *rt);
bool guard_cors(const struct api *api, struct req *r); /* false: it was a preflight */
/* Adds what a page of an allowed origin needs to read the answer, and answers nothing; false: there
 * is no such page. */
bool guard_allow_origin(const struct api *api, struct req *r);

/* The request's well-formed third_session (borrowed), or NULL with *reason "missing" or
 * "malformed". */
const char *guard_token(struct req *r, const char **reason);

/* The session that the request carries: then is called with it, before or after this returns, and
 * owns the answer; where there is none, the request is answered (401, 503). ctx is in the request's
 * arena or outlives it; ses is borrowed. */
typedef void (*guard_session_fn)(void *ctx, const struct session *ses);
void guard_session(struct api *api, struct req *r, guard_session_fn then, void *ctx);

/* The same question again, without renewing: to be asked after every wait for somebody else
 * (WeChat, the user database), before what came of it is told or kept. A session that was ended
 * meanwhile is told nothing more. */
void guard_still_lives(struct api *api, struct req *r, guard_session_fn then, void *ctx);

/* The app of a session, copied into the request's arena; NULL: it is configured no more, and the
 * request answered (unknown_app). */
struct wechat_app *guard_app(const struct api *api, struct req *r, const struct session *ses);

/* The user that the path of an internal call names, as {appid} and {openid}; false: the request is
 * answered. */
bool guard_path_user(struct api *api, struct req *r, const char **appid, const char **openid);

/* The same for an app that need not be configured, or no more: its sessions go on, and must have an
 * end. */
bool guard_path_names(struct req *r, const char **appid, const char **openid);

/* A session_done_cb: answers the request in ctx with 204, or with what went wrong, and lets go of
 * it. */
void guard_on_done(void *ctx, enum outcome oc);

/* What became of the question after a session, when it is not that it lives. INVALID_SESSION: 401
 * with the reason and WWW-Authenticate (RFC 6750); else the outcome's own answer. */
void guard_reply_no_session(struct req *r, enum outcome oc, const char *reason);

#endif
