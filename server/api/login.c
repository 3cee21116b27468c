/* POST /v1/login: exchanges a code from wx.login for a session. login_run runs login_steps in
 * order. A step that has to wait returns OC_PENDING, and its callback calls login_run to continue.
 *
 * A claim (store/code.h) is the key in Redis by which one login reserves a code, so that only this
 * login asks WeChat about it. To settle a claim is to store the result in it: the session, or a
 * final refusal.
 *
 * A repeat is another login with the same code and the same nonce (or none in both): the client
 * sent its request again. The nonce is a random string of the client, so that nobody else who has
 * the code gets the session. While a repeat finds the claim held, it polls; once the claim is
 * settled, it gives the same result without asking WeChat. The same code with another nonce is
 * refused. */
#include <inttypes.h>
#include <string.h>
#include <strings.h>

#include <utlist.h>

#include "api/body.h"
#include "api/forward.h"
#include "api/guard.h"
#include "api/limit.h"
#include "api/record.h"
#include "common/buf.h"
#include "common/clock.h"
#include "common/encode.h"
#include "common/mem.h"
#include "common/metrics.h"

enum {
	CODE_MAX = 256,       /* characters, ASCII */
	APPID_MAX = 64,       /* bytes */
	NONCE_MAX = 64,       /* characters */
	UTF8_MAX = 4,         /* bytes of a character */
	POLL_FIRST_MS = 10,   /* until the first re-read of a claim that another login holds */
	POLL_MAX_MS = 80,     /* the interval doubles up to this */
	CLAIM_SLACK_MS = 500, /* a claim lasts this much longer than the login's own timeouts */
	USER_WAIT_MS = 200,   /* maximum wait for the user database */
};

/* WeChat's refusals that cannot change for this code. 41008 (code missing) is not among them:
 * we always send a code, so something changed our request on its way to WeChat. */
enum { CODE_INVALID = 40029, CODE_USED = 40163, USER_HIGH_RISK = 40226 };

struct login {
	struct api *api;
	struct req *req;
	size_t      step;
	const char *code, *nonce;
	struct wechat_app app;      /* copied: a reload may replace the configured one */
	/* by clock_ms: when the call to WeChat must have ended. It limits our own call, and our
	 * polling while another login makes the call */
	int64_t     deadline_ms;
	struct code_claim claim;
	bool        claimed;        /* we hold the claim and have not settled it */
	struct timer *poll_timer;   /* until the claim of another login is read again */
	struct login *prev, *next;  /* links in api->polling while poll_timer runs */
	int         poll_ms;        /* the next interval */
	struct wechat_session ws;   /* in the request's arena: freed with the request */
	const char *token;
	int64_t     expires_in_s;
	int64_t     created_ms;     /* by Redis' clock */
	/* by clock_ms: when we called session_create (in a repeat: session_get).
	 * 0: login_session_still_valid must ask Redis again */
	int64_t     asked_ms;
	bool        begun;          /* counted in api->logins */
	bool        replayed;       /* a repeat: the session is the first login's */
	bool        user_pending;   /* the user database was asked and has not answered */
	bool        user_waited;    /* login_wait_for_user returned OC_PENDING: on_user continues */
	bool        new_user_known, new_user;
	bool        blocked;        /* by the user database */
	bool        answered;       /* the response was sent */
	struct client client;
	int         wait_s;         /* Retry-After of our own rate limit; 0 if it did not refuse */
	const char *message;        /* for invalid_request and for our own user_blocked */
	int         errcode;
};

static enum outcome login_claim(struct login *l);
static enum outcome login_exchange(struct login *l);
static enum outcome login_save_session(struct login *l);
static enum outcome login_settle(struct login *l);
static enum outcome login_wait_for_user(struct login *l);
static enum outcome login_not_blocked(struct login *l);
static enum outcome login_session_still_valid(struct login *l);

enum { STEP_WAIT_FOR_USER = 4 };

