/* One call is a small loop: pick a host, ask, read, and ask again only where the code cannot have been spent (no byte
 * left us), WeChat itself asks for it (-1), or it refused one of two AppSecrets. Everything else ends the call. */
#include "wechat/wechat.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "common/clock.h"
#include "common/crypt.h"
#include "common/encode.h"
#include "common/json.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/metrics.h"

enum { BUSY_RETRIES = 2, BREAKER_FAILURES = 10, BREAKER_OPEN_MS = 1000, ID_MAX = 128 };

struct wechat {
	struct loop  *loop;
	struct fetch *fetch;
	char   **hosts;
	size_t   host_count;
	int64_t  timeout_ms;
	struct call *calls;      /* under way: those in a pause are ended by wechat_free */
	int      failures;       /* calls in a row that ended without any answer */
	int64_t  open_until_ms;  /* the breaker: until then only one probe at a time goes out */
	bool     probing;
};

struct call {
	struct call *prev, *next;
	struct wechat *wx;
	struct arena  *arena;    /* everything below */
	const char *appid, *secrets[2], *code;
	size_t   host;           /* index into hosts */
	int      secret;         /* index into secrets */
	int      busy;           /* how often WeChat said -1 */
	bool     probe;
	int64_t  deadline_ms, started_us;
	struct timer *pause;     /* before the next try */
	wechat_session_cb cb;
	void    *ctx;
};

/* What an errcode means for a login, whether the same request may be sent again, and how loud it is in the log. From the
 * error tables of code2Session and getStableAccessToken; "mend" is for the operator. */
static const struct errcode_row {
	int            errcode;
	enum outcome   oc;
	bool           retry;
	enum log_level level;
	const char    *mend;
} errcodes[] = {
	{-1,    OC_WECHAT_UNAVAILABLE, true,  LOG_WARN,  "WeChat is busy"},
	{45011, OC_RATE_LIMITED,       false, LOG_WARN,  "WeChat's limit for a minute is reached"},
	{45009, OC_RATE_LIMITED,       false, LOG_ERROR, "WeChat's limit for the day is reached"},
	{40029, OC_INVALID_CODE,       false, LOG_INFO,  "the code is expired, mistyped, or made by another appid: client and server must use the same"},
	{40163, OC_INVALID_CODE,       false, LOG_INFO,  "the code was used before"},
	{41008, OC_INVALID_CODE,       false, LOG_INFO,  "the code is missing"},
	{40226, OC_USER_BLOCKED,       false, LOG_INFO,  "WeChat holds this user for high risk"},
	{40013, OC_WECHAT_CONFIG,      false, LOG_ERROR, "no such appid: check the name of the [app] section"},
	{40125, OC_WECHAT_CONFIG,      false, LOG_ERROR, "wrong AppSecret: check secret in the [app] section, was it reset?"},
	{41002, OC_WECHAT_CONFIG,      false, LOG_ERROR, "the appid is empty: check the [app] section"},
	{41004, OC_WECHAT_CONFIG,      false, LOG_ERROR, "the AppSecret is empty: check the [app] section"},
	{40002, OC_WECHAT_CONFIG,      false, LOG_ERROR, "wrong grant_type: is a proxy changing the request?"},
	{40243, OC_WECHAT_CONFIG,      false, LOG_ERROR, "the AppSecret is frozen: unfreeze it in WeChat's console"},
	{50004, OC_WECHAT_CONFIG,      false, LOG_ERROR, "this API is forbidden for the account: see WeChat's console"},
	{50007, OC_WECHAT_CONFIG,      false, LOG_ERROR, "the account is frozen: see WeChat's console"},
	{40164, OC_WECHAT_CONFIG,      false, LOG_ERROR, "this server's address is not on the IP allow-list in WeChat's console"},
	{61004, OC_WECHAT_CONFIG,      false, LOG_ERROR, "this server's address is not registered with WeChat"},
	{40090, OC_WECHAT_CONFIG,      false, LOG_ERROR, "WeChat refuses this server's address"},
	{45035, OC_WECHAT_CONFIG,      false, LOG_ERROR, "this server's address is not on the allow-list"},
	{48017, OC_WECHAT_CONFIG,      false, LOG_ERROR, "an address of WeChat's that is no longer served: use the host's name"},
	{89503, OC_WECHAT_CONFIG,      false, LOG_ERROR, "the account's administrator must confirm this call"},
	{89506, OC_WECHAT_CONFIG,      false, LOG_ERROR, "the administrator refused this address for 24 hours"},
	{89507, OC_WECHAT_CONFIG,      false, LOG_ERROR, "the administrator refused this address for an hour"},
	{40066, OC_WECHAT_ERROR,       false, LOG_ERROR, "no such URL at WeChat: check wechat.base_url"},
	{43001, OC_WECHAT_ERROR,       false, LOG_ERROR, "WeChat wants GET: is a proxy changing the request?"},
	{43002, OC_WECHAT_ERROR,       false, LOG_ERROR, "WeChat wants POST: is a proxy changing the request?"},
	{43003, OC_WECHAT_ERROR,       false, LOG_ERROR, "WeChat wants HTTPS: check wechat.base_url"},
};

