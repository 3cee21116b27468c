#include "api/routes.h"

#include <string.h>

#include "common/encode.h"
#include "common/mem.h"

#define GET    (METHOD_BIT(METHOD_GET) | METHOD_BIT(METHOD_HEAD))
#define POST   METHOD_BIT(METHOD_POST)
#define PUT    METHOD_BIT(METHOD_PUT)
#define DELETE METHOD_BIT(METHOD_DELETE)
#define PASSED \
	(METHOD_BIT(METHOD_GET) | POST) /* what WeChat's calls take: a HEAD would wait for a body \
					   that never comes */

#define PUSH     "/v1/push/{appid}"
#define APP      "/internal/apps/{appid}"
#define USERS    APP "/users"
#define USER     USERS "/{openid}"
#define SESSIONS USER "/sessions"

static const struct route routes[] = {
	{SIDE_PUBLIC,   POST,       "/v1/login",            login_handle,               0},
	{SIDE_PUBLIC,   GET,        "/v1/session",          session_get_handle,         0},
	{SIDE_PUBLIC,   DELETE,     "/v1/session",          session_delete_handle,      0},
	{SIDE_PUBLIC,   GET,        "/v1/user",             user_get_handle,            0},
	{SIDE_PUBLIC,   PUT,        "/v1/user",             user_put_handle,            0},
	{SIDE_PUBLIC,   DELETE,     "/v1/user",             user_delete_handle,         0},
	{SIDE_PUBLIC,   POST,       "/v1/user/phone",       phone_handle,               0},
	{SIDE_PUBLIC,   POST,       "/v1/open-data",        open_data_handle,           0},
	{SIDE_PUBLIC,   GET,        PUSH,                   push_prove_handle,          0},
	{SIDE_PUBLIC,   POST,       PUSH,                   push_handle,                0},
	{SIDE_PUBLIC,   GET,        "/healthz",             healthz_handle,             0},
	{SIDE_PUBLIC,   GET,        "/readyz",              readyz_public_handle,       0},
	{SIDE_INTERNAL, METHOD_ANY, "/internal/auth",       auth_handle,                ROUTE_BELOW | ROUTE_SESSION},
	{SIDE_INTERNAL, POST,       "/internal/introspect", introspect_handle,          ROUTE_BASIC},
	{SIDE_INTERNAL, GET,        USERS,                  users_list_handle,          0},
	{SIDE_INTERNAL, GET,        USER,                   user_inside_handle,         0},
	{SIDE_INTERNAL, POST,       USER "/sign",           sign_handle,                0},
	{SIDE_INTERNAL, GET,        USER "/encrypt-keys",   encrypt_keys_handle,        0},
	{SIDE_INTERNAL, PUT,        USER,                   user_import_handle,         0},
	{SIDE_INTERNAL, DELETE,     USER,                   user_erase_inside_handle,   0},
	{SIDE_INTERNAL, GET,        USER "/export",         user_export_handle,         0},
	{SIDE_INTERNAL, PUT,        USER "/block",          user_block_handle,          0},
	{SIDE_INTERNAL, DELETE,     USER "/block",          user_unblock_handle,        0},
	{SIDE_INTERNAL, GET,        SESSIONS,               sessions_get_handle,        0},
	{SIDE_INTERNAL, DELETE,     SESSIONS,               sessions_delete_handle,     0},
	{SIDE_INTERNAL, DELETE,     SESSIONS "/{id}",       sessions_delete_one_handle, 0},
	{SIDE_INTERNAL, GET,        APP "/access-token",    access_token_handle,        0},
	{SIDE_INTERNAL, PASSED,     APP "/wechat",          pass_handle,                ROUTE_BELOW},
	{SIDE_INTERNAL, GET,        "/internal/console",    console_handle,             ROUTE_BELOW | ROUTE_PAGE},
	{SIDE_INTERNAL, GET,        "/metrics",             metrics_handle,             0},
	{SIDE_INTERNAL, GET,        "/healthz",             healthz_handle,             ROUTE_OPEN},
	{SIDE_INTERNAL, GET,        "/readyz",              readyz_handle,              ROUTE_OPEN},
};

/* The end of the next segment, which begins with '/'. */
static const char *segment_end(const char *path)
{
	return path + 1 + strcspn(path + 1, "/");
}

static bool path_fits(const struct route *rt, const char *path)
{
	const char *want = rt->path;

	while (*want) {
		const char *want_end = segment_end(want), *end;

		if (*path != '/')
			return false;
		end = segment_end(path);
		if (want[1] == '{' ? end == path + 1
				   : end - path != want_end - want ||
					     memcmp(path, want, (size_t)(end - path)) != 0)
			return false;
		path = end;
		want = want_end;
	}
	return *path == '\0' || (rt->flags & ROUTE_BELOW);
}

const char *route_segment(struct req *r, int n)
{
	const char *want = req_route(r), *path = req_path(r), *end;
	char *text;

	while (*want && (want[1] != '{' || n-- > 0)) {
		want = segment_end(want);
		path = segment_end(path);
	}
	end = segment_end(path);
	text = arena_alloc(req_arena(r), (size_t)(end - path));
	return percent_decode(text, path + 1, (size_t)(end - path - 1), false) > 0 ? text : NULL;
}

const char *route_rest(struct req *r)
{
	const char *path = req_path(r);

	for (const char *want = req_route(r); *want; want = segment_end(want))
		path = segment_end(path);
	return *path ? path + 1 : "";
}

const struct route *route_find(enum side side, enum method m, const char *path, unsigned *allowed)
{
	*allowed = 0;
	for (size_t i = 0; i < NELEM(routes); i++) {
		if (routes[i].side != side || !path_fits(&routes[i], path))
			continue;
		if (routes[i].methods & METHOD_BIT(m))
			return &routes[i];
		*allowed |= routes[i].methods;
	}
	return NULL;
}
