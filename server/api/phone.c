/* POST /v1/user/phone: the code of the getPhoneNumber button becomes the user's number, which is
 * kept with the user.
 *
 * A code is good once. So what can be known to fail is looked at before it is spent, and 200 says
 * that the number was kept: a backend that reads it from the user must not find less than the phone
 * was told. */
#include <string.h>

#include "api/body.h"
#include "api/guard.h"
#include "api/limit.h"
#include "api/record.h"

enum { CODE_MAX = 256, WAIT_MS = 2000 };

struct phoning {
	struct api *api;
	struct req *req;
	struct wechat_app *app;
	const char *openid, *code;
	struct keeper_use use;
	struct wechat_phone phone; /* in the request's arena */
};

static const char *read_body(struct phoning *p)
{
	const struct body_text code = {"code", 1, CODE_MAX, true,
		"code is missing, or is not a string of 1 to 256 characters.", &p->code};
	const char *wrong = body_texts(p->req, &code, 1);

	for (const char *c = p->code; c && *c && !wrong; c++)
		if (*c < ' ' || *c > '~')
			wrong = "code must be printable ASCII characters, as the getPhoneNumber "
				"button gave it.";
	return wrong;
}

static void reply_database_down(struct phoning *p, enum outcome oc)
{
	req_reply_error(p->req, &(struct req_error){.oc = oc,
					.message = "The user database cannot answer: try again."});
}

static void reply_phone(void *ctx, const struct session *ses)
{
	struct phoning *p = ctx;
	struct buf b = {0};

	(void)ses;
	json_open(&b, NULL, '{');
	json_add_str(&b, "phoneNumber", p->phone.number);
	json_add_str(&b, "purePhoneNumber", p->phone.pure_number);
	json_add_str(&b, "countryCode", p->phone.country_code);
	json_close(&b, '}');
	req_reply_json(p->req, 200, b.data);
	buf_free(&b);
}

static void on_kept(void *ctx, enum outcome oc, const struct user *u)
{
	struct phoning *p = ctx;

	(void)u;
	/* where users are none there is nothing to keep it with */
	if (oc == OC_OK || oc == OC_NOT_FOUND)
		guard_still_lives(p->api, p->req, reply_phone, p);
	else
		reply_database_down(p, oc);
	req_release(p->req);
}

static void keep_phone(void *ctx, const struct session *ses)
{
	struct phoning *p = ctx;
	struct user_patch patch = {.given = 1u << USER_phone,
		.phone_pure = p->phone.pure_number,
		.keep = true,
		.as_of_ms = ses->created_ms};

	patch.text[USER_phone] = p->phone.number;
	req_hold(p->req);
	user_put(p->api->users, p->app->appid, p->openid, &patch, WAIT_MS, on_kept, p);
}

static void reply_refused(struct phoning *p, enum outcome oc, int errcode)
{
	static const char bad_code[] = "WeChat refuses this code: it is good once, for five "
				       "minutes. Have the button tapped again.";

	req_reply_error(p->req, &(struct req_error){.oc = oc,
					.message = oc == OC_INVALID_CODE ? bad_code : NULL,
					.errcode = errcode,
					.retry_after_s = wechat_retry_after_s(errcode)});
}

static void on_phone(void *ctx, enum outcome oc, const struct wechat_phone *phone)
{
	struct phoning *p = ctx;
	struct arena *a = req_arena(p->req);

	if (keeper_use_again(&p->use, phone->errcode))
		return;
	if (oc == OC_OK) {
		p->phone = (struct wechat_phone){
			.number = arena_strdup(a, phone->number),
			.pure_number = arena_strdup(a, phone->pure_number),
			.country_code = arena_strdup(a, phone->country_code),
		};
		guard_still_lives(p->api, p->req, keep_phone, p);
	} else {
		reply_refused(p, oc, phone->errcode);
	}
	req_release(p->req);
}

static void phone_call(void *ctx, const char *token)
{
	struct phoning *p = ctx;

	wechat_getuserphonenumber(p->api->wechat, p->app, token, p->code, p->openid, on_phone, p);
}

static void phone_fail(void *ctx, const struct keeper_answer *why)
{
	struct phoning *p = ctx;

	req_reply_error(p->req, &(struct req_error){.oc = why->oc,
					.errcode = why->errcode,
					.retry_after_s = why->retry_after_s});
	req_release(p->req);
}

/* The user database is asked first: where it does not answer, the code is not spent. */
static void on_database(void *ctx, enum outcome oc, const struct user *u)
{
	struct phoning *p = ctx;

	(void)u;
	if (oc != OC_OK && oc != OC_NOT_FOUND) { /* not found: users is none */
		reply_database_down(p, oc);
		req_release(p->req);
		return;
	}
	p->use = (struct keeper_use){.keeper = p->api->keeper,
		.arena = req_arena(p->req),
		.app = p->app,
		.call = phone_call,
		.fail = phone_fail,
		.ctx = p};
	keeper_use(&p->use);
}

static void on_session(void *ctx, const struct session *ses)
{
	struct phoning *p = ctx;
	struct req *r = p->req;
	const char *wrong = read_body(p);

	if (wrong) {
		req_reply_error(r, &(struct req_error){.oc = OC_INVALID_REQUEST, .message = wrong});
		return;
	}
	p->app = guard_app(p->api, r, ses);
	if (!p->app)
		return;
	p->openid = arena_strdup(req_arena(r), ses->openid);
	if (!limit_user(
		    p->api, r, "phone_per_user", &p->api->phone_per_user, p->app->appid, p->openid))
		return;
	record_success(p->api, r, AUDIT_PHONE_READ, AUDIT_BY_USER, p->app->appid, p->openid);
	req_hold(r);
	user_get(p->api->users, p->app->appid, p->openid, WAIT_MS, on_database, p);
}

void phone_handle(struct api *api, struct req *r)
{
	struct phoning *p = arena_alloc(req_arena(r), sizeof(*p));

	p->api = api;
	p->req = r;
	guard_session(api, r, on_session, p);
}
