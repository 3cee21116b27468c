/* What WeChat would say: the rules of its documentation, in the order of checks that is the
 * likeliest. */
#include "answer.h"

#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/crypt.h"
#include "common/encode.h"
#include "common/json.h"
#include "common/mem.h"

static const struct {
	const char *path;
	enum method method;
} calls[API_OTHER] = {
	[API_JSCODE2SESSION] = {"/sns/jscode2session", METHOD_GET},
	[API_TOKEN] = {"/cgi-bin/token", METHOD_GET},
	[API_STABLE_TOKEN] = {"/cgi-bin/stable_token", METHOD_POST},
	[API_CHECKSESSION] = {"/wxa/checksession", METHOD_GET},
	[API_RESETUSERSESSIONKEY] = {"/wxa/resetusersessionkey", METHOD_GET},
	[API_GETUSERPHONENUMBER] = {"/wxa/business/getuserphonenumber", METHOD_POST},
	[API_GETUSERENCRYPTKEY] = {"/wxa/business/getuserencryptkey", METHOD_POST},
	[API_XPAY_BALANCE] = {"/xpay/query_user_balance", METHOD_POST},
	[API_XPAY_PAY] = {"/xpay/currency_pay", METHOD_POST},
	[API_XPAY_CANCEL] = {"/xpay/cancel_currency_pay", METHOD_POST},
};

enum api wechat_api(const char *path)
{
	for (int i = 0; i < API_OTHER; i++)
		if (!strcmp(path, calls[i].path))
			return (enum api)i;
	return API_OTHER;
}

/* ---- what the calls have in common ---- */

static bool is_empty(const char *s)
{
	return !s || !*s;
}

/* 0, or the errcode. The order is a guess (WeChat's is not known); it is documented. */
static int check_app(struct call *c, const char *appid, const char *secret)
{
	if (is_empty(appid))
		return 41002;
	snprintf(c->out->appid, sizeof(c->out->appid), "%s", appid);
	c->app = state_app(c->f, appid);
	if (!c->app)
		return 40013;
	if (is_empty(secret))
		return 41004;
	return crypt_str_equal(secret, c->app->secret) ? 0 : 40125;
}

static int check_token(struct call *c)
{
	const char *text = req_param(c->r, "access_token");

	if (is_empty(text))
		return 41001;
	switch (token_look(c->f, text, &c->app)) {
	case TOKEN_GOOD:
		snprintf(c->out->appid, sizeof(c->out->appid), "%s", c->app->appid);
		return 0;
	case TOKEN_EXPIRED:
		return 42001;
	case TOKEN_UNKNOWN:
		break;
	}
	return 40001;
}

static void note_code(struct call *c, const char *code)
{
	snprintf(c->out->code, sizeof(c->out->code), "%s", code);
}

/* ---- the calls ---- */

static void session_answer(struct call *c, const struct user *u)
{
	ok_begin(c, false);
	ok_str(c, "session_key", u->key);
	if (c->shapes & MASK(SHAPE_EXPIRES_IN))
		ok_int(c, "expires_in", 7200);
	if (!(c->shapes & MASK(SHAPE_MISSING)))
		ok_str(c, "openid", user_openid(u));
	if (u->unionid[0])
		ok_str(c, "unionid", u->unionid);
	ok_end(c, false);
}

/* What WeChat's developer tools give for every wx.login of a project without AppID. WeChat refuses
 * it. Here it is a user who may log in any number of times, and what follows it up to a ~ tells
 * such users apart: common.js adds a name of the phone, and ~ and the login. */
static bool is_mock_code(const char *text)
{
	static const char mock[] = "the code is a mock one";
	size_t n = sizeof(mock) - 1;

	return !strncmp(text, mock, n) && (!text[n] || text[n] == ' ' || text[n] == '~');
}

static struct user *user_of_code(struct call *c, const char *text)
{
	char openid[29];