static enum outcome (*const login_steps[])(struct login *) = {
	/* holds the code; a repeat goes on with STEP_WAIT_FOR_USER, or is refused */
	login_claim,
	/* asks WeChat: code -> openid, session_key */
	login_exchange,
	/* creates the session; then the answer is 200, unless STEP_WAIT_FOR_USER or a later step
	 * finds that the user is blocked, that the session has ended, or that Redis is away */
	login_save_session,
	/* stores the token, encrypted, in the claim, for repeats */
	login_settle,
	/* waits for the user database, which on_saved or on_repeat_session asked */
	[STEP_WAIT_FOR_USER] = login_wait_for_user,
	/* if the user is blocked, ends the session and refuses */
	login_not_blocked,
	/* if redis.timeout or more has passed since asked_ms, reads the session again */
	login_session_still_valid,
	/* once more: login_wait_for_user does not wait if the user database is down; it may be
	 * back, and have answered while the session was read */
	login_not_blocked,
};

/* ---- reading the request ---- */

/* curl -d sends JSON with the Content-Type of a form unless it is told otherwise. So a body that
 * begins with '{' is read as JSON. */
static bool is_form(const struct req *r)
{
	static const char form[] = "application/x-www-form-urlencoded";
	const char *type = req_header(r, "Content-Type");
	size_t n = sizeof(form) - 1, len;

	return *req_body(r, &len) != '{' && type && !strncasecmp(type, form, n) &&
	       (type[n] == '\0' || type[n] == ';' || type[n] == ' ');
}

static bool code_ok(const char *code)
{
	size_t n = strlen(code);

	if (n < 1 || n > CODE_MAX)
		return false;
	for (; *code; code++)
		if (*code < ' ' || *code > '~')
			return false;
	return true;
}

static const char *read_json(struct login *l, const char **appid)
{
	const struct body_text texts[] = {
		{"code", 1, CODE_MAX, true, "code is missing, or is not a string of 1 to 256 characters.", &l->code},
		{"appid", 1, APPID_MAX, false, "appid must be a string of 1 to 64 bytes.", appid},
		{"nonce", 0, NONCE_MAX * UTF8_MAX, false, "nonce must be a string of up to 64 characters.", &l->nonce},
	};

	return body_texts(l->req, texts, NELEM(texts));
}

static const char *read_form(struct login *l, const char **appid)
{
	const char *wrong = req_form_wrong(l->req);

	if (wrong)
		return wrong;
	l->code = req_form_param(l->req, "code");
	l->nonce = req_form_param(l->req, "nonce");
	*appid = req_form_param(l->req, "appid");
	if (!l->code)
		return "code is missing in the form.";
	if (*appid && (!**appid || strlen(*appid) > APPID_MAX))
		return "appid must be a string of 1 to 64 bytes.";
	if (l->nonce && !utf8_valid(l->nonce, strlen(l->nonce)))
		return "nonce is not valid UTF-8.";
	return NULL;
}

/* WeChat sets Referer to https://servicewechat.com/{appid}/{version}/page-frame.html. A hint, never
 * proof: it only picks an app. */
static const char *referer_appid(const struct req *r, size_t *len)
{
	static const char start[] = "https://servicewechat.com/";
	const char *ref = req_header(r, "Referer");

	if (!ref || strncmp(ref, start, sizeof(start) - 1))
		return NULL;
	ref += sizeof(start) - 1;
	*len = strcspn(ref, "/");
	return *len > 0 && ref[*len] == '/' ? ref : NULL;
}

static enum outcome choose_app(struct login *l, const char *appid)
{
	const struct api *api = l->api;
	const struct wechat_app *app = NULL;
	size_t len = 0;
	const char *ref = referer_appid(l->req, &len);

	/* In this order: what the body names (final, even if it is not configured), what the
	 * Referer names, the only one configured. */
	if (appid)
		app = api_app(api, appid, strlen(appid));
	else if (ref)
		app = api_app(api, ref, len);
	if (!appid && !app && api->app_count == 1)
		app = &api->apps[0];
	if (!appid && !app && !ref) {
		l->message = "appid is missing: several apps are configured, and no Referer from "
			     "WeChat names one.";
		return OC_INVALID_REQUEST;
	}
	if (!app)
		return OC_UNKNOWN_APP;
	l->app = *api_app_copy(req_arena(l->req), app);
	return OC_OK;
}

static enum outcome read_request(struct login *l)
{
	const char *appid = NULL;

	l->message = is_form(l->req) ? read_form(l, &appid) : read_json(l, &appid);
	if (!l->message && !code_ok(l->code))
		l->message =
			"code must be 1 to 256 printable ASCII characters, as wx.login gave it.";
	if (!l->message && l->nonce && utf8_length(l->nonce, strlen(l->nonce)) > NONCE_MAX)
		l->message = "nonce is longer than 64 characters.";
	return l->message ? OC_INVALID_REQUEST : choose_app(l, appid);
}

