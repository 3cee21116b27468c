/* POST /fake/push: sends a message as WeChat would, signed and encrypted, and says what came back.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/buffer.h>
#include <event2/http.h>
#include <utlist.h>

#include "common/clock.h"
#include "common/crypt.h"
#include "common/encode.h"
#include "common/json.h"
#include "fake.h"
#include "wechat/push.h"

enum { ANSWER_S = 6, ANSWER_MAX = 1024 * 1024 };

struct pushed {
	struct pushed *prev, *next;
	struct fake *f;
	struct req *r;
	struct app *app;
	struct evhttp_connection *conn;
	const char *token, *aes_key, *url, *format, *mode;
	struct push_key key;
	bool plain, compatible, xml;
	cJSON *message;
};

static void push_end(struct pushed *p)
{
	DL_DELETE(p->f->pushes, p);
	json_free(p->message);
	req_release(p->r);
}

/* ---- what came back ---- */

/* The clear text of an encrypted answer; NULL: it was not encrypted, or cannot be opened. */
static const char *clear_answer(struct pushed *p, const char *body, size_t len)
{
	struct arena *a = req_arena(p->r);
	struct push_message m;
	size_t n;

	if (!push_read(a, body, len, &m) || !m.encrypt)
		return NULL;
	return push_open(a, &p->key, p->app->appid, m.encrypt, &n);
}

static void on_answer(struct evhttp_request *answer, void *ctx)
{
	struct pushed *p = ctx;
	int status = answer ? evhttp_request_get_response_code(answer) : 0;
	struct evbuffer *in = status ? evhttp_request_get_input_buffer(answer) : NULL;
	size_t len = in ? evbuffer_get_length(in) : 0;
	char *body = arena_alloc(req_arena(p->r), len + 1);
	struct buf b = {0};

	if (len)
		evbuffer_copyout(in, body, len);
	json_open(&b, NULL, '{');
	json_add_int(&b, "status", status);
	json_add_str(&b, "body", utf8_valid(body, len) ? body : "");
	json_add_str(&b, "clear", clear_answer(p, body, len));
	json_close(&b, '}');
	req_reply_json(p->r, 200, b.data);
	buf_free(&b);
	push_end(p);
}

/* ---- what is sent ---- */

static const char *as_xml(struct arena *a, const cJSON *message)
{
	struct buf b = {0};
	const cJSON *m;
	const char *text;

	buf_str(&b, "<xml>");
	cJSON_ArrayForEach(m, message) {
		if (cJSON_IsNumber(m))
			buf_printf(&b, "<%s>%.0f</%s>", m->string, m->valuedouble, m->string);
		else if (cJSON_IsString(m))
			buf_printf(&b, "<%s><![CDATA[%s]]></%s>", m->string, m->valuestring,
				m->string);
	}
	buf_str(&b, "</xml>");
	text = arena_strndup(a, b.data, b.len);
	buf_free(&b);
	return text;
}

static const char *as_text(struct pushed *p)
{
	struct arena *a = req_arena(p->r);

	return p->xml ? as_xml(a, p->message) : json_print(a, p->message);
}

/* The body, and what the query has of it. */
static const char *seal(
	struct pushed *p, const char *timestamp, const char *nonce, struct buf *query)
{
	struct arena *a = req_arena(p->r);
	const char *text = as_text(p), *encrypt;
	uint8_t random[PUSH_RANDOM_LEN];
	char signature[PUSH_SIGNATURE_SIZE];
	cJSON *whole;

	if (p->plain)
		return text;
	crypt_random(random, sizeof(random));
	encrypt = push_seal(a, &p->key, p->app->appid, random, text, strlen(text));
	push_sign(signature, p->token, timestamp, nonce, encrypt);
	buf_printf(query, "&encrypt_type=aes&msg_signature=%s", signature);
	whole = p->compatible ? p->message : cJSON_CreateObject();
	cJSON_AddStringToObject(whole, "Encrypt", encrypt);
	if (!p->compatible) {
		cJSON_AddStringToObject(whole, "ToUserName", "gh_wxfake");
		json_free(p->message);
		p->message = whole;
	}
	return as_text(p);
}

static void add_query(struct pushed *p, const cJSON *o, struct buf *query, const char **body)
{
	struct arena *a = req_arena(p->r);
	const char *timestamp, *nonce;
	char signature[PUSH_SIGNATURE_SIZE];
	int64_t at = clock_wall_s();
	uint32_t random;

	json_int(o, "timestamp", 0, INT64_MAX / 2, &at);
	crypt_random(&random, sizeof(random));
	timestamp = arena_printf(a, "%lld", (long long)at);
	nonce = arena_printf(a, "%u", random);
	push_sign(signature, p->token, timestamp, nonce, NULL);
	buf_printf(query, "?signature=%s&timestamp=%s&nonce=%s", signature, timestamp, nonce);
	*body = seal(p, timestamp, nonce, query);
}

