/* Reading WeChat's answers, and when to ask again: over a fetch of our own that answers from a script. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/log.h"
#include "common/mem.h"
#include "wechat/wechat.h"

/* ---- the scripted fetch ---- */

struct fetch {
	struct loop *loop;
	struct fetch_reply replies[8];
	int asked;
	char urls[8][512];
};

struct answer {
	struct fetch_reply reply;
	fetch_cb cb;
	void *ctx;
};

static void deliver(void *ctx)
{
	struct answer *a = ctx;

	a->cb(a->ctx, &a->reply);
	free(a);
}

void fetch_start(struct fetch *f, const struct fetch_request *rq, fetch_cb cb, void *ctx)
{
	struct answer *a = mem_alloc(sizeof(*a));

	assert_true(f->asked < 8);
	assert_true(rq->timeout_ms > 0);
	snprintf(f->urls[f->asked], sizeof(f->urls[0]), "%s", rq->url);
	a->reply = f->replies[f->asked++];
	if (!a->reply.body)
		a->reply.body = "";
	a->reply.body_len = strlen(a->reply.body);
	if (!a->reply.content_type)
		a->reply.content_type = "";
	if (!a->reply.error)
		a->reply.error = "";
	a->cb = cb;
	a->ctx = ctx;
	loop_defer(f->loop, deliver, a);
}

/* ---- one call ---- */

struct result {
	struct loop *loop;
	int calls;
	enum outcome oc;
	char openid[64], session_key[64], unionid[64];
	int errcode;
};

static void on_session(void *ctx, enum outcome oc, const struct wechat_session *ws)
{
	struct result *r = ctx;

	r->calls++;
	r->oc = oc;
	snprintf(r->openid, sizeof(r->openid), "%s", ws->openid);
	snprintf(r->session_key, sizeof(r->session_key), "%s", ws->session_key);
	snprintf(r->unionid, sizeof(r->unionid), "%s", ws->unionid);
	r->errcode = ws->errcode;
	loop_stop(r->loop);
}

static struct result ask(struct fetch *f, const char *second_secret)
{
	static const char *const hosts[] = {"https://one", "https://two"};
	struct result r = {.loop = loop_new()};
	struct wechat *wx = wechat_new(r.loop, &(struct wechat_options){.login = f, .service = f, .pass = f, .base_urls = hosts, .base_url_count = 2, .timeout_ms = 3000});

	f->loop = r.loop;
	wechat_code2session(wx, &(struct wechat_app){.appid = "wx1", .secrets = {"s3 cret", second_secret}}, "c de/+", 3000, on_session, &r);
	assert_int_equal(r.calls, 0); /* never before the starter returns */
	loop_run(r.loop);
	assert_int_equal(r.calls, 1);
	wechat_free(wx);
	loop_free(r.loop);
	return r;
}

#define BODY(text)   ((struct fetch_reply){.result = FETCH_DONE, .status = 200, .body = (text)})
#define GOOD         "{\"session_key\":\"\\/QG+r9+4+ojQZ9F\\/WZ926g==\",\"openid\":\"oPLO15M5hm6_2Vo-Hkvu0ctE6Q6w\"}"
#define REFUSED(num) "{\"errcode\":" num ",\"errmsg\":\"no, rid: 1\"}"

static void test_answers(void **state)
{
	static const struct { const char *body; enum outcome oc; int errcode; } rows[] = {
		{GOOD, OC_OK, 0},
		{"\xEF\xBB\xBF" GOOD, OC_OK, 0},
		{"{\"openid\":\"o1\",\"session_key\":\"k\",\"unionid\":\"u-1\",\"errcode\":0,\"errmsg\":\"ok\"}", OC_OK, 0},
		{"{\"openid\":\"o1\",\"session_key\":\"k\",\"expires_in\":7200,\"more\":{\"x\":[1]}}", OC_OK, 0},
		{"{\"openid\":\"o1\",\"session_key\":\"k\",\"unionid\":\"\",\"errcode\":\"0\"}", OC_OK, 0},
		{"{\"openid\":\"o1\",\"session_key\":\"\"}", OC_WECHAT_ERROR, 0},
		{"{\"openid\":\"o1\"}", OC_WECHAT_ERROR, 0},
		{"{\"openid\":7,\"session_key\":\"k\"}", OC_WECHAT_ERROR, 0},
		{"{\"openid\":\"o|1\",\"session_key\":\"k\"}", OC_WECHAT_ERROR, 0},
		{"{\"openid\":\"o\\r\\n1\",\"session_key\":\"k\"}", OC_WECHAT_ERROR, 0},
		{"{\"openid\":\"o1\",\"session_key\":\"a b\"}", OC_WECHAT_ERROR, 0},
		{"{\"openid\":\"o1\",\"session_key\":\"k\",\"unionid\":[]}", OC_WECHAT_ERROR, 0},
		{"{\"openid\":\"o1\",\"session_key\":\"k\",\"errcode\":true}", OC_WECHAT_ERROR, 0},
		{"{\"openid\":\"o1\",\"session_key\":\"k\",\"errcode\":40029}", OC_INVALID_CODE, 40029},
		{"", OC_WECHAT_ERROR, 0},
		{"<html>502</html>", OC_WECHAT_ERROR, 0},
		{"[]", OC_WECHAT_ERROR, 0},
		{"{\"openid\":\"o1\",\"session_", OC_WECHAT_ERROR, 0},
		{REFUSED("40029"), OC_INVALID_CODE, 40029},
		{REFUSED("\"40029\""), OC_INVALID_CODE, 40029},
		{REFUSED("\"40029x\""), OC_WECHAT_ERROR, 0},
		{REFUSED("40163"), OC_INVALID_CODE, 40163},
		{REFUSED("41008"), OC_INVALID_CODE, 41008},
		{REFUSED("40226"), OC_USER_BLOCKED, 40226},
		{REFUSED("45011"), OC_RATE_LIMITED, 45011},
		{REFUSED("45009"), OC_RATE_LIMITED, 45009},
		{REFUSED("40013"), OC_WECHAT_CONFIG, 40013},
		{REFUSED("40125"), OC_WECHAT_CONFIG, 40125},
		{REFUSED("40164"), OC_WECHAT_CONFIG, 40164},
		{REFUSED("40066"), OC_WECHAT_ERROR, 40066},
		{REFUSED("99999"), OC_WECHAT_ERROR, 99999},
	};

	(void)state;
	for (size_t i = 0; i < NELEM(rows); i++) {
		struct fetch f = {.replies = {BODY(rows[i].body)}};
		struct result r = ask(&f, NULL);
		if (r.oc != rows[i].oc || r.errcode != rows[i].errcode)
			fail_msg("%s gave %s, errcode %d", rows[i].body, outcome_code(r.oc), r.errcode);
		assert_int_equal(f.asked, 1); /* never a second time with the same code */
	}
}

