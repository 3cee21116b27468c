/* A phone asks about its own session, or ends it. */
#include <inttypes.h>

#include "api/guard.h"
#include "common/json.h"

static void reply_session(struct req *r, const struct session *ses)
{
	cJSON *o = cJSON_CreateObject();

	cJSON_AddStringToObject(o, "appid", ses->appid);
	cJSON_AddNumberToObject(o, "expires_in", (double)ses->expires_in_s);
	cJSON_AddNumberToObject(o, "created_at", (double)ses->created_at);
	req_reply_json(r, 200, json_print(req_arena(r), o));
	json_free(o);
}

static void on_session(void *ctx, enum outcome oc, const struct session *ses, const char *reason)
{
	struct req *r = ctx;

	if (oc == OC_OK)
		reply_session(r, ses);
	else if (oc == OC_INVALID_SESSION)
		guard_reply_invalid_session(r, reason);
	else
		req_reply_error(r, &(struct req_error){.oc = oc, .retry_after = 1});
	req_release(r);
}

void session_get_handle(struct api *api, struct req *r)
{
	const char *reason, *token = guard_token(r, &reason);

	if (!token) {
		guard_reply_invalid_session(r, reason);
		return;
	}
	req_hold(r);
	session_get(api->sessions, token, true, on_session, r);
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
