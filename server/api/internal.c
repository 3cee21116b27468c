/* Forward-auth: a proxy asks, for each request it was sent, who is calling. The answer is in the status and the headers, since
 * proxies drop the body. */
#include <inttypes.h>
#include <string.h>

#include "api/guard.h"

static void on_auth(void *ctx, enum outcome oc, const struct session *ses, const char *reason)
{
	struct req *r = ctx;

	if (oc == OC_OK) {
		req_add_header(r, "X-Wx-Appid", ses->appid);
		req_add_header(r, "X-Wx-Openid", ses->openid);
		req_add_header(r, "X-Wx-Unionid", ses->unionid);
		req_add_header(r, "X-Wx-Expires-In", arena_printf(req_arena(r), "%" PRId64, ses->expires_in_s));
		req_reply(r, 200, NULL, NULL, 0);
	} else if (oc == OC_INVALID_SESSION) {
		guard_reply_invalid_session(r, reason);
	} else {
		req_reply_error(r, &(struct req_error){.oc = oc, .retry_after = 1});
	}
	req_release(r);
}

void auth_handle(struct api *api, struct req *r)
{
	const char *reason, *renew = req_param(r, req_query(r), "renew");
	const char *token = guard_token(r, &reason);

	if (!token) {
		guard_reply_invalid_session(r, reason);
		return;
	}
	req_hold(r);
	session_get(api->sessions, token, !renew || strcmp(renew, "0"), on_auth, r);
}
