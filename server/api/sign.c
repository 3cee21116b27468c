/* What only the holder of a session_key can do, done for backends: a signature with it, and the
 * keys that encrypt requests. The session_key itself never leaves.
 *
 * An empty text is never signed: its signature is what WeChat's checksession, getuserencryptkey and
 * resetusersessionkey take. */
#include <stdlib.h>
#include <string.h>

#include "api/guard.h"
#include "api/record.h"
#include "common/crypt.h"
#include "common/encode.h"
#include "common/json.h"
#include "common/mem.h"

static void reply_no_session(struct req *r)
{
	req_reply_error(r, &(struct req_error){.oc = OC_NOT_FOUND,
		.message = "The user has no valid session: the mini program must log in."});
}

/* ---- sign ---- */

static void reply_signature(struct req *r, const char *session_key)
{
	uint8_t mac[SHA256_LEN];
	char hex[2 * SHA256_LEN + 1];
	size_t len;
	const char *body = req_body(r, &len);

	crypt_hmac_sha256(mac, session_key, strlen(session_key), body, len); /* the base64 text */
	hex_encode(hex, mac, sizeof(mac));
	req_reply_json(r, 200, arena_printf(req_arena(r), "{\"signature\":\"%s\"}", hex));
}

static void on_signing_keys(void *ctx, enum outcome oc, const char *const *keys, size_t n)
{
	struct req *r = ctx;

	if (oc != OC_OK)
		req_reply_outcome(r, oc);
	else if (n == 0)
		reply_no_session(r);
	else
		reply_signature(r, keys[0]);
	req_release(r);
}

void sign_handle(struct api *api, struct req *r)
{
	const char *appid, *openid;
	size_t len;

	if (!guard_path_user(api, r, &appid, &openid))
		return;
	req_body(r, &len);
	if (len == 0) {
		req_reply_error(r, &(struct req_error){.oc = OC_INVALID_REQUEST,
			.message = "The body is empty: send the bytes to sign."});
		return;
	}
	record_success(api, r, AUDIT_SIGNED, AUDIT_BY_BACKEND, appid, openid);
	req_hold(r);
	session_keys(api->sessions, appid, openid, on_signing_keys, r);
}

/* ---- encrypt-keys ---- */

struct fetching {
	struct api *api;
	struct req *req;
	struct wechat_app *app;
	const char *openid;
	int64_t version; /* what is kept must be this new; -1: anything will do */
	const char *session_keys[SESSION_KEYS_MAX];
	size_t key_count, key; /* the newest is tried first */
	struct keeper_use use;
};

static void add_key(struct buf *b, const struct wechat_encrypt_key *k, int64_t age_s)
{
	int64_t left_s = k->expires_in_s - age_s;

	json_open(b, NULL, '{');
	json_add_int(b, "version", k->version);
	json_add_str(b, "encrypt_key", k->encrypt_key);
	json_add_str(b, "iv", k->iv);
	json_add_int(b, "expires_in", left_s > 0 ? left_s : 0);
	json_add_int(b, "created_at", k->created_at);
	json_close(b, '}');
}

static const char *print_keys(
	struct arena *a, const struct wechat_encrypt_keys *keys, int64_t age_s)
{
	struct buf b = {0};
	const char *text;

	json_open(&b, NULL, '{');
	json_open(&b, "keys", '[');
	for (size_t i = 0; i < keys->n; i++)
		add_key(&b, &keys->list[i], age_s);
	json_close(&b, ']');
	json_close(&b, '}');
	text = arena_strndup(a, b.data, b.len);
	mem_wipe(b.data, b.len);
	buf_free(&b);
	return text;
}

/* What print_keys has printed. The texts are tree's. */
static void read_keys(const cJSON *tree, struct wechat_encrypt_keys *keys)
{
	const cJSON *list = cJSON_GetObjectItemCaseSensitive(tree, "keys"), *item;

	cJSON_ArrayForEach(item, list) {
		struct wechat_encrypt_key *k = &keys->list[keys->n];

		if (keys->n < WECHAT_ENCRYPT_KEYS_MAX &&
			json_int(item, "version", 0, INT64_MAX / 2, &k->version) == JSON_GOT &&
			json_str(item, "encrypt_key", 1, 128, &k->encrypt_key) == JSON_GOT &&
			json_str(item, "iv", 1, 128, &k->iv) == JSON_GOT &&
			json_int(item, "expires_in", 0, INT32_MAX, &k->expires_in_s) == JSON_GOT &&
			json_int(item, "created_at", 0, INT64_MAX / 2, &k->created_at) == JSON_GOT)
			keys->n++;
	}
}