static const struct errcode_row *errcode_find(int errcode)
{
	static const struct errcode_row other = {0, OC_WECHAT_ERROR, false, LOG_ERROR, "an errcode not known here"};

	for (size_t i = 0; i < NELEM(errcodes); i++)
		if (errcodes[i].errcode == errcode)
			return &errcodes[i];
	return &other;
}

enum outcome wechat_outcome(int errcode)
{
	return errcode_find(errcode)->oc;
}

static void call_ask(void *ctx);

static void call_end(struct call *c, enum outcome oc, const struct wechat_session *ws)
{
	struct arena *arena = c->arena;

	DL_DELETE(c->wx->calls, c); /* NOLINT(clang-analyzer-core.NullDereference): c is on the list */
	if (c->probe)
		c->wx->probing = false;
	metric_inc2(WECHAT_REQUESTS, "jscode2session", outcome_code(oc));
	metric_observe_us(metric_series(METRIC_WECHAT_SECONDS, "jscode2session", NULL, NULL), clock_us() - c->started_us);
	timer_free(c->pause);
	c->cb(c->ctx, oc, ws);
	arena_free(arena);
}

static void call_fail(struct call *c, enum outcome oc, int errcode)
{
	call_end(c, oc, &(struct wechat_session){.openid = "", .session_key = "", .unionid = "", .errcode = errcode});
}

/* The breaker: when WeChat gave no answer at all many times in a row, a login that would wait for its time limit is told so at
 * once, and one call a second finds out whether WeChat is back. */
static bool breaker_lets_pass(struct wechat *wx, bool *probe)
{
	*probe = false;
	if (wx->failures < BREAKER_FAILURES)
		return true;
	if (wx->probing || clock_ms() < wx->open_until_ms)
		return false;
	wx->probing = *probe = true;
	return true;
}

static void breaker_note(struct wechat *wx, bool answered)
{
	if (answered) {
		if (wx->failures >= BREAKER_FAILURES)
			log_info("wechat answers again");
		wx->failures = 0;
		return;
	}
	if (++wx->failures == BREAKER_FAILURES)
		log_error("wechat is away: asking once a second until it answers", LOG_INT("failures", wx->failures));
	if (wx->failures >= BREAKER_FAILURES)
		wx->open_until_ms = clock_ms() + BREAKER_OPEN_MS;
}

/* An id that WeChat gives: its alphabet is what ours may be stored and sent in. */
static bool id_ok(const char *s)
{
	size_t n = strlen(s);

	return n >= 1 && n <= ID_MAX &&
	       strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") == n;
}

static bool printable(const char *s)
{
	for (; *s; s++)
		if (*s <= ' ' || *s > '~')
			return false;
	return true;
}

/* errcode: a number, or the same in quotes. Absent means success. */
static enum json_get read_errcode(const cJSON *tree, int *errcode)
{
	const char *text;
	int64_t n = 0;
	enum json_get got = json_int(tree, "errcode", INT32_MIN, INT32_MAX, &n);

	if (got == JSON_BAD && json_str(tree, "errcode", 1, 11, &text) == JSON_GOT) {
		char *end;
		n = strtol(text, &end, 10);
		got = *end || n < INT32_MIN || n > INT32_MAX ? JSON_BAD : JSON_GOT;
	}
	*errcode = got == JSON_GOT ? (int)n : 0;
	return got;
}