	/* u1~1, u1~2: one user logs in again */
	openid_of_code(openid, c->app, text, strcspn(text, "~"));
	return is_mock_code(text) ? user_get(c->f, c->app, openid)
				  : user_find(c->f, c->app, openid);
}

/* Spends the code. */
static int exchange(struct call *c, const char *text, enum code_kind kind, struct user **user)
{
	enum code_state st;
	struct code *code;
	struct user *u;

	st = code_look(c->f, c->app, text, kind, &code);
	if (!code && (c->f->any_code || (kind == CODE_LOGIN && is_mock_code(text)))) {
		*user = user_of_code(c, text);
		return (*user)->blocked ? 40226 : 0;
	}
	if (!code || st == CODE_UNKNOWN)
		return 40029;
	u = user_get(c->f, c->app, code->openid);
	if (!user_may_call(c->f, u))
		return 45011;
	if (st == CODE_USED && !c->f->any_code)
		return kind == CODE_LOGIN ? 40163 : 40029;
	code->used = true;
	if (u->blocked)
		return 40226;
	if (kind == CODE_LOGIN && c->f->rotate)
		user_new_key(u);
	*user = u;
	return 0;
}

static void jscode2session(struct call *c)
{
	const char *code = req_param(c->r, "js_code"), *grant = req_param(c->r, "grant_type");
	int e = check_app(c, req_param(c->r, "appid"), req_param(c->r, "secret"));
	struct user *u = NULL;

	if (!e && (!grant || strcmp(grant, "authorization_code") != 0))
		e = 40002;
	if (!e && is_empty(code))
		e = 41008;
	if (!e) {
		note_code(c, code);
		e = exchange(c, code, CODE_LOGIN, &u);
	}
	if (e)
		refuse(c, e);
	else
		session_answer(c, u);
}

static void token_answer(struct call *c, const struct token *t)
{
	ok_begin(c, false);
	if (!(c->shapes & MASK(SHAPE_MISSING)))
		ok_str(c, "access_token", t->text);
	ok_int(c, "expires_in", (t->ends_ms - clock_ms() + 999) / 1000);
	ok_end(c, false);
}

static void token(struct call *c)
{
	const char *grant = req_param(c->r, "grant_type");
	int e = check_app(c, req_param(c->r, "appid"), req_param(c->r, "secret"));

	if (!e && (!grant || strcmp(grant, "client_credential") != 0))
		e = 40002;
	if (!e && !token_day_share(&c->app->plain, TOKENS_PER_DAY))
		e = 45009;
	if (e) {
		refuse(c, e);
		return;
	}
	token_renew(c->f, &c->app->plain, false);
	token_answer(c, &c->app->plain.now);
}

static const char *member(const cJSON *o, const char *key)
{
	const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, key);

	return cJSON_IsString(v) ? v->valuestring : NULL;
}

/* 0, or the errcode. */
static int stable_renew(struct call *c, bool force)
{
	struct token_kind *k = &c->app->stable;
	int64_t now = clock_ms();
	/* a life made shorter for a test renews at its end */
	int64_t least = c->f->token_life_s * 1000 > OVERLAP_MS ? OVERLAP_MS : 0;

	if (force && (!k->forced_ms || now - k->forced_ms >= FORCE_APART_MS)) {
		if (!token_day_share(k, FORCE_PER_DAY))
			return 45009;
		k->forced_ms = now;
		token_renew(c->f, k, true);
	} else if (k->now.ends_ms <= now + least) {
		token_renew(c->f, k, false);
	}
	return 0;
}

static void stable_token(struct call *c)
{
	size_t len;
	const char *body = req_body(c->r, &len), *grant;
	cJSON *o = json_parse(body, len);
	int e = check_app(c, member(o, "appid"), member(o, "secret"));

	grant = member(o, "grant_type");
	if (!e && (!grant || strcmp(grant, "client_credential") != 0))
		e = 40002;
	if (!e)
		e = stable_renew(
			c, cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(o, "force_refresh")));
	json_free(o);
	if (e)
		refuse(c, e);
	else
		token_answer(c, &c->app->stable.now);
}

