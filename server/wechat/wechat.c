/* What each call sends and what it takes from the answer. How a call lives is call.c's. */
#include "wechat/call.h"

#include <stdio.h>
#include <string.h>

#include "common/buf.h"
#include "common/crypt.h"
#include "common/encode.h"
#include "common/json.h"

enum { ID_MAX = 128, TOKEN_MAX = 2048, PHONE_MAX = 32 };

static const char *encoded(struct call *c, const char *s)
{
	char *out = arena_alloc(c->arena, strlen(s) * 3 + 1);

	percent_encode(out, s, strlen(s));
	return out;
}

/* A body of JSON, from pairs of name and text; a name of NULL ends them. */
static void json_body(
	struct call *c, struct fetch_request *rq, const char *const pairs[][2], const char *more)
{
	struct buf b = {0};

	json_open(&b, NULL, '{');
	for (; (*pairs)[0]; pairs++)
		json_add_str(&b, (*pairs)[0], (*pairs)[1]);
	buf_str(&b, more);
	json_close(&b, '}');
	rq->method = "POST";
	rq->content_type = "application/json";
	rq->body = arena_strndup(c->arena, b.data, b.len);
	rq->body_len = b.len;
	buf_free(&b);
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

/* ---- code2Session ---- */

struct code2session {
	struct call c;
	const char *code;
	struct wechat_session ws;
	wechat_session_cb cb;
	void *ctx;
};

static void session_build(struct call *c, struct fetch_request *rq, const char *host)
{
	struct code2session *s = (struct code2session *)c;

	rq->url = arena_join(c->arena, host, "/sns/jscode2session?appid=", encoded(c, c->appid),
		"&secret=", encoded(c, c->secrets[c->secret]), "&js_code=", encoded(c, s->code),
		"&grant_type=authorization_code", (char *)NULL);
}

static enum outcome session_read(struct call *c, const cJSON *tree, const struct fetch_reply *rp)
{
	struct wechat_session *ws = &((struct code2session *)c)->ws;

	if (json_str(tree, "openid", 1, ID_MAX, &ws->openid) != JSON_GOT || !id_ok(ws->openid))
		return call_wrong(c, "openid is missing or malformed", rp);
	if (json_str(tree, "session_key", 1, ID_MAX, &ws->session_key) != JSON_GOT ||
		!printable(ws->session_key))
		return call_wrong(c, "session_key is missing or malformed", rp);
	switch (json_str(tree, "unionid", 0, ID_MAX, &ws->unionid)) {
	case JSON_ABSENT:
		ws->unionid = "";
		return OC_OK;
	case JSON_GOT:
		return !*ws->unionid || id_ok(ws->unionid)
			       ? OC_OK
			       : call_wrong(c, "unionid is malformed", rp);
	default:
		return call_wrong(c, "unionid is malformed", rp);
	}
}

static void session_end(struct call *c, enum outcome oc)
{
	struct code2session *s = (struct code2session *)c;

	if (oc != OC_OK)
		s->ws = (struct wechat_session){
			.openid = "", .session_key = "", .unionid = "", .errcode = c->errcode};
	s->cb(s->ctx, oc, &s->ws);
}

void wechat_code2session(struct wechat *wx, const struct wechat_app *app, const char *code,
	int64_t timeout_ms, wechat_session_cb cb, void *ctx)
{
	static const struct call_kind kind = {.api = API_JSCODE2SESSION,
		.name = "jscode2session",
		.pool = POOL_LOGIN,
		.build = session_build,
		.read = session_read,
		.end = session_end};
	struct code2session *s = call_new(wx, &kind, sizeof(*s), app);

	s->code = s->c.hide[0] = arena_strdup(s->c.arena, code);
	s->cb = cb;
	s->ctx = ctx;
	call_start(&s->c, timeout_ms);
}

/* ---- getStableAccessToken ---- */

struct stable_token {
	struct call c;
	bool force;
	const char *access_token;
	int64_t expires_in_s;
	wechat_token_cb cb;
	void *ctx;
};

static void token_build(struct call *c, struct fetch_request *rq, const char *host)
{
	const char *const pairs[][2] = {{"grant_type", "client_credential"}, {"appid", c->appid},
		{"secret", c->secrets[c->secret]}, {NULL, NULL}};

	rq->url = arena_printf(c->arena, "%s/cgi-bin/stable_token", host);
	json_body(c, rq, pairs,
		((struct stable_token *)c)->force ? ",\"force_refresh\":true"
						  : ",\"force_refresh\":false");
}

static enum outcome token_read(struct call *c, const cJSON *tree, const struct fetch_reply *rp)
{
	struct stable_token *t = (struct stable_token *)c;

