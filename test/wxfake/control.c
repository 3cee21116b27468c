/* The /fake side: codes as a phone would get them, encrypted data, faults, and what was called. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/crypt.h"
#include "common/encode.h"
#include "common/json.h"
#include "common/mem.h"
#include "cbc.h"
#include "fake.h"

static void bad(struct req *r, const char *what)
{
	req_reply_error(r, &(struct req_error){.oc = OC_INVALID_REQUEST, .message = what});
}

/* The app that the body names, or the only one; NULL was answered. */
static struct app *app_of(struct fake *f, struct req *r, const cJSON *o)
{
	const char *appid = NULL;
	struct app *a;

	if (json_str(o, "appid", 1, 64, &appid) == JSON_BAD) {
		bad(r, "appid is not a string of 1 to 64 characters");
		return NULL;
	}
	if (!appid && f->app_count != 1) {
		bad(r, "several apps are served: name one by appid");
		return NULL;
	}
	a = appid ? state_app(f, appid) : &f->apps[0];
	if (!a)
		bad(r, "no such appid here: see --app");
	return a;
}

static const char *openid_of(struct req *r, const cJSON *o, bool required)
{
	const char *openid = NULL;

	if (json_str(o, "openid", 1, OPENID_MAX, &openid) == JSON_BAD ||
		(openid && !openid_ok(openid)) || (!openid && required)) {
		bad(r, "openid must be 1 to 128 of A-Z a-z 0-9 _ -");
		return "";
	}
	return openid;
}

static void give_code(struct fake *f, struct req *r, const cJSON *o)
{
	struct app *a = app_of(f, r, o);
	const char *openid, *kind = "login", *unionid = NULL;
	char made[29], json[512];
	struct code *c;

	if (!a || ((openid = openid_of(r, o, false)) && !*openid))
		return;
	if (json_str(o, "kind", 1, 16, &kind) == JSON_BAD ||
		(strcmp(kind, "login") && strcmp(kind, "phone")) ||
		json_str(o, "unionid", 0, OPENID_MAX, &unionid) == JSON_BAD ||
		(unionid && *unionid && !openid_ok(unionid))) {
		bad(r, "kind is login or phone; unionid is text");
		return;
	}
	if (!openid) {
		random_openid(made);
		openid = made;
	}
	if (unionid)
		snprintf(user_get(f, a, openid)->unionid, OPENID_MAX + 1, "%s", unionid);
	c = code_make(f, a, openid, strcmp(kind, "login") ? CODE_PHONE : CODE_LOGIN);
	snprintf(json, sizeof(json), "{\"code\":\"%s\",\"openid\":\"%s\"}", c->e.key, openid);
	req_reply_json(r, 200, json);
}

/* WeChat's watermark is part of what it encrypts. */
static void add_watermark(cJSON *data, const char *appid)
{
	cJSON *w = cJSON_CreateObject();

	cJSON_AddNumberToObject(w, "timestamp", (double)clock_wall_s());
	cJSON_AddStringToObject(w, "appid", appid);
	cJSON_DeleteItemFromObjectCaseSensitive(data, "watermark");
	cJSON_AddItemToObject(data, "watermark", w);
}