/* Is signature in hex the HMAC-SHA256 of the parts, one after another? */
static bool is_hmac(const char *signature, const char *key, const char *const *parts, size_t n)
{
	uint8_t mac[SHA256_LEN];
	char hex[2 * SHA256_LEN + 1];
	struct buf b = {0};

	for (size_t i = 0; i < n; i++)
		buf_str(&b, parts[i]);
	crypt_hmac_sha256(mac, key, strlen(key), b.data ? b.data : "", b.len);
	buf_free(&b);
	hex_encode(hex, mac, sizeof(mac));
	return signature && crypt_str_equal(signature, hex);
}

/* 0, or the errcode: the query of checksession, resetusersessionkey and getuserencryptkey. */
static int check_signature(struct call *c, struct user **u)
{
	const char *openid = req_param(c->r, "openid");
	const char *method = req_param(c->r, "sig_method");
	int e = check_token(c);

	if (e)
		return e;
	if (is_empty(openid) || !openid_ok(openid) || !(*u = user_find(c->f, c->app, openid)))
		return 40003;
	if (!method || strcmp(method, "hmac_sha256") != 0)
		return 87008;
	/* the key is the base64 text */
	return is_hmac(req_param(c->r, "signature"), (*u)->key, NULL, 0) ? 0 : 87009;
}

static void checksession(struct call *c)
{
	struct user *u;
	int e = check_signature(c, &u);

	if (e) {
		refuse(c, e);
		return;
	}
	ok_begin(c, true);
	ok_end(c, true);
}

static void resetusersessionkey(struct call *c)
{
	struct user *u;
	int e = check_signature(c, &u);

	if (!e && !user_may_call(c->f, u))
		e = 45011;
	if (e) {
		refuse(c, e);
		return;
	}
	u = user_get(c->f, c->app, req_param(c->r, "openid"));
	user_new_key(u);
	ok_begin(c, true);
	ok_str(c, "openid", user_openid(u));
	if (!(c->shapes & MASK(SHAPE_MISSING)))
		ok_str(c, "session_key", u->key);
	ok_end(c, true);
}

static void phone_answer(struct call *c, const struct user *u)
{
	bool home = !strcmp(u->country, "86"), number = c->shapes & MASK(SHAPE_EXTRA);
	struct buf *b = &c->out->body;

	ok_begin(c, true);
	if (!(c->shapes & MASK(SHAPE_MISSING))) {
		ok_key(c, "phone_info");
		buf_printf(b,
			"{\"phoneNumber\":\"%s%s\",\"purePhoneNumber\":\"%s\",\"countryCode\":%s%s%"
			"s,\"watermark\":{\"timestamp\":%lld,\"appid\":\"%s\"}}",
			home ? "" : u->country, u->phone, u->phone, number ? "" : "\"", u->country,
			number ? "" : "\"", (long long)clock_wall_s(), c->app->appid);
	}
	ok_end(c, true);
}

static void getuserphonenumber(struct call *c)
{
	size_t len;
	const char *body = req_body(c->r, &len), *code, *openid;
	cJSON *o = json_parse(body, len);
	struct code *there;
	struct user *u = NULL;
	int e = check_token(c);

	code = member(o, "code");
	openid = member(o, "openid");
	if (!e && is_empty(code))
		e = 40029; /* also in the query or a form: only the JSON body counts */
	if (!e) {
		note_code(c, code);
		there = (struct code *)table_find(&c->f->codes, code);
		if (there && there->kind == CODE_PHONE && there->app != c->app)
			e = 40013;
		else if (there && !is_empty(openid) && strcmp(there->openid, openid) != 0)
			e = 40003;
		else
			e = exchange(c, code, CODE_PHONE, &u);
	}
	json_free(o);
	if (e)
		refuse(c, e);
	else
		phone_answer(c, u);
}