	if (json_str(tree, "access_token", 1, TOKEN_MAX, &t->access_token) != JSON_GOT ||
		!printable(t->access_token))
		return call_wrong(c, "access_token is missing or malformed", rp);
	if (json_int(tree, "expires_in", 1, 7 * 86400, &t->expires_in_s) != JSON_GOT)
		return call_wrong(c, "expires_in is missing or out of bounds", rp);
	return OC_OK;
}

static void token_end(struct call *c, enum outcome oc)
{
	struct stable_token *t = (struct stable_token *)c;

	t->cb(t->ctx, oc, oc == OC_OK ? t->access_token : NULL, oc == OC_OK ? t->expires_in_s : 0,
		oc == OC_OK ? 0 : c->errcode);
}

void wechat_stable_token(
	struct wechat *wx, const struct wechat_app *app, bool force, wechat_token_cb cb, void *ctx)
{
	static const struct call_kind normal = {.api = API_STABLE_TOKEN,
		.name = "stable_token",
		.pool = POOL_TOKEN,
		.repeatable = true,
		.build = token_build,
		.read = token_read,
		.end = token_end};
	static const struct call_kind forced = {.api = API_STABLE_TOKEN,
		.name = "stable_token",
		.pool = POOL_TOKEN,
		.once = true,
		.build = token_build,
		.read = token_read,
		.end = token_end};
	struct stable_token *t = call_new(wx, force ? &forced : &normal, sizeof(*t), app);

	t->force = force;
	t->cb = cb;
	t->ctx = ctx;
	call_start(&t->c, INT64_MAX);
}

bool wechat_token_is_stale(int errcode)
{
	return errcode && (errcode_find(API_PASS, errcode)->flags & ERRCODE_STALE);
}

int wechat_retry_after_s(int errcode)
{
	return errcode && (errcode_find(API_PASS, errcode)->flags & ERRCODE_LATER) ? 3600 : 0;
}

/* ---- what is signed with a session_key ---- */

/* HMAC-SHA256 of nothing, as these calls want it. The key is the base64 text. */
static const char *empty_signature(struct call *c, const char *session_key)
{
	uint8_t mac[SHA256_LEN];
	char *hex = arena_alloc(c->arena, 2 * SHA256_LEN + 1);

	crypt_hmac_sha256(mac, session_key, strlen(session_key), "", 0);
	hex_encode(hex, mac, sizeof(mac));
	return hex;
}

/* ---- checkSessionKey ---- */

struct checksession {
	struct call c;
	const char *token, *openid, *signature;
	bool valid;
	wechat_check_cb cb;
	void *ctx;
};

static void check_build(struct call *c, struct fetch_request *rq, const char *host)
{
	struct checksession *s = (struct checksession *)c;

	rq->url = arena_printf(c->arena,
		"%s/wxa/checksession?access_token=%s&openid=%s&signature=%s&sig_method=hmac_sha256",
		host, encoded(c, s->token), encoded(c, s->openid), s->signature);
}

static enum outcome check_read(struct call *c, const cJSON *tree, const struct fetch_reply *rp)
{
	struct checksession *s = (struct checksession *)c;
	/* invalid signature: of another key; no session_key that lives */
	bool another = c->errcode == 87009 || c->errcode == 87007;

