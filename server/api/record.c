#include "api/record.h"

#include "api/guard.h"

void record(struct api *api, struct req *r, struct audit_line line)
{
	struct client client;

	if (!api->audit)
		return;
	guard_client(api, r, &client);
	line.ip = client.text;
	line.actor = line.by == AUDIT_BY_BACKEND ? req_header(r, "X-Wx-Actor") : NULL;
	line.request_id = req_id(r);
	line.result = line.result ? line.result : "ok";
	audit_add(api->audit, &line);
}

struct pending {
	struct api *api;
	struct audit_line line;
};

static void on_answer(void *ctx, struct req *r, int status)
{
	struct pending *p = ctx;

	if (status < 300)
		record(p->api, r, p->line);
}

void record_success(struct api *api, struct req *r, enum audit_event event, enum audit_by by,
	const char *appid, const char *openid)
{
	struct arena *a = req_arena(r);
	struct pending *p;

	if (!api->audit)
		return;
	p = arena_alloc(a, sizeof(*p));
	p->api = api;
	p->line = (struct audit_line){.event = event, .by = by, .appid = arena_strdup(a, appid),
		.openid = openid ? arena_strdup(a, openid) : NULL};
	req_on_answer(r, on_answer, p);
}