/* errmsg is WeChat's own text with the rid that its support asks for. One that repeats our secret or code stays out of the log. */
static const char *loggable_errmsg(const struct call *c, const cJSON *tree)
{
	const char *msg;

	if (json_str(tree, "errmsg", 0, 4096, &msg) != JSON_GOT)
		return "";
	if (strstr(msg, c->code) || strstr(msg, c->secrets[c->secret]))
		return "(withheld: it repeats a secret)";
	return msg;
}

static enum outcome wrong(const char *what, const struct fetch_reply *rp)
{
	log_warn("wechat answered what it should not", LOG_STR("what", what), LOG_INT("status", rp->status),
		LOG_INT("bytes", (int64_t)rp->body_len), LOG_STR("content_type", rp->content_type));
	return OC_WECHAT_ERROR;
}

/* Reads an answer. ws borrows from the tree. */
static enum outcome read_session(const struct call *c, const struct fetch_reply *rp, const cJSON *tree, struct wechat_session *ws)
{
	if (!tree || !cJSON_IsObject(tree))
		return wrong("not a JSON object", rp);
	if (read_errcode(tree, &ws->errcode) == JSON_BAD)
		return wrong("errcode is no number", rp);
	if (ws->errcode != 0) {
		const struct errcode_row *row = errcode_find(ws->errcode);
		log_at(row->level, "wechat refused", LOG_INT("errcode", ws->errcode), LOG_STR("appid", c->appid),
			LOG_STR("means", row->mend), LOG_STR("errmsg", loggable_errmsg(c, tree)));
		return row->oc;
	}
	if (json_str(tree, "openid", 1, ID_MAX, &ws->openid) != JSON_GOT || !id_ok(ws->openid))
		return wrong("openid is missing or malformed", rp);
	if (json_str(tree, "session_key", 1, ID_MAX, &ws->session_key) != JSON_GOT || !printable(ws->session_key))
		return wrong("session_key is missing or malformed", rp);
	switch (json_str(tree, "unionid", 0, ID_MAX, &ws->unionid)) {
	case JSON_ABSENT:
		ws->unionid = "";
		return OC_OK;
	case JSON_GOT:
		return !*ws->unionid || id_ok(ws->unionid) ? OC_OK : wrong("unionid is malformed", rp);
	default:
		return wrong("unionid is malformed", rp);
	}
}

/* true when another try was started. */
static bool call_again(struct call *c, enum outcome oc, int errcode)
{
	int64_t wait_ms;
	uint8_t jitter;

	if (errcode == 40125 && c->secret == 0 && c->secrets[1]) {
		c->secret = 1;
		wait_ms = 0;
	} else if (oc == OC_WECHAT_UNAVAILABLE && errcode_find(errcode)->retry && c->busy < BUSY_RETRIES) {
		crypt_random(&jitter, 1);
		wait_ms = (100 << c->busy++) + jitter / 4;
	} else {
		return false;
	}
	if (clock_ms() + wait_ms >= c->deadline_ms)
		return false;
	timer_start(c->pause, wait_ms);
	return true;
}

static void on_reply(void *ctx, const struct fetch_reply *rp)
{
	struct call *c = ctx;
	struct wechat_session ws = {.openid = "", .session_key = "", .unionid = ""};
	const char *body = rp->body;
	size_t len = rp->body_len;
	enum outcome oc;
	cJSON *tree;

	if (rp->not_sent && rp->result != FETCH_REFUSED && c->host + 1 < c->wx->host_count && clock_ms() < c->deadline_ms) {
		log_warn("wechat host cannot be reached, trying the next", LOG_STR("host", c->wx->hosts[c->host]),
			LOG_STR("cause", rp->error));
		c->host++;
		timer_start(c->pause, 0);
		return;
	}
	switch (rp->result) {
	case FETCH_REFUSED:
		call_fail(c, OC_OVERLOADED, 0);
		return;
	case FETCH_TOO_LARGE:
		breaker_note(c->wx, true);
		call_fail(c, wrong("more than the bound", rp), 0);
		return;
	case FETCH_DONE:
		break;
	default:
		breaker_note(c->wx, false);
		log_warn("wechat gave no answer", LOG_STR("host", c->wx->hosts[c->host]), LOG_STR("cause", rp->error),
			LOG_INT("ms", rp->total_us / 1000));
		call_fail(c, OC_WECHAT_UNAVAILABLE, 0);
		return;
	}
	breaker_note(c->wx, true);
	if (len >= 3 && !memcmp(body, "\xEF\xBB\xBF", 3)) { /* some gateways put a byte order mark first */
		body += 3;
		len -= 3;
	}
	tree = json_parse(body, len);
	oc = read_session(c, rp, tree, &ws);
	if (oc == OC_OK)
		call_end(c, oc, &ws);
	else if (!call_again(c, oc, ws.errcode))
		call_fail(c, oc, ws.errcode);
	json_free(tree);
}