	if (!another && (c->errcode || !cJSON_HasObjectItem(tree, "errcode")))
		return c->errcode ? OC_PENDING : call_wrong(c, "errcode is missing", rp);
	s->valid = !another;
	return OC_OK;
}

static void check_end(struct call *c, enum outcome oc)
{
	struct checksession *s = (struct checksession *)c;

	s->cb(s->ctx, oc, oc == OC_OK && s->valid, oc == OC_OK ? 0 : c->errcode);
}

void wechat_checksession(struct wechat *wx, const struct wechat_app *app, const char *access_token,
	const char *openid, const char *session_key, wechat_check_cb cb, void *ctx)
{
	static const struct call_kind kind = {.api = API_CHECKSESSION,
		.name = "checksession",
		.pool = POOL_SERVICE,
		.repeatable = true,
		.refusals = true,
		.build = check_build,
		.read = check_read,
		.end = check_end};
	struct checksession *s = call_new(wx, &kind, sizeof(*s), app);

	s->token = s->c.hide[0] = arena_strdup(s->c.arena, access_token);
	s->openid = arena_strdup(s->c.arena, openid);
	s->signature = empty_signature(&s->c, session_key);
	s->cb = cb;
	s->ctx = ctx;
	call_start(&s->c, INT64_MAX);
}

/* ---- getPhoneNumber ---- */

struct getphone {
	struct call c;
	const char *token, *code, *openid;
	struct wechat_phone phone;
	char country[12];
	wechat_phone_cb cb;
	void *ctx;
};

static void phone_build(struct call *c, struct fetch_request *rq, const char *host)
{
	struct getphone *p = (struct getphone *)c;
	const char *const pairs[][2] = {{"code", p->code}, {"openid", p->openid}, {NULL, NULL}};

	rq->url = arena_printf(c->arena, "%s/wxa/business/getuserphonenumber?access_token=%s", host,
		encoded(c, p->token));
	json_body(c, rq, pairs, "");
}

static enum outcome phone_read(struct call *c, const cJSON *tree, const struct fetch_reply *rp)
{
	struct getphone *p = (struct getphone *)c;
	const cJSON *info = cJSON_GetObjectItemCaseSensitive(tree, "phone_info"),
		    *mark = cJSON_GetObjectItemCaseSensitive(info, "watermark");
	const char *appid;
	int64_t country;

	if (json_str(info, "phoneNumber", 1, PHONE_MAX, &p->phone.number) != JSON_GOT ||
		!printable(p->phone.number) ||
		json_str(info, "purePhoneNumber", 1, PHONE_MAX, &p->phone.pure_number) !=
			JSON_GOT ||
		!printable(p->phone.pure_number))
		return call_wrong(c, "phone_info is missing or malformed", rp);
	/* a number in WeChat's sample, a text in its table */
	if (json_int(info, "countryCode", 0, 99999, &country) == JSON_GOT) {
		snprintf(p->country, sizeof(p->country), "%d", (int)country);
		p->phone.country_code = p->country;
	} else if (json_str(info, "countryCode", 1, 8, &p->phone.country_code) != JSON_GOT ||
		   !printable(p->phone.country_code)) {
		return call_wrong(c, "countryCode is missing or malformed", rp);
	}
	if (json_str(mark, "appid", 1, ID_MAX, &appid) != JSON_GOT || strcmp(appid, c->appid) != 0)
		return call_wrong(c, "the watermark names another app", rp);
	return OC_OK;
}

static void phone_end(struct call *c, enum outcome oc)
{
	struct getphone *p = (struct getphone *)c;

	if (oc != OC_OK)
		p->phone = (struct wechat_phone){
			.number = "", .pure_number = "", .country_code = "", .errcode = c->errcode};
	p->cb(p->ctx, oc, &p->phone);
}

void wechat_getuserphonenumber(struct wechat *wx, const struct wechat_app *app,
	const char *access_token, const char *code, const char *openid, wechat_phone_cb cb,
	void *ctx)
{
	static const struct call_kind kind = {.api = API_PHONE,
		.name = "getuserphonenumber",
		.pool = POOL_SERVICE,
		.build = phone_build,
		.read = phone_read,
		.end = phone_end};
	struct getphone *p = call_new(wx, &kind, sizeof(*p), app);

	p->token = p->c.hide[0] = arena_strdup(p->c.arena, access_token);
	p->code = p->c.hide[1] = arena_strdup(p->c.arena, code);
	p->openid = arena_strdup(p->c.arena, openid);
	p->cb = cb;
	p->ctx = ctx;
	call_start(&p->c, INT64_MAX);
}

/* ---- getUserEncryptKey ---- */

struct getkeys {
	struct call c;
	const char *token, *openid, *signature;
	struct wechat_encrypt_keys keys;
	wechat_encrypt_keys_cb cb;
	void *ctx;
};

static void keys_build(struct call *c, struct fetch_request *rq, const char *host)
{
	struct getkeys *g = (struct getkeys *)c;

	rq->method = "POST"; /* with an empty body, as WeChat's guide has it */
	rq->url = arena_join(c->arena, host,
		"/wxa/business/getuserencryptkey?access_token=", encoded(c, g->token),
		"&openid=", encoded(c, g->openid), "&signature=", g->signature,
		"&sig_method=hmac_sha256");
}

static bool read_key(const cJSON *item, struct wechat_encrypt_key *k)
{
	return json_int(item, "version", 0, INT64_MAX / 2, &k->version) == JSON_GOT &&
	       json_str(item, "encrypt_key", 1, ID_MAX, &k->encrypt_key) == JSON_GOT &&
	       json_str(item, "iv", 1, ID_MAX, &k->iv) == JSON_GOT &&
	       printable(k->encrypt_key) && printable(k->iv) &&
	       json_int(item, "expire_in", INT32_MIN, 7 * 86400, &k->expires_in_s) == JSON_GOT &&
	       json_int(item, "create_time", 0, INT64_MAX / 2, &k->created_at) == JSON_GOT;
}

static enum outcome keys_read(struct call *c, const cJSON *tree, const struct fetch_reply *rp)
{
	struct wechat_encrypt_keys *keys = &((struct getkeys *)c)->keys;
	const cJSON *list = cJSON_GetObjectItemCaseSensitive(tree, "key_info_list"), *item;