/* The last three, the newest first. Each follows from the user and its version. */
static void key_info_list(struct call *c, const struct user *u)
{
	struct buf *b = &c->out->body;

	ok_key(c, "key_info_list");
	for (int i = 0; i < 3; i++) {
		char name[256], key[BASE64_LEN(16) + 1], iv[17];
		uint8_t h[SHA256_LEN];

		snprintf(name, sizeof(name), "%s %d", u->e.key, u->key_version - i);
		crypt_hmac_sha256(h, c->f->seed, sizeof(c->f->seed), name, strlen(name));
		base64_encode(key, h, 16);
		hex_encode(iv, h + 16, 8);
		buf_printf(b,
			"%s{\"encrypt_key\":\"%s\",\"version\":%d,\"expire_in\":%d,\"iv\":\"%s\","
			"\"create_time\":%lld}",
			i ? "," : "[", key, u->key_version - i, i ? 0 : 3600, iv,
			(long long)clock_wall_s() - 3600LL * i);
	}
	buf_str(b, "]");
}

static void getuserencryptkey(struct call *c)
{
	struct user *u;
	int e = check_signature(c, &u);

	if ((!e || e == 87009) && !u->alive && !c->f->any_code)
		e = 87007;
	if (e) {
		refuse(c, e);
		return;
	}
	ok_begin(c, true);
	if (!(c->shapes & MASK(SHAPE_MISSING)))
		key_info_list(c, u);
	ok_end(c, true);
}

/* 0, or the errcode. Both signatures are of the body's bytes. */
static int check_payment(struct call *c, const char *body, const cJSON *o, struct user **u)
{
	const char *openid = member(o, "openid"), *signed_by_app[] = {req_path(c->r), "&", body};
	int e = check_token(c);

	if (e)
		return e;
	if (is_empty(openid) || !openid_ok(openid) || !user_find(c->f, c->app, openid))
		return 40003;
	*u = user_get(c->f, c->app, openid);
	if (c->f->app_key && !is_hmac(req_param(c->r, "pay_sig"), c->f->app_key, signed_by_app, 3))
		return 268490003;
	return is_hmac(req_param(c->r, "signature"), (*u)->key, &body, 1) ? 0 : 87009;
}

static void payment(struct call *c)
{
	size_t len;
	const char *body = req_body(c->r, &len);
	cJSON *o = json_parse(body, len);
	struct buf more = {0};
	struct user *u;
	int e = check_payment(c, body, o, &u);

	if (!e)
		e = xpay(c->api, u, o, &more);
	json_free(o);
	if (e) {
		refuse(c, e);
	} else {
		ok_begin(c, true);
		buf_str(&c->out->body, more.data);
		ok_end(c, true);
	}
	buf_free(&more);
}

static void other(struct call *c)
{
	refuse(c, 40066);
}

void wechat_answer(struct fake *f, struct req *r, enum api api, unsigned shapes, struct answer *out)
{
	static void (*const run[API_COUNT])(struct call *) = {
		[API_JSCODE2SESSION] = jscode2session,
		[API_TOKEN] = token,
		[API_STABLE_TOKEN] = stable_token,
		[API_CHECKSESSION] = checksession,
		[API_RESETUSERSESSIONKEY] = resetusersessionkey,
		[API_GETUSERPHONENUMBER] = getuserphonenumber,
		[API_GETUSERENCRYPTKEY] = getuserencryptkey,
		[API_XPAY_BALANCE] = payment,
		[API_XPAY_PAY] = payment,
		[API_XPAY_CANCEL] = payment,
		[API_OTHER] = other,
	};
	struct call c = {.f = f, .r = r, .api = api, .shapes = shapes, .out = out};
	enum method m = req_method(r);

	if (m == METHOD_HEAD)
		m = METHOD_GET;
	if (api != API_OTHER && m != calls[api].method)
		refuse(&c, calls[api].method == METHOD_GET ? 43001 : 43002);
	else
		run[api](&c);
}
