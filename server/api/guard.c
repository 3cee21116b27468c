#include "api/guard.h"

#include <string.h>
#include <strings.h>

#include "common/crypt.h"
#include "common/encode.h"
#include "common/log.h"

/* The credentials of "Authorization: <scheme> x" (RFC 9110 section 11.4; the scheme in any case),
 * or NULL. */
static const char *credentials(const struct req *r, const char *scheme)
{
	const char *v = req_header(r, "Authorization");
	size_t n = strlen(scheme);

	if (!v || strncasecmp(v, scheme, n) || (v[n] != ' ' && v[n] != '\0'))
		return NULL;
	return v + n + strspn(v + n, " ");
}

/* The password of "Authorization: Basic" (RFC 7617), or NULL. */
static const char *basic_password(struct req *r)
{
	const char *given = credentials(r, "Basic"), *colon;
	char *text;
	ssize_t n;

	if (!given)
		return NULL;
	text = arena_alloc(req_arena(r), strlen(given) + 1);
	n = base64_decode(text, strlen(given), given, strlen(given));
	colon = n > 0 ? memchr(text, ':', (size_t)n) : NULL;
	return colon ? colon + 1 : NULL;
}

static bool has_internal_token(const struct api *api, struct req *r, const struct route *rt)
{
	const char *given = req_header(r, "X-Internal-Token");

	if (!given && !(rt->flags & ROUTE_SESSION))
		given = credentials(r, "Bearer");
	if (!given && (rt->flags & ROUTE_BASIC))
		given = basic_password(r);
	return given && crypt_str_equal(given, api->internal_token);
}

/* "localhost", "192.0.2.1" or "[2001:db8::1]", each with or without a port: what a name that an
 * attacker owns can never be. */
static bool is_local_name(const char *host)
{
	size_t n = *host == '[' ? strcspn(host, "]") : strcspn(host, ":");
	struct ip ip;

	if (*host == '[')
		return host[n] == ']' && ip_parse(&ip, host + 1, n - 1);
	return n == 0 || (n == 9 && !strncasecmp(host, "localhost", 9)) || ip_parse(&ip, host, n);
}

/* Without a token the address is the only guard, and a browser beside us can reach it: a page of
 * another site must not (DNS rebinding). Its requests carry that site's name as Host, or as Origin.
 */
static bool is_from_here(struct req *r)
{
	const char *host = req_host(r), *origin = req_header(r, "Origin"), *name;

	if (!strcmp(req_peer(r), "unix"))
		return true;
	if (!is_local_name(host) || req_header_count(r, "Origin") > 1)
		return false;
	name = origin ? strstr(origin, "://") : NULL;
	return !origin || (name && *host && !strcasecmp(name + 3, host));
}

bool guard_internal(const struct api *api, struct req *r, const struct route *rt)
{
	if (rt->flags & ROUTE_OPEN)
		return true;
	if (!*api->internal_token) {
		if ((rt->flags & ROUTE_SESSION) || is_from_here(r))
			return true;
		req_reply_outcome(r, OC_FORBIDDEN);
		return false;
	}
	if ((rt->flags & ROUTE_PAGE) || has_internal_token(api, r, rt))
		return true;
	req_add_header(r, "WWW-Authenticate", "Bearer");
	req_reply_outcome(r, OC_UNAUTHORIZED);
	return false;
}

/* ---- who sent it, and how much it may ask ---- */

static bool is_trusted(const struct api *api, const struct ip *ip)
{
	for (size_t i = 0; i < api->trusted_proxy_count; i++)
		if (ip_net_has(&api->trusted_proxies[i], ip))
			return true;
	return false;
}

/* "192.0.2.1", with a port or in brackets as some proxies write it. */
static bool parse_hop(struct ip *ip, const char *p, size_t n)
{
	const char *colon;

	while (n && (*p == ' ' || *p == '\t')) {
		p++;
		n--;
	}
	while (n && (p[n - 1] == ' ' || p[n - 1] == '\t'))
		n--;
	if (n && *p == '[') {
		colon = memchr(p, ']', n);
		return colon && ip_parse(ip, p + 1, (size_t)(colon - p - 1));
	}
	colon = memchr(p, ':', n);
	if (colon && !memchr(colon + 1, ':', n - (size_t)(colon - p) - 1))
		n = (size_t)(colon - p);
	return ip_parse(ip, p, n);
}

/* Follows X-Forwarded-For from the right while the hops are trusted; stops at what is no address.
 * False: it named nobody. */
static bool forwarded_for(const struct api *api, const struct req *r, struct ip *ip)
{
	static const char name[] = "X-Forwarded-For";
	bool found = false;

	for (int i = req_header_count(r, name) - 1; i >= 0; i--) {
		const char *value = req_header_nth(r, name, i), *end = value + strlen(value),
			   *start;

		for (; end >= value; end = start - 1) {
			struct ip hop;

			start = end;
			while (start > value && start[-1] != ',')
				start--;
			if (!parse_hop(&hop, start, (size_t)(end - start)))
				return found;
			*ip = hop;
			found = true;
			if (!is_trusted(api, &hop))
				return true;
		}
	}
	return found;
}

void guard_name_client(const struct api *api, const struct req *r, char out[IP_TEXT_MAX])
{
	const char *peer = req_peer(r);
	struct ip ip;
	bool known = ip_parse(&ip, peer, strlen(peer)),
	     trusted = known ? is_trusted(api, &ip) : api->unix_is_trusted;

	known |= trusted && forwarded_for(api, r, &ip);
	if (known)
		ip_print(out, &ip);
	else
		strcpy(out, "unix");
}

