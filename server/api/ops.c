/* What operators ask: is it alive, may it be sent traffic, what has it been doing. */
#include "api/routes.h"
#include "common/buf.h"
#include "common/metrics.h"
#include "common/usage.h"

void healthz_handle(struct api *api, struct req *r)
{
	(void)api;
	req_set_quiet(r);
	req_reply_json(r, 200, "{\"status\":\"ok\"}");
}

void readyz_handle(struct api *api, struct req *r)
{
	const char *trouble = redis_trouble(api->redis);

	req_set_quiet(r);
	if (!redis_is_ready(api->redis))
		req_reply_error(
			r, &(struct req_error){.oc = OC_STORE_UNAVAILABLE,
				   .message = *trouble ? arena_printf(req_arena(r),
								 "Redis is not ready: %s.", trouble)
						       : "Redis does not answer."});
	else if (api->draining)
		req_reply_error(r, &(struct req_error){.oc = OC_OVERLOADED,
					   .message = "The server is draining."});
	else
		req_reply_json(r, 200, "{\"status\":\"ready\"}");
}

/* For balancers that know the public port only: what is missing is nobody's business there. */
void readyz_public_handle(struct api *api, struct req *r)
{
	req_set_quiet(r);
	if (redis_is_ready(api->redis) && !api->draining)
		req_reply_json(r, 200, "{\"status\":\"ready\"}");
	else
		req_reply_error(r, &(struct req_error){.oc = OC_OVERLOADED,
					   .message = "The server is not ready."});
}

void metrics_handle(struct api *api, struct req *r)
{
	struct buf b = {0};

	(void)api;
	usage_measure();
	metrics_print(&b);
	req_reply(r, 200, "text/plain; version=0.0.4; charset=utf-8", b.data, b.len);
	buf_free(&b);
}
