/* WeChat's messages, /v1/push/{appid}: proved, opened, obeyed once, and sent on to push_forward.
 *
 * Every delivery goes this way: verify, claim the event (store/mark.h), obey, settle, forward. Only
 * an encrypted message is obeyed: the signature of a plain one does not cover what it says. When
 * anything fails the answer is 503, and WeChat sends the message again. */
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "api/erase.h"
#include "api/forward.h"
#include "api/guard.h"
#include "api/record.h"
#include "common/clock.h"
#include "common/crypt.h"
#include "common/log.h"
#include "common/mem.h"
#include "wechat/push.h"

enum {
	AGE_MAX_S = 600,        /* of a message's timestamp, either way */
	FORWARD_MS = 4000,      /* the backend's time */
	ALL_MS = 4700,          /* ours: WeChat waits for 5 s */
	LOOK_AGAIN_MS = 50,     /* while another process obeys the same event */
	DATABASE_MS = 2000,
	NONCE_LEN = 10,
};

enum { CLEAR_PROFILE = 1, CLEAR_PHONE = 2, ERASE = 4 };

struct pushing {
	struct pushing *prev, *next; /* on api->pushings while it waits for another process */
	struct api *api;
	struct req *req;
	const char *appid;
	struct api_push push;        /* copied: a reload may change it */
	bool sealed;                 /* it came encrypted */
	struct push_key key;
	enum push_format envelope;   /* what the answer is written in */
	const char *clear;           /* the message, decrypted */
	size_t clear_len;
	struct push_message m;       /* what it says */
	int64_t deadline_ms;
	unsigned plan;               /* what is obeyed */
	int64_t created_s;           /* when WeChat made it */
	struct mark mark;
	struct timer *again;
};

/* The app's setting; NULL: answered. */
static const struct api_push *push_of(struct api *api, struct req *r)
{
	const char *appid = route_segment(r, 0);
	const struct wechat_app *app = appid ? api_app(api, appid, strlen(appid)) : NULL;

	if (app && *api_push(api, app)->token)
		return api_push(api, app);
	req_reply_outcome(r, OC_NOT_FOUND);
	return NULL;
}

static void refuse(struct req *r, const char *why)
{
	req_note(r, "reason", why);
	req_reply_outcome(r, OC_BAD_SIGNATURE);
}

/* Is the parameter of that name the signature of the query, and of encrypt where it is not NULL? */
static bool is_signed(struct req *r, const char *name, const char *token, const char *encrypt)
{
	const char *signature = req_param(r, name), *timestamp = req_param(r, "timestamp"),
		   *nonce = req_param(r, "nonce");

	return signature && timestamp && nonce &&
	       push_signature_ok(signature, token, timestamp, nonce, encrypt);
}

void push_prove_handle(struct api *api, struct req *r)
{
	const struct api_push *push = push_of(api, r);
	const char *echo = req_param(r, "echostr");

	if (!push)
		return;
	if (!is_signed(r, "signature", push->token, NULL))
		refuse(r, "signature");
	else
		req_reply(r, 200, "text/plain", echo ? echo : "", echo ? strlen(echo) : 0);
}

/* ---- the answer ---- */

static const char *sealed_answer(struct pushing *p, const char *text, size_t len)
{
	struct arena *a = req_arena(p->req);
	char signature[PUSH_SIGNATURE_SIZE], nonce[NONCE_LEN + 1];
	uint8_t random[PUSH_RANDOM_LEN + NONCE_LEN];
	const char *encrypt, *now = arena_printf(a, "%lld", (long long)clock_wall_s());

	crypt_random(random, sizeof(random));
	for (int i = 0; i < NONCE_LEN; i++)
		nonce[i] = (char)('0' + random[PUSH_RANDOM_LEN + i] % 10);
	nonce[NONCE_LEN] = '\0';
	encrypt = push_seal(a, &p->key, p->appid, random, text, len);
	push_sign(signature, p->push.token, now, nonce, encrypt);
	return arena_printf(a,
		p->envelope == PUSH_JSON
			? "{\"Encrypt\":\"%s\",\"MsgSignature\":\"%s\",\"TimeStamp\":%s,\"Nonce\":"
			  "\"%s\"}"
			: "<xml><Encrypt><![CDATA[%s]]></Encrypt><MsgSignature><![CDATA[%s]]></"
			  "MsgSignature>"
			  "<TimeStamp>%s</TimeStamp><Nonce><![CDATA[%s]]></Nonce></xml>",
		encrypt, signature, now, nonce);
}

