/* Everything ends a call but four things: no byte of it left us (another host is asked), WeChat says -1 (it is asked again, twice),
 * it refuses one of two AppSecrets, or the call may be repeated and no answer came. */
#include "wechat/call.h"

#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "common/clock.h"
#include "common/crypt.h"
#include "common/json.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/metrics.h"

enum { BUSY_RETRIES = 2, BREAKER_FAILURES = 10, BREAKER_OPEN_MS = 1000 };

struct breaker {
	int     failures;      /* calls in a row that ended without any answer */
	int64_t open_until_ms; /* until then only one probe at a time goes out */
	bool    probing;
};

struct wechat {
	struct loop  *loop;
	struct fetch *fetch[POOL_COUNT];
	char   **hosts;
	size_t   host_count;
	int64_t  timeout_ms;
	struct call *calls;    /* under way: those in a pause are ended by wechat_free */
	struct breaker breakers[API_COUNT];
};

/* ---- the end ---- */

static void call_end(struct call *c, enum outcome oc)
{
	struct arena *arena = c->arena;

	DL_DELETE(c->wx->calls, c); /* NOLINT(clang-analyzer-core.NullDereference): c is on the list */
	if (c->probe)
		c->wx->breakers[c->kind->api].probing = false;
	metric_inc2(WECHAT_REQUESTS, c->kind->name, outcome_code(oc));
	metric_observe_us(metric_series(METRIC_WECHAT_SECONDS, c->kind->name, NULL, NULL), clock_us() - c->started_us);
	timer_free(c->pause);
	c->kind->end(c, oc);
	arena_free(arena);
}

/* ---- the breaker ---- */

/* When WeChat gave no answer at all many times in a row, a call that would wait for its time limit is told so at once, and one a
 * second finds out whether WeChat is back. */
static bool breaker_lets_pass(struct call *c)
{
	struct breaker *b = &c->wx->breakers[c->kind->api];

	if (b->failures < BREAKER_FAILURES)
		return true;
	if (b->probing || clock_ms() < b->open_until_ms)
		return false;
	b->probing = c->probe = true;
	return true;
}

static void breaker_note(struct call *c, bool answered)
{
	struct breaker *b = &c->wx->breakers[c->kind->api];

	if (answered) {
		if (b->failures >= BREAKER_FAILURES)
			log_info("wechat answers again", LOG_STR("api", c->kind->name));
		b->failures = 0;
		return;
	}
	if (++b->failures == BREAKER_FAILURES)
		log_error("wechat is away: asking once a second until it answers", LOG_STR("api", c->kind->name), LOG_INT("failures", b->failures));
	if (b->failures >= BREAKER_FAILURES)
		b->open_until_ms = clock_ms() + BREAKER_OPEN_MS;
}

/* ---- answers ---- */

enum outcome call_wrong(const struct call *c, const char *what, const struct fetch_reply *rp)
{
	log_warn("wechat answered what it should not", LOG_STR("api", c->kind->name), LOG_STR("what", what), LOG_INT("status", rp->status),
		LOG_INT("bytes", (int64_t)rp->body_len), LOG_STR("content_type", rp->content_type));
	return OC_WECHAT_ERROR;
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

/* errmsg is WeChat's own text with the rid that its support asks for. One that repeats what is secret stays out of the log. */
static const char *loggable_errmsg(const struct call *c, const cJSON *tree)
{
	const char *msg, *const secrets[] = {c->secrets[c->secret], c->hide[0], c->hide[1]};

	if (json_str(tree, "errmsg", 0, 4096, &msg) != JSON_GOT)
		return "";
	for (size_t i = 0; i < NELEM(secrets); i++)
		if (secrets[i] && *secrets[i] && strstr(msg, secrets[i]))
			return "(withheld: it repeats a secret)";
	return msg;
}

static enum outcome read_answer(struct call *c, const struct fetch_reply *rp, const cJSON *tree)
{
	const struct errcode_row *row;
	enum outcome oc;