/* ---- the answer ---- */

/* A login that failed gives up its claim, so that the code can be tried again. A final refusal of
 * WeChat is stored in the claim instead, so that repeats get it without asking WeChat. */
static void give_claim_back(struct login *l, enum outcome oc)
{
	if (!l->claimed)
		return;
	l->claimed = false;
	if (l->errcode == CODE_INVALID || l->errcode == CODE_USED || l->errcode == USER_HIGH_RISK)
		code_settle_refusal(l->api->codes, &l->claim, oc, l->errcode);
	else
		code_drop(l->api->codes, &l->claim);
}

static void record_login(struct login *l, enum outcome oc)
{
	record(l->api, l->req,
		(struct audit_line){.event = oc == OC_OK ? AUDIT_LOGIN : AUDIT_LOGIN_REFUSED,
			.by = AUDIT_BY_USER,
			.appid = l->app.appid,
			.openid = l->ws.openid,
			.result = oc == OC_OK ? NULL : outcome_code(oc),
			.detail = oc == OC_OK && l->replayed ? "replayed" : NULL});
}

static void login_answer(struct login *l, enum outcome oc)
{
	struct buf b = {0};

	l->answered = true;
	if (l->begun)
		l->api->logins--;
	give_claim_back(l, oc);
	timer_free(l->poll_timer);
	l->poll_timer = NULL;
	metric_inc1(LOGINS, oc == OC_OK && l->replayed ? "replayed" : outcome_code(oc));
	req_note(l->req, "outcome", oc == OC_OK && l->replayed ? "replayed" : outcome_code(oc));
	record_login(l, oc);
	/* our own block. With an errcode (USER_HIGH_RISK) it is WeChat that refuses the user */
	if (oc == OC_USER_BLOCKED && !l->errcode)
		l->message = "This user is blocked.";
	if (oc != OC_OK) {
		req_reply_error(l->req,
			&(struct req_error){.oc = oc,
				.message = l->message,
				.errcode = l->errcode,
				.retry_after_s =
					l->wait_s ? l->wait_s : wechat_retry_after_s(l->errcode)});
		return;
	}
	json_open(&b, NULL, '{');
	json_add_str(&b, "third_session", l->token);
	json_add_int(&b, "expires_in", l->expires_in_s);
	if (l->new_user_known)
		json_add_bool(&b, "new_user", l->new_user);
	json_close(&b, '}');
	req_reply_json(l->req, 200, b.data);
	buf_free(&b);
}

/* The login continues even if the client disconnects. WeChat accepts a code only once, and the
 * client will send the same code again to get the result. */
static void login_run(struct login *l, enum outcome oc)
{
	while (oc == OC_OK && l->step < NELEM(login_steps))
		oc = login_steps[l->step++](l);
	if (oc != OC_PENDING)
		login_answer(l, oc);
}

/* ---- the user database ---- */

/* The user database is asked after the session was created, because it stores the time at which the
 * session was created (last_login_at). If it is down, or does not answer within USER_WAIT_MS, the
 * response has no new_user. */

static void ignore_result(void *ctx, enum outcome oc)
{
	(void)ctx;
	(void)oc;
}

static void take_user(struct login *l, const struct user *u)
{
	l->blocked = user_block_holds(&u->block, clock_wall_s());
	l->new_user_known = !l->blocked;
	/* A repeat does not update the row. If the times are equal, the only login so far is the
	 * one that made the row, so the user is still new. */
	l->new_user = u->is_new ||
		      (l->replayed && u->number[USER_created_at] == u->number[USER_last_login_at]);
	if (l->blocked && l->answered) /* too late to refuse: all we can do is end the session */
		session_end(l->api->sessions, l->token, "blocked", ignore_result, NULL);
}

static void on_user(void *ctx, enum outcome oc, const struct user *u)
{
	struct login *l = ctx;

	l->user_pending = false;
	if (oc == OC_OK && u)
		take_user(l, u);
	else if (oc == OC_OK)
		l->asked_ms = 0; /* the user was erased meanwhile, so the session may have ended */
	if (l->user_waited)
		login_run(l, OC_OK);
	req_release(l->req);
}

