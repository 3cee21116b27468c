/* Everything ends a call but four things: no byte of it left us (another host is asked), WeChat
 * says -1 (it is asked again, twice), it refuses one of two AppSecrets, or the call may be repeated
 * and no answer came. */
#include "wechat/call.h"

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
#include "wechat/peer.h"

enum { BUSY_RETRIES = 2 };

struct wechat {
	struct loop  *loop;
	struct fetch *fetch[POOL_COUNT];
	struct peers *peers;
	int64_t  timeout_ms;
	struct call *calls;    /* under way: those in a pause are ended by wechat_free */
};

/* ---- the end ---- */

static void call_end(struct call *c, enum outcome oc)
{
	struct arena *arena = c->arena;

	/* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): c is on the list */
	DL_DELETE(c->wx->calls, c);
	metric_inc2(WECHAT_REQUESTS, c->kind->name, outcome_code(oc));
	metric_observe_us(metric_series(METRIC_WECHAT_SECONDS, c->kind->name, NULL, NULL),
		clock_us() - c->started_us);
	timer_free(c->pause);
	c->kind->end(c, oc);
	arena_free(arena);
}

/* ---- answers ---- */

enum outcome call_wrong(const struct call *c, const char *what, const struct fetch_reply *rp)
{
	log_warn("wechat sent an unexpected answer", LOG_STR("api", c->kind->name),
		LOG_STR("what", what), LOG_INT("status", rp->status),
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

/* errmsg is WeChat's own text with the rid that its support asks for. One that repeats what is
 * secret stays out of the log. */
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
		return c->kind->raw ? c->kind->read(c, NULL, rp)
				    : call_wrong(c, "not a JSON object", rp);
	if (read_errcode(tree, &c->errcode) == JSON_BAD && !c->kind->raw)
		return call_wrong(c, "errcode is no number", rp);
	oc = c->kind->raw || c->kind->refusals || c->errcode == 0 ? c->kind->read(c, tree, rp)
								  : OC_PENDING;
	if (oc != OC_PENDING)
		return oc;
	row = errcode_find(c->kind->api, c->errcode);
	log_at(row->level, "wechat refused", LOG_STR("api", c->kind->name),
		LOG_INT("errcode", c->errcode), LOG_STR("appid", c->appid),
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
	const struct errcode_row *row = errcode_find(c->kind->api, c->errcode);
	int64_t wait_ms;
	uint8_t jitter;

	if (row->flags & ERRCODE_SECRET && c->secret == 0 && c->secrets[1]) {
		c->secret = 1;
		wait_ms = 0;
	} else if (oc == OC_WECHAT_UNAVAILABLE && !c->kind->once && row->flags & ERRCODE_RETRY &&
		   c->busy < BUSY_RETRIES) {
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

static const char *host_of(const struct call *c)
{
	return peers_url(c->wx->peers, c->host);
}

/* To the next healthy host. false: there is none. */
static bool next_host(struct call *c, const struct fetch_reply *rp)
{
	size_t next = peers_pick(c->wx->peers, c->host + 1);

	if (next == PEERS_NONE)
		return false;
	log_info("wechat host cannot be reached, trying the next", LOG_STR("host", host_of(c)),
		LOG_STR("cause", rp->error));
	c->host = next;
	return true;
}

/* After no answer. true: another try was started. */
static bool unanswered_again(struct call *c, const struct fetch_reply *rp)
{
	if (rp->result == FETCH_CLOSED || clock_ms() >= c->deadline_ms)
		return false;
	if (rp->not_sent && next_host(c, rp)) {
		/* it keeps its place in the queue */
	} else if (c->kind->repeatable && rp->result == FETCH_NO_ANSWER && !c->resent) {
		log_warn("wechat gave no answer, asking again", LOG_STR("host", host_of(c)),
			LOG_STR("api", c->kind->name), LOG_STR("cause", rp->error));
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

	/* some gateways put a byte order mark first */
	if (len >= 3 && !memcmp(body, "\xEF\xBB\xBF", 3)) {
		body += 3;
		len -= 3;
	}
	tree = json_parse(body, len);
	oc = read_answer(c, rp, tree);
	if (oc == OC_OK || !refused_again(c, oc))
		call_end(c, oc);
	json_free(tree);
}

/* A probe asks for a session with this app's secret and a code that is none: WeChat refuses it, and
 * shows that it is there. */
static const char *probe_path(struct call *c)
{
	char appid[3 * 64 + 1], secret[3 * 256 + 1];

	if (strlen(c->appid) > 64 || strlen(c->secrets[c->secret]) > 256)
		return "/sns/jscode2session";
	percent_encode(appid, c->appid, strlen(c->appid));
	percent_encode(secret, c->secrets[c->secret], strlen(c->secrets[c->secret]));
	return arena_printf(c->arena,
		"/sns/jscode2session?appid=%s&secret=%s&grant_type=authorization_code"
		"&js_code=the%%20code%%20is%%20a%%20mock%%20one",
		appid, secret);
}

static void no_answer(struct call *c, const struct fetch_reply *rp)
{
	log_warn("wechat gave no answer", LOG_STR("host", host_of(c)),
		LOG_STR("api", c->kind->name), LOG_STR("cause", rp->error),
		LOG_INT("ms", rp->total_us / 1000));
	call_end(c, OC_WECHAT_UNAVAILABLE);
}

static void on_reply(void *ctx, const struct fetch_reply *rp)
{
	struct call *c = ctx;
	bool answered = rp->result == FETCH_DONE || rp->result == FETCH_TOO_LARGE;

	peers_note(c->wx->peers, c->host, rp, answered ? NULL : probe_path(c));
	if (rp->result == FETCH_TOO_LARGE)
		call_end(c, call_wrong(c, "more than the bound", rp));
	else if (rp->result == FETCH_DONE && rp->status < 200)
		call_end(c, call_wrong(c, "an informational status", rp));
	else if (rp->result == FETCH_DONE)
		read_reply(c, rp);
	else if (rp->result == FETCH_REFUSED)
		call_end(c, OC_OVERLOADED);
	else if (!unanswered_again(c, rp))
		no_answer(c, rp);
}

static void call_ask(void *ctx)
{
	struct call *c = ctx;
	struct fetch_request rq = {.method = "GET",
		.timeout_ms = c->deadline_ms - clock_ms(),
		.since_us = c->started_us};

	c->errcode = 0;
	c->kind->build(c, &rq, host_of(c));
	fetch_start(c->wx->fetch[c->kind->pool], &rq, on_reply, c);
}

static void end_unasked(void *ctx)
{
	call_end(ctx, OC_WECHAT_UNAVAILABLE);
}

void *call_new(
	struct wechat *wx, const struct call_kind *kind, size_t size, const struct wechat_app *app)
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
	bool may = timeout_ms > 0 && (c->host = peers_pick(c->wx->peers, 0)) != PEERS_NONE;

	c->started_us = clock_us();
	c->deadline_ms =
		clock_ms() +
		(c->kind->raw || timeout_ms < c->wx->timeout_ms ? timeout_ms : c->wx->timeout_ms);
	c->pause = timer_new(c->wx->loop, may ? call_ask : end_unasked, c);
	DL_APPEND(c->wx->calls, c);
	if (may)
		call_ask(c); /* fetch_start never calls back before it returns */
	else
		timer_start(c->pause, 0);
}

/* ---- the object ---- */

static void on_skipped(void *ctx, const char *host)
{
	struct wechat *wx = ctx;

	for (int i = 0; i < POOL_COUNT; i++)
		fetch_give_up(wx->fetch[i], host);
}

struct wechat *wechat_new(struct loop *l, const struct wechat_options *o)
{
	struct wechat *wx = mem_alloc(sizeof(*wx));

	wx->loop = l;
	wx->fetch[POOL_LOGIN] = o->login;
	wx->fetch[POOL_TOKEN] = o->token;
	wx->fetch[POOL_SERVICE] = o->service;
	wx->fetch[POOL_PASS] = o->pass;
	wx->timeout_ms = o->timeout_ms;
	wx->peers = peers_new(l, &(struct peers_options){
					 .urls = o->base_urls,
					 .count = o->base_url_count,
					 .timeout_ms = o->timeout_ms,
					 .fetch = o->login,
					 .on_skipped = on_skipped,
					 .ctx = wx,
				 });
	return wx;
}

void wechat_free(struct wechat *wx)
{
	if (!wx)
		return;
	while (wx->calls)
		call_end(wx->calls, OC_WECHAT_UNAVAILABLE);
	peers_free(wx->peers);
	free(wx);
}
