/* Reading WeChat's answers, and when to ask again: over a fetch of our own that answers from a
 * script. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "wechat/errcode.h"
#include "wechat/wechat.h"

/* ---- the scripted fetch ---- */

enum { TRIES_MAX = 32 };

struct fetch {
	struct loop *loop;
	struct fetch_reply replies[TRIES_MAX];
	int asked;
	char urls[TRIES_MAX][512];
	int64_t since_us[TRIES_MAX];
	struct fetch_reply probe_reply;
	int probes, given_up;
	char probe_url[512];
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

static const struct fetch_reply *choose(struct fetch *f, const struct fetch_request *rq)
{
	if (rq->probe) {
		f->probes++;
		snprintf(f->probe_url, sizeof(f->probe_url), "%s", rq->url);
		return &f->probe_reply;
	}
	assert_true(f->asked < TRIES_MAX);
	snprintf(f->urls[f->asked], sizeof(f->urls[0]), "%s", rq->url);
	f->since_us[f->asked] = rq->since_us;
	return &f->replies[f->asked++];
}

void fetch_start(struct fetch *f, const struct fetch_request *rq, fetch_cb cb, void *ctx)
{
	struct answer *a = mem_alloc(sizeof(*a));

	assert_true(rq->timeout_ms > 0);
	a->reply = *choose(f, rq);
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

void fetch_give_up(struct fetch *f, const char *origin)
{
	assert_string_equal(origin, "https://one");
	f->given_up++;
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

static struct wechat *make(struct fetch *f, size_t hosts)
{
	static const char *const urls[] = {"https://one", "https://two"};

	f->loop = loop_new();
	return wechat_new(f->loop, &(struct wechat_options){.login = f,
					   .token = f,
					   .service = f,
					   .pass = f,
					   .base_urls = urls,
					   .base_url_count = hosts,
					   .timeout_ms = 3000});
}

static void wait_a_little(struct fetch *f, int64_t ms)
{
	struct timer *t = timer_new(f->loop, (loop_fn)loop_stop, f->loop);

	timer_start(t, ms);
	loop_run(f->loop);
	timer_free(t);
}

static void end(struct fetch *f, struct wechat *wx)
{
	wait_a_little(f, 10); /* for a probe under way */
	wechat_free(wx);
	loop_free(f->loop);
}

static struct result login(
	struct fetch *f, struct wechat *wx, const char *second_secret, int64_t timeout_ms)
{
	struct result r = {.loop = f->loop};

	wechat_code2session(wx,
		&(struct wechat_app){.appid = "wx1", .secrets = {"s3 cret", second_secret}},
		"c de/+", timeout_ms, on_session, &r);
	assert_int_equal(r.calls, 0); /* never before the starter returns */
	loop_run(r.loop);
	assert_int_equal(r.calls, 1);
	return r;
}

static struct result ask(struct fetch *f, const char *second_secret)
{
	struct wechat *wx = make(f, 2);
	struct result r = login(f, wx, second_secret, 3000);

	end(f, wx);
	return r;
}

#define BODY(text)   ((struct fetch_reply){.result = FETCH_DONE, .status = 200, .body = (text)})
#define GOOD \
	"{\"session_key\":\"\\/QG+r9+4+ojQZ9F\\/" \
	"WZ926g==\",\"openid\":\"oPLO15M5hm6_2Vo-Hkvu0ctE6Q6w\"}"
#define REFUSED(num) "{\"errcode\":" num ",\"errmsg\":\"no, rid: 1\"}"

static void test_answers(void **state)
{
	static const struct { const char *body; enum outcome oc; int errcode;
	} rows[] = {
		{GOOD, OC_OK, 0},
		{"\xEF\xBB\xBF" GOOD, OC_OK, 0},
		{"{\"openid\":\"o1\",\"session_key\":\"k\",\"unionid\":\"u-1\",\"errcode\":0,"
		 "\"errmsg\":\"ok\"}",
			OC_OK, 0},
		{"{\"openid\":\"o1\",\"session_key\":\"k\",\"expires_in\":7200,\"more\":{\"x\":[1]}"
		 "}",
			OC_OK, 0},
		{"{\"openid\":\"o1\",\"session_key\":\"k\",\"unionid\":\"\",\"errcode\":\"0\"}",
			OC_OK, 0},
		{"{\"openid\":\"o1\",\"session_key\":\"\"}", OC_WECHAT_ERROR, 0},
		{"{\"openid\":\"o1\"}", OC_WECHAT_ERROR, 0},
		{"{\"openid\":7,\"session_key\":\"k\"}", OC_WECHAT_ERROR, 0},
		{"{\"openid\":\"o|1\",\"session_key\":\"k\"}", OC_WECHAT_ERROR, 0},
		{"{\"openid\":\"o\\r\\n1\",\"session_key\":\"k\"}", OC_WECHAT_ERROR, 0},
		{"{\"openid\":\"o1\",\"session_key\":\"a b\"}", OC_WECHAT_ERROR, 0},
		{"{\"openid\":\"o1\",\"session_key\":\"k\",\"unionid\":[]}", OC_WECHAT_ERROR, 0},
		{"{\"openid\":\"o1\",\"session_key\":\"k\",\"errcode\":true}", OC_WECHAT_ERROR, 0},
		{"{\"openid\":\"o1\",\"session_key\":\"k\",\"errcode\":40029}", OC_INVALID_CODE,
			40029},
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
			fail_msg("%s gave %s, errcode %d", rows[i].body, outcome_code(r.oc),
				r.errcode);
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
	assert_string_equal(f.urls[0], "https://one/sns/"
				       "jscode2session?appid=wx1&secret=s3%20cret&js_code=c%20de%"
				       "2F%2B&grant_type=authorization_code");
}

static void test_busy_is_asked_again_twice(void **state)
{
	struct fetch f = {.replies = {BODY(REFUSED("-1")), BODY(REFUSED("-1")), BODY(GOOD)}};
	struct fetch g = {
		.replies = {BODY(REFUSED("-1")), BODY(REFUSED("-1")), BODY(REFUSED("-1"))}};
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
	struct fetch both = {.replies = {{.result = FETCH_NOT_SENT, .not_sent = true},
				     {.result = FETCH_NOT_SENT, .not_sent = true}}};

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

/* In line it stands where it stood: those that came later do not go first. */
static void test_a_call_keeps_its_place_in_the_queue(void **state)
{
	struct fetch f = {.replies = {BODY(REFUSED("-1")),
				  {.result = FETCH_NOT_SENT, .not_sent = true}, BODY(GOOD)}};
	int64_t began_us = clock_us();

	(void)state;
	assert_int_equal(ask(&f, NULL).oc, OC_OK);
	assert_int_equal(f.asked, 3);
	assert_true(f.since_us[0] >= began_us);
	for (int i = 1; i < f.asked; i++) /* the first pause alone was 100 ms */
		assert_int_equal(f.since_us[i], f.since_us[0]);
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

/* ---- errcodes ---- */

/* What is said of an errcode is true of the call that got it. */
static void test_an_errcode_means_what_it_means_in_that_call(void **state)
{
	static const struct {
		enum call_api api;
		int errcode;
		enum outcome oc;
		const char *says;
	} rows[] = {
		{API_STABLE_TOKEN, 40001, OC_WECHAT_CONFIG, "AppSecret"},
		{API_PHONE, 40001, OC_WECHAT_ERROR, "access_token"},
		{API_PHONE, 40013, OC_WECHAT_CONFIG, "another mini program"},
		{API_JSCODE2SESSION, 40013, OC_WECHAT_CONFIG, "[app]"},
		{API_PHONE, 40003, OC_WECHAT_ERROR, "another user"},
		{API_PHONE, 48001, OC_WECHAT_CONFIG, "phone numbers"},
		{API_CHECKSESSION, 48001, OC_WECHAT_CONFIG, "permissions"},
		{API_PHONE, 40029, OC_INVALID_CODE, "getPhoneNumber"},
		{API_JSCODE2SESSION, 40029, OC_INVALID_CODE, "appid"},
		{API_PASS, 87007, OC_WECHAT_ERROR, "log in again"},
		{API_PHONE, 12345, OC_WECHAT_ERROR, "not known"},
	};

	(void)state;
	assert_true(wechat_token_is_stale(40001));
	/* of a call that carried the token it proves nothing */
	assert_false(wechat_token_is_stale(41001));
	for (size_t i = 0; i < NELEM(rows); i++) {
		const struct errcode_row *row = errcode_find(rows[i].api, rows[i].errcode);
		if (row->oc != rows[i].oc || !strstr(row->mend, rows[i].says))
			fail_msg("%d in call %d: %s, %s", rows[i].errcode, rows[i].api,
				outcome_code(row->oc), row->mend);
	}
}

static void on_token(
	void *ctx, enum outcome oc, const char *token, int64_t expires_in_s, int errcode)
{
	struct result *r = ctx;

	(void)token;
	(void)expires_in_s;
	r->oc = oc;
	r->errcode = errcode;
	loop_stop(r->loop);
}

static struct result ask_token(struct fetch *f, const char *second_secret)
{
	struct wechat *wx = make(f, 1);
	struct result r = {.loop = f->loop};

	wechat_stable_token(wx,
		&(struct wechat_app){.appid = "wx1", .secrets = {"s", second_secret}}, false,
		on_token, &r);
	loop_run(f->loop);
	end(f, wx);
	return r;
}

static void test_40001_of_the_token_call_is_a_wrong_secret(void **state)
{
	struct fetch f = {.replies = {BODY(REFUSED("40001")),
				  BODY("{\"access_token\":\"t\",\"expires_in\":7200}")}};
	struct fetch g = {.replies = {BODY(REFUSED("40001"))}};
	struct result r;

	(void)state;
	assert_int_equal(ask_token(&f, "other").oc, OC_OK);
	r = ask_token(&g, NULL);
	assert_int_equal(r.oc, OC_WECHAT_CONFIG);
	assert_int_equal(r.errcode, 40001); /* as WeChat gave it */
}

/* ---- hosts ---- */

#define NOT_SENT  ((struct fetch_reply){.result = FETCH_NOT_SENT, .not_sent = true})
#define NO_ANSWER ((struct fetch_reply){.result = FETCH_NO_ANSWER})

static void test_a_dead_host_is_skipped(void **state)
{
	struct fetch f = {.replies = {NOT_SENT, BODY(GOOD), NOT_SENT, BODY(GOOD), NOT_SENT,
				  BODY(GOOD), BODY(GOOD), BODY(GOOD)},
		.probe_reply = NOT_SENT};
	struct wechat *wx = make(&f, 2);

	(void)state;
	for (int i = 0; i < 3; i++)
		assert_int_equal(login(&f, wx, NULL, 3000).oc, OC_OK);
	assert_int_equal(f.given_up, 4); /* by each kind of connections */
	assert_int_equal(login(&f, wx, NULL, 3000).oc, OC_OK);
	assert_memory_equal(f.urls[6], "https://two/", 12); /* at once */
	wait_a_little(&f, 50);
	assert_int_equal(f.probes, 1);
	assert_string_equal(f.probe_url,
		"https://one/sns/jscode2session?appid=wx1&secret=s3%20cret"
		"&grant_type=authorization_code&js_code=the%20code%20is%20a%20mock%20one");
	f.probe_reply = BODY(REFUSED("40029"));
	wait_a_little(&f, 1100);
	assert_int_equal(f.probes, 2);
	assert_int_equal(login(&f, wx, NULL, 3000).oc, OC_OK);
	assert_memory_equal(f.urls[7], "https://one/", 12); /* it is back */
	wait_a_little(&f, 1100);
	assert_int_equal(f.probes, 2);
	end(&f, wx);
}

static void test_one_host_is_not_skipped_so_soon(void **state)
{
	struct fetch f = {.probe_reply = NOT_SENT};
	struct wechat *wx = make(&f, 1);

	(void)state;
	for (int i = 0; i < 10; i++) {
		f.replies[i] = NOT_SENT;
		assert_int_equal(login(&f, wx, NULL, 3000).oc, OC_WECHAT_UNAVAILABLE);
		assert_int_equal(f.asked, i + 1);
	}
	assert_int_equal(login(&f, wx, NULL, 3000).oc, OC_WECHAT_UNAVAILABLE);
	assert_int_equal(f.asked, 10); /* told at once */
	end(&f, wx);
}

/* What some callers send makes WeChat hang up. Our own question is answered, so the others are not
 * kept out. */
static void test_no_answers_are_checked_by_a_probe(void **state)
{
	struct fetch f = {.probe_reply = BODY(REFUSED("40029"))};
	struct wechat *wx = make(&f, 1);

	(void)state;
	for (int i = 0; i < 20; i++) {
		f.replies[i] = NO_ANSWER;
		assert_int_equal(login(&f, wx, NULL, 3000).oc, OC_WECHAT_UNAVAILABLE);
	}
	assert_int_equal(f.asked, 20);
	assert_true(f.probes >= 1 && f.probes <= 2); /* not more than one a second */
	f.replies[20] = BODY(GOOD);
	assert_int_equal(login(&f, wx, NULL, 3000).oc, OC_OK);
	f.probe_reply = NO_ANSWER;
	wait_a_little(&f, 1100);
	for (int i = 21; i < 31; i++) {
		f.replies[i] = NO_ANSWER;
		login(&f, wx, NULL, 3000);
	}
	wait_a_little(&f, 50);
	assert_int_equal(f.given_up, 4);
	assert_int_equal(login(&f, wx, NULL, 3000).oc, OC_WECHAT_UNAVAILABLE);
	assert_int_equal(f.asked, 31);
	end(&f, wx);
}

static void test_our_own_queue_is_no_evidence(void **state)
{
	struct fetch f = {.probe_reply = NO_ANSWER};
	struct wechat *wx = make(&f, 1);

	(void)state;
	for (int i = 0; i < 30; i++) {
		f.replies[i] = (struct fetch_reply){.result = FETCH_REFUSED, .not_sent = true};
		assert_int_equal(login(&f, wx, NULL, 3000).oc, OC_OVERLOADED);
	}
	assert_int_equal(f.asked, 30);
	assert_int_equal(f.probes, 0);
	end(&f, wx);
}

static void test_no_time_left(void **state)
{
	struct fetch f = {0};
	struct wechat *wx = make(&f, 1);

	(void)state;
	assert_int_equal(login(&f, wx, NULL, 0).oc, OC_WECHAT_UNAVAILABLE);
	assert_int_equal(login(&f, wx, NULL, -5).oc, OC_WECHAT_UNAVAILABLE);
	assert_int_equal(f.asked, 0);
	end(&f, wx);
}

static void test_an_informational_status_is_no_answer(void **state)
{
	struct fetch f = {.replies = {{.result = FETCH_DONE, .status = 101, .body = GOOD}}};

	(void)state;
	assert_int_equal(ask(&f, NULL).oc, OC_WECHAT_ERROR);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_answers),
		cmocka_unit_test(test_unescapes_and_encodes),
		cmocka_unit_test(test_busy_is_asked_again_twice),
		cmocka_unit_test(test_next_host_only_when_nothing_was_sent),
		cmocka_unit_test(test_a_call_keeps_its_place_in_the_queue),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_second_secret),
		cmocka_unit_test(test_an_errcode_means_what_it_means_in_that_call),
		cmocka_unit_test(test_40001_of_the_token_call_is_a_wrong_secret),
		cmocka_unit_test(test_a_dead_host_is_skipped),
		cmocka_unit_test(test_one_host_is_not_skipped_so_soon),
		cmocka_unit_test(test_no_answers_are_checked_by_a_probe),
		cmocka_unit_test(test_our_own_queue_is_no_evidence),
		cmocka_unit_test(test_no_time_left),
		cmocka_unit_test(test_an_informational_status_is_no_answer),
	};

	log_init(LOG_ERROR + 1, LOG_LOGFMT);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
