#include "api/routes.h"

#include <string.h>

#include "common/mem.h"

#define GET    (METHOD_BIT(METHOD_GET) | METHOD_BIT(METHOD_HEAD))
#define POST   METHOD_BIT(METHOD_POST)
#define DELETE METHOD_BIT(METHOD_DELETE)

static const struct route routes[] = {
	{SIDE_PUBLIC,   POST,       "/v1/login",      login_handle,          0},
	{SIDE_PUBLIC,   GET,        "/v1/session",    session_get_handle,    0},
	{SIDE_PUBLIC,   DELETE,     "/v1/session",    session_delete_handle, 0},
	{SIDE_INTERNAL, METHOD_ANY, "/internal/auth", auth_handle,           ROUTE_BELOW | ROUTE_SESSION},
	{SIDE_INTERNAL, GET,        "/metrics",       metrics_handle,        0},
	{SIDE_INTERNAL, GET,        "/healthz",       healthz_handle,        ROUTE_OPEN},
	{SIDE_INTERNAL, GET,        "/readyz",        readyz_handle,         ROUTE_OPEN},
};

static bool path_fits(const struct route *rt, const char *path)
{
	size_t n = strlen(rt->path);

	return !strncmp(path, rt->path, n) && (path[n] == '\0' || ((rt->flags & ROUTE_BELOW) && path[n] == '/'));
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
