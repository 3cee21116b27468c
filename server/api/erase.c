#include "api/erase.h"

#include "api/forward.h"
#include "api/guard.h"
#include "api/record.h"
#include "api/user.h"

enum { WAIT_MS = 5000 };

struct erasing {
	struct api *api;
	struct arena *arena;
	const char *appid, *openid;
	session_done_cb cb;
	void *ctx;
};

static void finish(void *ctx, enum outcome oc)
{
	struct erasing *e = ctx;

	e->cb(e->ctx, oc);
	arena_free(e->arena);
}

static void on_erased(void *ctx, enum outcome oc, const struct user *u)
{
	struct erasing *e = ctx;

	(void)u;
	if (oc == OC_OK || oc == OC_NOT_FOUND) /* users is none: there was nothing */
		session_erase_end(e->api->sessions, e->appid, e->openid, finish, e);
	else
		finish(e, oc);
}

static void on_begun(void *ctx, enum outcome oc, int64_t erased_ms)
{
	struct erasing *e = ctx;

	if (oc == OC_OK)
		user_erase(e->api->users, e->appid, e->openid, erased_ms, WAIT_MS, on_erased, e);
	else
		finish(e, oc);
}

void erase_user(
	struct api *api, const char *appid, const char *openid, session_done_cb cb, void *ctx)
{
	struct arena *a = arena_new();
	struct erasing *e = arena_alloc(a, sizeof(*e));

	*e = (struct erasing){api, a, arena_strdup(a, appid), arena_strdup(a, openid), cb, ctx};
	session_erase_begin(api->sessions, appid, openid, on_begun, e);
}

/* ---- the calls ---- */

struct asked {
	struct api *api;
	struct req *req;
	const char *appid, *openid;
	bool by_user; /* the backend does not know yet */
};

static void on_done(void *ctx, enum outcome oc)
{
	struct asked *k = ctx;
	struct req *r = k->req;

	if (oc == OC_OK && k->by_user)
		push_tell_erased(k->api, k->appid, k->openid);
	if (oc == OC_OK)
		req_reply(r, 204, NULL, NULL, 0);
	else
		user_reply_failure(r, oc);
	req_release(r);
}

/* The user database is asked first: where it does not answer, the mark would keep the user out for
 * nothing. */
static void on_database(void *ctx, enum outcome oc, const struct user *u)
{
	struct asked *k = ctx;

	(void)u;
	if (oc == OC_OK || oc == OC_NOT_FOUND) /* users is none */
		erase_user(k->api, k->appid, k->openid, on_done, k);
	else
		on_done(k, oc);
}

static void erase_for(
	struct api *api, struct req *r, enum audit_by by, const char *appid, const char *openid)
{
	struct arena *a = req_arena(r);
	struct asked *k = arena_alloc(a, sizeof(*k));

	*k = (struct asked){
		api, r, arena_strdup(a, appid), arena_strdup(a, openid), by == AUDIT_BY_USER};
	record_success(api, r, AUDIT_USER_ERASED, by, appid, openid);
	req_hold(r);
	user_get(api->users, k->appid, k->openid, WAIT_MS, on_database, k);
}

void user_erase_inside_handle(struct api *api, struct req *r)
{
	const char *appid, *openid;

	if (guard_path_names(r, &appid, &openid)) /* also of an app that is configured no more */
		erase_for(api, r, AUDIT_BY_BACKEND, appid, openid);
}

struct leaving {
	struct api *api;
	struct req *req;
};

static void on_session(void *ctx, const struct session *ses)
{
	struct leaving *l = ctx;

	erase_for(l->api, l->req, AUDIT_BY_USER, ses->appid, ses->openid);
}

void user_delete_handle(struct api *api, struct req *r)
{
	struct leaving *l = arena_alloc(req_arena(r), sizeof(*l));

	*l = (struct leaving){api, r};
	guard_session(api, r, on_session, l);
}
