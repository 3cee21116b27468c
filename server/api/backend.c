/* What backends ask of WeChat through us: the app's access_token, or a call of their own with the
 * token added. */
#include <string.h>
#include <strings.h>

#include "api/guard.h"
#include "api/record.h"
#include "common/encode.h"
#include "common/json.h"

enum { PASS_TIMEOUT_MS = 10000, PATH_MAX_LEN = 512 };

/* The app that the path names, copied: it must outlive a reload. NULL: answered. */
static struct wechat_app *path_app(struct api *api, struct req *r)
{
	const char *appid = route_segment(r, 0);
	const struct wechat_app *app = appid ? api_app(api, appid, strlen(appid)) : NULL;

	if (!app) {
		req_reply_outcome(r, OC_UNKNOWN_APP);
		return NULL;
	}
	return api_app_copy(req_arena(r), app);
}

/* ---- the access_token itself ---- */

static void on_token(void *ctx, const struct keeper_answer *ans)
{
	struct req *r = ctx;
	struct buf b = {0};

	if (ans->oc == OC_OK) {
		json_open(&b, NULL, '{');
		json_add_str(&b, "access_token", ans->token);
		json_add_int(&b, "expires_in", ans->expires_in_s);
		json_close(&b, '}');
		req_reply_json(r, 200, b.data);
		buf_free(&b);
	} else {
		req_reply_error(r, &(struct req_error){.oc = ans->oc,
					   .errcode = ans->errcode,
					   .retry_after_s = ans->retry_after_s});
	}
	req_release(r);
}

void access_token_handle(struct api *api, struct req *r)
{
	const char *bad = req_param(r, "refresh");
	struct wechat_app *app = path_app(api, r);

	if (!app)
		return;
	record_success(api, r, AUDIT_TOKEN_READ, AUDIT_BY_BACKEND, app->appid, NULL);
	req_hold(r);
	if (bad && *bad)
		keeper_drop(api->keeper, app, bad, on_token, r);
	else
		keeper_get(api->keeper, app, on_token, r);
}

/* ---- a call of their own ---- */

struct passing {
	struct api *api;
	struct req *req;
	struct wechat_app *app;
	struct wechat_pass what;
	struct keeper_use use;
};

/* Tokens, quotas and session_keys are wxlogind's own: a backend that touched them would take them
 * from everybody. */
static bool is_refused(const char *path)
{
	static const char *const refused[] = {"cgi-bin/token", "cgi-bin/stable_token",
		"cgi-bin/clear_quota", "cgi-bin/openapi/quota/clear", "sns/jscode2session",
		"sns/component/jscode2session", "wxa/resetusersessionkey"};

	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		size_t n = strlen(refused[i]);

		if (!strncasecmp(path, refused[i], n) && (path[n] == '\0' || path[n] == '/'))
			return true;
	}
	return false;
}

/* What may stand in a path below WeChat's host. It has one spelling alone, but for capitals: no
 * escapes, no dots, no empty segments. So it cannot be another path for WeChat than for is_refused.
 */
static bool is_plain(const char *path)
{
	size_t n = strlen(path);

	return n > 0 && n <= PATH_MAX_LEN && *path != '/' && path[n - 1] != '/' &&
	       !strstr(path, "//") &&
	       strspn(path, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-/") ==
		       n;
}

static bool is_access_token(const char *name, size_t n)
{
	char text[3 * sizeof("access_token")]; /* every character of it may be spelled as %xx */

	return n < sizeof(text) && percent_decode(text, name, n, true) >= 0 &&
	       !strcasecmp(text, "access_token");
}

/* The query without the caller's own access_token, however it is spelled. */
static const char *query_left(struct req *r)
{
	const char *p = req_query(r);
	struct buf b = {0};
	const char *left;

	while (*p) {
		size_t n = strcspn(p, "&"), name = strcspn(p, "=&");

		if (n && !is_access_token(p, name)) {
			buf_str(&b, b.len ? "&" : "");
			buf_add(&b, p, n);
		}
		p += n + (p[n] == '&');
	}
	left = arena_strdup(req_arena(r), b.len ? b.data : "");
	buf_free(&b);
	return left;
}

static void on_passed(void *ctx, enum outcome oc, const struct fetch_reply *reply, int errcode)
{
	struct passing *p = ctx;
	struct req *r = p->req;

	if (oc == OC_OK && keeper_use_again(&p->use, errcode))
		return;
	if (oc == OC_OK)
		req_reply(r, reply->status,
			*reply->content_type ? reply->content_type : "application/octet-stream",
			reply->body, reply->body_len);
	else
		req_reply_error(r, &(struct req_error){.oc = oc,
					   .retry_after_s = wechat_retry_after_s(errcode)});
	req_release(r);
}

static void pass_call(void *ctx, const char *token)
{
	struct passing *p = ctx;

	wechat_pass(p->api->wechat, p->app, token, &p->what, on_passed, p);
}

static void pass_fail(void *ctx, const struct keeper_answer *why)
{
	struct passing *p = ctx;
	struct req *r = p->req;

	req_reply_error(r, &(struct req_error){.oc = why->oc,
				   .errcode = why->errcode,
				   .retry_after_s = why->retry_after_s});
	req_release(r);
}

void pass_handle(struct api *api, struct req *r)
{
	struct passing *p = arena_alloc(req_arena(r), sizeof(*p));
	const char *path = route_rest(r);
	size_t len;

	if (!*api->internal_token) {
		req_reply_error(r, &(struct req_error){.oc = OC_NOT_FOUND,
					   .message = "To use this call, set internal_token in the "
						      "configuration."});
		return;
	}
	p->app = path_app(api, r);
	if (!p->app)
		return;
	if (!is_plain(path) || is_refused(path)) {
		req_reply_error(
			r, &(struct req_error){.oc = OC_INVALID_REQUEST,
				   .message = is_plain(path)
						      ? "This path of WeChat's is wxlogind's own: "
							"ask for access-token instead."
						      : "The path below wechat/ is none of "
							"WeChat's: letters, digits, _ - and /."});
		return;
	}
	p->api = api;
	p->req = r;
	p->what = (struct wechat_pass){.method = req_method_name(r),
		.path = path,
		.query = query_left(r),
		.timeout_ms = PASS_TIMEOUT_MS};
	req_note(r, "wechat_path", path);
	p->what.body = req_body(r, &len);
	p->what.body_len = len;
	p->what.content_type = req_header(r, "Content-Type");
	if (len == 0)
		p->what.body = NULL;
	p->use = (struct keeper_use){.keeper = api->keeper,
		.arena = req_arena(r),
		.app = p->app,
		.call = pass_call,
		.fail = pass_fail,
		.ctx = p};
	req_hold(r);
	keeper_use(&p->use);
}
