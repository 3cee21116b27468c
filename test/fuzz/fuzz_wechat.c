/* WeChat's replies, in the order they come, to each call that we make: one callback, never before
 * the starter returns; a code is asked about again only where that is allowed; what is handed on is
 * within the bounds that Redis, headers and logs count on.
 *
 * Input: which call; a byte for each try, how it ends; then the replies' bodies, with a 0x1e
 * between them. */
#include "fuzz.h"

#include "common/log.h"
#include "virtual_loop.h"
#include "wechat/wechat.h"

enum { TRIES_MAX = 8, HOSTS = 2, BUSY_RETRIES = 2 };

struct fetch {
	struct loop *loop;
	struct input in;
	uint8_t how[TRIES_MAX];
	int tries, sent;     /* asked for; of them, those that may have reached WeChat */
	bool spends;         /* a code: it is asked about again only where */
	bool again_allowed;  /* by the last answer */
};

struct answer {
	struct fetch *f;
	struct fetch_reply reply;
	char *body;
	fetch_cb cb;
	void *ctx;
};

static void deliver(void *ctx)
{
	struct answer *a = ctx;

	a->cb(a->ctx, &a->reply);
	free(a->body);
	free(a);
}

/* What call.c may ask again after: no byte left us, or WeChat's own -1 or 40125. */
static bool says_again(const char *body)
{
	return strstr(body, "-") || strstr(body, "40") || strchr(body, '\\') || strchr(body, 'e') ||
	       strchr(body, 'E');
}

