/* POST /v1/open-data: what WeChat signed or encrypted for this user, checked and opened under the user's session_key. */
#include <string.h>

#include "api/guard.h"
#include "common/json.h"
#include "common/mem.h"
#include "wechat/sealed.h"

enum { DATA_MAX = 1024 * 1024, IV_MAX = 64, UNIONID_WAIT_MS = 2000 };

struct opening {
	struct api *api;
	struct req *req;
	const char *encrypted, *iv;    /* both or neither */
	const char *raw, *signature;   /* both or neither */
	const char *appid, *openid;
};

/* What is wrong with the body, or NULL. */
static const char *read_body(struct opening *o)
{
	struct arena *a = req_arena(o->req);
	const char **const at[] = {&o->encrypted, &o->iv, &o->raw, &o->signature}, *const names[] = {"encryptedData", "iv", "rawData", "signature"};
	const char *text, *wrong = NULL;
	size_t len;
	const char *body = req_body(o->req, &len);
	cJSON *tree = json_parse(body, len);

	for (size_t i = 0; i < NELEM(at) && tree; i++) {
		switch (json_str(tree, names[i], 1, i == 1 ? IV_MAX : DATA_MAX, &text)) {
		case JSON_GOT:
			*at[i] = arena_strdup(a, text);
			break;
		case JSON_BAD:
			wrong = "encryptedData, iv, rawData and signature are texts, and not empty.";
			break;
		default:
			break;
		}
	}
	if (!cJSON_IsObject(tree))
		wrong = "The body is not a JSON object in valid UTF-8.";
	else if (!wrong && (!o->encrypted != !o->iv || !o->raw != !o->signature || (!o->iv && !o->raw)))
		wrong = "Give encryptedData with iv, or rawData with signature, or all four.";
	json_free(tree);
	return wrong;
}

static void on_unionid_kept(void *ctx, enum outcome oc, const struct user *u)
{
	(void)ctx;
	(void)oc; /* it will be there the next time, too */
	(void)u;
}

/* The unionid inside is the user's, whoever asks. Nobody waits for it: the data is good without. */
static void keep_unionid(const struct opening *o, const cJSON *data)
{
	struct user_patch p = {.given = 1u << USER_unionid, .keep = true};

	if (json_str(data, "unionId", 1, USER_unionid_MAX, &p.text[USER_unionid]) == JSON_GOT)
		user_put(o->api->users, o->appid, o->openid, &p, UNIONID_WAIT_MS, on_unionid_kept, NULL);
}

static void reply_data(struct req *r, cJSON *data)
{
	static const char *const kept[] = {"watermark", "openId", "unionId"}; /* the client has no business with the last two */
	cJSON *o = cJSON_CreateObject();

	for (size_t i = 0; i < NELEM(kept); i++)
		cJSON_DeleteItemFromObjectCaseSensitive(data, kept[i]);
	cJSON_AddItemToObject(o, "data", data);
	req_reply_json(r, 200, json_print(req_arena(r), o));
	json_free(o);
}

/* The openId inside, where there is one, must be the session's. */
static bool is_theirs(const struct opening *o, const cJSON *data)
{
	const char *openid;

	switch (json_str(data, "openId", 1, 128, &openid)) {
	case JSON_ABSENT:
		return true;
	case JSON_GOT:
		return !strcmp(openid, o->openid);
	default:
		return false;
	}
}

/* Under one key: OK with the data, or why not. */
static enum outcome open_under(struct opening *o, const char *key, cJSON **data)
{
	if (o->raw && !sealed_signature_ok(key, o->raw, o->signature))
		return OC_SIGNATURE_MISMATCH;
	/* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker): read_body saw to it that there is one of the two */
	*data = o->encrypted ? sealed_open(req_arena(o->req), key, o->encrypted, o->iv, o->appid) : json_parse(o->raw, strlen(o->raw));
	if (cJSON_IsObject(*data) && is_theirs(o, *data))
		return OC_OK;
	json_free(*data);
	*data = NULL;
	return OC_DECRYPT_FAILED;
}

static void on_keys(void *ctx, enum outcome oc, const char *const *keys, size_t n)
{
	struct opening *o = ctx;
	struct req *r = o->req;
	cJSON *data = NULL;

	if (oc == OC_OK) {
		oc = o->raw ? OC_SIGNATURE_MISMATCH : OC_DECRYPT_FAILED;
		for (size_t i = 0; i < n && oc != OC_OK; i++) {
			enum outcome this = open_under(o, keys[i], &data);

			oc = this == OC_SIGNATURE_MISMATCH && i > 0 ? oc : this; /* one that got further says more */
		}
	}
	if (oc == OC_OK) {
		keep_unionid(o, data);
		reply_data(r, data);
	} else {
		req_reply_outcome(r, oc);
	}
	req_release(r);
}

static void on_session(void *ctx, const struct session *ses)
{
	struct opening *o = ctx;
	const char *wrong = read_body(o);

	if (wrong) {
		req_reply_error(o->req, &(struct req_error){.oc = OC_INVALID_REQUEST, .message = wrong});
		return;
	}
	o->appid = arena_strdup(req_arena(o->req), ses->appid);
	o->openid = arena_strdup(req_arena(o->req), ses->openid);
	req_hold(o->req);
	session_keys(o->api->sessions, o->appid, o->openid, on_keys, o);
}

void open_data_handle(struct api *api, struct req *r)
{
	struct opening *o = arena_alloc(req_arena(r), sizeof(*o));

	o->api = api;
	o->req = r;
	guard_session(api, r, on_session, o);
}