static void encrypt(struct fake *f, struct req *r, const cJSON *o)
{
	const cJSON *data = cJSON_GetObjectItemCaseSensitive(o, "data");
	struct arena *ar = req_arena(r);
	struct app *a = app_of(f, r, o);
	uint8_t key[16], iv[16], hash[SHA1_LEN], *sealed;
	const char *openid, *raw, *plain;
	cJSON *copy, *out;
	struct user *u;
	char *text;
	size_t n;

	if (!a || !(openid = openid_of(r, o, true)) || !*openid)
		return;
	if (!cJSON_IsObject(data)) {
		bad(r, "data must be an object");
		return;
	}
	u = user_get(f, a, openid);
	raw = json_print(ar, data);
	copy = cJSON_Duplicate(data, true);
	if (!cJSON_GetObjectItemCaseSensitive(copy, "watermark"))
		add_watermark(copy, a->appid);
	plain = json_print(ar, copy);
	json_free(copy);
	base64_decode(key, sizeof(key), u->key, strlen(u->key));
	crypt_random(iv, sizeof(iv));
	sealed = arena_alloc(ar, strlen(plain) + 16);
	n = cbc_encrypt(sealed, key, iv, plain, strlen(plain));
	text = arena_alloc(ar, BASE64_LEN(n) + 1);
	base64_encode(text, sealed, n);
	out = cJSON_CreateObject();
	cJSON_AddStringToObject(out, "encryptedData", text);
	base64_encode(text, iv, sizeof(iv));
	cJSON_AddStringToObject(out, "iv", text);
	cJSON_AddStringToObject(out, "rawData", raw);
	plain = arena_printf(ar, "%s%s", raw, u->key);
	crypt_sha1(hash, plain, strlen(plain));
	text = arena_alloc(ar, 2 * SHA1_LEN + 1);
	hex_encode(text, hash, sizeof(hash));
	cJSON_AddStringToObject(out, "signature", text);
	req_reply_json(r, 200, json_print(ar, out));
	json_free(out);
}

static void expire(struct fake *f, struct req *r, const cJSON *o)
{
	struct app *a = app_of(f, r, o);
	const char *openid;
	struct user *u;

	if (!a || !(openid = openid_of(r, o, true)) || !*openid)
		return;
	u = user_get(f, a, openid);
	user_new_key(u);
	u->alive = false;
	req_reply(r, 204, NULL, NULL, 0);
}

/* wx.checkSession asks nothing of any server of ours: WeChat's own answers it, about the key of the
 * last wx.login. */
static void check_session(struct fake *f, struct req *r, const cJSON *o)
{
	struct app *a = app_of(f, r, o);
	const char *openid;
	const struct user *u;

	if (!a || !(openid = openid_of(r, o, true)) || !*openid)
		return;
	u = user_find(f, a, openid);
	req_reply_json(r, 200, u && u->alive ? "{\"alive\":true}" : "{\"alive\":false}");
}

static void change_user(struct fake *f, struct req *r, const cJSON *o)
{
	const cJSON *blocked = cJSON_GetObjectItemCaseSensitive(o, "blocked");
	struct app *a = app_of(f, r, o);
	const char *openid, *unionid = NULL, *key = NULL;
	uint8_t raw[16];
	struct user *u;

	if (!a || !(openid = openid_of(r, o, true)) || !*openid)
		return;
	if (json_str(o, "session_key", 1, 64, &key) == JSON_BAD ||
		(key && base64_decode(raw, sizeof(raw), key, strlen(key)) != sizeof(raw))) {
		bad(r, "session_key is 16 bytes in base64");
		return;
	}
	if ((blocked && !cJSON_IsBool(blocked)) ||
		json_str(o, "unionid", 0, OPENID_MAX, &unionid) == JSON_BAD ||
		(unionid && *unionid && !openid_ok(unionid))) {
		bad(r, "blocked is true or false, unionid is text");
		return;
	}
	u = user_get(f, a, openid);
	if (blocked)
		u->blocked = cJSON_IsTrue(blocked);
	if (unionid)
		snprintf(u->unionid, sizeof(u->unionid), "%s", unionid);
	if (key)
		snprintf(u->key, sizeof(u->key), "%s", key);
	req_reply(r, 204, NULL, NULL, 0);
}

static void add_fault(struct fake *f, struct req *r, const cJSON *o)
{
	char err[160];

	if (fault_add(f, o, err, sizeof(err)))
		req_reply(r, 204, NULL, NULL, 0);
	else
		bad(r, err);
}

static void expire_token(struct fake *f, struct req *r, const cJSON *o)
{
	struct app *a = app_of(f, r, o);

	if (!a)
		return;
	token_expire(a);
	req_reply(r, 204, NULL, NULL, 0);
}