static void call_ask(void *ctx)
{
	struct call *c = ctx;
	int64_t left_ms = c->deadline_ms - clock_ms();
	char *code = arena_alloc(c->arena, strlen(c->code) * 3 + 1);
	char *secret = arena_alloc(c->arena, strlen(c->secrets[c->secret]) * 3 + 1);
	char *appid = arena_alloc(c->arena, strlen(c->appid) * 3 + 1);

	if (left_ms <= 0) {
		call_fail(c, OC_WECHAT_UNAVAILABLE, 0);
		return;
	}
	percent_encode(code, c->code, strlen(c->code));
	percent_encode(secret, c->secrets[c->secret], strlen(c->secrets[c->secret]));
	percent_encode(appid, c->appid, strlen(c->appid));
	fetch_start(c->wx->fetch,
		&(struct fetch_request){
			.method = "GET",
			.url = arena_printf(c->arena, "%s/sns/jscode2session?appid=%s&secret=%s&js_code=%s&grant_type=authorization_code",
				c->wx->hosts[c->host], appid, secret, code),
			.timeout_ms = left_ms,
		},
		on_reply, c);
}

static void refused_by_breaker(void *ctx)
{
	call_fail(ctx, OC_WECHAT_UNAVAILABLE, 0);
}

void wechat_code2session(struct wechat *wx, const struct wechat_app *app, const char *code, int64_t timeout_ms,
	wechat_session_cb cb, void *ctx)
{
	struct arena *arena = arena_new();
	struct call *c = arena_alloc(arena, sizeof(*c));
	bool pass;

	c->wx = wx;
	c->arena = arena;
	c->appid = arena_strdup(arena, app->appid);
	c->secrets[0] = arena_strdup(arena, app->secrets[0]);
	c->secrets[1] = app->secrets[1] ? arena_strdup(arena, app->secrets[1]) : NULL;
	c->code = arena_strdup(arena, code);
	c->started_us = clock_us();
	c->deadline_ms = clock_ms() + (timeout_ms < wx->timeout_ms ? timeout_ms : wx->timeout_ms);
	c->cb = cb;
	c->ctx = ctx;
	pass = breaker_lets_pass(wx, &c->probe);
	c->pause = timer_new(wx->loop, pass ? call_ask : refused_by_breaker, c);
	DL_APPEND(wx->calls, c);
	if (pass && timeout_ms > 0)
		call_ask(c); /* fetch's promise (never before it returns) is ours */
	else
		timer_start(c->pause, 0);
}

struct wechat *wechat_new(struct loop *l, struct fetch *f, const struct wechat_options *o)
{
	struct wechat *wx = mem_alloc(sizeof(*wx));

	wx->loop = l;
	wx->fetch = f;
	wx->host_count = o->base_url_count;
	wx->hosts = mem_alloc(sizeof(*wx->hosts) * (o->base_url_count + 1));
	for (size_t i = 0; i < o->base_url_count; i++)
		wx->hosts[i] = mem_strdup(o->base_urls[i]);
	wx->timeout_ms = o->timeout_ms;
	return wx;
}

void wechat_free(struct wechat *wx)
{
	if (!wx)
		return;
	while (wx->calls)
		call_fail(wx->calls, OC_WECHAT_UNAVAILABLE, 0);
	for (size_t i = 0; i < wx->host_count; i++)
		free(wx->hosts[i]);
	free(wx->hosts);
	free(wx);
}
