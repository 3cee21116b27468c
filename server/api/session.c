/* A phone asks about its own session, or ends it. */
#include <string.h>

#include "api/guard.h"
#include "api/limit.h"
#include "api/record.h"
#include "common/json.h"

struct looking {
	struct api *api;
	struct req *req;
	struct wechat_app *app;
	const char *openid, *session_key;
	int64_t created_at, expires_in_s;
	bool valid;
	struct keeper_use use;
};

/* valid: whether session_key lives; NULL where nobody asked. */
static void reply_session(struct looking *l, const bool *valid)
{
	struct buf b = {0};

	json_open(&b, NULL, '{');
	json_add_str(&b, "appid", l->app->appid);
	json_add_int(&b, "expires_in", l->expires_in_s);
	json_add_int(&b, "created_at", l->created_at);
	if (valid)
		json_add_bool(&b, "session_key_valid", *valid);
	json_close(&b, '}');
	req_reply_json(l->req, 200, b.data);
	buf_free(&b);
}

/* ---- ?check=wechat: does session_key live? ---- */

static void reply_valid(void *ctx, const struct session *ses)
{
	struct looking *l = ctx;

	l->expires_in_s = ses->expires_in_s;
	reply_session(l, &l->valid);
}

static void on_checked(void *ctx, enum outcome oc, bool valid, int errcode)
{
	struct looking *l = ctx;
	struct req *r = l->req;

	if (keeper_use_again(&l->use, errcode))
		return;
	l->valid = valid;
	if (oc == OC_OK)
		guard_still_lives(l->api, r, reply_valid, l);
	else
		req_reply_error(r, &(struct req_error){.oc = oc,
					   .errcode = errcode,
					   .retry_after_s = wechat_retry_after_s(errcode)});
	req_release(r);
}

static void check_call(void *ctx, const char *token)
{
	struct looking *l = ctx;

	wechat_checksession(
		l->api->wechat, l->app, token, l->openid, l->session_key, on_checked, l);
}

static void check_fail(void *ctx, const struct keeper_answer *why)
{
	struct looking *l = ctx;
	struct req *r = l->req;

	req_reply_error(r, &(struct req_error){.oc = why->oc,
				   .errcode = why->errcode,
				   .retry_after_s = why->retry_after_s});
	req_release(r);
}

static void on_keys(void *ctx, enum outcome oc, const char *const *keys, size_t n)
{
	struct looking *l = ctx;
	struct req *r = l->req;

	if (oc == OC_OK && n > 0) {
		l->session_key = arena_strdup(req_arena(r), keys[0]);
		l->use = (struct keeper_use){.keeper = l->api->keeper,
			.arena = req_arena(r),
			.app = l->app,
			.call = check_call,
			.fail = check_fail,
			.ctx = l};
		keeper_use(&l->use);
		return;
	}
	if (oc == OC_OK)
		guard_still_lives(l->api, r, reply_valid, l); /* none that opens: not valid */
	else
		req_reply_outcome(r, oc);
	req_release(r);
}

/* ---- */

static void on_session(void *ctx, const struct session *ses)
{
	struct looking *l = ctx;
	struct req *r = l->req;
	const char *check = req_param(r, "check");

	l->app = guard_app(l->api, r, ses);
	if (!l->app)
		return;
	l->created_at = ses->created_at;
	l->expires_in_s = ses->expires_in_s;
	if (!check) {
		reply_session(l, NULL);
	} else if (strcmp(check, "wechat") != 0) {
		req_reply_error(r, &(struct req_error){.oc = OC_INVALID_REQUEST,
					   .message = "check can only be wechat."});
	} else {
		l->openid = arena_strdup(req_arena(r), ses->openid);
		if (!limit_user(l->api, r, "check_per_user", &l->api->check_per_user, l->app->appid,
			    l->openid))
			return;
		req_hold(r);
		session_keys(l->api->sessions, ses->appid, ses->openid, on_keys, l);
	}
}

void session_get_handle(struct api *api, struct req *r)
{
	struct looking *l = arena_alloc(req_arena(r), sizeof(*l));

	l->api = api;
	l->req = r;
	guard_session(api, r, on_session, l);
}

struct ending {
	struct api *api;
	struct req *req;
	const char *token;
};

static void end_session(struct ending *e)
{
	session_end(e->api->sessions, e->token, "logged_out", guard_on_done, e->req);
}

/* For the audit log, which says whose session it was. */
static void on_ending(void *ctx, enum outcome oc, const struct session *ses, const char *reason)
{
	struct ending *e = ctx;

	(void)reason;
	if (oc == OC_OK)
		record_success(
			e->api, e->req, AUDIT_LOGOUT, AUDIT_BY_USER, ses->appid, ses->openid);
	end_session(e);
}

/* 204 also where there was nothing to end: a phone that asks twice is logged out all the same. */
void session_delete_handle(struct api *api, struct req *r)
{
	struct ending *e = arena_alloc(req_arena(r), sizeof(*e));
	const char *reason, *token = guard_token(r, &reason);

	if (!token) {
		req_reply(r, 204, NULL, NULL, 0);
		return;
	}
	*e = (struct ending){api, r, token};
	req_hold(r);
	if (api->audit)
		session_get(api->sessions, token, false, on_ending, e);
	else
		end_session(e);
}