	if (!cJSON_IsArray(list))
		return call_wrong(c, "key_info_list is missing", rp);
	cJSON_ArrayForEach(item, list)
		if (keys->n == WECHAT_ENCRYPT_KEYS_MAX || !read_key(item, &keys->list[keys->n++]))
			return call_wrong(c, "a key of key_info_list is malformed", rp);
	return OC_OK;
}

static void keys_end(struct call *c, enum outcome oc)
{
	struct getkeys *g = (struct getkeys *)c;

	if (oc != OC_OK)
		g->keys = (struct wechat_encrypt_keys){.errcode = c->errcode};
	g->cb(g->ctx, oc, &g->keys);
}

void wechat_getuserencryptkey(struct wechat *wx, const struct wechat_app *app,
	const char *access_token, const char *openid, const char *session_key,
	wechat_encrypt_keys_cb cb, void *ctx)
{
	static const struct call_kind kind = {.api = API_ENCRYPT_KEY, .name = "getuserencryptkey",
		.pool = POOL_SERVICE, .repeatable = true, .build = keys_build, .read = keys_read,
		.end = keys_end};
	struct getkeys *g = call_new(wx, &kind, sizeof(*g), app);

	g->token = g->c.hide[0] = arena_strdup(g->c.arena, access_token);
	g->openid = arena_strdup(g->c.arena, openid);
	g->signature = empty_signature(&g->c, session_key);
	g->cb = cb;
	g->ctx = ctx;
	call_start(&g->c, INT64_MAX);
}

/* ---- a backend's own call ---- */

struct pass {
	struct call c;
	struct wechat_pass what;
	const char *token;
	const struct fetch_reply *reply; /* while read's caller has it */
	wechat_pass_cb cb;
	void *ctx;
};

static void pass_build(struct call *c, struct fetch_request *rq, const char *host)
{
	struct pass *p = (struct pass *)c;

	rq->method = p->what.method;
	rq->url = arena_printf(c->arena, "%s/%s?access_token=%s%s%s", host, p->what.path,
		encoded(c, p->token), *p->what.query ? "&" : "", p->what.query);
	rq->content_type = p->what.content_type;
	rq->body = p->what.body;
	rq->body_len = p->what.body_len;
}

static enum outcome pass_read(struct call *c, const cJSON *tree, const struct fetch_reply *rp)
{
	(void)tree;
	((struct pass *)c)->reply = rp;
	return OC_OK;
}

static void pass_end(struct call *c, enum outcome oc)
{
	struct pass *p = (struct pass *)c;

	p->cb(p->ctx, oc, oc == OC_OK ? p->reply : NULL, c->errcode);
}

void wechat_pass(struct wechat *wx, const struct wechat_app *app, const char *access_token,
	const struct wechat_pass *what, wechat_pass_cb cb, void *ctx)
{
	static const struct call_kind kind = {.api = API_PASS,
		.name = "pass",
		.pool = POOL_PASS,
		.raw = true,
		.build = pass_build,
		.read = pass_read,
		.end = pass_end};
	struct pass *p = call_new(wx, &kind, sizeof(*p), app);
	struct arena *a = p->c.arena;

	p->token = p->c.hide[0] = arena_strdup(a, access_token);
	p->what = *what;
	p->what.method = arena_strdup(a, what->method);
	p->what.path = arena_strdup(a, what->path);
	p->what.query = arena_strdup(a, what->query);
	p->what.content_type = what->content_type ? arena_strdup(a, what->content_type) : NULL;
	p->what.body = what->body ? arena_strndup(a, what->body, what->body_len) : NULL;
	p->cb = cb;
	p->ctx = ctx;
	call_start(&p->c, what->timeout_ms);
}