	if (!tree || !cJSON_IsObject(tree))
		return c->kind->raw ? c->kind->read(c, NULL, rp) : call_wrong(c, "not a JSON object", rp);
	if (read_errcode(tree, &c->errcode) == JSON_BAD && !c->kind->raw)
		return call_wrong(c, "errcode is no number", rp);
	oc = c->kind->raw || c->kind->refusals || c->errcode == 0 ? c->kind->read(c, tree, rp) : OC_PENDING;
	if (oc != OC_PENDING)
		return oc;
	row = errcode_find(c->errcode);
	log_at(row->level, "wechat refused", LOG_STR("api", c->kind->name), LOG_INT("errcode", c->errcode), LOG_STR("appid", c->appid),
		LOG_STR("means", row->mend), LOG_STR("errmsg", loggable_errmsg(c, tree)));
	return row->oc;
}

/* ---- asking again ---- */

static void pause_then_ask(struct call *c, int64_t wait_ms)
{
	timer_start(c->pause, wait_ms);
}

/* After an answer. true: another try was started. */
static bool refused_again(struct call *c, enum outcome oc)
{
	int64_t wait_ms;
	uint8_t jitter;

	if (c->errcode == 40125 && c->secret == 0 && c->secrets[1]) {
		c->secret = 1;
		wait_ms = 0;
	} else if (oc == OC_WECHAT_UNAVAILABLE && !c->kind->once && (errcode_find(c->errcode)->flags & ERRCODE_RETRY) && c->busy < BUSY_RETRIES) {
		crypt_random(&jitter, 1);
		wait_ms = (100 << c->busy++) + jitter / 4;
	} else {
		return false;
	}
	if (clock_ms() + wait_ms >= c->deadline_ms)
		return false;
	pause_then_ask(c, wait_ms);
	return true;
}

/* After no answer. true: another try was started. */
static bool unanswered_again(struct call *c, const struct fetch_reply *rp)
{
	const char *host = c->wx->hosts[c->host];

	if (rp->result == FETCH_REFUSED || clock_ms() >= c->deadline_ms)
		return false;
	if (rp->not_sent && c->host + 1 < c->wx->host_count) {
		log_warn("wechat host cannot be reached, trying the next", LOG_STR("host", host), LOG_STR("cause", rp->error));
		c->host++;
	} else if (c->kind->repeatable && rp->result == FETCH_NO_ANSWER && !c->resent) {
		log_warn("wechat gave no answer, asking again", LOG_STR("host", host), LOG_STR("api", c->kind->name), LOG_STR("cause", rp->error));
		c->resent = true;
	} else {
		return false;
	}
	pause_then_ask(c, 0);
	return true;
}

static void read_reply(struct call *c, const struct fetch_reply *rp)
{
	const char *body = rp->body;
	size_t len = rp->body_len;
	enum outcome oc;
	cJSON *tree;

	if (len >= 3 && !memcmp(body, "\xEF\xBB\xBF", 3)) { /* some gateways put a byte order mark first */
		body += 3;
		len -= 3;
	}
	tree = json_parse(body, len);
	oc = read_answer(c, rp, tree);
	if (oc == OC_OK || !refused_again(c, oc))
		call_end(c, oc);
	json_free(tree);
}

static void on_reply(void *ctx, const struct fetch_reply *rp)
{
	struct call *c = ctx;

	if (rp->result == FETCH_DONE) {
		breaker_note(c, true);
		read_reply(c, rp);
	} else if (rp->result == FETCH_REFUSED) {
		call_end(c, OC_OVERLOADED);
	} else if (rp->result == FETCH_TOO_LARGE) {
		breaker_note(c, true);
		call_end(c, call_wrong(c, "more than the bound", rp));
	} else if (!unanswered_again(c, rp)) {
		breaker_note(c, false);
		log_warn("wechat gave no answer", LOG_STR("host", c->wx->hosts[c->host]), LOG_STR("api", c->kind->name), LOG_STR("cause", rp->error),
			LOG_INT("ms", rp->total_us / 1000));
		call_end(c, OC_WECHAT_UNAVAILABLE);
	}
}

static void call_ask(void *ctx)
{
	struct call *c = ctx;
	struct fetch_request rq = {.method = "GET", .timeout_ms = c->deadline_ms - clock_ms()};

	if (rq.timeout_ms <= 0) {
		call_end(c, OC_WECHAT_UNAVAILABLE);
		return;
	}
	c->errcode = 0;
	c->kind->build(c, &rq, c->wx->hosts[c->host]);
	fetch_start(c->wx->fetch[c->kind->pool], &rq, on_reply, c);
}

static void refused_by_breaker(void *ctx)
{
	call_end(ctx, OC_WECHAT_UNAVAILABLE);
}

void *call_new(struct wechat *wx, const struct call_kind *kind, size_t size, const struct wechat_app *app)
{
	struct arena *arena = arena_new();
	struct call *c = arena_alloc(arena, size);

	c->wx = wx;
	c->kind = kind;
	c->arena = arena;
	c->appid = arena_strdup(arena, app->appid);
	for (size_t i = 0; i < NELEM(c->secrets); i++)
		c->secrets[i] = app->secrets[i] ? arena_strdup(arena, app->secrets[i]) : NULL;
	return c;
}

void call_start(struct call *c, int64_t timeout_ms)
{
	bool pass = breaker_lets_pass(c);

	c->started_us = clock_us();
	c->deadline_ms = clock_ms() + (c->kind->raw || timeout_ms < c->wx->timeout_ms ? timeout_ms : c->wx->timeout_ms);
	c->pause = timer_new(c->wx->loop, pass ? call_ask : refused_by_breaker, c);
	DL_APPEND(c->wx->calls, c);
	if (pass && timeout_ms > 0)
		call_ask(c); /* fetch's promise (never before it returns) is ours */
	else
		timer_start(c->pause, 0);
}

/* ---- the object ---- */

struct wechat *wechat_new(struct loop *l, const struct wechat_options *o)
{
	struct wechat *wx = mem_alloc(sizeof(*wx));

	wx->loop = l;
	wx->fetch[POOL_LOGIN] = o->login;
	wx->fetch[POOL_SERVICE] = o->service;
	wx->fetch[POOL_PASS] = o->pass;
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
		call_end(wx->calls, OC_WECHAT_UNAVAILABLE);
	for (size_t i = 0; i < wx->host_count; i++)
		free(wx->hosts[i]);
	free(wx->hosts);
	free(wx);
}
