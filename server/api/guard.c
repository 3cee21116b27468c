#include "api/guard.h"

#include <string.h>
#include <strings.h>

#include "common/crypt.h"

/* The credentials of "Authorization: Bearer x" (RFC 6750; the scheme in any case), or NULL. */
static const char *bearer(const struct req *r)
{
	const char *v = req_header(r, "Authorization");

	if (!v || strncasecmp(v, "Bearer", 6) || (v[6] != ' ' && v[6] != '\0'))
		return NULL;
	v += 6;
	while (*v == ' ')
		v++;
	return v;
}

bool guard_internal(const struct api *api, struct req *r, const struct route *rt)
{
	const char *given = req_header(r, "X-Internal-Token");

	if (!*api->internal_token || (rt->flags & ROUTE_OPEN))
		return true;
	if (!given && !(rt->flags & ROUTE_SESSION))
		given = bearer(r);
	if (given && crypt_str_equal(given, api->internal_token))
		return true;
	req_add_header(r, "WWW-Authenticate", "Bearer");
	req_reply_outcome(r, OC_UNAUTHORIZED);
	return false;
}

bool guard_cors(const struct api *api, struct req *r)
{
	const char *origin = req_header(r, "Origin");

	if (api->cors_origin_count == 0)
		return true;
	req_add_header(r, "Vary", "Origin");
	if (!origin)
		return true;
	for (size_t i = 0; i < api->cors_origin_count; i++) {
		if (strcmp(origin, api->cors_origins[i]))
			continue;
		req_add_header(r, "Access-Control-Allow-Origin", origin);
		req_add_header(r, "Access-Control-Expose-Headers", "X-Request-Id, Retry-After, WWW-Authenticate");
		if (req_method(r) != METHOD_OPTIONS || !req_header(r, "Access-Control-Request-Method"))
			return true;
		req_add_header(r, "Access-Control-Allow-Methods", "GET, POST, PUT, DELETE");
		req_add_header(r, "Access-Control-Allow-Headers", "Authorization, Content-Type, X-Third-Session, X-Request-Id");
		req_add_header(r, "Access-Control-Max-Age", "600");
		req_set_route(r, "preflight");
		req_reply(r, 204, NULL, NULL, 0);
		return false;
	}
	return true;
}

const char *guard_token(struct req *r, const char **reason)
{
	const char *token = bearer(r);

	if (!token)
		token = req_header(r, "X-Third-Session");
	if (!token || req_header_count(r, "Authorization") > 1 || req_header_count(r, "X-Third-Session") > 1) {
		*reason = token ? "malformed" : "missing";
		return NULL;
	}
	if (!session_token_ok(token)) {
		*reason = *token ? "malformed" : "missing";
		return NULL;
	}
	return token;
}

void guard_reply_no_session(struct req *r, enum outcome oc, const char *reason)
{
	if (oc != OC_INVALID_SESSION) {
		req_reply_error(r, &(struct req_error){.oc = oc, .retry_after = 1});
		return;
	}
	req_add_header(r, "WWW-Authenticate",
		arena_printf(req_arena(r), "Bearer error=\"invalid_token\", error_description=\"%s\"", reason));
	req_add_header(r, "X-Wx-Reason", reason);
	req_note(r, "reason", reason);
	req_reply_error(r, &(struct req_error){.oc = OC_INVALID_SESSION, .reason = reason});
}
