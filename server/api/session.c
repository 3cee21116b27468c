/* A phone asks about its own session, or ends it. */
#include <inttypes.h>

#include "api/guard.h"
#include "common/buf.h"

static void reply_session(struct req *r, const struct session *ses)
{
	struct buf b = {0};

	buf_printf(&b, "{\"appid\":\"%s\",\"expires_in\":%" PRId64 ",\"created_at\":%" PRId64 "}", ses->appid, ses->expires_in_s, ses->created_at);
	req_reply_json(r, 200, b.data);
	buf_free(&b);
}

static void on_session(void *ctx, enum outcome oc, const struct session *ses, const char *reason)
{
	struct req *r = ctx;

	if (oc == OC_OK)
		reply_session(r, ses);
	else
		guard_reply_no_session(r, oc, reason);
	req_release(r);
}

void session_get_handle(struct api *api, struct req *r)
{
	const char *reason, *token = guard_token(r, &reason);
	struct session ses;

	if (!token) {
		guard_reply_no_session(r, OC_INVALID_SESSION, reason);
	} else if (session_recall(api->sessions, token, true, &ses)) {
		reply_session(r, &ses);
	} else {
		req_hold(r);
		session_get(api->sessions, token, true, on_session, r);
	}
}

static void on_ended(void *ctx, enum outcome oc)
{
	struct req *r = ctx;

	if (oc == OC_OK)
		req_reply(r, 204, NULL, NULL, 0);
	else
		req_reply_error(r, &(struct req_error){.oc = oc, .retry_after = 1});
	req_release(r);
}

/* 204 also where there was nothing to end: a phone that asks twice is logged out all the same. */
void session_delete_handle(struct api *api, struct req *r)
{
	const char *reason, *token = guard_token(r, &reason);

	if (!token) {
		req_reply(r, 204, NULL, NULL, 0);
		return;
	}
	req_hold(r);
	session_end(api->sessions, token, "logged_out", on_ended, r);
}
