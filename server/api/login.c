/* POST /v1/login: a code becomes a session. The steps below are read top to bottom; a step that
 * waits says PENDING, and its callback goes on with login_run. The claim on the code may end the
 * login early: the code was answered already. */
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
	CODE_MAX = 256,
	APPID_MAX = 64,
	NONCE_MAX = 64,
	LOOK_FIRST_MS = 10,
	LOOK_MAX_MS = 80,
	CLAIM_SLACK_MS = 500,
	USER_WAIT_MS = 200
};

struct login {
	struct api *api;
	struct req *req;
	size_t      step;
	const char *code, *nonce;
	struct wechat_app app;      /* copied: a reload may replace the configured one */
	int64_t     deadline_ms;    /* for all talk with WeChat, ours or the one we wait for */
	struct code_claim claim;
	bool        claimed;        /* the claim is ours and undecided */
	struct timer *look_again;   /* while somebody else asks WeChat */
	struct login *prev, *next;  /* of api->looking, while look_again runs */
	int         look_ms;
	struct wechat_session ws;   /* in the request's arena */
	const char *token;
	int64_t     expires_in_s;
	int64_t     created_ms;     /* by Redis' clock */
	int64_t     asked_ms;       /* when Redis was asked last whether the session is there */
	bool        begun;          /* counted in api->logins */
	bool        replayed;
	/* the user database has yet to answer; nothing but that is missing */
	bool        user_asked, user_waited;
	bool        new_user_known, new_user;
	bool        blocked;        /* the user database says so */
	bool        answered;
	struct client client;
	int         wait_s;         /* our own limit's */
	const char *message;        /* for invalid_request */
	int         errcode;
};

static enum outcome login_claim(struct login *l);
static enum outcome login_exchange(struct login *l);
static enum outcome login_save_session(struct login *l);
static enum outcome login_settle(struct login *l);
static enum outcome login_wait_for_user(struct login *l);
static enum outcome login_not_blocked(struct login *l);
static enum outcome login_still_lives(struct login *l);

static enum outcome (*const login_steps[])(struct login *) = {
	login_claim,         /* may jump to the last step, or the end: this code was answered */
	login_exchange,      /* code -> openid, session_key */
	login_save_session,  /* in Redis: from here the answer is 200 */
	login_settle,        /* so that a repeat of the code gets this session */
	login_wait_for_user, /* what the user database, asked meanwhile, has to say */
	login_not_blocked,   /* nothing, unless it says that the user is blocked */
	login_still_lives,   /* nothing, unless all that took long, or the user was erased */
};

/* ---- what was asked ---- */