static bool send_it(struct pushed *p, const cJSON *o)
{
	char host[128], at[160], path[512] = "/";
	int port = 0, end = 0;
	struct evhttp_request *rq;
	struct evkeyvalq *headers;
	struct buf query = {0};
	const char *body;

	if (sscanf(p->url, "http://%127[A-Za-z0-9.-]:%d%n%511s", host, &port, &end, path) < 2 ||
		!end)
		return false;
	buf_str(&query, path);
	add_query(p, o, &query, &body);
	rq = evhttp_request_new(on_answer, p);
	headers = evhttp_request_get_output_headers(rq);
	p->conn =
		evhttp_connection_base_new(loop_base(p->f->loop), NULL, host, (unsigned short)port);
	evhttp_connection_set_timeout(p->conn, ANSWER_S);
	evhttp_connection_set_max_body_size(p->conn, ANSWER_MAX);
	evhttp_connection_free_on_completion(p->conn);
	snprintf(at, sizeof(at), "%s:%d", host, port);
	evhttp_add_header(headers, "Host", at);
	evhttp_add_header(headers, "Connection", "close");
	evhttp_add_header(headers, "Content-Type", p->xml ? "text/xml" : "application/json");
	evbuffer_add(evhttp_request_get_output_buffer(rq), body, strlen(body));
	/* if it fails, on_answer was called */
	evhttp_make_request(p->conn, rq, EVHTTP_REQ_POST, query.data);
	buf_free(&query);
	return true;
}

/* ---- what is asked ---- */

/* {"event","openid","revoke"} for short. */
static cJSON *short_message(const struct pushed *p, const cJSON *o)
{
	const char *event, *openid, *revoke = NULL;
	cJSON *m;

	if (json_str(o, "event", 1, 128, &event) != JSON_GOT ||
		json_str(o, "openid", 1, OPENID_MAX, &openid) != JSON_GOT || !openid_ok(openid) ||
		json_str(o, "revoke", 1, 128, &revoke) == JSON_BAD)
		return NULL;
	m = cJSON_CreateObject();
	cJSON_AddStringToObject(m, "ToUserName", "gh_wxfake");
	cJSON_AddStringToObject(m, "FromUserName", openid);
	cJSON_AddNumberToObject(m, "CreateTime", (double)clock_wall_s());
	cJSON_AddStringToObject(m, "MsgType", "event");
	cJSON_AddStringToObject(m, "Event", event);
	cJSON_AddStringToObject(m, "OpenID", openid);
	cJSON_AddStringToObject(m, "AppID", p->app->appid);
	if (revoke)
		cJSON_AddStringToObject(m, "RevokeInfo", revoke);
	return m;
}

/* What is wrong with the body, or NULL. */
static const char *read_body(struct pushed *p, const cJSON *o)
{
	const cJSON *message = cJSON_GetObjectItemCaseSensitive(o, "message");

	if (json_str(o, "mode", 1, 16, &p->mode) == JSON_BAD ||
		json_str(o, "format", 1, 8, &p->format) == JSON_BAD ||
		json_str(o, "url", 1, 512, &p->url) == JSON_BAD ||
		json_str(o, "token", 1, 64, &p->token) == JSON_BAD ||
		json_str(o, "aes_key", 1, 64, &p->aes_key) == JSON_BAD)
		return "mode, format, url, token and aes_key are texts";
	p->plain = !strcmp(p->mode, "plain");
	p->compatible = !strcmp(p->mode, "compatible");
	p->xml = !strcmp(p->format, "xml");
	if ((!p->plain && !p->compatible && strcmp(p->mode, "safe") != 0) ||
		(!p->xml && strcmp(p->format, "json") != 0))
		return "mode is plain, compatible or safe; format is json or xml";
	if (!push_key_read(&p->key, p->aes_key))
		return "aes_key has 43 letters and digits";
	p->message = cJSON_IsObject(message) ? cJSON_Duplicate(message, true) : short_message(p, o);
	return p->message
		       ? NULL
		       : "give message, an object; or event and openid, and revoke where it is one";
}

void push_send(struct fake *f, struct req *r, struct app *app, const cJSON *o)
{
	struct arena *a = req_arena(r);
	struct pushed *p = arena_alloc(a, sizeof(*p));
	const char *wrong;

	*p = (struct pushed){.f = f, .r = r, .app = app, .mode = "safe", .format = "json",
		.token = f->push_token, .aes_key = f->push_aes_key};
	p->url = arena_printf(a, "%s/v1/push/%s",
		f->push_to    ? f->push_to
		: f->wxlogind ? f->wxlogind
			      : "http://127.0.0.1:8080",
		app->appid);
	req_hold(r);
	DL_APPEND(f->pushes, p);
	wrong = read_body(p, o);
	p->url = arena_strdup(a, p->url); /* o goes with the call */
	if (!wrong && !send_it(p, o))
		wrong = "url is http://host:port/path";
	if (!wrong)
		return;
	req_reply_error(r, &(struct req_error){.oc = OC_INVALID_REQUEST, .message = wrong});
	push_end(p);
}

void pushes_end(struct fake *f)
{
	struct pushed *p, *next;

	DL_FOREACH_SAFE(f->pushes, p, next) {
		evhttp_connection_free(p->conn);
		push_end(p);
	}
}
