/* A user's sessions, for those who run the service: which are there, and their end. */
#include <string.h>

#include "api/guard.h"
#include "api/record.h"
#include "api/user.h"
#include "common/json.h"

static void print_session(struct buf *b, const struct session_listed *s)
{
	json_open(b, NULL, '{');
	json_add_str(b, "id", s->id);
	json_add_int(b, "created_at", s->created_at);
	json_add_int(b, "expires_in", s->expires_in_s);
	json_add_int(b, "last_seen_at", s->seen_at);
	json_add_str(b, "ip", s->ip);
	json_add_str(b, "user_agent", s->user_agent);
	json_close(b, '}');
}

void operator_print_sessions(struct buf *b, const struct session_listed *list, size_t n)
{
	json_open(b, "sessions", '[');
	for (size_t i = 0; i < n; i++)
		print_session(b, &list[i]);
	json_close(b, ']');
}

static void on_list(void *ctx, enum outcome oc, const struct session_listed *list, size_t n)
{
	struct req *r = ctx;
	struct buf b = {0};

	json_open(&b, NULL, '{');
	operator_print_sessions(&b, list, n);
	json_close(&b, '}');
	if (oc == OC_OK)
		req_reply_json(r, 200, b.data);
	else
		req_reply_outcome(r, oc);
	buf_free(&b);
	req_release(r);
}

void sessions_get_handle(struct api *api, struct req *r)
{
	const char *appid, *openid;

	if (!guard_path_user(api, r, &appid, &openid))
		return;
	req_hold(r);
	session_list(api->sessions, appid, openid, on_list, r);
}

void sessions_delete_handle(struct api *api, struct req *r)
{
	const char *appid, *openid;

	if (!guard_path_names(r, &appid, &openid))
		return;
	record_success(api, r, AUDIT_SESSION_ENDED, AUDIT_BY_BACKEND, appid, openid);
	req_hold(r);
	session_end_user(api->sessions, appid, openid, guard_on_done, r);
}

void sessions_delete_one_handle(struct api *api, struct req *r)
{
	const char *appid, *openid, *id = route_segment(r, 2);

	if (!guard_path_names(r, &appid, &openid))
		return;
	if (!id || !session_id_ok(id)) {
		req_reply_error(r, &(struct req_error){.oc = OC_INVALID_REQUEST,
					   .message = "The path must end with a session id from "
						      "the list of sessions."});
		return;
	}
	record_success(api, r, AUDIT_SESSION_ENDED, AUDIT_BY_BACKEND, appid, openid);
	req_hold(r);
	session_end_id(api->sessions, appid, openid, id, guard_on_done, r);
}
