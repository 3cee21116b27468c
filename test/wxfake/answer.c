/* How WeChat writes an answer: its errcodes with their texts, its types, and the shapes into which
 * a fault bends them. */
#include "answer.h"

#include <string.h>

#include "common/clock.h"
#include "common/crypt.h"
#include "common/encode.h"
#include "common/mem.h"

static const struct {
	int         errcode;
	const char *text;
} texts[] = {
	{-1, "system error"},
	{40001, "invalid credential, access_token is invalid or not latest, could get access_token by getStableAccessToken, "
		"more details at https://mmbizurl.cn/s/JtxxFh33r"},
	{40002, "invalid grant_type"},
	{40003, "invalid openid"},
	{40013, "invalid appid"},
	{40014, "invalid access_token"},
	{40029, "invalid code"},
	{40066, "invalid url"},
	{40125, "invalid appsecret"},
	{40163, "code been used"},
	{40164, "invalid ip 127.0.0.1 ipv6 ::ffff:127.0.0.1, not in whitelist"},
	{40226, "code blocked"},
	{40243, "invalid appsecret, appsecret has been frozen"},
	{41001, "access_token missing"},
	{41002, "appid missing"},
	{41004, "appsecret missing"},
	{41008, "missing code"},
	{42001, "access_token expired"},
	{43001, "require GET method"},
	{43002, "require POST method"},
	{45009, "reach max api daily quota limit"},
	{45011, "api minute-quota reach limit  mustslower  retry next minute"},
	{47001, "data format error"},
	{50004, "forbidden to use token api"},
	{50007, "account frozen"},
	{87007, "session_key is not existd or expired"},
	{87008, "invalid sig_method"},
	{87009, "invalid signature"},
	{268490002, "request param error"},
	{268490003, "pay_sig error"},
	{268490004, "operation repeated"},
	{268490005, "order is refunded"},
	{268490006, "balance is not enough"},
};

static bool is_sns(const struct req *r)
{
	return !strncmp(req_path(r), "/sns/", 5);
}

/* WeChat writes / as \/. Slashes stand nowhere but inside strings, so the whole text can be treated
 * at once. */
static void escape_slashes(struct buf *b)
{
	struct buf out = {0};

	for (size_t i = 0; i < b->len; i++) {
		if (b->data[i] == '/')
			buf_str(&out, "\\");
		buf_add(&out, b->data + i, 1);
	}
	buf_free(b);
	*b = out;
}

static void finish(struct answer *out, unsigned shapes)
{
	if (!(shapes & MASK(SHAPE_UNESCAPED)))
		escape_slashes(&out->body);
	if (shapes & MASK(SHAPE_TRUNCATED))
		/* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): there is always a body */
		out->body.data[out->body.len = out->body.len * 2 / 3] = 0;
	if (shapes & MASK(SHAPE_BOM)) {
		struct buf with = {0};

		buf_add(&with, "\xef\xbb\xbf", 3);
		buf_add(&with, out->body.data, out->body.len);
		buf_free(&out->body);
		out->body = with;
	}
}

static void add_suffix(struct buf *b, bool sns, unsigned shapes)
{
	uint32_t rnd[2];
	uint8_t raw[9];
	char text[13];

	crypt_random(rnd, sizeof(rnd));
	if (!(shapes & MASK(SHAPE_OLD_HINTS))) {
		buf_printf(b, "%s rid: %08x-%08x-%08x", sns ? "," : "", (unsigned)clock_wall_s(),
			rnd[0], rnd[1]);
		return;
	}
	crypt_random(raw, sizeof(raw));
	base64url_encode(text, raw, sizeof(raw));
	buf_printf(b, sns ? ", hints: [ req_id: %s ]" : " hint: [%s]", text);
}

void wechat_refuse(struct req *r, enum api api, int errcode, unsigned shapes, struct answer *out)
{
	const char *text = "system error", *quote = shapes & MASK(SHAPE_QUOTED) ? "\"" : "";

	(void)api;
	for (size_t i = 0; i < NELEM(texts); i++)
		if (texts[i].errcode == errcode)
			text = texts[i].text;
	out->type = is_sns(r) ? "text/plain" : "application/json; encoding=utf-8";
	out->errcode = errcode;
	buf_clear(&out->body);
	buf_printf(&out->body, "{\"errcode\":%s%d%s,\"errmsg\":\"%s", quote, errcode, quote, text);
	add_suffix(&out->body, is_sns(r), shapes);
	buf_str(&out->body, "\"}");
	finish(out, shapes);
}

void refuse(struct call *c, int errcode)
{
	wechat_refuse(c->r, c->api, errcode, c->shapes, c->out);
}

/* ---- success ---- */

void ok_begin(struct call *c, bool with_errcode)
{
	c->out->type = is_sns(c->r) ? "text/plain" : "application/json; encoding=utf-8";
	buf_str(&c->out->body, "{");
	if (with_errcode)
		buf_str(&c->out->body, c->shapes & MASK(SHAPE_QUOTED)
					       ? "\"errcode\":\"0\",\"errmsg\":\"ok\""
					       : "\"errcode\":0,\"errmsg\":\"ok\"");
}

void ok_key(struct call *c, const char *key)
{
	buf_printf(&c->out->body, "%s\"%s\":", c->out->body.len > 1 ? "," : "", key);
}

void ok_str(struct call *c, const char *key, const char *value)
{
	ok_key(c, key);
	if (c->shapes & MASK(SHAPE_EMPTY_FIELDS))
		value = "";
	buf_json_str(&c->out->body, value, strlen(value));
}

void ok_int(struct call *c, const char *key, int64_t value)
{
	ok_key(c, key);
	buf_printf(&c->out->body, "%lld", (long long)value);
}

void ok_end(struct call *c, bool with_errcode)
{
	if (c->shapes & MASK(SHAPE_EXTRA))
		buf_str(&c->out->body, ",\"x_new\":{\"list\":[1,null,{\"a\":true}],\"text\":"
				       "\"\\u4f60\\u597d \\ud83d\\udc3c\"},\"x_null\":null");
	if ((c->shapes & MASK(SHAPE_ERRCODE0)) && !with_errcode)
		buf_str(&c->out->body, c->shapes & MASK(SHAPE_QUOTED)
					       ? ",\"errcode\":\"0\",\"errmsg\":\"ok\""
					       : ",\"errcode\":0,\"errmsg\":\"ok\"");
	buf_str(&c->out->body, "}");
	finish(c->out, c->shapes);
}