/* A form that begins with a brace is JSON from a client that left its default Content-Type (curl -d
 * does). */
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
		{"code", 1, CODE_MAX, true, "code is missing, or no text of 1 to 256 characters.", &l->code},
		{"appid", 1, APPID_MAX, false, "appid is no text of 1 to 64 characters.", appid},
		{"nonce", 0, NONCE_MAX * 4, false, "nonce is no text of up to 64 characters.", &l->nonce},
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
		return "appid is no text of 1 to 64 characters.";
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
	const char *ref;
	size_t len;

	if (appid)
		app = api_app(api, appid, strlen(appid));
	else if ((ref = referer_appid(l->req, &len)) && (app = api_app(api, ref, len)))
		;
	else if (api->app_count == 1)
		app = &api->apps[0];
	else if (!ref) {
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

/* ---- the end ---- */

/* The claim must not outlive a login that came to nothing; a refusal for good is shared. */
static void give_claim_back(struct login *l, enum outcome oc)
{
	if (!l->claimed)
		return;
	l->claimed = false;
	if (l->errcode == 40029 || l->errcode == 40163 || l->errcode == 40226)
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
	l->api->logins -= l->begun;
	give_claim_back(l, oc);
	timer_free(l->look_again);
	l->look_again = NULL;
	metric_inc1(LOGINS, oc == OC_OK && l->replayed ? "replayed" : outcome_code(oc));
	req_note(l->req, "outcome", oc == OC_OK && l->replayed ? "replayed" : outcome_code(oc));
	record_login(l, oc);
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

/* A login goes on when its caller has gone: the code is spent, and the caller will ask for what
 * came of it. */
static void login_run(struct login *l, enum outcome oc)
{
	while (oc == OC_OK && l->step < NELEM(login_steps))
		oc = login_steps[l->step++](l);
	if (oc != OC_PENDING)
		login_answer(l, oc);
}

/* ---- the user database ---- */

/* It is asked once there is a session, since it is told when that was made; and what it has not
 * said within its 200 ms, or while it is away, the answer goes without. */

static void on_nothing(void *ctx, enum outcome oc)
{
	(void)ctx;
	(void)oc;
}

static void hear_user(struct login *l, const struct user *u)
{
	l->blocked = user_block_holds(&u->block, clock_wall_s());
	l->new_user_known = !l->blocked;
	/* a repeat only looks: nobody has logged in since the row was made */
	l->new_user = u->is_new ||
		      (l->replayed && u->number[USER_created_at] == u->number[USER_last_login_at]);
	if (l->blocked && l->answered)
		session_end(l->api->sessions, l->token, "blocked", on_nothing, NULL);
}

static void on_user(void *ctx, enum outcome oc, const struct user *u)
{
	struct login *l = ctx;

	l->user_asked = false;
	if (oc == OC_OK && u)
		hear_user(l, u);
	else if (oc == OC_OK)
		l->asked_ms = 0; /* erased meanwhile: then the session has ended, too */
	if (l->user_waited)
		login_run(l, OC_OK);
	req_release(l->req);
}

static void ask_user(struct login *l)
{
	if (user_db_is_none(l->api->users))
		return;
	l->user_asked = true;
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
	if (!l->user_asked || !user_db_is_up(l->api->users))
		return OC_OK;
	l->user_waited = true;
	return OC_PENDING;
}

static void on_block_ended(void *ctx, enum outcome oc)
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
	session_end(l->api->sessions, l->token, "blocked", on_block_ended, l);
	return OC_PENDING;
}

/* ---- the session may have been ended while we waited, or stood still ---- */

static void on_still_lives(
	void *ctx, enum outcome oc, const struct session *ses, const char *reason)
{
	struct login *l = ctx;

	(void)reason;
	if (oc == OC_OK)
		l->expires_in_s = ses->expires_in_s;
	login_run(l, oc == OC_INVALID_SESSION ? OC_INVALID_CODE : oc);
	req_release(l->req);
}

static enum outcome login_still_lives(struct login *l)
{
	if (clock_ms() - l->asked_ms < l->api->redis_timeout_ms)
		return OC_OK;
	req_hold(l->req);
	session_get(l->api->sessions, l->token, false, on_still_lives, l);
	return OC_PENDING;
}

static enum outcome finish_early(struct login *l, enum outcome oc)
{
	l->step = NELEM(login_steps);
	return oc;
}

/* ---- claim ---- */

static void on_repeat_lives(
	void *ctx, enum outcome oc, const struct session *ses, const char *reason)
{
	struct login *l = ctx;

	(void)reason;
	finish_early(l, oc);
	if (oc == OC_OK) {
		l->expires_in_s = ses->expires_in_s;
		l->ws.openid = arena_strdup(req_arena(l->req), ses->openid);
		ask_user(l);
		l->step = NELEM(login_steps) - 3; /* new_user */
	}
	login_run(l, oc == OC_INVALID_SESSION ? OC_INVALID_CODE : oc);
	req_release(l->req);
}

static void look_now(void *ctx);

static enum outcome look_later(struct login *l)
{
	if (clock_ms() >= l->deadline_ms)
		return OC_WECHAT_UNAVAILABLE;
	if (!l->look_again)
		l->look_again = timer_new(l->api->loop, look_now, l);
	req_hold(l->req);
	timer_start(l->look_again, l->look_ms);
	DL_APPEND(l->api->looking, l);
	l->look_ms = l->look_ms * 2 < LOOK_MAX_MS ? l->look_ms * 2 : LOOK_MAX_MS;
	return OC_PENDING;
}

static enum outcome claim_found(struct login *l, const struct claim_answer *ans)
{
	switch (ans->state) {
	case CLAIM_MINE:
		l->claimed = true;
		return OC_OK;
	case CLAIM_BUSY:
		return look_later(l);
	case CLAIM_SESSION:
		l->replayed = true;
		l->token = arena_strdup(req_arena(l->req), ans->token);
		l->asked_ms = clock_ms();
		req_hold(l->req);
		session_get(l->api->sessions, l->token, false, on_repeat_lives, l);
		return OC_PENDING;
	case CLAIM_REFUSED:
		l->errcode = ans->errcode;
		return finish_early(l, ans->refused);
	case CLAIM_SPENT:
		break;
	}
	return finish_early(l, OC_INVALID_CODE);
}

static void on_claim(void *ctx, enum outcome oc, const struct claim_answer *ans)
{
	struct login *l = ctx;

	login_run(l, oc == OC_OK ? claim_found(l, ans) : oc);
	req_release(l->req);
}

static void look(struct login *l)
{
	/* WeChat, then two writes: session, settle */
	int64_t hold_ms = l->api->login_timeout_ms + 2 * l->api->redis_timeout_ms + CLAIM_SLACK_MS;

	/* keeps look_later's hold */
	code_claim_try(l->api->codes, &l->claim, hold_ms, on_claim, l);
}

static void look_now(void *ctx)
{
	struct login *l = ctx;

	DL_DELETE(l->api->looking, l);
	look(l);
}

void api_close(struct api *api)
{
	while (api->looking) {
		timer_stop(api->looking->look_again);
		look_now(api->looking);
	}
	push_close(api);
	forward_close(api);
}

static enum outcome login_claim(struct login *l)
{
	code_claim_init(l->api->codes, &l->claim, l->app.appid, l->code, l->nonce);
	req_hold(l->req);
	look(l);
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

/* Nobody waits for it: the session is in Redis, and that is what 200 says. A repeat that is faster
 * finds the claim, and looks again. */
static enum outcome login_settle(struct login *l)
{
	l->claimed = false;
	code_settle_session(l->api->codes, &l->claim, l->token);
	return OC_OK;
}

/* What keeps a login from being begun. */
static enum outcome may_begin(struct login *l)
{
	struct api *api = l->api;

	if ((l->wait_s = limit_login(api, l->req, &l->client, l->app.appid)) > 0)
		return OC_RATE_LIMITED;
	if (!redis_is_ready(api->redis))
		return OC_STORE_UNAVAILABLE; /* before the code is spent */
	if (api->logins == api->logins_max)
		return OC_OVERLOADED; /* at once: to wait in line for WeChat would only end so */
	return OC_OK;
}

void login_handle(struct api *api, struct req *r)
{
	struct login *l = arena_alloc(req_arena(r), sizeof(*l));
	enum outcome oc;

	l->api = api;
	l->req = r;
	l->look_ms = LOOK_FIRST_MS;
	l->deadline_ms = clock_ms() + api->login_timeout_ms;
	guard_client(api, r, &l->client);
	oc = read_request(l);
	if (oc == OC_OK)
		oc = may_begin(l);
	l->begun = oc == OC_OK;
	api->logins += l->begun;
	login_run(l, oc);
}
