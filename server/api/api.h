/* What may be asked of us: hands each request to its handler by the route table (routes.c). */
#ifndef API_API_H
#define API_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api/keeper.h"
#include "common/bucket.h"
#include "common/ip.h"
#include "http/req.h"
#include "io/loop.h"
#include "io/redis.h"
#include "store/code.h"
#include "store/keycache.h"
#include "store/mark.h"
#include "store/session.h"
#include "store/user.h"
#include "wechat/wechat.h"

struct api_push { /* WeChat's messages to one app; "" = not set */
	const char *token, *aes_key, *forward, *forward_token;
};

struct api { /* filled by app, read by handlers; what it points to is app's */
	struct loop     *loop;
	struct redis    *redis;
	struct sessions *sessions;
	struct codes    *codes;
	struct wechat   *wechat;
	struct keeper   *keeper;
	struct user_db  *users;
	struct keycache *keycache;
	struct audit    *audit;    /* NULL: no audit log */
	/* may change on reload: a handler that waits copies what it keeps */
	const struct wechat_app *apps;
	const struct api_push *pushes; /* one for each of apps; changes with them */
	size_t           app_count;
	struct pushing  *pushings; /* messages that wait for another process to obey them */
	struct telling  *tellings; /* to push_forward, before the next try */
	struct fetch    *push_fetch; /* to push_forward alone */
	struct marks    *marks;
	int              logins, logins_max; /* in flight, and their maximum */
	/* logins that wait for a timer, to read the claim of another login on their code again */
	struct login    *polling;
	/* of one login: its call to WeChat, or polling while another login makes it */
	int64_t          login_timeout_ms;
	int64_t          redis_timeout_ms; /* one command's */
	const char      *internal_token;   /* "" = none asked */
	const char *const *cors_origins;
	size_t           cors_origin_count;
	const struct ip_net *trusted_proxies;
	size_t           trusted_proxy_count;
	bool             unix_is_trusted;
	struct buckets  *ip_buckets, *app_buckets, *user_buckets;
	struct bucket_limit login_per_ip, login_per_48, login_per_app, phone_per_user,
		check_per_user, open_data_per_user;
	bool             warned_unlimited, warned_unnamed;
	bool             draining;
};

/* apps.c */
/* NULL: not configured */
const struct wechat_app *api_app(const struct api *api, const char *appid, size_t len);
const struct api_push *api_push(const struct api *api, const struct wechat_app *app);
struct wechat_app *api_app_copy(struct arena *a, const struct wechat_app *app);

/* http handlers; ctx is a struct api. */
void api_public(void *ctx, struct req *r);
/* before an error of HTTP itself is answered: adds its headers */
void api_public_refused(void *ctx, struct req *r);
/* for log lines: the peer, or whom trusted proxies name */
void api_name_client(void *ctx, const struct req *r, char *out);
void api_internal(void *ctx, struct req *r);

/* Call it at the end, before Redis is closed. What waits for a timer stops waiting, and its
 * callback comes. */
void api_close(struct api *api);

#endif