static void ask_user(struct login *l)
{
	if (user_db_is_none(l->api->users))
		return;
	l->user_pending = true;
	req_hold(l->req);
	if (l->replayed)
		user_get(l->api->users, l->app.appid, l->ws.openid, USER_WAIT_MS, on_user, l);
	else
		user_seen(l->api->users, l->app.appid, l->ws.openid,
			*l->ws.unionid ? l->ws.unionid : NULL, l->created_ms, USER_WAIT_MS, on_user,
			l);
}

static enum outcome login_wait_for_user(struct login *l)
{
	if (!l->user_pending || !user_db_is_up(l->api->users))
		return OC_OK;
	l->user_waited = true;
	return OC_PENDING;
}

static void on_blocked_session_ended(void *ctx, enum outcome oc)
{
	struct login *l = ctx;

	login_run(l, oc == OC_OK ? OC_USER_BLOCKED : oc);
	req_release(l->req);
}

static enum outcome login_not_blocked(struct login *l)
{
	if (!l->blocked)
		return OC_OK;
	req_hold(l->req);
	session_end(l->api->sessions, l->token, "blocked", on_blocked_session_ended, l);
	return OC_PENDING;
}

/* ---- is the session still valid? ---- */

/* It may have been ended while this login waited, or while the whole process was stopped (SIGSTOP,
 * a suspended machine). */

static void on_still_valid(
	void *ctx, enum outcome oc, const struct session *ses, const char *reason)
{
	struct login *l = ctx;

	(void)reason;
	if (oc == OC_OK)
		l->expires_in_s = ses->expires_in_s;
	login_run(l, oc == OC_INVALID_SESSION ? OC_INVALID_CODE : oc);
	req_release(l->req);
}

static enum outcome login_session_still_valid(struct login *l)
{
	if (clock_ms() - l->asked_ms < l->api->redis_timeout_ms)
		return OC_OK;
	req_hold(l->req);
	session_get(l->api->sessions, l->token, false, on_still_valid, l);
	return OC_PENDING;
}

/* ---- claim ---- */

static void on_repeat_session(
	void *ctx, enum outcome oc, const struct session *ses, const char *reason)
{
	struct login *l = ctx;

	(void)reason;
	if (oc == OC_OK) {
		l->expires_in_s = ses->expires_in_s;
		l->ws.openid = arena_strdup(req_arena(l->req), ses->openid);
		ask_user(l);
		l->step = STEP_WAIT_FOR_USER;
	}
	login_run(l, oc == OC_INVALID_SESSION ? OC_INVALID_CODE : oc);
	req_release(l->req);
}

static void poll_now(void *ctx);

static enum outcome poll_later(struct login *l)
{
	if (clock_ms() >= l->deadline_ms)
		return OC_WECHAT_UNAVAILABLE;
	if (!l->poll_timer)
		l->poll_timer = timer_new(l->api->loop, poll_now, l);
	req_hold(l->req);
	timer_start(l->poll_timer, l->poll_ms);
	DL_APPEND(l->api->polling, l);
	l->poll_ms = l->poll_ms * 2 < POLL_MAX_MS ? l->poll_ms * 2 : POLL_MAX_MS;
	return OC_PENDING;
}

static enum outcome claim_found(struct login *l, const struct claim_answer *ans)
{
	switch (ans->state) {
	case CLAIM_MINE:
		l->claimed = true;
		return OC_OK;
	case CLAIM_BUSY:
		return poll_later(l);
	case CLAIM_SESSION:
		l->replayed = true;
		l->token = arena_strdup(req_arena(l->req), ans->token);
		l->asked_ms = clock_ms();
		req_hold(l->req);
		session_get(l->api->sessions, l->token, false, on_repeat_session, l);
		return OC_PENDING;
	case CLAIM_REFUSED:
		l->errcode = ans->errcode;
		return ans->refused;
	case CLAIM_SPENT:
		/* The session was given to another nonce; or replay_window is 0, and this repeat
		 * came after the claim was settled. (One that was polling already gets it.) */
		break;
	}
	return OC_INVALID_CODE;
}

static void on_claim(void *ctx, enum outcome oc, const struct claim_answer *ans)
{
	struct login *l = ctx;

	login_run(l, oc == OC_OK ? claim_found(l, ans) : oc);
	req_release(l->req);
}

