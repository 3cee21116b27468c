/* From a request to its handler: route, then guard, then handle. */
#include "api/api.h"

#include <string.h>

#include "api/guard.h"
#include "api/routes.h"
#include "common/buf.h"

static void reply_not_allowed(struct req *r, unsigned allowed)
{
	static const struct { enum method m; const char *name; } names[] = {
		{METHOD_GET, "GET"}, {METHOD_HEAD, "HEAD"}, {METHOD_POST, "POST"}, {METHOD_PUT, "PUT"}, {METHOD_DELETE, "DELETE"},
	};
	struct buf b = {0};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (allowed & METHOD_BIT(names[i].m))
			buf_printf(&b, "%s%s", b.len ? ", " : "", names[i].name);
	req_add_header(r, "Allow", b.data);
	buf_free(&b);
	req_reply_outcome(r, OC_METHOD_NOT_ALLOWED);
}

static const struct route *find(struct req *r, enum side side)
{
	unsigned allowed;
	const struct route *rt = route_find(side, req_method(r), req_path(r), &allowed);

	if (rt)
		req_set_route(r, rt->path);
	else if (allowed)
		reply_not_allowed(r, allowed);
	else
		req_reply_outcome(r, OC_NOT_FOUND);
	return rt;
}

/* An answer gives the caller's reference back, and the request's arena may go with it. A handler's
 * own things lie there, and it may still touch them on its way out: so the request is held until it
 * has returned. */
static void handle(const struct route *rt, struct api *api, struct req *r)
{
	req_hold(r);
	rt->handle(api, r);
	req_release(r);
}

void api_public(void *ctx, struct req *r)
{
	struct api *api = ctx;
	const struct route *rt;

	if (!guard_cors(api, r))
		return;
	rt = find(r, SIDE_PUBLIC);
	if (rt)
		handle(rt, api, r);
}

void api_public_refused(void *ctx, struct req *r)
{
	guard_allow_origin(ctx, r);
}

void api_name_client(void *ctx, const struct req *r, char *out)
{
	guard_name_client(ctx, r, out);
}

void api_internal(void *ctx, struct req *r)
{
	struct api *api = ctx;
	const struct route *rt = find(r, SIDE_INTERNAL);

	if (rt && guard_internal(api, r, rt))
		handle(rt, api, r);
}
