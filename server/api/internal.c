/* Who is calling? For proxies (forward-auth: the answer is in the status and the headers, since
 * proxies drop the body) and for backends (RFC 7662). Both answer from memory where they may,
 * within the turn of the loop that brought the question. */
#include <string.h>

#include "api/guard.h"
#include "common/clock.h"
#include "common/json.h"
#include "common/text.h"

static bool wants_renewal(struct req *r)
{
	const char *renew = req_param(r, "renew");

	return !renew || strcmp(renew, "0") != 0;
}

/* ---- forward-auth ---- */

static void reply_auth(struct req *r, const struct session *ses)
{
	char seconds[TEXT_INT_MAX];

	req_add_header(r, "X-Wx-Appid", ses->appid);
	req_add_header(r, "X-Wx-Openid", ses->openid);
	req_add_header(r, "X-Wx-Unionid", ses->unionid);
	req_add_header(r, "X-Wx-Expires-In", text_int(seconds, ses->expires_in_s));
	req_reply(r, 200, NULL, NULL, 0);
}

static void on_auth(void *ctx, enum outcome oc, const struct session *ses, const char *reason)
{
	struct req *r = ctx;

	if (oc == OC_OK)
		reply_auth(r, ses);
	else
		guard_reply_no_session(r, oc, reason);
	req_release(r);
}

void auth_handle(struct api *api, struct req *r)
{
	const char *reason, *token = guard_token(r, &reason);
	bool renew = wants_renewal(r);
	struct session ses;

	if (!token) {
		guard_reply_no_session(r, OC_INVALID_SESSION, reason);
	} else if (session_recall(api->sessions, token, renew, &ses)) {
		reply_auth(r, &ses);
	} else {
		req_hold(r);
		session_get(api->sessions, token, renew, on_auth, r);
	}
}

/* ---- introspection ---- */

static void reply_introspection(struct req *r, const struct session *ses)
{
	struct buf b = {0};

	json_open(&b, NULL, '{');
	json_add_bool(&b, "active", true);
	json_add_str(&b, "client_id", ses->appid);
	json_add_str(&b, "sub", ses->openid);
	if (*ses->unionid)
		json_add_str(&b, "unionid", ses->unionid);
	json_add_int(&b, "iat", ses->created_at);
	json_add_int(&b, "exp", clock_wall_s() + ses->expires_in_s);
	json_add_str(&b, "token_type", "Bearer");
	json_close(&b, '}');
	req_reply_json(r, 200, b.data);
	buf_free(&b);
}

static void on_introspected(
	void *ctx, enum outcome oc, const struct session *ses, const char *reason)
{
	struct req *r = ctx;

	(void)reason; /* RFC 7662 section 2.2: nothing more is said of a token that is not active */
	if (oc == OC_OK)
		reply_introspection(r, ses);
	else if (oc == OC_INVALID_SESSION)
		req_reply_json(r, 200, "{\"active\":false}");
	else
		guard_reply_no_session(r, oc, NULL);
	req_release(r);
}

void introspect_handle(struct api *api, struct req *r)
{
	const char *wrong = req_form_wrong(r), *token = wrong ? NULL : req_form_param(r, "token");
	bool renew = wants_renewal(r);
	struct session ses;

	if (!token) {
		req_reply_error(r, &(struct req_error){.oc = OC_INVALID_REQUEST,
					   .message = wrong ? wrong
							    : "The form must hold token (RFC 7662 "
							      "section 2.1)."});
	} else if (!session_token_ok(token)) {
		req_reply_json(r, 200, "{\"active\":false}");
	} else if (session_recall(api->sessions, token, renew, &ses)) {
		reply_introspection(r, &ses);
	} else {
		req_hold(r);
		session_get(api->sessions, token, renew, on_introspected, r);
	}
}
