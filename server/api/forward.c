#include "api/forward.h"

#include <string.h>

#include <utlist.h>

#include "common/clock.h"
#include "common/json.h"
#include "common/log.h"

enum { TELL_TIMEOUT_MS = 4000, TRIES = 3, PAUSE_MS = 1000, HEADERS = 5 };

bool forward_ok(const struct fetch_reply *rp)
{
	return rp->result == FETCH_DONE && rp->status >= 200 && rp->status < 300;
}

void forward_send(struct api *api, const struct api_push *to, const struct forward *f, fetch_cb cb,
	void *ctx)
{
	struct arena *a = arena_new();
	const char *headers[HEADERS] = {arena_join(a, "X-Wx-Appid: ", f->appid, NULL)};
	size_t n = 1;

	if (f->openid)
		headers[n++] = arena_join(a, "X-Wx-Openid: ", f->openid, NULL);
	if (*to->forward_token)
		headers[n++] = arena_join(a, "Authorization: Bearer ", to->forward_token, NULL);
	if (f->traceparent)
		headers[n++] = arena_join(a, "traceparent: ", f->traceparent, NULL);
	headers[n] = NULL;
	fetch_start(api->push_fetch, &(struct fetch_request){.method = "POST", .url = to->forward,
		.content_type = f->content_type, .body = f->body, .body_len = f->len,
		.headers = headers, .timeout_ms = f->timeout_ms}, cb, ctx);
	arena_free(a);
}

/* ---- who was erased ---- */

struct telling {
	struct telling *prev, *next;
	struct api *api;
	struct arena *arena;
	struct api_push push;
	struct forward what;
	struct timer *again;
	int tries;
};

static void telling_end(struct telling *t)
{
	struct arena *a = t->arena;

	timer_free(t->again);
	arena_free(a);
}

static void on_told(void *ctx, const struct fetch_reply *rp)
{
	struct telling *t = ctx;

	if (!forward_ok(rp) && rp->result != FETCH_CLOSED && ++t->tries < TRIES) {
		DL_APPEND(t->api->tellings, t);
		timer_start(t->again, (int64_t)PAUSE_MS * t->tries);
		return;
	}
	if (!forward_ok(rp))
		log_error("push_forward was not told that a user was erased",
			LOG_STR("appid", t->what.appid), LOG_INT("status", rp->status),
			LOG_STR("cause", rp->error));
	telling_end(t);
}

static void tell(void *ctx)
{
	struct telling *t = ctx;

	if (t->tries)
		DL_DELETE(t->api->tellings, t);
	forward_send(t->api, &t->push, &t->what, on_told, t);
}

static const char *event_text(struct arena *a, const char *appid, const char *openid)
{
	struct buf b = {0};
	const char *text;

	json_open(&b, NULL, '{');
	json_add_str(&b, "ToUserName", "wxlogind");
	json_add_str(&b, "FromUserName", openid);
	json_add_int(&b, "CreateTime", clock_wall_s());
	json_add_str(&b, "MsgType", "event");
	json_add_str(&b, "Event", "wxlogind_user_erased");
	json_add_str(&b, "OpenID", openid);
	json_add_str(&b, "AppID", appid);
	json_close(&b, '}');
	text = arena_strndup(a, b.data, b.len);
	buf_free(&b);
	return text;
}

void push_tell_erased(struct api *api, const char *appid, const char *openid)
{
	const struct wechat_app *app = api_app(api, appid, strlen(appid));
	const struct api_push *push = app ? api_push(api, app) : NULL;
	struct arena *a;
	struct telling *t;

	if (!push || !*push->forward)
		return;
	a = arena_new();
	t = arena_alloc(a, sizeof(*t));
	*t = (struct telling){.api = api, .arena = a};
	t->push.forward = arena_strdup(a, push->forward);
	t->push.forward_token = arena_strdup(a, push->forward_token);
	t->what = (struct forward){.appid = arena_strdup(a, appid),
		.openid = arena_strdup(a, openid), .content_type = "application/json",
		.body = event_text(a, appid, openid), .timeout_ms = TELL_TIMEOUT_MS};
	t->what.len = strlen(t->what.body);
	t->again = timer_new(api->loop, tell, t);
	tell(t);
}

void forward_close(struct api *api)
{
	struct telling *t, *next;

	DL_FOREACH_SAFE(api->tellings, t, next) {
		DL_DELETE(api->tellings, t);
		telling_end(t);
	}
}