void guard_client(struct api *api, struct req *r, struct client *c)
{
	const char *peer = req_peer(r);
	bool known = ip_parse(&c->ip, peer, strlen(peer)),
	     trusted = known ? is_trusted(api, &c->ip) : api->unix_is_trusted;

	c->limited = trusted || (known && !ip_is_loopback(&c->ip));
	if (trusted && forwarded_for(api, r, &c->ip)) {
		known = true;
	} else if (trusted) {
		c->limited = known;
		if (!api->warned_unnamed)
			log_warn("a trusted proxy sends no X-Forwarded-For: all behind it count as "
				 "one address",
				LOG_STR("peer", peer));
		api->warned_unnamed = true;
	}
	if (known)
		ip_print(c->text, &c->ip);
	else
		strcpy(c->text, "unix");
}

/* ---- what it carries ---- */

bool guard_allow_origin(const struct api *api, struct req *r)
{
	const char *origin = req_header(r, "Origin");

	if (api->cors_origin_count == 0)
		return false;
	req_add_header(r, "Vary", "Origin");
	for (size_t i = 0; i < api->cors_origin_count && origin; i++) {
		if (strcasecmp(origin, api->cors_origins[i]) != 0) /* as hosts are */
			continue;
		req_add_header(r, "Access-Control-Allow-Origin", origin);
		req_add_header(r, "Access-Control-Expose-Headers",
			"X-Request-Id, Retry-After, WWW-Authenticate, X-Wx-Reason");
		return true;
	}
	return false;
}

bool guard_cors(const struct api *api, struct req *r)
{
	if (!guard_allow_origin(api, r) || req_method(r) != METHOD_OPTIONS ||
		!req_header(r, "Access-Control-Request-Method"))
		return true;
	req_add_header(r, "Access-Control-Allow-Methods", "GET, POST, PUT, DELETE");
	req_add_header(r, "Access-Control-Allow-Headers",
		"Authorization, Content-Type, X-Third-Session, X-Request-Id, traceparent");
	req_add_header(r, "Access-Control-Max-Age", "600");
	req_set_route(r, "preflight");
	req_reply(r, 204, NULL, NULL, 0);
	return false;
}

const char *guard_token(struct req *r, const char **reason)
{
	const char *token = credentials(r, "Bearer");

	if (!token)
		token = req_header(r, "X-Third-Session");
	if (!token || req_header_count(r, "Authorization") > 1 ||
		req_header_count(r, "X-Third-Session") > 1) {
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
		req_reply_outcome(r, oc);
		return;
	}
	req_add_header(r, "WWW-Authenticate",
		arena_printf(req_arena(r),
			"Bearer error=\"invalid_token\", error_description=\"%s\"", reason));
	req_add_header(r, "X-Wx-Reason", reason);
	req_note(r, "reason", reason);
	req_reply_error(r, &(struct req_error){.oc = OC_INVALID_SESSION, .reason = reason});
}

struct asking {
	struct req *req;
	guard_session_fn then;
	void *ctx;
};

static void on_session(void *ctx, enum outcome oc, const struct session *ses, const char *reason)
{
	struct asking *a = ctx;
	struct req *r = a->req;

	if (oc == OC_OK)
		a->then(a->ctx, ses);
	else
		guard_reply_no_session(r, oc, reason);
	req_release(r);
}

static void ask_session(
	struct api *api, struct req *r, bool renew, guard_session_fn then, void *ctx)
{
	const char *reason, *token = guard_token(r, &reason);
	struct session ses;
	struct asking *a;

	if (!token) {
		guard_reply_no_session(r, OC_INVALID_SESSION, reason);
	} else if (session_recall(api->sessions, token, renew, &ses)) {
		then(ctx, &ses);
	} else {
		a = arena_alloc(req_arena(r), sizeof(*a));
		*a = (struct asking){r, then, ctx};
		req_hold(r);
		session_get(api->sessions, token, renew, on_session, a);
	}
}

void guard_session(struct api *api, struct req *r, guard_session_fn then, void *ctx)
{
	ask_session(api, r, true, then, ctx);
}

void guard_still_lives(struct api *api, struct req *r, guard_session_fn then, void *ctx)
{
	ask_session(api, r, false, then, ctx);
}

struct wechat_app *guard_app(const struct api *api, struct req *r, const struct session *ses)
{
	const struct wechat_app *app = api_app(api, ses->appid, strlen(ses->appid));

	if (!app)
		req_reply_outcome(r, OC_UNKNOWN_APP);
	return app ? api_app_copy(req_arena(r), app) : NULL;
}

void guard_on_done(void *ctx, enum outcome oc)
{
	struct req *r = ctx;

	if (oc == OC_OK)
		req_reply(r, 204, NULL, NULL, 0);
	else
		req_reply_outcome(r, oc);
	req_release(r);
}

/* ---- users that a path names ---- */

bool guard_path_names(struct req *r, const char **appid, const char **openid)
{
	const char *wrong = NULL;

	*appid = route_segment(r, 0);
	*openid = route_segment(r, 1);
	if (!*appid || strlen(*appid) > USER_APPID_MAX)
		wrong = "The appid in the path must have 1 to 64 bytes.";
	else if (!*openid || strlen(*openid) > USER_OPENID_MAX)
		wrong = "The openid in the path must have 1 to 128 bytes.";
	if (wrong)
		req_reply_error(r, &(struct req_error){.oc = OC_INVALID_REQUEST, .message = wrong});
	return !wrong;
}

bool guard_path_user(struct api *api, struct req *r, const char **appid, const char **openid)
{
	*appid = route_segment(r, 0);
	if (*appid && api_app(api, *appid, strlen(*appid)))
		return guard_path_names(r, appid, openid);
	req_reply_outcome(r, OC_UNKNOWN_APP);
	return false;
}