static void claim(struct login *l)
{
	/* as long as a login can take: the call to WeChat, then two writes to Redis (the session,
	 * the result in the claim) */
	int64_t hold_ms = l->api->login_timeout_ms + 2 * l->api->redis_timeout_ms + CLAIM_SLACK_MS;

	/* on_claim releases the reference that login_claim or poll_later took */
	code_claim_try(l->api->codes, &l->claim, hold_ms, on_claim, l);
}

static void poll_now(void *ctx)
{
	struct login *l = ctx;

	DL_DELETE(l->api->polling, l);
	claim(l);
}

/* A login that polls holds a reference to its request, which on_claim releases. At shutdown its
 * timer will not fire. So try the claim now, without waiting for the timer: Redis is being closed,
 * so the command fails, and on_claim is called all the same. */
void api_close(struct api *api)
{
	while (api->polling) {
		timer_stop(api->polling->poll_timer);
		poll_now(api->polling);
	}
	push_close(api);
	forward_close(api);
}

static enum outcome login_claim(struct login *l)
{
	code_claim_init(l->api->codes, &l->claim, l->app.appid, l->code, l->nonce);
	req_hold(l->req);
	claim(l);
	return OC_PENDING;
}

/* ---- exchange, save, settle ---- */

static void on_exchanged(void *ctx, enum outcome oc, const struct wechat_session *ws)
{
	struct login *l = ctx;
	struct arena *a = req_arena(l->req);

	l->errcode = ws->errcode;
	if (oc == OC_INVALID_CODE)
		limit_login_refused(l->api, &l->client);
	if (oc == OC_OK) {
		l->ws = (struct wechat_session){
			.openid = arena_strdup(a, ws->openid),
			.session_key = arena_strdup(a, ws->session_key),
			.unionid = arena_strdup(a, ws->unionid),
		};
	}
	login_run(l, oc);
	req_release(l->req);
}

static enum outcome login_exchange(struct login *l)
{
	req_hold(l->req);
	wechat_code2session(
		l->api->wechat, &l->app, l->code, l->deadline_ms - clock_ms(), on_exchanged, l);
	return OC_PENDING;
}

static void on_saved(
	void *ctx, enum outcome oc, const char *token, int64_t expires_in_s, int64_t created_ms)
{
	struct login *l = ctx;

	if (oc == OC_OK) {
		l->token = arena_strdup(req_arena(l->req), token);
		l->expires_in_s = expires_in_s;
		l->created_ms = created_ms;
		ask_user(l);
	}
	login_run(l, oc);
	req_release(l->req);
}

static enum outcome login_save_session(struct login *l)
{
	const char *agent = req_header(l->req, "User-Agent");
	struct session_login in = {
		.appid = l->app.appid,
		.openid = l->ws.openid,
		.unionid = l->ws.unionid,
		.session_key = l->ws.session_key,
		.ip = l->client.text,
		.user_agent = agent ? agent : "",
	};

	l->asked_ms = clock_ms();
	req_hold(l->req);
	session_create(l->api->sessions, &in, on_saved, l);
	return OC_PENDING;
}

/* The response does not wait for this write: 200 only promises that the session is in Redis. A
 * repeat that arrives before the write is done finds the claim held, and polls. */
static enum outcome login_settle(struct login *l)
{
	l->claimed = false;
	code_settle_session(l->api->codes, &l->claim, l->token);
	return OC_OK;
}

/* The reasons to refuse a login before it starts: the code stays unused. */
static enum outcome may_begin(struct login *l)
{
	struct api *api = l->api;

	if ((l->wait_s = limit_login(api, l->req, &l->client, l->app.appid)) > 0)
		return OC_RATE_LIMITED;
	if (!redis_is_ready(api->redis))
		return OC_STORE_UNAVAILABLE; /* refuse at once, while the code is unused */
	if (api->logins == api->logins_max)
		return OC_OVERLOADED; /* refuse at once: the queue for WeChat is full */
	return OC_OK;
}

void login_handle(struct api *api, struct req *r)
{
	struct login *l = arena_alloc(req_arena(r), sizeof(*l)); /* zeroed */
	enum outcome oc;

	l->api = api;
	l->req = r;
	l->poll_ms = POLL_FIRST_MS;
	l->deadline_ms = clock_ms() + api->login_timeout_ms;
	guard_client(api, r, &l->client);
	oc = read_request(l);
	if (oc == OC_OK)
		oc = may_begin(l);
	l->begun = oc == OC_OK;
	if (l->begun)
		api->logins++;
	login_run(l, oc);
}