static const char *type_of(enum push_format format)
{
	return format == PUSH_JSON ? "application/json" : "text/xml";
}

static void answer(struct pushing *p, const char *type, const char *body, size_t len)
{
	bool as_it_is = len == 0 || (len == 7 && !memcmp(body, "success", 7));

	if (p->sealed && !as_it_is) {
		type = type_of(p->envelope);
		body = sealed_answer(p, body, len);
		len = strlen(body);
	}
	req_reply(p->req, 200, as_it_is || !*type ? "text/plain" : type, body, len);
}

static void end(struct pushing *p)
{
	struct req *r = p->req;

	timer_free(p->again);
	req_release(r);
}

/* ---- forward ---- */

static void on_forwarded(void *ctx, const struct fetch_reply *rp)
{
	struct pushing *p = ctx;

	if (forward_ok(rp)) {
		answer(p, rp->content_type, rp->body, rp->body_len);
	} else {
		log_warn("push_forward did not accept a message", LOG_STR("appid", p->appid),
			LOG_INT("status", rp->status), LOG_STR("cause", rp->error));
		req_reply_outcome(p->req, OC_BACKEND_UNAVAILABLE);
	}
	end(p);
}

/* It becomes a header, and a part of SQL's and Redis' names. */
static bool openid_ok(const char *openid)
{
	size_t n = openid ? strlen(openid) : 0;

	return n >= 1 && n <= USER_OPENID_MAX &&
	       strspn(openid, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") ==
		       n;
}

static bool is_event(const struct pushing *p)
{
	return p->m.msg_type && !strcmp(p->m.msg_type, "event");
}

/* The user whom a message names, or NULL. An event's FromUserName may be WeChat itself. */
static const char *user_named(const struct pushing *p)
{
	const char *from = p->m.msg_type && !is_event(p) ? p->m.from : NULL,
		   *openid = p->m.openid ? p->m.openid : from;

	return openid_ok(openid) ? openid : NULL;
}

static void forward(struct pushing *p)
{
	int64_t left_ms = p->deadline_ms - clock_ms();

	if (!*p->push.forward) {
		answer(p, "", "success", 7);
		end(p);
		return;
	}
	forward_send(p->api, &p->push, &(struct forward){.appid = p->appid,
		.openid = user_named(p),
		.content_type = type_of(p->m.format), .traceparent = req_traceparent(p->req),
		.body = p->clear, .len = p->clear_len,
		.timeout_ms = left_ms < FORWARD_MS ? left_ms : FORWARD_MS}, on_forwarded, p);
}

/* ---- obey ---- */

/* What was obeyed, or could not be, and why. */
static void note(struct pushing *p, enum outcome oc)
{
	bool ok = oc == OC_OK;

	record(p->api, p->req, (struct audit_line){
		.event = p->plan & ERASE ? AUDIT_USER_ERASED : AUDIT_CONSENT_WITHDRAWN,
		.by = AUDIT_BY_WECHAT, .appid = p->appid, .openid = p->m.openid,
		.result = ok ? "ok" : outcome_code(oc),
		.detail = p->m.revoke_info ? p->m.revoke_info : p->m.event});
	if (!ok)
		log_error("a withdrawal of consent was not carried out: WeChat will send it again",
			LOG_STR("appid", p->appid), LOG_STR("event", p->m.event),
			LOG_STR("cause", outcome_code(oc)));
}

static void obeyed(struct pushing *p, enum outcome oc)
{
	note(p, oc);
	mark_settle(p->api->marks, &p->mark, oc == OC_OK);
	if (oc == OC_OK) {
		forward(p);
		return;
	}
	req_reply_outcome(p->req, oc);
	end(p);
}

static void on_ended(void *ctx, enum outcome oc)
{
	obeyed(ctx, oc);
}

static void on_cleared(void *ctx, enum outcome oc, const struct user *u)
{
	struct pushing *p = ctx;

	(void)u;
	/* erased meanwhile: there is nothing to clear */
	obeyed(p, oc == OC_NOT_FOUND ? OC_OK : oc);
}

static void clear(struct pushing *p)
{
	struct user_patch patch = {.keep = true, .as_of_ms = p->created_s * 1000};

	if (p->plan & CLEAR_PROFILE)
		patch.given |= 1u << USER_nickname | 1u << USER_avatar_url;
	if (p->plan & CLEAR_PHONE)
		patch.given |= 1u << USER_phone;
	user_put(p->api->users, p->appid, p->m.openid, &patch, DATABASE_MS, on_cleared, p);
}

/* An event that is older than the user's row was about the user before: they came back since. */
static void on_user(void *ctx, enum outcome oc, const struct user *u)
{
	struct pushing *p = ctx;
	bool older = u && u->exists && p->created_s < u->number[USER_created_at] / 1000;

	if (oc == OC_NOT_FOUND)
		oc = OC_OK; /* users is none: there are sessions alone */
	if (oc != OC_OK || (p->plan & ERASE && older))
		obeyed(p, oc);
	else if (p->plan & ERASE)
		erase_user(p->api, p->appid, p->m.openid, on_ended, p);
	else if (u && u->exists)
		clear(p);
	else
		obeyed(p, OC_OK); /* there is nothing to clear */
}

/* ---- once ---- */

static void claim(struct pushing *p);

static void look_again(void *ctx)
{
	struct pushing *p = ctx;

	DL_DELETE(p->api->pushings, p);
	claim(p);
}

static void on_claim(void *ctx, enum outcome oc, enum mark_state state)
{
	struct pushing *p = ctx;

	if (oc == OC_OK && state == MARK_MINE) {
		user_get(p->api->users, p->appid, p->m.openid, DATABASE_MS, on_user, p);
	} else if (oc == OC_OK && state == MARK_DONE) {
		forward(p);
	} else if (oc == OC_OK && clock_ms() + LOOK_AGAIN_MS < p->deadline_ms) {
		DL_APPEND(p->api->pushings, p);
		timer_start(p->again, LOOK_AGAIN_MS);
	} else {
		req_reply_outcome(p->req, OC_STORE_UNAVAILABLE);
		end(p);
	}
}

static void claim(struct pushing *p)
{
	mark_try(p->api->marks, &p->mark, on_claim, p);
}

void push_close(struct api *api)
{
	struct pushing *p, *next;

	DL_FOREACH_SAFE(api->pushings, p, next) {
		timer_stop(p->again);
		look_again(p);
	}
}

/* ---- what it says ---- */

static unsigned plan_of_number(long number)
{
	switch (number) {
	case 6:  /* nickname and avatar */
	case 19: /* nickname from the keyboard */
	case 20: /* avatar from the avatar button */
		return CLEAR_PROFILE;
	case 8:
		return CLEAR_PHONE;
	default:
		return 0; /* nothing that is kept here: the backend may know */
	}
}

/* Of "6", and of "6,8" should that come. */
static unsigned plan_of_revoke_info(const char *text)
{
	unsigned plan = 0;
	char *end_of;

	while (text && *text) {
		plan |= plan_of_number(strtol(text, &end_of, 10));
		text = end_of + strcspn(end_of, ",");
		text += *text == ',';
	}
	return plan;
}

static unsigned plan_of(const struct pushing *p)
{
	const char *event = p->m.event;

	if (!p->sealed || !event || !openid_ok(p->m.openid) || !is_event(p))
		return 0;
	if (p->m.appid && strcmp(p->m.appid, p->appid) != 0)
		return 0;
	if (!strcmp(event, "user_authorization_revoke"))
		return plan_of_revoke_info(p->m.revoke_info);
	if (!strcmp(event, "user_info_modified"))
		return CLEAR_PROFILE;
	return strcmp(event, "user_authorization_cancellation") ? 0 : ERASE;
}

static int64_t seconds(const char *text)
{
	size_t n = text ? strlen(text) : 0;

	return n >= 1 && n <= 12 && strspn(text, "0123456789") == n ? strtoll(text, NULL, 10) : -1;
}

/* One event, however its deliveries are written. */
static void name_event(struct pushing *p)
{
	const char *text = arena_printf(req_arena(p->req), "%s\n%s\n%s\n%lld\n%s", p->appid,
		p->m.event, p->m.openid, (long long)p->created_s,
		p->m.revoke_info ? p->m.revoke_info : "");

	mark_init(p->api->marks, &p->mark, text, strlen(text));
}

static void obey(struct pushing *p)
{
	p->created_s = seconds(p->m.create_time);
	if (p->created_s < 0)
		p->created_s = seconds(req_param(p->req, "timestamp"));
	p->plan = plan_of(p);
	req_hold(p->req);
	if (!p->plan) {
		forward(p);
		return;
	}
	name_event(p);
	p->again = timer_new(p->api->loop, look_again, p);
	claim(p);
}

/* ---- who sent it ---- */

static bool is_fresh(struct req *r)
{
	int64_t age_s = clock_wall_s() - seconds(req_param(r, "timestamp"));

	return age_s >= -AGE_MAX_S && age_s <= AGE_MAX_S;
}

/* What is wrong with it, or NULL: p->clear is the message. */
static const char *open_sealed(struct pushing *p, const struct push_message *outer)
{
	struct arena *a = req_arena(p->req);

	if (!outer->encrypt)
		return "not encrypted";
	if (!is_signed(p->req, "msg_signature", p->push.token, outer->encrypt))
		return "msg_signature";
	if (!push_key_read(&p->key, p->push.aes_key))
		return "push_aes_key";
	p->clear = push_open(a, &p->key, p->appid, outer->encrypt, &p->clear_len);
	return p->clear ? NULL : "not sealed for this app under push_aes_key";
}

static const char *read_message(struct pushing *p)
{
	const char *wrong;
	struct push_message outer;

	p->clear = req_body(p->req, &p->clear_len);
	p->sealed = *p->push.aes_key;
	if (!p->sealed && !is_signed(p->req, "signature", p->push.token, NULL))
		return "signature";
	push_read(req_arena(p->req), p->clear, p->clear_len, &outer);
	p->envelope = outer.format;
	wrong = p->sealed ? open_sealed(p, &outer) : NULL;
	if (wrong)
		return wrong;
	if (!push_read(req_arena(p->req), p->clear, p->clear_len, &p->m))
		log_warn("a message from WeChat cannot be read: it is forwarded as it is",
			LOG_STR("appid", p->appid));
	return is_fresh(p->req) ? NULL : "timestamp";
}

void push_handle(struct api *api, struct req *r)
{
	const struct api_push *push = push_of(api, r);
	struct arena *a = req_arena(r);
	struct pushing *p;
	const char *wrong;

	if (!push)
		return;
	p = arena_alloc(a, sizeof(*p));
	p->api = api;
	p->req = r;
	p->appid = route_segment(r, 0);
	p->deadline_ms = clock_ms() + ALL_MS;
	p->push = (struct api_push){arena_strdup(a, push->token), arena_strdup(a, push->aes_key),
		arena_strdup(a, push->forward), arena_strdup(a, push->forward_token)};
	wrong = read_message(p);
	if (wrong)
		refuse(r, wrong);
	else
		obey(p);
}