static const struct wechat_encrypt_key *newest(const struct wechat_encrypt_keys *keys)
{
	const struct wechat_encrypt_key *k = NULL;

	for (size_t i = 0; i < keys->n; i++)
		if (!k || keys->list[i].version > k->version)
			k = &keys->list[i];
	return k;
}

static void on_fetched(void *ctx, enum outcome oc, const struct wechat_encrypt_keys *keys)
{
	struct fetching *f = ctx;
	struct req *r = f->req;
	const struct wechat_encrypt_key *k = newest(keys);
	const char *text;

	if (keeper_use_again(&f->use, keys->errcode))
		return;
	if (oc == OC_SESSION_KEY_EXPIRED && ++f->key < f->key_count) {
		f->use.call(f, f->use.token); /* which of the two is WeChat's newest is not known */
		return;
	}
	if (oc == OC_OK) {
		text = print_keys(req_arena(r), keys, 0);
		if (k && k->expires_in_s > 0)
			keycache_put(f->api->keycache, f->app->appid, f->openid, text,
				k->expires_in_s * 1000);
		req_reply_json(r, 200, text);
	} else {
		req_reply_error(r, &(struct req_error){.oc = oc, .errcode = keys->errcode,
			.retry_after_s = wechat_retry_after_s(keys->errcode)});
	}
	req_release(r);
}

static void fetch_call(void *ctx, const char *token)
{
	struct fetching *f = ctx;

	wechat_getuserencryptkey(f->api->wechat, f->app, token, f->openid, f->session_keys[f->key],
		on_fetched, f);
}

static void fetch_fail(void *ctx, const struct keeper_answer *why)
{
	struct fetching *f = ctx;
	struct req *r = f->req;

	req_reply_error(r, &(struct req_error){
		.oc = why->oc, .errcode = why->errcode, .retry_after_s = why->retry_after_s});
	req_release(r);
}

static void on_session_keys(void *ctx, enum outcome oc, const char *const *keys, size_t n)
{
	struct fetching *f = ctx;
	struct req *r = f->req;

	if (oc != OC_OK || n == 0) {
		if (oc != OC_OK)
			req_reply_outcome(r, oc);
		else
			reply_no_session(r);
		req_release(r);
		return;
	}
	for (; f->key_count < n; f->key_count++)
		f->session_keys[f->key_count] = arena_strdup(req_arena(r), keys[f->key_count]);
	f->use = (struct keeper_use){.keeper = f->api->keeper, .arena = req_arena(r), .app = f->app,
		.call = fetch_call, .fail = fetch_fail, .ctx = f};
	keeper_use(&f->use);
}

/* The answer from what is kept; NULL: WeChat must be asked. */
static const char *print_kept(struct fetching *f, const char *text, int64_t age_ms)
{
	cJSON *tree = text ? json_parse(text, strlen(text)) : NULL;
	struct wechat_encrypt_keys keys = {0};
	const char *answer = NULL;

	read_keys(tree, &keys);
	if (keys.n && newest(&keys)->version >= f->version)
		answer = print_keys(req_arena(f->req), &keys, age_ms / 1000);
	json_free(tree);
	return answer;
}

static void on_kept(void *ctx, enum outcome oc, const char *text, int64_t age_ms)
{
	struct fetching *f = ctx;
	struct req *r = f->req;
	const char *answer = oc == OC_OK ? print_kept(f, text, age_ms) : NULL;

	if (oc == OC_OK && !answer) {
		session_keys(f->api->sessions, f->app->appid, f->openid, on_session_keys, f);
		return;
	}
	if (answer)
		req_reply_json(r, 200, answer);
	else
		req_reply_outcome(r, oc);
	req_release(r);
}

/* false: the parameter is no version. */
static bool read_version(struct req *r, int64_t *version)
{
	const char *text = req_param(r, "version");
	size_t n = text ? strlen(text) : 0;

	*version = text ? strtoll(text, NULL, 10) : -1;
	return !text || (n >= 1 && n <= 15 && strspn(text, "0123456789") == n);
}

void encrypt_keys_handle(struct api *api, struct req *r)
{
	struct fetching *f = arena_alloc(req_arena(r), sizeof(*f));
	const char *appid, *openid;

	if (!guard_path_user(api, r, &appid, &openid))
		return;
	if (!read_version(r, &f->version)) {
		req_reply_error(r, &(struct req_error){.oc = OC_INVALID_REQUEST,
			.message = "version must be a whole number, as the mini program has it."});
		return;
	}
	f->api = api;
	f->req = r;
	f->app = api_app_copy(req_arena(r), api_app(api, appid, strlen(appid)));
	f->openid = openid;
	req_hold(r);
	keycache_get(api->keycache, appid, openid, on_kept, f);
}