static void stats(struct fake *f, struct req *r, const cJSON *o)
{
	struct buf b = {0};

	(void)o;
	buf_str(&b, "{\"calls\":{");
	for (int i = 0; i < API_COUNT; i++)
		buf_printf(&b, "%s\"%s\":%llu", i ? "," : "", api_name((enum api)i),
			(unsigned long long)f->calls[i]);
	buf_printf(&b,
		"},\"faulted\":%llu,\"users\":%zu,\"faults\":", (unsigned long long)f->faulted,
		f->users.count);
	fault_list(f, &b);
	buf_str(&b, "}");
	req_reply_json(r, 200, b.data);
	buf_free(&b);
}

static void preflight(struct req *r)
{
	req_add_header(r, "Access-Control-Allow-Methods", "GET, POST, DELETE");
	req_add_header(r, "Access-Control-Allow-Headers", "Content-Type");
	req_reply(r, 204, NULL, NULL, 0);
}

static void clear_faults(struct fake *f, struct req *r, const cJSON *o)
{
	const char *api = req_param(r, "api");
	enum api known;

	(void)o;
	if (api && !api_by_name(api, &known)) {
		bad(r, "api: not known; without it every fault ends");
		return;
	}
	fault_clear(f, api);
	req_reply(r, 204, NULL, NULL, 0);
}

static void about(struct fake *f, struct req *r, const cJSON *o)
{
	(void)o;
	page_about(f, r);
}

static void events(struct fake *f, struct req *r, const cJSON *o)
{
	(void)o;
	if (req_method(r) == METHOD_HEAD)
		req_reply(r, 200, "text/event-stream", NULL, 0);
	else
		events_subscribe(f, r);
}

static void push(struct fake *f, struct req *r, const cJSON *o)
{
	struct app *a = app_of(f, r, o);

	if (a)
		push_send(f, r, a, o);
}

static const struct {
	enum method method;
	const char *path;
	void (*handle)(struct fake *, struct req *, const cJSON *);
} routes[] = {
	{METHOD_POST, "/fake/code", give_code},
	{METHOD_POST, "/fake/encrypt", encrypt},
	{METHOD_POST, "/fake/fault", add_fault},
	{METHOD_DELETE, "/fake/fault", clear_faults},
	{METHOD_POST, "/fake/expire", expire},
	{METHOD_POST, "/fake/check-session", check_session},
	{METHOD_POST, "/fake/user", change_user},
	{METHOD_POST, "/fake/expire-token", expire_token},
	{METHOD_POST, "/fake/push", push},
	{METHOD_GET, "/fake/about", about},
	{METHOD_GET, "/fake/stats", stats},
	{METHOD_GET, "/fake/events", events},
	{METHOD_GET, "/fake/backend", backend_call},
	{METHOD_GET, "/fake/users", backend_users},
	{METHOD_GET, "/fake/redis", group_tell},
	{METHOD_POST, "/fake/kill-redis", group_kill},
};

static void run(struct fake *f, struct req *r, size_t route)
{
	size_t len;
	const char *body = req_body(r, &len);
	cJSON *o = len ? json_parse(body, len) : cJSON_CreateObject();

	if (cJSON_IsObject(o))
		routes[route].handle(f, r, o);
	else
		bad(r, "the body is not a JSON object");
	json_free(o);
}

void control_handle(struct fake *f, struct req *r)
{
	enum method m = req_method(r);
	char allow[64] = "";

	req_set_route(r, "/fake");
	req_add_header(r, "Access-Control-Allow-Origin", "*");
	if (m == METHOD_OPTIONS) {
		preflight(r);
		return;
	}
	for (size_t i = 0; i < NELEM(routes); i++) {
		if (strcmp(routes[i].path, req_path(r)))
			continue;
		if (routes[i].method == (m == METHOD_HEAD ? METHOD_GET : m)) {
			run(f, r, i);
			return;
		}
		strcat(allow, routes[i].method == METHOD_GET    ? "GET, HEAD, "
			      : routes[i].method == METHOD_POST ? "POST, "
								: "DELETE, ");
	}
	if (!allow[0]) {
		req_reply_outcome(r, OC_NOT_FOUND);
		return;
	}
	strcat(allow, "OPTIONS");
	req_add_header(r, "Allow", allow);
	req_reply_outcome(r, OC_METHOD_NOT_ALLOWED);
}