void fetch_start(struct fetch *f, const struct fetch_request *rq, fetch_cb cb, void *ctx)
{
	static const enum fetch_result results[] = {
		FETCH_NOT_SENT, FETCH_NO_ANSWER, FETCH_TIMED_OUT, FETCH_TOO_LARGE, FETCH_REFUSED};
	struct answer *a = mem_alloc(sizeof(*a));
	unsigned how;

	MUST(f->tries == 0 || !f->spends || f->again_allowed);
	MUST(f->tries < TRIES_MAX && rq->timeout_ms > 0 && rq->timeout_ms <= 3000);
	MUST(!strncmp(rq->url, "https://", 8) &&
		strspn(rq->url + 8, "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "/_%?&=.~-") == strlen(rq->url + 8));
	how = f->how[f->tries++];
	a->f = f;
	a->cb = cb;
	a->ctx = ctx;
	a->body = take_text(&f->in, 0x1e);
	a->reply = (struct fetch_reply){.result = FETCH_DONE,
		.status = 200,
		.content_type = "text/plain",
		.body = a->body,
		.body_len = strlen(a->body),
		.error = ""};
	if (how >= 0xf0) {
		a->reply = (struct fetch_reply){.result = results[how % NELEM(results)],
			.content_type = "",
			.body = "",
			.error = "it was not to be"};
		a->reply.not_sent = a->reply.result == FETCH_NOT_SENT ||
				    (a->reply.result == FETCH_TIMED_OUT && how & 8);
	} else if (how >= 0xe0) {
		a->reply.status = 500;
	}
	f->sent += !a->reply.not_sent;
	f->again_allowed =
		a->reply.not_sent || (a->reply.result == FETCH_DONE && says_again(a->body));
	virtual_us += how * 1000;
	loop_defer(f->loop, deliver, a);
}

void fetch_give_up(struct fetch *f, const char *origin)
{
	(void)f;
	(void)origin;
}

/* ---- what comes of it ---- */

static struct { int calls; enum outcome oc; } got;

static void told(enum outcome oc)
{
	got.calls++;
	got.oc = oc;
	MUST(oc != OC_PENDING &&
		(oc == OC_OK || oc == OC_INVALID_CODE || oc == OC_USER_BLOCKED ||
			oc == OC_RATE_LIMITED || oc == OC_WECHAT_ERROR || oc == OC_WECHAT_CONFIG ||
			oc == OC_WECHAT_UNAVAILABLE || oc == OC_OVERLOADED));
}

static void is_id(const char *s, size_t least)
{
	MUST(strlen(s) >= least && strlen(s) <= 128);
	for (; *s; s++)
		MUST((*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') ||
			(*s >= '0' && *s <= '9') || *s == '_' || *s == '-');
}

static void is_printable(const char *s, size_t most)
{
	MUST(*s && strlen(s) <= most);
	for (; *s; s++)
		MUST(*s > ' ' && *s < 0x7f);
}

static void on_session(void *ctx, enum outcome oc, const struct wechat_session *ws)
{
	(void)ctx;
	told(oc);
	MUST(ws);
	if (oc == OC_OK) {
		is_id(ws->openid, 1);
		is_printable(ws->session_key, 128);
		is_id(ws->unionid, 0);
	} else {
		MUST(!*ws->openid && !*ws->session_key && !*ws->unionid);
	}
	MUST(!(oc == OC_OK && ws->errcode));
}

static void on_token(
	void *ctx, enum outcome oc, const char *token, int64_t expires_in_s, int errcode)
{
	(void)ctx;
	MUST(oc != OC_OK || errcode == 0);
	told(oc);
	MUST((oc == OC_OK) == (token != NULL));
	if (token) {
		is_printable(token, 2048);
		MUST(expires_in_s > 0 && expires_in_s <= 7 * 86400);
	}
}

static void on_check(void *ctx, enum outcome oc, bool valid, int errcode)
{
	(void)ctx;
	told(oc);
	MUST(oc == OC_OK ? errcode == 0 : !valid);
}

static void on_phone(void *ctx, enum outcome oc, const struct wechat_phone *p)
{
	(void)ctx;
	told(oc);
	MUST(p && p->number && p->pure_number && p->country_code);
	if (oc == OC_OK) {
		is_printable(p->pure_number, 32);
		MUST(strlen(p->number) <= 32 && strlen(p->country_code) < 12);
	} else {
		MUST(!*p->number && !*p->pure_number && !*p->country_code);
	}
}

static void on_pass(void *ctx, enum outcome oc, const struct fetch_reply *reply, int errcode)
{
	(void)ctx;
	(void)errcode;
	told(oc);
	MUST((oc == OC_OK) == (reply != NULL));
}

static void start(struct wechat *wx, unsigned which)
{
	static const struct wechat_app two = {.appid = "wx1",
					       .secrets = {"s3 cret", "s\xC3\xA9"
								      "cond"}},
				       one = {.appid = "wx1", .secrets = {"&s?"}};
	static const struct wechat_pass pass = {.method = "POST",
		.path = "wxa/x",
		.query = "a=b",
		.content_type = "text/plain",
		.body = "x",
		.body_len = 1,
		.timeout_ms = 2000};
	const struct wechat_app *app = which & 0x80 ? &two : &one;

	switch (which % 6) {
	case 0:
	case 1:
		wechat_code2session(wx, app, "c de/+", 3000, on_session, NULL);
		break;
	case 2:
		wechat_stable_token(wx, app, which & 0x40, on_token, NULL);
		break;
	case 3:
		wechat_checksession(wx, app, "tok/en", "o1", "a2V5", on_check, NULL);
		break;
	case 4:
		wechat_getuserphonenumber(wx, app, "token", "code", "o1", on_phone, NULL);
		break;
	case 5:
		wechat_pass(wx, app, "token", &pass, on_pass, NULL);
		break;
	}
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	log_init((enum log_level)(LOG_ERROR + 1), LOG_LOGFMT);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const hosts[HOSTS] = {"https://one", "https://two"};
	struct fetch f = {.loop = loop_new(), .in = {data, size}};
	unsigned which = take_byte(&f.in);
	struct wechat *wx;

	for (int i = 0; i < TRIES_MAX; i++)
		f.how[i] = i < 4 ? (uint8_t)take_byte(&f.in) : 0;
	f.spends = which % 6 < 2 || which % 6 >= 4;
	wx = wechat_new(f.loop, &(struct wechat_options){.login = &f,
					.token = &f,
					.service = &f,
					.pass = &f,
					.base_urls = hosts,
					.base_url_count = HOSTS,
					.timeout_ms = 3000});
	got.calls = 0;
	start(wx, which);
	MUST(got.calls == 0);
	loop_run(f.loop);
	MUST(got.calls == 1);
	/* hosts, -1, the second secret, once without an answer, the first */
	MUST(f.tries <= (HOSTS - 1) + BUSY_RETRIES + 1 + 1 + 1);
	if (which % 6 < 2)
		MUST(f.sent <= BUSY_RETRIES + 1 + 1);
	if (which % 6 == 5)
		MUST(f.sent <= 1); /* sent once */
	wechat_free(wx);
	MUST(got.calls == 1);
	loop_free(f.loop);
	return 0;
}