static void test_unescapes_and_encodes(void **state)
{
	struct fetch f = {.replies = {BODY(GOOD)}};
	struct result r = ask(&f, NULL);

	(void)state;
	assert_string_equal(r.session_key, "/QG+r9+4+ojQZ9F/WZ926g==");
	assert_string_equal(r.openid, "oPLO15M5hm6_2Vo-Hkvu0ctE6Q6w");
	assert_string_equal(r.unionid, "");
	assert_string_equal(f.urls[0],
		"https://one/sns/jscode2session?appid=wx1&secret=s3%20cret&js_code=c%20de%2F%2B&grant_type=authorization_code");
}

static void test_busy_is_asked_again_twice(void **state)
{
	struct fetch f = {.replies = {BODY(REFUSED("-1")), BODY(REFUSED("-1")), BODY(GOOD)}};
	struct fetch g = {.replies = {BODY(REFUSED("-1")), BODY(REFUSED("-1")), BODY(REFUSED("-1"))}};
	struct result r = ask(&f, NULL);

	(void)state;
	assert_int_equal(r.oc, OC_OK);
	r = ask(&g, NULL);
	assert_int_equal(r.oc, OC_WECHAT_UNAVAILABLE);
	assert_int_equal(r.errcode, -1);
	assert_int_equal(g.asked, 3);
}

static void test_next_host_only_when_nothing_was_sent(void **state)
{
	struct fetch f = {.replies = {{.result = FETCH_NOT_SENT, .not_sent = true}, BODY(GOOD)}};
	struct fetch g = {.replies = {{.result = FETCH_NO_ANSWER}, BODY(GOOD)}};
	struct fetch h = {.replies = {{.result = FETCH_TIMED_OUT}, BODY(GOOD)}};
	struct fetch both = {.replies = {{.result = FETCH_NOT_SENT, .not_sent = true}, {.result = FETCH_NOT_SENT, .not_sent = true}}};

	(void)state;
	assert_int_equal(ask(&f, NULL).oc, OC_OK);
	assert_memory_equal(f.urls[1], "https://two/", 12);
	assert_int_equal(ask(&g, NULL).oc, OC_WECHAT_UNAVAILABLE);
	assert_int_equal(g.asked, 1);
	assert_int_equal(ask(&h, NULL).oc, OC_WECHAT_UNAVAILABLE);
	assert_int_equal(h.asked, 1);
	assert_int_equal(ask(&both, NULL).oc, OC_WECHAT_UNAVAILABLE);
	assert_int_equal(both.asked, 2);
}

static void test_bounds(void **state)
{
	struct fetch f = {.replies = {{.result = FETCH_TOO_LARGE, .status = 200}}};
	struct fetch g = {.replies = {{.result = FETCH_REFUSED, .not_sent = true}}};

	(void)state;
	assert_int_equal(ask(&f, NULL).oc, OC_WECHAT_ERROR);
	assert_int_equal(ask(&g, NULL).oc, OC_OVERLOADED);
	assert_int_equal(g.asked, 1);
}

static void test_second_secret(void **state)
{
	struct fetch f = {.replies = {BODY(REFUSED("40125")), BODY(GOOD)}};
	struct fetch g = {.replies = {BODY(REFUSED("40125")), BODY(REFUSED("40125"))}};

	(void)state;
	assert_int_equal(ask(&f, "other").oc, OC_OK);
	assert_non_null(strstr(f.urls[1], "secret=other&"));
	assert_int_equal(ask(&g, "other").oc, OC_WECHAT_CONFIG);
	assert_int_equal(g.asked, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_answers),
		cmocka_unit_test(test_unescapes_and_encodes),
		cmocka_unit_test(test_busy_is_asked_again_twice),
		cmocka_unit_test(test_next_host_only_when_nothing_was_sent),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_second_secret),
	};

	log_init(LOG_ERROR + 1, LOG_LOGFMT);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
